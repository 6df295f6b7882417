"""NumPy files: `.npy` memory-mapped, `.npz` member by member; nothing is ever unpickled.

Which array a shape stands for: a last axis of length 1 is no axis, one of 3 or 4 holds colours
(with alpha). What is left has two axes, a picture, or three, a stack of n pages (n, h, w).
"""

import ast
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedIOBase
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from jaxtyping import Shaped

from promptseg.errors import DataError
from promptseg.reader.limits import MOST_BYTES, check_picture, check_stack, unreadable
from promptseg.reader.pages import Page, Pages

if TYPE_CHECKING:
    _Arrays = Mapping[str, np.ndarray]
else:  # checkers of types at run time would read an array to see what it is
    _Arrays = Mapping

_NUMBERS, _TEXT = "biuf", "SU"
_MOST_MEMBERS, _MOST_HEADER = 1000, 10_000
_MOST_DIRECTORY, _AT_ONCE = 1 << 20, 1 << 24  # bytes
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


@dataclass(frozen=True, slots=True)
class _Header:
    """What the head of a `.npy` declares, and where its values begin."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    is_fortran: bool
    offset: int

    @property
    def n_bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


def open_array(path: Path) -> Pages:
    """Open a `.npy`, or a `.npz` of one array, as pages.

    Raises
    ------
    DataError
        It is damaged, holds no numbers or several arrays, or is no picture and no stack.
    """
    if path.suffix.lower() == ".npy":
        return pages_of(mapped(path))
    arrays = arrays_in(path)
    names = [name for name in arrays if arrays.headers[name].dtype.kind in _NUMBERS]
    if len(names) != 1:
        raise DataError(f"it holds {len(names)} arrays of numbers; expected is one")
    return pages_of(arrays[names[0]])


def pages_of(array: Shaped[np.ndarray, "*shape"]) -> Pages:
    """Take an array as pages, by the rule that the module states."""
    shape = array.shape
    if len(shape) > 2 and shape[-1] == 1:
        array = array[..., 0]
    axes = array.ndim - (1 if array.ndim > 2 and array.shape[-1] in (3, 4) else 0)
    if axes not in (2, 3):
        lengths = " x ".join(map(str, shape))
        raise DataError(
            f"it has the shape {lengths or '()'}; expected are (h, w), (h, w, 3), (n, h, w) or "
            "(n, h, w, 3)"
        )
    stack = array if axes == 3 else array[np.newaxis]
    count, height, width = stack.shape[:3]
    if not count:
        raise DataError("it has no page")
    check_picture(height, width, prod(stack.shape[3:]) * stack.dtype.itemsize)
    check_stack(count, height, width)

    def read(as_mask: bool, every: int) -> Iterator[tuple[int, Page]]:
        for index in range(0, count, every):
            page = np.ascontiguousarray(stack[index])
            native = page.astype(page.dtype.newbyteorder("="), copy=False)
            has_alpha = native.ndim == 3 and native.shape[2] == 4
            yield index, Page(native[:, :, :3] if has_alpha and not as_mask else native)

    return Pages(count=count, size=(height, width), read=read)


@dataclass(frozen=True, slots=True)
class Members(_Arrays):
    """The arrays of a `.npz`, each read when it is asked for; all sizes have been checked."""

    path: Path
    headers: Mapping[str, _Header]

    def __getitem__(self, name: str) -> Shaped[np.ndarray, "*shape"]:
        """Read an array; raises DataError if it is damaged."""
        header = self.headers[name]
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as file:
                file.read(header.offset)
                content = np.empty(header.n_bytes, np.uint8)
                for start in range(0, header.n_bytes, _AT_ONCE):
                    part = file.read(min(_AT_ONCE, header.n_bytes - start))
                    content[start : start + len(part)] = np.frombuffer(part, np.uint8)
                file.read(1)  # the checksum is looked at when the end is reached
            flat = content.view(header.dtype) if header.n_bytes else np.empty(0, header.dtype)
        except Exception as error:  # damaged and hostile files make decoders raise anything
            raise _damaged(self.path, error) from error
        return flat.reshape(header.shape, order="F" if header.is_fortran else "C")

    def __iter__(self) -> Iterator[str]:
        """Go through the names."""
        return iter(self.headers)

    def __len__(self) -> int:
        """Count the arrays."""
        return len(self.headers)


def arrays_in(path: Path) -> Members:
    """Look into a `.npz`: names, types and sizes are checked before anything is unpacked.

    Arrays are of numbers, or of text (as SciPy names the format of a sparse matrix).

    Raises
    ------
    DataError
        It is damaged, holds objects (which only unpickling would read), or all of it together
        would take more than `MOST_BYTES`.
    """
    try:
        _check_directory(path)
        headers: dict[str, _Header] = {}
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > _MOST_MEMBERS or sum(m.file_size for m in members) > MOST_BYTES:
                raise DataError(
                    f"its members are more than {_MOST_MEMBERS}, or more than "
                    f"{MOST_BYTES // 2**20} MiB when unpacked"
                )
            for member in members:
                name = member.filename.removesuffix(".npy")
                if name == member.filename or name in headers or member.flag_bits & 1:
                    raise DataError("it holds something else than .npy arrays")
                if member.compress_type not in _METHODS:
                    raise DataError("it is not packed as NumPy does")
                with archive.open(member) as file:
                    headers[name] = _header(cast(BufferedIOBase, file), member.file_size)
    except DataError:
        raise
    except Exception as error:  # damaged and hostile files make decoders raise anything
        raise _damaged(path, error) from error
    return Members(path, headers)


def _damaged(path: Path, error: Exception) -> DataError:
    """Say why an archive cannot be read; its own module would quote the names in it."""
    if isinstance(error, zipfile.BadZipFile):
        return DataError("it cannot be read: its archive is damaged")
    return unreadable(path, error)


def _check_directory(path: Path) -> None:
    """Refuse a zip directory that is itself too large to be listed."""
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - (1 << 16) - 42))
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        raise DataError("it cannot be read: it is no whole .npz")
    size = struct.unpack_from("<I", tail, at + 12)[0]
    if size > _MOST_DIRECTORY or tail[max(0, at - 20) : at].startswith(b"PK\x06\x07"):
        raise DataError("it holds too many members")


def mapped(path: Path) -> Shaped[np.ndarray, "*shape"]:
    """Map a `.npy` into memory; raises DataError if it is damaged or holds no numbers."""
    try:
        with path.open("rb") as file:
            header = _header(file, path.stat().st_size)
        if header.dtype.kind not in _NUMBERS:
            raise DataError("it holds text; expected are numbers")
        if not prod(header.shape):
            return np.empty(header.shape, header.dtype)
        return np.memmap(
            path,
            header.dtype,
            "r",
            header.offset,
            header.shape,
            "F" if header.is_fortran else "C",
        )
    except DataError:
        raise
    except Exception as error:  # damaged and hostile files make decoders raise anything
        raise unreadable(path, error) from error


def _header(file: BufferedIOBase, size: int) -> _Header:
    """Read the head of a `.npy` of `size` bytes, and refuse what it must not hold."""
    start = file.read(8)
    if start[:6] != b"\x93NUMPY" or start[6:7] not in (b"\x01", b"\x02", b"\x03"):
        raise DataError("it cannot be read: it is no .npy")
    form = "<H" if start[6] == 1 else "<I"
    length = struct.unpack(form, file.read(struct.calcsize(form)))[0]
    if length > _MOST_HEADER:
        raise DataError("it cannot be read: its head is too long")
    try:
        facts = ast.literal_eval(file.read(length).decode("latin-1"))
        dtype, shape = np.dtype(facts["descr"]), facts["shape"]
        is_fortran = bool(facts["fortran_order"])
    except Exception as error:  # it may hold anything but what it should
        raise DataError("it cannot be read: its head is damaged") from error
    if dtype.kind not in _NUMBERS + _TEXT or dtype.subdtype is not None:
        raise DataError(
            "it holds Python objects, which are not unpickled"
            if dtype.hasobject
            else f"values of the kind {dtype.name} are not read"
        )
    if not (isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)):
        raise DataError("it cannot be read: its shape is none")
    offset = 8 + struct.calcsize(form) + length
    header = _Header(shape, dtype, is_fortran, offset)
    if header.n_bytes + offset > size:
        raise DataError(f"it cannot be read: it ends before its {prod(shape)} values do")
    return header
