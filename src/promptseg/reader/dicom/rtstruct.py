"""RT structure sets: contours in the patient as masks on the slices of a series.

A pixel belongs to an object if its centre lies inside an odd number of the contours of its slice,
so that a contour within another cuts a hole. A contour that is there twice counts once, unless it
says of itself that contours exclude each other. Points on an edge count as right of or below it,
which makes objects that share an edge share no pixel.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Integer

from promptseg.errors import DataError
from promptseg.reader.dicom.drawn import Drawn, clean_name, with_instances
from promptseg.reader.dicom.grid import Levels
from promptseg.reader.dicom.header import items, numbers, opened, text, whole
from promptseg.reader.dicom.model import DicomMask, Series
from promptseg.reader.dicom.seg import Drawing

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_KEYWORDS = ("StructureSetROISequence", "ROIContourSequence")
_XOR = "CLOSEDPLANAR_XOR"
_CLOSED = ("CLOSED_PLANAR", _XOR)
_FLAT = 0.1  # of the distance between slices
_SAME_PLANE = 0.01
_AT_ONCE = 2**20  # crossings of edges and rows
Contour = Float[np.ndarray, "_ 2"]  # corners (x, y) in voxels
NEARBY = "contours between slices: drawn on the nearest"
TWICE = "contours that are in a structure set twice count once"


def read_rtstruct(folder: Path, mask: DicomMask, series: Series) -> Drawing:
    """Read a structure set onto the slices of a series.

    A contour between slices goes to the nearest; of several planes that have the same nearest
    slice only the nearest counts. Where a slice is missing, its contours are left out.

    Raises
    ------
    DataError
        It is damaged, or the slices of the series do not say where they lie.
    """
    levels = Levels.of(series)
    if levels is None:
        raise DataError("the slices of its image do not say where they lie, as contours do")
    with opened(folder / mask.path, _KEYWORDS) as header:
        names = {
            whole(roi, "ROINumber"): clean_name(text(roi, "ROIName"))
            for roi in items(header.data, "StructureSetROISequence")
        }
        objects, reasons, notes = [], list[tuple[str | None, str]](), set[str]()
        seen = set[int]()
        for roi in items(header.data, "ROIContourSequence"):
            number = whole(roi, "ReferencedROINumber")
            if number is None or number in seen:
                raise DataError("its structures are not numbered")
            seen.add(number)
            drawn = Drawn(names.get(number) or f"ROI {number}", number, series.kind.columns)
            contours = list(_once(items(roi, "ContourSequence"), notes))
            planes, why = _planes(contours, levels, series)
            reasons += [(drawn.name, reason) for reason in why]
            for index, polygons in _nearest(planes, levels, notes).items():
                drawn.add(index, fill(polygons, series.shape[1:]))
            objects.append(drawn)
    return Drawing(
        objects=with_instances(objects),
        left_out=() if mask.is_shared else tuple(reasons),
        notes=tuple(sorted(notes)),
    )


def _once(contours: "Iterable[Dataset]", notes: set[str]) -> "Iterator[Dataset]":
    """Leave out contours that are there already: the second would take the first away."""
    seen = set[bytes]()
    for contour in contours:
        flat = numbers(contour, "ContourData")
        is_plain = text(contour, "ContourGeometricType") == _CLOSED[0]
        if is_plain and flat is not None and len(flat) % 3 == 0 and len(flat) >= 9:
            edges = _edges(np.array(flat).reshape(-1, 3))
            if edges in seen:
                notes.add(TWICE)
                continue
            seen.add(edges)
        yield contour


def _edges(points: Float[np.ndarray, "_ 3"]) -> bytes:
    """Hash a polygon by its edges, wherever it begins and whichever way round it goes."""
    ends = np.stack([points, np.roll(points, -1, axis=0)], axis=1) + 0.0  # no -0
    ends = ends[(ends[:, 0] != ends[:, 1]).any(axis=1)]
    first, other = ends[:, 0], ends[:, 1]
    at = (first != other).argmax(axis=1)[:, None]  # the first axis in which they differ
    is_back = np.take_along_axis(first, at, axis=1) > np.take_along_axis(other, at, axis=1)
    edges = np.where(is_back, np.hstack([other, first]), np.hstack([first, other]))
    return hashlib.sha256(edges[np.lexsort(edges.T)].tobytes()).digest()


def _planes(
    contours: "Iterable[Dataset]", levels: Levels, series: Series
) -> tuple[dict[float, list[Contour]], list[str]]:
    """Sort contours by the height they lie at; count what cannot be drawn (whole)."""
    planes: dict[float, list[Contour]] = defaultdict(list)
    gaps: dict[float, int] = defaultdict(int)  # contours by height
    n_open = n_bad = n_tilted = n_outside = n_cut = 0
    ends = np.array(series.shape[:0:-1])  # columns, rows
    for contour in contours:
        if text(contour, "ContourGeometricType") not in _CLOSED:
            n_open += 1
            continue
        flat = numbers(contour, "ContourData")
        if flat is None or len(flat) % 3 or len(flat) < 9:
            n_bad += 1
            continue
        points = np.array(flat).reshape(-1, 3) @ levels.matrix.T
        heights = points[:, 2] + levels.shifts[0, 2]
        height = float(heights.mean())
        if np.abs(heights - height).max() > _FLAT:
            n_tilted += 1
        elif levels.distance(height) > 0.5:
            if levels.heights[0] < height < levels.heights[-1]:
                gaps[_key(gaps, height)] += 1
            else:
                n_outside += 1
        else:
            key = _key(planes, height)
            corners = points[:, :2] + levels.shifts[levels.nearest(key), :2]
            planes[key].append(corners)
            n_cut += bool((corners < -1).any() or (corners > ends).any())
    counted = (
        (n_open, "contours that are not closed (points, open lines)"),
        (n_bad, "contours that are damaged or have fewer than 3 points"),
        (n_tilted, "contours that do not lie along the slices"),
        (n_outside, "contours above or below the slices"),
        (sum(gaps.values()), f"contours on {len(gaps)} slices that are not here"),
        (n_cut, "contours that reach out of the slices by more than half a pixel: cut there"),
    )
    return planes, [f"{n} {what}" for n, what in counted if n]


def _key(planes: Mapping[float, object], height: float) -> float:
    """Give the plane that a height belongs to, which may be its own."""
    return next((known for known in planes if abs(known - height) <= _SAME_PLANE), height)


def _nearest(
    planes: dict[float, list[Contour]], levels: Levels, notes: set[str]
) -> dict[int, list[Contour]]:
    """Choose for each slice the plane of contours that lies nearest."""
    chosen: dict[int, float] = {}
    for height in sorted(planes):
        index, distance = levels.nearest(height), levels.distance(height)
        if distance > _FLAT:
            notes.add(NEARBY)
        if index not in chosen or distance < levels.distance(chosen[index]):
            chosen[index] = height
    return {index: planes[height] for index, height in chosen.items()}


def fill(contours: Sequence[Contour], size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Fill polygons by the even-odd rule at the centres of pixels.

    Parameters
    ----------
    contours
        Corners (x, y) of closed polygons; the centre of pixel (row, column) is (column, row).
    size
        Rows and columns.
    """
    height, width = size
    toggles = np.zeros((height, width + 1), np.int32)
    for points in contours:
        _toggle(toggles, points)
    filled: Bool[np.ndarray, "h w"] = toggles[:, :width].cumsum(axis=1) % 2 == 1
    return filled


def _toggle(toggles: Integer[np.ndarray, "h w1"], points: Contour) -> None:
    """Mark on each row the pixels at which an edge has been crossed."""
    height, width = toggles.shape[0], toggles.shape[1] - 1
    ends = np.stack([points, np.roll(points, -1, axis=0)])
    is_down = ends[0, :, 1] > ends[1, :, 1]  # an edge is the same in both directions
    ends[:, is_down] = ends[::-1, is_down]
    low, high = ends[0, :, 1], ends[1, :, 1]
    first = np.clip(np.ceil(low), 0, height).astype(np.int64)  # rows with low <= row < high
    counts = np.clip(np.ceil(high), 0, height).astype(np.int64) - first
    total = np.cumsum(counts)
    start = 0
    while start < len(points):  # a few edges at a time: each can cross all rows
        done = total[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(total, done + _AT_ONCE, side="right")))
        edges = np.repeat(np.arange(start, stop), counts[start:stop])
        offset = np.arange(len(edges)) - np.repeat(
            total[start:stop] - counts[start:stop] - done, counts[start:stop]
        )
        rows = first[edges] + offset
        (x0, y0), (x1, y1) = (ends[end, edges].T for end in (0, 1))
        crossed = x0 + (rows - y0) * (x1 - x0) / (y1 - y0)
        np.add.at(toggles, (rows, np.clip(np.ceil(crossed), 0, width).astype(np.int64)), 1)
        start = stop
