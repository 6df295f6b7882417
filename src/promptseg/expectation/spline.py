"""The learner: an additive ridge regression on restricted cubic splines, as plain numbers.

Few parameters, shrunken to the mean: with 5 to 50 subjects nothing richer can be learnt. It is
kept as numbers and rebuilt from them, so that a predictor is a JSON file and nothing is unpickled.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

PLACES = (0.05, 0.35, 0.65, 0.95)  # quantiles of the knots (Harrell 2015, table 2.3)

Values = Float[np.ndarray, "n k"]  # on the scales of learning; NaN: undefined


@dataclass(frozen=True, slots=True)
class Basis:
    """How features become the columns of a regression: splines, gaps, categories, standardised."""

    knots: tuple[tuple[float, ...], ...]  # of every feature; fewer than 3: a straight line
    gaps: tuple[bool, ...]  # whether a feature may be undefined
    categories: tuple[str, ...]  # the modalities that were seen
    middle: tuple[float, ...]  # of every column
    scale: tuple[float, ...]

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.middle)

    def columns(self, values: Values, category: Sequence[str]) -> Float[np.ndarray, "n p"]:
        """Give the columns of a regression; what is undefined counts as the average."""
        raw = _raw(values, category, self)
        scaled = (raw - np.array(self.middle)) / np.array(self.scale)
        columns: Float[np.ndarray, "n p"] = np.nan_to_num(scaled, nan=0.0)
        return columns


def basis_of(
    values: Values, category: Sequence[str], weight: Float[np.ndarray, "n"], *, bent: bool
) -> Basis:
    """Place knots by the features alone; without `bent` every feature has a straight line.

    References
    ----------
    Restricted cubic splines: F. E. Harrell, Regression Modeling Strategies, 2nd edition (2015),
    section 2.4.5, doi:10.1007/978-3-319-19425-7.
    """
    knots = tuple(_knots(column) if bent else () for column in values.T)
    gaps = tuple(bool(np.isnan(column).any()) for column in values.T)
    seen = tuple(sorted(set(category)))
    draft = Basis(knots, gaps, seen if len(seen) > 1 else (), (), ())
    raw = _raw(values, category, draft)
    there = ~np.isnan(raw)
    share = np.where(there, weight[:, None], 0.0)
    share = share / np.maximum(share.sum(0), 1e-300)
    filled = np.where(there, raw, 0.0)
    middle = (share * filled).sum(0)
    spread = np.sqrt((share * np.where(there, filled - middle, 0.0) ** 2).sum(0))
    scale = np.where(spread > 1e-12, spread, 1.0)
    return Basis(knots, gaps, draft.categories, tuple(middle.tolist()), tuple(scale.tolist()))


def _knots(column: Float[np.ndarray, "n"]) -> tuple[float, ...]:
    there = column[~np.isnan(column)]
    if not len(there):
        return ()
    return tuple(float(knot) for knot in np.unique(np.quantile(there, PLACES)))


def _raw(values: Values, category: Sequence[str], basis: Basis) -> Float[np.ndarray, "n p"]:
    parts = [bend(column, knots) for column, knots in zip(values.T, basis.knots, strict=True)]
    parts += [
        np.isnan(column)[:, None].astype(float)
        for column, has in zip(values.T, basis.gaps, strict=True)
        if has
    ]
    seen = np.array(category, dtype=str)
    parts += [(seen == name)[:, None].astype(float) for name in basis.categories]
    return np.concatenate(parts, axis=1) if parts else np.zeros((len(values), 0))


def bend(column: Float[np.ndarray, "n"], knots: Sequence[float]) -> Float[np.ndarray, "n q"]:
    """Give a feature and, of k knots, k - 2 terms that bend it; straight beyond the outer ones."""
    if len(knots) < 3:
        return column[:, None]
    first, before, last = knots[0], knots[-2], knots[-1]
    terms = [column]
    for knot in knots[:-2]:
        cubic = _cube(column - knot)
        cubic = cubic - _cube(column - before) * (last - knot) / (last - before)
        cubic = cubic + _cube(column - last) * (before - knot) / (last - before)
        terms.append(cubic / (last - first) ** 2)
    return np.stack(terms, axis=1)


def _cube(column: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    return np.where(np.isnan(column), np.nan, np.maximum(column, 0) ** 3)


def ridge(
    columns: Float[np.ndarray, "n p"],
    y: Float[np.ndarray, "n"],
    weight: Float[np.ndarray, "n"],
    penalty: float,
) -> Float[np.ndarray, "q"]:
    """Fit intercept (first) and slopes by weighted least squares, slopes shrunken to zero.

    `weight` sums up to the number of subjects, so that the penalty counts in subjects.
    An infinite penalty gives the weighted mean.

    References
    ----------
    A. E. Hoerl and R. W. Kennard, Technometrics 12 (1970), doi:10.1080/00401706.1970.10488634.
    """
    total = weight.sum()
    level = float(weight @ y / total)
    slopes = np.zeros(columns.shape[1])
    centre = weight @ columns / total
    if np.isfinite(penalty) and columns.shape[1]:
        own = columns - centre
        gram = own.T @ (weight[:, None] * own) + penalty * np.eye(columns.shape[1])
        slopes = np.linalg.solve(gram, own.T @ (weight * (y - level)))
    return np.concatenate([[level - centre @ slopes], slopes])


def fitted(
    columns: Float[np.ndarray, "n p"], coefficients: Float[np.ndarray, "q"]
) -> Float[np.ndarray, "n"]:
    """Give the expected DICE of rows, cut at 0 and 1."""
    found: Float[np.ndarray, " n"] = np.clip(coefficients[0] + columns @ coefficients[1:], 0.0, 1.0)
    return found
