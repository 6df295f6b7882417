"""Which model, which prompt: every way of answering against the best, paired by target.

An arm is a model with a strategy and a selection. Arms are compared on the targets that both were
scored on, as `paired` compares models on the same prompts; off-protocol arms and jittered prompts
take no part. Beside it: how stable the ranking is, what the oracle adds, and what each arm costs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from jaxtyping import Float

from promptseg.paired import Cell, compare
from promptseg.significance import holm
from promptseg.stats import DRAWS, FEWEST

KEY = ("model", "protocol", "strategy", "selection")


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

    `cell.p` is of this contrast alone, `p_holm` corrected for all contrasts shown together; None
    where the subjects are too few to test.
    """

    arm: Arm
    against: Arm
    cell: Cell
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
    """List the on-protocol arms that were scored without jitter."""
    rows = _exact(records).select(KEY).unique(maintain_order=True)
    return [Arm(*row) for row in rows.iter_rows()]


def _exact(records: pl.DataFrame) -> pl.DataFrame:
    return records.filter(
        pl.col("jitter_mode").is_null(),
        ~pl.col("off_protocol"),
        pl.col("task").is_not_null(),
        pl.col("strategy") != "masks",
    )


def _is(arm: Arm) -> pl.Expr:
    return pl.all_horizontal(*(pl.col(name) == getattr(arm, name) for name in KEY))


def contrast(records: pl.DataFrame, arm: Arm, against: Arm) -> Cell | None:
    """Compare two arms on the targets that both were scored on; None where there are none.

    The cell is the mean over tasks, or that of the only task.
    """
    labels = {"a": against, "b": arm}
    sides = [
        _exact(records)
        .filter(_is(one))
        .with_columns(
            pl.lit(name).alias("model"),
            pl.lit("any").alias("strategy"),
            pl.lit("any").alias("selection"),
            pl.lit("any").alias("protocol"),
            prompt_id=pl.lit(None, pl.String),
        )
        for name, one in labels.items()
    ]
    if not all(side.height for side in sides):
        return None
    found = compare(pl.concat(sides), "a", "b")
    rows = [*found.means, *found.cells]
    return rows[0] if rows and rows[0].difference.value is not None else None


def against_best(records: pl.DataFrame, arms: Sequence[Arm], best: Arm) -> list[Contrast]:
    """Compare every arm with the best one; p is corrected for all of these contrasts."""
    found = [
        Contrast(arm=arm, against=best, cell=cell)
        for arm in arms
        if arm != best and (cell := contrast(records, arm, best)) is not None
    ]
    return corrected(found)


def oracle_gaps(records: pl.DataFrame, arms: Sequence[Arm]) -> list[Contrast]:
    """Compare what a user gets with what the oracle would take, strategy by strategy.

    The difference is deployable minus oracle: negative, and as large as what a better choice among
    the candidates could give.
    """
    found = []
    for oracle in arms:
        for selection in ("predicted", "single"):
            own = replace(oracle, selection=selection)
            if oracle.selection == "oracle" and own in arms:
                cell = contrast(records, own, oracle)
                if cell is not None:
                    found.append(Contrast(arm=own, against=oracle, cell=cell))
    return corrected(found)


def corrected(found: Sequence[Contrast]) -> list[Contrast]:
    """Correct the p of contrasts for each other, by Holm."""
    tested = [i for i, one in enumerate(found) if one.cell.p is not None]
    values = dict(zip(tested, holm([found[i].cell.p or 0.0 for i in tested]), strict=True))
    return [replace(one, p_holm=values.get(i)) for i, one in enumerate(found)]


def ranking(records: pl.DataFrame, arms: Sequence[Arm], *, seed: int = 0) -> list[Place]:
    """Rank arms, and tell how often the ranking would be another with other subjects.

    Only targets count that all arms were scored on. Subjects are resampled within data sets, the
    same draw for all arms (percentile bootstrap); below five subjects nothing is said of stability.
    """
    scored = _exact(records).filter(pl.col("outcome") != "failed")
    listed = pl.DataFrame(
        [{name: getattr(arm, name) for name in KEY} | {"arm": n} for n, arm in enumerate(arms)]
    )
    numbered = scored.join(listed, on=KEY, how="inner", maintain_order="left")
    by = ["arm", "dataset", "subject", "task", "image_id", "target_id"]
    targets = numbered.group_by(by, maintain_order=True).agg(pl.col("dice").mean())
    common = targets.filter(pl.col("arm").n_unique().over("task", "target_id") == len(arms))
    if not common.height:
        return []
    values, datasets = _by_unit(common, len(arms))
    means = np.nanmean(values, axis=2).mean(axis=1)
    order: list[int] = np.argsort(-means, kind="stable").tolist()
    ranks = np.empty(len(arms), dtype=int)
    ranks[order] = np.arange(1, len(arms) + 1)
    drawn = _resampled_ranks(values, datasets, seed) if values.shape[2] >= FEWEST else None
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


def _by_unit(
    common: pl.DataFrame, n_arms: int
) -> tuple[Float[np.ndarray, "arms tasks units"], list[str]]:
    """Average targets in images and images in subjects; NaN where a subject lacks a task."""
    by_image = common["subject"].is_null().any()
    who = pl.col("image_id") if by_image else pl.col("subject")
    means = (
        common.with_columns(who=who)
        .group_by("arm", "task", "dataset", "who", "image_id", maintain_order=True)
        .agg(pl.col("dice").mean())
        .group_by("arm", "task", "dataset", "who", maintain_order=True)
        .agg(pl.col("dice").mean())
    )
    tasks = {name: i for i, name in enumerate(sorted(set(means["task"].to_list())))}
    pairs = sorted(set(means.select("dataset", "who").iter_rows()))
    units: Mapping[tuple[str, str], int] = {pair: i for i, pair in enumerate(pairs)}
    values = np.full((n_arms, len(tasks), len(units)), np.nan)
    for arm, task, dataset, unit, dice in means.iter_rows():
        values[arm, tasks[task], units[dataset, unit]] = dice
    return values, [dataset for dataset, _ in pairs]


def _resampled_ranks(
    values: Float[np.ndarray, "arms tasks units"], datasets: Sequence[str], seed: int
) -> Float[np.ndarray, "draws arms"]:
    rng = np.random.default_rng(seed)
    weights = np.zeros((DRAWS, len(datasets)))
    for name in dict.fromkeys(datasets):
        own = [i for i, dataset in enumerate(datasets) if dataset == name]
        weights[:, own] = rng.multinomial(len(own), [1 / len(own)] * len(own), size=DRAWS)
    present = np.isfinite(values)
    sums = np.einsum("du,atu->dat", weights, np.where(present, values, 0.0))
    with np.errstate(invalid="ignore"):
        means = (sums / np.einsum("du,atu->dat", weights, present)).mean(axis=2)
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
