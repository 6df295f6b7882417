"""The oracle gap: what a user loses by the choice among a model's candidates, and why.

The gap of a target is the DICE of its best candidate (oracle) minus that of the candidate with the
highest predicted IoU (predicted), of the same prompt: never negative, and zero where the model's
own choice was the best. Everything has no rule by which a user could choose, and no gap.
"""

import polars as pl

from promptseg.factors import Factors, factors
from promptseg.stats import Estimate, Group, estimate, over_tasks

SELECTION = "oracle - predicted"
SAME = (
    "corpus", "model", "protocol", "unit", "strategy", "seed", "dataset", "image_id", "target_id",
    "task",
)  # fmt: skip


def gap_records(records: pl.DataFrame) -> pl.DataFrame:
    """Give a record per target that was scored under both selections, without jitter.

    `dice` holds the gap; all else is that of the oracle's record, which is off-protocol if either
    of the two was.
    """
    exact = records.filter(
        pl.col("jitter_mode").is_null(),
        pl.col("outcome") != "failed",
        pl.col("task").is_not_null(),
        pl.col("dice").is_not_null(),
        ~pl.col("strategy").is_in(["everything", "masks"]),
    )
    on = [name for name in SAME if name in records.columns]
    got = exact.filter(pl.col("selection") == "predicted").select(
        *on, got=pl.col("dice"), off=pl.col("off_protocol")
    )
    return (
        exact.filter(pl.col("selection") == "oracle")
        .join(got, on=on, how="inner", maintain_order="left")
        .with_columns(
            dice=pl.max_horizontal(pl.col("dice") - pl.col("got"), 0.0),
            off_protocol=pl.col("off_protocol") | pl.col("off"),
            selection=pl.lit(SELECTION),
        )
        .drop("got", "off")
    )


def gaps(records: pl.DataFrame, *, seed: int = 0) -> dict[Group, Estimate]:
    """Estimate the gap of every model, strategy and task, and over tasks (`task` None).

    Averages and intervals are those of `stats.estimate` and `stats.over_tasks`. Of these estimates
    `rate_no_overlap` is the share of targets without a gap: the model chose its best candidate. The
    gap cannot be negative, so that there is no test of whether it is zero.
    """
    own = gap_records(records)
    if not own.height:
        return {}
    return {**over_tasks(own, "dice", seed=seed), **estimate(own, "dice", seed=seed)}


def gap_factors(records: pl.DataFrame, attributes: pl.DataFrame) -> list[Factors]:
    """Correlate the gap with attributes, as `promptseg.factors` correlates DICE.

    A positive correlation means a larger gap. References: as `factors`.
    """
    own = gap_records(records)
    return factors(own, attributes) if own.height else []
