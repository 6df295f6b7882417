"""Masks that have to be completed: drawn outlines are filled, cropped masks put at their place."""

import numpy as np
from jaxtyping import Bool, Integer

from promptseg.errors import DataError
from promptseg.reader.image import RawMask

_EIGHT = np.ones((3, 3), dtype=bool)


def filled(
    labels: Integer[np.ndarray, "h w"], *, instances: bool = False
) -> list[Integer[np.ndarray, "h w"]]:
    """Fill drawn outlines; the line belongs to the object.

    An outline is a line whose pixels touch, also at corners. It has to enclose more than it covers
    itself, since a line with a gap encloses nothing but maybe a hole in the line.

    Returns
    -------
    list of arrays
        The values of the lines. With `instances` the outlines are numbered from 1. Objects that
        overlap lie in different arrays.

    Raises
    ------
    DataError
        A line has a gap.
    """
    layers: list[Integer[np.ndarray, "h w"]] = []
    for number, (value, box, region) in enumerate(_regions(labels), start=1):
        name = number if instances else value
        layer = next((a for a in layers if np.isin(a[box][region], (0, name)).all()), None)
        if layer is None:
            layer = np.zeros(labels.shape, np.int32)
            layers.append(layer)
        layer[box][region] = name
    return layers or [labels]


def _regions(
    labels: Integer[np.ndarray, "h w"],
) -> list[tuple[int, tuple[slice, ...], Bool[np.ndarray, "y x"]]]:
    """List of each line its value, its box, and within it what it encloses, with the line."""
    from scipy import ndimage

    regions = []
    for value in np.unique(labels[labels > 0]):
        lines, _ = ndimage.label(labels == value, structure=_EIGHT)
        for number, box in enumerate(ndimage.find_objects(lines), start=1):
            line = lines[box] == number
            region = ndimage.binary_fill_holes(line)
            if np.count_nonzero(region) <= 2 * np.count_nonzero(line):
                raise DataError(
                    "a line in it is no closed outline: it encloses less than it covers itself"
                )
            regions.append((int(value), box, region))
    return regions


def placed(raw: RawMask, corner: tuple[int, int], size: tuple[int, int]) -> RawMask:
    """Put a cropped mask at its place (top, left) in an image of `size` (h, w).

    Raises
    ------
    DataError
        It does not lie within the image.
    """
    top, left = corner
    height, width = raw.values.shape
    if top < 0 or left < 0 or top + height > size[0] or left + width > size[1]:
        raise DataError(
            f"its box of {width} x {height} pixels at ({left}, {top}) is not within its image, "
            f"{size[1]} x {size[0]}"
        )
    whole = np.zeros(size, raw.values.dtype)
    whole[top : top + height, left : left + width] = raw.values
    return RawMask(whole, raw.lossy)
