"""Intensity rules: which source values are shown as black and as white.

Between the two ends, which every image keeps (`intensity_lo`, `intensity_hi`), grey levels are
linear. Without a rule volumes go from their minimum to their maximum (the study's rule, Huang et
al. 2024, doi:10.1016/j.media.2023.103061, section 2.2), deep pictures likewise, and pictures of 8
bits stay as they are. A rule that was asked for is applied to pictures of 8 bits too, except a
window: that is in units of the scanner.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from jaxtyping import Integer, Shaped

from promptseg.errors import DataError, pick
from promptseg.reader.image import (
    Picture,
    finite_range,
    kept_or_scaled,
    picture_of,
    scaled,
    shown,
)
from promptseg.reader.pages import Page
from promptseg.reader.volume import Volume, slabs

Kind = Literal["min-max", "percentile", "window", "stated", "none"]
Per = Literal["volume", "slice"]
# common levels and widths in Hounsfield units; departments differ
WINDOWS: Mapping[str, tuple[float, float]] = {
    "lung": (-600, 1500),
    "mediastinum": (50, 350),
    "soft-tissue": (50, 400),
    "abdomen": (50, 400),
    "liver": (30, 150),
    "bone": (400, 1800),
    "brain": (40, 80),
    "stroke": (32, 8),
    "temporal-bone": (600, 2800),
    "spine": (50, 250),
}
_RELEASED = (0.95, 99.5)  # the first is what the study's released code has
_FORMS = (
    "min-max, percentile:0.5-99.5, window:LEVEL/WIDTH, window:NAME, window:dicom, released or none"
)
_NUMBER = r"-?\d+(?:\.\d+)?"


@dataclass(frozen=True, slots=True)
class Intensity:
    """A rule that was asked for; its numbers are percentiles, or the values at both ends."""

    kind: Kind
    name: str
    numbers: tuple[float, float] = (0.0, 0.0)
    per: Per = "volume"

    @property
    def in_words(self) -> str:
        """Write the rule as corpora keep it."""
        if self.kind in ("min-max", "percentile"):
            return f"{self.name} over each {self.per}, or picture"
        return self.name

    @property
    def spares_8_bits(self) -> bool:
        """Whether pictures of 8 bits stay as they are."""
        return self.kind in ("window", "stated", "none")


MIN_MAX = Intensity("min-max", "min-max")


def intensity_rule(text: str | None, per: str | None = None) -> Intensity | None:
    """Read a rule as the command line has it: `percentile:0.5-99.5`, `window:lung`.

    Raises
    ------
    DataError
        It is no rule, or makes no difference between volumes and slices.
    UnknownName
        There is no window, or no such `per`, of that name.
    """
    if text is None and per is None:
        return None
    unit = pick({word: word for word in get_args(Per)}, per or "volume", "unit of a rule")
    name, _, rest = (text or "min-max").partition(":")
    if name == "window" and rest:
        rule = _window(rest)
    elif name == "percentile" and rest:
        rule = Intensity("percentile", f"percentile {rest}", _percentiles(rest), unit)
    elif text == "released":
        name = "released (percentile {:g}-{:g})".format(*_RELEASED)
        rule = Intensity("percentile", name, _RELEASED, "slice")
    elif rest or name not in ("min-max", "none"):
        raise DataError(f"There is no intensity rule {text!r}. Known are {_FORMS}.")
    else:
        rule = replace(MIN_MAX, per=unit) if name == "min-max" else Intensity("none", name)
    if per is not None and rule.kind not in ("min-max", "percentile"):
        raise DataError(f"--per goes with min-max and percentile, not with {text}.")
    if per is not None and rule.per != unit:
        raise DataError(f"The rule {text} goes by slice; leave --per away.")
    return rule


def _window(text: str) -> Intensity:
    if text == "dicom":
        return Intensity("stated", "window of the header")
    if match := re.fullmatch(rf"({_NUMBER})/({_NUMBER})", text):
        level, width = float(match[1]), float(match[2])
        name = f"window {text}"
    else:
        level, width = pick(WINDOWS, text, "window")
        name = f"window {text} ({level:g}/{width:g})"
    if width <= 0:
        raise DataError(f"The width of the window {text} has to be above 0.")
    return Intensity("window", name, (level - width / 2, level + width / 2))


def _percentiles(text: str) -> tuple[float, float]:
    match = re.fullmatch(rf"({_NUMBER})-({_NUMBER})", text)
    lo, hi = (float(match[1]), float(match[2])) if match else (0.0, 0.0)
    if not 0 <= lo < hi <= 100:
        raise DataError(f"Percentiles {text!r} have to be two from 0 to 100, as 0.5-99.5 .")
    return lo, hi


@dataclass(frozen=True, slots=True)
class Shades:
    """A rule and the values it shows as 0 and 255."""

    rule: str
    lo: float
    hi: float

    def picture(self, values: Shaped[np.ndarray, "h w *rgb"]) -> Picture:
        """Bring values to 8 bits."""
        pixels = (
            values.astype(np.uint8) if self.rule == "none" else scaled(values, self.lo, self.hi)
        )
        return Picture(pixels, self.rule, self.lo, self.hi)


def shades_of_volume(volume: Volume, rule: Intensity) -> Shades | None:
    """Find the shades of all slices of a volume; None: each slice has its own.

    Raises
    ------
    DataError
        It has no finite value, or not what the rule needs.
    """
    match rule.kind:
        case "window":
            return Shades(rule.name, *rule.numbers)
        case "stated":
            if volume.window is None:
                raise DataError("its header states no window, as --intensity window:dicom needs")
            return Shades(rule.name, *volume.window)
        case "none":
            return _as_stored(volume)
    if rule.per == "slice":
        return None
    percentiles = (0.0, 100.0) if rule.kind == "min-max" else rule.numbers
    if volume.slope < 0:
        percentiles = (100 - percentiles[0], 100 - percentiles[1])
    ends = volume.scaled(np.array([value_at(volume.voxels, p) for p in percentiles]))
    return Shades(f"{rule.name} volume", float(ends[0]), float(ends[1]))


def _as_stored(volume: Volume) -> Shades:
    lo, hi = (volume.scaled(np.array(value_at(volume.voxels, p))) for p in (0.0, 100.0))
    is_whole = np.issubdtype(volume.voxels.dtype, np.integer) and volume.slope == 1.0
    if not is_whole or lo < 0 or hi > 255:
        raise DataError("its values are not 8 bits, so that they need an intensity rule")
    return Shades("none", 0.0, 255.0)


def shades_of_slice(values: Shaped[np.ndarray, "y x"], rule: Intensity) -> Shades:
    """Find the shades of one slice by itself; raises DataError if it has no finite value."""
    return Shades(f"{rule.name} slice", *_ends(values, rule))


def shaded(page: Page, rule: Intensity | None, shades: Shades | None = None) -> Picture:
    """Bring a picture to what a corpus keeps; `shades` are those of its stack, if it has any.

    Raises
    ------
    DataError
        It has no finite value, or not what the rule needs.
    """
    pixels = shown(page.values)
    if shades is None and (rule is None or (pixels.dtype == np.uint8 and rule.spares_8_bits)):
        return picture_of(page)
    if shades is None and rule is not None:
        shades = _shades_of_picture(pixels, rule)
    if shades is None or shades.rule == "none":
        return Shades("none", 0.0, 255.0).picture(pixels)
    said = f"{page.conversion}; {shades.rule}" if page.conversion else shades.rule
    return kept_or_scaled(pixels, said, shades.lo, shades.hi)


def _shades_of_picture(pixels: Shaped[np.ndarray, "h w *rgb"], rule: Intensity) -> Shades | None:
    if rule.kind in ("min-max", "percentile"):
        return Shades(f"{rule.name} image", *_ends(pixels, rule))
    return shades_of_volume(_plain(pixels), rule)


def _plain(pixels: Shaped[np.ndarray, "h w *rgb"]) -> Volume:
    """Take a picture for a volume without a header."""
    return Volume(pixels.reshape(*pixels.shape[:2], -1), np.eye(4), False, has_place=False)


def _ends(values: Shaped[np.ndarray, "*space"], rule: Intensity) -> tuple[float, float]:
    if rule.kind == "min-max":
        return finite_range(values)
    return value_at(values, rule.numbers[0]), value_at(values, rule.numbers[1])


def value_at(values: Shaped[np.ndarray, "*space"], percentile: float) -> float:
    """Find a percentile of the finite values, linear between two of them as NumPy's.

    Integers of up to 16 bits are counted slab by slab; others need a copy, unless 0 or 100 is asked
    for.

    Raises
    ------
    DataError
        There is no finite value.
    """
    if percentile in (0.0, 100.0):
        ranges = [range_ for slab in slabs(values) if (range_ := _finite_range(slab)) is not None]
        if not ranges:
            raise DataError("it holds no finite value")
        return min(lo for lo, _ in ranges) if percentile == 0.0 else max(hi for _, hi in ranges)
    if np.issubdtype(values.dtype, np.integer) and values.dtype.itemsize <= 2:
        lowest = int(np.iinfo(values.dtype).min)
        return percentile_of_counts(count_values(values), lowest, percentile)
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        raise DataError("it holds no finite value")
    return float(np.percentile(finite, percentile, overwrite_input=True))


def _finite_range(values: Shaped[np.ndarray, "*slab"]) -> tuple[float, float] | None:
    try:
        return finite_range(values)
    except DataError:
        return None


def count_values(values: Shaped[np.ndarray, "*space"]) -> Integer[np.ndarray, "n"]:
    """Count how often each value of integers of up to 16 bits occurs, from the lowest on."""
    lowest = int(np.iinfo(values.dtype).min)
    counts = np.zeros(2 ** (8 * values.dtype.itemsize), dtype=np.int64)
    for slab in slabs(values):
        counts += np.bincount(slab.ravel().astype(np.int64) - lowest, minlength=len(counts))
    return counts


def percentile_of_counts(counts: Integer[np.ndarray, "n"], lowest: int, percentile: float) -> float:
    """Find a percentile of counted values, linear between two of them as NumPy's."""
    reached = np.cumsum(counts)
    at = (reached[-1] - 1) * percentile / 100
    below, above = (
        float(np.searchsorted(reached, np.floor(place), side="right")) + lowest
        for place in (at, np.ceil(at))
    )
    return float(below + (above - below) * (at - np.floor(at)))
