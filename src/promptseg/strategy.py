"""Strategies: the rules that make a prompt from a reference mask.

The rules are those of Huang et al. 2024 (doi:10.1016/j.media.2023.103061, section 3), done right:
PROTOCOL decision 3, recorded as protocol `paper`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from promptseg.mask import bounding_box_xyxy
from promptseg.prompt import Box, BoxPoints, Points, Prompt, PromptKind


@dataclass(frozen=True, slots=True)
class Strategy:
    """A named rule from a reference mask, which must not be empty, to a prompt."""

    name: str
    prompt_kind: PromptKind
    make: Callable[[Bool[np.ndarray, "h w"]], Prompt]


def tight_box(mask: Bool[np.ndarray, "h w"]) -> Box:
    """Box the whole mask, without margin; raises ValueError on an empty mask."""
    box = bounding_box_xyxy(mask)
    if box is None:
        raise ValueError("the reference mask is empty: there is nothing to prompt for")
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
    y, x = np.nonzero(mask)
    pixels = np.stack([x, y], axis=1)
    count = min(count, len(pixels))
    centre = centre_pixel_xy(mask)
    first = np.empty((0, 2), dtype=pixels.dtype)
    if mask[centre[1], centre[0]]:
        first = np.array([centre])
        pixels = pixels[(pixels != first).any(axis=1)]
    others = count - len(first)
    index = (2 * np.arange(others) + 1) * len(pixels) // (2 * max(others, 1))
    return np.concatenate([first, pixels[index]]).astype(np.float64)


def box_and_point(mask: Bool[np.ndarray, "h w"]) -> BoxPoints:
    """Prompt with the tight box and one positive point."""
    xy = positive_points_xy(mask, 1)
    return BoxPoints(tight_box(mask), Points(xy, np.ones(len(xy), dtype=bool)))


STRATEGIES: Mapping[str, Strategy] = {
    "box": Strategy("box", "box", tight_box),  # S5
    "box+point": Strategy("box+point", "box+points", box_and_point),  # S6
}
