"""Estimates of a run: means with their intervals, over subjects.

The order is target -> image -> subject -> task -> mean over tasks, every arrow a plain mean, so
that a subject with many images weighs as much as one with few. Intervals resample subjects, never
targets or pixels. Undefined is not zero: it is left out of a mean and counted beside it.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from jaxtyping import Float, UInt16

from promptseg.interval import bootstrap_interval, t_interval
from promptseg.record import IDENTITY

Method = Literal["t", "bootstrap"]
Note = Literal["few", "subject values", "by image"]
UnitKey = tuple[str, str]  # (dataset, subject), or (dataset, image_id) where subjects are unknown

FEWEST = 5  # below, subject values instead of an interval
FEW = 12  # below, the interval is marked
MANY = 30  # from here, the percentile bootstrap
DRAWS = 2000

DISTANCES = frozenset({"hd", "hd95", "assd", "asd"})
IN_UNITS = DISTANCES | {"nsd"}  # a tolerance of 2 mm is not one of 2 px
BOUNDS: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(("dice", "jaccard", "nsd", "boundary_iou"), (0.0, 1.0)),
    **dict.fromkeys(DISTANCES, (0.0, np.inf)),
    "conformity": (-np.inf, 1.0),
}
KEY = (
    "model", "protocol", "unit", "strategy", "selection", "jitter", "off_protocol",
    "task", "distance_unit",
)  # fmt: skip
COMBINATION = ("model", "protocol", "strategy", "selection", "jitter", "off_protocol")


@dataclass(frozen=True, slots=True)
class Group:
    """What an estimate is of. `task` is None for a mean over tasks.

    Of a mean over tasks that were evaluated by several units, `unit` lists them: "class; instance".
    `distance_unit` is None for metrics that know no unit: overlaps are the same in mm and px.
    """

    model: str
    protocol: str
    unit: str
    strategy: str
    selection: str
    jitter: str | None
    off_protocol: bool
    task: str | None = None
    distance_unit: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over subjects with its 95 % interval, and what stands behind it.

    The interval is cut at the bounds of the metric (a DICE above 1 cannot be), which costs no
    coverage. `n_subjects`, `n_images` and `n_targets` count what entered the mean; `n_undefined`
    counts scored targets without a value, `n_failed` records without a score. The rates are
    shares of all scored targets.
    """

    value: float | None
    lo: float | None = None
    hi: float | None = None
    n_tasks: int = 0
    n_subjects: int | None = None  # None: the subject of at least one image is unknown
    n_subjects_known: int = 0
    n_images: int = 0
    n_images_unknown: int = 0  # of these, the images whose subject is unknown
    n_targets: int = 0
    n_undefined: int = 0
    n_failed: int = 0
    rate_empty: float | None = None  # no candidate, or an empty mask
    rate_no_overlap: float | None = None  # DICE 0, empty masks included
    method: Method | None = None
    notes: tuple[Note, ...] = ()
    subject_values: tuple[float, ...] = ()  # of fewer than 5 subjects (images): their means
    with_misses: float | None = None  # of a distance: the mean with misses at the image diagonal


def estimate(records: pl.DataFrame, metric: str, *, seed: int = 0) -> dict[Group, Estimate]:
    """Estimate the mean of a metric for every task, model, strategy and selection.

    Several seeds of one target are averaged first. Millimetres and pixels are groups of their own.
    Where the subject of any image of a group is unknown the units are images, and a note says so:
    such an interval is too narrow if images share patients.

    References
    ----------
    Student, "The probable error of a mean", Biometrika 6 (1908), doi:10.1093/biomet/6.1.1.
    B. Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7 (1979),
    doi:10.1214/aos/1176344552.
    """
    return _estimates(records, metric, KEY, seed=seed)


def over_tasks(records: pl.DataFrame, metric: str, *, seed: int = 0) -> dict[Group, Estimate]:
    """Average the task means of every on-protocol model, strategy and selection.

    Every task weighs the same; a task by two units of evaluation is two. There is an interval when
    each task has five subjects or more. A subject of several tasks is drawn, or counted in the
    variance, as one. The t interval has the degrees of freedom of the smallest task, which is
    exact where all subjects have all tasks and conservative elsewhere.

    References
    ----------
    As `estimate`; the variance is the cluster-robust one of K.-Y. Liang and S. L. Zeger,
    Biometrika 73 (1986), doi:10.1093/biomet/73.1.13.
    """
    scope = tuple(name for name in KEY if name != "task")
    answered = [jitter_label() if name == "jitter" else name for name in COMBINATION]
    units = pl.col("unit").unique().sort().str.join("; ").over(answered)
    apart = pl.format("{}, by {}", "task", "unit")
    together = records.filter(pl.col("task").is_not_null()).with_columns(task=apart, unit=units)
    found = _estimates(together, metric, scope, seed=seed)
    return {group: item for group, item in found.items() if not group.off_protocol}


def unit_means(records: pl.DataFrame, metric: str) -> dict[Group, tuple[float, ...]]:
    """Give the subject means (image means where subjects are unknown) behind every estimate."""
    units = _by_unit(_by_target(records, metric), KEY).drop_nulls("value")
    rows = units.group_by(KEY, maintain_order=True).agg("value").iter_rows()
    return {Group(*key): tuple(values) for *key, values in rows}


def jitter_label() -> pl.Expr:
    """Name the jitter of a record as the command line does, `shift:px:10-20`; null without one."""
    parts = ("jitter_mode", "jitter_unit", "jitter_lo", "jitter_hi")
    return pl.format("{}:{}:{}-{}", *parts).str.replace_all(r"\.0\b", "")


def _by_target(records: pl.DataFrame, metric: str) -> pl.DataFrame:
    """Average the seeds of every target that was scored."""
    unit = pl.col("distance_unit") if metric in IN_UNITS else pl.lit(None, pl.String)
    missed = pl.col("outcome") == "miss"
    at_worst = pl.when(missed).then("image_diagonal").otherwise(metric)
    read = {*KEY, *IDENTITY, "subject", "outcome", "image_diagonal", "dice", metric} - {"jitter"}
    return (  # sorting what is not read would take most of the time
        _keyed(records.select(sorted(read)).filter(pl.col("outcome") != "failed"), unit)
        .sort(IDENTITY)  # sums depend on order, estimates should not
        .group_by(*KEY, "dataset", "subject", "image_id", "target_id", maintain_order=True)
        .agg(
            value=pl.col(metric).mean(),
            at_worst=at_worst.mean(),
            empty=missed.mean(),
            no_overlap=(pl.col("dice") == 0).mean(),
        )
        .sort(*KEY, "dataset", "subject", "image_id", "target_id")
    )


def _keyed(records: pl.DataFrame, unit: pl.Expr) -> pl.DataFrame:
    """Add the columns of `KEY`; records without a task (an unreadable image) belong to no group."""
    return records.filter(pl.col("task").is_not_null()).with_columns(
        jitter=jitter_label(), distance_unit=unit
    )


def _by_unit(targets: pl.DataFrame, scope: Sequence[str]) -> pl.DataFrame:
    """Average targets within images and images within subjects, the unit of resampling."""
    by_image = pl.col("subject").is_null().any().over(scope)
    who = pl.when(by_image).then("image_id").otherwise("subject")
    unit = (*KEY, "by_image", "dataset", "who")
    return (
        targets.with_columns(by_image=by_image, who=who)
        .group_by(*unit, "image_id", maintain_order=True)
        .agg(pl.col("value", "at_worst").mean())
        .group_by(*unit, maintain_order=True)
        .agg(pl.col("value", "at_worst").mean())
    )


def _estimates(
    records: pl.DataFrame, metric: str, scope: Sequence[str], *, seed: int
) -> dict[Group, Estimate]:
    targets = _by_target(records, metric)
    units = _by_unit(targets, scope)
    failed = _failures(records, scope)
    worst = _with_misses(units, scope) if metric in DISTANCES else {}
    means = dict(_task_means(units, scope))
    draws = {
        by_image: _draw(records, "image_id" if by_image else "subject", seed=seed)
        for by_image in {item.by_image for item in means.values() if item.is_bootstrapped}
    }
    result = {}
    for group, counts in _counts(targets, scope).items():
        beside = {"n_failed": failed.get(_base(group), 0), "with_misses": worst.get(group)}
        result[group] = _one(metric, means.get(group), draws, counts | beside)
    alone = failed.keys() - {_base(group) for group in result}
    return result | {
        group: Estimate(value=None, n_subjects=0, n_failed=failed[group])
        for group in sorted(alone, key=str)
    }


def _base(group: Group) -> Group:
    """Drop the unit of a group: a failed record has none."""
    return _group({name: getattr(group, name) for name in KEY if name != "distance_unit"})


def _group(row: Mapping[str, Any]) -> Group:
    return Group(**{name: row[name] for name in KEY if name in row})


def _counts(targets: pl.DataFrame, scope: Sequence[str]) -> dict[Group, dict[str, Any]]:
    defined = pl.col("value").is_not_null()
    known = pl.col("subject").is_not_null()
    subjects = pl.struct("dataset", "subject").filter(defined & known).n_unique().cast(pl.Int64)
    images = pl.struct("dataset", "image_id")
    rows = targets.group_by(scope, maintain_order=True).agg(
        n_subjects=pl.when(known.all()).then(subjects),
        n_subjects_known=subjects,
        n_images=images.filter(defined).n_unique(),
        n_images_unknown=images.filter(defined & ~known).n_unique(),
        n_targets=defined.sum(),
        n_undefined=(~defined).sum(),
        rate_empty=pl.col("empty").mean(),
        rate_no_overlap=pl.col("no_overlap").mean(),
    )
    return {
        _group(row): {key: value for key, value in row.items() if key not in KEY}
        for row in rows.iter_rows(named=True)
    }


def _with_misses(units: pl.DataFrame, scope: Sequence[str]) -> dict[Group, float | None]:
    tasks = units.group_by(KEY, maintain_order=True).agg(pl.col("at_worst").mean())
    rows = tasks.group_by(scope, maintain_order=True).agg(pl.col("at_worst").mean())
    return {_group(row): row["at_worst"] for row in rows.iter_rows(named=True)}


def _failures(records: pl.DataFrame, scope: Sequence[str]) -> dict[Group, int]:
    failed = _keyed(records.filter(pl.col("outcome") == "failed"), pl.lit(None, pl.String))
    rows = failed.group_by(scope).len("n_records").iter_rows(named=True)
    return {_group(row): row["n_records"] for row in rows}


@dataclass(frozen=True, slots=True, eq=False)
class _Means:
    """The unit means of one group: one row per task, NaN where a unit lacks the task."""

    units: tuple[UnitKey, ...]
    values: Float[np.ndarray, "tasks units"]
    by_image: bool

    @property
    def smallest(self) -> int:
        """Number of units of the task that has fewest."""
        return int(np.isfinite(self.values).sum(axis=1).min())

    @property
    def is_bootstrapped(self) -> bool:
        """Whether there are enough units, in all and to be redrawn within every dataset.

        A dataset of one subject gives the same subject in every draw, and so a false certainty.
        """
        fewest = min(Counter(dataset for dataset, _ in self.units).values())
        return self.smallest >= MANY and fewest >= FEWEST


def _task_means(units: pl.DataFrame, scope: Sequence[str]) -> Iterator[tuple[Group, _Means]]:
    rows = (
        units.with_columns(of=pl.col("task"))
        .group_by(scope, maintain_order=True)
        .agg("of", "dataset", "who", "value", pl.col("by_image").first())
    )
    for row in rows.iter_rows(named=True):
        cells = [
            (task, (dataset, who), value)
            for task, dataset, who, value in zip(
                row["of"], row["dataset"], row["who"], row["value"], strict=True
            )
            if value is not None
        ]
        if cells:
            names, values = _matrix(cells)
            yield _group(row), _Means(names, values, row["by_image"])


def _matrix(
    cells: Sequence[tuple[str, UnitKey, float]],
) -> tuple[tuple[UnitKey, ...], Float[np.ndarray, "tasks units"]]:
    tasks = {task: i for i, task in enumerate(dict.fromkeys(task for task, _, _ in cells))}
    units = {unit: i for i, unit in enumerate(sorted({unit for _, unit, _ in cells}))}
    values = np.full((len(tasks), len(units)), np.nan)
    for task, unit, value in cells:
        values[tasks[task], units[unit]] = value
    return tuple(units), values


@dataclass(frozen=True, slots=True, eq=False)
class _Draws:
    """How often each unit comes up in each resample."""

    column: Mapping[UnitKey, int]
    weights: UInt16[np.ndarray, "draws units"]

    def of(self, units: Sequence[UnitKey]) -> Float[np.ndarray, "draws units"]:
        """Give the weights of some of the units."""
        return self.weights[:, [self.column[unit] for unit in units]].astype(np.float64)


def _draw(records: pl.DataFrame, who: str, *, seed: int) -> _Draws:
    """Resample units within datasets: the same draws for all tasks, models and strategies."""
    pairs = records.select("dataset", who).drop_nulls().unique().sort("dataset", who).rows()
    weights = np.empty((DRAWS, len(pairs)), dtype=np.uint16)
    for dataset in dict.fromkeys(dataset for dataset, _ in pairs):
        columns = [i for i, (name, _) in enumerate(pairs) if name == dataset]
        digest = hashlib.sha256(dataset.encode()).digest()[:8]
        rng = np.random.default_rng([seed, int.from_bytes(digest)])
        n = len(columns)
        for row in weights:
            row[columns] = np.bincount(rng.integers(n, size=n), minlength=n)
    return _Draws({pair: i for i, pair in enumerate(pairs)}, weights)


def _one(
    metric: str, means: _Means | None, draws: Mapping[bool, _Draws], counts: Mapping[str, Any]
) -> Estimate:
    if means is None:
        return Estimate(value=None, **counts)
    method, (lo, hi) = _interval(means, draws)
    low, high = BOUNDS.get(metric, (-np.inf, np.inf))
    n_tasks, n_units = means.values.shape
    return Estimate(
        value=float(np.nanmean(means.values, axis=1).mean()),
        lo=None if lo is None else max(lo, low),
        hi=None if hi is None else min(hi, high),
        n_tasks=n_tasks,
        method=method,
        notes=tuple(_notes(means)),
        subject_values=tuple(map(float, means.values[0]))
        if n_tasks == 1 and n_units < FEWEST
        else (),
        **counts,
    )


def _notes(means: _Means) -> Iterator[Note]:
    if means.smallest < FEWEST:
        yield "subject values" if len(means.values) == 1 else "few"
    elif means.smallest < FEW:
        yield "few"
    if means.by_image:
        yield "by image"


def _interval(
    means: _Means, draws: Mapping[bool, _Draws]
) -> tuple[Method | None, tuple[float, float] | tuple[None, None]]:
    if means.is_bootstrapped:
        return "bootstrap", bootstrap_interval(means.values, draws[means.by_image].of(means.units))
    if means.smallest >= FEWEST:
        return "t", t_interval(means.values)
    return None, (None, None)
