"""The simulated user of interactive segmentation: where the next click goes, and how many it takes.

The rules are those by which RITM, FocalClick and SimpleClick were published, so that numbers can be
put beside theirs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from promptseg.mask import bounding_box_xyxy
from promptseg.prompt import Points


@dataclass(frozen=True, slots=True)
class Click:
    """A click on a pixel, (x, y): positive on what is missing, negative on what is too much."""

    x: int
    y: int
    positive: bool


def next_click(
    pred: Bool[np.ndarray, "_ _"],
    reference: Bool[np.ndarray, "_ _"],
    before: Sequence[Click] = (),
) -> Click | None:
    """Click into the middle of the worst error of a mask, as a user would who knows the reference.

    All false negatives together, and all false positives together, have at each of their pixels the
    distance to the nearest pixel that is none of them; what lies outside the image is none. The
    click goes to the pixel of the largest distance among those not clicked before, the first such
    in row-major order. It is positive only if the largest distance of the false negatives is
    strictly larger than that of the false positives. The area of an error plays no part.

    Parameters
    ----------
    pred
        The mask as it is now; empty before the first click.
    before
        Clicks given before on this object.

    Returns
    -------
    None where nothing is wrong, or everything wrong was clicked before.

    Raises
    ------
    ValueError
        The shapes differ.

    References
    ----------
    K. Sofiiuk, I. A. Petrov, A. Konushin, "Reviving iterative training with mask guidance for
    interactive segmentation", ICIP 2022, doi:10.1109/ICIP46576.2022.9897365.

    Examples
    --------
    >>> reference = np.zeros((9, 9), bool); reference[2:7, 2:7] = True
    >>> next_click(np.zeros_like(reference), reference)
    Click(x=4, y=4, positive=True)
    """
    if pred.shape != reference.shape:
        raise ValueError(f"a mask of {pred.shape} and a reference of {reference.shape} differ")
    box = bounding_box_xyxy(pred | reference)
    if box is None:
        return None
    x0, y0, x1, y1 = box
    part = slice(y0, y1), slice(x0, x1)
    missing = _depth(reference[part] & ~pred[part])
    too_much = _depth(pred[part] & ~reference[part])
    for click in before:
        if x0 <= click.x < x1 and y0 <= click.y < y1:
            missing[click.y - y0, click.x - x0] = too_much[click.y - y0, click.x - x0] = 0
    positive = bool(missing.max() > too_much.max())
    depth = missing if positive else too_much
    if depth.max() == 0:
        return None
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return Click(int(x) + x0, int(y) + y0, positive)


def points(clicks: Sequence[Click]) -> Points:
    """Make the prompt of all clicks so far; raises ValueError without one."""
    xy = np.array([(click.x, click.y) for click in clicks], dtype=np.float64).reshape(-1, 2)
    return Points(xy, np.array([click.positive for click in clicks], dtype=bool))


def number_of_clicks(overlaps: Sequence[float], target: float, most: int) -> tuple[int, bool]:
    """Count the clicks until an overlap was reached (NoC), and tell whether it was.

    Parameters
    ----------
    overlaps
        Overlap (the field uses the Jaccard index) after 1, 2, ... clicks.
    target
        The overlap to reach: 0.85 and 0.9 are usual.
    most
        The number that a failure counts as. Overlaps after it are not looked at.

    References
    ----------
    As `next_click`; NoC at 85 and 90 % of 20 clicks.
    """
    for number, overlap in enumerate(overlaps[:most], start=1):
        if overlap >= target:
            return number, True
    return most, False


def _depth(wrong: Bool[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Measure how deep each pixel lies in a region; the edge of the array is outside."""
    padded = np.pad(wrong, 1).astype(np.uint8)
    inside = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    depth: Float32[np.ndarray, "h w"] = inside.astype(np.float32)
    return depth
