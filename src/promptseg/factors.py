"""What DICE depends on: partial rank correlations with attributes, within data sets, by subject.

Huang et al. 2024 (doi:10.1016/j.media.2023.103061, section 4.8) correlate over all structures at
once and give p values as if slices were independent. Here ranks are taken within data set and
modality, so that a difference between data sets is no effect of an attribute (Simpson's paradox),
and intervals and p leave out subjects, the unit that is independent.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from jaxtyping import Float, Int
from scipy import stats

from promptseg.significance import holm
from promptseg.stats import COMBINATION, FEWEST, LEVEL, jitter_label

# what every attribute is corrected for; one of a family stands for it
TOGETHER = (
    "area_px",
    "aspect_ratio",
    "intensity_difference",
    "fourier_order",
    "n_components",
    "n_holes",
    "border_distance_px",
)
# others of a family take its place: two of one family would explain each other away
INSTEAD: Mapping[str, str] = {
    "contrast_to_noise": "intensity_difference",
    "fourier_order_paper": "fourier_order",
    "compactness": "fourier_order",
}
STRATUM = ("dataset", "modality")
SURELY = 1 - 1e-9  # a correlation beyond is one of a variable with itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """How DICE goes with one attribute; None: the attribute does not vary, or there are too few."""

    attribute: str
    rho: float | None  # partial Spearman correlation, the other attributes held
    lo: float | None = None
    hi: float | None = None
    p: float | None = None
    p_holm: float | None = None
    alone: float | None = None  # Spearman correlation within strata, nothing held
    inflation: float | None = None  # variance inflation factor, by the other attributes


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """The factors of one model, strategy and selection."""

    model: str
    protocol: str
    strategy: str
    selection: str
    off_protocol: bool
    n_targets: int
    n_units: int  # subjects; images where a subject is unknown
    by_image: bool
    n_strata: int
    n_left_out: int  # targets of which an attribute is undefined
    rows: tuple[Factor, ...]


def scored_targets(records: pl.DataFrame, attributes: pl.DataFrame) -> pl.DataFrame:
    """Give every target's DICE (mean over seeds) with its attributes, without jitter.

    Columns beside the attributes: those of `COMBINATION`, dataset, modality, task, image_id,
    target_id, unit (the subject, or the image where the subject is unknown), by_image, dice.
    """
    known = pl.col("dice").is_not_null() & pl.col("jitter_mode").is_null()
    own = records.filter(known & (pl.col("outcome") != "failed"))
    key = [jitter_label().alias("jitter") if name == "jitter" else name for name in COMBINATION]
    keep = [*STRATUM, "task", "image_id", "target_id", "subject"]
    return (
        own.group_by(*key, *keep, maintain_order=True)
        .agg(pl.col("dice").mean())
        .join(attributes.drop("image_id"), on="target_id", how="inner", maintain_order="left")
        .with_columns(
            unit=pl.concat_str(
                "dataset",
                pl.coalesce("subject", "image_id"),
                separator="\n",
            ),
            by_image=pl.col("subject").is_null(),
        )
    )


def factors(records: pl.DataFrame, attributes: pl.DataFrame) -> list[Factors]:
    """Correlate DICE with attributes for every model, strategy and selection.

    Partial Spearman correlations: the Pearson correlation of ranks, the ranks of all other
    attributes held (from the inverse of the correlation matrix), after ranks were taken within
    data set and modality. One modality is thus compared with itself, a category and no number.
    Intervals and p are by leaving out one subject at a time (jackknife) on Fisher's scale, with
    Student's t; there are none below five subjects. p is corrected by Holm for all rows that are
    on-protocol together.

    Parameters
    ----------
    records
        Of a run or several.
    attributes
        As `RunFolder.attributes()` gives them: one row per target_id.

    References
    ----------
    Spearman 1904, doi:10.2307/1412159. Jackknife: R. G. Miller, "The jackknife: a review",
    Biometrika 61 (1974), doi:10.1093/biomet/61.1.1.
    """
    scored = scored_targets(records, attributes)
    key = [name for name in COMBINATION if name != "jitter"]
    found = [
        _of_group(dict(zip(key, values, strict=True)), frame)
        for values, frame in scored.group_by(key, maintain_order=True)
    ]
    return _corrected(found)


def _of_group(key: Mapping[str, object], frame: pl.DataFrame) -> Factors:
    whole = frame.drop_nulls(TOGETHER)
    ranks = Ranks.of(whole, TOGETHER)
    rows = [*_rows(ranks)]
    for name, family in INSTEAD.items():
        names = tuple(name if one == family else one for one in TOGETHER)
        other = Ranks.of(whole.drop_nulls(name), names)
        rows += [row for row in _rows(other) if row.attribute == name]
    return Factors(
        model=str(key["model"]),
        protocol=str(key["protocol"]),
        strategy=str(key["strategy"]),
        selection=str(key["selection"]),
        off_protocol=bool(key["off_protocol"]),
        n_targets=whole.height,
        n_units=whole["unit"].n_unique(),
        by_image=bool(whole["by_image"].any()),
        n_strata=whole.select(STRATUM).n_unique(),
        n_left_out=frame.height - whole.height,
        rows=tuple(rows),
    )


def _corrected(found: Sequence[Factors]) -> list[Factors]:
    tested = [
        (i, j)
        for i, one in enumerate(found)
        for j, row in enumerate(one.rows)
        if row.p is not None and not one.off_protocol
    ]
    p = {place: found[place[0]].rows[place[1]].p or 0.0 for place in tested}
    corrected = dict(zip(p, holm(list(p.values())), strict=True))
    return [
        replace(
            one,
            rows=tuple(
                replace(row, p_holm=corrected.get((i, j))) for j, row in enumerate(one.rows)
            ),
        )
        for i, one in enumerate(found)
    ]


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


def _rows(ranks: Ranks) -> Iterator[Factor]:
    products = ranks.products()
    total = products.total()
    rho, alone, inflation = partial(total), _alone(total), _inflation(total)
    spread = _spread(products, rho) if ranks.n_units >= FEWEST else np.full(len(rho), np.nan)
    t = float(stats.t.ppf(0.5 + LEVEL / 2, max(1, ranks.n_units - 1)))
    for place, name in enumerate(ranks.names, start=1):
        value, error = float(rho[place]), float(spread[place])
        row = Factor(attribute=name, rho=_known(value))
        if row.rho is not None:
            row = replace(
                row, alone=_known(float(alone[place])), inflation=_known(float(inflation[place]))
            )
            if np.isfinite(error) and error > 0:
                z = np.arctanh(np.clip(value, -SURELY, SURELY))
                row = replace(
                    row,
                    lo=float(np.tanh(z - t * error)),
                    hi=float(np.tanh(z + t * error)),
                    p=float(2 * stats.t.sf(abs(z) / error, ranks.n_units - 1)),
                )
        yield row


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _spread(products: Products, rho: Float[np.ndarray, "k"]) -> Float[np.ndarray, "k"]:
    """Estimate standard errors on Fisher's scale, by leaving out one unit at a time."""
    left = np.array([partial(one) for one in products.without_each()])
    z = np.arctanh(np.clip(left, -SURELY, SURELY))
    n = len(z)
    spread: Float[np.ndarray, " k"] = np.sqrt((n - 1) / n * ((z - z.mean(0)) ** 2).sum(0))
    return spread


def _alone(products: Float[np.ndarray, "k k"]) -> Float[np.ndarray, "k"]:
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.sqrt(np.diag(products))
        found: Float[np.ndarray, " k"] = products[0] / (scale[0] * scale)
    return found


def _inflation(products: Float[np.ndarray, "k k"]) -> Float[np.ndarray, "k"]:
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
