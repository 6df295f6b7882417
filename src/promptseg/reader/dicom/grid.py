"""Where the frames of a mask lie among the slices of a series."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from promptseg.reader.dicom.model import Reference, Series, Slice
from promptseg.reader.dicom.series import native_affine

_NEAR = 0.1  # of the shortest edge, as grids are compared
TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """The slices of a series, to be found by the UIDs that a mask refers to, or by their place."""

    series: Series
    by_uid: dict[Reference, int]
    positions: Float[np.ndarray, "n 3"] | None

    @classmethod
    def of(cls, series: Series) -> "Places":
        """Index a series."""
        by_uid: dict[Reference, int] = {}
        for index, one in enumerate(series.slices):
            by_uid[one.sop_uid, one.frame] = index
            if one.n_frames == 1:  # of several frames nothing tells which is meant
                by_uid[one.sop_uid, None] = index
        positions = [one.position for one in series.slices if one.position is not None]
        all_placed = len(positions) == len(series.slices)
        return cls(series, by_uid, np.array(positions) if all_placed else None)

    def find(self, frame: Slice, refers_to: list[Reference], size: tuple[int, int]) -> int | None:
        """Find the slice on whose pixels a frame of the given rows and columns lies."""
        if size != self.series.shape[1:]:
            return None
        for reference in refers_to:
            index = self.by_uid.get(reference)
            if index is not None and self._is_on(frame, index):
                return index
        if self.positions is None or frame.position is None:
            return None
        index = int(np.linalg.norm(self.positions - frame.position, axis=1).argmin())
        return index if self._is_on(frame, index) else None

    def _is_on(self, frame: Slice, index: int) -> bool:
        """Whether pixels agree; where one of the two does not say where it lies, they do."""
        ours = self.series.slices[index]
        if frame.position is None or ours.position is None:
            return True
        if frame.spacing_yx_mm is None or ours.spacing_yx_mm is None:
            return frame.position == ours.position
        rows, columns = self.series.shape[1:]
        corners = [np.array(yx) for yx in ((0, 0), (rows - 1, 0), (0, columns - 1))]
        gaps = [_at(frame, corner) - _at(ours, corner) for corner in corners]
        edge = min(ours.spacing_yx_mm)
        return bool(np.linalg.norm(gaps, axis=1).max() <= _NEAR * edge)


def _at(one: Slice, pixel_yx: Float[np.ndarray, "2"] | np.ndarray) -> Float[np.ndarray, "3"]:
    """Give where a pixel lies, in mm."""
    y_mm, x_mm = one.spacing_yx_mm or (1.0, 1.0)
    along_y, along_x = np.array(one.along_y), np.array(one.along_x)
    moved = along_y * y_mm * pixel_yx[0] + along_x * x_mm * pixel_yx[1]
    return np.asarray(np.array(one.position) + moved)


def to_voxels(series: Series) -> Float[np.ndarray, "4 4"] | None:
    """Give the map from mm in the patient (LPS) to voxels (column, row, slice)."""
    affine = native_affine(series)
    if affine is None:
        return None
    inverse: Float[np.ndarray, "4 4"] = np.linalg.inv(affine) @ TO_RAS
    return inverse


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """How high the slices of a series lie, and where points of the patient fall on each.

    Heights go along the normal. Those of an even grid are counted in slices; slices without one
    (a gap, a tilted gantry) in the shortest distance between two, and each has its own origin.
    """

    matrix: Float[np.ndarray, "3 3"]  # from mm in LPS to columns, rows, heights, but for a shift
    shifts: Float[np.ndarray, "n 3"]  # of each slice
    heights: Float[np.ndarray, "n"]

    @classmethod
    def of(cls, series: Series) -> "Levels | None":
        """Index a series; None if it does not say where its slices lie."""
        count, inverse = len(series.slices), to_voxels(series)
        if inverse is not None:
            shifts = np.tile(inverse[:3, 3], (count, 1))
            return cls(inverse[:3, :3], shifts, np.arange(count, dtype=float))
        one = series.slices[0]
        positions = [item.position for item in series.slices if item.position is not None]
        is_placed = len(positions) == count and one.along_x is not None
        if not is_placed or one.spacing_yx_mm is None:
            return None
        placed, (y_mm, x_mm) = np.array(positions), one.spacing_yx_mm
        x, y = np.array(one.along_x), np.array(one.along_y)
        normal = np.cross(x, y)
        depth = float(np.diff(placed @ normal).min()) if count > 1 else min(y_mm, x_mm)
        matrix = np.stack([x / x_mm, y / y_mm, normal / depth])
        return cls(matrix, -(placed @ matrix.T) * (1, 1, 0), placed @ matrix[2])

    def nearest(self, height: float) -> int:
        """Find the slice nearest to a height; of two, the lower."""
        return int(np.abs(self.heights - height).argmin())

    def distance(self, height: float) -> float:
        """Give how far a height is from the nearest slice: up to a half, it lies on it."""
        return abs(height - float(self.heights[self.nearest(height)]))


def lps_affine(one: Slice, step: Float[np.ndarray, "3"]) -> Float[np.ndarray, "4 4"]:
    """Give the map from (column, row, slice) of frames to mm in the patient (LPS)."""
    y_mm, x_mm = one.spacing_yx_mm or (1.0, 1.0)
    affine = np.eye(4)
    affine[:3, 0] = np.array(one.along_x) * x_mm
    affine[:3, 1] = np.array(one.along_y) * y_mm
    affine[:3, 2], affine[:3, 3] = step, one.position
    return affine
