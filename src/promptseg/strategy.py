"""Strategies: the rules that make a prompt from a reference mask.

The rules are those of Huang et al. 2024 (doi:10.1016/j.media.2023.103061, section 3), done right:
PROTOCOL decision 3, recorded as protocol `paper`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from promptseg.mask import bounding_box_xyxy
from promptseg.prompt import Box, BoxPoints, Points, Prompt, PromptKind

EMPTY_REFERENCE = "the reference mask is empty: there is nothing to prompt for"
StrategyKind = PromptKind | Literal["everything", "masks"]


@dataclass(frozen=True, slots=True)
class Strategy:
    """A named rule from a reference mask, which must not be empty, to a prompt.

    Without a rule (`everything`) it asks once for all objects of an image. A rule raises
    ValueError, with the reason, where it has no prompt.
    """

    name: str
    prompt_kind: StrategyKind
    make: Callable[[Bool[np.ndarray, "h w"]], Prompt] | None
    protocol: str = "paper"


def tight_box(mask: Bool[np.ndarray, "h w"]) -> Box:
    """Box the whole mask, without margin; raises ValueError on an empty mask."""
    box = bounding_box_xyxy(mask)
    if box is None:
        raise ValueError(EMPTY_REFERENCE)
    return Box(*(float(side) for side in box))


def centre_pixel_xy(mask: Bool[np.ndarray, "h w"]) -> tuple[int, int]:
    """Find the pixel that holds the centre of mass, (x, y); it may lie off the object."""
    y, x = np.nonzero(mask)
    return int(np.floor(x.mean() + 0.5)), int(np.floor(y.mean() + 0.5))


def positive_points_xy(mask: Bool[np.ndarray, "h w"], count: int) -> Float[np.ndarray, "n 2"]:
    """Place min(count, area) distinct points on the object.

    The centre of mass comes first if its pixel lies on the object; the k others are the pixels
    floor((i + 0.5) N / k) of the row-major list of the N object pixels not yet taken.
    """
    pixels = pixels_xy(mask)
    count = min(count, len(pixels))
    centre = centre_pixel_xy(mask)
    first = np.empty((0, 2), dtype=pixels.dtype)
    if mask[centre[1], centre[0]]:
        first = np.array([centre])
        pixels = pixels[(pixels != first).any(axis=1)]
    others = _evenly_spaced(pixels, count - len(first))
    return np.concatenate([first, others]).astype(np.float64)


def negative_points_xy(mask: Bool[np.ndarray, "h w"], count: int) -> Float[np.ndarray, "n 2"]:
    """Place min(count, available) distinct points off the object, but near it.

    They are spaced evenly, as positive ones are, over the non-object pixels of the tight box
    enlarged twice about its centre and clipped to the image.

    Raises
    ------
    ValueError
        There is no such pixel: the object fills the window.
    """
    x0, y0, x1, y1 = window_xyxy(mask)
    pixels = pixels_xy(~mask[y0:y1, x0:x1]) + np.array([x0, y0])
    if len(pixels) == 0:
        raise ValueError("no background in the window: the box enlarged twice holds only object")
    return _evenly_spaced(pixels, min(count, len(pixels))).astype(np.float64)


def window_xyxy(mask: Bool[np.ndarray, "h w"]) -> tuple[int, int, int, int]:
    """Enlarge the tight box twice about its centre and clip it: whole pixels, half-open.

    A side of odd length gains half a pixel at either end, which is rounded outwards.
    """
    box = tight_box(mask)
    margin_x, margin_y = (box.x1 - box.x0) / 2, (box.y1 - box.y0) / 2
    return (
        max(0, int(np.floor(box.x0 - margin_x))),
        max(0, int(np.floor(box.y0 - margin_y))),
        min(mask.shape[1], int(np.ceil(box.x1 + margin_x))),
        min(mask.shape[0], int(np.ceil(box.y1 + margin_y))),
    )


def pixels_xy(mask: Bool[np.ndarray, "h w"]) -> Int[np.ndarray, "n 2"]:
    """List the pixels of a mask in row-major order."""
    y, x = np.nonzero(mask)
    return np.stack([x, y], axis=1)


def _evenly_spaced(pixels: Int[np.ndarray, "n 2"], count: int) -> Int[np.ndarray, "k 2"]:
    """Take the middle pixel of each of `count` equal stretches of a list."""
    index = (2 * np.arange(count) + 1) * len(pixels) // (2 * max(count, 1))
    return pixels[index]


def points(positive: int, negative: int = 0) -> Callable[[Bool[np.ndarray, "h w"]], Points]:
    """Make the rule that prompts with so many points on and off the object."""

    def make(mask: Bool[np.ndarray, "h w"]) -> Points:
        on = positive_points_xy(mask, positive)
        off = negative_points_xy(mask, negative) if negative else np.empty((0, 2))
        return Points(np.concatenate([on, off]), np.arange(len(on) + len(off)) < len(on))

    return make


def box_and_point(mask: Bool[np.ndarray, "h w"]) -> BoxPoints:
    """Prompt with the tight box and one positive point."""
    return BoxPoints(tight_box(mask), points(1)(mask))


STRATEGIES: Mapping[str, Strategy] = {
    "everything": Strategy("everything", "everything", None),  # S1
    "point1": Strategy("point1", "points", points(1)),  # S2
    "points5": Strategy("points5", "points", points(5)),  # S3
    "points5+5": Strategy("points5+5", "points", points(5, 5)),  # S4
    "box": Strategy("box", "box", tight_box),  # S5
    "box+point": Strategy("box+point", "box+points", box_and_point),  # S6
}
MASKS = Strategy("masks", "masks", None)  # nothing is asked: the masks of another tool are there
