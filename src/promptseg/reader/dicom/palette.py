"""Palettes of DICOM pictures; entries of 8 bits may be stored in 8 or in 16."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Shaped, UInt8

from promptseg.errors import DataError
from promptseg.reader.dicom.header import numbers, value

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_COLOURS = ("Red", "Green", "Blue")
_MOST_8_BIT = 255


def through_palette(
    frame: Shaped[np.ndarray, "h w"], data: "Dataset", is_little_endian: bool
) -> UInt8[np.ndarray, "h w 3"]:
    """Show the numbers of a picture in the colours of its palette, of which 8 bits are kept.

    Numbers below the first entry take the first one, those above the last entry the last one.
    Raises DataError if the palette is damaged. Source: DICOM PS3.3 C.7.6.3.1.5 and C.7.6.3.1.6.
    """
    count, first, depth = _descriptor(data)
    if value(data, "RedPaletteColorLookupTableData") is None:
        tables = _segmented(data, count, first, depth)
    else:
        order = "<" if is_little_endian else ">"
        tables = np.stack([_table(data, colour, count, order) for colour in _COLOURS], axis=1)
    # files that promise 16 bits may have 8 in each word
    if depth > 8 and tables.max() > _MOST_8_BIT:
        tables = tables >> 8
    at = np.clip(frame.astype(np.int64) - first, 0, count - 1)
    shown: UInt8[np.ndarray, "h w 3"] = np.minimum(tables, _MOST_8_BIT).astype(np.uint8)[at]
    return shown


def _descriptor(data: "Dataset") -> tuple[int, int, int]:
    """Give the number of entries, the number that the first stands for, and their bits."""
    found = numbers(data, "RedPaletteColorLookupTableDescriptor", 3)
    count, first, depth = map(int, found) if found else (0, 0, 0)
    if found is None or not 0 <= count <= 2**16 or depth not in range(8, 17):
        raise DataError("its palette is damaged")
    return count or 2**16, first, depth


def _table(data: "Dataset", colour: str, count: int, order: str) -> Shaped[np.ndarray, "entries"]:
    stored = value(data, f"{colour}PaletteColorLookupTableData")
    if not isinstance(stored, bytes) or len(stored) < count:
        raise DataError("its palette is damaged")
    kind = f"{order}u2" if len(stored) >= 2 * count else "u1"
    return np.frombuffer(stored, kind, count).astype(np.uint16)


def _segmented(
    data: "Dataset", count: int, first: int, depth: int
) -> Shaped[np.ndarray, "entries 3"]:
    """Unfold a palette that is stored in pieces."""
    from pydicom.pixels.processing import apply_color_lut

    if depth == 8 and count > _MOST_8_BIT + 1:  # pydicom counts entries in their own kind
        raise DataError("a palette of that many entries, in pieces of 8 bits, is not read")
    return np.asarray(apply_color_lut(np.arange(first, first + count), data))[:, :3]
