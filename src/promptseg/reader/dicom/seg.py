"""DICOM segmentations: binary, fractional and label maps, of frames that may be sparse."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Shaped

from promptseg.errors import DataError
from promptseg.reader.dicom.drawn import Drawn, clean_name, with_instances
from promptseg.reader.dicom.facts import MOST_BYTES, MOST_FRAMES, check_pixels
from promptseg.reader.dicom.frame_facts import frames_of
from promptseg.reader.dicom.grid import TO_RAS, Places, lps_affine, to_voxels
from promptseg.reader.dicom.header import first, items, number, numbers, opened, text, whole
from promptseg.reader.dicom.model import DicomMask, Kind, Reference, Series, Slice
from promptseg.reader.dicom.pixels import read_pixels
from promptseg.reader.dicom.series import native_affine
from promptseg.reader.regrid import regrid
from promptseg.reader.volume import Volume, grid, oriented

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

HALF = 0.5
REGRIDDED = "a segmentation on another grid: nearest voxels"
_KEYWORDS = (
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated"),
    *("BitsStored", "PixelRepresentation", "NumberOfFrames", "SOPInstanceUID"),
    *("SegmentationType", "MaximumFractionalValue", "SegmentSequence", "PixelPaddingValue"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
_NEAR = 0.1  # of an edge
Matrix = Float[np.ndarray, "4 4"]
Lost = tuple[tuple[str | None, str], ...]  # object, reason
Masks = Iterator[tuple[int, int, Bool[np.ndarray, "h w"]]]
_TYPES = ("BINARY", "FRACTIONAL", "LABELMAP")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seg:
    """The header of a segmentation."""

    form: str
    kind: Kind
    names: dict[int, str]
    background: set[int]  # numbers in a label map that stand for no segment
    frames: tuple[Slice, ...]
    numbers: tuple[int | None, ...]  # the segment of each frame
    refers_to: tuple[list[Reference], ...]
    most: float  # what stands for 1 in fractions
    depth_mm: float | None  # between slices


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """What a file of masks shows on a series, what of it lies elsewhere, and what was done."""

    objects: list[Drawn]
    left_out: Lost = ()
    notes: tuple[str, ...] = ()


def read_seg(folder: Path, mask: DicomMask, series: Series, threshold: float | None) -> Drawing:
    """Read a segmentation onto the slices of a series.

    Frames lie on the slices that they refer to, or on those of the same place. If the grids
    differ, the nearest voxels are taken. A fraction counts above `threshold`, or above a half.

    Raises
    ------
    DataError
        It is damaged, or none of it lies on the series.
    """
    with opened(folder / mask.path, _KEYWORDS) as header:
        seg = _header(header.data, mask.path)
        check_pixels(header, seg.kind, len(seg.frames))
    places = Places.of(series)
    size = (seg.kind.rows, seg.kind.columns)
    at = [
        places.find(one, refers, size)
        for one, refers in zip(seg.frames, seg.refers_to, strict=True)
    ]
    limit = (HALF if threshold is None else threshold) * seg.most
    masks = _masks(folder / mask.path, seg, limit)
    notes = [f"fractional segments: fraction > {limit / seg.most:g}"] * (seg.form == "FRACTIONAL")
    own_grid = _other_grid(seg, at, series)
    if own_grid is not None:
        objects, lost = _regridded(masks, seg, series, own_grid)
        notes.append(REGRIDDED)
    elif any(place is not None for place in at):
        objects, lost = _placed(masks, seg, at, series)
    else:
        raise DataError("none of its frames lies on a slice of its image")
    return Drawing(
        objects=with_instances(objects),
        left_out=() if mask.is_shared else lost,
        notes=tuple(notes),
    )


def _placed(
    masks: Masks, seg: _Seg, at: Sequence[int | None], series: Series
) -> tuple[list[Drawn], Lost]:
    """Draw the frames on the slices where they lie, and count the others."""
    objects = {n: Drawn(name, n, series.kind.columns) for n, name in seg.names.items()}
    lost: set[int] = set()
    for index, segment, mask in masks:
        place = at[index]
        if place is not None:
            objects[segment].add(place, mask)
        elif mask.any():
            lost.add(index)
    reason = f"{len(lost)} of its frames lie on no slice of its image"
    return list(objects.values()), ((None, reason),) if lost else ()


def _header(data: "Dataset", path: str) -> _Seg:
    form = text(data, "SegmentationType") or ""
    if form not in _TYPES:
        raise DataError("its kind of segmentation is not read")
    count = whole(data, "NumberOfFrames") or 0
    own = items(data, "PerFrameFunctionalGroupsSequence")
    if not 1 <= count <= MOST_FRAMES or len(own) != count:
        raise DataError(f"it says that it has {count} frames, and describes {len(own)}")
    shared = first(data, "SharedFunctionalGroupsSequence")
    measures = [first(group, "PixelMeasuresSequence") for group in (*own[:1], shared)]
    depths = [number(m, "SpacingBetweenSlices") for m in measures if m is not None]
    most = number(data, "MaximumFractionalValue") or 255.0
    background = {0, whole(data, "PixelPaddingValue") or 0} if form == "LABELMAP" else set[int]()
    return _Seg(
        form=form,
        kind=_kind(data, form),
        names={n: name for n, name in _names(data).items() if n not in background},
        background=background,
        frames=frames_of(data, path, text(data, "SOPInstanceUID") or "", count, None),
        numbers=tuple(_number(group, shared) for group in own),
        refers_to=tuple(_references(group, shared) for group in own),
        most=most if form == "FRACTIONAL" else 1.0,
        depth_mm=next((depth for depth in depths if depth and depth > 0), None),
    )


def _kind(data: "Dataset", form: str) -> Kind:
    bits = whole(data, "BitsAllocated") or 0
    if bits not in ((1, 8) if form != "LABELMAP" else (8, 16)):
        raise DataError(f"segmentations of {bits} bits are not read")
    return Kind(
        rows=whole(data, "Rows") or 0,
        columns=whole(data, "Columns") or 0,
        samples=1,
        photometric="MONOCHROME2",
        bits_allocated=bits,
        bits_stored=bits,
        is_signed=False,
        modality="SEG",
    )


def _names(data: "Dataset") -> dict[int, str]:
    names: dict[int, str] = {}
    for item in items(data, "SegmentSequence"):
        value = whole(item, "SegmentNumber")
        if value is None or value in names:
            raise DataError("its segments are not numbered")
        meaning = first(item, "SegmentedPropertyTypeCodeSequence")
        label = clean_name(text(item, "SegmentLabel"))
        code = clean_name(None if meaning is None else text(meaning, "CodeMeaning"))
        names[value] = label or code or f"segment {value}"
    return names


def _number(own: "Dataset", shared: "Dataset | None") -> int | None:
    for group in (own, shared):
        found = first(group, "SegmentIdentificationSequence")
        if found is not None:
            return whole(found, "ReferencedSegmentNumber")
    return None


def _references(own: "Dataset", shared: "Dataset | None") -> list[Reference]:
    """List the frames that a frame was drawn on."""
    found: list[Reference] = []
    for group in (own, shared):
        for derivation in items(group, "DerivationImageSequence"):
            for image in items(derivation, "SourceImageSequence"):
                uid = text(image, "ReferencedSOPInstanceUID")
                frames = numbers(image, "ReferencedFrameNumber")
                if uid:
                    found += (
                        [(uid, int(frame) - 1) for frame in frames] if frames else [(uid, None)]
                    )
    return found


def _masks(path: Path, seg: _Seg, limit: float) -> Masks:
    """Decode frame by frame: its index, the number of a segment, and its mask."""
    frames = read_pixels(path, seg.kind, len(seg.frames), range(len(seg.frames)))
    for index, frame in enumerate(frames):
        if seg.form == "LABELMAP":
            for value in sorted({int(value) for value in np.unique(frame)} - seg.background):
                if value not in seg.names:
                    raise DataError(f"it holds the value {value}, of which it lists no segment")
                yield index, value, frame == value
            continue
        number = seg.numbers[index]
        if number not in seg.names or number is None:
            raise DataError("one of its frames shows a segment that it does not list")
        yield index, number, _above(frame, seg, limit)


def _above(frame: Shaped[np.ndarray, "h w"], seg: _Seg, limit: float) -> Bool[np.ndarray, "h w"]:
    above: Bool[np.ndarray, "h w"] = frame > (limit if seg.form == "FRACTIONAL" else 0)
    return above


def _other_grid(seg: _Seg, at: Sequence[int | None], series: Series) -> Matrix | None:
    """Give the segmentation's own grid, if it has to be brought to the one of the series."""
    inverse = to_voxels(series)
    is_placed = all(one.position is not None and one.spacing_yx_mm for one in seg.frames)
    if inverse is None or not is_placed:
        return None
    lost = [one for one, place in zip(seg.frames, at, strict=True) if place is None]
    if not any(_is_inside(one, inverse, series, seg) for one in lost):
        return None
    return _own_grid(seg)


def _is_inside(one: Slice, inverse: Matrix, series: Series, seg: _Seg) -> bool:
    """Whether the middle of a frame lies within the volume."""
    middle = np.array([(seg.kind.columns - 1) / 2, (seg.kind.rows - 1) / 2, 0, 1])
    voxel = (inverse @ lps_affine(one, np.zeros(3)) @ middle)[:3]
    limits = np.array(series.shape[::-1])
    return bool(((voxel > -0.5) & (voxel < limits - 0.5)).all())


def _own_grid(seg: _Seg) -> Matrix:
    """Give the map from (column, row, slice) of the segmentation to mm in the patient (LPS)."""
    one = seg.frames[0]
    normal = np.cross(np.array(one.along_x), np.array(one.along_y))
    heights = {f: round(float(np.dot(f.position or 0, normal)), 4) for f in seg.frames}
    gaps = np.diff(np.unique(list(heights.values())))
    depth = seg.depth_mm or (float(gaps.min()) if gaps.size else one.thickness_mm)
    if not depth:
        raise DataError("it lies on another grid and does not say how far apart its slices are")
    return lps_affine(min(seg.frames, key=heights.__getitem__), normal * depth)


def _regridded(
    masks: Masks, seg: _Seg, series: Series, own_grid: Matrix
) -> tuple[list[Drawn], Lost]:
    """Bring a segmentation from its own grid to the one of the series."""
    own = {n: Drawn(name, n, seg.kind.columns) for n, name in seg.names.items()}
    to_own = np.linalg.inv(own_grid)
    for index, segment, mask in masks:
        voxel = (to_own @ np.array([*(seg.frames[index].position or ()), 1.0]))[:3]
        k = round(float(voxel[2]))
        if np.abs(voxel - (0, 0, k)).max() > _NEAR or not 0 <= k < MOST_FRAMES:
            raise DataError("it lies on another grid, and its own slices are at uneven distances")
        own[segment].add(k, mask)
    n_planes = 1 + max((k for one in own.values() for k in one.planes), default=0)
    if n_planes * seg.kind.rows * seg.kind.columns > MOST_BYTES:
        raise DataError("it lies on another grid, which is too large to be brought to its image's")
    shape = (seg.kind.columns, seg.kind.rows, n_planes)
    found, lost = [], list[tuple[str | None, str]]()
    for one in own.values():
        moved = Drawn(one.name, one.number, series.kind.columns)
        try:
            lost += [
                (one.name, why) for why in _move(one, moved, grid(shape, TO_RAS @ own_grid), series)
            ]
        except DataError as error:
            lost.append((one.name, str(error)))
        found.append(moved)
    return found, tuple(lost)


def _move(one: Drawn, moved: Drawn, own: Volume, series: Series) -> list[str]:
    """Draw an object at the nearest voxels, as volumes of other formats are, and tell what is lost.

    Raises DataError where it lies wholly beside the series.
    """
    affine = native_affine(series)
    if affine is None or not one.planes:
        return []
    voxels = np.zeros(own.voxels.shape, np.uint8)
    for k in one.planes:
        voxels[:, :, k] = one.mask(k).T
    turned = oriented(replace(own, voxels=voxels))
    fitted = regrid(turned.voxels, turned, grid(series.shape[::-1], affine))
    for index in range(len(series.slices)):
        moved.add(index, fitted.values[:, :, index].T > 0)
    loss = fitted.loss((1,))
    return [] if loss is None else [loss[1]]
