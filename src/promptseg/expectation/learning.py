"""Learning what DICE to expect: a table of targets becomes a model that knows its own error."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, compress

import numpy as np
from jaxtyping import Bool, Float, Int

from promptseg.expectation.domain import Domain, domain_of
from promptseg.expectation.interval import (
    FEWEST as FEWEST_FOR_INTERVAL,
)
from promptseg.expectation.interval import Residuals, Spread, spread_of, subject_weights
from promptseg.expectation.spline import Basis, basis_of, fitted, ridge

FOLDS = 10
PENALTIES = (1.0, 4.0, 16.0, 64.0, float("inf"))  # in subjects; the last is the mean alone
PER_FEATURE = 3  # subjects that a feature costs
FEWEST_FEATURES = 2
BENT_FROM = 20  # subjects: below, all lines are straight

Values = Float[np.ndarray, "n k"]


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Targets with their features and DICE; rows of one subject share a unit."""

    names: tuple[str, ...]
    values: Values  # on the scales of learning, NaN: undefined
    dice: Float[np.ndarray, "n"]
    unit: tuple[str, ...]  # data set and subject, or image where the subject is unknown
    dataset: tuple[str, ...]
    modality: tuple[str, ...]
    task: tuple[str, ...]
    predicted_iou: Float[np.ndarray, "n"]  # the model's own, NaN: it has none

    @property
    def n_units(self) -> int:
        """Number of subjects."""
        return len(set(self.unit))

    def numbers(self) -> Int[np.ndarray, "n"]:
        """Give every target the number of its subject, from 0."""
        number: Int[np.ndarray, " n"] = np.unique(self.unit, return_inverse=True)[1]
        return number

    def at(self, chosen: Bool[np.ndarray, "n"]) -> "Examples":
        """Take some of the targets."""
        return Examples(
            names=self.names,
            values=self.values[chosen],
            dice=self.dice[chosen],
            unit=tuple(compress(self.unit, chosen)),
            dataset=tuple(compress(self.dataset, chosen)),
            modality=tuple(compress(self.modality, chosen)),
            task=tuple(compress(self.task, chosen)),
            predicted_iou=self.predicted_iou[chosen],
        )


def joined(parts: Sequence[Examples]) -> Examples:
    """Bring examples of several runs together."""
    return Examples(
        names=parts[0].names,
        values=np.concatenate([part.values for part in parts]),
        dice=np.concatenate([part.dice for part in parts]),
        unit=tuple(chain.from_iterable(part.unit for part in parts)),
        dataset=tuple(chain.from_iterable(part.dataset for part in parts)),
        modality=tuple(chain.from_iterable(part.modality for part in parts)),
        task=tuple(chain.from_iterable(part.task for part in parts)),
        predicted_iou=np.concatenate([part.predicted_iou for part in parts]),
    )


@dataclass(frozen=True, slots=True)
class Fold:
    """What was learnt without one fold of the subjects."""

    coefficients: tuple[float, ...]
    spread: Spread


@dataclass(frozen=True, slots=True)
class Learnt:
    """A regression of DICE on features, as numbers."""

    names: tuple[str, ...]  # all features that have to be given
    used: tuple[int, ...]  # places of those that the regression uses
    basis: Basis
    coefficients: tuple[float, ...]
    penalty: float | None  # in subjects; None: nothing helped, the mean alone
    mean: float  # of subjects
    folds: tuple[Fold, ...]
    residuals: Residuals
    domain: Domain  # of what is used, and of what was the same everywhere in training

    def __post_init__(self) -> None:
        """Refuse parts that do not fit together, as an edited file may have them."""
        width, kept = self.basis.width, self.residuals
        several = [self.coefficients, *(fold.coefficients for fold in self.folds)]
        fits = all(len(one) == width + 1 for one in several)
        fits &= len(kept.fold) == len(kept.size) == len(kept.weight)
        fits &= all(0 <= k < len(self.folds) for k in kept.fold)
        fits &= all(0 <= i < len(self.names) for i in self.used)
        fits &= len(self.used) == len(self.basis.knots) == len(self.basis.gaps)
        fits &= set(self.domain.names) <= set(self.names) and self.domain.is_whole
        if not fits:
            raise ValueError("the parts of a regression do not fit together")

    def expected(self, values: Values, modality: Sequence[str]) -> Float[np.ndarray, "n"]:
        """Give the expected DICE of targets, wherever they lie: ask the domain first."""
        columns = self.basis.columns(values[:, list(self.used)], modality)
        return fitted(columns, np.array(self.coefficients))

    def interval(
        self, values: Values, modality: Sequence[str]
    ) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
        """Bound the DICE of single new targets, nine times in ten."""
        columns = self.basis.columns(values[:, list(self.used)], modality)
        centre = [fitted(columns, np.array(fold.coefficients)) for fold in self.folds]
        spread = [fold.spread.at(one) for fold, one in zip(self.folds, centre, strict=True)]
        return self.residuals.interval(np.stack(centre, axis=1), np.stack(spread, axis=1))

    def reason_against(self, values: Float[np.ndarray, "k"], modality: str) -> str | None:
        """Tell why there is no answer for a target; None where there is one."""
        checked = [self.names.index(name) for name in self.domain.names]
        return self.domain.reason_against(values[checked], modality)

    @property
    def has_interval(self) -> bool:
        """Tell whether there were subjects enough to bound anything."""
        n_units = round(1 / (1 - min(0.999999, sum(self.residuals.weight))) - 1)
        return n_units >= FEWEST_FOR_INTERVAL


def folds_of(
    unit: Sequence[str], dataset: Sequence[str], *, most: int = FOLDS
) -> Int[np.ndarray, "n"]:
    """Deal subjects to folds, those of one data set evenly; all of a subject share its fold.

    The order follows from the names alone, and not from that of the rows.
    """
    place = {one: (of, _digest(one)) for one, of in zip(unit, dataset, strict=True)}
    ordered = sorted(place, key=lambda one: place[one])
    fold = {one: i % min(most, len(ordered)) for i, one in enumerate(ordered)}
    return np.array([fold[one] for one in unit])


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def learn(examples: Examples) -> Learnt:
    """Learn what DICE to expect; the penalty is chosen, and the error known, by unseen subjects.

    Raises ValueError below two subjects.
    """
    if examples.n_units < 2:
        raise ValueError("at least two subjects are needed to hold one out")
    unit = examples.numbers()
    weight = subject_weights(unit)
    used, checked = _features(examples)
    values = examples.values[:, used]
    basis = basis_of(values, examples.modality, weight, bent=examples.n_units >= BENT_FROM)
    columns = basis.columns(values, examples.modality)
    fold = folds_of(examples.unit, examples.dataset)
    tried = [_cross(columns, examples.dice, weight, fold, penalty) for penalty in PENALTIES]
    loss = [float(weight @ (examples.dice - expected) ** 2) for _, expected in tried]
    best = int(np.argmin(np.round(loss, 12)))
    coefficients, expected = tried[best]
    folds = _folds(columns, examples.dice, weight, fold, coefficients)
    spread = np.array([folds[k].spread.at(expected[i : i + 1])[0] for i, k in enumerate(fold)])
    n_units = examples.n_units
    return Learnt(
        names=examples.names,
        used=tuple(used),
        basis=basis,
        coefficients=tuple(ridge(columns, examples.dice, weight, PENALTIES[best]).tolist()),
        penalty=PENALTIES[best] if np.isfinite(PENALTIES[best]) else None,
        mean=float(weight @ examples.dice / weight.sum()),
        folds=folds,
        residuals=Residuals(
            fold=tuple(int(k) for k in fold),
            size=tuple((np.abs(examples.dice - expected) / spread).tolist()),
            weight=tuple((weight / (n_units + 1)).tolist()),
        ),
        domain=domain_of(
            [examples.names[i] for i in checked], examples.values[:, checked], examples.modality,
            unit,
        ),
    )  # fmt: skip


def _features(examples: Examples) -> tuple[list[int], list[int]]:
    """Choose what is used: the first features that vary, as many as there are subjects for."""
    there = ~np.isnan(examples.values)
    defined = there.any(0)
    filled = np.where(there, examples.values, np.nan)
    varies = [
        i
        for i in np.flatnonzero(defined).tolist()
        if np.nanmax(filled[:, i]) > np.nanmin(filled[:, i]) or not there[:, i].all()
    ]
    most = max(FEWEST_FEATURES, examples.n_units // PER_FEATURE)
    used = varies[:most]
    same = [i for i in np.flatnonzero(defined).tolist() if i not in varies]
    return used, sorted([*used, *same])


def _cross(
    columns: Float[np.ndarray, "n p"],
    dice: Float[np.ndarray, "n"],
    weight: Float[np.ndarray, "n"],
    fold: Int[np.ndarray, "n"],
    penalty: float,
) -> tuple[list[Float[np.ndarray, "q"]], Float[np.ndarray, "n"]]:
    """Fit without each fold, and expect the DICE of what was left out."""
    found, expected = [], np.zeros(len(dice))
    for k in range(int(fold.max()) + 1):
        rest, own = fold != k, fold == k
        coefficients = ridge(columns[rest], dice[rest], weight[rest], penalty)
        expected[own] = fitted(columns[own], coefficients)
        found.append(coefficients)
    return found, expected


def _folds(
    columns: Float[np.ndarray, "n p"],
    dice: Float[np.ndarray, "n"],
    weight: Float[np.ndarray, "n"],
    fold: Int[np.ndarray, "n"],
    coefficients: Sequence[Float[np.ndarray, "q"]],
) -> tuple[Fold, ...]:
    made = []
    for k, own in enumerate(coefficients):
        rest = fold != k
        spread = spread_of(fitted(columns[rest], own), dice[rest], weight[rest])
        made.append(Fold(tuple(own.tolist()), spread))
    return tuple(made)
