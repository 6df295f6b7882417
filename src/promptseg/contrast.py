"""Which model, which prompt: every way of answering against the best, paired by target.

An arm is a model with a strategy and a selection, or the masks of another tool. Arms are compared
on the targets that both were scored on, as `paired` compares models on the same prompts;
off-protocol arms and jittered prompts take no part. Beside it: how stable the ranking is, what the
oracle adds, and what each arm costs.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from promptseg.paired import Cell, compare, pairs_of
from promptseg.record import with_corpus
from promptseg.significance import can_pass, holm, sign_flip_each, sign_flip_p
from promptseg.stats import DRAWS, FEWEST

KEY = ("model", "protocol", "strategy", "selection")
COMPARED = ("jitter_mode", "off_protocol", "task", "outcome")  # what makes a record take part


@dataclass(frozen=True, slots=True)
class Arm:
    """A way of answering."""

    model: str
    protocol: str
    strategy: str
    selection: str

    @property
    def is_deployable(self) -> bool:
        """Tell whether a user could choose like this, without the reference."""
        return self.selection != "oracle" and self.strategy != "everything"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """One arm against another: `cell.difference` is `arm` minus `against`, over tasks if several.

    `p` is two-sided, by flipping the signs of the subjects; None where nothing is tested. `p_holm`
    is corrected for all contrasts shown together; None also where the subjects are too few.
    """

    arm: Arm
    against: Arm
    cell: Cell
    p: float | None
    p_holm: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An arm's place among all arms, over the targets that every one of them was scored on."""

    arm: Arm
    dice: float  # mean over tasks of subject means
    rank: int
    first: float | None  # share of resamples of the subjects in which it comes first
    rank_lo: int | None  # 95 % of the resampled ranks lie between these
    rank_hi: int | None
    embed_ms: float | None  # median, once per image
    decode_ms: float | None  # median per prompt
    is_frontier: bool  # no arm is as good and cheaper, or better and as cheap


def arms_of(records: pl.DataFrame) -> list[Arm]:
    """List the on-protocol arms that were scored without jitter, the highest mean DICE first."""
    means = _exact(records).group_by(KEY, maintain_order=True).agg(pl.col("dice").mean())
    ordered = means.sort("dice", descending=True, maintain_order=True)
    return [Arm(*row) for row in ordered.select(KEY).iter_rows()]


def _exact(records: pl.DataFrame) -> pl.DataFrame:
    return records.filter(
        pl.col("jitter_mode").is_null(),
        ~pl.col("off_protocol"),
        pl.col("task").is_not_null(),
        pl.col("outcome") != "failed",
    )


def _is(arm: Arm) -> pl.Expr:
    return pl.all_horizontal(*(pl.col(name) == getattr(arm, name) for name in KEY))


def contrast(records: pl.DataFrame, arm: Arm, against: Arm) -> Contrast | None:
    """Compare two arms on the targets that both were scored on; None where there are none.

    The cell is the mean over tasks, or that of the only task that both have.
    """
    return _contrast(_by_arm(records.filter(_is(arm) | _is(against))), arm, against)


def _by_arm(records: pl.DataFrame) -> dict[tuple[object, ...], pl.DataFrame]:
    """Divide records by arm, once for many contrasts."""
    return _exact(records).partition_by(KEY, as_dict=True)


def _contrast(
    by_arm: Mapping[tuple[object, ...], pl.DataFrame], arm: Arm, against: Arm
) -> Contrast | None:
    own = [(name, by_arm.get(astuple(one))) for name, one in (("a", against), ("b", arm))]
    sides = [
        frame.with_columns(
            pl.lit(name).alias("model"),
            pl.lit("any").alias("strategy"),
            pl.lit("any").alias("selection"),
            pl.lit("any").alias("protocol"),
            prompt_id=pl.lit(None, pl.String),
        )
        for name, frame in own
        if frame is not None
    ]
    if len(sides) < 2:
        return None
    both = pl.concat(sides)
    found = compare(both, "a", "b")
    cell = next(
        (row for row in (*found.means, *found.cells) if row.difference.value is not None), None
    )
    if cell is None:
        return None
    pairs = pairs_of(both, "a", "b").drop_nulls("difference").with_columns(arm=pl.lit(0))
    values = _by_unit(pairs.rename({"difference": "value"}), 1)[0][0]
    counts = np.isfinite(values).sum(axis=1, keepdims=True)
    shares = np.nansum(values / (counts * len(values)), axis=0)
    return Contrast(arm=arm, against=against, cell=cell, p=sign_flip_p(shares))


def against_best(records: pl.DataFrame, arms: Sequence[Arm], best: Arm) -> list[Contrast]:
    """Compare every arm with the best one, which the same scores may have chosen.

    The best of several equal arms lies above the others by chance: p is corrected, by Holm, for
    the contrasts of all pairs of these arms, among which those with the best are, whichever that
    came to be.
    """
    by_arm = _by_arm(records)
    found = [
        one for arm in arms if arm != best and (one := _contrast(by_arm, arm, best)) is not None
    ]
    others = _pairs_of_others(records, [one.arm for one in found])
    units = [one.cell.n_units for one in found] + [n_units for _, n_units in others]
    values = [1.0 if one.p is None else one.p for one in found] + [p for p, _ in others]
    tested = [i for i, is_able in enumerate(can_pass(units)) if is_able]
    p_holm = dict(zip(tested, holm([values[i] for i in tested]), strict=True))
    return [replace(one, p_holm=p_holm.get(i)) for i, one in enumerate(found)]


def _pairs_of_others(records: pl.DataFrame, arms: Sequence[Arm]) -> list[tuple[float, int]]:
    """Give p, and the number of units, of every pair of arms that shares a target."""
    if len(arms) < 2:
        return []
    listed = pl.DataFrame([dict(zip(KEY, astuple(arm), strict=True)) for arm in arms])
    target = ["task", "dataset", "who", "image_id", "corpus", "target_id"]
    read = {*target, *KEY, *COMPARED, "subject", "dice"} - {"who"}  # of a million, the rest is much
    scored = _exact(with_corpus(records).select(sorted(read)))
    numbered = scored.join(listed.with_row_index("arm"), on=KEY, how="inner")
    by_image = numbered["subject"].is_null().any()
    whole = numbered.with_columns(who=pl.col("image_id") if by_image else pl.col("subject"))
    dice = whole.group_by("arm", *target).agg(pl.col("dice").mean())
    table = dice.pivot(on="arm", index=target, values="dice").sort(target)
    values = table.select([str(number) for number in range(len(arms))]).to_numpy()
    nest = _Nest.of(table)
    shares = [
        nest.shares(values[:, i] - values[:, j])
        for i in range(len(arms))
        for j in range(i + 1, len(arms))
    ]
    known = [(own, n_units) for own in shares if (n_units := int(np.isfinite(own).sum()))]
    p = sign_flip_each(np.array([own for own, _ in known]).reshape(len(known), -1))
    return [(value, n_units) for value, (_, n_units) in zip(p, known, strict=True)]


@dataclass(frozen=True, slots=True, eq=False)
class _Nest:
    """Which target lies in which image of a task, which of these in which unit, and so on."""

    image: Int[np.ndarray, "targets"]
    cell: Int[np.ndarray, "images"]  # a unit in a task
    task: Int[np.ndarray, "cells"]
    unit: Int[np.ndarray, "cells"]

    @classmethod
    def of(cls, table: pl.DataFrame) -> "_Nest":
        """Give every image, cell and unit of a table of targets its number."""
        levels = (["task", "dataset", "who", "image_id"], ["task", "dataset", "who"])
        rows = table.select(
            pl.struct(levels[0]).rank("dense").cast(pl.Int64).alias("image") - 1,
            pl.struct(levels[1]).rank("dense").cast(pl.Int64).alias("cell") - 1,
            pl.col("task").rank("dense").cast(pl.Int64) - 1,
            pl.struct("dataset", "who").rank("dense").cast(pl.Int64).alias("unit") - 1,
        )
        images = rows.unique("image").sort("image")
        cells = rows.unique("cell").sort("cell")
        return cls(
            rows["image"].to_numpy(),
            images["cell"].to_numpy(),
            cells["task"].to_numpy(),
            cells["unit"].to_numpy(),
        )

    def shares(self, values: Float[np.ndarray, "targets"]) -> Float[np.ndarray, "units"]:
        """Give the part that each unit has in the mean over tasks; NaN: it has none."""
        images = _means(values, self.image, len(self.cell))
        cells = _means(images, self.cell, len(self.task))
        there = np.isfinite(cells)
        in_task = np.bincount(self.task[there], minlength=int(self.task.max()) + 1)
        weight = 1 / (in_task[self.task[there]] * np.count_nonzero(in_task))
        n_units = int(self.unit.max()) + 1
        found: Float[np.ndarray, " units"] = np.bincount(
            self.unit[there], weights=cells[there] * weight, minlength=n_units
        )
        found[np.bincount(self.unit[there], minlength=n_units) == 0] = np.nan
        return found


def _means(
    values: Float[np.ndarray, "n"], group: Int[np.ndarray, "n"], count: int
) -> Float[np.ndarray, "groups"]:
    there = np.isfinite(values)
    number = np.bincount(group[there], minlength=count)
    total = np.bincount(group[there], weights=values[there], minlength=count)
    means: Float[np.ndarray, " groups"] = np.full(count, np.nan)
    np.divide(total, number, out=means, where=number > 0)
    return means


def oracle_gaps(records: pl.DataFrame, arms: Sequence[Arm]) -> list[Contrast]:
    """Compare the candidate that a user gets (`predicted`) with the best one, by strategy.

    Both choose among the same candidates, so that the difference is never positive: what a better
    choice could give. Nothing is tested, since no difference is not among what could be: p is None.
    """
    pairs = (
        (arm, replace(arm, selection="oracle")) for arm in arms if arm.selection == "predicted"
    )
    by_arm = _by_arm(records)
    found = (_contrast(by_arm, own, oracle) for own, oracle in pairs if oracle in arms)
    return [replace(one, p=None) for one in found if one is not None]


def ranking(records: pl.DataFrame, arms: Sequence[Arm], *, seed: int = 0) -> list[Place]:
    """Rank arms, and tell how often the ranking would be another with other subjects.

    Only targets count that all arms were scored on; an arm that shares less than half of those of
    the others is left out. Subjects are resampled within data sets, the same draw for all arms
    (percentile bootstrap). Nothing is said of stability where a data set, or a task, has fewer than
    five subjects: resamples would hardly differ.
    """
    scored = with_corpus(_exact(records))
    arms = _together(scored, arms)
    listed = pl.DataFrame(
        [{name: getattr(arm, name) for name in KEY} | {"arm": n} for n, arm in enumerate(arms)]
    )
    numbered = scored.join(listed, on=KEY, how="inner", maintain_order="left")
    by = ["arm", "corpus", "dataset", "subject", "task", "image_id", "target_id"]
    targets = numbered.group_by(by, maintain_order=True).agg(value=pl.col("dice").mean())
    of_target = pl.col("arm").n_unique().over("corpus", "task", "target_id")
    common = targets.filter(of_target == len(arms))
    if not common.height:
        return []
    values, datasets = _by_unit(common, len(arms))
    means = np.nanmean(values, axis=2).mean(axis=1)
    order: list[int] = np.argsort(-means, kind="stable").tolist()
    ranks = np.empty(len(arms), dtype=int)
    ranks[order] = np.arange(1, len(arms) + 1)
    drawn = _resampled_ranks(values, datasets, seed) if _enough(values[0], datasets) else None
    costs = [_cost(numbered.filter(pl.col("arm") == place)) for place in range(len(arms))]
    return [
        Place(
            arm=arms[place],
            dice=float(means[place]),
            rank=int(ranks[place]),
            first=None if drawn is None else float((drawn[:, place] == 1).mean()),
            rank_lo=None if drawn is None else _quantile(drawn[:, place], 0.025),
            rank_hi=None if drawn is None else _quantile(drawn[:, place], 0.975),
            embed_ms=costs[place][0],
            decode_ms=costs[place][1],
            is_frontier=_is_frontier(place, means, costs),
        )
        for place in order
    ]


def _together(scored: pl.DataFrame, arms: Sequence[Arm]) -> list[Arm]:
    """Choose the arms that were scored on much the same targets, in their order."""
    names = pl.struct("corpus", "task", "target_id")
    own = {arm: set(map(str, scored.filter(_is(arm)).select(names).to_series())) for arm in arms}
    kept: list[Arm] = []
    shared: set[str] = set()
    for arm in sorted(arms, key=lambda one: -len(own[one])):
        left = shared & own[arm] if kept else own[arm]
        if 2 * len(left) >= len(own[kept[0]] if kept else left) and left:
            kept.append(arm)
            shared = left
    return [arm for arm in arms if arm in kept]


def _enough(values: Float[np.ndarray, "tasks units"], datasets: Sequence[str]) -> bool:
    """Tell whether resamples differ enough to speak of stability."""
    fewest = int(np.isfinite(values).sum(axis=1).min())
    return min(fewest, *Counter(datasets).values()) >= FEWEST


def _by_unit(
    common: pl.DataFrame, n_arms: int
) -> tuple[Float[np.ndarray, "arms tasks units"], list[str]]:
    """Average targets in images and images in subjects; NaN where a subject lacks a task."""
    by_image = common["subject"].is_null().any()
    who = pl.col("image_id") if by_image else pl.col("subject")
    means = (
        common.with_columns(who=who)
        .group_by("arm", "task", "dataset", "who", "image_id", maintain_order=True)
        .agg(pl.col("value").mean())
        .group_by("arm", "task", "dataset", "who", maintain_order=True)
        .agg(pl.col("value").mean())
    )
    tasks = {name: i for i, name in enumerate(sorted(set(means["task"].to_list())))}
    pairs = sorted(set(means.select("dataset", "who").iter_rows()))
    units: Mapping[tuple[str, str], int] = {pair: i for i, pair in enumerate(pairs)}
    values = np.full((n_arms, len(tasks), len(units)), np.nan)
    for arm, task, dataset, unit, value in means.iter_rows():
        values[arm, tasks[task], units[dataset, unit]] = value
    return values, [dataset for dataset, _ in pairs]


def _resampled_ranks(
    values: Float[np.ndarray, "arms tasks units"], datasets: Sequence[str], seed: int
) -> Float[np.ndarray, "draws arms"]:
    rng = np.random.default_rng(seed)
    weights = np.zeros((DRAWS, len(datasets)))
    for name in dict.fromkeys(datasets):
        own = [i for i, dataset in enumerate(datasets) if dataset == name]
        weights[:, own] = rng.multinomial(len(own), [1 / len(own)] * len(own), size=DRAWS)
    means = np.empty((DRAWS, len(values)))
    for place, own in enumerate(values):  # one by one: equal arms stay equal, to the last digit
        present = np.isfinite(own)
        with np.errstate(invalid="ignore"):
            of_tasks = (weights @ np.where(present, own, 0.0).T) / (weights @ present.T)
        means[:, place] = of_tasks.mean(axis=1)
    means = means[np.isfinite(means).all(axis=1)]
    order = np.argsort(-means, axis=1, kind="stable")
    ranks = np.empty(means.shape)
    np.put_along_axis(ranks, order, np.arange(1.0, means.shape[1] + 1)[None], axis=1)
    return ranks


def _quantile(ranks: Float[np.ndarray, "draws"], q: float) -> int:
    return int(np.quantile(ranks, q, method="inverted_cdf"))


def _cost(own: pl.DataFrame) -> tuple[float | None, float | None]:
    """Give the median time of an image's embedding, and of one prompt's answer."""
    embed, decode = own["embed_ms"].median(), own["decode_ms"].median()
    return (
        None if embed is None else float(str(embed)),
        None if decode is None else float(str(decode)),
    )


def _is_frontier(
    place: int,
    means: Float[np.ndarray, "arms"],
    costs: Sequence[tuple[float | None, float | None]],
) -> bool:
    """Tell whether nobody dominates an arm: in quality and in time of an image with one prompt."""
    times = [None if e is None or d is None else e + d for e, d in costs]
    own = times[place]
    if own is None:
        return False
    return not any(
        other is not None
        and ((mean >= means[place] and other < own) or (mean > means[place] and other <= own))
        for mean, other in zip(means, times, strict=True)
    )
