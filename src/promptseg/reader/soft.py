"""Binary masks whose edges were smoothed: told from label maps by where their greys lie.

A mask of 0, 255 and at least two greys between is one smoothed object if

1. no greys fill an area: there is no 3 x 3 block of them;
2. every grey lies on an edge, with 0 and 255 at most 2 pixels away, or is a lone stray pixel;
3. there are 8 greys or more, as smoothing gives, or else no grey forms a line: its pieces have
   at most 4 pixels.

Nested classes (128 around 255), thin classes (a line of one grey) and numbers fail one of these.
"""

import numpy as np
from jaxtyping import Bool, Shaped, UInt8

HALF = 127  # value > HALF is the object
_MANY_GREYS, _LONGEST_PIECE, _REACH = 8, 4, 5
_BLOCK = np.ones((3, 3), dtype=bool)


def has_soft_edges(values: Shaped[np.ndarray, "h w"]) -> bool:
    """Tell a binary mask with smoothed edges from labels, by the rule that the module states."""
    if values.dtype != np.uint8:
        return False
    counts = np.bincount(values.ravel(), minlength=256)
    greys = np.flatnonzero(counts[1:255]) + 1
    if len(greys) < 2 or not (counts[0] and counts[255]):
        return False
    between = (values > 0) & (values < 255)
    if not _is_thin(values, between):
        return False
    return len(greys) >= _MANY_GREYS or all(_is_scattered(values == grey) for grey in greys)


def is_plain(values: Shaped[np.ndarray, "*space"]) -> bool:
    """Whether a mask has no value but 0 and 255."""
    return values.dtype == np.uint8 and not ((values > 0) & (values < 255)).any()


def hardened(values: UInt8[np.ndarray, "*space"]) -> UInt8[np.ndarray, "*space"]:
    """Part object from background in the middle of its edge."""
    return np.where(values > HALF, np.uint8(255), np.uint8(0))


def _is_thin(values: Shaped[np.ndarray, "h w"], between: Bool[np.ndarray, "h w"]) -> bool:
    from scipy import ndimage

    if ndimage.binary_erosion(between, _BLOCK).any():
        return False
    near = ndimage.minimum_filter(values, _REACH) == 0
    near &= ndimage.maximum_filter(values, _REACH) == 255
    pieces, _ = ndimage.label(between, _BLOCK)
    sizes = np.bincount(pieces.ravel())
    return bool((near | (sizes[pieces] == 1))[between].all())


def _is_scattered(of_one_grey: Bool[np.ndarray, "h w"]) -> bool:
    from scipy import ndimage

    pieces, _ = ndimage.label(of_one_grey, _BLOCK)
    return bool(np.bincount(pieces.ravel())[1:].max(initial=0) <= _LONGEST_PIECE)
