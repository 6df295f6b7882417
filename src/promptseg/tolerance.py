"""The tolerance radius: how far a prompt may miss until DICE has lost 0.05, and how surely."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from promptseg.interval import t_quantile, unit_errors

LOST = 0.05  # DICE, at which the tolerance ends
STEPS = 20  # between two levels, at which an interval is computed


def tolerance_radius(at: Sequence[float], losses: Float[np.ndarray, "levels"]) -> float | None:
    """Find where a curve of losses first reaches 0.05, by straight lines from (0, 0).

    None: within the levels it does not.
    """
    return _within(float(_radii(at, losses[None])[0]))


def _radii(at: Sequence[float], curves: Float[np.ndarray, "n levels"]) -> Float[np.ndarray, "n"]:
    """Find the tolerance radius of many curves; infinite where it lies beyond the levels."""
    found = np.full(len(curves), np.inf)
    before_at, before = 0.0, np.zeros(len(curves))
    for here, loss in zip(at, curves.T, strict=True):
        with np.errstate(invalid="ignore", divide="ignore"):
            between = before_at + (LOST - before) / (loss - before) * (here - before_at)
        is_here = (loss == before) | (here == before_at)
        reached = (loss >= LOST) & np.isinf(found)
        found[reached] = np.where(is_here, here, between)[reached]
        before_at, before = here, loss
    return found


def radius_interval(
    at: Sequence[float],
    values: Float[np.ndarray, "levels tasks units"],
    drawn: Float[np.ndarray, "draws units"] | None,
) -> tuple[float | None, float | None]:
    """Give the interval of the radius over subjects; an end beyond the levels is None.

    Parameters
    ----------
    values
        Losses, NaN where a unit lacks a task or a level; every task has five units or more.
    drawn
        How often each unit comes up in each draw, for the percentile bootstrap; None: the t
        interval of the curve, turned round. It holds the radii at which a loss of 0.05 lies in it.
    """
    if drawn is None:
        lo, hi = _radii(*_band(at, values))
    else:
        curves = _drawn_curves(values, drawn)
        if not len(curves):
            return None, None
        lo, hi = np.quantile(_radii(at, curves), [0.025, 0.975], method="inverted_cdf")
    return _within(float(lo)), _within(float(hi))


def _band(
    levels: Sequence[float], losses: Float[np.ndarray, "levels tasks units"]
) -> tuple[list[float], Float[np.ndarray, "2 places"]]:
    """Give the ends of the t interval all along the curve of losses, the upper end first.

    Between two levels, and from no loss at no jitter, each subject's loss goes by a straight line.
    """
    places: list[float] = []
    ends: list[Float[np.ndarray, "2 steps"]] = []
    before_at, before_mean = 0.0, 0.0
    before = np.zeros(losses.shape[2])
    share = np.linspace(0, 1, STEPS + 1)[1:]
    for at, values in zip(levels, losses, strict=True):
        mean, errors = float(np.nanmean(values, axis=1).mean()), unit_errors(values)
        along = np.outer(1 - share, before) + np.outer(share, errors)
        half = t_quantile(values) * np.linalg.norm(along, axis=1)
        centre = (1 - share) * before_mean + share * mean
        places += list(before_at + share * (at - before_at))
        ends.append(np.stack([centre + half, centre - half]))
        before_at, before_mean, before = at, mean, errors
    return places, np.concatenate(ends, axis=1)


def _drawn_curves(
    values: Float[np.ndarray, "levels tasks units"], drawn: Float[np.ndarray, "draws units"]
) -> Float[np.ndarray, "curves levels"]:
    """Give the curve of losses of every draw of the units that has units in every task."""
    shape = len(drawn), *values.shape[:2]
    flat = values.reshape(-1, values.shape[2]).T
    present = np.isfinite(flat)
    with np.errstate(invalid="ignore"):
        means = (drawn @ np.where(present, flat, 0.0)) / (drawn @ present)
    curves = means.reshape(shape).mean(axis=2)
    whole: Float[np.ndarray, "curves levels"] = curves[np.isfinite(curves).all(axis=1)]
    return whole


def _within(value: float) -> float | None:
    return value if np.isfinite(value) else None
