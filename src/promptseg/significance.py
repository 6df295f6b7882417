"""Whether paired differences are more than chance: effect size, sign flips, many rows at once."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from promptseg.interval import LEVEL
from promptseg.stats import FEWEST

ENUMERATED = 16  # up to so many units all sign flips are gone through ...
FLIPS = 20_000  # ... and beyond, so many are drawn
AT_ONCE = 1000  # flips held in memory
ROUNDING = 1e-9  # sums of the same numbers in another order are the same


def effect_size(differences: Float[np.ndarray, "units"]) -> float | None:
    """Give Cohen's d_z: the mean of paired differences over their standard deviation (n - 1).

    None below five units, whose standard deviation says little, and where all are the same.

    References
    ----------
    J. Cohen, Statistical Power Analysis for the Behavioral Sciences, 2nd edition (1988),
    doi:10.4324/9780203771587.
    """
    if len(differences) < FEWEST:
        return None
    spread = float(np.std(differences, ddof=1))
    return float(np.mean(differences)) / spread if spread > ROUNDING else None


def sign_flip_p(differences: Float[np.ndarray, "units"], *, seed: int = 0) -> float:
    """Give the two-sided p of paired differences by flipping their signs.

    If the two models were alike, each unit's difference could as well have the other sign. p is
    the share of flips whose sum lies at least as far from zero as the observed one: of all flips
    up to 16 units, and beyond of 20,000 drawn ones, to which the observed is added.

    Raises ValueError without a unit.

    References
    ----------
    R. A. Fisher, The Design of Experiments (1935), section 21. E. J. G. Pitman, "Significance
    tests which may be applied to samples from any populations", Supplement to the Journal of the
    Royal Statistical Society 4 (1937), doi:10.2307/2984124. The added one: B. Phipson and G. K.
    Smyth, Statistical Applications in Genetics and Molecular Biology 9 (2010),
    doi:10.2202/1544-6115.1585.
    """
    if not len(differences):
        raise ValueError("there is nothing to flip")
    observed = abs(differences.sum()) - ROUNDING * np.abs(differences).sum()
    if len(differences) <= ENUMERATED:
        sums = differences[:1]  # the first sign may stay: the other half of the flips mirrors this
        for value in differences[1:]:
            sums = np.concatenate([sums + value, sums - value])
        return float(np.mean(np.abs(sums) >= observed))
    rng = np.random.default_rng(seed)
    hits = 0
    for _ in range(FLIPS // AT_ONCE):
        signs = 2.0 * rng.integers(2, size=(AT_ONCE, len(differences)), dtype=np.int8) - 1.0
        hits += int(np.count_nonzero(np.abs(signs @ differences) >= observed))
    return (1 + hits) / (1 + FLIPS)


def sign_flip_each(differences: Float[np.ndarray, "rows units"], *, seed: int = 0) -> list[float]:
    """Give the p of many rows as `sign_flip_p` does, with the same flips for all that are drawn.

    A unit that is NaN in a row is not in it.
    """
    present = np.isfinite(differences)
    counts = present.sum(axis=1)
    found = [0.0] * len(differences)
    many = np.flatnonzero(counts > ENUMERATED)
    for row in np.flatnonzero(counts <= ENUMERATED):
        found[row] = sign_flip_p(differences[row, present[row]])
    if len(many):
        values = np.where(present[many], differences[many], 0.0).T
        observed = np.abs(values.sum(axis=0)) - ROUNDING * np.abs(values).sum(axis=0)
        rng, hits = np.random.default_rng(seed), np.zeros(len(many), dtype=np.int64)
        for _ in range(FLIPS // AT_ONCE):
            signs = 2.0 * rng.integers(2, size=(AT_ONCE, len(values)), dtype=np.int8) - 1.0
            hits += np.count_nonzero(np.abs(signs @ values) >= observed, axis=0)
        for row, count in zip(many, hits, strict=True):
            found[row] = (1 + int(count)) / (1 + FLIPS)
    return found


def smallest_p(n_units: int) -> float:
    """Give the smallest p that `sign_flip_p` can give for a number of units."""
    return 2.0 ** (1 - n_units) if n_units <= ENUMERATED else 1 / (1 + FLIPS)


def holm(p: Sequence[float]) -> list[float]:
    """Correct p values for their number, step by step from the smallest.

    References
    ----------
    S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6 (1979) 65-70, which has no DOI (JSTOR 4615733).
    """
    corrected, highest = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, min(1.0, (len(p) - rank) * p[index]))
        corrected[index] = highest
    return corrected


def can_pass(n_units: Sequence[int]) -> list[bool]:
    """Tell which rows can pass at 5 % after correction for all rows that can.

    It looks at the numbers of units alone, so that the choice costs no correction. With k rows
    tested, the smallest p of each is at most 0.05 / k.

    References
    ----------
    R. E. Tarone, "A modified Bonferroni method for discrete data", Biometrics 46 (1990),
    doi:10.2307/2531456.
    """
    for k in range(1, len(n_units) + 1):
        chosen = [smallest_p(n) <= (1 - LEVEL) / k + ROUNDING for n in n_units]
        if sum(chosen) <= k:
            return chosen
    return [False] * len(n_units)
