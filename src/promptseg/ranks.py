"""Rank correlations within strata: ranks, sums of products by unit, partial correlations."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

STRATUM = ("dataset", "modality")
AT_ONCE = 1 << 22  # numbers held in memory for units left out


@dataclass(frozen=True, slots=True, eq=False)
class Ranks:
    """Ranks within strata of DICE (column 0) and of attributes, scaled to the stratum's size."""

    names: tuple[str, ...]  # of columns 1, 2, ...
    values: Float[np.ndarray, "n k"]
    stratum: Int[np.ndarray, "n"]
    unit: Int[np.ndarray, "n"]

    @classmethod
    def of(cls, frame: pl.DataFrame, names: Sequence[str]) -> "Ranks":
        """Rank a frame; ties share the mean of their ranks."""
        columns = ("dice", *names)
        ranked = frame.select(
            *(pl.col(name).rank("average").over(STRATUM).alias(name) for name in columns),
            n=pl.len().over(STRATUM),
            stratum=pl.struct(STRATUM).rank("dense").cast(pl.Int64) - 1,
            unit=pl.col("unit").rank("dense").cast(pl.Int64) - 1,
        )
        size = ranked["n"].to_numpy()[:, None]
        values = (ranked.select(columns).to_numpy() - (size + 1) / 2) / np.maximum(size, 1)
        return cls(
            tuple(names),
            values.astype(np.float64),
            ranked["stratum"].to_numpy(),
            ranked["unit"].to_numpy(),
        )

    @property
    def n_units(self) -> int:
        """Number of subjects, or images."""
        return int(self.unit.max()) + 1 if len(self.unit) else 0

    def telling(self) -> Bool[np.ndarray, "units"]:
        """Tell which units have a target in a stratum of several; one alone says nothing."""
        several = np.bincount(self.stratum)[self.stratum] > 1
        found: Bool[np.ndarray, " units"] = np.zeros(self.n_units, dtype=bool)
        found[self.unit[several]] = True
        return found

    def products(self) -> "Products":
        """Sum up what correlations need, unit by unit."""
        n_strata = int(self.stratum.max()) + 1 if len(self.stratum) else 0
        cells, cell = np.unique(self.unit * max(1, n_strata) + self.stratum, return_inverse=True)
        k = self.values.shape[1]
        sums, counts = np.zeros((len(cells), k)), np.bincount(cell, minlength=len(cells))
        np.add.at(sums, cell, self.values)
        squares = np.zeros((self.n_units, k, k))
        for start in range(0, len(self.values), 4096):  # bounds the memory
            part = self.values[start : start + 4096]
            np.add.at(squares, self.unit[start : start + 4096], part[:, :, None] * part[:, None, :])
        return Products(squares, sums, counts, cells // max(1, n_strata), cells % max(1, n_strata))


@dataclass(frozen=True, slots=True, eq=False)
class Products:
    """Sums of squares and products per unit, and sums per unit and stratum, for centring."""

    squares: Float[np.ndarray, "units k k"]
    sums: Float[np.ndarray, "cells k"]
    counts: Int[np.ndarray, "cells"]
    unit: Int[np.ndarray, "cells"]
    stratum: Int[np.ndarray, "cells"]

    def total(self) -> Float[np.ndarray, "k k"]:
        """Give the products of all units, centred within strata."""
        return self._centred(self.squares.sum(0), *self._by_stratum())

    def without_each(self) -> Float[np.ndarray, "units k k"]:
        """Give the centred products without one unit, for each; the ranks stay."""
        sums, counts = self._by_stratum()
        rest: Float[np.ndarray, "units k k"] = self.squares.sum(0) - self.squares
        at_once = max(1, AT_ONCE // max(1, sums.size))
        for start in range(0, len(rest), at_once):  # bounds the memory
            own = (self.unit >= start) & (self.unit < start + at_once)
            place = self.unit[own] - start, self.stratum[own]
            n = min(at_once, len(rest) - start)
            left_sums, left = np.tile(sums, (n, 1, 1)), np.tile(counts, (n, 1))
            left_sums[place] -= self.sums[own]
            left[place] -= self.counts[own]
            rest[start : start + n] = self._centred(rest[start : start + n], left_sums, left)
        return rest

    def _by_stratum(self) -> tuple[Float[np.ndarray, "strata k"], Int[np.ndarray, "strata"]]:
        n = int(self.stratum.max()) + 1 if len(self.stratum) else 0
        sums, counts = np.zeros((n, self.sums.shape[1])), np.zeros(n, dtype=np.int64)
        np.add.at(sums, self.stratum, self.sums)
        np.add.at(counts, self.stratum, self.counts)
        return sums, counts

    @staticmethod
    def _centred(
        squares: Float[np.ndarray, "*each k k"],
        sums: Float[np.ndarray, "*each strata k"],
        counts: Int[np.ndarray, "*each strata"],
    ) -> Float[np.ndarray, "*each k k"]:
        # the sums of an empty stratum are no more than rounding
        weight = np.where(counts > 0, 1 / np.sqrt(np.maximum(counts, 1)), 0.0)
        scaled = sums * weight[..., None]
        centred: Float[np.ndarray, "*each k k"] = squares - np.swapaxes(scaled, -1, -2) @ scaled
        return centred


def partial(products: Float[np.ndarray, "k k"]) -> Float[np.ndarray, "k"]:
    """Correlate column 0 with each other column, the rest held; NaN where that is undefined.

    The first value stands for column 0 itself and is NaN. A column without variance is held out.
    """
    found: Float[np.ndarray, " k"] = partial_each(products[None])[0]
    return found


def partial_each(products: Float[np.ndarray, "n k k"]) -> Float[np.ndarray, "n k"]:
    """Give the partial correlations of many tables of products, each as `partial` does."""
    found = np.full(products.shape[:2], np.nan)
    size = np.diagonal(products, axis1=1, axis2=2)
    varies = size > 1e-9 * np.maximum(1.0, size.max(axis=1, keepdims=True))
    for pattern in np.unique(varies, axis=0):
        kept = np.flatnonzero(pattern)
        if len(kept) < 2 or kept[0] != 0:
            continue
        own = np.flatnonzero((varies == pattern).all(axis=1))
        scale = np.sqrt(size[np.ix_(own, kept)])
        correlation = products[np.ix_(own, kept, kept)] / (scale[:, :, None] * scale[:, None, :])
        # else an attribute is a function of the others
        sound = np.linalg.cond(correlation) <= 1e8
        precision = np.linalg.inv(correlation[sound])
        each = np.diagonal(precision, axis1=1, axis2=2)[:, 1:]
        found[np.ix_(own[sound], kept[1:])] = -precision[:, 0, 1:] / np.sqrt(
            precision[:, :1, 0] * each
        )
    return found


def simple(products: Float[np.ndarray, "k k"]) -> Float[np.ndarray, "k"]:
    """Correlate column 0 with each column, nothing held."""
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.sqrt(np.diag(products))
        found: Float[np.ndarray, " k"] = products[0] / (scale[0] * scale)
    return found


def variance_inflation(products: Float[np.ndarray, "k k"]) -> Float[np.ndarray, "k"]:
    """Tell by how much the other attributes widen each one's interval (variance inflation)."""
    found = np.full(len(products), np.nan)
    size = np.diag(products)
    kept = 1 + np.flatnonzero(size[1:] > 1e-9 * max(1.0, float(size.max())))
    if len(kept):
        scale = np.sqrt(size[kept])
        correlation = products[np.ix_(kept, kept)] / np.outer(scale, scale)
        if np.linalg.cond(correlation) < 1e8:
            found[kept] = np.diag(np.linalg.inv(correlation))
    return found
