"""Headers of DICOM files, read so that no file can do harm and no value gets out by accident.

pydicom quotes values of headers in its warnings and errors: they are silenced, and what is wrong
is said in our own words. Values are asked for one by one, and one that is damaged is None.
"""

import logging
import math
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from promptseg.errors import DataError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

PREAMBLE = 132
MOST_INFLATED = 2**30  # bytes that a deflated file may hold
MOST_ITEMS = 100_000  # of one sequence: slices of a volume, segments, contours
_PIXELS = frozenset({0x7FE00010, 0x7FE00009, 0x7FE00008})
_DEFLATED = "1.2.840.10008.1.2.1.99"
_AT_ONCE = 2**24


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says, up to its pixels, at which `stream` stands then."""

    data: "Dataset"
    meta: "Dataset"
    syntax: "UID"
    stream: BinaryIO | BytesIO
    n_bytes: int  # of the stream


def is_dicom(path: Path) -> bool:
    """Look for the mark of DICOM, wherever the file is and whatever it is called."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
        with path.open("rb") as file:
            return file.read(PREAMBLE)[-4:] == b"DICM"
    except OSError:
        return False


@contextmanager
def opened(path: Path, keywords: Iterable[str]) -> Iterator[Header]:
    """Read the named elements of a file's header, sequences whole.

    Raises
    ------
    DataError
        It is damaged, or of a kind that is not read; no value is quoted.
    """
    with quiet():
        try:
            with path.open("rb") as file:
                yield read_header(file, keywords)
        except DataError:
            raise
        except FileNotFoundError as error:
            raise DataError("there is no such file") from error
        except Exception as error:  # damaged and hostile files make decoders raise anything
            raise damaged(error) from error


def damaged(error: Exception) -> DataError:
    """Say that a file cannot be read: what a decoder says may quote a header, so not how."""
    return DataError(f"it cannot be read: the DICOM file is damaged ({type(error).__name__})")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence pydicom, whose warnings quote values."""
    from pydicom import config

    logger = logging.getLogger("pydicom")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings(), config.disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = was_disabled


def read_header(file: BinaryIO, keywords: Iterable[str]) -> Header:
    """Read a header; raises DataError, and whatever pydicom raises."""
    from pydicom.datadict import tag_for_keyword
    from pydicom.filereader import read_dataset
    from pydicom.tag import Tag
    from pydicom.uid import UID

    if file.read(PREAMBLE)[-4:] != b"DICM":
        raise DataError("it is no DICOM file")
    meta = read_dataset(file, False, True, stop_when=lambda tag, *_: tag.group != 2)
    syntax = UID(text(meta, "TransferSyntaxUID") or "")
    if not syntax.is_transfer_syntax or syntax.is_private:
        raise DataError("its transfer syntax is missing or unknown")
    stream = BytesIO(_inflated(file)) if syntax == _DEFLATED else file
    data = read_dataset(
        stream,
        syntax.is_implicit_VR,
        syntax.is_little_endian,
        stop_when=lambda tag, *_: tag in _PIXELS,
        specific_tags=[Tag(tag_for_keyword(word) or 0) for word in keywords],
    )
    at = stream.tell()
    n_bytes = stream.seek(0, 2)
    stream.seek(at)
    return Header(data, meta, syntax, stream, n_bytes)


def _inflated(file: BinaryIO) -> bytes:
    """Inflate the rest of a file, up to a limit: a small one can promise petabytes."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    parts, size = [], 0
    while size <= MOST_INFLATED and not inflate.eof:
        packed = inflate.unconsumed_tail or file.read(_AT_ONCE)
        part = inflate.decompress(packed, _AT_ONCE)
        if not packed and not part:
            break
        parts.append(part)
        size += len(part)
    if size > MOST_INFLATED:
        raise DataError(f"it inflates to more than {MOST_INFLATED // 2**20} MiB")
    return b"".join(parts)


def value(data: "Dataset", keyword: str) -> Any:
    """Give a value as pydicom has it, or None if it is absent or damaged."""
    try:
        return data.get(keyword)
    except Exception:  # of a damaged value pydicom raises anything
        return None


def text(data: "Dataset", keyword: str) -> str | None:
    """Give a value as text without what pads it; None if there is none."""
    found = value(data, keyword)
    try:
        return str(found if found is not None else "").strip("\0 ") or None
    except Exception:
        return None


def numbers(data: "Dataset", keyword: str, count: int | None = None) -> tuple[float, ...] | None:
    """Give finite numbers, of which there must be `count`, or any; else None."""
    found = value(data, keyword)
    if found is None or isinstance(found, bytes):
        return None
    try:
        listed = [found] if isinstance(found, str | int | float) else list(found)
        converted = tuple(float(item) for item in listed)
    except Exception:
        return None
    is_right = len(converted) == count if count else bool(converted)
    return converted if is_right and all(map(math.isfinite, converted)) else None


def spacing_in(data: "Dataset", keyword: str) -> tuple[float, float] | None:
    """Give two lengths (y, x) in mm, or None where they are none."""
    pair = numbers(data, keyword, 2)
    return (pair[0], pair[1]) if pair and min(pair) > 0 else None


def number(data: "Dataset", keyword: str) -> float | None:
    """Give the first of one or several finite numbers, or None."""
    found = numbers(data, keyword)
    return None if found is None else found[0]


def stated(data: "Dataset", keyword: str) -> float | None:
    """Give a number without which pixels mean something else; None only if none is stated.

    Raises
    ------
    DataError
        Something is stated, and it is no finite number.
    """
    found = number(data, keyword)
    if found is None and keyword in data:
        raw = data.get_item(keyword).value
        is_blank = raw is None or not (raw.strip() if isinstance(raw, str | bytes) else raw)
        if not is_blank:
            raise DataError(f"its {keyword} is no number")
    return found


def whole(data: "Dataset", keyword: str) -> int | None:
    """Give a whole number, or None."""
    found = number(data, keyword)
    return None if found is None else int(found)


def items(data: "Dataset | None", keyword: str) -> "list[Dataset]":
    """Give the items of a sequence; none if it is absent or damaged."""
    from pydicom.sequence import Sequence

    found = None if data is None else value(data, keyword)
    if not isinstance(found, Sequence):
        return []
    if len(found) > MOST_ITEMS:
        raise DataError(f"it has more than {MOST_ITEMS} items in one list")
    return list(found)


def first(data: "Dataset | None", keyword: str) -> "Dataset | None":
    """Give the first item of a sequence, or None."""
    return next(iter(items(data, keyword)), None)
