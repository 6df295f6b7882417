"""TIFF files: what their pages declare, and pixels that PIL does not read whole.

The directory is walked here, since libraries trust it: chains that bite their tail, a million
pages and pages of petabytes are refused before anything is decoded.
"""

import re
import struct
import zlib
from dataclasses import dataclass
from math import prod
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Shaped

from promptseg.errors import DataError
from promptseg.reader.limits import MOST_BYTES, MOST_FRAMES, check_picture, too_many_frames
from promptseg.reader.opencv import quiet

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_DESCRIPTION, _ORIENTATION, _SAMPLES, _PLANAR, _FORMAT = 270, 274, 277, 284, 339
_DEFAULTS = {
    **dict.fromkeys((_SUBFILE, _WIDTH, _HEIGHT), 0),
    **dict.fromkeys((_COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANAR, _ORIENTATION), 1),
}
_WANTED = {*_DEFAULTS, _BITS, _FORMAT, _DESCRIPTION}
_BYTES_OF_TYPE = {1: ("B", 1), 2: ("B", 1), 3: ("H", 2), 4: ("I", 4), 16: ("Q", 8)}
_MOST_VALUES, _MOST_ENTRIES = 1 << 16, 4096
_GREY, _RGB, _PALETTE = (0, 1), 2, 3
_UNSIGNED, _FLOAT = 1, 3
_NONE, _DEFLATE = 1, (8, 32946)
_FAX = (2, 3, 4)
_AT_ONCE = 1 << 20  # bytes
_NAMES = {5: "LZW", 6: "JPEG", 7: "JPEG", 34712: "JPEG 2000", 34887: "LERC", 50000: "Zstandard"}


@dataclass(frozen=True, slots=True)
class Directory:
    """What a page of a TIFF file says about itself; `index` is its place in the chain."""

    index: int
    height: int
    width: int
    bits: tuple[int, ...]
    formats: tuple[int, ...]
    samples: int
    photometric: int
    compression: int
    planar: int
    is_big_endian: bool
    is_preview: bool
    orientation: int
    description: str

    @property
    def is_plain(self) -> bool:
        """Whether PIL gives its pixels with all their bits."""
        if max(self.bits) <= 8:
            is_split = self.samples == 2 and self.planar == 2
            return set(self.formats) <= {_UNSIGNED} and not is_split
        kind = (self.samples, self.bits[0], self.formats[0])
        is_float = kind == (1, 32, _FLOAT) and not self.is_big_endian
        return self.photometric == 1 and (kind == (1, 16, _UNSIGNED) or is_float)

    @property
    def is_negative(self) -> bool:
        """Whether 0 is white, but a mask means the numbers that it stores.

        ImageJ and tifffile write masks whose 0 is background and called white. Fax pages are what
        they look like: programs that pack a black and white mask so turn its bits themselves.
        """
        return self.photometric == 0 and self.compression not in _FAX

    def check(self) -> None:
        """Refuse what is no picture, or too large a one; raises DataError."""
        check_picture(self.height, self.width, self.samples * max(self.bits) / 8)
        n_colours = {**dict.fromkeys(_GREY, 1), _RGB: 3, _PALETTE: 1}.get(self.photometric)
        if n_colours is not None and self.samples not in (n_colours, n_colours + 1):
            raise DataError(f"its {self.samples} channels are neither grey nor RGB")


def directories(path: Path) -> list[Directory]:
    """List the pages of a TIFF file without the previews in it.

    Raises
    ------
    DataError
        It is damaged, or holds channels, several sizes or too many pages.
    """
    try:
        with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
            found = _walk(content)
    except (OSError, ValueError, struct.error) as error:
        raise DataError("it cannot be read: its directory of pages is damaged") from error
    pages = [page for page in found if not page.is_preview] or found[:1]
    for page in pages:
        page.check()
    if len({(p.height, p.width, max(p.bits), p.formats[0]) for p in pages}) > 1:
        raise DataError("its pages have different sizes, or pixels of different kinds")
    _refuse_channels(pages[0].description, len(pages))
    return pages


def _refuse_channels(description: str, n_pages: int) -> None:
    """Refuse stacks whose pages are the channels of a microscope (ImageJ, OME)."""
    if description.startswith("ImageJ="):
        facts = dict(re.findall(r"^(images|channels)=(\d{1,9})\s*$", description, re.MULTILINE))
        n_channels, n_images = int(facts.get("channels", 1)), int(facts.get("images", n_pages))
        if n_images != n_pages and n_pages == 1:
            raise DataError(
                f"ImageJ promises {n_images} pictures in it, in one page. Save it again"
            )
    else:
        sizes = re.findall(r'\bSizeC="(\d{1,9})"', description) if "<OME" in description else []
        n_channels = int(sizes[0]) if sizes and n_pages > 1 else 1
    if n_channels > 1:
        raise DataError(
            f"its pages are {n_channels} channels; expected are grey or RGB pages. "
            "Save the channels as files of their own, or merge them to RGB"
        )


def _walk(content: mmap) -> list[Directory]:
    order = {b"II": "<", b"MM": ">"}.get(content[:2])
    if order is None:
        raise ValueError("no TIFF file")
    is_big = struct.unpack_from(f"{order}H", content, 2)[0] == 43
    layout = _Layout(order, *(("Q", "HHQ8s", "Q") if is_big else ("H", "HHI4s", "I")))
    at = struct.unpack_from(order + layout.offset, content, 8 if is_big else 4)[0]
    seen: set[int] = set()
    pages: list[Directory] = []
    while at and at not in seen:
        if len(pages) == MOST_FRAMES:
            raise too_many_frames()
        seen.add(at)
        tags, at = _entries(content, at, layout)
        pages.append(_directory(len(pages), order, tags))
    if not pages:
        raise ValueError("no page")
    return pages


@dataclass(frozen=True, slots=True)
class _Layout:
    """How a TIFF file writes its directories, in the letters of `struct`."""

    order: str
    count: str
    entry: str
    offset: str


def _entries(content: mmap, at: int, layout: _Layout) -> tuple[dict[int, tuple[int, ...]], int]:
    """Read the entries of one directory that matter, and where the next one is."""
    count = struct.unpack_from(layout.order + layout.count, content, at)[0]
    if count > _MOST_ENTRIES:
        raise ValueError("too many entries")
    at += struct.calcsize(layout.order + layout.count)
    entry = struct.Struct(layout.order + layout.entry)
    end = struct.unpack_from(layout.order + layout.offset, content, at + count * entry.size)[0]
    tags = {}
    for tag, kind, n, inline in entry.iter_unpack(content[at : at + count * entry.size]):
        if tag in _WANTED and kind in _BYTES_OF_TYPE and n:
            tags[tag] = _values(content, layout.order, kind, min(n, _MOST_VALUES), inline)
    return tags, end


def _values(content: mmap, order: str, kind: int, n: int, inline: bytes) -> tuple[int, ...]:
    letter, size = _BYTES_OF_TYPE[kind]
    if n * size <= len(inline):
        return struct.unpack_from(f"{order}{n}{letter}", inline)
    start = int.from_bytes(inline, "little" if order == "<" else "big")
    return struct.unpack(f"{order}{n}{letter}", content[start : start + n * size])


def _directory(index: int, order: str, tags: dict[int, tuple[int, ...]]) -> Directory:
    one = {tag: tags.get(tag, (default,))[0] for tag, default in _DEFAULTS.items()}
    return Directory(
        index=index,
        height=one[_HEIGHT],
        width=one[_WIDTH],
        bits=tags.get(_BITS, (1,)),
        formats=tags.get(_FORMAT, (_UNSIGNED,)),
        samples=one[_SAMPLES],
        photometric=one[_PHOTOMETRIC],
        compression=one[_COMPRESSION],
        planar=one[_PLANAR],
        is_big_endian=order == ">",
        is_preview=bool(one[_SUBFILE] & 1),
        orientation=one[_ORIENTATION],
        description=bytes(v for v in tags.get(_DESCRIPTION, ()) if v < 128).decode().rstrip("\0"),
    )


def read_deep(
    file: "TiffFile", page: Directory, path: Path, as_mask: bool
) -> Shaped[np.ndarray, "h w *channels"]:
    """Read pixels of more bits than PIL keeps: 16-bit colours, signed integers, doubles.

    tifffile reads what is not packed or packed by deflate, OpenCV all else.
    """
    if page.compression in (_NONE, *_DEFLATE):
        whole = file.pages[page.index].aspage()
        _check_segments(whole, page, path.stat().st_size)
        separate, _, height, width, together = whole.shaped
        layers = np.asarray(whole.asarray()).reshape(separate, height, width, together)
        pixels = np.moveaxis(layers, 0, -1).reshape(height, width, -1)
    else:
        pixels = _by_opencv(path, page)
    is_shown = page.photometric == 0 and not (as_mask and page.is_negative)
    if is_shown and np.issubdtype(pixels.dtype, np.unsignedinteger):
        pixels = np.iinfo(pixels.dtype).max - pixels
    return np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _check_segments(whole: "TiffPage", page: Directory, size: int) -> None:
    """Refuse strips and tiles that are not in the file, or unpack to more than they should.

    tifffile unpacks them however large they become, so each is unpacked twice, here piece by piece.
    """
    expected = prod(whole.chunks) * max(page.bits) // 8
    if expected > MOST_BYTES:
        raise DataError("its tiles are larger than a picture may be")
    for offset, count in zip(whole.dataoffsets, whole.databytecounts, strict=True):
        if offset + count > size:
            raise DataError("it cannot be read: it ends before its pixels do")
        if page.compression not in _DEFLATE:
            continue
        whole.parent.filehandle.seek(offset)
        packed = whole.parent.filehandle.read(count)
        unpacker, n_bytes = zlib.decompressobj(), 0
        while packed and n_bytes <= expected:
            n_bytes += len(unpacker.decompress(packed, _AT_ONCE))
            packed = unpacker.unconsumed_tail
        if n_bytes > expected:
            raise DataError("its pixels unpack to more than it declares")


def unturned(
    pixels: Shaped[np.ndarray, "h w *channels"], orientation: int
) -> Shaped[np.ndarray, "y x *channels"]:
    """Undo what PIL and OpenCV do to a page that states an orientation: masks may not state it."""
    match orientation:
        case 2:
            pixels = pixels[:, ::-1]
        case 3:
            pixels = pixels[::-1, ::-1]
        case 4:
            pixels = pixels[::-1]
        case 5:
            pixels = pixels.swapaxes(0, 1)
        case 6:
            pixels = np.rot90(pixels)
        case 7:
            pixels = pixels[::-1, ::-1].swapaxes(0, 1)
        case 8:
            pixels = np.rot90(pixels, -1)
    return np.ascontiguousarray(pixels)


def _by_opencv(path: Path, page: Directory) -> Shaped[np.ndarray, "h w channels"]:
    import cv2

    name = _NAMES.get(page.compression, f"of number {page.compression}")
    reason = f"its compression {name} is not read for its kind of pixels. Save it with none"
    if page.planar == 2 and page.samples > 1:  # OpenCV would mix the planes up
        raise DataError(reason)
    content = np.fromfile(path, np.uint8, MOST_BYTES)
    try:
        with quiet():
            _, decoded = cv2.imdecodemulti(
                content, cv2.IMREAD_UNCHANGED, range=(page.index, page.index + 1)
            )
    except cv2.error as error:
        raise DataError(reason) from error
    if not decoded:
        raise DataError(reason)
    pixels = unturned(np.atleast_3d(np.asarray(decoded[0])), page.orientation)
    if pixels.shape != (page.height, page.width, page.samples):
        raise DataError(reason)
    if pixels.dtype.itemsize * 8 != page.bits[0]:
        raise DataError(reason)
    return pixels[:, :, [2, 1, 0, 3][: page.samples]] if page.samples > 2 else pixels
