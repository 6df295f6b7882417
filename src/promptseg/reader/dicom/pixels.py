"""Pixels of DICOM files, decoded one frame at a time.

Each transfer syntax has one decoder, so that the same file gives the same pixels everywhere. What
a compressed picture declares is compared with the header before anything is decoded.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from promptseg.errors import DataError
from promptseg.reader.dicom.facts import check_pixels
from promptseg.reader.dicom.header import Header, damaged, quiet, read_header
from promptseg.reader.dicom.model import Kind
from promptseg.reader.dicom.palette import through_palette
from promptseg.reader.dicom.unpack import KNOWN, unpacker

_KEYWORDS = (
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated"),
    *("BitsStored", "HighBit", "PixelRepresentation", "PlanarConfiguration", "NumberOfFrames"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    *("RedPaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData"),
    *("GreenPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableData"),
    *("BluePaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableData"),
    *("SegmentedRedPaletteColorLookupTableData", "SegmentedGreenPaletteColorLookupTableData"),
    "SegmentedBluePaletteColorLookupTableData",
)
Decode = Callable[..., Any]
Frame = Shaped[np.ndarray, "h w *rgb"]


def read_pixels(path: Path, kind: Kind, count: int, wanted: Iterable[int]) -> Iterator[Frame]:
    """Decode the wanted frames of a file, in the order of the file.

    Parameters
    ----------
    kind, count
        What the header said of its pictures, and of how many of them.
    wanted
        Numbers of frames from 0.

    Raises
    ------
    DataError
        A frame cannot be decoded; values of headers are not quoted.
    """
    chosen = frozenset(wanted)
    try:
        with path.open("rb") as file:
            with quiet():
                header = read_header(file, _KEYWORDS)
                check_pixels(header, kind, count)
                frames = enumerate(_decoded(header, kind, count))
            for _ in range(max(chosen, default=-1) + 1):
                with quiet():  # not around `yield`: it silences the whole process
                    index, decode = next(frames)
                    frame = _tidied(decode(), header, kind) if index in chosen else None
                if frame is not None:
                    yield frame
    except DataError:
        raise
    except StopIteration:
        raise DataError(f"it has fewer than the {count} frames that it promises") from None
    except Exception as error:  # damaged and hostile files make decoders raise anything
        raise damaged(error) from error


def _decoded(header: Header, kind: Kind, count: int) -> Iterator[Callable[[], Any]]:
    """Go through the frames of a file without decoding those that are not asked for."""
    from pydicom.encaps import generate_frames
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.utils import as_pixel_options

    is_packed = header.syntax.is_encapsulated
    if is_packed and str(header.syntax) not in KNOWN:
        raise DataError(f"pictures of the transfer syntax {header.syntax.name} are not read")
    options: dict[str, Any] = {
        **as_pixel_options(header.data, number_of_frames=count),
        "pixel_keyword": "PixelData",
        "pixel_vr": "OB" if kind.bits_allocated <= 8 else "OW",
    }
    start = _start_of_pixels(header)
    if is_packed:
        offsets = options.pop("extended_offsets", None)
        unpack = unpacker(str(header.syntax), kind, {**options, "number_of_frames": 1})
        frames = generate_frames(header.stream, number_of_frames=count, extended_offsets=offsets)
        return (partial(unpack, packed) for packed in frames)
    if kind.bits_allocated == 1:
        return _bits(header, start, kind)
    decode = partial(get_decoder(header.syntax).as_array, raw=False, validate=True, **options)
    return _native(header, start, decode)


def _start_of_pixels(header: Header) -> int:
    """Step over the tag and length of the pixels, and say where they start."""
    tag = header.stream.read(8 if header.syntax.is_implicit_VR else 12)
    expected = b"\xe0\x7f\x10\0" if header.syntax.is_little_endian else b"\x7f\xe0\0\x10"
    if tag[:4] != expected:
        raise DataError("it has no pixels that are whole numbers")
    return header.stream.tell()


def _native(header: Header, start: int, decode: Decode) -> Iterator[Callable[[], Any]]:
    def at(index: int) -> Any:
        header.stream.seek(start)
        return decode(header.stream, index=index)[0]

    for index in itertools.count():
        yield partial(at, index)


def _bits(header: Header, start: int, kind: Kind) -> Iterator[Callable[[], Any]]:
    """Unpack frames of one bit a pixel, which begin anywhere in a byte (pydicom misses some)."""
    size = kind.rows * kind.columns

    def at(index: int) -> Any:
        begin = index * size
        header.stream.seek(start + begin // 8)
        packed = header.stream.read((begin % 8 + size + 7) // 8)
        bits = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little")
        return bits[begin % 8 : begin % 8 + size].reshape(kind.rows, kind.columns)

    for index in itertools.count():
        yield partial(at, index)


def _tidied(frame: Frame, header: Header, kind: Kind) -> Shaped[np.ndarray, "h w *shown"]:
    """Check the shape, take overlays out of unused bits, and apply a palette."""
    n_samples = (3,) if kind.samples == 3 else ()
    if frame.shape != (kind.rows, kind.columns, *n_samples):
        raise DataError("its pixels have another shape than its header says")
    if kind.photometric == "PALETTE COLOR":
        return through_palette(frame, header.data, header.syntax.is_little_endian)
    if kind.n_colours == 3:
        return frame.astype(np.uint8, copy=False)
    return _used_bits(frame, kind)


def _used_bits(frame: Frame, kind: Kind) -> Frame:
    unused = kind.bits_allocated - kind.bits_stored
    if not unused or kind.bits_allocated == 1:
        return frame
    if kind.is_signed:
        return np.asarray(np.right_shift(np.left_shift(frame, unused), unused))
    return np.asarray(frame & frame.dtype.type(2**kind.bits_stored - 1))
