"""Frames: the 2D images of a file, each with the label arrays that lie on it.

A picture gives one frame, a volume one for every slice of the planes it is cut along. Masks that
do not fit come as drops with their reason, and the rest goes on.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Integer

from promptseg.errors import DataError
from promptseg.reader import volume as volumes
from promptseg.reader.files import read_volume
from promptseg.reader.folder import ImageFile, is_volume
from promptseg.reader.image import (
    Picture,
    RawMask,
    finite_range,
    read_mask,
    read_picture,
    scaled,
)
from promptseg.reader.labels import Entry, Naming, as_labels, name_values, values_in
from promptseg.rows import DropRow
from promptseg.sample import Place, Target

NO_MASK = "none of its masks is usable"
EMPTY = "the mask is empty"
PlaneChoice = Literal["axial", "coronal", "sagittal", "all"]


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """One mask file, or a slice of it, with the objects it holds."""

    source: str
    values: Integer[np.ndarray, "*space"]
    entries: tuple[Entry, ...]
    annotator: str | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Frame:
    """One 2D image on its way into a corpus."""

    image_id: str
    source: str
    picture: Picture
    labels: tuple[Labels, ...]
    spacing_yx_mm: tuple[float, float] | None
    place: Place | None = None  # None: a picture, no slice


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How the files of one folder are read."""

    folder: Path
    dataset: str
    naming: Naming
    plane: PlaneChoice | None = None
    spacing_yx_mm: tuple[float, float] | None = None
    keep_empty: bool = False
    every: int = 1  # of a stack or a video, the first frame and then every n-th
    first_frame: int | None = None  # the number of the first in names of masks; else what occurs

    def image_id(self, image: ImageFile) -> str:
        """Name the image of a file."""
        return f"{self.dataset}/{image.key}"


def read_frames(image: ImageFile, reading: Reading) -> Iterator[Frame | DropRow]:
    """Read one file of images with its masks.

    Raises
    ------
    DataError
        The file is of no use: it cannot be read, or no mask belongs to it.
    """
    if not image.masks and not reading.keep_empty:
        raise DataError(NO_MASK if image.lost_mask else "no mask belongs to it by its name")
    return _slices(image, reading) if is_volume(image.source) else _picture(image, reading)


def _picture(image: ImageFile, reading: Reading) -> Iterator[Frame | DropRow]:
    picture = read_picture(reading.folder / image.source)
    height, width = picture.pixels.shape[:2]

    def read(path: Path) -> RawMask:
        raw = read_mask(path)
        h, w = raw.values.shape
        if (h, w) != (height, width):
            raise DataError(f"its size {w} x {h} is not its image's, {width} x {height}")
        return raw

    labels, drops = _read_labels(image, reading, read)
    yield from drops
    if not labels and not _are_all_empty(image, drops):
        raise DataError(NO_MASK)
    yield Frame(
        image_id=reading.image_id(image),
        source=image.source,
        picture=picture,
        labels=labels,
        spacing_yx_mm=reading.spacing_yx_mm,
    )


def _slices(image: ImageFile, reading: Reading) -> Iterator[Frame | DropRow]:
    volume = read_volume(reading.folder / image.source)

    def read(path: Path) -> RawMask:
        other = read_volume(path)
        if difference := volumes.difference_of_grids(volume, other):
            raise DataError(difference)
        return RawMask(other.values())

    labels, drops = _read_labels(image, reading, read)
    yield from drops
    if not labels and not (reading.keep_empty and _are_all_empty(image, drops)):
        raise DataError(NO_MASK)
    lo, hi = sorted(map(float, volume.scaled(np.array(finite_range(volume.voxels)))))
    for plane in _planes(volume, reading.plane):
        for index in range(volumes.n_slices(volume, plane)):
            pixels = scaled(volume.slice(plane, index), lo, hi)
            place = _place(volume, reading.image_id(image), plane, index)
            spacing = volumes.spacing_of_slices(volume, plane)
            yield Frame(
                image_id=f"{place.volume_id}/{plane}/{index:04d}",
                source=image.source,
                picture=Picture(pixels, "min-max volume", lo, hi),
                labels=tuple(
                    replace(item, values=volumes.cut(item.values, plane, index)) for item in labels
                ),
                spacing_yx_mm=spacing[:2] if spacing else reading.spacing_yx_mm,
                place=place,
            )


def _planes(volume: volumes.Volume, choice: PlaneChoice | None) -> tuple[volumes.Plane, ...]:
    if choice is None:
        return (volumes.main_plane(volume),)
    return volumes.PLANES if choice == "all" else (choice,)


def _place(volume: volumes.Volume, volume_id: str, plane: volumes.Plane, index: int) -> Place:
    spacing = volumes.spacing_of_slices(volume, plane)
    return Place(
        volume_id=volume_id,
        slice_index=index,
        n_slices=volumes.n_slices(volume, plane),
        plane=plane,
        spacing_slice_mm=spacing[2] if spacing else None,
        affine=tuple(float(v) for v in volume.affine.ravel()) if spacing else None,
    )


def _read_labels(
    image: ImageFile, reading: Reading, read: Callable[[Path], RawMask]
) -> tuple[tuple[Labels, ...], list[DropRow]]:
    """Read the masks of an image and name what they hold."""
    labels: list[Labels] = []
    drops: list[DropRow] = []
    for file in image.masks:
        drop = partial(
            DropRow, source=file.source, image_id=reading.image_id(image), instance=file.instance
        )
        try:
            if is_volume(file.source) != is_volume(image.source):
                raise DataError("of this mask and its image one is a volume and one a picture")
            raw = read(reading.folder / file.source)
            values = as_labels(raw, reading.naming, one_object=file.is_one_object)
            present = values_in(values)
            entries, unknown = name_values(file, present, reading.naming)
        except DataError as error:
            drops.append(drop(object=file.object, reason=str(error)))
            continue
        if not present:
            drops.append(drop(object=file.object, area_px=0, reason=EMPTY))
        for value, reason in unknown:
            area = int(np.count_nonzero(values == value))
            drops.append(drop(object=f"label {value}", area_px=area, reason=reason))
        if entries:
            labels.append(Labels(file.source, values, tuple(entries), file.annotator))
    return tuple(labels), drops


def _are_all_empty(image: ImageFile, drops: list[DropRow]) -> bool:
    """Tell an image without objects (or masks) from one of which we could not read the objects."""
    return (
        not image.lost_mask
        and len(drops) == len(image.masks)
        and all(drop.reason == EMPTY for drop in drops)
    )


def targets_in(frame: Frame) -> Iterator[tuple[str, Target]]:
    """Make a target of every object that is present in a frame; give the mask's source too."""
    for labels in frame.labels:
        for target in targets_of(labels, frame.image_id):
            yield labels.source, target


def targets_of(labels: Labels, image_id: str) -> Iterator[Target]:
    """Make a target of every object that is present in the labels of an image."""
    present = set(values_in(labels.values))
    for entry in labels.entries:
        values = sorted(present.intersection(entry.values))
        if values:
            mask = np.isin(labels.values, values)
            target_id = f"{image_id}#{_name(entry, labels.annotator)}"
            yield Target(target_id, entry.object, mask, entry.instance, labels.annotator)


def _name(entry: Entry, annotator: str | None) -> str:
    name = entry.object.replace("#", "_")
    instance = "" if entry.instance is None else f"/{entry.instance}"
    return f"{name}{instance}" + ("" if annotator is None else f"@{annotator.replace('#', '_')}")
