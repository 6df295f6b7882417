"""Any file of images as frames: a volume, a picture, a stack or a video, a series of DICOM."""

from collections.abc import Iterator

from promptseg.errors import DataError
from promptseg.reader.dicom.frames import read_series_frames
from promptseg.reader.files import read_volume
from promptseg.reader.folder import ImageFile
from promptseg.reader.frame import Frame, frame_of_picture, frames_of_volume
from promptseg.reader.frame_labels import NO_MASK, read_labels, reader_on_volume
from promptseg.reader.reading import Reading
from promptseg.reader.sequence import frames_of_stack
from promptseg.reader.stack import open_pages
from promptseg.rows import DropRow


def read_frames(image: ImageFile, reading: Reading) -> Iterator[Frame | DropRow]:
    """Read one file of images with its masks.

    Raises
    ------
    DataError
        The file is of no use: it cannot be read, or no mask belongs to it.
    """
    if not image.masks and not reading.keep_empty:
        raise DataError(NO_MASK if image.lost_mask else "no mask belongs to it by its name")
    if image.series is not None:
        return read_series_frames(image, image.series, reading)
    if image.is_volume:
        return _slices(image, reading)
    pages = open_pages(reading.folder / image.source)
    frames = frames_of_stack if pages.is_stack else frame_of_picture
    return frames(image, pages, reading)


def _slices(image: ImageFile, reading: Reading) -> Iterator[Frame | DropRow]:
    volume = read_volume(reading.folder / image.source)
    read = reader_on_volume(reading.folder, volume)
    labels, drops = read_labels(image, image.masks, reading, read)
    yield from frames_of_volume(image, reading, volume, labels, drops)
