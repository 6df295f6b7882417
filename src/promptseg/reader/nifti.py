"""NIfTI volumes, and how slices are cut from them.

A volume is turned to the nearest RAS+ order: its axes (i, j, k) run to the patient's right, to the
front and up. Slices are shown as radiologists see them: the patient's right on the left side of
axial and coronal slices, the front at the top of axial and on the left side of sagittal ones, the
head at the top of coronal and sagittal ones. So with n = shape - 1, pixel (y, x) of axial slice k
is voxel (n_i - x, n_j - y, k), of coronal slice j (n_i - x, j, n_k - y), of sagittal slice i
(i, n_j - x, n_k - y).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Shaped

from promptseg.errors import DataError
from promptseg.reader.image import unreadable

Plane = Literal["axial", "coronal", "sagittal"]
PLANES: tuple[Plane, ...] = get_args(Plane)
_SLICE_AXIS: dict[Plane, int] = {"axial": 2, "coronal": 1, "sagittal": 0}
_MM = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}
_MAX_VOXELS = 2**31


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """A volume in RAS+ order; the affine takes voxels (i, j, k) to millimetres.

    An identity affine without units is what software writes when it knows nothing: then
    `has_spacing` is False. Other affines without units are in millimetres, as all tools read them.
    """

    voxels: Shaped[np.ndarray, "i j k"]
    affine: Float[np.ndarray, "4 4"]
    has_spacing: bool

    @property
    def spacing_ras(self) -> tuple[float, float, float]:
        """Edge lengths of a voxel along i, j, k, in mm if `has_spacing`."""
        i, j, k = (float(edge) for edge in np.linalg.norm(self.affine[:3, :3], axis=0))
        return i, j, k


def read_volume(path: Path) -> Volume:
    """Read a NIfTI file.

    Raises
    ------
    DataError
        It is damaged, has not three axes, or does not say how it lies in the patient.
    """
    import nibabel

    try:
        image = nibabel.load(path)
        units = image.header.get_xyzt_units()[0]
        codes = (int(image.header["sform_code"]), int(image.header["qform_code"]))
        _check(image.shape, image.affine, codes)
        canonical = nibabel.as_closest_canonical(image)
        voxels = np.asanyarray(canonical.dataobj).reshape(canonical.shape[:3])
    except DataError:
        raise
    except Exception as error:  # damaged and hostile files make decoders raise anything
        raise unreadable(path, error) from error
    if not np.issubdtype(voxels.dtype, np.number) or np.iscomplexobj(voxels):
        raise DataError(f"voxels of the kind {voxels.dtype.name} are not read")
    is_default = units == "unknown" and np.array_equal(image.affine, np.eye(4))
    scale = np.diag([_MM[units]] * 3 + [1.0])
    affine = scale @ canonical.affine.astype(np.float64) + 0.0  # turns -0 into 0
    return Volume(voxels, affine, not is_default)


def _check(
    shape: tuple[int, ...], affine: Float[np.ndarray, "4 4"], codes: tuple[int, int]
) -> None:
    if len(shape) < 3 or any(n != 1 for n in shape[3:]):
        raise DataError(f"it has the shape {_times(shape)}; expected are three axes")
    if 0 in shape or np.prod(shape, dtype=np.float64) > _MAX_VOXELS:
        raise DataError(f"its size of {_times(shape)} voxels cannot be handled")
    if not any(codes):
        raise DataError("its header does not say how it lies in the patient (no sform, no qform)")
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise DataError("the affine of its header is singular")


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)


def difference_of_grids(volume: Volume, other: Volume) -> str | None:
    """Say how two grids differ, or None: voxels may lie a tenth of an edge apart, no more."""
    if volume.voxels.shape != other.voxels.shape:
        shapes = _times(other.voxels.shape), _times(volume.voxels.shape)
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
    """Name the plane of the finest pixels: across the axis of the largest spacing, else axial."""
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
