"""What a file says of each of its frames, in the header itself or in functional groups."""

from typing import TYPE_CHECKING

from promptseg.errors import DataError
from promptseg.reader.dicom.header import (
    first,
    items,
    number,
    numbers,
    spacing_in,
    stated,
    text,
    value,
    whole,
)
from promptseg.reader.dicom.model import Slice, Vector

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_NEARLY = 1e-3  # of a direction: cosines are written with few digits


def frames_of(
    data: "Dataset", source: str, sop_uid: str, count: int, spacing: tuple[float, float] | None
) -> tuple[Slice, ...]:
    """Describe all frames of an image; `spacing` is what the header itself says of the plane."""
    shared = first(data, "SharedFunctionalGroupsSequence")
    own = items(data, "PerFrameFunctionalGroupsSequence")
    own_or_none = own if len(own) == count else [None] * count
    is_enhanced = shared is not None or bool(own)
    return tuple(
        _frame(_Sources(data, shared, group, is_enhanced), source, (sop_uid, index, count), spacing)
        for index, group in enumerate(own_or_none)
    )


class _Sources:
    """Where a frame's facts may stand: in its own group, in the shared one, or in the header."""

    def __init__(
        self, data: "Dataset", shared: "Dataset | None", own: "Dataset | None", is_enhanced: bool
    ) -> None:
        self.data, self.shared, self.own, self.is_enhanced = data, shared, own, is_enhanced

    def group(self, keyword: str) -> "Dataset | None":
        """Give a functional group; the header itself in an ordinary file."""
        if not self.is_enhanced:
            return self.data
        found = first(self.own, keyword)
        return first(self.shared, keyword) if found is None else found


def _frame(
    facts: _Sources, source: str, name: tuple[str, int, int], spacing: tuple[float, float] | None
) -> Slice:
    sop_uid, index, count = name
    position = _position(facts)
    if count > 1 and not facts.is_enhanced:
        position = None  # it would be the same of all frames: a cine
    axes = directions(facts.group("PlaneOrientationSequence"))
    measures = facts.group("PixelMeasuresSequence")
    if facts.is_enhanced and measures is not None:
        spacing = spacing_in(measures, "PixelSpacing") or spacing
    thickness = None if measures is None else number(measures, "SliceThickness")
    is_placed = position is not None and axes is not None
    return Slice(
        path=source,
        frame=index,
        n_frames=count,
        sop_uid=sop_uid,
        number=(whole(facts.data, "InstanceNumber") or 0, index),
        position=position if is_placed else None,
        along_x=axes[0] if axes and is_placed else None,
        along_y=axes[1] if axes and is_placed else None,
        spacing_yx_mm=spacing,
        thickness_mm=thickness if thickness and thickness > 0 else None,
        slope=_rescale(facts)[0],
        intercept=_rescale(facts)[1],
        padding=_padding(facts.data),
        window=_window(facts.group("FrameVOILUTSequence")),
        marks=_marks(facts),
    )


def _position(facts: _Sources) -> Vector | None:
    data = facts.group("PlanePositionSequence")
    found = None if data is None else numbers(data, "ImagePositionPatient", 3)
    return None if found is None else (found[0], found[1], found[2])


def directions(data: "Dataset | None") -> tuple[Vector, Vector] | None:
    """Give the two directions of a picture, if they are of length 1 and at right angles."""
    found = None if data is None else numbers(data, "ImageOrientationPatient", 6)
    if found is None:
        return None
    x, y = found[:3], found[3:]
    dots = [_dot(x, x) - 1, _dot(y, y) - 1, _dot(x, y)]
    if max(map(abs, dots)) > 2 * _NEARLY:
        return None
    return (x[0], x[1], x[2]), (y[0], y[1], y[2])


def _dot(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return sum(p * q for p, q in zip(a, b, strict=True))


def _rescale(facts: _Sources) -> tuple[float, float]:
    data = facts.group("PixelValueTransformationSequence")
    data = facts.data if data is None else data
    slope, intercept = stated(data, "RescaleSlope"), stated(data, "RescaleIntercept")
    if slope == 0.0:
        raise DataError("its RescaleSlope is zero")
    return 1.0 if slope is None else slope, intercept or 0.0


def _padding(data: "Dataset") -> tuple[int, int] | None:
    low = whole(data, "PixelPaddingValue")
    if low is None:
        return None
    limit = whole(data, "PixelPaddingRangeLimit")
    limit = low if limit is None else limit
    return min(low, limit), max(low, limit)


def _window(data: "Dataset | None") -> tuple[float, float] | None:
    """Give the values that the first window shows as black and white."""
    if data is None:
        return None
    center, width = number(data, "WindowCenter"), number(data, "WindowWidth")
    if center is None or width is None or width < 1:
        return None
    if text(data, "VOILUTFunction") in ("LINEAR_EXACT", "SIGMOID"):
        return center - width / 2, center + width / 2
    if width == 1:
        return None
    return center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2


def _marks(facts: _Sources) -> tuple[float | None, ...]:
    """List what tells pictures of one place apart."""
    content = facts.group("FrameContentSequence")
    echo, diffusion = facts.group("MREchoSequence"), facts.group("MRDiffusionSequence")
    cardiac = facts.group("CardiacSynchronizationSequence")
    stack = None if content is None else value(content, "StackID")
    return (
        _of(content, "TemporalPositionIndex") or _of(facts.data, "TemporalPositionIdentifier"),
        _of(echo, "EffectiveEchoTime") or _of(facts.data, "EchoTime"),
        _of(diffusion, "DiffusionBValue"),
        _of(cardiac, "NominalCardiacTriggerDelayTime") or _of(facts.data, "TriggerTime"),
        _of(facts.data, "InversionTime"),
        float(stack) if isinstance(stack, str) and stack.isdecimal() else None,
        _of(facts.data, "AcquisitionNumber"),
    )


def _of(data: "Dataset | None", keyword: str) -> float | None:
    return None if data is None else number(data, keyword)
