"""Stacks of masks, one channel for each object: arrays and SciPy's sparse rows, in .npy and .npz.

Nothing is unpickled, and what a header promises is checked before it is read: a stack has as many
numbers as its image has pixels, times the channels.
"""

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from io import BufferedIOBase
from pathlib import Path
from typing import cast

import numpy as np
from jaxtyping import Integer, Shaped

from promptseg.errors import DataError
from promptseg.reader.folder import MaskFile
from promptseg.reader.image import RawMask, unreadable

SUFFIXES = (".npy", ".npz")
_SPARSE = frozenset({"data", "indices", "indptr", "shape"})
_MOST_VALUES = 2**28
_MOST_HEADER = 10_000


def channels_of(
    path: Path, file: MaskFile, names: tuple[str, ...], size: tuple[int, int]
) -> Iterator[tuple[MaskFile, RawMask]]:
    """Read a stack of masks as one mask for each object; empty ones are left away.

    Raises
    ------
    DataError
        It is damaged, or its shape is not that of its image, times the channels.
    """
    stack = read_stack(path, len(names), size)
    filled = [index for index in range(len(names)) if stack[index].any()]
    for index in filled:
        yield replace(file, object=names[index]), RawMask(stack[index])
    if not filled:
        yield file, RawMask(np.zeros(size, np.uint8))


def read_stack(path: Path, n_channels: int, size: tuple[int, int]) -> Shaped[np.ndarray, "c h w"]:
    """Read `n_channels` masks of an image of `size` (h, w); raises DataError."""
    shape = (n_channels, *size)
    try:
        return _stack(_arrays(path, shape), shape)
    except DataError:
        raise
    except Exception as error:  # damaged and hostile files make decoders raise anything
        raise unreadable(path, error) from error


def _arrays(path: Path, shape: tuple[int, int, int]) -> Mapping[str, Shaped[np.ndarray, "..."]]:
    most = int(np.prod(shape, dtype=np.float64)) + shape[0] + 1
    if most > _MOST_VALUES:
        raise DataError(f"{shape[0]} channels of {shape[2]} x {shape[1]} pixels are too many")
    if path.suffix.lower() == ".npy":
        with path.open("rb") as file:
            return {"": _array(file, most)}
    with zipfile.ZipFile(path) as archive:
        arrays = {}
        for name in archive.namelist():
            with archive.open(name) as member:
                arrays[name.removesuffix(".npy")] = _array(cast(BufferedIOBase, member), most)
        return arrays


def count_channels(path: Path) -> int:
    """Tell how many channels a stack has, by the headers of its arrays; 0: it is no stack."""
    try:
        if path.suffix.lower() == ".npy":
            with path.open("rb") as file:
                return _n_channels(_header(file)[0])
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            name = "indptr.npy" if "indptr.npy" in names else names[0]
            with archive.open(name) as member:
                shape = _header(cast(BufferedIOBase, member))[0]
        return int(np.prod(shape)) - 1 if name == "indptr.npy" else _n_channels(shape)
    except Exception:  # damaged files raise anything; they get their reason when they are read
        return 0


def _n_channels(shape: tuple[int, ...]) -> int:
    shape = shape[:3] if len(shape) == 4 and shape[3] == 1 else shape
    return min(shape[0], shape[2]) if len(shape) == 3 else 0


def _header(file: BufferedIOBase) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Read shape, order in memory and kind of an array."""
    version = np.lib.format.read_magic(file)
    if version != (1, 0):  # the headers of others may be gigabytes long
        raise DataError(f"its arrays are of version {version[0]}.{version[1]}, not 1.0")
    return np.lib.format.read_array_header_1_0(file, max_header_size=_MOST_HEADER)


def _array(file: BufferedIOBase, most: int) -> Shaped[np.ndarray, "..."]:
    """Read one array whose header is sound."""
    shape, in_columns, kind = _header(file)
    n_values = int(np.prod(shape, dtype=np.float64))
    if kind.hasobject or kind.itemsize > 16 or n_values > most:
        raise DataError(
            f"it holds {n_values} values of the kind {kind.name}, which is not what fits its image"
        )
    content = file.read(n_values * kind.itemsize)
    flat = np.frombuffer(content, kind, n_values)
    return flat.reshape(shape[::-1]).T if in_columns else flat.reshape(shape)


def _stack(
    arrays: Mapping[str, Shaped[np.ndarray, "..."]], shape: tuple[int, int, int]
) -> Shaped[np.ndarray, "c h w"]:
    if arrays.keys() >= _SPARSE:
        return _from_sparse(arrays, shape)
    if len(arrays) != 1:
        raise DataError(f"it holds {len(arrays)} arrays; expected is one, or a sparse matrix")
    (array,) = arrays.values()
    found = array.shape
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.shape == (shape[0], shape[1] * shape[2]):
        array = array.reshape(shape)
    if array.shape == (*shape[1:], shape[0]) != shape:
        array = np.moveaxis(array, 2, 0)
    if array.shape != shape:
        raise _misfit(found, shape)
    return _numbers(array)


def _numbers(array: Shaped[np.ndarray, "*shape"]) -> Shaped[np.ndarray, "*shape"]:
    """Give real numbers, of which truths are 0 and 1; raises DataError."""
    if array.dtype == np.bool_:
        return array.astype(np.uint8)
    if not np.issubdtype(array.dtype, np.integer) and not np.issubdtype(array.dtype, np.floating):
        raise DataError(f"values of the kind {array.dtype.name} are no mask")
    return array


def _misfit(found: tuple[int, ...], shape: tuple[int, int, int]) -> DataError:
    told = " x ".join(map(str, found))
    c, h, w = shape
    return DataError(f"its shape {told} is not that of {c} channels on its image, {c} x {h} x {w}")


def _from_sparse(
    arrays: Mapping[str, Shaped[np.ndarray, "..."]], shape: tuple[int, int, int]
) -> Shaped[np.ndarray, "c h w"]:
    """Spread compressed sparse rows, a row a channel, after a check of every index."""
    form = str(arrays.get("format", np.array("csr")).astype("U8"))
    if form != "csr":
        raise DataError(f"sparse matrices of the kind {form!r} are not read, only csr")
    data, indices, starts = (arrays[name] for name in ("data", "indices", "indptr"))
    told = tuple(int(n) for n in _whole(arrays["shape"]))
    n_channels, n_pixels = shape[0], shape[1] * shape[2]
    if told != (n_channels, n_pixels):
        raise _misfit(told, shape)
    columns, bounds = _whole(indices), _whole(starts)
    is_sound = (
        data.shape == columns.shape
        and bounds.shape == (n_channels + 1,)
        and bounds[0] == 0
        and bounds[-1] == len(columns)
        and (np.diff(bounds) >= 0).all()
        and (len(columns) == 0 or (columns.min() >= 0 and columns.max() < n_pixels))
    )
    if not is_sound:
        raise DataError("its sparse matrix is broken: indices outside it, or of another number")
    data = _numbers(data)
    dense = np.zeros((n_channels, n_pixels), data.dtype)
    dense[np.repeat(np.arange(n_channels), np.diff(bounds)), columns] = data
    return dense.reshape(shape)


def _whole(array: Shaped[np.ndarray, "..."]) -> Integer[np.ndarray, "n"]:
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise DataError("its sparse matrix is broken: an index is no whole number")
    return array.astype(np.int64)
