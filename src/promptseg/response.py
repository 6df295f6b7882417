"""How DICE responds to sloppy prompts: curves over jitter, and how much of it is tolerated.

The study gives four numbers for one kind of jitter (Huang et al. 2024,
doi:10.1016/j.media.2023.103061, section 4.10). Here every curve is of paired losses: the same
targets, exact and jittered, averaged by subject.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby

import numpy as np
import polars as pl
from jaxtyping import Float, UInt16

from promptseg.interval import bootstrap_interval, t_interval
from promptseg.record import with_corpus
from promptseg.stats import DRAWS, FEWEST, MANY
from promptseg.tolerance import radius_interval, tolerance_radius

# shares of sqrt(area) at which jitter in pixels is told
RELATIVE = (0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.45, 0.7, 1.0)
ALL = "all tasks"
KEY = ("model", "protocol", "unit", "strategy", "selection", "off_protocol")
GROUP = (*KEY, "mode", "measure")
LEVEL = ("at", "width")
Key = tuple[object, ...]  # the values of some columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """The loss at one level of jitter: exact minus jittered DICE, over the same targets."""

    at: float  # mean distance of the level
    loss: float
    lo: float | None
    hi: float | None
    n_subjects: int
    n_targets: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """How one strategy's DICE falls with one kind of jitter, in one task or over tasks."""

    model: str
    protocol: str
    unit: str
    strategy: str
    selection: str
    off_protocol: bool
    task: str
    mode: str
    measure: str  # px; rel: of the square root of the target's area; "px as rel": converted
    exact: float  # mean DICE without jitter, of the targets of the last level
    levels: tuple[Level, ...]
    radius: float | None  # where the mean has lost 0.05; None: not within the levels
    radius_lo: float | None = None
    radius_hi: float | None = None  # None: beyond the levels, or too few subjects
    by_image: bool = False


def responses(
    records: pl.DataFrame, attributes: pl.DataFrame | None = None, *, seed: int = 0
) -> list[Response]:
    """Give the response of every model, strategy, selection and task to every kind of jitter.

    Losses are averaged over seeds, then target -> image -> subject -> task, and over tasks.
    Intervals are over subjects: Student's t below thirty, the percentile bootstrap from there, none
    below five. The tolerance radius is where the mean loss first reaches 0.05, between two levels
    by a straight line, and from no loss at no jitter; its interval is that of the curve turned
    round (t), or the bootstrap's. Where the curve never loses so much there is none, and one may
    say only that it lies beyond the last level.

    Parameters
    ----------
    records
        Of a run or several, exact and jittered.
    attributes
        One row per target_id, with area_px: with it jitter in pixels is also told relative to the
        size of each target. Its loss at a share of its size is read off straight lines between its
        levels, from no loss at no jitter; beyond its last level there is none. A mean over tasks
        is told of the shares that all tasks have.
    """
    pairs = _pairs(records)
    if attributes is not None and attributes.height:
        pairs = pl.concat([pairs, _converted(pairs, attributes)])
    draws = _resamples(seed)
    together = _losses(pairs, GROUP)
    found: list[Response] = []
    for group, tasks in _by_group(_losses(pairs, (*GROUP, "task"))).items():
        found += [_response(group, task, own, draws) for task, own in sorted(tasks.items())]
        if len(tasks) > 1:
            found.append(_response(group, ALL, together[group], draws))
    return found


def _pairs(records: pl.DataFrame) -> pl.DataFrame:
    """Pair every jittered score with the exact one of its target."""
    scored = with_corpus(records).filter(
        (pl.col("outcome") != "failed") & pl.col("task").is_not_null()
    )
    names = [*KEY, "corpus", "dataset", "subject", "task", "image_id", "target_id"]
    exact = (
        scored.filter(pl.col("jitter_mode").is_null())
        .group_by(*KEY, "corpus", "target_id")
        .agg(exact=pl.col("dice").mean())
    )
    jittered = (
        scored.filter(pl.col("jitter_mode").is_not_null())
        .group_by(
            *names,
            mode="jitter_mode",
            measure="jitter_unit",
            at=(pl.col("jitter_lo") + pl.col("jitter_hi")) / 2,
            width=pl.col("jitter_hi") - pl.col("jitter_lo"),
            maintain_order=True,
        )
        .agg(dice=pl.col("dice").mean())
    )
    on = [*KEY, "corpus", "target_id"]
    return jittered.join(exact, on=on, how="inner", maintain_order="left").select(
        *names, "mode", "measure", "at", "width", "exact", loss=pl.col("exact") - pl.col("dice")
    )


def _converted(pairs: pl.DataFrame, attributes: pl.DataFrame) -> pl.DataFrame:
    """Tell jitter in pixels relative to each target's size, at the levels of `RELATIVE`."""
    curve = [name for name in pairs.columns if name not in ("at", "width", "loss")]
    sized = (
        pairs.filter(pl.col("measure") == "px")
        .group_by(*curve, "at", maintain_order=True)
        .agg(pl.col("loss").mean())
        .join(
            with_corpus(attributes).select("corpus", "target_id", "area_px"),
            on=["corpus", "target_id"],
            how="inner",
            maintain_order="left",
        )
        .with_columns(at=pl.col("at") / pl.col("area_px").sqrt())
        .sort(*curve, "at", maintain_order=True, nulls_last=False)
        .with_columns(
            before_at=pl.col("at").shift(1, fill_value=0.0).over(curve),
            before=pl.col("loss").shift(1, fill_value=0.0).over(curve),
        )
    )
    at, before_at = sized["at"].to_numpy(), sized["before_at"].to_numpy()
    # every row is the end of a line, which passes the levels from `first` to before `last`
    first = np.searchsorted(RELATIVE, before_at, side="right")
    count = np.searchsorted(RELATIVE, at, side="right") - first
    row = np.repeat(np.arange(len(at)), count)
    level = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count) + first[row]
    place = np.array(RELATIVE)[level]
    share = (place - before_at[row]) / (at - before_at)[row]
    loss, before = sized["loss"].to_numpy()[row], sized["before"].to_numpy()[row]
    return (
        sized[row]
        .with_columns(
            measure=pl.lit("px as rel"),
            at=pl.Series(place, dtype=pl.Float64),
            width=0.0,
            loss=pl.Series(before + share * (loss - before), dtype=pl.Float64),
        )
        .select(pairs.columns)
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Losses:
    """Losses by task, level and subject, NaN where a subject has none."""

    at: tuple[float, ...]
    values: Float[np.ndarray, "levels tasks units"]
    of_dataset: tuple[int, ...]  # units of each data set, which lie one after another
    exact: Float[np.ndarray, "tasks units"]  # DICE of the targets of the last level
    n_targets: tuple[int, ...]
    by_image: bool


def _losses(pairs: pl.DataFrame, scope: Sequence[str]) -> dict[Key, _Losses]:
    """Average losses within images and subjects, for every group of a scope, in their order."""
    by_image = pl.col("subject").is_null().any().over(scope)
    who = pl.when(by_image).then("image_id").otherwise("subject")
    unit = (*GROUP, "task", *LEVEL, "by_image", "who")
    means = (
        pairs.with_columns(by_image=by_image, who=pl.struct("dataset", who=who))
        .group_by(*unit, "image_id", maintain_order=True)
        .agg(pl.col("loss", "exact").mean())
        .group_by(unit, maintain_order=True)
        .agg(pl.col("loss", "exact").mean())
        .with_columns(
            place=_number("task"),
            who=_number("who"),
            of=pl.col("who").struct.field("dataset"),
        )
    )
    targets = pairs.select(*GROUP, *LEVEL, "task", "corpus", "target_id").unique()
    counts = targets.group_by(*scope, *LEVEL).len().partition_by(scope, as_dict=True)
    groups = means.partition_by(scope, as_dict=True, maintain_order=True)
    return {key: _of_group(own, counts[key]) for key, own in groups.items()}


def _number(name: str) -> pl.Expr:
    """Give every value of a column its place in their order."""
    return pl.col(name).rank("dense").cast(pl.Int64)


def _of_group(means: pl.DataFrame, counts: pl.DataFrame) -> _Losses:
    levels = counts.sort(LEVEL)  # two levels may have one middle
    row = means.select(*LEVEL).join(
        levels.with_row_index("row"), on=LEVEL, how="left", maintain_order="left"
    )["row"]
    tasks, place = np.unique(means["place"].to_numpy(), return_inverse=True)
    units, first, column = np.unique(
        means["who"].to_numpy(), return_index=True, return_inverse=True
    )
    datasets = means["of"].gather(first.tolist())
    values = np.full((2, len(levels), len(tasks), len(units)), np.nan)
    values[:, row.to_numpy(), place, column] = means.select("loss", "exact").to_numpy().T
    kept = [i for i, one in enumerate(values[0]) if np.isfinite(one).any(axis=1).all()]
    last = kept[-1] if kept else 0
    at, n_targets = levels["at"].to_list(), levels["len"].to_list()
    return _Losses(
        at=tuple(at[i] for i in kept),
        values=values[0][kept],
        of_dataset=tuple(len(list(own)) for _, own in groupby(datasets)),
        exact=values[1][last],
        n_targets=tuple(n_targets[i] for i in kept),
        by_image=bool(means["by_image"].any()),
    )


def _by_group(losses: Mapping[Key, _Losses]) -> dict[Key, dict[str, _Losses]]:
    """Take the task out of the keys of losses by task."""
    found: dict[Key, dict[str, _Losses]] = {}
    for (*group, task), own in losses.items():
        found.setdefault(tuple(group), {})[str(task)] = own
    return found


Draws = Callable[[tuple[int, ...]], UInt16[np.ndarray, "draws units"]]


def _resamples(seed: int) -> Draws:
    """Draw units again within data sets, the same draws wherever there are as many."""

    @cache
    def drawn(of_dataset: tuple[int, ...]) -> UInt16[np.ndarray, "draws units"]:
        rng = np.random.default_rng(seed)
        parts = [rng.multinomial(n, [1 / n] * n, size=DRAWS) for n in of_dataset]
        return np.concatenate(parts, axis=1).astype(np.uint16)

    return drawn


def _response(
    group: Key,
    task: str,
    losses: _Losses,
    draws: Draws,
) -> Response:
    few = not losses.at or _fewest(losses.values[0]) < MANY
    drawn = None if few else draws(losses.of_dataset).astype(np.float64)
    levels = tuple(
        _level(at, values, drawn, count)
        for at, values, count in zip(losses.at, losses.values, losses.n_targets, strict=True)
    )
    means = np.array([level.loss for level in levels])
    radius = tolerance_radius(losses.at, means)
    lo, hi = _radius_interval(_sure(losses), radius, drawn)
    key = dict(zip(GROUP, group, strict=True))
    return Response(
        model=str(key["model"]),
        protocol=str(key["protocol"]),
        unit=str(key["unit"]),
        strategy=str(key["strategy"]),
        selection=str(key["selection"]),
        off_protocol=bool(key["off_protocol"]),
        task=task,
        mode=str(key["mode"]),
        measure=str(key["measure"]),
        exact=float(np.nanmean(losses.exact, axis=1).mean()) if levels else float("nan"),
        levels=levels,
        radius=radius,
        radius_lo=lo,
        radius_hi=hi,
        by_image=losses.by_image,
    )


def _sure(losses: _Losses) -> _Losses:
    """Keep the levels up to the first at which a task has fewer than five subjects."""
    enough = [_fewest(values) >= FEWEST for values in losses.values]
    count = (*enough, False).index(False)
    return replace(losses, at=losses.at[:count], values=losses.values[:count])


def _fewest(values: Float[np.ndarray, "*tasks units"]) -> int:
    return int(np.isfinite(values).sum(axis=-1).min())


def _level(
    at: float,
    values: Float[np.ndarray, "tasks units"],
    drawn: Float[np.ndarray, "draws units"] | None,
    n_targets: int,
) -> Level:
    lo: float | None = None
    hi: float | None = None
    if drawn is not None and _fewest(values) >= MANY:
        lo, hi = bootstrap_interval(values, drawn)
    elif _fewest(values) >= FEWEST:
        lo, hi = t_interval(values)
    return Level(
        at=at,
        loss=float(np.nanmean(values, axis=1).mean()),
        lo=lo,
        hi=hi,
        n_subjects=int(np.isfinite(values).any(axis=0).sum()),
        n_targets=n_targets,
    )


def _radius_interval(
    sure: _Losses, radius: float | None, drawn: Float[np.ndarray, "draws units"] | None
) -> tuple[float | None, float | None]:
    """Give the interval of a radius; none if it lies beyond the levels of enough subjects."""
    if not sure.at or (radius is not None and radius > sure.at[-1]):
        return None, None
    few = _fewest(sure.values) < MANY
    return radius_interval(sure.at, sure.values, None if few else drawn)
