"""Masks that are stored in colours: which channel, palette or alpha is the mask.

One colour on black is one object. Where alpha is both transparent and opaque and all that is
opaque has one colour, the picture was drawn on nothing: then alpha is the mask. Alpha that is
opaque everywhere says nothing.
"""

import numpy as np
from jaxtyping import Shaped, UInt8

from promptseg.errors import DataError


def one_channel(
    colours: Shaped[np.ndarray, "h w channels"], lossy: bool = False
) -> Shaped[np.ndarray, "h w"]:
    """Give the values of a mask stored in colours, of 1 to 4 channels.

    Two and four channels end with alpha. Raises DataError for several colours, since nothing says
    which is which.
    """
    n_channels = colours.shape[2]
    if n_channels in (2, 4):
        alpha, colours = colours[:, :, -1], colours[:, :, :-1]
        if _is_mask(alpha, colours):
            return np.ascontiguousarray(alpha)
    if lossy:
        return np.ascontiguousarray(colours.max(axis=2))
    if (colours == colours[:, :, :1]).all():
        return np.ascontiguousarray(colours[:, :, 0])
    return _one_colour(colours)


def _one_colour(colours: Shaped[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w"]:
    """Give 255 where the one colour on black is."""
    drawn = colours.any(axis=2)
    y, x = np.unravel_index(int(drawn.argmax()), drawn.shape)
    if (colours[drawn] != colours[y, x]).any():
        raise DataError(
            f"it holds {_count(colours[drawn])} colours; expected are greys, or one colour on black"
        )
    return np.where(drawn, np.uint8(255), np.uint8(0))


def _count(colours: Shaped[np.ndarray, "n 3"]) -> int:
    """Count different colours; as numbers, since rows of three would be sorted: slow."""
    if not np.issubdtype(colours.dtype, np.integer) or colours.dtype.itemsize > 2:
        return len(np.unique(colours, axis=0))
    red, green, blue = np.moveaxis(colours.astype(np.int64), -1, 0)
    return len(np.unique((red << 32) + (green << 16) + blue))


def _is_mask(alpha: Shaped[np.ndarray, "h w"], colours: Shaped[np.ndarray, "h w *rgb"]) -> bool:
    """Tell alpha that is the mask from alpha that is there by chance."""
    opaque = alpha > 0
    if opaque.all() or not opaque.any():
        return False
    visible = colours[opaque]
    return bool((visible == visible[0]).all())


def palette_values(
    indices: UInt8[np.ndarray, "h w"],
    colours: Shaped[np.ndarray, "h w 3"],
    palette: list[int],
) -> Shaped[np.ndarray, "h w *rgb"]:
    """Give the greys of a grey palette, and the indices of a coloured one.

    If black is used and is not the first colour, the indices are no labels: then the colours.
    """
    if (colours == colours[:, :, :1]).all():
        return np.ascontiguousarray(colours[:, :, 0])
    has_black = not colours.any(axis=2).all()
    return colours if has_black and palette[:3] != [0, 0, 0] else indices
