"""Intervals of a mean over tasks of means over subjects: Student's t, and the bootstrap."""

import numpy as np
from jaxtyping import Float

LEVEL = 0.95


def t_interval(values: Float[np.ndarray, "tasks units"]) -> tuple[float, float]:
    """Student's t interval of the mean over tasks of means over units, NaN where a task lacks one.

    For one task this is the textbook interval, mean ± t s / √n. Reference: as `stats.estimate`.
    """
    centre = float(np.nanmean(values, axis=1).mean())
    half = t_quantile(values) * float(np.linalg.norm(unit_errors(values)))
    return centre - half, centre + half


def unit_errors(values: Float[np.ndarray, "tasks units"]) -> Float[np.ndarray, "units"]:
    """Give what each unit adds to the error of the mean over tasks; their norm is its own.

    A unit in several tasks is one, not several.
    """
    n = np.isfinite(values).sum(axis=1, keepdims=True)
    means = np.nanmean(values, axis=1, keepdims=True)
    errors: Float[np.ndarray, " units"] = np.nansum(
        (values - means) / np.sqrt(n * (n - 1)), axis=0
    ) / len(values)
    return errors


def t_quantile(values: Float[np.ndarray, "tasks units"]) -> float:
    """Give the quantile of Student's t for the task of the fewest units."""
    from scipy.special import stdtrit

    fewest = int(np.isfinite(values).sum(axis=1).min())
    return float(stdtrit(fewest - 1, (1 + LEVEL) / 2))


def bootstrap_interval(
    values: Float[np.ndarray, "tasks units"], weights: Float[np.ndarray, "draws units"]
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over tasks of means over units.

    `weights` says how often each unit comes up in each draw. Reference: as `stats.estimate`.
    """
    present = np.isfinite(values)
    drawn = weights @ present.T
    # a draw without any unit of a task has no mean for it, and does not count
    with np.errstate(invalid="ignore"):
        means = (weights @ np.where(present, values, 0.0).T) / drawn
    estimates = means.mean(axis=1)
    tails = np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    lo, hi = np.quantile(estimates[np.isfinite(estimates)], tails)
    return float(lo), float(hi)
