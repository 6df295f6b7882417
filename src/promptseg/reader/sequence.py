"""Stacks and videos as frames, one in memory at a time, each with the masks that lie on it."""

from collections.abc import Iterator
from pathlib import Path

from promptseg.errors import DataError
from promptseg.reader.folder import ImageFile, MaskFile, frame_file, is_video
from promptseg.reader.frame import FRAME, Frame, place_of_frame
from promptseg.reader.frame_labels import EMPTY, NO_MASK
from promptseg.reader.framemasks import masks_of
from promptseg.reader.pages import Pages
from promptseg.reader.painter import painter
from promptseg.reader.reading import Reading
from promptseg.reader.stack import open_pages
from promptseg.rows import DropRow


def masks_as_named(folder: Path, image: ImageFile) -> tuple[MaskFile, ...]:
    """Give the masks of an image as their names are meant: numbers may be those of frames."""
    if image.is_volume or image.series is not None:
        return image.masks
    if not any(file.is_one_object for file in image.masks):
        return image.masks
    try:
        is_stack = is_video(image.source) or open_pages(folder / image.source).is_stack
    except DataError:  # reported when it is read
        is_stack = False
    if not is_stack:
        return image.masks
    found = ((file, frame_file(image.key, file)) for file in image.masks)
    return tuple(file if numbered is None else numbered[0] for file, numbered in found)


def frames_of_stack(image: ImageFile, pages: Pages, reading: Reading) -> Iterator[Frame | DropRow]:
    """Give the frames of a stack with their masks.

    Raises
    ------
    DataError
        No mask of it is usable, or its values are not what the intensity rule needs.
    """
    masks = masks_of(image, pages, reading)
    yield from masks.drops
    has_lost = image.lost_mask or _are_lost(masks.drops)
    if masks.are_none and (has_lost or not reading.keep_empty):
        raise DataError(NO_MASK)
    paint = painter(pages, reading.intensity, reading.every)
    volume_id = reading.image_id(image)
    for index, page in pages.read(False, reading.every):
        image_id = f"{volume_id}/{FRAME}/{index:04d}"
        labels, drops = masks.next(index, image_id)
        yield from drops
        if not labels and (has_lost or _are_lost(drops)):
            yield DropRow(source=image.source, image_id=image_id, reason=NO_MASK)
            continue
        try:
            picture = paint(page)
        except DataError as error:
            yield DropRow(source=image.source, image_id=image_id, reason=str(error))
            continue
        yield Frame(
            image_id=image_id,
            source=image.source,
            picture=picture,
            labels=tuple(labels),
            spacing_yx_mm=reading.spacing_yx_mm,
            place=place_of_frame(volume_id, index, pages.count),
            notes=masks.notes,
        )
    if pages.cut_short is not None:
        yield DropRow(source=image.source, image_id=volume_id, reason=pages.cut_short)


def _are_lost(drops: list[DropRow]) -> bool:
    """Tell masks that could not be read from empty ones."""
    return any(drop.reason != EMPTY for drop in drops)
