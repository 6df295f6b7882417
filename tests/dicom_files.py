"""DICOM files for tests: series, segmentations and structure sets from plain arrays."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from promptseg.curation import Curation

CT, MR, US, DX = (f"1.2.840.10008.5.1.4.1.1.{tail}" for tail in ("2", "4", "6.1", "1.1"))
SC = "1.2.840.10008.5.1.4.1.1.7"
RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
KEY = Path(__file__)  # any file of 16 bytes is a key of names


def clinical(**settings: object) -> Curation:
    """Make settings of a curation that has a key, which DICOM needs."""
    return Curation(**{"key": KEY, **settings})


def uid(*words: object) -> str:
    """Make a UID that is the same in every run."""
    return generate_uid(entropy_srcs=[str(word) for word in words])


def dataset(sop_class: str, sop_uid: str, syntax: str = ExplicitVRLittleEndian) -> FileDataset:
    """Make an empty object of a patient without a name."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, sop_uid
    meta.TransferSyntaxUID = syntax
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = sop_class, sop_uid
    data.StudyInstanceUID, data.FrameOfReferenceUID = uid("study"), uid("space")
    data.PatientID, data.PatientName, data.PatientBirthDate, data.PatientSex = "p1", "", "", ""
    data.StudyID = data.StudyDate = data.StudyTime = data.AccessionNumber = ""
    data.ReferringPhysicianName = data.Manufacturer = ""
    data.SeriesNumber, data.InstanceNumber = 1, 1
    return data


def put_pixels(data: Dataset, pixels: np.ndarray, photometric: str = "MONOCHROME2") -> None:
    """Set the pixels of one frame, or of several: (h, w), (h, w, 3), (n, h, w) or (n, h, w, 3)."""
    colours = photometric not in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
    shape = pixels.shape[:-1] if colours else pixels.shape
    data.Rows, data.Columns = shape[-2:]
    if len(shape) == 3:
        data.NumberOfFrames = shape[0]
    data.SamplesPerPixel = 3 if colours else 1
    if colours:
        data.PlanarConfiguration = 0
    data.PhotometricInterpretation = photometric
    data.BitsAllocated = data.BitsStored = pixels.dtype.itemsize * 8
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    raw = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    data.PixelData = raw + b"\0" * (len(raw) % 2)
    data["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"


def native(
    voxels: np.ndarray, affine: np.ndarray, axes: tuple[int, int, int], flips: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """Turn a volume (i, j, k) into slices of an acquisition.

    `axes` are the axes of the volume that columns, rows and slices are counted along, `flips`
    those of c, r, s that are counted backwards. Returns (slice, row, column), and the map from
    (column, row, slice) to mm in LPS.
    """
    turned = voxels.transpose(axes[2], axes[1], axes[0])
    steps = LPS @ affine
    columns = [steps[:3, axis].copy() for axis in axes]
    origin = steps[:3, 3].copy()
    for number, (letter, axis) in enumerate(zip("crs", axes, strict=True)):
        if letter in flips:
            turned = np.flip(turned, 2 - number)
            origin += columns[number] * (voxels.shape[axis] - 1)
            columns[number] = -columns[number]
    moved = np.eye(4)
    moved[:3] = np.column_stack([*columns, origin])
    return turned, moved


def series(
    slices: np.ndarray,
    affine: np.ndarray,
    sop_class: str = CT,
    name: object = "a",
    **values: object,
) -> list[FileDataset]:
    """Make a series of one file a slice; `affine` from (column, row, slice) to LPS."""
    files = []
    x, y, step = (affine[:3, axis] for axis in range(3))
    for k, pixels in enumerate(slices):
        data = dataset(sop_class, uid(name, k))
        data.SeriesInstanceUID = uid(name)
        data.Modality = {CT: "CT", MR: "MR"}.get(sop_class, "OT")
        data.InstanceNumber = k + 1
        data.ImageOrientationPatient = [
            f"{v:.12g}" for v in (*(x / np.linalg.norm(x)), *(y / np.linalg.norm(y)))
        ]
        data.ImagePositionPatient = [f"{v:.10g}" for v in affine[:3, 3] + k * step]
        data.PixelSpacing = [f"{np.linalg.norm(v):.12g}" for v in (y, x)]
        data.SliceThickness = f"{np.linalg.norm(step):.10g}"
        data.RescaleSlope, data.RescaleIntercept = 1, 0
        put_pixels(data, np.ascontiguousarray(pixels))
        for keyword, value in values.items():
            setattr(data, keyword, value)
        files.append(data)
    return files


def save(folder: Path, files: list[FileDataset], names: object = "{:03d}.dcm") -> Path:
    """Write files into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(files):
        name = names.format(number) if isinstance(names, str) else names[number]
        data.save_as(folder / name, enforce_file_format=True)
    return folder


def segmentation(
    sources: list[FileDataset],
    masks: np.ndarray,
    labels: list[str],
    form: str = "BINARY",
    **options: object,
) -> Dataset:
    """Write a segmentation by highdicom; masks are (n, h, w, segments)."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    segments = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=codes.SCT.Liver,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, label in enumerate(labels, start=1)
    ]
    return hd.seg.Segmentation(
        source_images=sources,
        pixel_array=masks,
        segmentation_type=getattr(hd.seg.SegmentationTypeValues, form),
        segment_descriptions=segments,
        series_instance_uid=uid("seg", *labels),
        series_number=9,
        sop_instance_uid=uid("seg instance", *labels),
        instance_number=1,
        manufacturer="m",
        manufacturer_model_name="m",
        software_versions="1",
        device_serial_number="1",
        **options,
    )


def structure_set(
    sources: list[FileDataset], rois: dict[str, list[np.ndarray]], kind: str = "CLOSED_PLANAR"
) -> FileDataset:
    """Make a structure set; contours are points (n, 3) in mm, LPS."""
    data = dataset(RTSTRUCT, uid("rtstruct", *rois))
    data.SeriesInstanceUID, data.Modality = uid("rt series"), "RTSTRUCT"
    one = Dataset()
    one.SeriesInstanceUID = sources[0].SeriesInstanceUID
    one.ContourImageSequence = Sequence([_reference(source) for source in sources])
    study, frame = Dataset(), Dataset()
    study.RTReferencedSeriesSequence = Sequence([one])
    frame.FrameOfReferenceUID = sources[0].FrameOfReferenceUID
    frame.RTReferencedStudySequence = Sequence([study])
    data.ReferencedFrameOfReferenceSequence = Sequence([frame])
    names, drawn = [], []
    for number, (name, contours) in enumerate(rois.items(), start=1):
        roi, contour_of = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = number, name
        contour_of.ReferencedROINumber = number
        contour_of.ContourSequence = Sequence([_contour(points, kind) for points in contours])
        names.append(roi)
        drawn.append(contour_of)
    data.StructureSetROISequence, data.ROIContourSequence = Sequence(names), Sequence(drawn)
    return data


def _contour(points: np.ndarray, kind: str) -> Dataset:
    item = Dataset()
    item.ContourGeometricType, item.NumberOfContourPoints = kind, len(points)
    item.ContourData = [f"{value:.6f}" for value in np.ravel(points)]
    return item


def _reference(source: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = source.SOPClassUID
    item.ReferencedSOPInstanceUID = source.SOPInstanceUID
    return item
