"""What one DICOM file holds: slices of a series, or a mask, or nothing that is read."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from promptseg.errors import DataError
from promptseg.reader.dicom import code
from promptseg.reader.dicom.frame_facts import frames_of
from promptseg.reader.dicom.header import (
    Header,
    first,
    items,
    number,
    numbers,
    opened,
    spacing_in,
    text,
    value,
    whole,
)
from promptseg.reader.dicom.model import Kind, Slice

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MOST_BYTES = 2**31  # of all pixels of a file or a series
MOST_PIXELS = 2**28  # of one picture
MOST_FRAMES = 100_000
_SAME_SPACING = 1e-3
KIND = ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated")
KIND_MORE = ("BitsStored", "HighBit", "PixelRepresentation", "PlanarConfiguration")
IDENTITY = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality", "InstanceNumber")
PATIENT = ("PatientID", "PatientName", "StudyInstanceUID")
GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness")
SPACING = ("SpacingBetweenSlices", "ImagerPixelSpacing", "PixelSpacingCalibrationType")
ULTRASOUND = ("SequenceOfUltrasoundRegions",)
VALUES = ("RescaleSlope", "RescaleIntercept", "PixelPaddingValue", "PixelPaddingRangeLimit")
WINDOW = ("WindowCenter", "WindowWidth", "VOILUTFunction", "ModalityLUTSequence")
FRAMES = ("NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
MARKS = ("TemporalPositionIdentifier", "EchoTime", "DiffusionBValue")
MARKS_MORE = ("TriggerTime", "InversionTime", "AcquisitionNumber")
OTHERS = ("FrameOfReferenceUID", "BurnedInAnnotation")
REFERENCES = ("ReferencedSeriesSequence", "ReferencedFrameOfReferenceSequence")
_ALL = (
    *(*KIND, *KIND_MORE, *IDENTITY, *PATIENT, *GEOMETRY, *SPACING, *ULTRASOUND, *VALUES, *WINDOW),
    *(*FRAMES, *MARKS, *MARKS_MORE, *OTHERS, *REFERENCES),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """The slices that one file brings to a series."""

    series_uid: str
    sop_uid: str
    frame_of_reference: str | None
    kind: Kind
    slices: tuple[Slice, ...]
    patient: str | None
    study_uid: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskFacts:
    """A file of masks, and the images that it refers to."""

    form: str  # seg or rtstruct
    series_uids: frozenset[str]
    sop_uids: frozenset[str]
    frame_of_reference: str | None
    patient: str | None


class NoMaskError(DataError):
    """What is wrong with a file that surely holds no masks."""


def read_facts(folder: Path, source: str) -> ImageFacts | MaskFacts:
    """Read the header of a file.

    Raises
    ------
    DataError
        It is damaged, or holds neither images nor masks.
    """
    with opened(folder / source, _ALL) as header:
        sop_class = text(header.data, "SOPClassUID") or ""
        media = text(header.meta, "MediaStorageSOPClassUID")
        if code.DICOMDIR in (sop_class, media):
            raise NoMaskError("a DICOMDIR lists files and holds no image")
        if sop_class in code.SEGMENTATIONS:
            return _mask(header.data, "seg")
        if sop_class == code.RTSTRUCT:
            return _mask(header.data, "rtstruct")
        try:
            return _image(header, source, sop_class)
        except DataError as error:
            raise (NoMaskError(str(error)) if sop_class else error) from error


def _mask(data: "Dataset", form: str) -> MaskFacts:
    """List what a mask refers to, in the frames too if nowhere else."""
    series, instances = set[str | None](), set[str | None]()
    listed = items(data, "ReferencedSeriesSequence")
    frames = items(data, "ReferencedFrameOfReferenceSequence")
    for frame in frames:
        for study in items(frame, "RTReferencedStudySequence"):
            listed += items(study, "RTReferencedSeriesSequence")
    for item in listed:
        series.add(text(item, "SeriesInstanceUID"))
        for word in ("ReferencedInstanceSequence", "ContourImageSequence"):
            instances |= {text(one, "ReferencedSOPInstanceUID") for one in items(item, word)}
    for frame in items(data, "PerFrameFunctionalGroupsSequence"):
        for derivation in items(frame, "DerivationImageSequence"):
            found = items(derivation, "SourceImageSequence")
            instances |= {text(one, "ReferencedSOPInstanceUID") for one in found}
    reference = text(data, "FrameOfReferenceUID")
    if reference is None and frames:
        reference = text(frames[0], "FrameOfReferenceUID")
    return MaskFacts(
        form=form,
        series_uids=frozenset(filter(None, series)),
        sop_uids=frozenset(filter(None, instances)),
        frame_of_reference=reference,
        patient=_patient(data),
    )


def _patient(data: "Dataset") -> str | None:
    return text(data, "PatientID") or text(data, "PatientName")


def _image(header: Header, source: str, sop_class: str) -> ImageFacts:
    data = header.data
    modality = code.modality_code(text(data, "Modality"))
    if sop_class in code.NO_IMAGES:
        raise DataError(f"a {code.NO_IMAGES[sop_class]} is no image")
    if modality in code.OBJECTS:
        raise DataError(f"a DICOM object of the kind {modality} holds no image")
    if None in (whole(data, "Rows"), whole(data, "Columns")):
        raise DataError("its header says of no picture how large it is, or is cut off")
    series_uid, sop_uid = text(data, "SeriesInstanceUID"), text(data, "SOPInstanceUID")
    if series_uid is None or sop_uid is None:
        raise DataError("it does not say of which series it is")
    kind = _kind(data, modality)
    count = _count(header, kind)
    spacing, note = _plane_spacing(data)
    notes = tuple(filter(None, [note, *_notes(data, kind)]))
    return ImageFacts(
        series_uid=series_uid,
        sop_uid=sop_uid,
        frame_of_reference=text(data, "FrameOfReferenceUID"),
        kind=kind,
        slices=frames_of(data, source, sop_uid, count, spacing),
        patient=_patient(data),
        study_uid=text(data, "StudyInstanceUID"),
        notes=notes,
    )


def _kind(data: "Dataset", modality: str | None) -> Kind:
    allocated = whole(data, "BitsAllocated") or 0
    photometric = text(data, "PhotometricInterpretation") or ""
    kind = Kind(
        rows=whole(data, "Rows") or 0,
        columns=whole(data, "Columns") or 0,
        samples=whole(data, "SamplesPerPixel") or 1,
        photometric=photometric,
        bits_allocated=allocated,
        bits_stored=whole(data, "BitsStored") or allocated,
        is_signed=whole(data, "PixelRepresentation") == 1,
        modality=modality,
    )
    if kind.rows < 1 or kind.columns < 1:
        raise DataError("its picture is empty")
    if photometric not in (*code.GREY, *code.COLOURS):
        raise DataError("its photometric interpretation is not read")
    n_samples = 1 if photometric in (*code.GREY, "PALETTE COLOR") else 3
    if kind.samples != n_samples:
        raise DataError(f"it has {kind.samples} samples a pixel; expected are {n_samples}")
    depths = (8,) if n_samples == 3 else (8, 16, 32)
    if allocated not in depths or not 1 <= kind.bits_stored <= allocated:
        raise DataError(
            f"pixels of {kind.bits_stored} bits in {allocated} are not read in "
            f"{'colour' if n_samples == 3 else 'grey'}"
        )
    if (whole(data, "HighBit") or 0) >= kind.bits_stored:
        raise DataError("its pixels are not in the lowest of their bits, which is not read")
    return kind


def _count(header: Header, kind: Kind) -> int:
    """Count the frames, and refuse what a file promises and cannot hold."""
    count = whole(header.data, "NumberOfFrames")
    count = 1 if count is None else count
    if not 1 <= count <= MOST_FRAMES:
        raise DataError(f"it says that it has {count} frames; expected are 1 to {MOST_FRAMES}")
    check_pixels(header, kind, count)
    return count


def check_pixels(header: Header, kind: Kind, count: int) -> None:
    """Refuse more pixels than can be handled, or than the file is long for; raises DataError."""
    if kind.rows * kind.columns > MOST_PIXELS:
        raise DataError(f"its picture of {kind.columns} x {kind.rows} pixels cannot be handled")
    size = f"its {count} x {kind.rows} x {kind.columns} pixels"
    bits = kind.rows * kind.columns * kind.samples * kind.bits_allocated
    if bits // 8 * (count if kind.bits_allocated > 8 else 1) > MOST_BYTES:
        raise DataError(f"{size} are more than {MOST_BYTES // 2**20} MiB")
    is_subsampled = kind.photometric == "YBR_FULL_422"  # two of three samples are stored
    promised = bits * count // 8 * (2 if is_subsampled else 3) // 3
    left = header.n_bytes - header.stream.tell()
    if left < 8:
        raise DataError("it has no pixels")
    if left < (8 * count if header.syntax.is_encapsulated else promised):
        raise DataError(f"{size} are not in it: the file is cut off")


def _plane_spacing(data: "Dataset") -> tuple[tuple[float, float] | None, str | None]:
    """Find the size of a pixel (y, x) in mm in the patient, and say what is not used."""
    spacing = spacing_in(data, "PixelSpacing")
    imager = spacing_in(data, "ImagerPixelSpacing")
    is_in_space = numbers(data, "ImageOrientationPatient", 6) is not None
    if imager and not is_in_space:
        is_calibrated = text(data, "PixelSpacingCalibrationType") in ("GEOMETRY", "FIDUCIAL")
        if spacing and (is_calibrated or not _are_close(spacing, imager)):
            return spacing, None
        return None, "spacing unknown: the detector's is not the patient's"
    regions = items(data, "SequenceOfUltrasoundRegions")
    if spacing is None and len(regions) == 1:
        return _of_region(regions[0])
    return spacing, None


def _of_region(region: "Dataset") -> tuple[tuple[float, float] | None, str | None]:
    """Give the spacing of the only region of an ultrasound picture, if it is measured in cm."""
    is_cm = {whole(region, f"PhysicalUnits{axis}Direction") for axis in "XY"} == {3}
    deltas = [number(region, f"PhysicalDelta{axis}") for axis in "YX"]
    if is_cm and all(deltas):
        y, x = (abs(delta or 0.0) * 10 for delta in deltas)
        return (y, x), None
    return None, None


def _are_close(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether two spacings are the same, written with more digits or fewer."""
    return all(math.isclose(a, b, rel_tol=_SAME_SPACING) for a, b in zip(one, other, strict=True))


def _notes(data: "Dataset", kind: Kind) -> list[str]:
    """Say what the reader of the corpus should know of a picture."""
    notes = []
    if kind.photometric == "MONOCHROME1":
        notes.append("MONOCHROME1, inverted")
    said = text(data, "BurnedInAnnotation")
    is_prone = kind.modality in ("US", "IVUS", "SC", "OT", "ES") or kind.n_colours == 3
    if said == "YES":
        notes.append("text is burnt in, its header says")
    elif said != "NO" and is_prone:
        notes.append("text may be burnt in: the header does not deny it")
    if value(data, "ModalityLUTSequence") is not None and first(data, "ModalityLUTSequence"):
        notes.append("its modality table is not applied")
    return notes
