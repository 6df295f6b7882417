"""The masks of an image as labels on its grid, with the objects that they hold.

Masks that do not fit come as drops with their reason, and the rest goes on.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Integer

from promptseg.errors import DataError
from promptseg.reader import volume as volumes
from promptseg.reader.channels import channels_of
from promptseg.reader.drawn import filled, placed
from promptseg.reader.files import read_label_volumes
from promptseg.reader.folder import ImageFile, MaskFile, is_volume
from promptseg.reader.image import RawMask, mask_of, read_mask
from promptseg.reader.labels import (
    Entry,
    Naming,
    as_labels,
    name_values,
    naming_of,
    shown_zero,
    values_in,
)
from promptseg.reader.part import Part, cropped
from promptseg.reader.reading import Reading
from promptseg.reader.regrid import other_grid, regrid
from promptseg.reader.stack import open_pages
from promptseg.rows import DropRow
from promptseg.sample import Target

NO_MASK = "none of its masks is usable"
EMPTY = "the mask is empty"
# reads a mask file as the masks in it: mostly one, in a stack of channels one for each object
ReadMasks = Callable[[MaskFile], Iterator[tuple[MaskFile, RawMask]]]


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

    def as_part(self) -> "Labels":
        """Keep only the box of a volume that is not empty."""
        part = cropped(self.values)
        return replace(self, values=part.values, part=part)


def raw_pages(path: Path) -> Iterator[RawMask]:
    """Read the values of a mask file of any kind, page by page; raises DataError."""
    if is_volume(path.name):
        for named in read_label_volumes(path):
            yield RawMask(named.volume.values(), table=named.table)
    else:
        yield from (mask_of(page) for _, page in open_pages(path).read(True, 1))


def read_raw(path: Path) -> RawMask:
    """Read the values of a mask file of any kind but a stack; raises DataError."""
    return next(raw_pages(path)) if is_volume(path.name) else read_mask(path)


def reader_on_picture(folder: Path, height: int, width: int) -> ReadMasks:
    """Give the reader of masks that have the pixels of a picture."""

    def read(file: MaskFile) -> Iterator[tuple[MaskFile, RawMask]]:
        path = folder / file.where
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

    return read


def reader_on_volume(folder: Path, volume: volumes.Volume) -> ReadMasks:
    """Give the reader of masks that lie in a volume, on its grid or on one of their own."""

    def read(file: MaskFile) -> Iterator[tuple[MaskFile, RawMask]]:
        kind = file.kind
        if kind is not None and (kind.outline or kind.channels or kind.is_cropped):
            raise DataError("outlines, channels and cropped masks are read of pictures only")
        for named in read_label_volumes(folder / file.where):
            own = named.volume
            fit = partial(regrid, own=own, image=volume) if other_grid(volume, own) else None
            yield file, RawMask(own.values(), table=named.table, fit=fit)

    return read


def read_labels(
    image: ImageFile,
    files: Iterable[MaskFile],
    reading: Reading,
    read: ReadMasks,
    image_id: str | None = None,
) -> tuple[tuple[Labels, ...], list[DropRow]]:
    """Read masks of an image and name what they hold.

    `image_id` is the one of drops; else it is the image's own.
    """
    image_id = image_id or reading.image_id(image)
    pieces: list[Labels | DropRow] = []
    for file in files:
        try:
            is_stack = file.kind is not None and bool(file.kind.channels)
            if not is_stack and is_volume(file.where) != image.is_volume:
                raise DataError("of this mask and its image one is a volume and one a picture")
            for part, raw in read(file):
                pieces += _named(part, raw, image_id, reading.naming)
        except DataError as error:
            pieces.append(drop(file, image_id, reason=str(error)))
    labels = tuple(piece for piece in pieces if isinstance(piece, Labels))
    return labels, [piece for piece in pieces if isinstance(piece, DropRow)]


def are_all_empty(image: ImageFile, drops: list[DropRow]) -> bool:
    """Tell an image without objects (or masks) from one of which we could not read the objects."""
    return (
        not image.lost_mask
        and len(drops) == len(image.masks)
        and all(drop.reason == EMPTY for drop in drops)
    )


def targets_of(labels: Labels, image_id: str) -> Iterator[Target]:
    """Make a target of every object that is present in the labels of an image."""
    present = set(values_in(labels.values))
    for entry in labels.entries:
        values = sorted(present.intersection(entry.values))
        if values:
            one = len(values) == 1
            mask = labels.values == values[0] if one else np.isin(labels.values, values)
            target_id = f"{image_id}#{_name(entry, labels.annotator)}"
            yield Target(target_id, entry.object, mask, entry.instance, labels.annotator)


def _name(entry: Entry, annotator: str | None) -> str:
    name = entry.object.replace("#", "_")
    instance = "" if entry.instance is None else f"/{entry.instance}"
    return f"{name}{instance}" + ("" if annotator is None else f"@{annotator.replace('#', '_')}")


def drop(file: MaskFile, image_id: str, *, reason: str, area_px: int | None = None) -> DropRow:
    """Leave out a mask file, or a part of it."""
    return DropRow(
        source=file.source,
        image_id=image_id,
        object=file.object,
        instance=file.instance,
        area_px=area_px,
        reason=reason,
    )


def _named(
    file: MaskFile, raw: RawMask, image_id: str, naming: Naming
) -> Iterator[Labels | DropRow]:
    """Name what one mask holds; raises DataError where its values are no labels."""
    naming = naming_of(file, naming)
    if raw.table is not None:  # the file says more than its name, and than what is said of all
        file = replace(file, object=None, instance=None)
        naming = replace(naming, table=raw.table, instances=False, threshold=None)
    values, naming = shown_zero(as_labels(raw, naming, one_object=file.is_one_object), naming)
    is_outline = file.kind is not None and file.kind.outline
    for layer in filled(values, instances=naming.instances) if is_outline else [values]:
        present = values_in(layer)
        entries, unknown = name_values(file, present, naming)
        if not present:
            yield drop(file, image_id, area_px=0, reason=EMPTY)
        for value, reason in unknown:
            area = int(np.count_nonzero(layer == value))
            lost = drop(file, image_id, area_px=area, reason=reason)
            yield replace(lost, object=f"label {value}")
        if entries:
            yield from _fitted(file, raw, layer, entries, image_id)


def _fitted(
    file: MaskFile,
    raw: RawMask,
    values: Integer[np.ndarray, "*space"],
    entries: Sequence[Entry],
    image_id: str,
) -> Iterator[Labels | DropRow]:
    """Bring labels to the grid of their image, and tell what of them lies outside."""
    if raw.fit is not None:
        fitted = raw.fit(values)
        for entry in entries:
            if loss := fitted.loss(entry.values):
                lost = drop(file, image_id, area_px=loss[0], reason=loss[1])
                yield replace(lost, object=entry.object, instance=entry.instance)
        values = fitted.values
    labels = Labels(
        file.source, values, tuple(entries), file.annotator, regridded=raw.fit is not None
    )
    yield labels.as_part() if values.ndim == 3 else labels
