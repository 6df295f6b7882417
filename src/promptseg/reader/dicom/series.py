"""From the files of a series to its volumes and stacks of frames.

A series can hold more than one volume (times, echoes) and pictures of other kinds beside it
(localisers). Slices at even distances make a volume; others stay frames, since what lies between
them is not known.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from jaxtyping import Float

from promptseg.reader.dicom.facts import MOST_BYTES, ImageFacts
from promptseg.reader.dicom.model import Kind, Series, Slice
from promptseg.reader.dicom.patient import PLACEHOLDER, shared_placeholders

_SAME_DIRECTION = 1e-3
_SAME_EDGE = 1e-3  # of an edge
_SAME_PLACE_MM = 1e-2
_UNEVEN = 0.1  # of an edge, as grids are compared
_TILTED = 1e-2  # of the distance between slices
_TO_RAS = np.diag([-1.0, -1.0, 1.0])
BY_NUMBER = "several slices at each place, told apart by their numbers alone"
OVER = "more slices than places: of each place the one of the lowest number"
DIVIDED = "a series of pictures of several kinds (size, bits, sign): volumes of their own"
UNEVEN = "slices at uneven distances: frames of their own"
TILTED = "slices shifted against each other (a tilted gantry): frames of their own"
Dropped = tuple[str, str]  # path, reason


@dataclass(frozen=True, slots=True)
class _Group:
    """Slices of one kind, direction and spacing."""

    first: ImageFacts
    slices: list[Slice]
    notes: set[str]


def series_of(files: Iterable[ImageFacts]) -> tuple[list[Series], list[Dropped]]:
    """Sort the files of one SeriesInstanceUID into volumes and stacks.

    The result does not depend on the order or names of the files. What is there twice, and what
    makes a series larger than can be handled, is dropped.
    """
    groups: list[_Group] = []
    dropped: list[Dropped] = []
    seen: set[str] = set()
    for file in sorted(files, key=lambda file: (file.slices[0].number, file.sop_uid)):
        if file.sop_uid in seen:
            dropped.append((file.slices[0].path, "the same image is there twice"))
            continue
        seen.add(file.sop_uid)
        _put(groups, file)
    for one, other in combinations(groups, 2):
        if _are_divided(one, other):
            one.notes.add(DIVIDED)
            other.notes.add(DIVIDED)
    found = [
        _series(group, slices, how)
        for group in groups
        for slices, how in _volumes(group.slices, dropped)
    ]
    small = [series for series in found if not _is_too_large(series, dropped)]
    return sorted(small, key=lambda series: series.slices[0].number), dropped


def _put(groups: list[_Group], file: ImageFacts) -> None:
    """Put a file's frames to those that they lie beside."""
    for one in file.slices:
        group = next((g for g in groups if _goes_with(g, file, one)), None)
        if group is None:
            group = _Group(file, [], set())
            groups.append(group)
        group.slices.append(one)
        group.notes.update(file.notes)


def _goes_with(group: _Group, file: ImageFacts, one: Slice) -> bool:
    first, other = group.first, group.slices[0]
    if file.kind != first.kind or file.frame_of_reference != first.frame_of_reference:
        return False
    if one.position is None and len(file.slices) > 1 and one.sop_uid != other.sop_uid:
        return False  # each cine is a stack of its own
    return _is_close(one, other)


def _are_divided(one: _Group, other: _Group) -> bool:
    """Whether slices lie beside each other, and only their pixels are of another kind."""
    slices = one.slices[0], other.slices[0]
    is_kind = one.first.kind != other.first.kind
    return is_kind and all(item.position for item in slices) and _is_close(*slices)


def _is_close(one: Slice, other: Slice) -> bool:
    """Whether two slices have the same direction and size of pixels."""
    if (one.along_x is None) is not (other.along_x is None):
        return False
    if (one.spacing_yx_mm is None) is not (other.spacing_yx_mm is None):
        return False
    if one.spacing_yx_mm and other.spacing_yx_mm:
        ratio = np.divide(one.spacing_yx_mm, other.spacing_yx_mm)
        if np.abs(ratio - 1).max() > _SAME_EDGE:
            return False
    if one.along_x is None:
        return True
    return bool(np.abs(_axes(one) - _axes(other)).max() <= _SAME_DIRECTION)


def _axes(one: Slice) -> Float[np.ndarray, "2 3"]:
    return np.array([one.along_x, one.along_y])


def _volumes(
    slices: Sequence[Slice], dropped: list[Dropped]
) -> Iterator[tuple[list[Slice], str | None]]:
    """Sort slices by their place, and split those of several times, echoes ... apart.

    What has to be known of how that was done comes along.
    """
    if any(one.position is None for one in slices):
        if any(one.frame for one in slices):  # a cine
            yield sorted(slices, key=lambda one: one.number), None
        else:
            yield from (([one], None) for one in slices)  # pictures of their own: X-rays
        return
    places = _places(slices)
    if len(places) == len(slices):
        yield [place[0] for place in places], None
    elif parts := _by_marks(places):
        yield from (([place[0] for place in _places(part)], None) for part in parts)
    elif len({len(place) for place in places}) == 1:
        parts, how = _by_order(places)
        yield from ((part, how) for part in parts)
    else:
        yield [place[0] for place in places], OVER
        reason = "another slice lies at the same place"
        dropped += [(one.path, reason) for place in places for one in place[1:]]


def _by_marks(places: Sequence[Sequence[Slice]]) -> list[list[Slice]] | None:
    """Split slices by one mark or two, into as few parts as a place has slices.

    No place occurs in a part twice, but a part may lack some. None: no mark does that.
    """
    most = max(map(len, places))
    marks = range(len(places[0][0].marks))
    for chosen in (*combinations(marks, 1), *combinations(marks, 2)):
        parts = defaultdict[tuple[float | None, ...], list[tuple[int, Slice]]](list)
        for number, place in enumerate(places):
            for one in place:
                parts[tuple(one.marks[mark] for mark in chosen)].append((number, one))
        if len(parts) == most and all(
            len({number for number, _ in part}) == len(part) for part in parts.values()
        ):
            in_order = sorted(parts, key=lambda key: [_order(mark) for mark in key])
            return [[one for _, one in parts[key]] for key in in_order]
    return None


def _by_order(places: Sequence[Sequence[Slice]]) -> tuple[list[list[Slice]], str | None]:
    """Split slices of which each place has as many: all the first ones, all the second ones ...

    They are in the order of a mark that differs within all places, as the time since the heartbeat
    does, which is not the same from slice to slice; else in that of their numbers.
    """
    for mark in range(len(places[0][0].marks)):
        if all(len({one.marks[mark] for one in place}) == len(place) for place in places):
            in_order = [sorted(place, key=lambda one: _order(one.marks[mark])) for place in places]
            return [list(part) for part in zip(*in_order, strict=True)], None
    return [list(part) for part in zip(*places, strict=True)], BY_NUMBER


def _order(mark: float | None) -> tuple[bool, float]:
    return mark is not None, mark or 0.0


def _places(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Put slices of the same place together, in the order of places along the normal."""
    normal = _normal(slices[0])
    by_height = sorted(
        slices, key=lambda one: (float(np.dot(one.position or (0, 0, 0), normal)), one.number)
    )
    places: list[list[Slice]] = []
    for one in by_height:
        if places and _distance(places[-1][0], one) <= _SAME_PLACE_MM:
            places[-1].append(one)
        else:
            places.append([one])
    return [sorted(place, key=lambda one: one.number) for place in places]


def _distance(one: Slice, other: Slice) -> float:
    return float(np.linalg.norm(np.subtract(one.position or 0.0, other.position or 0.0)))


def _normal(one: Slice) -> Float[np.ndarray, "3"]:
    x, y = _axes(one)
    return np.asarray(np.cross(x, y))


def _series(group: _Group, slices: list[Slice], how: str | None) -> Series:
    affine, note = _affine(slices) if group.first.kind.n_colours == 1 else (None, None)
    notes = {*group.notes, *filter(None, (note, how))}
    return Series(
        uid=group.first.series_uid,
        frame_of_reference=group.first.frame_of_reference,
        kind=group.first.kind,
        slices=tuple(slices),
        affine=affine,
        patient=group.first.patient,
        notes=tuple(sorted(notes)),
    )


def _affine(slices: Sequence[Slice]) -> tuple[tuple[float, ...] | None, str | None]:
    """Give the affine of an even grid from (column, row, slice) to mm in RAS, or why there is none.

    Source: DICOM PS3.3 C.7.6.2.1.1.
    """
    one, last = slices[0], slices[-1]
    if one.position is None or one.spacing_yx_mm is None:
        return None, None
    positions = np.array([item.position for item in slices])
    normal = _normal(one)
    if len(slices) > 1:
        step = (positions[-1] - positions[0]) / (len(slices) - 1)
    elif last.thickness_mm is not None:
        step = normal * last.thickness_mm
    else:
        return None, None
    depth = float(step @ normal)
    even = positions[0] + np.arange(len(slices))[:, None] * step
    edge = min(*one.spacing_yx_mm, depth)
    if np.linalg.norm(positions - even, axis=1).max() > _UNEVEN * edge:
        return None, UNEVEN
    if np.linalg.norm(step - depth * normal) > _TILTED * depth:
        return None, TILTED
    x, y = _axes(one)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = x * one.spacing_yx_mm[1], y * one.spacing_yx_mm[0]
    affine[:3, 2], affine[:3, 3] = step, positions[0]
    affine[:3] = _TO_RAS @ affine[:3]
    return tuple(affine.ravel().tolist()), None


def native_affine(series: Series) -> Float[np.ndarray, "4 4"] | None:
    """Give the affine of a series as an array."""
    return None if series.affine is None else np.array(series.affine).reshape(4, 4)


def _is_too_large(series: Series, dropped: list[Dropped]) -> bool:
    """Drop a volume that would not fit; frames of 8 bits are read one by one."""
    kind, count = series.kind, len(series.slices)
    bytes_of_pixel = stored_bytes(kind, series.slices)
    if is_streamed(series) or count * kind.rows * kind.columns * bytes_of_pixel <= MOST_BYTES:
        return False
    reason = f"its series of {count} slices needs more than {MOST_BYTES // 2**20} MiB"
    dropped += [(path, reason) for path in sorted({one.path for one in series.slices})]
    return True


def is_streamed(series: Series) -> bool:
    """Whether a series is frames of 8 bits, which need nothing of each other."""
    kind = series.kind
    is_8_bit = kind.bits_allocated == 8 and not kind.is_signed
    return series.affine is None and (is_8_bit or kind.n_colours == 3)


def has_own_scales(slices: Sequence[Slice]) -> bool:
    """Whether what stored values stand for differs from slice to slice (PET)."""
    return len({(one.slope, one.intercept) for one in slices}) > 1


def stored_bytes(kind: Kind, slices: Sequence[Slice]) -> int:
    """Count the bytes of a pixel as it is kept."""
    return kind.samples * max(kind.bits_allocated // 8, 4 if has_own_scales(slices) else 1)


def joined(files: Iterable[ImageFacts]) -> tuple[list[Series], list[Dropped]]:
    """Sort files into series, in an order that does not depend on their names.

    Software that takes names away can give all patients the same UIDs.
    """
    by_uid = defaultdict[tuple[str, str], list[ImageFacts]](list)
    files = list(files)
    merged = shared_placeholders(files)
    for file in files:
        by_uid[file.series_uid, file.patient or ""].append(file)
    found: list[Series] = []
    dropped: list[Dropped] = []
    for uid in sorted(by_uid):
        series, left = series_of(by_uid[uid])
        note = (PLACEHOLDER,) if uid[1] in merged else ()
        found += [replace(one, notes=(*one.notes, *note)) for one in series]
        dropped += left
    return found, dropped


def without_marks(series: Series) -> Series:
    """Leave away what only sorting needs."""
    return replace(series, slices=tuple(replace(one, marks=()) for one in series.slices))
