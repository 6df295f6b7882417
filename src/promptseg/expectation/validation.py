"""How wrong expected DICE is: on subjects, and on whole data sets, that nothing was learnt from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from promptseg.expectation.interval import subject_weights
from promptseg.expectation.learning import Examples, folds_of, learn
from promptseg.significance import sign_flip_p
from promptseg.stats import FEWEST

FAILURE = 0.5  # DICE below which a target failed
SURE = 0.05
MOST_BINS = 5
PER_BIN = 10  # targets at least
FEWEST_FAILED = 5  # and not failed: for an area under the curve


@dataclass(frozen=True, slots=True)
class Bin:
    """Targets of which about the same was expected: what that was, and what came."""

    expected: float
    observed: float
    n_targets: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How well one way of expecting DICE did, on held-out targets."""

    mae: float
    rmse: float
    rho: float | None  # Spearman, over targets; None: it expects the same everywhere
    auroc: float | None  # for DICE below 0.5; None: fewer than 5 on one side


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """The error of a predictor on what was held out; means are over targets, then subjects."""

    n_units: int  # held out, with at least one answer
    n_targets: int  # with an answer
    answered: float  # share of all held-out targets; of the rest nothing is said
    own: Score
    mean: Score  # the mean of the other subjects
    task: Score | None  # the task's mean over the other subjects; None: one task, or it is new
    predicted_iou: Score | None  # the model's own, as a DICE; only of deployable predictors
    r2: float | None  # against the mean of the others; None: DICE does not vary
    p: float | None  # of squared errors against the mean, by subject; None: too few subjects
    p_task: float | None
    slope: float | None  # of what came on what was expected; 1: calibrated
    intercept: float | None
    bins: tuple[Bin, ...]
    coverage: float | None  # of the 90 % interval; None: too few subjects for one
    width: float | None

    @property
    def beats_mean(self) -> bool:
        """Tell whether it is better than the mean of the others by more than chance."""
        return _beaten(self.p, self.own, self.mean)

    @property
    def beats_task(self) -> bool:
        """Tell whether it is better than the task's mean by more than chance."""
        return self.task is not None and _beaten(self.p_task, self.own, self.task)


def _beaten(p: float | None, own: Score, other: Score) -> bool:
    return p is not None and p < SURE and own.rmse < other.rmse


@dataclass(frozen=True, slots=True, eq=False)
class _HeldOut:
    """What was expected of targets before they were seen, by several ways, and what came."""

    dice: Float[np.ndarray, "n"]
    unit: tuple[str, ...]
    expected: Float[np.ndarray, "n"]
    mean: Float[np.ndarray, "n"]
    task: Float[np.ndarray, "n"]  # the mean, where the task is new
    predicted_iou: Float[np.ndarray, "n"]  # NaN: the model has none
    low: Float[np.ndarray, "n"]
    high: Float[np.ndarray, "n"]
    has_interval: bool
    has_task: bool  # tasks differ, and those that were asked for are known
    n_asked: int


def by_subject(examples: Examples) -> Error | None:
    """Measure the error on subjects held out; everything is learnt anew without each tenth.

    None below five subjects, and where no held-out target lies in the range of the others.
    """
    if examples.n_units < FEWEST:
        return None
    return _error(examples, folds_of(examples.unit, examples.dataset))


def by_dataset(examples: Examples) -> Error | None:
    """Measure the error on data sets held out, each whole: what a new data set has to expect.

    None where fewer than two data sets are there, or too little is left to learn from.
    """
    place = np.unique(examples.dataset, return_inverse=True)[1]
    return _error(examples, place) if place.max() > 0 else None


def _error(examples: Examples, fold: Int[np.ndarray, "n"]) -> Error | None:
    parts = list(_held_out(examples, fold))
    n_answered = sum(len(part.dice) for part in parts)
    return _judged(_together(parts)) if n_answered else None


def _together(parts: Sequence[_HeldOut]) -> _HeldOut:
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("dice", "expected", "mean", "task", "predicted_iou", "low", "high")
    }
    there = [part for part in parts if len(part.dice)]
    return _HeldOut(
        **arrays,
        unit=tuple(unit for part in parts for unit in part.unit),
        has_interval=all(part.has_interval for part in there),
        has_task=any(part.has_task for part in there),
        n_asked=sum(part.n_asked for part in parts),
    )


def _held_out(examples: Examples, fold: Int[np.ndarray, "n"]) -> Iterator[_HeldOut]:
    for k in range(int(fold.max()) + 1):
        rest, own = examples.at(fold != k), examples.at(fold == k)
        if rest.n_units >= 2:
            yield _asked(rest, own)


def _asked(rest: Examples, own: Examples) -> _HeldOut:
    learnt = learn(rest)
    answered = np.array(
        [
            learnt.reason_against(values, modality) is None
            for values, modality in zip(own.values, own.modality, strict=True)
        ],
        dtype=bool,
    )
    inside = own.at(answered)
    low, high = learnt.interval(inside.values, inside.modality)
    means = _task_means(rest)
    task = np.array([means.get(name, np.nan) for name in inside.task])
    known = ~np.isnan(task)
    return _HeldOut(
        dice=inside.dice,
        unit=inside.unit,
        expected=learnt.expected(inside.values, inside.modality),
        mean=np.full(len(inside.dice), learnt.mean),
        task=np.where(known, task, learnt.mean),
        predicted_iou=inside.predicted_iou,
        low=low,
        high=high,
        has_interval=learnt.has_interval,
        has_task=len(means) > 1 and bool(known.any()),
        n_asked=len(own.dice),
    )


def _task_means(examples: Examples) -> dict[str, float]:
    """Average the subject means of every task."""
    tasks = np.array(examples.task)
    found = {}
    for name in set(examples.task):
        own = examples.at(tasks == name)
        weight = subject_weights(own.numbers())
        found[name] = float(weight @ own.dice / weight.sum())
    return found


def _judged(held: _HeldOut) -> Error:
    unit = np.unique(held.unit, return_inverse=True)[1]
    weight = subject_weights(unit)
    weight = weight / weight.sum()
    squares = (held.dice - held.expected) ** 2
    worse = (held.dice - held.mean) ** 2
    n_units = int(unit.max()) + 1
    slope, intercept = _line(held.expected, held.dice, weight)
    iou = held.predicted_iou
    covered = (held.low <= held.dice) & (held.dice <= held.high)
    return Error(
        n_units=n_units,
        n_targets=len(held.dice),
        answered=len(held.dice) / held.n_asked,
        own=_score(held.expected, held.dice, weight),
        mean=_score(held.mean, held.dice, weight),
        task=_score(held.task, held.dice, weight) if held.has_task else None,
        predicted_iou=(
            None if np.isnan(iou).any() else _score(2 * iou / (1 + iou), held.dice, weight)
        ),
        r2=float(1 - weight @ squares / (weight @ worse)) if weight @ worse > 1e-12 else None,
        p=_p(worse - squares, unit),
        p_task=_p((held.dice - held.task) ** 2 - squares, unit) if held.has_task else None,
        slope=slope,
        intercept=intercept,
        bins=tuple(_bins(held.expected, held.dice)),
        coverage=float(weight @ covered) if held.has_interval else None,
        width=float(weight @ (held.high - held.low)) if held.has_interval else None,
    )


def _p(gain: Float[np.ndarray, "n"], unit: Int[np.ndarray, "n"]) -> float | None:
    by_unit = np.bincount(unit, weights=gain) / np.bincount(unit)
    return sign_flip_p(by_unit) if len(by_unit) >= FEWEST else None


def _score(
    expected: Float[np.ndarray, "n"], dice: Float[np.ndarray, "n"], weight: Float[np.ndarray, "n"]
) -> Score:
    from scipy.stats import rankdata

    rank, rank_dice = rankdata(expected), rankdata(dice)
    varies = np.ptp(rank) > 0 and np.ptp(rank_dice) > 0
    failed = dice < FAILURE
    few = min(int(failed.sum()), int((~failed).sum())) < FEWEST_FAILED
    return Score(
        mae=float(weight @ np.abs(dice - expected)),
        rmse=float(np.sqrt(weight @ (dice - expected) ** 2)),
        rho=float(np.corrcoef(rank, rank_dice)[0, 1]) if varies else None,
        auroc=None if few else _auroc(-rank, failed),
    )


def _auroc(rank: Float[np.ndarray, "n"], failed: Bool[np.ndarray, "n"]) -> float:
    """Give the chance that a failed target ranks above one that did not fail; ties count half."""
    from scipy.stats import mannwhitneyu

    statistic = float(mannwhitneyu(rank[failed], rank[~failed]).statistic)
    return statistic / (int(failed.sum()) * int((~failed).sum()))


def _line(
    expected: Float[np.ndarray, "n"], dice: Float[np.ndarray, "n"], weight: Float[np.ndarray, "n"]
) -> tuple[float | None, float | None]:
    """Fit what came on what was expected; None where the same was expected everywhere."""
    centre, level = float(weight @ expected), float(weight @ dice)
    square = float(weight @ (expected - centre) ** 2)
    if square < 1e-9:
        return None, None
    slope = float(weight @ ((expected - centre) * (dice - level))) / square
    return slope, level - slope * centre


def _bins(expected: Float[np.ndarray, "n"], dice: Float[np.ndarray, "n"]) -> Iterator[Bin]:
    count = min(MOST_BINS, len(dice) // PER_BIN)
    for own in np.array_split(np.argsort(expected, kind="stable"), max(1, count)):
        yield Bin(float(expected[own].mean()), float(dice[own].mean()), len(own))
