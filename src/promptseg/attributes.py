"""What a target looks like: size, shape, contrast and boundary, which its DICE may depend on.

The attributes of the study (Huang et al. 2024, doi:10.1016/j.media.2023.103061, section 4.8), its
boundary complexity once as printed and once corrected, and some more. They are of the reference
mask and the image alone: no model takes part. Undefined is None, never zero.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, cast

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from promptseg.mask import bounding_box_xyxy
from promptseg.sample import Target

RING = 0.1  # of its own side, by which each edge of the box moves outwards for the surroundings

AREA = 4096.0  # to which a contour is brought, so that its order does not depend on its size
SOFT_PX = 0.7  # Gaussian sigma that takes the pixels' steps out of a contour
ENOUGH = 0.97  # DICE of the contour that an order describes with the contour itself
HIGHEST = 60  # order; what needs more is censored there
SMALLEST = 30  # pixels of a component that still has a contour to speak of
STEPS = 400  # points of a decoded contour

PLATEAU = 0.001  # the study's rule: DICE gained by an order, below which it stops
PENALTY = 200.0  # the study's rule: orders added per DICE that is missing then
HIGHEST_PAPER = 200
_SUBPIXEL = 8  # bits

Mask = Bool[np.ndarray, "h w"]
Contour = Float[np.ndarray, "n 2"]  # (x, y), not closed


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """What a target looks like; lengths and areas are in pixels of the image."""

    area_px: int
    area_share: float  # of the image
    aspect_ratio: float  # short by long side of the box, in (0, 1]
    intensity_difference: float | None  # |mean inside - mean of the surroundings|, 0..255
    contrast_to_noise: float | None  # that difference over the pooled standard deviation
    fourier_order: float | None  # corrected; None: all components are too small
    fourier_censored: bool  # a component needs more than the highest order
    fourier_order_paper: float | None  # by the study's rule
    compactness: float | None  # 4 pi area / perimeter^2 over all components; 1: a disc
    n_components: int  # 8-connected
    n_holes: int  # 4-connected parts of the background that the target encloses
    border_distance_px: int  # of its box to the nearest edge of the image


NAMES = tuple(field.name for field in fields(Attributes))


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeRow(Attributes):
    """The attributes of one target of a run; records point at it by its name."""

    image_id: str
    target_id: str


def described(image: UInt8[np.ndarray, "h w 3"], target: Target, image_id: str) -> AttributeRow:
    """Describe a target, which is not empty, for a run."""
    found = attributes_of(image, target.mask)
    return AttributeRow(**asdict(found), image_id=image_id, target_id=target.target_id)


def attributes_of(image: UInt8[np.ndarray, "_ _ 3"], mask: Mask) -> Attributes:
    """Describe a target in its image.

    Raises
    ------
    ValueError
        The mask is empty, or is not of the image's size.
    """
    if image.shape[:2] != mask.shape:
        raise ValueError(f"the mask is {mask.shape}, the image {image.shape[:2]}")
    box = bounding_box_xyxy(mask)
    if box is None:
        raise ValueError("the reference mask is empty: it has no attributes")
    x0, y0, x1, y1 = box
    height, width = mask.shape
    near = np.pad(mask[y0:y1, x0:x1], 1)  # all that its shape depends on
    area = int(near.sum())
    order, censored = fourier_order(near)
    difference, noise = contrast(image, mask)
    n_holes = _count(_background(near), 4) - 1  # one is the outside
    return Attributes(
        area_px=area,
        area_share=area / mask.size,
        aspect_ratio=min(x1 - x0, y1 - y0) / max(x1 - x0, y1 - y0),
        intensity_difference=difference,
        contrast_to_noise=noise,
        fourier_order=order,
        fourier_censored=censored,
        fourier_order_paper=fourier_order_paper(near),
        compactness=_compactness(near, area),
        n_components=_count(near.astype(np.uint8), 8),
        n_holes=n_holes,
        border_distance_px=min(x0, y0, width - x1, height - y1),
    )


def _background(mask: Mask) -> UInt8[np.ndarray, "h w"]:
    return (~mask).astype(np.uint8)


def _count(parts: UInt8[np.ndarray, "h w"], connectivity: int) -> int:
    count: int = cv2.connectedComponents(parts, connectivity=connectivity)[0]
    return count - 1


def contrast(image: UInt8[np.ndarray, "h w 3"], mask: Mask) -> tuple[float | None, float | None]:
    """Compare the mean grey value inside a target with that of its surroundings.

    Surroundings are the pixels off the target in its box, of which each edge is moved outwards by a
    tenth of the box's side, at least one pixel, as far as the image reaches. The second value is
    the first over the pooled standard deviation of both. None: there are no surroundings, or they
    have no noise.
    """
    box = bounding_box_xyxy(mask)
    if box is None:
        return None, None
    x0, y0, x1, y1 = box
    dx, dy = max(1, round(RING * (x1 - x0))), max(1, round(RING * (y1 - y0)))
    rows = slice(max(0, y0 - dy), y1 + dy)
    columns = slice(max(0, x0 - dx), x1 + dx)
    grey = cv2.cvtColor(np.ascontiguousarray(image[rows, columns]), cv2.COLOR_RGB2GRAY)
    inside, outside = grey[mask[rows, columns]], grey[~mask[rows, columns]]
    if not outside.size:
        return None, None
    difference = abs(float(inside.mean()) - float(outside.mean()))
    noise = float(np.sqrt((inside.var() + outside.var()) / 2))
    return difference, difference / noise if noise > 0 else None


def _compactness(mask: Mask, area: int) -> float | None:
    from skimage import measure

    if area < SMALLEST:
        return None
    # four directions of lines: a disc's perimeter comes out true, unlike by counting pixel sides
    return min(
        1.0, 4 * np.pi * area / float(cast(Any, measure).perimeter_crofton(mask, directions=4)) ** 2
    )


def fourier_order(mask: Mask) -> tuple[float | None, bool]:
    """Measure boundary complexity: the order of elliptic Fourier descriptors that it takes.

    Every component is filled, brought to one area with its pixel steps smoothed out, and described
    by the lowest order whose contour has a DICE of 0.97 with its own. Orders of components are
    averaged by area. Unlike the study's rule this neither stops on a plateau of the DICE, on which
    a star's contour lies until its points come in, nor measures the pixels of small objects.

    Returns
    -------
    order
        In [1, 60]; None where every component is smaller than 30 pixels.
    censored
        Whether a component needs more than 60, and counts as 60.

    References
    ----------
    Kuhl & Giardina 1982, https://doi.org/10.1016/0146-664X(82)90034-X
    """
    orders: list[tuple[int, int, bool]] = []  # area, order, censored
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    for label in range(1, count):
        x, y, w, h, area = (int(value) for value in stats[label])
        if area >= SMALLEST:
            part = labels[y : y + h, x : x + w] == label
            orders.append((area, *_order_of(_smooth_contour(part))))
    if not orders:
        return None, False
    areas = np.array([area for area, _, _ in orders])
    values = np.array([order for _, order, _ in orders])
    return float((areas * values).sum() / areas.sum()), any(one for _, _, one in orders)


def _filled(mask: Mask) -> UInt8[np.ndarray, "h w"]:
    outer, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(mask.shape, np.uint8)
    cv2.drawContours(filled, outer, -1, (1,), cv2.FILLED)
    return filled


def _smooth_contour(part: Mask) -> Contour:
    """Bring a filled component to the fixed area, and draw its contour without pixel steps."""
    filled = np.pad(_filled(part), 4).astype(np.float32)
    # a large component is drawn as it is: shrunk, its thin parts would be gone
    scale = max(1.0, float(np.sqrt(AREA / filled.sum())))
    size_wh = tuple(round(side * scale) for side in filled.shape[::-1])
    large = np.pad(cv2.resize(filled, size_wh, interpolation=cv2.INTER_LINEAR), 8)
    soft = cv2.GaussianBlur(large, (0, 0), SOFT_PX * scale)
    found = _level(soft)
    area = float(cv2.contourArea(found.astype(np.float32)))
    grown: Contour = found * np.sqrt(AREA / area)
    return grown


def _level(soft: Float[np.ndarray, "h w"]) -> Contour:
    """Draw the longest line at half height, between pixels; lines of one pixel lie below one."""
    from skimage import measure

    lines: list[Contour] = cast(Any, measure).find_contours(soft, soft.max() / 2)
    longest = max(lines, key=lambda line: cv2.contourArea(line.astype(np.float32)))
    found: Contour = longest[:-1, ::-1]
    return found


def decoded_contours(contour: Contour, highest: int) -> Iterator[Contour]:
    """Yield what elliptic Fourier descriptors of order 1, 2, ... `highest` make of a contour."""
    from pyefd import calculate_dc_coefficients, elliptic_fourier_descriptors

    closed = np.vstack([contour, contour[:1]])
    turn = 2 * np.pi * np.arange(STEPS)[:, None] / STEPS
    decoded: Contour = np.zeros((STEPS, 2)) + calculate_dc_coefficients(closed)
    described = elliptic_fourier_descriptors(closed, order=highest)
    for order, (a, b, c, d) in enumerate(described, start=1):
        decoded = decoded + np.cos(order * turn) * (a, c) + np.sin(order * turn) * (b, d)
        yield decoded


def _dices(contour: Contour, highest: int) -> Iterator[float]:
    """Yield the DICE of the area of every order's contour with the contour's own."""
    room = np.ptp(contour, axis=0) / 2 + 2  # an order may reach beyond the contour
    low = np.floor(contour.min(0) - room)
    width, height = (int(side) for side in np.ceil(contour.max(0) + room) - low)
    reference = _area(contour - low, (height, width))
    for one in decoded_contours(contour, highest):
        own = _area(one - low, (height, width))
        yield float(2 * (own & reference).sum() / (own.sum() + reference.sum()))


def _area(contour: Contour, shape: tuple[int, int]) -> Mask:
    canvas = np.zeros(shape, np.uint8)
    corners = np.round(contour * 2**_SUBPIXEL).astype(np.int32)
    cv2.fillPoly(canvas, [corners], (1,), shift=_SUBPIXEL)
    return canvas.astype(bool)


def _order_of(contour: Contour) -> tuple[int, bool]:
    for order, dice in enumerate(_dices(contour, HIGHEST), start=1):
        if dice >= ENOUGH:
            return order, False
    return HIGHEST, True


def fourier_order_paper(mask: Mask) -> float | None:
    """Measure boundary complexity by the study's printed rule, for comparison with it alone.

    On the contour of the largest component as it lies on the pixels, the order rises from 1 until
    the DICE exceeds 0.97 or an order adds less than 0.001; then 200 (1 - DICE) is added. The second
    rule fires on plateaus: a k-pointed star ends at an order of about 2. None: fewer than 30
    pixels.

    References
    ----------
    Huang et al. 2024, https://doi.org/10.1016/j.media.2023.103061, section 4.8
    """
    outer, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    largest = max(outer, key=cv2.contourArea, default=np.zeros((0, 1, 2)))[:, 0].astype(float)
    if mask.sum() < SMALLEST or len(largest) < 3:
        return None
    before, found = -1.0, 0.0
    for order, dice in enumerate(_dices(largest, HIGHEST_PAPER), start=1):
        found = order + PENALTY * (1 - dice)
        if dice > ENOUGH or dice - before < PLATEAU:
            break
        before = dice
    return found
