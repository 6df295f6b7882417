"""How well a predicted mask agrees with its reference: overlaps, and distances between borders.

Functions take `(pred, reference)`. The border of a mask is its pixels with a 4-neighbour outside
the mask or outside the image, so that an object cut off by the image's edge has a border there.
The reference is never empty: a target that is not there has no score.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float64

from promptseg.border import Canvas, bands, between, rims, side_by_side
from promptseg.mask import Rle, bounding_box_xyxy

# Axes are left unnamed where two masks meet: unequal shapes are then our ValueError for everyone,
# not the type checker's error for those who run one.
Mask = Bool[np.ndarray, "_ _"]

_BAND_PER_DIAGONAL = 0.02
# Five pixels of 0.4 mm are 2 mm, whatever the last bits of the sum say.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Scores:
    """Every metric of one pair of masks; None is undefined, which is not zero."""

    dice: float
    jaccard: float
    hd: float | None
    hd95: float | None
    assd: float | None
    asd: float | None
    nsd: float
    nsd_tolerance: float  # in `distance_unit`
    boundary_iou: float
    conformity: float | None
    distance_unit: Literal["mm", "px"]


@dataclass(frozen=True, slots=True, eq=False)
class BorderDistances:
    """Distance of every border pixel of one mask to the nearest border pixel of the other.

    Distances are in the unit of the spacing they were measured with.
    """

    from_pred: Float64[np.ndarray, "p"]
    from_reference: Float64[np.ndarray, "r"]

    @property
    def hd(self) -> float:
        """Hausdorff distance, max(max d(pred), max d(reference)), in [0, image diagonal].

        References
        ----------
        Huttenlocher et al. 1993, https://doi.org/10.1109/34.232073
        """
        return float(max(self.from_pred.max(), self.from_reference.max()))

    @property
    def hd95(self) -> float:
        """Larger of the two directed 95th percentiles (linear interpolation), in [0, hd].

        The percentile is taken per direction; pooling both directions first, as medpy does, lets
        the mask with the longer border decide.

        References
        ----------
        Maier-Hein et al. 2024, https://doi.org/10.1038/s41592-023-02151-z
        """
        return max(_percentile_95(self.from_pred), _percentile_95(self.from_reference))

    @property
    def assd(self) -> float:
        """Mean of the two directed mean distances, in [0, hd].

        This is medpy's value up to 0.5.1, and what Metrics Reloaded calls MASD. From 0.5.2, medpy
        pools the distances of both borders before it takes the mean.

        References
        ----------
        Maier-Hein et al. 2024, https://doi.org/10.1038/s41592-023-02151-z
        """
        return (_mean(self.from_pred) + _mean(self.from_reference)) / 2

    @property
    def asd(self) -> float:
        """Mean distance from the prediction's border to the reference's, in [0, hd]; directed.

        A prediction that covers a part of the reference's border only, but that part well, has a
        value near 0.

        References
        ----------
        Huang et al. 2024, https://doi.org/10.1016/j.media.2023.103061
        """
        return _mean(self.from_pred)

    def nsd(self, tolerance: float) -> float:
        """Share of both borders that lies within a tolerance of the other border, in [0, 1].

        (n(d(pred) <= t) + n(d(reference) <= t)) / (n(pred) + n(reference)), with n counting border
        pixels; a distance equal to the tolerance is within it.

        References
        ----------
        Nikolov et al. 2021, https://doi.org/10.2196/26151
        """
        both = (self.from_pred, self.from_reference)
        within = sum(int(np.count_nonzero(one <= tolerance * (1 + _ROUNDING))) for one in both)
        return within / sum(one.size for one in both)


def score(
    pred: Mask,
    reference: Mask,
    spacing_yx_mm: tuple[float, float] | None,
    *,
    nsd_tolerance: float = 2.0,
) -> Scores:
    """Measure one pair of masks with every metric, from one look at the box around both.

    Parameters
    ----------
    spacing_yx_mm
        Edge lengths of a pixel; None when unknown, and distances are in pixels then.
    nsd_tolerance
        In the unit of the distances, so millimetres exactly when the spacing is known.

    Raises
    ------
    ValueError
        When the reference is empty, the shapes differ, or the spacing or tolerance is not a
        length.

    Notes
    -----
    ===================  ===========================  ===========  ===========  ==========
    case                 dice, jaccard, boundary_iou  nsd          distances    conformity
    ===================  ===========================  ===========  ===========  ==========
    reference empty      ValueError                   ValueError   ValueError   ValueError
    pred empty (miss)    0                            0            None         None
    masks do not meet    0                            in [0, 1]    > 0          None
    masks are equal      1                            1            0            1
    ===================  ===========================  ===========  ===========  ==========

    A miss has found none of the reference's border, hence its nsd. One pixel is its own border.
    What lies outside the image counts as background.
    """
    _require_pair(pred, reference)
    spacing_yx = (1.0, 1.0) if spacing_yx_mm is None else spacing_yx_mm
    _require_spacing(spacing_yx)
    if not 0 <= nsd_tolerance < math.inf:
        raise ValueError(f"nsd_tolerance must be a finite length, not {nsd_tolerance}")
    unit: Literal["mm", "px"] = "px" if spacing_yx_mm is None else "mm"
    canvas = side_by_side(pred, reference)
    if canvas is None:
        return Scores(0.0, 0.0, None, None, None, None, 0.0, nsd_tolerance, 0.0, None, unit)
    both, either = _both_and_either(canvas)
    overlap = 2 * both / (either + both)
    distances = BorderDistances(*between(rims(canvas), spacing_yx))
    return Scores(
        dice=overlap,
        jaccard=both / either,
        hd=distances.hd,
        hd95=distances.hd95,
        assd=distances.assd,
        asd=distances.asd,
        nsd=distances.nsd(nsd_tolerance),
        nsd_tolerance=nsd_tolerance,
        boundary_iou=_band_iou(canvas, pred.shape),
        conformity=(3 * overlap - 2) / overlap if both else None,
        distance_unit=unit,
    )


def dice(pred: Mask, reference: Mask) -> float:
    """Overlap of two masks, 2|A∩B| / (|A| + |B|), in [0, 1]; 0 when the prediction is empty.

    References
    ----------
    Dice 1945, https://doi.org/10.2307/1932409
    """
    _require_pair(pred, reference)
    total = np.count_nonzero(pred) + np.count_nonzero(reference)
    return float(2 * np.count_nonzero(pred & reference) / total)


def dices(preds: Iterable[Mask], reference: Mask) -> list[float]:
    """DICE of several masks with one reference, to the last bit that of `dice`, and quicker."""
    box_xyxy = bounding_box_xyxy(reference)
    found: list[float] = []
    for pred in preds:
        _require_pair(pred, reference)
        assert box_xyxy is not None, "the reference has pixels"
        x0, y0, x1, y1 = box_xyxy
        inside = reference[y0:y1, x0:x1]
        both = int(np.count_nonzero(pred[y0:y1, x0:x1] & inside))
        found.append(2 * both / int(np.count_nonzero(pred) + np.count_nonzero(inside)))
    return found


def jaccard(pred: Mask, reference: Mask) -> float:
    """Overlap of two masks, |A∩B| / |A∪B|, in [0, 1]; 0 when the prediction is empty.

    References
    ----------
    Jaccard 1912, https://doi.org/10.1111/j.1469-8137.1912.tb05611.x
    """
    _require_pair(pred, reference)
    return float(np.count_nonzero(pred & reference) / np.count_nonzero(pred | reference))


def conformity(pred: Mask, reference: Mask) -> float | None:
    """Wrong pixels per right one, taken from 1: (3D - 2) / D with D = dice, in (-inf, 1].

    It equals 1 - (false positives + false negatives) / true positives, and so is None, undefined,
    when the masks do not overlap.

    References
    ----------
    Chang et al. 2009, https://doi.org/10.1016/j.neuroimage.2009.03.068
    """
    overlap = dice(pred, reference)
    return (3 * overlap - 2) / overlap if overlap else None


def boundary_iou(pred: Mask, reference: Mask) -> float:
    """Jaccard index of the inner bands along both contours, in [0, 1]; 0 for an empty prediction.

    The band is the mask's pixels at most `boundary_band_px` from its outside, counted in steps of
    a king on a chessboard. The masks must be those of the whole image: its size sets the width.

    References
    ----------
    Cheng et al. 2021, https://doi.org/10.1109/CVPR46437.2021.01508
    """
    _require_pair(pred, reference)
    canvas = side_by_side(pred, reference)
    return 0.0 if canvas is None else _band_iou(canvas, pred.shape)


def boundary_band_px(height: int, width: int) -> int:
    """Width of the band of `boundary_iou`: 0.02 x image diagonal, rounded, at least 1 pixel.

    An exact half goes to the even number, as in the published code.
    """
    return max(1, round(_BAND_PER_DIAGONAL * math.sqrt(height**2 + width**2)))


def border_distances(
    pred: Mask, reference: Mask, spacing_yx: tuple[float, float] = (1.0, 1.0)
) -> BorderDistances | None:
    """Measure from each border to the other, exactly; None when the prediction is empty."""
    _require_pair(pred, reference)
    _require_spacing(spacing_yx)
    canvas = side_by_side(pred, reference)
    return None if canvas is None else BorderDistances(*between(rims(canvas), spacing_yx))


def _band_iou(canvas: Canvas, image_hw: tuple[int, ...]) -> float:
    both, either = _both_and_either(bands(canvas, boundary_band_px(*image_hw)))
    return both / either


def _both_and_either(canvas: Canvas) -> tuple[int, int]:
    """Count the pixels of the intersection and of the union."""
    both = int(np.count_nonzero(canvas[:, 0] & canvas[:, 1]))
    return both, int(np.count_nonzero(canvas)) - both


def _mean(distances: Float64[np.ndarray, "n"]) -> float:
    return float(np.add.reduce(distances) / distances.size)  # ndarray.mean, and quicker


def _percentile_95(distances: Float64[np.ndarray, "n"]) -> float:
    """Interpolate between two values, to the last bit as `np.percentile` does, and quicker."""
    place = 0.95 * (len(distances) - 1)
    below = int(place)
    above, share = min(below + 1, len(distances) - 1), place - below
    ordered = np.partition(distances, (below, above))
    low, high = float(ordered[below]), float(ordered[above])
    return low + share * (high - low) if share < 0.5 else high - (high - low) * (1 - share)


def _require_pair(pred: Mask, reference: Mask) -> None:
    if pred.shape != reference.shape:
        raise ValueError(f"pred is {pred.shape} and reference {reference.shape}; sizes must agree")
    if not reference.any():
        raise ValueError("reference is empty; leave out targets that are not in the image")


def _require_spacing(spacing_yx: tuple[float, float]) -> None:
    if not all(0 < edge < math.inf for edge in spacing_yx):
        raise ValueError(f"spacing must be two positive lengths (y, x), not {spacing_yx}")


def _areas(masks: Sequence[Rle]) -> Float64[np.ndarray, "n"]:
    """Count the pixels of masks."""
    from pycocotools import mask

    coco: Any = mask
    # it counts its masks in 8 bits, and fails on more (pycocotools 2.0.11 with NumPy 2)
    pieces = [coco.area(list(masks[n : n + 255])) for n in range(0, len(masks), 255)]
    areas: Float64[np.ndarray, " n"] = np.concatenate(pieces).astype(np.float64)
    return areas


def dice_table(preds: Sequence[Rle], references: Sequence[Rle]) -> Float64[np.ndarray, "p r"]:
    """Exact DICE of every mask with every reference, in one call; 0 where a mask is empty.

    Raises
    ------
    ValueError
        When a reference is empty, or sizes differ.
    """
    from pycocotools import mask

    coco: Any = mask  # typed for counts of bytes; text will do
    if len({tuple(rle["size"]) for rle in (*preds, *references)}) > 1:
        raise ValueError("masks of one table have one size")
    if not references:
        return np.zeros((len(preds), 0))
    areas = _areas(references)
    if not areas.all():
        raise ValueError("a reference is empty; leave out targets that are not in the image")
    if not preds:
        return np.zeros((0, len(references)))
    total = _areas(preds)[:, None] + areas
    iou = np.asarray(coco.iou(list(preds), list(references), [0] * len(references)))
    shared = np.rint(iou * total / (1 + iou))  # pixels: rounding undoes that of the division
    table: Float64[np.ndarray, "p r"] = 2 * shared / total
    return table
