"""Drawn data to curate: volumes with label maps, and pictures with instance maps, from seeds."""

import json
from pathlib import Path

import nibabel
import numpy as np
from jaxtyping import Float, Float32, Integer, UInt8
from scipy import ndimage

SHAPE = (256, 256, 64)  # of a volume, along i, j, k
PICTURE_HW = (512, 512)
AFFINE = np.diag([-0.8, -0.8, 3.0, 1.0])
ORGANS = ("liver", "spleen", "right kidney", "left kidney", "stomach", "aorta", "lesion")
# half axes as parts of the volume, and how many blobs: organs are lone, lesions small and many
_ORGANS = ((0.18, 1), (0.11, 1), (0.08, 1), (0.08, 1), (0.1, 1), (0.04, 1), (0.02, 14))
_DENSITY = (110, 120, 180, 180, 40, 250, 60)  # HU


def draw_volume(
    seed: int, shape: tuple[int, int, int] = SHAPE
) -> tuple[Integer[np.ndarray, "i j k"], UInt8[np.ndarray, "i j k"]]:
    """Draw a body with organs in Hounsfield units, and its label map."""
    rng = np.random.default_rng(seed)
    smooth = _smooth(rng, shape)
    labels, body = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    for value, (size, count) in enumerate(_ORGANS, start=1):
        for _ in range(count):
            centre = rng.uniform((0.25, 0.3, 0.1), (0.75, 0.7, 0.9))
            _put(labels, value, centre, size * rng.uniform(0.7, 1.3, 3) * (1, 1, 2), smooth)
    _put(body, 1, np.array([0.5, 0.5, 0.5]), np.array([0.45, 0.36, 4.0]), 0 * smooth)
    labels *= body
    density = np.array([0, *_DENSITY], np.float32)[labels]
    values = np.where(body, 30 + 40 * smooth + density, np.float32(-1000))
    values += 12 * rng.standard_normal(shape, np.float32)
    return values.astype(np.int16), labels


def _put(
    labels: UInt8[np.ndarray, "i j k"],
    value: int,
    centre: Float[np.ndarray, "3"],
    axes: Float[np.ndarray, "3"],
    smooth: Float32[np.ndarray, "i j k"],
) -> None:
    """Put an ellipsoid with an uneven surface into labels; centre and axes are parts of them."""
    box, distance = [], np.float32(0)
    for axis, (n, middle, half) in enumerate(zip(labels.shape, centre, axes, strict=True)):
        reach = 1.5 * half
        ends = max(0, int((middle - reach) * n)), min(n, int((middle + reach) * n) + 1)
        box.append(slice(*ends))
        line = ((np.arange(*ends, dtype=np.float32) / n - middle) / half) ** 2
        distance = distance + line.reshape([-1 if own == axis else 1 for own in range(3)])
    inside = distance + np.float32(0.3) * smooth[tuple(box)] <= 1
    labels[tuple(box)][inside] = value


def _smooth(rng: np.random.Generator, shape: tuple[int, ...]) -> Float32[np.ndarray, "*space"]:
    """Draw a smooth field of mean 0 and deviation of about 1."""
    coarse = rng.standard_normal(tuple(max(2, n // 24) for n in shape), np.float32)
    zoom = [n / c for n, c in zip(shape, coarse.shape, strict=True)]
    return ndimage.zoom(coarse, zoom, order=1, grid_mode=True, mode="nearest")


def write_volumes(
    folder: Path, count: int, shape: tuple[int, int, int] = SHAPE, compressed: bool = True
) -> None:
    """Write volumes as NIfTI into images/ and masks/, with the names of the labels."""
    suffix = ".nii.gz" if compressed else ".nii"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        for name, voxels in zip(("images", "masks"), draw_volume(number, shape), strict=True):
            image = nibabel.Nifti1Image(voxels, AFFINE)
            image.header.set_xyzt_units("mm")
            nibabel.save(image, folder / name / f"p{number:05d}{suffix}")
    table = {name: value for value, name in enumerate(ORGANS, start=1)}
    (folder / "labels.json").write_text(json.dumps(table))


def draw_picture(
    seed: int, hw: tuple[int, int] = PICTURE_HW, cells: int = 40
) -> tuple[UInt8[np.ndarray, "h w 3"], Integer[np.ndarray, "h w"]]:
    """Draw a stained tissue with cells, and the map of their instance numbers."""
    rng = np.random.default_rng(seed)
    height, width = hw
    instances = np.zeros(hw, np.uint16)
    y, x = np.ogrid[:height, :width]
    for number in range(1, cells + 1):
        cy, cx = rng.uniform(0, height), rng.uniform(0, width)
        ry, rx = rng.uniform(6, 26, 2)
        inside = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1
        instances[inside & (instances == 0)] = number
    base = np.array([225.0, 180.0, 210.0]) + 12.0 * _smooth(rng, hw)[:, :, None]
    base -= (instances > 0)[:, :, None] * np.array([90.0, 110.0, 60.0])
    noisy = base + rng.normal(0, 5, (*hw, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8), instances


def write_pictures(folder: Path, count: int) -> None:
    """Write pictures, every other as TIFF, and 16-bit PNG maps of instances."""
    import imageio.v3 as imageio

    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        pixels, instances = draw_picture(number)
        suffix = ".png" if number % 2 else ".tif"
        imageio.imwrite(folder / "images" / f"p{number:05d}{suffix}", pixels)
        imageio.imwrite(folder / "masks" / f"p{number:05d}.png", instances)
