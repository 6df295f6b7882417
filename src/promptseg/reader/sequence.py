"""Stacks and videos as frames, one in memory at a time, each with the masks that lie on it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from promptseg.errors import DataError
from promptseg.reader import frame as single
from promptseg.reader.files import read_volume
from promptseg.reader.folder import ImageFile, MaskFile, frame_file, is_video, is_volume
from promptseg.reader.frame import EMPTY, NO_MASK, Frame, Reading
from promptseg.reader.framemasks import masks_of
from promptseg.reader.image import RawMask, finite_range, mask_of, picture_of
from promptseg.reader.pages import Page, Pages
from promptseg.reader.stack import open_pages
from promptseg.rows import DropRow
from promptseg.sample import Place

_PLANE = "frame"


def read_frames(image: ImageFile, reading: Reading) -> Iterator[Frame | DropRow]:
    """Read one file of images with its masks: a volume, a picture, or the frames of a stack.

    Raises
    ------
    DataError
        The file is of no use: it cannot be read, or no mask belongs to it.
    """
    if is_volume(image.source) or not (image.masks or reading.keep_empty):
        return single.read_frames(image, reading)
    pages = open_pages(reading.folder / image.source)
    return _frames(image, pages, reading) if pages.is_stack else single.read_frames(image, reading)


def raw_pages(path: Path) -> Iterator[RawMask]:
    """Read the values of a mask file of any kind, page by page; raises DataError."""
    if is_volume(path.name):
        yield RawMask(read_volume(path).values())
    else:
        yield from (mask_of(page) for _, page in open_pages(path).read(True, 1))


def masks_as_named(folder: Path, image: ImageFile) -> tuple[MaskFile, ...]:
    """Give the masks of an image as their names are meant: numbers may be those of frames."""
    if is_volume(image.source) or not any(file.is_one_object for file in image.masks):
        return image.masks
    try:
        is_stack = is_video(image.source) or open_pages(folder / image.source).is_stack
    except DataError:  # reported when it is read
        is_stack = False
    if not is_stack:
        return image.masks
    found = ((file, frame_file(image.key, file)) for file in image.masks)
    return tuple(file if numbered is None else numbered[0] for file, numbered in found)


def _frames(image: ImageFile, pages: Pages, reading: Reading) -> Iterator[Frame | DropRow]:
    masks = masks_of(image, pages, reading)
    yield from masks.drops
    has_lost = image.lost_mask or _are_lost(masks.drops)
    if masks.are_none and (has_lost or not reading.keep_empty):
        raise DataError(NO_MASK)
    limits = _limits(pages, reading.every)
    volume_id = reading.image_id(image)
    for index, page in pages.read(False, reading.every):
        image_id = f"{volume_id}/{_PLANE}/{index:04d}"
        labels, drops = masks.next(index, image_id)
        yield from drops
        if not labels and (has_lost or _are_lost(drops)):
            yield DropRow(source=image.source, image_id=image_id, reason=NO_MASK)
            continue
        yield Frame(
            image_id=image_id,
            source=image.source,
            picture=picture_of(page, limits, "min-max volume"),
            labels=tuple(labels),
            spacing_yx_mm=reading.spacing_yx_mm,
            place=Place(
                volume_id=volume_id,
                slice_index=index,
                n_slices=pages.count,
                plane=_PLANE,
                spacing_slice_mm=None,
                affine=None,
            ),
        )
    if pages.cut_short is not None:
        yield DropRow(source=image.source, image_id=volume_id, reason=pages.cut_short)


def _are_lost(drops: list[DropRow]) -> bool:
    """Tell masks that could not be read from empty ones."""
    return any(drop.reason != EMPTY for drop in drops)


def _limits(pages: Pages, every: int) -> tuple[float, float] | None:
    """Find the range of values over all frames that are read, as far as they can be decoded.

    None for frames of 8 bits, which need none.
    """
    ranges: list[tuple[float, float]] = []
    try:
        for _, page in pages.read(False, every):
            if _is_8_bit(page):
                return None
            if np.isfinite(page.values).any():
                ranges.append(finite_range(page.values))
    except DataError:
        if not ranges:
            raise
    if not ranges:
        raise DataError("it holds no finite value")
    return min(lo for lo, _ in ranges), max(hi for _, hi in ranges)


def _is_8_bit(page: Page) -> bool:
    return page.values.dtype in (np.uint8, np.bool_)
