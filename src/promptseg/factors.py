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
from jaxtyping import Bool, Float, Int
from scipy import stats

from promptseg.interval import LEVEL
from promptseg.ranks import (
    STRATUM,
    Products,
    Ranks,
    partial,
    partial_each,
    simple,
    variance_inflation,
)
from promptseg.record import with_corpus
from promptseg.significance import holm
from promptseg.stats import COMBINATION, FEWEST, jitter_label

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
MOSTLY = 0.9  # share of targets with one value, above which there is nothing to draw
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
    n_units: int  # subjects (images where a subject is unknown) that are not alone in a stratum
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
    keep = ["corpus", *STRATUM, "task", "image_id", "target_id", "subject"]
    return (
        with_corpus(own)
        .group_by(*key, *keep, maintain_order=True)
        .agg(pl.col("dice").mean())
        .join(
            with_corpus(attributes).drop("image_id"),
            on=["corpus", "target_id"],
            how="inner",
            maintain_order="left",
        )
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
    Student's t; there are none below five subjects, of which those do not count whose only targets
    are alone in their data set and modality. p is corrected by Holm for all rows that are
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
        n_units=int(ranks.telling().sum()),
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Mean DICE of one fifth of the targets by rank, the other attributes held.

    Ranks are within data set and modality: the values of a fifth overlap with those of the next
    where data sets differ, and their median tells nothing of their order.
    """

    low: float  # of the attribute
    high: float
    middle: float  # its median
    dice: float
    lo: float | None
    hi: float | None
    n_targets: int
    n_units: int


def effect(scored: pl.DataFrame, attribute: str, *, steps: int = 5) -> tuple[Step, ...]:
    """Show how DICE rises or falls with an attribute, the others held: a partial effect.

    DICE is brought to what it would be at average ranks of the other attributes (least squares on
    the ranks of all within data set and modality, without the differences between these), then
    averaged over fifths of the targets by this attribute's rank there, from the lowest to the
    highest; ties stay together, so that there may be fewer. Intervals are Student's t over the
    means of subjects, from five on. There are no steps of fewer than ten targets, nor of an
    attribute of which more than nine in ten targets have one value.

    Parameters
    ----------
    scored
        One group of `scored_targets`.
    """
    family = INSTEAD.get(attribute, attribute)
    held = [name for name in TOGETHER if name != family]
    whole = scored.drop_nulls([*TOGETHER, attribute])
    if whole.height < 2 * steps or is_mostly_one(whole[attribute]):
        return ()
    ranks = Ranks.of(whole, [attribute, *held])
    dice = whole["dice"].to_numpy()
    centred = dice - _stratum_means(dice, ranks.stratum)
    slopes = np.linalg.lstsq(ranks.values[:, 1:], centred, rcond=None)[0]
    brought = centred + dice.mean() - ranks.values[:, 2:] @ slopes[1:]
    values, rank = whole[attribute].to_numpy().astype(np.float64), ranks.values[:, 1]
    cuts = np.unique(np.quantile(rank, np.linspace(0, 1, steps + 1)[1:-1]))
    place = np.searchsorted(cuts, rank, side="right")
    return tuple(
        _step(values[own], brought[own], ranks.unit[own])
        for own in (place == step for step in range(len(cuts) + 1))
        if own.any()
    )


def is_mostly_one(values: pl.Series) -> bool:
    """Tell whether more than nine in ten targets have one value of an attribute."""
    counts = values.drop_nulls().value_counts()["count"].to_numpy()
    return not len(counts) or bool(counts.max() > MOSTLY * counts.sum())


def _stratum_means(
    values: Float[np.ndarray, "n"], stratum: Int[np.ndarray, "n"]
) -> Float[np.ndarray, "n"]:
    means = np.bincount(stratum, weights=values) / np.bincount(stratum)
    spread: Float[np.ndarray, " n"] = means[stratum]
    return spread


def _step(
    values: Float[np.ndarray, "n"], dice: Float[np.ndarray, "n"], unit: Int[np.ndarray, "n"]
) -> Step:
    _, own = np.unique(unit, return_inverse=True)
    means = np.bincount(own, weights=dice) / np.bincount(own)
    n = len(means)
    half = None
    if n >= FEWEST:
        half = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1) * means.std(ddof=1) / np.sqrt(n))
    centre = float(means.mean())
    return Step(
        low=float(values.min()),
        high=float(values.max()),
        middle=float(np.median(values)),
        dice=centre,
        lo=None if half is None else centre - half,
        hi=None if half is None else centre + half,
        n_targets=len(values),
        n_units=n,
    )


def _rows(ranks: Ranks) -> Iterator[Factor]:
    products = ranks.products()
    total = products.total()
    rho, alone, inflation = partial(total), simple(total), variance_inflation(total)
    telling = ranks.telling()
    n = int(telling.sum())
    spread = _spread(products, telling) if n >= FEWEST else np.full(len(rho), np.nan)
    t = float(stats.t.ppf(0.5 + LEVEL / 2, max(1, n - 1)))
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
                    p=float(2 * stats.t.sf(abs(z) / error, n - 1)),
                )
        yield row


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _spread(products: Products, telling: Bool[np.ndarray, "units"]) -> Float[np.ndarray, "k"]:
    """Estimate standard errors on Fisher's scale, by leaving out one telling unit at a time."""
    left = partial_each(products.without_each()[telling])
    z = np.arctanh(np.clip(left, -SURELY, SURELY))
    n = len(z)
    spread: Float[np.ndarray, " k"] = np.sqrt((n - 1) / n * ((z - z.mean(0)) ** 2).sum(0))
    return spread
