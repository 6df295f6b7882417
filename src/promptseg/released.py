"""The prompt rule of the study's released code, bug for bug: protocol `released`.

Re-implemented from what `find_all_info` and the functions below it in `utils/get_prompts.py` of the
repository yuhoo0302/Segment-Anything-Model-for-Medical-Images do. Its deviations from the paper's
rule (Huang et al. 2024, doi:10.1016/j.media.2023.103061, section 3) are the point of this module:

- the centre of mass, truncated to a pixel, comes first even where it lies off the object;
- every floor(N / 5)-th pixel of the row-major list is taken, and so 5 points or more;
- the labels are five ones and five zeros all the same, so that a sixth point on the object is
  labelled as background;
- the window of the negative points grows from a box that lacks its last row and column;
- it stops (slice step 0) where fewer than five pixels are on the object, or off it in the window.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Int

from promptseg.prompt import Box, BoxPoints, Points, Prompt
from promptseg.strategy import STRATEGIES, Strategy, pixels_xy, tight_box

PER_SIGN = 5


def released_points_xy(mask: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "n 2"]:
    """Give all points that the released code makes, ten or more: first on, then off the object.

    Raises
    ------
    ValueError
        The released code stops at this mask.
    """
    on = pixels_xy(mask)
    others = _every_fifth(on, "on the object")[1:]
    # truncated, where the paper's rule looks for the pixel that holds the centre
    centre = on.sum(axis=0) // len(on)
    off = _every_fifth(_background(mask), "off the object in its window")
    return np.concatenate([centre[None], others, off]).astype(np.float64)


def _every_fifth(pixels: Int[np.ndarray, "n 2"], where: str) -> Int[np.ndarray, "m 2"]:
    step = len(pixels) // PER_SIGN
    if step == 0:
        raise ValueError(
            f"the released code stops here: {len(pixels)} pixels {where}, fewer than {PER_SIGN}"
        )
    return pixels[::step]


def _background(mask: Bool[np.ndarray, "h w"]) -> Int[np.ndarray, "n 2"]:
    """List the pixels off the object in the window, whose sides are rounded down."""
    box = tight_box(mask)
    size = np.array([box.x1 - box.x0 - 1, box.y1 - box.y0 - 1])  # the last pixel is not counted
    start = np.array([box.x0, box.y0]) - size / 2
    stop = np.minimum(start + 2 * size, [mask.shape[1], mask.shape[0]])
    start = np.maximum(start, 0)
    x, y = map(int, start)
    width, height = map(int, stop - start)
    pixels: np.ndarray = pixels_xy(~mask[y : y + height, x : x + width]) + np.array([x, y])
    return pixels


def released_points(count: int) -> Callable[[Bool[np.ndarray, "h w"]], Points]:
    """Make the rule of `find_all_info(point_num=count)`: the first points, labelled by place."""

    def make(mask: Bool[np.ndarray, "h w"]) -> Points:
        return Points(released_points_xy(mask)[:count], np.arange(count) < PER_SIGN)

    return make


def _box(mask: Bool[np.ndarray, "h w"]) -> Box:
    released_points_xy(mask)  # the code makes points even where it uses the box alone
    return tight_box(mask)


def _box_and_point(mask: Bool[np.ndarray, "h w"]) -> BoxPoints:
    return BoxPoints(tight_box(mask), released_points(1)(mask))


_RULES: Mapping[str, Callable[[Bool[np.ndarray, "h w"]], Prompt]] = {
    "point1": released_points(1),
    "points5": released_points(5),
    "points5+5": released_points(10),
    "box": _box,
    "box+point": _box_and_point,
}

RELEASED: Mapping[str, Strategy] = {
    name: replace(strategy, protocol="released", make=_RULES.get(name))
    for name, strategy in STRATEGIES.items()
}
PROTOCOLS: Mapping[str, Mapping[str, Strategy]] = {"paper": STRATEGIES, "released": RELEASED}
