"""The voxels of a series: stored once, decoded file by file."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Shaped, UInt8

from promptseg.reader.dicom.model import Kind, Series, Slice
from promptseg.reader.dicom.pixels import read_pixels
from promptseg.reader.dicom.series import has_own_scales, native_affine
from promptseg.reader.volume import Volume

PADDED = "padding is shown as the darkest value that is none"


def read_series(folder: Path, series: Series) -> tuple[Volume, tuple[str, ...]]:
    """Read a grey series as a volume in its own order (column, row, slice), and say what was done.

    Pictures of a series without an even grid come as a volume without spacing.

    Raises
    ------
    DataError
        A file of it cannot be read.
    """
    kind, slices = series.kind, series.slices
    has_own = has_own_scales(slices)
    voxels = np.zeros(series.shape, np.float32 if has_own else _stored_type(kind))
    darkest: list[float] = []
    padded = []
    for index, frame in _frames(folder, series):
        one, scales = slices[index], scale_of(slices[index], kind)
        is_padding = _is_padding(frame, one)
        if is_padding is not None:
            padded.append(index)
            shown = frame[~is_padding]
            darkest += [_darkest(shown, scales, has_own)] if shown.size else []
        else:
            darkest.append(_darkest(frame, scales, has_own))
        voxels[index] = frame * np.float64(scales[0]) + scales[1] if has_own else frame
        if has_own and is_padding is not None:
            voxels[index][is_padding] = np.nan
    slope, intercept = (1.0, 0.0) if has_own else scale_of(slices[0], kind)
    if padded and darkest:
        least = max(darkest) if slope < 0 else min(darkest)
        for index in padded:
            plane = voxels[index]
            is_padding = np.isnan(plane) if has_own else _is_padding(plane, slices[index])
            plane[is_padding] = least
    affine = native_affine(series)
    volume = Volume(
        voxels=voxels.transpose(2, 1, 0),
        affine=np.eye(4) if affine is None else affine,
        has_spacing=affine is not None,
        has_place=affine is not None,
        slope=slope,
        intercept=intercept,
        dicom_modality=kind.modality,
        patient=series.patient,
        window=_window(series),
    )
    return volume, (PADDED,) if padded and darkest else ()


def stream(folder: Path, series: Series) -> Iterator[UInt8[np.ndarray, "h w *rgb"]]:
    """Give the pictures of a series of 8 bits one by one, in order; raises DataError."""
    for _, frame in _frames(folder, series):
        if series.kind.is_inverted:
            yield (2**series.kind.bits_stored - 1 - frame.astype(np.int16)).astype(np.uint8)
        else:
            yield np.ascontiguousarray(frame).astype(np.uint8, copy=False)


def _frames(folder: Path, series: Series) -> Iterator[tuple[int, Shaped[np.ndarray, "h w *rgb"]]]:
    """Decode every file once, in the order of the slices that it has first."""
    by_file: dict[str, list[int]] = defaultdict(list)
    for index, one in enumerate(series.slices):
        by_file[one.path].append(index)
    for path, indices in by_file.items():
        in_order = sorted(indices, key=lambda index: series.slices[index].frame)
        wanted = [series.slices[index].frame for index in in_order]
        count = series.slices[indices[0]].n_frames
        frames = read_pixels(folder / path, series.kind, count, wanted)
        yield from zip(in_order, frames, strict=True)


def _stored_type(kind: Kind) -> np.dtype[np.generic]:
    return np.dtype(f"{'i' if kind.is_signed else 'u'}{kind.bits_allocated // 8}")


def scale_of(one: Slice, kind: Kind) -> tuple[float, float]:
    """Give slope and intercept of stored values; of MONOCHROME1 so that large ones are light."""
    if not kind.is_inverted:
        return one.slope, one.intercept
    top = -1 if kind.is_signed else 2**kind.bits_stored - 1
    return -one.slope, one.slope * top + one.intercept


def _window(series: Series) -> tuple[float, float] | None:
    """Give the window that most slices have, in the values of the volume."""
    counted = Counter(one.window for one in series.slices).most_common(1)
    window = counted[0][0]
    if window is None or not series.kind.is_inverted:
        return window
    one = next(one for one in series.slices if one.window == window)
    slope, intercept = scale_of(one, series.kind)
    lo, hi = ((value - one.intercept) / one.slope * slope + intercept for value in window)
    return hi, lo


def _is_padding(frame: Shaped[np.ndarray, "h w"], one: Slice) -> Bool[np.ndarray, "h w"] | None:
    """Mark what shows nothing; None if that is not said, or nowhere so."""
    if one.padding is None:
        return None
    ends = np.array(one.padding, np.int64).astype(frame.dtype)  # signed in an unsigned picture
    found: Bool[np.ndarray, "h w"] = (frame >= ends.min()) & (frame <= ends.max())
    return found if found.any() else None


def _darkest(
    stored: Shaped[np.ndarray, "*space"], scales: tuple[float, float], is_scaled: bool
) -> float:
    """Find what stands for the darkest value, as it is stored or scaled."""
    darkest = float(stored.max() if scales[0] < 0 else stored.min())
    return darkest * scales[0] + scales[1] if is_scaled else darkest
