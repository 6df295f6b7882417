"""Text headers of NRRD and MetaImage: what has to be known before a library reads the file.

The formats are those of https://teem.sourceforge.net/nrrd/format.html and
https://itk.org/Wiki/MetaIO/Documentation. What a header promises is checked here: the size before
memory is taken, the name of the file of voxels before it is opened.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from promptseg.errors import DataError
from promptseg.reader.volume import check_bytes, times

NRRD = (".nrrd", ".nhdr")
META = (".mha", ".mhd")
_MOST_TEXT = 2**20  # bytes of a header
MOST_PACKED = 1100  # how many times its size deflate can unpack to at most (1032), and some
_NRRD_BYTES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8"), 1),
    **dict.fromkeys(("uint8_t",), 1),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16"), 2),
    **dict.fromkeys(("int16_t", "ushort", "unsigned short", "unsigned short int"), 2),
    **dict.fromkeys(("uint16", "uint16_t"), 2),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t", "uint", "unsigned int"), 4),
    **dict.fromkeys(("uint32", "uint32_t", "float"), 4),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long"), 8),
    **dict.fromkeys(("signed long long int", "int64", "int64_t", "ulonglong"), 8),
    **dict.fromkeys(("unsigned long long", "unsigned long long int", "uint64", "uint64_t"), 8),
    "double": 8,
}
_META_BYTES = {
    "MET_CHAR": 1,
    "MET_UCHAR": 1,
    "MET_SHORT": 2,
    "MET_USHORT": 2,
    "MET_INT": 4,
    "MET_UINT": 4,
    "MET_LONG": 8,  # 4 on some systems; the larger is safe where memory is at stake
    "MET_ULONG": 8,
    "MET_LONG_LONG": 8,
    "MET_ULONG_LONG": 8,
    "MET_FLOAT": 4,
    "MET_DOUBLE": 8,
}


@dataclass(frozen=True, slots=True)
class Header:
    """The fields of a text header, by their names in small letters, and what it promises."""

    fields: Mapping[str, str]
    shape: tuple[int, ...]  # the fastest axis first
    bytes_per_voxel: int
    packing: str  # raw, gzip or another word of the format
    data_file: str | None  # None: the voxels follow the header
    length: int  # of the header, in bytes

    def numbers(self, name: str) -> tuple[float, ...] | None:
        """Read a field of numbers; None where it is not there or not all are numbers."""
        text = self.fields.get(name)
        try:
            return None if text is None else tuple(float(word) for word in text.split())
        except ValueError:
            return None


def read_header(path: Path) -> Header:
    """Read the header of a NRRD or MetaImage file.

    Raises
    ------
    DataError
        It is none, contradicts itself, or lists its voxels in several files.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_TEXT)
    except FileNotFoundError as error:
        raise DataError("there is no such file") from error
    except OSError as error:
        raise DataError(f"it cannot be read: {error.strerror}") from error
    try:
        return _nrrd(content) if path.name.lower().endswith(NRRD) else _meta(content)
    except ValueError as error:
        raise DataError(f"its header is damaged: {error}") from error


def _nrrd(content: bytes) -> Header:
    fields, length = _nrrd_fields(content)
    shape = _whole(fields.get("sizes", ""), "sizes")
    if [len(shape)] != list(_whole(fields.get("dimension", ""), "dimension")):
        raise ValueError("its dimension is not the number of its sizes")
    packing = {"gz": "gzip"}.get(name := fields.get("encoding", "raw").lower(), name)
    return Header(
        fields,
        shape,
        _size(fields.get("type", "").lower(), _NRRD_BYTES),
        packing,
        _one_file(fields.get("data file")),
        length,
    )


def _nrrd_fields(content: bytes) -> tuple[dict[str, str], int]:
    if not content.startswith(b"NRRD"):
        raise ValueError("it does not begin with NRRD")
    fields: dict[str, str] = {}
    keys: dict[str, str] = {}  # of whoever wrote the file, which rule nothing
    line, length = "", 0
    for line, end in _lines(content):
        length = end
        if not line:
            break
        if line.startswith(("#", "NRRD")):
            continue
        name, is_key, value = line.partition(":=")
        if is_key:
            keys[name.strip()] = value.strip()
            continue
        name, _, value = line.partition(":")
        name = name.lower().strip().replace("datafile", "data file")
        if name in fields:  # libraries may take the other one
            raise ValueError("it has a field twice")
        fields[name] = value.strip()
    if line and len(content) == _MOST_TEXT:
        raise ValueError("it is too long")
    return {**keys, **fields}, length


def _meta(content: bytes) -> Header:
    fields, length = _meta_fields(content)
    shape = _whole(fields.get("dimsize", ""), "DimSize")
    if [len(shape)] != list(_whole(fields.get("ndims", ""), "NDims")):
        raise ValueError("its NDims is not the number of its DimSize")
    channels = _whole(fields.get("elementnumberofchannels", "1"), "ElementNumberOfChannels")
    if channels != (1,):
        raise DataError(f"it has {times(channels)} values per voxel; expected is one")
    name = fields["elementdatafile"]
    return Header(
        fields,
        shape,
        _size(fields.get("elementtype", ""), _META_BYTES),
        _meta_packing(fields),
        None if name.lower() == "local" else _one_file(name),
        length,
    )


def _meta_fields(content: bytes) -> tuple[dict[str, str], int]:
    fields: dict[str, str] = {}
    for line, length in _lines(content):
        name, is_field, value = line.partition("=")
        if not is_field and line:
            raise ValueError("it has a line without =")
        name = name.strip()
        if ":" in name:  # ITK takes it for = too
            raise ValueError("it has a line with : before =")
        if name.lower() in ("elementdatafile", *fields):  # ITK minds capitals
            if name != "ElementDataFile":
                raise ValueError("it has a field twice, or in other capitals")
            return {**fields, "elementdatafile": value.strip()}, length
        fields[name.lower()] = value.strip()
    raise ValueError("it has no ElementDataFile")


def _meta_packing(fields: Mapping[str, str]) -> str:
    if fields.get("binarydata", "true").lower() in ("false", "f", "0"):
        return "text"
    is_packed = fields.get("compresseddata", "").lower() in ("true", "t", "1")
    return "gzip" if is_packed else "raw"


def _size(kind: str, known: Mapping[str, int]) -> int:
    """Give the bytes of a type of voxels."""
    if kind not in known:
        is_short = kind and len(kind) <= 24 and kind.isascii()
        named = repr(kind) if is_short else "that its header names"
        raise DataError(f"voxels of the type {named} are not read")
    return known[kind]


def _one_file(name: str | None) -> str | None:
    if name and (name.split()[0] == "LIST" or "%" in name):
        raise DataError("its voxels lie in several files; expected is one")
    return name or None


def _lines(content: bytes) -> Iterator[tuple[str, int]]:
    """Give the lines of a text that binary data may follow, and where each one ends."""
    start = 0
    while (end := content.find(b"\n", start)) >= 0:
        yield content[start:end].decode("utf-8", "replace").strip(), end + 1
        start = end + 1
    if start < len(content) < _MOST_TEXT:  # a header without an end of line
        yield content[start:].decode("utf-8", "replace").strip(), len(content)


def _whole(text: str, name: str) -> tuple[int, ...]:
    words = text.split()
    if not words or len(words) > 16 or not all(w.isascii() and w.isdigit() for w in words):
        raise ValueError(f"its {name} is no list of whole numbers")
    return tuple(int(word) for word in words)


def data_path(path: Path, header: Header) -> Path:
    """Find the file of the voxels, which lies beside its header or below it.

    Raises
    ------
    DataError
        It lies elsewhere, or is not there.
    """
    if header.data_file is None:
        return path
    name = PurePosixPath(header.data_file.replace("\\", "/"))
    if name.is_absolute() or PureWindowsPath(header.data_file).anchor or ".." in name.parts:
        raise DataError("its header names a file of voxels outside its folder")
    found = path.parent / name
    if leads_away(found, path.parent):
        raise DataError("its header names a file of voxels outside its folder")
    if not found.is_file():
        raise DataError("the file of voxels that its header names is not there")
    return found


def leads_away(path: Path, folder: Path | None = None) -> bool:
    """Whether a file lies outside of a folder, else of its own, once links are followed."""
    return not path.resolve().is_relative_to((folder or path.parent).resolve())


def check_promise(path: Path, header: Header) -> None:
    """Compare the size that a header promises with the file that should hold it.

    Raises
    ------
    DataError
        The voxels would fill the memory, or the file is too short for them.
    """
    check_bytes(header.shape, header.bytes_per_voxel)
    promised = int(np.prod(header.shape, dtype=np.int64)) * header.bytes_per_voxel
    source = data_path(path, header)
    held = source.stat().st_size - (header.length if header.data_file is None else 0)
    if header.packing == "raw" and header.fields.get("elementtype") in ("MET_LONG", "MET_ULONG"):
        promised //= 2
    most = held if header.packing == "raw" else held * MOST_PACKED
    if promised > most:
        raise DataError(
            f"it cannot be read: it is cut off, its header promises {promised} bytes of voxels"
        )
