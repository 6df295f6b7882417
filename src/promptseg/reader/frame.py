"""Frames: the 2D images of a file, each with the label arrays that lie on it.

A picture gives one frame, a volume one for every slice of the planes it is cut along. Masks that
do not fit come as drops with their reason, and the rest goes on.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Integer

from promptseg.errors import DataError
from promptseg.reader import volume as volumes
from promptseg.reader.channels import channels_of
from promptseg.reader.drawn import filled, placed
from promptseg.reader.files import read_labels, read_volume
from promptseg.reader.folder import ImageFile, MaskFile, is_volume
from promptseg.reader.image import Picture, RawMask, read_mask, read_pixels
from promptseg.reader.intensity import (
    MIN_MAX,
    Intensity,
    shaded,
    shades_of_slice,
    shades_of_volume,
)
from promptseg.reader.labels import (
    Entry,
    Naming,
    as_labels,
    name_values,
    naming_of,
    shown_zero,
    values_in,
)
from promptseg.reader.names import Names
from promptseg.reader.part import Part, cropped
from promptseg.reader.regrid import other_grid, regrid
from promptseg.rows import DropRow
from promptseg.sample import Place, Target

NO_MASK = "none of its masks is usable"
_EMPTY = "the mask is empty"
# reads a mask file as the masks in it: mostly one, in a stack of channels one for each object
ReadMasks = Callable[[MaskFile], Iterator[tuple[MaskFile, RawMask]]]
PlaneChoice = Literal["axial", "coronal", "sagittal", "all"]
PLANE_CHOICES: dict[str, PlaneChoice] = {word: word for word in get_args(PlaneChoice)}


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """One mask file, or a slice of it, with the objects it holds."""

    source: str
    values: Integer[np.ndarray, "*space"]
    entries: tuple[Entry, ...]
    annotator: str | None = None
    regridded: bool = False  # they were brought here from another grid
    part: Part | None = None  # of a volume, of which `values` are the box that is not empty

    def slice(self, plane: volumes.Plane, index: int) -> "Labels":
        """Cut one slice of the labels of a volume."""
        if self.part is None:
            raise ValueError("labels of a picture have no slices")
        return replace(self, values=self.part.slice(plane, index), part=None)


@dataclass(frozen=True, slots=True)
class Tile:
    """The image that a tile was cut from, and the pixel of it where the tile begins."""

    tile_of: str
    tile_y: int
    tile_x: int


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Frame:
    """One 2D image on its way into a corpus."""

    image_id: str
    source: str
    picture: Picture
    labels: tuple[Labels, ...]
    spacing_yx_mm: tuple[float, float] | None
    place: Place | None = None  # None: a picture, no slice
    tile: Tile | None = None  # None: no part of a larger image


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How the files of one folder are read."""

    folder: Path
    dataset: str
    naming: Naming
    plane: PlaneChoice | None = None
    spacing_yx_mm: tuple[float, float] | None = None
    keep_empty: bool = False
    names: Names = field(default_factory=Names)
    intensity: Intensity | None = None  # None: the study's rule

    def image_id(self, image: ImageFile) -> str:
        """Name the image of a file."""
        return f"{self.dataset}/{self.names.image(image.key)}"


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


def read_raw(path: Path) -> RawMask:
    """Read the values of a mask file of any kind."""
    if not is_volume(path.name):
        return read_mask(path)
    first = read_labels(path)[0]
    return RawMask(first.volume.values(), table=first.table)


def _picture(image: ImageFile, reading: Reading) -> Iterator[Frame | DropRow]:
    picture = shaded(read_pixels(reading.folder / image.source), reading.intensity)
    height, width = picture.pixels.shape[:2]

    def read(file: MaskFile) -> Iterator[tuple[MaskFile, RawMask]]:
        path = reading.folder / file.source
        if file.kind is not None and file.kind.channels:
            yield from channels_of(path, file, file.kind.channels, (height, width))
            return
        raw = read_mask(path)
        if file.corner is not None:
            raw = placed(raw, file.corner, (height, width))
        h, w = raw.values.shape
        if (h, w) != (height, width):
            raise DataError(f"its size {w} x {h} is not its image's, {width} x {height}")
        yield file, raw

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

    def read(file: MaskFile) -> Iterator[tuple[MaskFile, RawMask]]:
        kind = file.kind
        if kind is not None and (kind.outline or kind.channels or kind.is_cropped):
            raise DataError("outlines, channels and cropped masks are read of pictures only")
        for named in read_labels(reading.folder / file.source):
            own = named.volume
            fit = partial(regrid, own=own, image=volume) if other_grid(volume, own) else None
            yield file, RawMask(own.values(), table=named.table, fit=fit)

    labels, drops = _read_labels(image, reading, read)
    yield from drops
    if not labels and not (reading.keep_empty and _are_all_empty(image, drops)):
        raise DataError(NO_MASK)
    rule = reading.intensity or MIN_MAX
    shades = shades_of_volume(volume, rule)
    for plane in _planes(volume, reading.plane):
        for index in range(volumes.n_slices(volume, plane)):
            values = volume.slice(plane, index)
            place = _place(volume, reading.image_id(image), plane, index)
            image_id = f"{place.volume_id}/{plane}/{index:04d}"
            spacing = volumes.spacing_of_slices(volume, plane)
            try:
                picture = (shades or shades_of_slice(values, rule)).picture(values)
            except DataError as error:
                yield DropRow(source=image.source, image_id=image_id, reason=str(error))
                continue
            yield Frame(
                image_id=image_id,
                source=image.source,
                picture=picture,
                labels=tuple(item.slice(plane, index) for item in labels),
                spacing_yx_mm=spacing[:2] if spacing else reading.spacing_yx_mm,
                place=place,
            )


def _planes(volume: volumes.Volume, choice: PlaneChoice | None) -> tuple[volumes.Plane, ...]:
    if choice is None:
        return (volumes.main_plane(volume),)
    return volumes.PLANES if choice == "all" else (choice,)


def _place(volume: volumes.Volume, volume_id: str, plane: volumes.Plane, index: int) -> Place:
    spacing = volumes.spacing_of_slices(volume, plane)
    n_slices = volumes.n_slices(volume, plane)
    is_lone = n_slices == 1 and not volume.has_place  # a picture: it has no next slice
    return Place(
        volume_id=volume_id,
        slice_index=index,
        n_slices=n_slices,
        plane=plane,
        spacing_slice_mm=spacing[2] if spacing and not is_lone else None,
        affine=tuple(volume.affine.ravel().tolist()) if spacing and volume.has_place else None,
    )


def _read_labels(
    image: ImageFile, reading: Reading, read: ReadMasks
) -> tuple[tuple[Labels, ...], list[DropRow]]:
    """Read the masks of an image and name what they hold."""
    pieces: list[Labels | DropRow] = []
    for file in image.masks:
        try:
            is_stack = file.kind is not None and bool(file.kind.channels)
            if not is_stack and is_volume(file.source) != is_volume(image.source):
                raise DataError("of this mask and its image one is a volume and one a picture")
            for part, raw in read(file):
                pieces += _named(part, raw, image, reading)
        except DataError as error:
            pieces.append(_drop(file, image, reading, reason=str(error)))
    labels = tuple(piece for piece in pieces if isinstance(piece, Labels))
    return labels, [piece for piece in pieces if isinstance(piece, DropRow)]


def _drop(
    file: MaskFile, image: ImageFile, reading: Reading, *, reason: str, area_px: int | None = None
) -> DropRow:
    return DropRow(
        source=file.source,
        image_id=reading.image_id(image),
        object=file.object,
        instance=file.instance,
        area_px=area_px,
        reason=reason,
    )


def _named(
    file: MaskFile, raw: RawMask, image: ImageFile, reading: Reading
) -> Iterator[Labels | DropRow]:
    """Name what one mask holds; raises DataError where its values are no labels."""
    naming = naming_of(file, reading.naming)
    if raw.table is not None:  # the file says more than its name, and than what is said of all
        file = replace(file, object=None, instance=None)
        naming = replace(naming, table=raw.table, instances=False, threshold=None)
    values, naming = shown_zero(as_labels(raw, naming), naming)
    is_outline = file.kind is not None and file.kind.outline
    for layer in filled(values, instances=naming.instances) if is_outline else [values]:
        present = values_in(layer)
        entries, unknown = name_values(file, present, naming)
        if not present:
            yield _drop(file, image, reading, area_px=0, reason=_EMPTY)
        for value, reason in unknown:
            area = int(np.count_nonzero(layer == value))
            drop = _drop(file, image, reading, area_px=area, reason=reason)
            yield replace(drop, object=f"label {value}")
        if entries:
            yield from _fitted(file, raw, layer, entries, image, reading)


def _fitted(
    file: MaskFile,
    raw: RawMask,
    values: Integer[np.ndarray, "*space"],
    entries: Sequence[Entry],
    image: ImageFile,
    reading: Reading,
) -> Iterator[Labels | DropRow]:
    """Bring labels to the grid of their image, and tell what of them lies outside."""
    if raw.fit is not None:
        fitted = raw.fit(values)
        for entry in entries:
            if loss := fitted.loss(entry.values):
                drop = _drop(file, image, reading, area_px=loss[0], reason=loss[1])
                yield replace(drop, object=entry.object, instance=entry.instance)
        values = fitted.values
    part = cropped(values) if values.ndim == 3 else None
    yield Labels(
        file.source,
        values if part is None else part.values,
        tuple(entries),
        file.annotator,
        regridded=raw.fit is not None,
        part=part,
    )


def _are_all_empty(image: ImageFile, drops: list[DropRow]) -> bool:
    """Tell an image without objects (or masks) from one of which we could not read the objects."""
    return (
        not image.lost_mask
        and len(drops) == len(image.masks)
        and all(drop.reason == _EMPTY for drop in drops)
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
