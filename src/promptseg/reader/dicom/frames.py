"""Frames of a DICOM series: slices of a volume, or pictures as they are, with their masks."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from jaxtyping import Shaped

from promptseg.errors import DataError
from promptseg.reader.dicom.drawn import layers_of
from promptseg.reader.dicom.load import read_series, stream
from promptseg.reader.dicom.model import Series
from promptseg.reader.dicom.rtstruct import read_rtstruct
from promptseg.reader.dicom.seg import Drawing, read_seg
from promptseg.reader.dicom.series import is_streamed, native_affine
from promptseg.reader.folder import ImageFile, MaskFile
from promptseg.reader.frame import FRAME, Frame, frames_of_volume, place_of_frame
from promptseg.reader.frame_labels import (
    EMPTY,
    NO_MASK,
    Labels,
    ReadMasks,
    are_all_empty,
    read_labels,
    reader_on_picture,
    reader_on_volume,
)
from promptseg.reader.image import Picture, RawMask, kept_or_scaled
from promptseg.reader.intensity import (
    MIN_MAX,
    Intensity,
    Shades,
    shaded,
    shades_of_slice,
    shades_of_volume,
)
from promptseg.reader.pages import Page, Pages
from promptseg.reader.painter import painter
from promptseg.reader.reading import Reading
from promptseg.reader.volume import Volume, grid, oriented
from promptseg.rows import DropRow


def read_series_frames(
    image: ImageFile, series: Series, reading: Reading
) -> Iterator[Frame | DropRow]:
    """Read a series with its masks.

    Raises
    ------
    DataError
        It cannot be read, or no mask of it is usable.
    """
    labels, drops, done = _drawings(image, series, reading)
    others = [file for file in image.masks if file.dicom is None]
    if series.affine is None:
        more, lost = read_labels(image, others, reading, _reader_on(series, reading))
        stacked = tuple(replace(item, values=item.values[None]) for item in more)
        drops += lost
        frames = _stack(image, series, reading, (*labels, *stacked), drops)
    else:
        volume, how = read_series(reading.folder, series)
        done = (*done, *how)
        volume = oriented(volume)
        read = reader_on_volume(reading.folder, volume)
        more, lost = read_labels(image, others, reading, read)
        turned = tuple(
            replace(item, values=_turned(item.values, series)).as_part() for item in labels
        )
        drops += lost
        frames = frames_of_volume(image, reading, volume, (*turned, *more), drops)
    for frame in frames:
        if isinstance(frame, Frame):
            yield replace(frame, notes=tuple(dict.fromkeys((*frame.notes, *series.notes, *done))))
        else:
            yield frame


def _turned(values: Shaped[np.ndarray, "n h w"], series: Series) -> Shaped[np.ndarray, "i j k"]:
    """Turn labels as the volume of their series is turned."""
    affine = native_affine(series)
    empty = grid((1, 1, 1), np.eye(4) if affine is None else affine)
    return oriented(replace(empty, voxels=values.transpose(2, 1, 0))).voxels


def _reader_on(series: Series, reading: Reading) -> ReadMasks:
    """Give the reader of masks of a single picture."""
    count, height, width = series.shape
    read = reader_on_picture(reading.folder, height, width)

    def refuse(file: MaskFile) -> Iterator[tuple[MaskFile, RawMask]]:
        raise DataError("a picture cannot be the mask of several frames")

    return read if count == 1 else refuse


def _drawings(
    image: ImageFile, series: Series, reading: Reading
) -> tuple[tuple[Labels, ...], list[DropRow], tuple[str, ...]]:
    """Read the DICOM masks of a series, in the order of its slices."""
    labels: list[Labels] = []
    drops: list[DropRow] = []
    notes: list[str] = []
    for file in image.masks:
        if file.dicom is None:
            continue
        drop = partial(DropRow, source=file.source, image_id=reading.image_id(image))
        try:
            drawing = _drawing(file, series, reading)
        except DataError as error:
            drops.append(drop(reason=str(error)))
            continue
        drops += [drop(object=name, reason=reason) for name, reason in drawing.left_out]
        if not file.dicom.is_shared:
            drops += [
                drop(object=one.name, instance=one.instance, area_px=0, reason=EMPTY)
                for one in drawing.objects
                if not one.planes
            ]
        layers = layers_of(drawing.objects, series.shape)
        labels += [
            Labels(file.source, values, entries, file.annotator) for values, entries in layers
        ]
        notes += drawing.notes if layers else ()
    return tuple(labels), drops, tuple(notes)


def _drawing(file: MaskFile, series: Series, reading: Reading) -> Drawing:
    if file.dicom is None:
        raise ValueError("no DICOM mask")
    if file.dicom.form == "seg":
        return read_seg(reading.folder, file.dicom, series, reading.naming.threshold)
    return read_rtstruct(reading.folder, file.dicom, series)


def _stack(
    image: ImageFile,
    series: Series,
    reading: Reading,
    labels: Sequence[Labels],
    drops: list[DropRow],
) -> Iterator[Frame | DropRow]:
    """Give the pictures of a series as they are stored."""
    yield from drops
    if not labels and not (reading.keep_empty and are_all_empty(image, drops)):
        raise DataError(NO_MASK)
    if reading.plane is not None and len(series.slices) > 1:
        raise DataError("it is no volume that could be cut along a plane; leave out --plane")
    name = reading.image_id(image)
    count = len(series.slices)
    for index, paint in enumerate(_pictures(series, reading)):
        if index % reading.every:
            continue
        place = place_of_frame(name, index, count) if count > 1 else None
        image_id = f"{name}/{FRAME}/{index:04d}" if place else name
        try:
            picture = paint()
        except DataError as error:
            yield DropRow(source=image.source, image_id=image_id, reason=str(error))
            continue
        yield Frame(
            image_id=image_id,
            source=image.source,
            picture=picture,
            labels=tuple(replace(item, values=item.values[index]) for item in labels),
            spacing_yx_mm=series.slices[index].spacing_yx_mm or reading.spacing_yx_mm,
            place=place,
            dicom_modality=series.kind.modality,
            patient=series.patient,
        )


def _pictures(series: Series, reading: Reading) -> Iterator[Callable[[], Picture]]:
    """Give for each picture what brings it to the form that a corpus keeps."""
    if is_streamed(series):
        pages = _pages(series, reading)
        paint = (
            painter(pages, reading.intensity, reading.every)
            if pages.is_stack
            else partial(shaded, rule=reading.intensity)
        )
        for _, page in pages.read(False, 1):
            yield partial(paint, page)
        return
    volume, _ = read_series(reading.folder, series)
    rule = reading.intensity or MIN_MAX
    shades = shades_of_volume(volume, rule)
    for index in range(len(series.slices)):
        values = np.ascontiguousarray(volume.scaled(volume.voxels[:, :, index].T))
        yield partial(_shown, values, volume, shades, rule)


def _pages(series: Series, reading: Reading) -> Pages:
    """Take a series of 8 bits for the pages of a stack."""

    def read(as_mask: bool, every: int) -> Iterator[tuple[int, Page]]:
        for index, pixels in enumerate(stream(reading.folder, series)):
            if index % every == 0:
                yield index, Page(pixels)

    count, height, width = series.shape
    return Pages(count=count, size=(height, width), read=read)


def _shown(
    values: Shaped[np.ndarray, "h w"], volume: Volume, shades: Shades | None, rule: Intensity
) -> Picture:
    """Apply a rule; whole numbers of 16 bits are kept as they are, as of other pictures."""
    shades = shades or shades_of_slice(values, rule)
    if volume.voxels.shape[2] > 1:
        return shades.picture(values)
    if rule.kind in ("min-max", "percentile"):
        shades = replace(shades, rule=f"{rule.name} image")
    is_whole = float(volume.slope).is_integer() and float(volume.intercept).is_integer()
    is_kept = is_whole and np.issubdtype(volume.voxels.dtype, np.integer) and shades.rule != "none"
    if is_kept and values.min() >= 0 and values.max() < 2**16:
        return kept_or_scaled(values.astype(np.uint16), shades.rule, shades.lo, shades.hi)
    return shades.picture(values)
