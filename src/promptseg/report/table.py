"""Runs as rows: one per task, model, strategy and selection, and their means over tasks."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from promptseg.record import IDENTITY, RunFolder
from promptseg.stats import Estimate, Group, estimate, jitter_label, over_tasks

Scalar = str | int | float | bool | None
UNITS_OF_LENGTH = ("mm", "px")


@dataclass(frozen=True, slots=True)
class Surface:
    """How far the borders are apart, in one unit of length."""

    unit: str
    nsd: Estimate
    hd95: Estimate
    assd: Estimate


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table. `group.task` is None for a mean over tasks.

    `surfaces` has an entry for every unit of length that occurs: none, mm, px, or both.
    """

    group: Group
    dice: Estimate
    surfaces: tuple[Surface, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """The records of several runs in one frame, and the order in which their names are shown.

    The column `run` counts the runs from 0; `model` is the name shown and `model_of_run` the one
    in the run. They differ where one name would otherwise stand for two results.
    """

    runs: tuple[RunFolder, ...]
    records: pl.DataFrame
    names: tuple[Mapping[str, str], ...]  # of each run: name in the run -> name shown

    def order(self, row: Row) -> tuple[int, int, int, str, str]:
        """Sort key of a row within a task: as the runs list models, strategies and selections."""
        group = row.group
        models = [shown for names in self.names for shown in names.values()]
        strategies = [name for folder in self.runs for name in folder.run.strategies]
        selections = [name for folder in self.runs for name in folder.run.selections]
        rest = f"{group.protocol} {group.unit} {group.jitter or ''}"
        return (
            _place(models, group.model),
            _place(strategies, group.strategy),
            _place(selections, group.selection),
            rest,
            group.task or "",
        )


def _place(names: Sequence[str], name: str) -> int:
    return names.index(name) if name in names else len(names)


def pool(runs: Sequence[RunFolder]) -> Pool:
    """Bring runs together; raises ValueError without a run."""
    if not runs:
        raise ValueError("a report needs at least one run")
    frames = [run.records().with_columns(run=pl.lit(i)) for i, run in enumerate(runs)]
    whole = pl.concat(frames).with_columns(model_of_run="model", jitter=jitter_label())
    clashing = _ambiguous(runs, whole)
    names = tuple(
        {name: f"{name} (run {i})" if name in clashing else name for name in folder.run.models}
        for i, folder in enumerate(runs, start=1)
    )
    numbered = pl.format("{} (run {})", "model", pl.col("run") + 1)
    shown = pl.when(pl.col("model").is_in(clashing)).then(numbered).otherwise("model")
    return Pool(tuple(runs), whole.with_columns(model=shown), names)


def _ambiguous(runs: Sequence[RunFolder], records: pl.DataFrame) -> list[str]:
    """Find the models that must not be pooled: other weights, or the same targets scored twice."""
    hashes: dict[str, set[str]] = {}
    for folder in runs:
        for name, weights in folder.run.models.items():
            hashes.setdefault(name, set()).add(weights)
    scored = records.group_by(*IDENTITY, "protocol", "unit").agg(pl.col("run").n_unique())
    twice = scored.filter(pl.col("run") > 1)["model"].unique().to_list()
    return sorted({name for name, known in hashes.items() if len(known) > 1} | set(twice))


def table_rows(runs: Sequence[RunFolder]) -> list[Row]:
    """Give one row per task, model, strategy and selection: the numbers of the report's table."""
    return task_rows(pool(runs))


def summary_rows(runs: Sequence[RunFolder]) -> list[Row]:
    """Give the means over tasks of every on-protocol model, strategy and selection."""
    return mean_rows(pool(runs))


def task_rows(pooled: Pool) -> list[Row]:
    """Give the rows of a pool, ordered by task."""
    rows = _rows(pooled.records, estimate)
    return sorted(rows, key=lambda row: (row.group.task or "", *pooled.order(row)))


def mean_rows(pooled: Pool) -> list[Row]:
    """Give the means over tasks of a pool."""
    return sorted(_rows(pooled.records, over_tasks), key=pooled.order)


def _rows(
    records: pl.DataFrame, measure: Callable[[pl.DataFrame, str], Mapping[Group, Estimate]]
) -> list[Row]:
    nsd, hd95, assd = (measure(records, metric) for metric in ("nsd", "hd95", "assd"))

    def surfaces(group: Group) -> tuple[Surface, ...]:
        keys = [(unit, replace(group, distance_unit=unit)) for unit in UNITS_OF_LENGTH]
        return tuple(Surface(u, nsd[k], hd95[k], assd[k]) for u, k in keys if k in hd95)

    return [Row(group, dice, surfaces(group)) for group, dice in measure(records, "dice").items()]


def flat(row: Row) -> dict[str, Scalar]:
    """Spell a row out as names and plain values: a line of the CSV, an object of the JSON."""
    group, dice = row.group, row.dice
    values: dict[str, Scalar] = {
        "task": group.task,
        "model": group.model,
        "strategy": group.strategy,
        "selection": group.selection,
        "protocol": group.protocol,
        "unit": group.unit,
        "jitter": group.jitter,
        "off_protocol": group.off_protocol,
        "n_tasks": dice.n_tasks,
        "n_subjects": dice.n_subjects,
        "n_images": dice.n_images,
        "n_targets": dice.n_targets,
        "n_failed": dice.n_failed,
        "rate_empty": dice.rate_empty,
        "rate_no_overlap": dice.rate_no_overlap,
        **_spread("dice", dice),
        "interval": dice.method,
        "notes": "; ".join(dice.notes),
    }
    by_unit = {surface.unit: surface for surface in row.surfaces}
    for unit in UNITS_OF_LENGTH:
        values |= _distances(unit, by_unit.get(unit))
    return values


def _distances(unit: str, surface: Surface | None) -> dict[str, Scalar]:
    nothing = Estimate(value=None)
    at = surface or Surface(unit, nothing, nothing, nothing)
    return {
        **_spread(f"nsd_{unit}", at.nsd),
        **_spread(f"hd95_{unit}", at.hd95),
        f"hd95_{unit}_with_misses": at.hd95.with_misses,
        **_spread(f"assd_{unit}", at.assd),
        f"assd_{unit}_with_misses": at.assd.with_misses,
        f"n_undefined_{unit}": at.hd95.n_undefined,
    }


def _spread(name: str, item: Estimate) -> dict[str, Scalar]:
    return {name: item.value, f"{name}_lo": item.lo, f"{name}_hi": item.hi}


def as_csv(rows: Sequence[Row]) -> str:
    """Write rows as CSV with full precision; an undefined value is an empty field."""
    sink = io.StringIO()
    lines = [flat(row) for row in rows]
    writer = csv.DictWriter(sink, list(lines[0]) if lines else ["task"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return sink.getvalue()


def leads(summary: Sequence[Row]) -> list[Row]:
    """Pick of every model the on-protocol strategy and selection to speak of first.

    That is the highest mean DICE among the selections that do not look at the reference; where
    there are none, among those by oracle.
    """
    best: dict[str, Row] = {}
    for row in summary:
        held = best.get(row.group.model)
        if row.dice.value is not None and (held is None or _merit(row) > _merit(held)):
            best[row.group.model] = row
    return list(best.values())


def _merit(row: Row) -> tuple[bool, float]:
    return row.group.selection != "oracle", row.dice.value or 0.0
