"""A scan without any symmetry, and writers that store it as several formats do."""

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK

SHAPE = (40, 32, 9)  # voxels along right, front and up
SPACING = (0.75, 1.25, 3.5)  # mm along the same axes
LABELS = {"liver": 1, "kidney": 2}
CODES = ("RAS", "LPS", "LAS", "RPI", "PSR", "ILA", "SRP", "ARI")  # eight orders of storage
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Scan:
    """Voxels in RAS+ order as 16-bit integers, labels of two objects on the same grid, in mm."""

    voxels: np.ndarray
    labels: np.ndarray
    affine: np.ndarray  # voxel (i, j, k) to RAS+ mm


def scan(oblique_deg: float = 0.0) -> Scan:
    """Make the scan, turned by some degrees about an axis that is none of the grid's.

    No flip, turn or exchange of axes leaves it as it is; values run from -1000 to 1500 (as of CT),
    and both objects are larger than 50 pixels in several axial slices.
    """
    i, j, k = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    voxels = (-1000 + 11 * i + 23 * j + 41 * k + 5 * ((i * j + 3 * k) % 17)).astype(np.int16)
    liver = (i - 12) ** 2 / 90 + (j - 18) ** 2 / 110 + (k - 5) ** 2 / 14 <= 1
    kidney = (i - 30) ** 2 / 40 + (j - 11) ** 2 / 60 + (k - 3) ** 2 / 7 <= 1
    voxels[liver & np.ones(SHAPE, bool)] += 300
    voxels[kidney & np.ones(SHAPE, bool)] += 700
    voxels[0, 0, 0], voxels[-1, -1, -1] = -1000, 1500
    labels = np.where(liver, 1, np.where(kidney, 2, 0)).astype(np.uint8)
    affine = np.eye(4)
    affine[:3, :3] = _rotation(oblique_deg) @ np.diag(SPACING)
    affine[:3, 3] = (-31.5, 12.25, -140.0)
    return Scan(voxels, labels, affine)


def _rotation(degrees: float) -> np.ndarray:
    """Give the rotation about (1, 2, 3) by Rodrigues' formula."""
    x, y, z = np.array([1.0, 2.0, 3.0]) / np.sqrt(14.0)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def reordered(voxels: np.ndarray, affine: np.ndarray, codes: str) -> tuple[np.ndarray, np.ndarray]:
    """Give voxels of RAS+ order and their affine in another order of storage."""
    orientations = nib.orientations
    turn = orientations.ornt_transform(
        orientations.axcodes2ornt("RAS"), orientations.axcodes2ornt(codes)
    )
    turned = np.ascontiguousarray(orientations.apply_orientation(voxels, turn))
    return turned, affine @ orientations.inv_ornt_aff(turn, voxels.shape)


def write_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray, codes: str = "RAS") -> None:
    """Write NIfTI in an order of storage; the affine of its header is of 32 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(*reordered(voxels, affine, codes))
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def itk_image(voxels: np.ndarray, affine: np.ndarray, codes: str = "LPS") -> SimpleITK.Image:
    """Make an ITK image in an order of storage."""
    turned, own = reordered(voxels, affine, codes)
    image = SimpleITK.GetImageFromArray(turned.T)
    own = LPS @ own
    spacing = np.linalg.norm(own[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((own[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(own[:3, 3].tolist())
    return image


def write_itk(
    path: Path, voxels: np.ndarray, affine: np.ndarray, codes: str = "LPS", packed: bool = True
) -> None:
    """Write NRRD or MetaImage (by the suffix) in an order of storage."""
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(itk_image(voxels, affine, codes), str(path), useCompression=packed)


def write_analyze(path: Path, voxels: np.ndarray, spacing: tuple[float, ...]) -> None:
    """Write Analyze 7.5 (path.hdr and path.img), which stores no orientation, in order LAS."""
    path.parent.mkdir(parents=True, exist_ok=True)
    turned, _ = reordered(voxels, np.eye(4), "LAS")
    image = nib.AnalyzeImage(turned, np.diag([-spacing[0], *spacing[1:], 1.0]))
    image.header.set_zooms(spacing)
    image.to_filename(path)
