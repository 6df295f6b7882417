"""DICOM files that are damaged, lie about their size, or carry what identifies a person."""

import random
import struct
import zlib

import numpy as np
import polars as pl
import pytest
from dicom_files import DX, RTSTRUCT, clinical, dataset, put_pixels, save, segmentation, series, uid
from dicom_files import structure_set as structures
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from promptseg.corpus import part_paths
from promptseg.curation import curate
from promptseg.errors import DataError
from promptseg.reader.dicom import header

# pycocotools has not followed NumPy 2 in one place; what it decodes is right
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

rng = np.random.default_rng(2)
AFFINE = np.diag([0.7, 0.7, 2.0, 1.0])
PIXELS = rng.integers(0, 900, (5, 24, 31), dtype=np.int16)
MASKS = np.zeros((5, 24, 31, 2), np.uint8)
MASKS[1:4, 3:20, 4:15, 0] = MASKS[2:5, 8:22, 9:22, 1] = 1
STAR = np.array([[12, 1.3], [15, 9.1], [24.2, 9.4], [16, 12.2], [19, 18.1], [4, 8.3]])


def good():
    """Make a sound series."""
    return series(PIXELS, AFFINE)


def contour(k):
    """Draw a contour on slice k, in mm."""
    return np.column_stack([STAR * 0.7, np.full(len(STAR), 2.0 * k)])


def reasons_beside(tmp_path, content):
    """Curate a sound series beside a file; the series has to come through. Give the reasons."""
    files = good()
    sound = segmentation(files, MASKS, ["sound", "too"])
    folder = save(tmp_path / "d", files, "good{}")
    save(folder, [sound], "sound")
    if isinstance(content, bytes):
        (folder / "bad").write_bytes(content)
    else:
        save(folder, [content], "bad")
    settings = clinical(dataset="x", modality="CT", keep_empty=True, min_area_px=0)
    list(curate(folder, tmp_path / "c", settings))
    images = pl.read_parquet(tmp_path / "c/images/*.parquet")
    assert images.filter(pl.col("plane") == "axial").height == 5
    drops = (
        pl.read_parquet(tmp_path / "c/drops/*.parquet")
        if any((tmp_path / "c/drops").glob("*"))
        else pl.DataFrame({"reason": []})
    )
    return drops["reason"].to_list()


def picture(**values):
    """Make one X-ray with values that may lie."""
    data = dataset(DX, uid("x"))
    data.SeriesInstanceUID, data.Modality = uid("xs"), "DX"
    put_pixels(data, PIXELS[0].astype(np.uint16))
    for keyword, value in values.items():
        setattr(data, keyword, value)
    return data


def as_bytes(tmp_path, data):
    """Give a file's bytes."""
    return (save(tmp_path / "w", [data], "x") / "x").read_bytes()


def packed(data, frames, syntax):
    """Put compressed frames into a file."""
    data.PixelData = encapsulate(frames)
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    data.file_meta.TransferSyntaxUID = syntax
    return data


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (
            {"Rows": 65535, "Columns": 65535},
            "its picture of 65535 x 65535 pixels cannot be handled",
        ),
        ({"Rows": 16000, "Columns": 16000}, "its 1 x 16000 x 16000 pixels are not in it"),
        ({"NumberOfFrames": 2**31 - 1}, "it says that it has 2147483647 frames"),
        ({"NumberOfFrames": 90000}, "its 90000 x 24 x 31 pixels are not in it"),
        ({"NumberOfFrames": -3}, "it says that it has -3 frames"),
        ({"Rows": 0}, "its picture is empty"),
        ({"BitsAllocated": 64}, "pixels of 16 bits in 64 are not read in grey"),
        ({"SamplesPerPixel": 3}, "it has 3 samples a pixel; expected are 1"),
        ({"PhotometricInterpretation": "HSV"}, "its photometric interpretation is not read"),
    ],
)
def test_sizes_are_checked_before_anything_is_decoded(tmp_path, values, reason):
    """What a header promises and the file cannot hold."""
    (found,) = reasons_beside(tmp_path, picture(**values))

    assert found.startswith(reason)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_a_small_compressed_file_cannot_ask_for_gigabytes(tmp_path, syntax):
    """More frames than bytes; and a picture that itself is larger than its header says."""
    siz = struct.pack(">HHIIIIIIIIH", 41, 0, 60000, 60000, 0, 0, 60000, 60000, 0, 0, 1)
    stream = b"\xff\x4f\xff\x51" + siz + b"\x07\x01\x01" + b"\xff\x90" + b"\0" * 60
    many = packed(picture(NumberOfFrames=100_000), [stream], syntax)
    (reason,) = reasons_beside(tmp_path / "a", many)
    assert "cut off" in reason
    if syntax == JPEG2000Lossless:
        (reason,) = reasons_beside(tmp_path / "b", packed(picture(), [stream], syntax))
        assert reason == "its compressed picture has another size than its header says"


def test_a_deflated_bomb_is_not_inflated(tmp_path, monkeypatch):
    """Half a gibibyte of zeros in half a mebibyte; the limit is lowered to spare the test."""
    monkeypatch.setattr(header, "MOST_INFLATED", 2**24)
    plain = as_bytes(tmp_path, picture())
    start = plain.index(b"\x08\x00\x16\x00UI")
    data = picture()
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    head = as_bytes(tmp_path, data)
    head = head[: 144 + int.from_bytes(head[140:144], "little")]
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = squeeze.compress(plain[start:]) + squeeze.compress(b"\0" * 2**25) + squeeze.flush()

    assert reasons_beside(tmp_path, head + body) == ["it inflates to more than 16 MiB"]


def test_deep_sequences_end_somewhere(tmp_path):
    """Three thousand sequences in each other."""
    plain = as_bytes(tmp_path, picture())
    at = plain.index(b"\x08\x00\x16\x00UI")
    opening = b"\x00\x52\x30\x92SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    deep = plain[: plain.index(b"\xe0\x7f\x10\x00")] + opening * 3000
    (reason,) = reasons_beside(tmp_path, deep)

    assert at
    assert "damaged" in reason or "no pixels" in reason


@pytest.mark.parametrize("number", range(12))
def test_mutated_files_have_a_reason_or_are_read(tmp_path, number):
    """Cut off, bits flipped, bytes replaced: the sound series comes through."""
    rnd = random.Random(number)
    files = good()
    made = [
        picture(),
        segmentation(files, MASKS, ["a", "b"]),
        structures(files, {"r": [contour(2)]}),
        packed(picture(), [b"\xff\x4f\xff\x51" + bytes(range(200))], JPEG2000Lossless),
    ]
    content = bytearray(as_bytes(tmp_path, made[number % len(made)]))
    if number < 4:
        content = content[: rnd.randrange(200, len(content))]
    for _ in range(8 if number >= 4 else 0):
        content[rnd.randrange(132, len(content))] = rnd.randrange(256)
    reasons = reasons_beside(tmp_path, bytes(content))

    assert all(isinstance(reason, str) and reason for reason in reasons)


SECRETS = {
    "PatientName": "Planted^Nomen",
    "PatientID": "PLANTED-7741",
    "PatientBirthDate": "19370214",
    "OtherPatientIDs": "PLANTED-8852",
    "PatientAddress": "Planted Road 9",
    "PatientComments": "planted comment",
    "InstitutionName": "Planted Hospital",
    "InstitutionAddress": "Planted Street 3",
    "ReferringPhysicianName": "Planted^Doctor",
    "PerformingPhysicianName": "Planted^Performer",
    "OperatorsName": "Planted^Operator",
    "StationName": "PLANTEDSTATION",
    "AccessionNumber": "PLANTEDACC1",
    "StudyID": "PLANTEDSTUDY",
    "StudyDate": "20190317",
    "SeriesDate": "20190318",
    "StudyDescription": "planted study words",
    "SeriesDescription": "planted series words",
    "ProtocolName": "planted protocol",
    "ImageComments": "planted picture words",
    "DeviceSerialNumber": "PLANTEDSERIAL",
    "ContentCreatorName": "Planted^Creator",
    "OverlayDescription": "planted overlay",
}
NAMES = ("Planted_Folder", "Planted_File", "1.2.826.0.1.98765", "1.2.826.0.1.87654")
ALL = sorted({*SECRETS.values(), *NAMES, "planted private", "Planted", "PLANTED", "planted"})


def planted(data, number):
    """Write what identifies a person wherever it can stand."""
    for keyword, value in SECRETS.items():
        if keyword == "OverlayDescription":
            data.add_new(0x60000022, "LO", value)
        else:
            setattr(data, keyword, value)
    block = data.private_block(0x0099, "planted private", create=True)
    block.add_new(1, "LO", "planted private")
    data.StudyInstanceUID = "1.2.826.0.1.98765.1"
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = (
        f"1.2.826.0.1.98765.2.{number}"
    )
    return data


def everything_in(folder):
    """Give all bytes of all files, and all that Parquet has compressed, as text."""
    parts = [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]
    for kind in ("images", "targets", "drops"):
        for path in part_paths(folder, kind):
            parts += [repr(row).encode() for row in pl.read_parquet(path).to_dicts()]
    return b"\n".join(parts).decode("latin-1")


def test_nothing_that_identifies_a_person_is_in_an_output(tmp_path, capfd):
    """Names, ids, dates, institutions, private tags, overlays, UIDs, paths: planted, and sought."""
    files = [planted(data, number) for number, data in enumerate(good())]
    for data in files:
        data.SeriesInstanceUID = "1.2.826.0.1.87654.1"
    folder = tmp_path / "d"
    save(folder / "Planted_Folder/sub", files, "Planted_File_{}")
    seg = planted(segmentation(files, MASKS, ["liver", "tumour"]), 50)
    save(folder / "Planted_Folder", [seg], "Planted_File_seg")
    rt = planted(structures(files, {"kidney": [contour(2)]}), 51)
    save(folder / "Planted_Folder", [rt], "Planted_File_rt.dcm")
    (folder / "Planted_Folder/Planted_File.txt").write_text("Planted")
    lost = planted(segmentation(files, MASKS[..., :1], ["other"]), 52)
    lost.ReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.826.0.1.98765.9"
    lost.FrameOfReferenceUID = "1.2.826.0.1.98765.8"
    for item in lost.ReferencedSeriesSequence[0].ReferencedInstanceSequence:
        item.ReferencedSOPInstanceUID = "1.2.826.0.1.98765.7"
    for frame in lost.PerFrameFunctionalGroupsSequence:
        del frame.DerivationImageSequence
    save(folder, [lost], "Planted_File_lost")
    for number, content in enumerate(bad_files(tmp_path, files)):
        (folder / f"Planted_File_{number}.dcm").write_bytes(content)
    out = tmp_path / "c"
    list(curate(folder, out, clinical(dataset="x", modality="CT", min_area_px=0)))
    text = everything_in(out) + "".join(capfd.readouterr())
    drops = pl.read_parquet(out / "drops/*.parquet")

    assert pl.read_parquet(out / "targets/*.parquet")["object"].n_unique() == 3
    assert drops.height >= 8
    assert [secret for secret in ALL if secret in text] == []


def bad_files(tmp_path, files):
    """Damage files that carry secrets, so that a decoder would quote them."""
    whole = as_bytes(tmp_path, files[0])
    yield whole[: len(whole) // 2]
    yield whole.replace(b"MONOCHROME2", b"PLANTED^NOM")
    yield whole.replace(b"0.7\\0.7 ", b"Planted ").replace(b"CS\x02\x00CT", b"CS\x02\x00PL")
    yield whole.replace(b"1.2.840.10008.1.2.1\0", b"1.2.826.0.1.98765.1\0")
    yield whole.replace(b"IS\x02\x000 ", b"IS\x02\x00PL")
    yield whole.replace(b"US\x02\x00\x18\x00", b"US\x02\x00PL")
    other = planted(picture(), 60)
    other.Modality = "PLANTED"
    other.SeriesInstanceUID = "1.2.826.0.1.87654.2"
    yield as_bytes(tmp_path, packed(other, [b"Planted" * 30], RLELossless))
    sr = planted(dataset("1.2.840.10008.5.1.4.1.1.88.11", "1.2.3"), 61)
    sr.Modality = "SR"
    yield as_bytes(tmp_path, sr)


def test_a_run_that_fails_quotes_nothing_either(tmp_path):
    """Its one line names the folder that the user gave, and no more."""
    data = planted(picture(), 3)
    data.Modality, data.SeriesInstanceUID = "PLANTED", "1.2.826.0.1.87654.3"
    folder = save(tmp_path / "d/Planted_Folder", [packed(data, [b"P" * 99], RLELossless)], "x")
    with pytest.raises(DataError) as raised:
        list(curate(folder.parent, tmp_path / "c", clinical(modality="CT", keep_empty=True)))

    assert not any(secret in str(raised.value) for secret in ALL)


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom would not write such names
def test_an_object_of_hostile_names_is_one_line(tmp_path):
    """Names of structures are kept, but not their line breaks, nor a novel."""
    files = good()
    rt = structures(files, {"a\nb\x07\t c" + "x" * 400: [contour(1)]})
    save(tmp_path / "d", files)
    save(tmp_path / "d", [rt], "rt")
    list(curate(tmp_path / "d", tmp_path / "c", clinical(modality="CT", min_area_px=0)))
    (name,) = pl.read_parquet(tmp_path / "c/targets/*.parquet")["object"].unique()

    assert name == ("a b c" + "x" * 400)[:100]


def test_a_structure_set_with_odd_numbers_has_a_reason(tmp_path):
    """One number for two structures."""
    files = good()
    rt = structures(files, {"a": [contour(1)], "b": [contour(2)]})
    rt.ROIContourSequence[1].ReferencedROINumber = 1
    reasons = reasons_beside(tmp_path, rt)

    assert reasons == ["its structures are not numbered"]


def test_a_segmentation_that_describes_no_frames_has_a_reason(tmp_path):
    """Its frames are there, what they are is not."""
    files = good()
    seg = segmentation(files, MASKS, ["a", "b"])
    seg.PerFrameFunctionalGroupsSequence = Sequence([Dataset()])
    reasons = reasons_beside(tmp_path, seg)

    assert reasons == ["it says that it has 6 frames, and describes 1"]
    assert RTSTRUCT
