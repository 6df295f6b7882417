"""Pictures and 2D masks as arrays, whatever file they come from.

Pixels are taken as they are stored: an orientation tag (EXIF) is not applied, to images and
masks alike. Whatever cannot be read raises `DataError` with a reason fit for a table.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Integer, Shaped, UInt8

from promptseg.errors import DataError
from promptseg.reader.colours import one_channel
from promptseg.reader.pages import Page, Pages
from promptseg.reader.regrid import Regridded
from promptseg.reader.stack import open_pages

_AT_ONCE = 1 << 22  # values that are scaled in one go


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One picture as a corpus keeps it, and how its source values became 0..255."""

    pixels: Shaped[np.ndarray, "h w *rgb"]  # 8-bit grey or RGB, or 16-bit grey
    rule: str
    lo: float | None
    hi: float | None


@dataclass(frozen=True, slots=True, eq=False)
class RawMask:
    """The values of a mask file; `lossy` ones are only near to what was drawn (JPEG).

    `table` is what the file itself calls its values. Labels on another grid than their image's are
    brought onto it by `fit`.
    """

    values: Shaped[np.ndarray, "*space"]
    lossy: bool = False
    table: Mapping[str, tuple[int, ...]] | None = None
    fit: Callable[[Integer[np.ndarray, "i j k"]], Regridded] | None = None


def read_picture(path: Path) -> Picture:
    """Read a picture. 8 bits stay bit for bit; 16-bit grey stays; anything deeper is scaled.

    Alpha is left away. 16-bit colour, floats and 32-bit integers become 8 bits by their own
    minimum and maximum, which are kept.
    """
    return picture_of(only_page(open_pages(path), as_mask=False))


def read_mask(path: Path) -> RawMask:
    """Read the values of a 2D mask; `promptseg.reader.colours` says what colours mean.

    A palette of greys stands for its greys, one of colours for its indices.
    """
    return mask_of(only_page(open_pages(path), as_mask=True))


def picture_of(page: Page) -> Picture:
    """Bring a page to what a corpus stores where no intensity rule is asked for."""
    pixels = shown(page.values)
    if pixels.dtype == np.uint8:
        return Picture(pixels, page.conversion or "none", 0.0, 255.0)
    return kept_or_scaled(pixels, "min-max image", *finite_range(pixels))


def shown(values: Shaped[np.ndarray, "h w *rgb"]) -> Shaped[np.ndarray, "h w *rgb"]:
    """Give the pixels of a page: truths are black and white."""
    return values.astype(np.uint8) * np.uint8(255) if values.dtype == np.bool_ else values


def kept_or_scaled(
    pixels: Shaped[np.ndarray, "h w *rgb"], rule: str, lo: float, hi: float
) -> Picture:
    """Keep 16-bit grey, of which nothing is lost so, and bring all else to 8 bits."""
    if pixels.dtype == np.uint16 and pixels.ndim == 2:
        return Picture(pixels, rule, lo, hi)
    return Picture(scaled(pixels, lo, hi), rule, lo, hi)


def mask_of(page: Page) -> RawMask:
    """Give the values of a page of a mask; raises DataError if its colours tell nothing."""
    values = page.values
    if values.ndim == 3:
        values = one_channel(values, page.lossy)
    return RawMask(values, page.lossy)


def only_page(pages: Pages, *, as_mask: bool) -> Page:
    """Decode the page of a picture; raises DataError where it is a stack."""
    if pages.is_stack:
        raise DataError(
            "it is a video; expected is one picture"
            if pages.is_video
            else f"it holds several pages ({pages.count}); expected is one picture"
        )
    ((_, page),) = pages.read(as_mask, 1)
    return page


def finite_range(values: Shaped[np.ndarray, "*space"]) -> tuple[float, float]:
    """Find the smallest and largest finite value; raises DataError where there is none."""
    if np.issubdtype(values.dtype, np.floating):
        finite = np.isfinite(values)
        if not finite.all():
            values = values[finite]
    if values.size == 0:
        raise DataError("it holds no finite value")
    return float(values.min()), float(values.max())


def scaled(
    values: Shaped[np.ndarray, "*space"], lo: float, hi: float
) -> UInt8[np.ndarray, "*space"]:
    """Map [lo, hi] to 0..255, rounded; infinities go to the ends, and what is not a number to 0."""
    if values.dtype == np.int16 and values.size >= 2**15:
        return _table(lo, hi)[values.view(np.uint16)]
    result = np.empty(values.shape, np.uint8)
    if values.ndim == 0:
        result[...] = _scaled(values, lo, hi)
        return result
    rows = max(1, _AT_ONCE * len(values) // max(values.size, 1))
    for start in range(0, len(values), rows):  # in float64 the whole may not fit into memory
        result[start : start + rows] = _scaled(values[start : start + rows], lo, hi)
    return result


@lru_cache(maxsize=1)
def _table(lo: float, hi: float) -> UInt8[np.ndarray, "65536"]:
    """Map every value of 16 bits with a sign once for all slices, in the order of their bits."""
    return _scaled(np.arange(2**16, dtype=np.uint16).view(np.int16), lo, hi)


def _scaled(
    values: Shaped[np.ndarray, "*space"], lo: float, hi: float
) -> UInt8[np.ndarray, "*space"]:
    share = values.astype(np.float64)
    share -= lo
    share /= (hi - lo) or 1.0
    if not np.issubdtype(values.dtype, np.integer):
        np.nan_to_num(share, copy=False, nan=0.0, posinf=1.0, neginf=0.0)
    np.clip(share, 0.0, 1.0, out=share)
    share *= 255.0
    return np.rint(share, out=share).astype(np.uint8)
