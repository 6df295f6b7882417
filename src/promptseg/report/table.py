"""Runs as rows: one per task, model, strategy and selection, and their means over tasks."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from promptseg.contamination import MARK, contaminated
from promptseg.errors import DataError
from promptseg.record import IDENTITY, RunFolder
from promptseg.stats import Estimate, Group, estimate, jitter_label, over_tasks

Scalar = str | int | float | bool | None
UNITS_OF_LENGTH = ("mm", "px")
USUAL_UNIT = "class"


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
    in the run. They differ where one name would otherwise stand for two results. Where units of
    evaluation vary, `task` names every unit but the usual one: "nucleus (CT), by instance".
    """

    runs: tuple[RunFolder, ...]
    records: pl.DataFrame
    names: tuple[Mapping[str, str], ...]  # of each run: name in the run -> name shown

    def order(self, row: Row) -> tuple[int, int, int, str, int, str, str]:
        """Sort key of a row within a task: as the runs list models, strategies and selections.

        Prompts as they are come before jittered ones, which come in the order of the runs.
        """
        group = row.group
        models = [shown for names in self.names for shown in names.values()]
        strategies = [name for folder in self.runs for name in folder.run.strategies]
        selections = [name for folder in self.runs for name in folder.run.selections]
        levels = [None, *(level for folder in self.runs for level in folder.run.jitter)]
        return (
            _place(models, group.model),
            _place(strategies, group.strategy),
            _place(selections, group.selection),
            group.protocol,
            _place(levels, group.jitter),
            group.jitter or "",
            group.task or "",
        )


def _place(names: Sequence[str | None], name: str | None) -> int:
    return names.index(name) if name in names else len(names)


def pool(runs: Sequence[RunFolder]) -> Pool:
    """Bring runs together; raises ValueError without a run.

    Raises
    ------
    DataError
        A run is given twice or is damaged, or the runs measured NSD with different tolerances.
    """
    if not runs:
        raise ValueError("a report needs at least one run")
    _require_poolable(runs)
    frames = [
        _records(folder).with_columns(run=pl.lit(i), corpus=pl.lit(folder.run.corpus_fingerprint))
        for i, folder in enumerate(runs)
    ]
    whole = pl.concat(frames).with_columns(model_of_run="model", jitter=jitter_label())
    if len({folder.run.unit for folder in runs}) > 1:
        by = pl.when(pl.col("unit") != USUAL_UNIT).then(pl.format(", by {}", "unit"))
        whole = whole.with_columns(task=pl.col("task") + by.otherwise(pl.lit("")))
    clashing = _ambiguous(runs, whole)
    names = tuple(
        {name: f"{name} (run {i})" if name in clashing else name for name in folder.run.models}
        for i, folder in enumerate(runs, start=1)
    )
    numbered = pl.format("{} (run {})", "model", pl.col("run") + 1)
    shown = pl.when(pl.col("model").is_in(clashing)).then(numbered).otherwise("model")
    return _apart(Pool(tuple(runs), whole.with_columns(model=shown), names))


def _apart(pooled: Pool) -> Pool:
    """Set results on data that a model was trained on apart, under a name that says so.

    They count as off-protocol: shown and marked, in no headline, mean over tasks or ranking.
    """
    names = [dict(own) for own in pooled.names]
    seen = pl.lit(False)
    for number, folder in enumerate(pooled.runs):
        own = pooled.records.filter(pl.col("run") == number)
        for model, shown in pooled.names[number].items():
            datasets = own.filter(pl.col("model_of_run") == model)["dataset"].unique().to_list()
            if same := contaminated(folder.run, model, sorted(datasets)):
                names[number][f"{model} ({MARK})"] = f"{shown} ({MARK})"
                of_run = (pl.col("run") == number) & (pl.col("model_of_run") == model)
                seen = seen | (of_run & pl.col("dataset").is_in(same))
    renamed = pl.format("{} ({})", "model", pl.lit(MARK))
    records = pooled.records.with_columns(
        off_protocol=pl.col("off_protocol") | seen,
        model=pl.when(seen).then(renamed).otherwise("model"),
    )
    return replace(pooled, records=records, names=tuple(names))


def _require_poolable(runs: Sequence[RunFolder]) -> None:
    seen: set[Path] = set()
    for folder in runs:
        if folder.path.resolve() in seen:
            raise DataError(f"{folder.path} is given twice. Name every run once.")
        seen.add(folder.path.resolve())
    tolerances = [folder.run.nsd_tolerance for folder in runs]
    if len(set(tolerances)) > 1:
        told = ", ".join(f"{f.path.name}: {f.run.nsd_tolerance:g}" for f in runs)
        raise DataError(
            f"These runs measured NSD with different tolerances ({told}), which must not be "
            "averaged together. Report them separately."
        )


def _records(folder: RunFolder) -> pl.DataFrame:
    try:
        return folder.records()
    except (pl.exceptions.PolarsError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"The records of {folder.path} are damaged ({reason}).") from error


def _ambiguous(runs: Sequence[RunFolder], records: pl.DataFrame) -> list[str]:
    """Find the models that must not be pooled: their settings differ, or targets came twice."""
    weights: dict[str, set[str]] = {}
    grids: dict[str, set[str]] = {}
    for folder in runs:
        for name, digest in folder.run.models.items():
            weights.setdefault(name, set()).add(digest)
        for name, grid in folder.run.everything.items():
            grids.setdefault(name, set()).add(json.dumps(grid, sort_keys=True))
    unlike = {name for kind in (weights, grids) for name, known in kind.items() if len(known) > 1}
    scored = records.group_by(*IDENTITY, "protocol", "unit").agg(pl.col("run").n_unique())
    twice = scored.filter(pl.col("run") > 1)["model"].unique().to_list()
    return sorted(unlike | set(twice))


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


def leads(summary: Sequence[Row]) -> list[Row]:
    """Pick of every model the on-protocol strategy and selection to speak of first.

    That is the highest mean DICE among the selections that do not look at the reference, or by
    oracle where there are none. What was run on more tasks goes first: means over few tasks are no
    rivals of means over many. Jittered prompts are no rivals of exact ones.
    """
    best: dict[str, Row] = {}
    for row in summary:
        held = best.get(row.group.model)
        if row.dice.value is None or row.group.jitter is not None:
            continue
        if held is None or merit(row) > merit(held):
            best[row.group.model] = row
    return list(best.values())


def is_deployable(group: Group) -> bool:
    """Tell whether a user could choose like this: without the reference, and by a rule.

    Everything has none: which of its masks is meant, only the reference tells.
    """
    return group.selection != "oracle" and group.strategy != "everything"


def merit(row: Row) -> tuple[bool, int, float]:
    """Sort key of a mean over tasks: deployable, over many tasks, with a high DICE."""
    return is_deployable(row.group), row.dice.n_tasks, row.dice.value or 0.0
