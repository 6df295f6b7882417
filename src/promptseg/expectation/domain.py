"""Where a predictor may answer: inside the range of its training, near targets it has seen."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from promptseg.expectation.feature import MEASURES

MOST_NEIGHBOURS = 500  # targets that are kept to measure distances to
FARTHEST = 0.99  # quantile of the distances of training's own targets to other subjects
_DIGITS = 4

Values = Float[np.ndarray, "n k"]


@dataclass(frozen=True, slots=True)
class Domain:
    """The range of training: of every feature, of modalities, and of their combinations."""

    names: tuple[str, ...]
    low: tuple[float | None, ...]  # None: the feature was undefined in all of training
    high: tuple[float | None, ...]
    gaps: tuple[bool, ...]  # whether a feature was undefined somewhere in training
    modalities: tuple[str, ...]
    middle: tuple[float, ...]
    scale: tuple[float, ...]
    seen: tuple[tuple[float, ...], ...]  # standardised features of targets of training ...
    seen_modality: tuple[str, ...]
    farthest: float | None  # distance from which on a combination is new; None: cannot be told

    @property
    def is_whole(self) -> bool:
        """Tell whether all its parts are of the same features and targets."""
        parts = (self.low, self.high, self.gaps, self.middle, self.scale, *self.seen)
        same = all(len(part) == len(self.names) for part in parts)
        return same and len(self.seen) == len(self.seen_modality)

    def reason_against(self, values: Float[np.ndarray, "k"], modality: str) -> str | None:
        """Tell why there is no answer for a target; None where there is one."""
        if modality not in self.modalities:
            known = ", ".join(self.modalities)
            return f"the modality {modality} is not in training, which has {known}"
        for name, value, low, high, gap in zip(
            self.names, values, self.low, self.high, self.gaps, strict=True
        ):
            if said := _outside(name, float(value), (low, high), gap):
                return said
        if self.farthest is None:
            return None
        distance = _distances(
            self._standard(values[None]), np.array(self.seen), _same([modality], self.seen_modality)
        )
        if distance[0] > self.farthest:
            return (
                "each feature is within the range of training, but their combination is unlike "
                f"all of it ({distance[0]:.2g} standard deviations from the nearest target, "
                f"{self.farthest:.2g} is usual at most)"
            )
        return None

    def _standard(self, values: Values) -> Values:
        found: Values = np.nan_to_num((values - np.array(self.middle)) / np.array(self.scale))
        return found


def _outside(
    name: str, value: float, bounds: tuple[float | None, float | None], gap: bool
) -> str | None:
    measure, (low, high) = MEASURES[name], bounds
    if np.isnan(value):
        return None if gap else f"{measure.words} is undefined here, and never was in training"
    if low is None or high is None:
        return f"{measure.words} was undefined in all of training"
    if low <= value <= high:
        return None
    side = "below" if value < low else "above"
    ranged = f"{measure.told(low)} to {measure.told(high)}"
    return f"{measure.words}, {measure.told(value)}, is {side} all of training: {ranged}"


def domain_of(
    names: Sequence[str], values: Values, modality: Sequence[str], unit: Int[np.ndarray, "n"]
) -> Domain:
    """Find the range of training: bounds, and how far its targets lie from other subjects'."""
    there = ~np.isnan(values)
    any_there = there.any(0)
    low = np.where(any_there, np.nanmin(np.where(there, values, np.inf), axis=0), 0)
    high = np.where(any_there, np.nanmax(np.where(there, values, -np.inf), axis=0), 0)
    count = np.maximum(there.sum(0), 1)
    middle = np.where(there, values, 0).sum(0) / count
    spread = np.sqrt((np.where(there, values - middle, 0) ** 2).sum(0) / count)
    scale = np.where(spread > 1e-12, spread, 1.0)
    kept = np.unique(np.linspace(0, len(values) - 1, min(len(values), MOST_NEIGHBOURS)).astype(int))
    standard = np.round(np.nan_to_num((values - middle) / scale), _DIGITS)[kept]
    names_kept = [modality[i] for i in kept]
    apart = _same(names_kept, names_kept) & (unit[kept][:, None] != unit[kept][None])
    own = _distances(standard, standard, apart)
    own = own[np.isfinite(own)]
    return Domain(
        names=tuple(names),
        low=tuple(float(v) if known else None for v, known in zip(low, any_there, strict=True)),
        high=tuple(float(v) if known else None for v, known in zip(high, any_there, strict=True)),
        gaps=tuple(bool(gap) for gap in (~there).any(0)),
        modalities=tuple(sorted(set(modality))),
        middle=tuple(middle.tolist()),
        scale=tuple(scale.tolist()),
        seen=tuple(tuple(row) for row in standard.tolist()),
        seen_modality=tuple(names_kept),
        farthest=float(np.quantile(own, FARTHEST)) if len(own) else None,
    )


def _same(one: Sequence[str], other: Sequence[str]) -> Bool[np.ndarray, "n m"]:
    return np.asarray(np.array(one)[:, None] == np.array(other)[None], dtype=bool)


def _distances(
    values: Float[np.ndarray, "n k"],
    seen: Float[np.ndarray, "m k"],
    allowed: Bool[np.ndarray, "n m"],
) -> Float[np.ndarray, "n"]:
    """Give the distance to the nearest allowed row, per feature (root mean square)."""
    squares = ((values[:, None] - seen[None]) ** 2).mean(-1)
    nearest: Float[np.ndarray, " n"] = np.sqrt(np.where(allowed, squares, np.inf).min(1))
    return nearest
