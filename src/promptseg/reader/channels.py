"""Stacks of masks, one channel for each object: arrays and SciPy's sparse rows, in .npy and .npz.

Nothing is unpickled, and what a header promises is checked before it is read: a stack has as many
numbers as its image has pixels, times the channels.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
from jaxtyping import Integer, Shaped

from promptseg.errors import DataError
from promptseg.reader.array import arrays_in, mapped
from promptseg.reader.folder import MaskFile
from promptseg.reader.image import RawMask

_SPARSE = frozenset({"data", "indices", "indptr", "shape"})
_MOST_VALUES = 2**28


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
    most = prod(shape) + n_channels + 1
    if most > _MOST_VALUES:
        raise DataError(f"{n_channels} channels of {size[1]} x {size[0]} pixels are too many")
    if path.suffix.lower() == ".npy":
        array = mapped(path)
        _check(array.shape, array.dtype, most)
        return _stack({"": np.array(array)}, shape)
    arrays = arrays_in(path)
    for header in arrays.headers.values():
        _check(header.shape, header.dtype, most)
    return _stack(arrays, shape)


def _check(shape: tuple[int, ...], kind: np.dtype[np.generic], most: int) -> None:
    if prod(shape) > most or kind.itemsize > 16:
        raise DataError(
            f"it holds {prod(shape)} values of the kind {kind.name}, which is not what fits its "
            "image"
        )


def count_channels(path: Path) -> int:
    """Tell how many channels a stack has, by the headers of its arrays; 0: it is no stack."""
    try:
        if path.suffix.lower() == ".npy":
            return _n_channels(mapped(path).shape)
        headers = arrays_in(path).headers
    except DataError:  # reported when it is read
        return 0
    if "indptr" in headers:
        return prod(headers["indptr"].shape) - 1
    return max((_n_channels(header.shape) for header in headers.values()), default=0)


def _n_channels(shape: tuple[int, ...]) -> int:
    shape = shape[:3] if len(shape) == 4 and shape[3] == 1 else shape
    return min(shape[0], shape[2]) if len(shape) == 3 else 0


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
