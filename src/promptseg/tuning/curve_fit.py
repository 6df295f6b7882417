"""What a learning curve says: means with intervals, a fitted power law, and how far it reaches."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from promptseg.interval import LEVEL
from promptseg.stats import FEWEST, MANY

Verdict = Literal["reaches", "few sizes", "few subjects", "flat", "falls", "wide"]
Unit = tuple[str, str]  # (dataset, subject), or (dataset, image_id) where images are split

REPLICATES = 2000
FEWEST_SIZES = 3
AHEAD = (2, 4)  # times the largest size: never further
EXPONENTS = np.geomspace(0.01, 2.0, 120)  # of the power law
GOALS = (0.05, 0.01, 0.005)  # a DICE to be reached is a multiple of one of these
ON_CURVE = 41  # places at which the fitted curve is given


@dataclass(frozen=True, slots=True)
class Scores:
    """DICE of held-out subjects: NaN where a subject lacks a task. Size 0 is the base."""

    sizes: tuple[int, ...]  # numbers of training subjects, ascending
    tasks: tuple[str, ...]
    units: tuple[Unit, ...]
    values: Float[np.ndarray, "sizes draws tasks units"]
    base: Float[np.ndarray, "tasks units"]


@dataclass(frozen=True, slots=True)
class Span:
    """A value and its 95 % interval; None below five held-out subjects."""

    value: float
    lo: float | None = None
    hi: float | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """What training on so many subjects gave."""

    size: int
    draws: tuple[float, ...]  # mean over tasks of subject means, of every draw
    dice: Span
    gain: Span  # over the base
    tasks: dict[str, float]
    subject_values: tuple[float, ...]  # of fewer than five held-out subjects


@dataclass(frozen=True, slots=True)
class Law:
    """The power law a - b n^-c of the number n of training subjects: a <= 1, b >= 0, 0 < c <= 2."""

    a: float
    b: float
    c: float

    def at(self, n: float) -> float:
        """Give the DICE that the law says for n subjects."""
        return float(self.a - self.b * n**-self.c)


@dataclass(frozen=True, slots=True)
class Place:
    """The fitted law at a number of subjects, and its gain over the largest size trained on."""

    n: float
    dice: Span
    gain: Span


@dataclass(frozen=True, slots=True)
class Goal:
    """How many subjects a DICE takes; `hi` is None where some replicates do not reach it."""

    dice: float
    n: int
    lo: int
    hi: int | None


@dataclass(frozen=True, slots=True)
class Curve:
    """A learning curve. `reach` is how many times the largest size it is extended to: 1, 2 or 4."""

    base: Span
    base_tasks: dict[str, float]
    points: tuple[Point, ...]
    seen: Span  # gain of the largest size over the smallest
    law: Law | None
    verdict: Verdict
    reach: int
    ahead: tuple[Place, ...]  # at 2 and 4 times the largest size, wherever a law was fitted
    course: tuple[Place, ...]  # the law from the smallest size to as far as it reaches
    goal: Goal | None
    n_subjects: int  # held out
    n_draws: int


def curve_of(scores: Scores, *, seed: int = 0, replicates: int = REPLICATES) -> Curve:
    """Average, fit and extrapolate.

    A mean is over tasks of means over held-out subjects, then over draws. Replicates resample
    held-out subjects (the same for all sizes and the base) and draws (which are nested, so that
    one draw is one curve); the law is fitted anew to each. It is extended only where the interval
    of the gain from twice the largest size is narrower than the gain seen from the smallest size
    to the largest, and that gain is above zero.

    References
    ----------
    T. Viering and M. Loog, "The shape of learning curves: a review", IEEE TPAMI 45 (2023),
    doi:10.1109/TPAMI.2022.3220744. B. Efron, Annals of Statistics 7 (1979),
    doi:10.1214/aos/1176344552.
    """
    by_draw = _means(scores.values, np.ones(len(scores.units)))
    base = float(_means(scores.base, np.ones(len(scores.units))))
    means = np.array([base, *by_draw.mean(axis=1)])
    has_interval = smallest_task(scores) >= FEWEST
    drawn = replicated(scores, seed=seed, replicates=replicates) if has_interval else None
    points = tuple(_point(scores, i, by_draw[i], means, drawn) for i in range(len(scores.sizes)))
    seen = _span(means[-1] - means[1], None if drawn is None else drawn[:, -1] - drawn[:, 1])
    has_law = len(scores.sizes) >= FEWEST_SIZES and drawn is not None
    laws = None if not has_law or drawn is None else fitted(scores.sizes, drawn[:, 1:])
    law = fit(scores.sizes, means[1:]) if has_law else None
    ahead = () if law is None else _places(law, laws, [scores.sizes[-1] * t for t in AHEAD], scores)
    verdict, reach = _judged(scores, seen, ahead)
    until = np.geomspace(scores.sizes[0], scores.sizes[-1] * reach, ON_CURVE).tolist()
    return Curve(
        base=_span(base, None if drawn is None else drawn[:, 0]),
        base_tasks=_by_task(scores.tasks, scores.base),
        points=points,
        seen=seen,
        law=law,
        verdict=verdict,
        reach=reach,
        ahead=ahead,
        course=() if law is None else _places(law, laws, until, scores),
        goal=None if law is None else _goal(law, laws, scores.sizes[-1], reach),
        n_subjects=len(scores.units),
        n_draws=scores.values.shape[1],
    )


def smallest_task(scores: Scores) -> int:
    """Count the held-out subjects of the task that has fewest."""
    return int(np.isfinite(scores.base).sum(axis=1).min())


def _means(
    values: Float[np.ndarray, "*more tasks units"], weights: Float[np.ndarray, "units"]
) -> Float[np.ndarray, "*more"]:
    """Average over units by weights, then over tasks; NaN where a task has no unit."""
    present = np.isfinite(values)
    total = np.where(present, values, 0.0) @ weights
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((total / (present @ weights)).mean(axis=-1))


def replicated(
    scores: Scores, *, seed: int, replicates: int
) -> Float[np.ndarray, "replicates sizes_and_base"]:
    """Resample the mean curve; the first column is the base.

    Deviations by subjects and by draws are resampled apart and added. Those of fewer than 30 are
    widened as Student's t interval is wider than their bootstrap. Of datasets with fewer than
    five held-out subjects all are resampled together.
    """
    rng = np.random.default_rng(seed)
    n, k = smallest_task(scores), scores.values.shape[1]
    together = np.concatenate([scores.base[None], scores.values.mean(axis=1)])
    centre = _means(together, np.ones(len(scores.units)))
    weights = _resampled(scores.units, rng, replicates)
    by_unit = _resampled_means(together, weights) - centre
    if n < MANY:
        by_unit *= _wider(n)
    curves = _means(scores.values, np.ones(len(scores.units)))
    picked = rng.integers(k, size=(replicates, k))
    by_draw = curves[:, picked].mean(axis=2).T - curves.mean(axis=1)
    by_draw *= _wider(k) if 1 < k < MANY else 1.0
    found = centre + by_unit
    found[:, 1:] += by_draw
    whole = np.isfinite(found).all(axis=1)  # else a task has no unit in this replicate
    return np.asarray(found[whole])


def _resampled_means(
    values: Float[np.ndarray, "sizes_and_base tasks units"],
    weights: Float[np.ndarray, "replicates units"],
) -> Float[np.ndarray, "replicates sizes_and_base"]:
    """Average as `_means` does, in every replicate."""
    present = np.isfinite(values)
    total = np.where(present, values, 0.0) @ weights.T
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((total / (present @ weights.T)).mean(axis=1).T)


def _wider(n: int) -> float:
    """Tell how much wider Student's t interval of n values is than their plain bootstrap's."""
    from scipy.special import ndtri, stdtrit

    tail = (1 + LEVEL) / 2
    return float(stdtrit(n - 1, tail) / ndtri(tail) * np.sqrt(n / (n - 1)))


def _resampled(
    units: Sequence[Unit], rng: np.random.Generator, replicates: int
) -> Float[np.ndarray, "replicates units"]:
    """Tell how often each unit comes up in each replicate."""
    counts = Counter(dataset for dataset, _ in units)
    apart = min(counts.values()) >= FEWEST
    weights = np.zeros((replicates, len(units)))
    for name in sorted(counts) if apart else [None]:
        columns = [i for i, unit in enumerate(units) if name is None or unit[0] == name]
        picked = rng.integers(len(columns), size=(replicates, len(columns)))
        for row, own in zip(weights, picked, strict=True):
            row[columns] = np.bincount(own, minlength=len(columns))
    return weights


def _span(value: float, drawn: Float[np.ndarray, "replicates"] | None) -> Span:
    if drawn is None:
        return Span(float(value))
    lo, hi = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Span(float(value), float(lo), float(hi))


def _dice(value: float, drawn: Float[np.ndarray, "replicates"] | None) -> Span:
    """Give the interval of a DICE, cut at 0 and 1."""
    return _span(value, None if drawn is None else np.clip(drawn, 0.0, 1.0))


def _point(
    scores: Scores,
    index: int,
    draws: Float[np.ndarray, "draws"],
    means: Float[np.ndarray, "sizes_and_base"],
    drawn: Float[np.ndarray, "replicates sizes_and_base"] | None,
) -> Point:
    own = scores.values[index].mean(axis=0)
    column, gains = (
        (None, None) if drawn is None else (drawn[:, index + 1], drawn[:, index + 1] - drawn[:, 0])
    )
    few = len(scores.units) < FEWEST
    return Point(
        size=scores.sizes[index],
        draws=tuple(map(float, draws)),
        dice=_dice(means[index + 1], column),
        gain=_span(means[index + 1] - means[0], gains),
        tasks=_by_task(scores.tasks, own),
        subject_values=tuple(map(float, np.nanmean(own, axis=0))) if few else (),
    )


def _by_task(tasks: Sequence[str], values: Float[np.ndarray, "tasks units"]) -> dict[str, float]:
    return dict(zip(tasks, map(float, np.nanmean(values, axis=1)), strict=True))


def fit(sizes: Sequence[int], means: Float[np.ndarray, "sizes"]) -> Law:
    """Fit the power law to means by least squares, within its bounds.

    Raises ValueError with fewer than three sizes. References: as `curve_of`.
    """
    from scipy.optimize import least_squares

    if len(sizes) < FEWEST_SIZES:
        raise ValueError("a power law needs at least three sizes")
    n = np.asarray(sizes, dtype=np.float64)
    low, high = np.array([-1.0, 0.0, EXPONENTS[0]]), np.array([1.0, np.inf, EXPONENTS[-1]])
    start = np.clip(fitted(sizes, means[None])[0], low + 1e-9, high - 1e-9)

    def error(law: Float[np.ndarray, "3"]) -> Float[np.ndarray, "sizes"]:
        return np.asarray(law[0] - law[1] * n ** -law[2] - means)

    found = least_squares(
        error,
        start,
        bounds=(low, high),
        x_scale=[0.1, 0.1, 0.1],
        xtol=1e-12,
        ftol=1e-12,
        gtol=1e-12,
    )
    return Law(*map(float, found.x))


def fitted(
    sizes: Sequence[int], means: Float[np.ndarray, "replicates sizes"]
) -> Float[np.ndarray, "replicates 3"]:
    """Fit the power law to many curves at once: a, b and c of each.

    For one exponent the law is linear in a and b, whose least squares within the bounds are
    known; the exponent is the best of a fine grid.
    """
    x = np.asarray(sizes, dtype=np.float64) ** -EXPONENTS[:, None]
    middle, spread = x.mean(axis=1), x - x.mean(axis=1, keepdims=True)
    # least squares lie where they are free, or else at a = 1 or at b = 0
    free = -(spread @ means.T) / (spread**2).sum(axis=1, keepdims=True)
    at_one = np.maximum(x @ (1 - means).T / (x**2).sum(axis=1, keepdims=True), 0.0)
    level = np.broadcast_to(np.minimum(means.mean(axis=1), 1.0), free.shape)
    a = np.stack([means.mean(axis=1) + free * middle[:, None], np.ones_like(free), level])
    b = np.stack([free, at_one, np.zeros_like(free)])
    errors = np.full(a.shape, np.inf)
    for kind, exponent in np.ndindex(a.shape[:2]):
        foretold = a[kind, exponent][:, None] - b[kind, exponent][:, None] * x[exponent]
        errors[kind, exponent] = ((foretold - means) ** 2).sum(axis=1)
    errors[(a > 1) | (b < 0)] = np.inf
    of = np.arange(len(means))
    kinds, exponents = np.unravel_index(
        errors.reshape(-1, len(means)).argmin(axis=0), errors.shape[:2]
    )
    return np.column_stack([a[kinds, exponents, of], b[kinds, exponents, of], EXPONENTS[exponents]])


def _places(
    law: Law,
    laws: Float[np.ndarray, "replicates 3"] | None,
    where: Sequence[float],
    scores: Scores,
) -> tuple[Place, ...]:
    """Give the law and its percentile band."""
    assert laws is not None
    last = float(scores.sizes[-1])
    at_last = _at(laws, last)
    return tuple(
        Place(
            float(n),
            _dice(law.at(n), _at(laws, n)),
            _span(law.at(n) - law.at(last), _at(laws, n) - at_last),
        )
        for n in where
    )


def _at(laws: Float[np.ndarray, "replicates 3"], n: float) -> Float[np.ndarray, "replicates"]:
    return np.asarray(laws[:, 0] - laws[:, 1] * n ** -laws[:, 2])


def _judged(scores: Scores, seen: Span, ahead: Sequence[Place]) -> tuple[Verdict, int]:
    """Decide how far the law may be extended, and why not further."""
    if seen.lo is None or seen.hi is None:
        return "few subjects", 1
    if seen.hi < 0:
        return "falls", 1
    if seen.lo <= 0:
        return "flat", 1
    if len(scores.sizes) < FEWEST_SIZES:
        return "few sizes", 1
    reach = 1
    for times, place in zip(AHEAD, ahead, strict=True):
        if (place.gain.hi or 0.0) - (place.gain.lo or 0.0) > seen.value:
            break
        reach = times
    return ("wide", 1) if reach == 1 else ("reaches", reach)


def _goal(
    law: Law, laws: Float[np.ndarray, "replicates 3"] | None, last: int, reach: int
) -> Goal | None:
    """Choose the roundest DICE that lies ahead within reach, and count what it takes."""
    assert laws is not None
    now, then = law.at(last), law.at(last * reach)
    for step in GOALS:
        dice = round(step * float(np.floor(then / step + 1e-9)), 4)
        if dice > now + 1e-3:
            break
    else:
        return None
    lo, hi = np.quantile(_needed(laws, dice), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="nearest")
    own = _needed(np.array([[law.a, law.b, law.c]]), dice)[0]
    most = last * AHEAD[-1]
    return Goal(dice, int(np.ceil(own)), int(np.ceil(lo)), int(np.ceil(hi)) if hi <= most else None)


def _needed(
    laws: Float[np.ndarray, "replicates 3"], dice: float
) -> Float[np.ndarray, "replicates"]:
    """Count the subjects that a DICE takes; infinite where the law does not get there."""
    a, b, c = laws.T
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        n = (b / (a - dice)) ** (1 / c)
    return np.where(a > dice, np.maximum(n, 1.0), np.inf)
