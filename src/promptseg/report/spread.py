"""How DICE is distributed in every task: over subjects, over images and over targets."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl
from jaxtyping import Float

from promptseg.report.view import combination
from promptseg.stats import COMBINATION, Group, jitter_label

BINS = 25
FEW_DOTS = 12  # up to so many values are dots; more are a shape
MOST_TASKS = 60
LEVELS = ("Subjects", "Images", "Targets")


@dataclass(frozen=True, slots=True)
class Shape:
    """The values of one level of one task, drawn from DICE 0 to 1 on 100 x 30."""

    n: int
    median: float
    low: float  # quartiles
    high: float
    path: str  # of a shape whose thickness is how many values there are; empty where dots are
    dots: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Spread:
    """Distributions of the leading combination, best median of targets first."""

    group: Group
    # task, and a shape per level; None: unknown (subjects), or the same as the level before
    lines: tuple[tuple[str, tuple[Shape | None, ...]], ...]
    n_left_out: int


def spread(records: pl.DataFrame, leading: Group | None) -> Spread | None:
    """Draw the distributions of one combination; None where it scored nothing.

    The value of an image is the mean over its targets, that of a subject the mean over its images.
    """
    if leading is None:
        return None
    values = _values(records, combination(leading))
    tasks = [(str(task), own) for (task,), own in values.group_by("task", maintain_order=True)]
    lines = [(task, _shapes(own)) for task, own in tasks]
    if not lines:
        return None
    lines.sort(key=lambda line: -next(one.median for one in reversed(line[1]) if one))
    return Spread(combination(leading), tuple(lines[:MOST_TASKS]), max(0, len(lines) - MOST_TASKS))


def _values(records: pl.DataFrame, group: Group) -> pl.DataFrame:
    """Give the DICE of every target, seeds averaged."""
    same = [
        (jitter_label() if name == "jitter" else pl.col(name)).eq_missing(
            pl.lit(getattr(group, name))
        )
        for name in COMBINATION
    ]
    return (
        records.filter(*same, pl.col("dice").is_not_null(), pl.col("task").is_not_null())
        .group_by("task", "dataset", "subject", "image_id", "target_id")
        .agg(pl.col("dice").mean())
        .sort("task", "dataset", "subject", "image_id", "target_id")
    )


def _shapes(targets: pl.DataFrame) -> tuple[Shape | None, ...]:
    images = targets.group_by("dataset", "subject", "image_id").agg(pl.col("dice").mean())
    known = images.drop_nulls("subject")
    subjects = known.group_by("dataset", "subject").agg(pl.col("dice").mean())
    values = [one["dice"].sort().to_numpy() for one in (subjects, images, targets)]
    first, *rest = (_shape(one) for one in values)
    same = [np.array_equal(a, b) for a, b in pairwise(values)]
    return first, *(None if is_same else one for one, is_same in zip(rest, same, strict=True))


def _shape(values: Float[np.ndarray, "n"]) -> Shape | None:
    if not len(values):
        return None
    low, median, high = (float(v) for v in np.quantile(values, [0.25, 0.5, 0.75]))
    few = len(values) <= FEW_DOTS
    return Shape(
        n=len(values),
        median=median,
        low=low,
        high=high,
        path="" if few else _violin(values),
        dots=tuple(map(float, values)) if few else (),
    )


def _violin(values: Float[np.ndarray, "n"]) -> str:
    """Draw a histogram as a body mirrored about its axis, at height 15."""
    counts = np.histogram(values, bins=BINS, range=(0.0, 1.0))[0].astype(float)
    half = 13 * counts / counts.max()
    step = 100 / BINS
    up = [f"H{i * step:g}V{15 - h:.1f}H{(i + 1) * step:g}" for i, h in enumerate(half)]
    down = [f"V{15 + h:.1f}H{i * step:g}" for i, h in reversed(list(enumerate(half)))]
    return f"M0 15{''.join(up)}{''.join(down)}Z"
