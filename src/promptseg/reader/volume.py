"""Volumes in the patient's space, whatever file they come from, and how slices are cut from them.

A volume is turned to the nearest RAS+ order: its axes (i, j, k) run to the patient's right, to the
front and up. Slices are shown as radiologists see them: the patient's right on the left side of
axial and coronal slices, the front at the top of axial and on the left side of sagittal ones, the
head at the top of coronal and sagittal ones. So with n = shape - 1, pixel (y, x) of axial slice k
is voxel (n_i - x, n_j - y, k), of coronal slice j (n_i - x, j, n_k - y), of sagittal slice i
(i, n_j - x, n_k - y).
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Shaped

from promptseg.errors import DataError

Plane = Literal["axial", "coronal", "sagittal"]
PLANES: tuple[Plane, ...] = get_args(Plane)
_SLICE_AXIS: dict[Plane, int] = {"axial": 2, "coronal": 1, "sagittal": 0}
MOST_VOXELS = 2**31


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """A volume in RAS+ order; the affine takes voxels (i, j, k) to millimetres.

    Voxels are kept as they are stored, since a CT of 16 bits is four times as large in float64;
    what they stand for is `stored * slope + intercept`.

    Software that knows nothing of spacing writes 1: where a file does not say, `has_spacing` is
    False. `patient` is what the header calls the patient: it is there to be hashed, and goes into
    no output.
    """

    voxels: Shaped[np.ndarray, "i j k"]
    affine: Float[np.ndarray, "4 4"]
    has_spacing: bool
    slope: float = 1.0
    intercept: float = 0.0
    dicom_modality: str | None = None
    patient: str | None = None
    window: tuple[float, float] | None = None  # values shown as black and white, says the header

    @property
    def spacing_ras(self) -> tuple[float, float, float]:
        """Edge lengths of a voxel along i, j, k, in mm if `has_spacing`."""
        i, j, k = (float(edge) for edge in np.linalg.norm(self.affine[:3, :3], axis=0))
        return i, j, k

    def scaled(self, stored: Shaped[np.ndarray, "*space"]) -> Shaped[np.ndarray, "*space"]:
        """Give what stored values stand for: as they are, or in float64."""
        if (self.slope, self.intercept) == (1.0, 0.0):
            return stored
        return stored * np.float64(self.slope) + self.intercept

    def values(self) -> Shaped[np.ndarray, "i j k"]:
        """Give what all voxels stand for."""
        return self.scaled(self.voxels)

    def slice(self, plane: Plane, index: int) -> Shaped[np.ndarray, "y x"]:
        """Cut one slice, as `cut`, and give what its voxels stand for."""
        return self.scaled(cut(self.voxels, plane, index))


def oriented(volume: Volume) -> Volume:
    """Turn a volume whose axes run anywhere to the nearest RAS+ order.

    Raises
    ------
    DataError
        It has not three axes, is empty or too large, or its affine is singular.
    """
    import nibabel

    check_grid(volume.voxels.shape, volume.affine)
    axes = nibabel.orientations.io_orientation(volume.affine)
    turned = nibabel.orientations.apply_orientation(volume.voxels, axes)
    back = nibabel.orientations.inv_ornt_aff(axes, volume.voxels.shape)
    affine = volume.affine @ back + 0.0  # turns -0 into 0
    return replace(volume, voxels=turned, affine=affine)


def check_grid(shape: tuple[int, ...], affine: Float[np.ndarray, "4 4"]) -> None:
    """Refuse what a header promises before it is read; raises DataError with the reason."""
    if len(shape) < 3 or any(n != 1 for n in shape[3:]):
        raise DataError(f"it has the shape {times(shape)}; expected are three axes")
    if 0 in shape or np.prod(shape, dtype=np.float64) > MOST_VOXELS:
        raise DataError(f"its size of {times(shape)} voxels cannot be handled")
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise DataError("the affine of its header is singular")


def check_numbers(voxels: Shaped[np.ndarray, "*space"]) -> None:
    """Refuse voxels that are no real numbers; raises DataError."""
    if not np.issubdtype(voxels.dtype, np.number) or np.iscomplexobj(voxels):
        raise DataError(f"voxels of the kind {voxels.dtype.name} are not read")


def times(shape: tuple[int, ...]) -> str:
    """Write a shape."""
    return " x ".join(str(n) for n in shape)


def difference_of_grids(volume: Volume, other: Volume) -> str | None:
    """Say how two grids differ, or None: voxels may lie a tenth of an edge apart, no more."""
    if volume.voxels.shape != other.voxels.shape:
        shapes = times(other.voxels.shape), times(volume.voxels.shape)
        return f"its shape {shapes[0]} is not its image's, {shapes[1]}"
    ends = np.array(np.meshgrid(*[(0, n - 1) for n in volume.voxels.shape])).reshape(3, -1)
    gaps = (volume.affine - other.affine)[:3] @ np.vstack([ends, np.ones(ends.shape[1])])
    if np.linalg.norm(gaps, axis=0).max() > 0.1 * min(volume.spacing_ras):
        return "its affine is not its image's"
    return None


def grid(shape: tuple[int, ...], affine: Float[np.ndarray, "4 4"]) -> Volume:
    """Make a volume of zeros that takes no memory, to compare grids with."""
    return Volume(np.broadcast_to(np.uint8(0), shape), affine, True)


def slice_axis(plane: Plane) -> int:
    """Give the axis of a volume along which the slices of a plane lie."""
    return _SLICE_AXIS[plane]


def shape_of_slices(plane: Plane, n_slices: int, height: int, width: int) -> tuple[int, int, int]:
    """Give the shape (i, j, k) of the volume that slices of a plane were cut from."""
    i, j, k = np.insert([width, height], _SLICE_AXIS[plane], n_slices).tolist()
    return i, j, k


def main_plane(volume: Volume) -> Plane:
    """Name the plane of the finest pixels: across the axis of the largest spacing, else axial.

    A single slice has its own plane.
    """
    flat = [plane for plane in PLANES if n_slices(volume, plane) == 1]
    if len(flat) == 1:
        return flat[0]
    spacing = volume.spacing_ras
    widest = max(spacing)
    across = [plane for plane in PLANES if spacing[_SLICE_AXIS[plane]] > 0.99 * widest]
    return across[0] if len(across) == 1 else "axial"


def n_slices(volume: Volume, plane: Plane) -> int:
    """Count the slices of a volume in a plane."""
    return int(volume.voxels.shape[_SLICE_AXIS[plane]])


def cut(voxels: Shaped[np.ndarray, "i j k"], plane: Plane, index: int) -> Shaped[np.ndarray, "y x"]:
    """Cut one slice, turned as radiologists see it; `index` counts along the RAS+ axis."""
    section = np.moveaxis(voxels, _SLICE_AXIS[plane], 0)[index]
    return np.ascontiguousarray(section[::-1, ::-1].T)


def spacing_of_slices(volume: Volume, plane: Plane) -> tuple[float, float, float] | None:
    """Give spacing in mm along y, x and across the slices of a plane, or None if unknown."""
    if not volume.has_spacing:
        return None
    x_axis, y_axis = (axis for axis in range(3) if axis != _SLICE_AXIS[plane])
    spacing = volume.spacing_ras
    return spacing[y_axis], spacing[x_axis], spacing[_SLICE_AXIS[plane]]
