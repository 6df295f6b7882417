"""What a map of logits tells of its enlargement, without enlarging it.

A pixel of the enlarged map is a mean of a few neighbouring samples, with weights from 0 to 1. So it
lies between their least and their greatest, and areas and boxes above a threshold have bounds. What
is as near the threshold as float32 rounds is left open: bounds hold for what `logits_at` gives, to
the last bit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, reduce
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from promptseg.model import Canvas

# A pixel is the sum of at most four products in each of at most two steps, and so is its repetition
# here: less than 32 roundings together, each of at most 2^-24 of the map's largest magnitude; and
# the smallest normal number, below which rounding is coarser.
MARGIN = 64 * 2.0**-24
NOWHERE_XYXY = (0, 0, 0, 0)  # SAM's box of an empty mask


@dataclass(frozen=True, eq=False)
class Axis:
    """How the pixels of one axis come from samples."""

    weights: Float32[np.ndarray, "pixels samples"]

    @cached_property
    def reach(self) -> int:
        """Tell over how many neighbouring samples a pixel is a mean, at most."""
        return int(1 + (_last(self.weights > 0) - np.argmax(self.weights > 0, axis=1)).max())

    @cached_property
    def starts(self) -> Int64[np.ndarray, "pixels"]:
        """Tell at which sample the window of every pixel starts: `reach` samples, ascending."""
        most = self.weights.shape[1] - self.reach
        return np.asarray(np.minimum(np.argmax(self.weights > 0, axis=1), most), dtype=np.int64)

    @cached_property
    def pixels(self) -> Float64[np.ndarray, "windows"]:
        """Count the pixels of every window."""
        windows = self.weights.shape[1] - self.reach + 1
        return np.bincount(self.starts, minlength=windows).astype(np.float64)

    def part(self, first: int, last: int) -> tuple[slice, slice]:
        """Give the pixels and the samples of some windows, the last included."""
        start, stop = np.searchsorted(self.starts, (first, last + 1)).tolist()
        return slice(start, stop), slice(first, last + self.reach)


def _last(there: Bool[np.ndarray, "n m"]) -> Int64[np.ndarray, "n"]:
    return np.asarray(there.shape[1] - 1 - np.argmax(there[:, ::-1], axis=1), dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Enlargement:
    """How maps of one size are enlarged to an image, along either axis."""

    rows: Axis
    columns: Axis


@lru_cache(maxsize=4)
def enlargement(
    map_hw: tuple[int, int], canvas: Canvas | None, image_hw: tuple[int, int]
) -> Enlargement:
    """Find out what `logits_at` does to maps, by enlarging single samples."""
    valid_hw = (None, None) if canvas is None else canvas.valid_hw
    side = 0 if canvas is None else canvas.side
    return Enlargement(
        *(
            Axis(_weights(n_samples, side, valid, n_pixels))
            for n_samples, valid, n_pixels in zip(map_hw, valid_hw, image_hw, strict=True)
        )
    )


def _weights(
    n_samples: int, side: int, valid: int | None, n_pixels: int
) -> Float32[np.ndarray, "pixels samples"]:
    import torch
    from torch.nn.functional import interpolate

    single = torch.eye(n_samples)[None, None]
    if valid is not None:
        single = interpolate(single, (side, n_samples), mode="bilinear")[:, :, :valid]
    single = interpolate(single, (n_pixels, n_samples), mode="bilinear")
    weights: Float32[np.ndarray, "pixels samples"] = single[0, 0].numpy()
    return weights


def _margin(logits: Float32[np.ndarray, "h w"]) -> float:
    return MARGIN * float(np.abs(logits).max()) + float(np.finfo(np.float32).tiny)


class Bounds:
    """What is known of one enlarged map."""

    def __init__(self, logits: Float32[np.ndarray, "h w"], how: Enlargement) -> None:
        self.logits, self.how = logits, how
        self.margin = _margin(logits)
        self.least = self._over_windows(np.minimum)
        self.greatest = self._over_windows(np.maximum)

    def _over_windows(self, choose: Callable[..., Any]) -> Float32[np.ndarray, "y x"]:
        """Take the least or the greatest sample of every window."""
        found = self.logits
        for at, axis in enumerate((self.how.rows, self.how.columns)):
            count = found.shape[at] - axis.reach + 1
            shifts = [slice(start, start + count) for start in range(axis.reach)]
            found = reduce(choose, (found[s] if at == 0 else found[:, s] for s in shifts))
        return found

    def area(self, threshold: float) -> tuple[float, float]:
        """Bound the number of pixels above a threshold from below and from above."""
        limit = float(np.float32(threshold))  # as an array of float32 is compared
        rows, columns = self.how.rows.pixels, self.how.columns.pixels
        sure, maybe = self.least > limit + self.margin, self.greatest > limit - self.margin
        return float(rows @ sure @ columns), float(rows @ maybe @ columns)

    def most_stable(self, offset: float) -> np.float32:
        """Bound the stability score from above: NaN if it is undefined, infinite if unknown."""
        inner, (outer, outer_at_most) = self.area(offset)[1], self.area(-offset)
        if outer_at_most == 0:
            return np.float32(np.nan)
        # rounding and division keep the order, so that no score above this one can come out
        return np.float32(inner) / np.float32(outer) if outer else np.float32(np.inf)

    def box_xyxy(self) -> tuple[int, int, int, int] | None:
        """Give the closed box of all pixels above 0, as SAM has it; None: rounding decides."""
        there = np.outer(self.how.rows.pixels > 0, self.how.columns.pixels > 0)
        maybe, sure = there & (self.greatest > -self.margin), there & (self.least > self.margin)
        if not maybe.any():
            return NOWHERE_XYXY
        edges = list[int]()
        for last in (False, True):
            for across in (True, False):
                edge = self._edge(maybe, sure, last=last, across=across)
                if edge is None:
                    return None
                edges.append(edge)
        return NOWHERE_XYXY if -1 in edges else (edges[0], edges[1], edges[2], edges[3])

    def _edge(
        self,
        maybe: Bool[np.ndarray, "y x"],
        sure: Bool[np.ndarray, "y x"],
        *,
        last: bool,
        across: bool,
    ) -> int | None:
        """Find the first or the last row, or column, with a pixel above 0; -1: there is none.

        Only those windows are enlarged that lie between the outermost that may have such a pixel
        and the outermost that has one.
        """
        along, other, logits = self.how.rows, self.how.columns, self.logits
        if across:
            along, other, logits, maybe, sure = other, along, logits.T, maybe.T, sure.T
        outermost, end = np.flatnonzero(maybe.any(axis=1)), -1 if last else 0
        settled = np.flatnonzero(sure.any(axis=1))
        until = settled[end] if settled.size else outermost[-1 - end]
        lo, hi = sorted((int(outermost[end]), int(until)))
        beside = np.flatnonzero(maybe[lo : hi + 1].any(axis=0))
        pixels, samples = along.part(lo, hi)
        pixels_beside, samples_beside = other.part(int(beside[0]), int(beside[-1]))
        part = logits[samples, samples_beside]
        margin = _margin(part)  # less than the map's: no other sample has a part in these pixels
        found = along.weights[pixels, samples] @ part
        found = found @ other.weights[pixels_beside, samples_beside].T
        possible = np.flatnonzero((found > -margin).any(axis=1))
        certain = np.flatnonzero((found > margin).any(axis=1))
        if not possible.size:
            return -1
        if not certain.size or certain[end] != possible[end]:
            return None
        return int(pixels.start + possible[end])

    def most_stable_closely(self, offset: float) -> np.float32:
        """Bound the stability score as before, but from pixels: only their rounding is left open.

        It takes time with the number of pixels that may exceed minus the offset.
        """
        windows = self._windows_above(-offset)
        if windows is None:
            return np.float32(np.nan)
        pixels, samples = self.how.rows.part(*windows[0])
        pixels_beside, samples_beside = self.how.columns.part(*windows[1])
        part = self.logits[samples, samples_beside]
        limit, margin = float(np.float32(offset)), _margin(part)
        found = self.how.rows.weights[pixels, samples] @ part
        found = found @ self.how.columns.weights[pixels_beside, samples_beside].T
        inner = np.count_nonzero(found > limit - margin)
        outer = np.count_nonzero(found > margin - limit)
        return np.float32(inner) / np.float32(outer) if outer else np.float32(np.inf)

    def part_above(self, threshold: float) -> tuple[slice, slice]:
        """Give the samples that decide which pixels exceed a threshold, as one rectangle.

        Where the others are replaced by the map's least, the same pixels exceed it.
        """
        windows = self._windows_above(threshold)
        if windows is None:
            return slice(0, 0), slice(0, 0)
        return self.how.rows.part(*windows[0])[1], self.how.columns.part(*windows[1])[1]

    def _windows_above(self, threshold: float) -> tuple[tuple[int, int], tuple[int, int]] | None:
        """Give the first and the last window, in y and in x, with a pixel that may exceed it."""
        maybe = self.greatest > float(np.float32(threshold)) - self.margin
        if not maybe.any():
            return None
        y, x = np.flatnonzero(maybe.any(axis=1)), np.flatnonzero(maybe.any(axis=0))
        return (int(y[0]), int(y[-1])), (int(x[0]), int(x[-1]))
