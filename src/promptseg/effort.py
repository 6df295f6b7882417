"""How much work a mask leaves to whoever has to correct it by hand."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from scipy import ndimage

from promptseg.mask import bounding_box_xyxy

_CROSS: UInt8[np.ndarray, "3 3"] = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=np.uint8)
Mask = Bool[np.ndarray, "_ _"]
Pixels = list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Effort:
    """Human correction effort of one mask: vertices to draw, and regions to click away or in."""

    false_positive_points: int
    false_positive_regions: int
    false_negative_points: int
    false_negative_regions: int

    @property
    def total(self) -> int:
        """Sum all four: HCE, 0 and up; lower is better."""
        return (
            self.false_positive_points
            + self.false_positive_regions
            + self.false_negative_points
            + self.false_negative_regions
        )


def correction_effort(
    pred: Mask, reference: Mask, *, relax: int = 5, tolerance_px: float = 2.0
) -> Effort:
    """Count what a person would have to do to turn a mask into its reference (HCE).

    Errors that are no deeper than about `relax` pixels are let go, but for those that break the
    reference's skeleton. Of an error that touches what is right, the border to be redrawn is
    made a polygon, whose vertices count; an error that touches nothing counts as one.

    Parameters
    ----------
    relax
        Erosions, and dilations back, by a cross of 3 pixels.
    tolerance_px
        How far the polygon may be from the border (Ramer, Douglas and Peucker).

    Raises
    ------
    ValueError
        The shapes differ.

    Notes
    -----
    Pixels, not millimetres: the effort of a person who corrects the image at its size. Where a
    border to be redrawn goes through the point at which its contour happens to start, the two parts
    are joined in their direction; the published code turns one of them round, which adds vertices.

    References
    ----------
    X. Qin et al., "Highly accurate dichotomous image segmentation", ECCV 2022,
    doi:10.1007/978-3-031-19797-0_3, section 5.

    Examples
    --------
    >>> reference = np.zeros((60, 60), bool); reference[20:40, 20:40] = True
    >>> correction_effort(reference, reference).total
    0
    >>> correction_effort(np.zeros_like(reference), reference).false_negative_points
    9
    """
    if pred.shape != reference.shape:
        raise ValueError(f"a mask of {pred.shape} and a reference of {reference.shape} differ")
    from skimage import morphology

    box = bounding_box_xyxy(pred | reference)
    if box is None:
        return Effort(0, 0, 0, 0)
    margin = relax + 2  # further away nothing can be eroded, grown or touched
    x0, y0 = (max(0, low - margin) for low in box[:2])
    part = slice(y0, box[3] + margin), slice(x0, box[2] + margin)
    pred, reference = pred[part], reference[part]
    right, either = pred & reference, pred | reference
    too_much, missing = pred & ~reference, reference & ~pred
    core = cv2.erode(either.astype(np.uint8), _CROSS, iterations=relax).astype(bool)
    too_much_left = _deep(too_much, core, ~reference, relax)
    skeleton = morphology.skeletonize(reference)  # type: ignore[no-untyped-call]
    missing_left = _deep(missing, core, ~pred, relax) | (missing & skeleton)
    solid = right | missing_left
    points, regions = _to_redraw(too_much_left, solid, tolerance_px)
    outside = ~(solid | too_much_left)
    missing_points, missing_regions = _to_redraw(missing_left, outside, tolerance_px)
    return Effort(points, regions, missing_points, missing_regions)


def _deep(wrong: Mask, core: Mask, may_pass: Mask, relax: int) -> Mask:
    """Keep the errors that reach into the core, as far as they grow back from there."""
    grown = wrong & core
    for _ in range(relax):
        grown = cv2.dilate(grown.astype(np.uint8), _CROSS).astype(bool) & may_pass
    deep: Mask = wrong & grown
    return deep


def _to_redraw(wrong: Mask, beside: Mask, tolerance_px: float) -> tuple[int, int]:
    """Count the vertices of the borders beside something, and the regions beside nothing."""
    touching = cv2.dilate(beside.astype(np.uint8), _CROSS).astype(bool)
    regions, n_regions = ndimage.label(wrong, structure=np.ones((3, 3)))
    touched: set[int] = set()
    seen = np.zeros(wrong.shape, dtype=bool)
    contours, _ = cv2.findContours(wrong.astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_NONE)
    vertices = 0
    for contour in contours:
        for piece in _pieces([(int(x), int(y)) for x, y in contour[:, 0]], touching, seen):
            touched |= {int(regions[y, x]) for x, y in piece}
            line = np.array(piece, dtype=np.int32)[:, None]
            vertices += len(cv2.approxPolyDP(line, tolerance_px, closed=False))
    return vertices, n_regions - len(touched)


def _pieces(contour: Sequence[tuple[int, int]], touching: Mask, seen: Mask) -> Iterator[Pixels]:
    """Cut a contour into the runs of pixels that touch, each pixel taken once."""
    pieces: list[Pixels] = []
    goes_on = False
    for x, y in contour:
        if touching[y, x] and not seen[y, x]:
            seen[y, x] = True
            if not goes_on:
                pieces.append([])
            pieces[-1].append((x, y))
            goes_on = True
        else:
            goes_on = False
    if len(pieces) > 1:
        (first_x, first_y), (last_x, last_y) = pieces[0][0], pieces[-1][-1]
        if max(abs(first_x - last_x), abs(first_y - last_y)) == 1:
            pieces[-1] += pieces.pop(0)
    yield from pieces
