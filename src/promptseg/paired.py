"""Two models on identical prompts: what changed, how surely, and what could not be compared.

The unit is a pair: the record before and the record after, of the same prompt, selection and seed.
Differences are averaged as `stats` averages scores: target -> image -> subject -> task -> mean over
tasks. What only one of the two has is counted and enters nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from promptseg.errors import DataError
from promptseg.record import IDENTITY, RunFolder
from promptseg.significance import can_pass, effect_size, holm, sign_flip_p
from promptseg.stats import IN_UNITS, KEY, Estimate, Group, estimate, jitter_label, over_tasks

Off = Literal["before", "after", "both"]
Verdict = Literal["tested", "too few subjects to test", "off-protocol", "nothing to test"]

ALL = "all tasks"
# what makes two prompts one; masks of other tools have a prompt_id only where there is a mask
_PAIRING = (
    "corpus", "protocol", "unit", "asked",
    *(name for name in IDENTITY if name != "model"),
)  # fmt: skip
_COUNTED = ("protocol", "unit", "strategy", "selection", "jitter", "task")
_VALUES = ("before", "after", "difference")


@dataclass(frozen=True, slots=True)
class Unit:
    """One subject (or image, where subjects are unknown): its means over the same prompts."""

    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Counts:
    """Records that are in no pair, of the model before and of the one after."""

    unpaired_before: int = 0  # scored, without a scored counterpart
    unpaired_after: int = 0
    failed_before: int = 0
    failed_after: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What changed under one strategy and selection, of one task or on the mean over several.

    `difference` is after minus before, with its interval over subjects; `before` and `after` are
    means over the same pairs. `effect` is the mean of the subjects' differences over their
    standard deviation (Cohen's d_z); None below five subjects, and where subjects have different
    tasks. `p` is two-sided, by flipping the signs of the subjects; `p_holm` is corrected for all
    rows of the comparison that are tested.
    """

    group: Group  # `model` is the one after; off-protocol if it is for either
    scope: str | None = None  # of a mean over tasks: the name of the tasks
    off: Off | None = None
    before: float | None = None
    after: float | None = None
    difference: Estimate
    effect: float | None = None
    n_units: int = 0
    verdict: Verdict = "nothing to test"
    p: float | None = None
    p_holm: float | None = None
    n_pairs: int = 0
    counts: Counts = Counts()
    units: tuple[Unit, ...] = ()  # of one task


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two models compared: a cell per task, strategy and selection, and means over tasks.

    There is a mean over tasks wherever a scope has more than one task on-protocol.
    """

    before: str
    after: str
    metric: str
    cells: tuple[Cell, ...]
    means: tuple[Cell, ...]
    counts: Counts  # of all records, those without a task included
    n_pairs: int
    n_tested: int  # rows that the correction is for


def gather(runs: Sequence[RunFolder]) -> pl.DataFrame:
    """Bring the records of runs together; the column `corpus` tells corpora apart.

    Raises
    ------
    DataError
        A run is given twice or is damaged, or one model name stands for different weights.
    """
    if not runs:
        raise ValueError("a comparison needs at least one run")
    seen: set[Path] = set()
    hashes: dict[str, str] = {}
    for folder in runs:
        if folder.path.resolve() in seen:
            raise DataError(f"{folder.path} is given twice. Name every run once.")
        seen.add(folder.path.resolve())
        for name, digest in folder.run.models.items():
            if hashes.setdefault(name, digest) != digest:
                raise DataError(
                    f"{name} has other weights in {folder.path} than in another run, so that its "
                    "records do not belong together. Leave one of the runs out."
                )
    return pl.concat([_records(folder) for folder in runs])


def _records(folder: RunFolder) -> pl.DataFrame:
    try:
        return folder.records().with_columns(corpus=pl.lit(folder.run.corpus_fingerprint))
    except (pl.exceptions.PolarsError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"The records of {folder.path} are damaged ({reason}).") from error


def compare(
    records: pl.DataFrame,
    before: str,
    after: str,
    *,
    metric: str = "dice",
    scopes: Mapping[str, frozenset[str]] | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare two models by the prompts that both were scored on.

    Parameters
    ----------
    records
        Of one or several runs, as `gather` gives them; other models may be among them.
    before, after
        Names of the two models.
    metric
        A column of the records. Of distances and NSD, millimetres and pixels are cells apart.
    scopes
        Name -> tasks over which there is a mean; else one over all.
    seed
        Of the bootstrap, and of the sign flips that are drawn.

    Raises
    ------
    DataError
        A model has no record, or a prompt was scored twice.

    References
    ----------
    Intervals as `stats.estimate`: Student, Biometrika 6 (1908), doi:10.1093/biomet/6.1.1, and
    B. Efron, Annals of Statistics 7 (1979), doi:10.1214/aos/1176344552. Tests: `sign_flip_p`,
    `holm` and `can_pass` of `significance`, after Fisher 1935 and Pitman 1937
    (doi:10.2307/2984124), Holm 1979, and Tarone 1990 (doi:10.2307/2531456).
    """
    own = _of_models(records, before, after)
    scored = _marked(own.filter(pl.col("outcome") != "failed"), before, metric)
    pairs = _pairs(scored, after)
    counted = _counted(own, scored, before)
    told = scopes or {ALL: frozenset(pairs["task"].drop_nulls().unique())}
    in_units = metric in IN_UNITS
    rows = [
        cell
        for unit in (sorted(set(pairs["distance_unit"].drop_nulls())) if in_units else [None])
        for frame in [pairs.filter(pl.col("distance_unit") == unit) if unit else pairs]
        for cell in (*_cells(frame, unit, seed), *_means(frame, unit, told, seed))
    ]
    rows += _unpaired({_counted_key(row.group) for row in rows}, counted, own, before)
    tested = _tested([_with_counts(row, counted) for row in rows])
    return Comparison(
        before=before,
        after=after,
        metric=metric,
        cells=tuple(sorted((c for c in tested if c.scope is None), key=_order)),
        means=tuple(c for c in tested if c.scope is not None),
        counts=_counts(own, scored, before),
        n_pairs=len(pairs),
        n_tested=sum(cell.verdict == "tested" for cell in tested),
    )


def pairs_of(
    records: pl.DataFrame, before: str, after: str, *, metric: str = "dice"
) -> pl.DataFrame:
    """Give the pairs themselves: the records after, with what their prompt gave before.

    Columns `before`, `after` and `difference` hold the metric, null where it is undefined for one
    of the two; `mask_before` is the index of the mask before. Raises as `compare`.
    """
    own = _of_models(records, before, after)
    return _pairs(_marked(own.filter(pl.col("outcome") != "failed"), before, metric), after)


def _pairs(scored: pl.DataFrame, after: str) -> pl.DataFrame:
    off = pl.col("off_before") | pl.col("off_after")
    return scored.filter(pl.col("model") == after, "paired").with_columns(off_protocol=off)


def _of_models(records: pl.DataFrame, before: str, after: str) -> pl.DataFrame:
    if before == after:
        raise DataError(f"{before} cannot be compared with itself: name two models.")
    names = sorted(records["model"].unique())
    for name in (before, after):
        if name not in names:
            raise DataError(
                f"The runs hold no record of {name}, but of {', '.join(names) or 'nobody'}. Score "
                "both models on the same corpus by `promptseg evaluate`."
            )
    corpus = "corpus" if "corpus" in records.columns else pl.lit("")
    asked = pl.when(pl.col("strategy") != "masks").then("prompt_id")
    own = records.filter(pl.col("model").is_in([before, after]))
    return own.with_columns(corpus=corpus, asked=asked, jitter=jitter_label())


def _marked(scored: pl.DataFrame, before: str, metric: str) -> pl.DataFrame:
    """Add to every record what its pair has; `paired` where both were scored.

    A value that is undefined for one of the two is undefined for the pair.
    """
    first = pl.col("model") == before
    whole = scored.with_columns(
        n_before=first.sum().over(_PAIRING),
        n_after=(~first).sum().over(_PAIRING),
        off_before=pl.col("off_protocol").filter(first).first().over(_PAIRING),
        off_after=pl.col("off_protocol").filter(~first).first().over(_PAIRING),
        mask_before=pl.col("mask_index").filter(first).first().over(_PAIRING),
        before=pl.col(metric).filter(first).first().over(_PAIRING),
        after=pl.col(metric).filter(~first).first().over(_PAIRING),
    )
    twice = whole.filter((pl.col("n_before") > 1) | (pl.col("n_after") > 1))
    if len(twice):
        raise DataError(
            f"{twice['model'][0]} was scored twice on one prompt ({len(twice)} records). Give "
            "every model and strategy in one run only."
        )
    difference = pl.col("after") - pl.col("before")
    is_known = difference.is_not_null()
    return whole.with_columns(
        paired=(pl.col("n_before") == 1) & (pl.col("n_after") == 1),
        before=pl.when(is_known).then("before"),
        after=pl.when(is_known).then("after"),
        difference=difference,
    )


def _counts(own: pl.DataFrame, scored: pl.DataFrame, before: str) -> Counts:
    first = pl.col("model") == before
    failed, alone = pl.col("outcome") == "failed", scored.filter(~pl.col("paired"))
    return Counts(
        unpaired_before=len(alone.filter(first)),
        unpaired_after=len(alone.filter(~first)),
        failed_before=len(own.filter(failed, first)),
        failed_after=len(own.filter(failed, ~first)),
    )


def _counted(own: pl.DataFrame, scored: pl.DataFrame, before: str) -> dict[tuple[Any, ...], Counts]:
    """Count what is in no pair, by combination and task."""
    parts = scored.partition_by(_COUNTED, as_dict=True)
    nothing = scored.clear()
    return {
        key: _counts(frame, parts.get(key, nothing), before)
        for key, frame in own.partition_by(_COUNTED, as_dict=True).items()
        if key[-1] is not None
    }


def _with_counts(row: Cell, counted: Mapping[tuple[Any, ...], Counts]) -> Cell:
    return replace(row, counts=counted.get(_counted_key(row.group), Counts()))


def _counted_key(group: Group) -> tuple[Any, ...]:
    return tuple(getattr(group, name) for name in _COUNTED)


def _unpaired(
    known: set[tuple[Any, ...]],
    counted: Mapping[tuple[Any, ...], Counts],
    own: pl.DataFrame,
    before: str,
) -> Iterator[Cell]:
    """Give a cell without a value for what has no pair at all."""
    (model,) = set(own["model"].unique()) - {before}
    off = own.group_by(_COUNTED).agg(pl.col("off_protocol").any())
    is_off = {tuple(key): value for *key, value in off.iter_rows()}
    for key in counted.keys() - known:
        named = dict(zip(_COUNTED, key, strict=True))
        group = Group(model=model, off_protocol=is_off[key], **named)
        yield Cell(group=group, difference=Estimate(value=None, n_subjects=0))


def _cells(pairs: pl.DataFrame, unit: str | None, seed: int) -> Iterator[Cell]:
    found = estimate(pairs, "difference", seed=seed)
    nested = _nested(pairs, KEY).partition_by(KEY, as_dict=True)
    raw = _keyed(pairs).partition_by(KEY, as_dict=True)
    for group, item in found.items():
        key = tuple(getattr(group, name) for name in KEY)
        units = nested.get(key)
        cell = Cell(
            group=replace(group, distance_unit=unit),
            off=_off(raw[key]),
            difference=item,
            n_pairs=len(raw[key]),
        )
        yield (
            cell if units is None else replace(_with_means(cell, units, seed), units=_units(units))
        )


def _means(
    pairs: pl.DataFrame, unit: str | None, scopes: Mapping[str, frozenset[str]], seed: int
) -> Iterator[Cell]:
    scope_key = [name for name in KEY if name not in ("task", "unit")]
    for name, tasks in scopes.items():
        own = pairs.filter(pl.col("task").is_in(sorted(tasks)), ~pl.col("off_protocol"))
        nested = _nested(own, scope_key).partition_by(scope_key, as_dict=True)
        raw = _keyed(own).partition_by(scope_key, as_dict=True)
        for group, item in over_tasks(own, "difference", seed=seed).items():
            key = tuple(getattr(group, part) for part in scope_key)
            if key in nested and item.n_tasks > 1:
                whole = replace(group, distance_unit=unit)
                cell = Cell(group=whole, scope=name, difference=item, n_pairs=len(raw[key]))
                yield _with_means(cell, nested[key], seed)


def _off(frame: pl.DataFrame) -> Off | None:
    before, after = bool(frame["off_before"].any()), bool(frame["off_after"].any())
    if before and after:
        return "both"
    return "before" if before else "after" if after else None


def _keyed(pairs: pl.DataFrame) -> pl.DataFrame:
    # distances of one unit are a frame of their own
    return pairs.drop_nulls("task").with_columns(distance_unit=pl.lit(None, pl.String))


def _nested(pairs: pl.DataFrame, scope: Sequence[str]) -> pl.DataFrame:
    """Average seeds in targets, targets in images, and images in subjects, task by task."""
    by_image = pl.col("subject").is_null().any().over(scope)
    who = pl.when(by_image).then("image_id").otherwise("subject")
    found = _keyed(pairs).with_columns(who=who).drop_nulls("difference").sort(IDENTITY)
    unit = (*KEY, "dataset", "who")
    for level in ((*unit, "image_id", "target_id"), (*unit, "image_id"), unit):
        found = found.group_by(level, maintain_order=True).agg(pl.col(_VALUES).mean())
    return found.sort(unit)


def _units(nested: pl.DataFrame) -> tuple[Unit, ...]:
    return tuple(Unit(*row) for row in nested.select("before", "after").iter_rows())


def _with_means(cell: Cell, nested: pl.DataFrame, seed: int) -> Cell:
    """Add to a cell its means, its effect size, and its p before any correction."""
    tasks = nested.group_by("task", "unit").agg(pl.col(_VALUES).mean())
    of_task = pl.len().over("task", "unit") * len(tasks)
    owned = nested.with_columns(share=pl.col("difference") / of_task).group_by("dataset", "who")
    units = owned.agg(pl.col("share").sum(), pl.col("difference").mean(), n=pl.len())
    units = units.sort("dataset", "who")
    is_even = bool((units["n"] == len(tasks)).all())
    return replace(
        cell,
        before=float(np.mean(tasks["before"].to_numpy())),
        after=float(np.mean(tasks["after"].to_numpy())),
        effect=effect_size(units["difference"].to_numpy()) if is_even else None,
        n_units=len(units),
        p=None if cell.off else sign_flip_p(units["share"].to_numpy(), seed=seed),
    )


def _tested(rows: Sequence[Cell]) -> list[Cell]:
    """Decide which rows are tested, and correct their p for each other."""
    candidates = [i for i, row in enumerate(rows) if row.p is not None]
    able = can_pass([rows[i].n_units for i in candidates])
    chosen = [i for i, is_able in zip(candidates, able, strict=True) if is_able]
    corrected = dict(zip(chosen, holm([rows[i].p or 0.0 for i in chosen]), strict=True))
    return [_judged(row, corrected.get(i)) for i, row in enumerate(rows)]


def _judged(row: Cell, p_holm: float | None) -> Cell:
    if p_holm is not None:
        return replace(row, verdict="tested", p_holm=p_holm)
    verdict: Verdict = "nothing to test"
    if row.n_units:
        verdict = "off-protocol" if row.off else "too few subjects to test"
    return replace(row, verdict=verdict, p=None)


def _order(cell: Cell) -> tuple[str, ...]:
    return tuple(str(getattr(cell.group, name) or "") for name in ("task", *KEY[1:6]))
