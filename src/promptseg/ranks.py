"""Rank correlations within strata: ranks, sums of products by unit, partial correlations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Float, Int

STRATUM = ("dataset", "modality")


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

    def without_each(self) -> Iterator[Float[np.ndarray, "k k"]]:
        """Give the centred products without one unit, for each; the ranks stay."""
        all_squares = self.squares.sum(0)
        sums, counts = self._by_stratum()
        order = np.argsort(self.unit, kind="stable")
        edges = np.searchsorted(self.unit[order], np.arange(len(self.squares) + 1))
        for unit, squares in enumerate(self.squares):
            own = order[edges[unit] : edges[unit + 1]]
            rest, left = sums.copy(), counts.copy()
            rest[self.stratum[own]] -= self.sums[own]
            left[self.stratum[own]] -= self.counts[own]
            yield self._centred(all_squares - squares, rest, left)

    def _by_stratum(self) -> tuple[Float[np.ndarray, "strata k"], Int[np.ndarray, "strata"]]:
        n = int(self.stratum.max()) + 1 if len(self.stratum) else 0
        sums, counts = np.zeros((n, self.sums.shape[1])), np.zeros(n, dtype=np.int64)
        np.add.at(sums, self.stratum, self.sums)
        np.add.at(counts, self.stratum, self.counts)
        return sums, counts

    @staticmethod
    def _centred(
        squares: Float[np.ndarray, "k k"],
        sums: Float[np.ndarray, "strata k"],
        counts: Int[np.ndarray, "strata"],
    ) -> Float[np.ndarray, "k k"]:
        there = counts > 0
        scaled = sums[there] / np.sqrt(counts[there])[:, None]
        centred: Float[np.ndarray, "k k"] = squares - scaled.T @ scaled
        return centred


def partial(products: Float[np.ndarray, "k k"]) -> Float[np.ndarray, "k"]:
    """Correlate column 0 with each other column, the rest held; NaN where that is undefined.

    The first value stands for column 0 itself and is NaN. A column without variance is held out.
    """
    found = np.full(len(products), np.nan)
    kept = np.flatnonzero(np.diag(products) > 1e-9 * max(1.0, float(np.diag(products).max())))
    if len(kept) < 2 or kept[0] != 0:
        return found
    scale = np.sqrt(np.diag(products)[kept])
    correlation = products[np.ix_(kept, kept)] / np.outer(scale, scale)
    if np.linalg.cond(correlation) > 1e8:  # an attribute is a function of the others
        return found
    precision = np.linalg.inv(correlation)
    found[kept[1:]] = -precision[0, 1:] / np.sqrt(precision[0, 0] * np.diag(precision)[1:])
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
