"""Prediction intervals that hold for targets of new subjects: CV+ with subjects as units.

The residuals of subjects that a fold has not seen, in multiples of its spread there, are laid
around what every fold expects of a new target. A subject weighs 1 / (subjects + 1), whatever the
number of its targets, and the new one weighs as much: it may be worse than all.

References
----------
CV+: R. F. Barber, E. J. Candes, A. Ramdas and R. J. Tibshirani, Annals of Statistics 49 (2021),
doi:10.1214/20-AOS1965. Subjects with several targets: R. Dunn, L. Wasserman and A. Ramdas, Journal
of the American Statistical Association 118 (2023), doi:10.1080/01621459.2022.2060112.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

LEVEL = 0.9
FEWEST = 9  # subjects: below, the new one weighs more than is left outside
NARROWEST = 0.02  # of DICE: no spread is smaller
AT_ONCE = 256  # rows
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Spread:
    """How far DICE lies from what is expected: most in the middle, least at 0 and 1."""

    flat: float
    middle: float

    def at(self, expected: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """Give the usual distance at an expected DICE."""
        shaped = self.flat + self.middle * 4 * expected * (1 - expected)
        distance: Float[np.ndarray, " n"] = np.maximum(NARROWEST, shaped)
        return distance


def spread_of(
    expected: Float[np.ndarray, "n"], dice: Float[np.ndarray, "n"], weight: Float[np.ndarray, "n"]
) -> Spread:
    """Learn the spread from absolute residuals, by least squares without negative terms."""
    from scipy.optimize import nnls

    root = np.sqrt(weight)
    shape = np.stack([np.ones_like(expected), 4 * expected * (1 - expected)], axis=1)
    flat, middle = nnls(root[:, None] * shape, root * np.abs(dice - expected))[0]
    return Spread(float(flat), float(middle))


@dataclass(frozen=True, slots=True)
class Residuals:
    """Of every target of training: the fold that had not seen it, its residual, its weight."""

    fold: tuple[int, ...]
    size: tuple[float, ...]  # absolute, in multiples of the fold's spread there
    weight: tuple[float, ...]  # sums up to subjects / (subjects + 1)

    def interval(
        self, expected: Float[np.ndarray, "n folds"], spread: Float[np.ndarray, "n folds"]
    ) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
        """Bound the DICE of new targets by what every fold expects of them; within 0 and 1.

        With fewer than 9 subjects nothing can be bounded: the interval is 0 to 1.
        """
        fold, size, weight = np.array(self.fold), np.array(self.size), np.array(self.weight)
        lower, upper = [], []
        for start in range(0, len(expected), AT_ONCE):
            rows = slice(start, start + AT_ONCE)
            centre, reach = expected[rows][:, fold], size * spread[rows][:, fold]
            upper.append(_reached(centre + reach, weight))
            lower.append(-_reached(reach - centre, weight))
        return np.clip(_joined(lower), 0, 1), np.clip(_joined(upper), 0, 1)


def _joined(parts: list[Float[np.ndarray, "_"]]) -> Float[np.ndarray, "n"]:
    return np.concatenate(parts) if parts else np.zeros(0)


def _reached(
    values: Float[np.ndarray, "n m"], weight: Float[np.ndarray, "m"]
) -> Float[np.ndarray, "n"]:
    """Give the smallest value up to which enough weight lies; infinity where there is none."""
    order = np.argsort(values, axis=1)
    heaped = np.cumsum(weight[order], axis=1) >= LEVEL - _ROUNDING
    place = heaped.argmax(axis=1)
    found = np.take_along_axis(values, order, axis=1)[np.arange(len(values)), place]
    reached: Float[np.ndarray, " n"] = np.where(heaped.any(axis=1), found, np.inf)
    return reached


def subject_weights(unit: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Weigh targets so that every subject weighs 1."""
    weight: Float[np.ndarray, " n"] = 1.0 / np.bincount(unit)[unit]
    return weight
