"""PNG, JPEG, TIFF, BMP and GIF as pages: decoded as they are stored, no orientation applied.

PIL decodes; what it would cut to 8 bits is read by tifffile or OpenCV. A file's content decides
what it is, not its suffix, and no other of PIL's formats is tried.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from jaxtyping import Shaped

from promptseg.errors import DataError
from promptseg.reader.colours import palette_values
from promptseg.reader.limits import (
    MOST_BYTES,
    MOST_FRAMES,
    check_picture,
    check_stack,
    too_large,
    too_many_frames,
    unreadable,
)
from promptseg.reader.opencv import quiet
from promptseg.reader.pages import Page, Pages
from promptseg.reader.tiff import Directory, directories, read_deep, unturned

if TYPE_CHECKING:
    from PIL import Image, ImageFile
    from tifffile import TiffFile

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# what PIL multiplies pixels of few bits with to fill 0..255: right for a picture, not for labels
_SCALE_OF_LABELS = {"L;2": 85, "L;4": 17, "L;2I": 85, "L;4I": 17}
_CONVERSIONS = {"CMYK": "cmyk to rgb", "YCbCr": "ycbcr to rgb"}


def open_raster(path: Path) -> Pages:
    """Open a picture or a stack of pictures; raises DataError if it is damaged or too large."""
    with decoding(path), path.open("rb") as file:
        start = file.read(6)
        count = _gif_frames(file) if start[:3] == b"GIF" else 1
    if start[:4] in _TIFF:
        return _open_tiff(path)
    with ExitStack() as stack:
        image = _opened(path, stack)
        width, height = image.size
        is_deep = image.mode in ("LA", "RGB", "RGBA") and ";16" in _raw_mode(image)
        check_picture(height, width, 8 if is_deep else 4)
        if image.format == "PNG":
            with decoding(path):
                count = int(getattr(image, "n_frames", 1))
    check_stack(count, height, width)

    def read(as_mask: bool, every: int) -> Iterator[tuple[int, Page]]:
        if is_deep and count == 1:
            yield 0, _deep_page(_deep_png(path), as_mask)
            return
        with ExitStack() as stack:
            image = _opened(path, stack)
            for index in range(count):  # each changes the one before
                page = _at(image, index, path, as_mask)
                if index % every == 0:
                    yield index, page

    return Pages(count=count, size=(height, width), read=read)


def _open_tiff(path: Path) -> Pages:
    pages = directories(path)
    size = pages[0].height, pages[0].width
    check_stack(len(pages), *size)

    def read(as_mask: bool, every: int) -> Iterator[tuple[int, Page]]:
        kinds = {page.is_plain for page in pages}
        with ExitStack() as stack:
            image = _opened(path, stack) if True in kinds else None
            file = _opened_deep(path, stack) if False in kinds else None
            for index in range(0, len(pages), every):
                page = pages[index]
                if page.is_plain and image is not None:
                    one = _at(image, page.index, path, as_mask)
                    one = replace(one, values=unturned(one.values, page.orientation))
                    is_negative = as_mask and page.is_negative
                    yield index, _negative(one, max(page.bits)) if is_negative else one
                elif file is not None:
                    with decoding(path):
                        pixels = read_deep(file, page, path, as_mask)
                    yield index, _deep_page(pixels, as_mask, page)

    return Pages(count=len(pages), size=size, read=read)


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turn all that decoders raise on damaged files to DataError; not to be held over a yield."""
    from PIL import Image

    logger = logging.getLogger("tifffile")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # complaints about metadata that we do not read
            yield
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise too_large("its pixels") from error
    except Exception as error:  # damaged and hostile files make decoders raise anything
        raise unreadable(path, error) from error
    finally:
        logger.disabled = was_disabled


def _opened(path: Path, stack: ExitStack) -> "ImageFile.ImageFile":
    from PIL import Image

    with decoding(path):
        # mapped by its name, PIL mixes up the rows of a TIFF that states to lie on its side
        file = stack.enter_context(path.open("rb"))
        return stack.enter_context(Image.open(file, formats=FORMATS))


def _opened_deep(path: Path, stack: ExitStack) -> "TiffFile":
    import tifffile

    with decoding(path):
        return stack.enter_context(tifffile.TiffFile(path))


def _at(image: "ImageFile.ImageFile", index: int, path: Path, as_mask: bool) -> Page:
    """Decode one page of an open file."""
    with decoding(path):
        image.seek(index)
        height, width = image.size[::-1]
        check_picture(height, width, 4)
        raw_mode = _raw_mode(image)
        image.info.pop("xmp", None)  # PIL would turn a TIFF as it says
        image.load()
        jpeg = image.format in ("JPEG", "MPO") or "jpeg" in str(image.info.get("compression"))
        if not as_mask:
            return Page(_pixels(image), jpeg, _CONVERSIONS.get(image.mode))
        values = _mask_values(image)
        if raw_mode in _SCALE_OF_LABELS:
            values = values // _SCALE_OF_LABELS[raw_mode]
        return Page(values, jpeg)


def _negative(page: Page, bits: int) -> Page:
    """Give the numbers that a mask stores, of which PIL has shown 0 as white."""
    values = page.values
    return replace(page, values=(2**bits - 1 if 1 < bits < 8 else 255) - values)


def _gif_frames(file: BinaryIO) -> int:
    """Count the frames of a GIF by its blocks, of which PIL would decode every one."""
    file.seek(10)
    flags = file.read(3)[0]
    file.seek(13 + (3 << (flags & 7) + 1 if flags & 128 else 0))
    count = 0
    while (kind := file.read(1)) in (b"!", b","):
        if kind == b",":
            count += 1
            if count > MOST_FRAMES:
                raise too_many_frames()
            own = file.read(9)[8:9]
            if own and own[0] & 128:
                file.seek(3 << (own[0] & 7) + 1, 1)
        file.seek(1, 1)  # what follows, or the first code's size
        while length := file.read(1)[:1]:
            if length == b"\0":
                break
            file.seek(length[0], 1)
    return max(count, 1)


def _raw_mode(image: "ImageFile.ImageFile") -> str:
    """Name the layout of the stored pixels in PIL's words."""
    args = image.tile[0].args if image.tile else None
    return str(args[0] if isinstance(args, tuple) else args)


def _deep_png(path: Path) -> Shaped[np.ndarray, "h w channels"]:
    """Read 16-bit pixels of several channels, of which PIL keeps the upper 8 bits only."""
    import cv2

    with decoding(path), quiet():
        decoded = cv2.imdecode(np.fromfile(path, np.uint8, MOST_BYTES), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise DataError("it cannot be read: its 16-bit colours are not understood")
    bgr = np.atleast_3d(np.asarray(decoded))
    return np.ascontiguousarray(bgr[:, :, [2, 1, 0, 3][: bgr.shape[2]]])


def _deep_page(
    pixels: Shaped[np.ndarray, "h w *channels"], as_mask: bool, page: Directory | None = None
) -> Page:
    """Make a page of pixels with more than 8 bits; three equal channels are one."""
    jpeg = page is not None and page.compression in (6, 7)
    if as_mask or pixels.ndim == 2:
        return Page(pixels, jpeg)
    colours = pixels[:, :, : 1 if pixels.shape[2] < 3 else 3]
    if page is not None and page.photometric not in (0, 1, 2):
        raise DataError("its colours are of a kind that is not read with that many bits")
    is_grey = (colours == colours[:, :, :1]).all()
    return Page(np.ascontiguousarray(colours[:, :, 0] if is_grey else colours), jpeg)


def _pixels(image: "Image.Image") -> Shaped[np.ndarray, "h w *rgb"]:
    """Give the pixels in grey or RGB, without alpha and palette."""
    match image.mode:
        case "1":
            return np.asarray(image.convert("L"))
        case "L" | "RGB" | "I;16" | "I" | "F":
            return np.asarray(image)
        case "I;16B" | "I;16L" | "I;16N":
            return np.asarray(image).astype(np.uint16)
        case "LA":
            return np.ascontiguousarray(np.asarray(image)[:, :, 0])
        case "RGBA" | "RGBX":
            return np.ascontiguousarray(np.asarray(image)[:, :, :3])
        case "P" | "PA":
            return np.ascontiguousarray(np.asarray(image.convert("RGBA"))[:, :, :3])
        case "CMYK" | "YCbCr":
            return np.asarray(image.convert("RGB"))
    raise DataError(f"pictures with colours of the kind {image.mode} are not read")


def _mask_values(image: "Image.Image") -> Shaped[np.ndarray, "h w *channels"]:
    """Give the values of a mask: palettes by what they hold, colours with their alpha.

    Of a GIF of several frames PIL keeps the palette of the first only.
    """
    is_gif_stack = image.format == "GIF" and getattr(image, "is_animated", False)
    if image.mode == "P" and not is_gif_stack:
        return palette_values(np.asarray(image), _pixels(image), image.getpalette("RGB") or [])
    return np.asarray(image) if image.mode in ("LA", "RGBA") else _pixels(image)
