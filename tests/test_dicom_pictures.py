"""DICOM pictures that are no slices: X-rays, cines, colours; and all that pixels are packed in."""

import highdicom as hd
import imagecodecs
import numpy as np
import polars as pl
import pytest
from dicom_files import CT, DX, SC, US, clinical, dataset, put_pixels, save, series, uid
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from promptseg.corpus import open_corpus
from promptseg.curation import curate
from promptseg.errors import DataError
from promptseg.pixels import decode_image

# pycocotools has not followed NumPy 2 in one place; what it decodes is right
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

JPEG = "1.2.840.10008.1.2.4."
rng = np.random.default_rng(11)
GREY = np.cumsum(rng.integers(-5, 6, (24, 31)), axis=1)
AFFINE = np.diag([0.7, 0.7, 2.0, 1.0])  # in LPS: seen as stored


def curated(folder, out, **settings):
    """Curate without masks; return the rows with their pixels, and the rules."""
    settings = {"keep_empty": True, "dataset": "d", "modality": "X", **settings}
    list(curate(folder, out, clinical(**settings)))
    rows = pl.read_parquet(out / "images/*.parquet").sort("image_id").to_dicts()
    for row in rows:
        row["pixels"] = decode_image(row["image"]["bytes"], row["sha256"])
    return rows, open_corpus(out).info.rules


def picture(pixels, sop_class, modality, photometric="MONOCHROME2", **values):
    """Make one picture, or a cine."""
    data = dataset(sop_class, uid("picture"))
    data.SeriesInstanceUID, data.Modality = uid("pictures"), modality
    put_pixels(data, pixels, photometric)
    for keyword, value in values.items():
        setattr(data, keyword, value)
    return data


def pack(data, frames, syntax):
    """Put compressed frames into a file."""
    data.PixelData = encapsulate(frames)
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = syntax
    return data


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16])
@pytest.mark.parametrize(
    ("syntax", "encode"),
    [
        (f"{JPEG}57", lambda a: imagecodecs.jpeg8_encode(a, lossless=True, predictor=4)),
        (f"{JPEG}70", lambda a: imagecodecs.jpeg8_encode(a, lossless=True)),
        (f"{JPEG}80", imagecodecs.jpegls_encode),
        (
            f"{JPEG}90",
            lambda a: imagecodecs.jpeg2k_encode(a, codecformat="j2k", reversible=True),
        ),
        (f"{JPEG}201", imagecodecs.htj2k_encode),
    ],
    ids=["lossless", "sv1", "ls", "2000", "ht"],
)
def test_lossless_compression_loses_nothing(tmp_path, kind, syntax, encode):
    """Every value is there again, those below 0 too."""
    grey = np.clip(GREY + 100, 0, 255) if kind != np.int16 else GREY
    files = series(np.stack([grey, grey[::-1]]).astype(kind), AFFINE)
    for data in files:
        stored = data.pixel_array.view(np.uint16) if kind == np.int16 else data.pixel_array
        pack(data, [encode(np.ascontiguousarray(stored))], syntax)
    save(tmp_path / "d", files)
    rows, _ = curated(tmp_path / "d", tmp_path / "c")
    lo, hi = grey.min(), grey.max()

    assert (rows[0]["intensity_lo"], rows[0]["intensity_hi"]) == (lo, hi)
    for row, expected in zip(rows, (grey, grey[::-1]), strict=True):
        values = row["pixels"] / 255 * (hi - lo) + lo
        assert np.abs(values - expected).max() <= (hi - lo) / 255 / 2 + 1e-6


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless],
    ids=lambda syntax: syntax.name,
)
def test_native_syntaxes(tmp_path, syntax):
    """The same pixels in any order of bytes, deflated, and run-length encoded."""
    grey = (GREY + 500).astype(np.uint16)
    for name in ("a", "b"):
        data = picture(grey, DX, "DX")
        if name == "b" and syntax == RLELossless:
            data.compress(RLELossless, generate_instance_uid=False)
        elif name == "b":
            data.file_meta.TransferSyntaxUID = syntax
            if syntax == ExplicitVRBigEndian:
                data.PixelData = grey.astype(">u2").tobytes()
                data.set_original_encoding(False, False)
        save(tmp_path / name, [data])
    plain, other = (curated(tmp_path / name, tmp_path / f"c{name}")[0] for name in ("a", "b"))

    assert np.array_equal(plain[0]["pixels"], grey)
    assert np.array_equal(other[0]["pixels"], grey)


def test_a_jpeg_in_colour_is_what_pillow_shows(tmp_path):
    """YBR 4:2:2 in the header, RGB in the corpus, without a shift of colours."""
    colours = np.zeros((32, 48, 3), np.uint8)
    colours[:, :16, 0], colours[:, 16:32, 1], colours[:, 32:, 2] = 250, 240, 230
    Image.fromarray(colours).save(tmp_path / "a.jpg", quality=95)
    data = picture(colours, SC, "OT", "YBR_FULL_422")
    pack(data, [(tmp_path / "a.jpg").read_bytes()], f"{JPEG}50")
    save(tmp_path / "d", [data])
    rows, rules = curated(tmp_path / "d", tmp_path / "c")

    assert (
        np.abs(rows[0]["pixels"].astype(int) - np.asarray(Image.open(tmp_path / "a.jpg"))).max()
        <= 1
    )
    assert "burnt in" in rules["notes"]


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_a_cine_in_colour_gives_its_frames(tmp_path, photometric):
    """Frames in order, bit for bit in RGB, with a place in the cine and none in the patient."""
    frames = rng.integers(0, 256, (5, 20, 30, 3), dtype=np.uint8)
    data = picture(frames, US, "US", photometric, BurnedInAnnotation="NO")
    save(tmp_path / "d", [data])
    rows, rules = curated(tmp_path / "d", tmp_path / "c", modality=None)

    assert [row["slice_index"] for row in rows] == list(range(5))
    assert {row["modality"] for row in rows} == {"Ultrasound"}
    assert {(row["plane"], row["affine"], row["spacing_x_mm"]) for row in rows} == {
        ("frame", None, None)
    }
    assert "notes" not in rules
    if photometric == "RGB":
        assert all(np.array_equal(row["pixels"], frames[k]) for k, row in enumerate(rows))
    else:
        shown = np.asarray(Image.fromarray(frames[2], "YCbCr").convert("RGB")).astype(int)
        assert np.abs(rows[2]["pixels"] - shown).max() <= 2


def test_a_palette_is_applied(tmp_path):
    """Of 16 bits, as the standard has it: the upper eight are shown."""
    indices = rng.integers(0, 4, (16, 18), dtype=np.uint8)
    table = np.array([[0, 0, 0], [255, 10, 0], [0, 200, 30], [40, 50, 60]], np.uint16)
    data = picture(indices, US, "US", "PALETTE COLOR")
    for number, colour in enumerate(("Red", "Green", "Blue")):
        setattr(data, f"{colour}PaletteColorLookupTableDescriptor", [4, 0, 16])
        words = (table[:, number] << 8 | table[:, number]).astype("<u2").tobytes()
        setattr(data, f"{colour}PaletteColorLookupTableData", words)
    save(tmp_path / "d", [data])
    rows, _ = curated(tmp_path / "d", tmp_path / "c")

    assert np.array_equal(rows[0]["pixels"], table[indices])


@pytest.mark.parametrize(
    ("kind", "bits", "factor"),
    [("u1", 8, 1), ("<u2", 8, 1), ("<u2", 16, 1), ("<u2", 16, 256), ("<u2", 16, 257)],
)
@pytest.mark.parametrize("n_entries", [256, 1024])
def test_palettes_of_8_bits_are_shown_however_they_are_stored(
    tmp_path, n_entries, kind, bits, factor
):
    """In bytes or words, in the upper half of a word or the lower; numbers may be above 255."""
    indices = rng.integers(0, n_entries + 9, (16, 18), dtype=np.uint16)
    table = rng.integers(0, 256, (n_entries, 3))
    data = picture(indices, US, "US", "PALETTE COLOR")
    for number, colour in enumerate(("Red", "Green", "Blue")):
        setattr(data, f"{colour}PaletteColorLookupTableDescriptor", [n_entries, 0, bits])
        stored = (table[:, number] * factor).astype(kind).tobytes()
        setattr(data, f"{colour}PaletteColorLookupTableData", stored)
    save(tmp_path / "d", [data])
    rows, _ = curated(tmp_path / "d", tmp_path / "c")

    assert np.array_equal(rows[0]["pixels"], table[np.minimum(indices, n_entries - 1)])


def test_8_bits_with_a_sign_keep_their_order(tmp_path):
    """What is below 0 is dark."""
    grey = np.clip(GREY, -128, 127).astype(np.int8)
    save(tmp_path / "d", [picture(grey, SC, "OT")])
    rows, _ = curated(tmp_path / "d", tmp_path / "c")
    lo, hi = float(grey.min()), float(grey.max())

    assert (rows[0]["intensity_lo"], rows[0]["intensity_hi"]) == (lo, hi)
    assert np.abs(rows[0]["pixels"] / 255 * (hi - lo) + lo - grey).max() <= (hi - lo) / 510 + 1e-9


def test_pixels_in_upper_bits_have_a_reason(tmp_path):
    """12 of 16 bits, the lowest four unused: without a shift they would be cut."""
    grey = (GREY + 500).astype(np.uint16)
    save(tmp_path / "d", [picture(grey << 4, DX, "DX", BitsStored=12, HighBit=15)])
    with pytest.raises(DataError, match="not in the lowest of their bits"):
        curated(tmp_path / "d", tmp_path / "c")


def test_monochrome_1_is_inverted_and_said_to_be(tmp_path):
    """Large values are dark; of 12 bits the complement is kept."""
    grey = (GREY + 500).astype(np.uint16)
    data = picture(grey, DX, "DX", "MONOCHROME1", BitsStored=12, HighBit=11)
    save(tmp_path / "d", [data])
    rows, rules = curated(tmp_path / "d", tmp_path / "c")

    assert np.array_equal(rows[0]["pixels"], 4095 - grey)
    assert rows[0]["intensity_hi"] == 4095 - grey.min()
    assert "MONOCHROME1, inverted (1 image)" in rules["notes"]


def test_monochrome_1_of_8_bits_too(tmp_path):
    """Bit for bit but for the direction."""
    grey = np.clip(GREY + 100, 0, 255).astype(np.uint8)
    save(tmp_path / "d", [picture(grey, SC, "CR", "MONOCHROME1")])
    rows, _ = curated(tmp_path / "d", tmp_path / "c")

    assert np.array_equal(rows[0]["pixels"], 255 - grey)


def test_overlays_in_unused_bits_are_no_pixels(tmp_path):
    """Old files keep drawings above the 12 bits of the picture."""
    grey = (GREY + 500).astype(np.uint16)
    data = picture(grey | 0x8000, DX, "DX", BitsStored=12, HighBit=11)
    save(tmp_path / "d", [data])
    rows, _ = curated(tmp_path / "d", tmp_path / "c")

    assert np.array_equal(rows[0]["pixels"], grey)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"PixelSpacing": [0.3, 0.2]}, (0.3, 0.2)),
        ({"ImagerPixelSpacing": [0.3, 0.2]}, (None, None)),
        ({"ImagerPixelSpacing": [0.3, 0.2], "PixelSpacing": [0.3, 0.2]}, (None, None)),
        ({"ImagerPixelSpacing": [0.3, 0.2], "PixelSpacing": [0.25, 0.15]}, (0.25, 0.15)),
        (
            {
                "ImagerPixelSpacing": [0.3, 0.2],
                "PixelSpacing": [0.3, 0.2],
                "PixelSpacingCalibrationType": "GEOMETRY",
            },
            (0.3, 0.2),
        ),
        ({"ImagerPixelSpacing": [0.3, 0.2], "PixelSpacing": [0.30000001, 0.2]}, (None, None)),
    ],
)
def test_the_spacing_of_an_x_ray_is_the_patients_or_unknown(tmp_path, values, expected):
    """The detector's pixels are larger than what they show: magnified, by how much is not known."""
    grey = (GREY + 500).astype(np.uint16)
    save(tmp_path / "d", [picture(grey, DX, "DX", **values)])
    rows, _ = curated(tmp_path / "d", tmp_path / "c", modality=None)

    assert (rows[0]["spacing_y_mm"], rows[0]["spacing_x_mm"]) == expected
    assert rows[0]["modality"] == "X-ray"


def test_ultrasound_in_one_region_has_its_spacing(tmp_path):
    """In cm a pixel; of several regions none is that of the picture."""
    region = Dataset()
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX, region.PhysicalDeltaY = 0.02, -0.03
    grey = np.clip(GREY + 100, 0, 255).astype(np.uint8)
    one = picture(grey, US, "US", SequenceOfUltrasoundRegions=Sequence([region]))
    two = picture(grey, US, "US", SequenceOfUltrasoundRegions=Sequence([region, region]))
    two.SeriesInstanceUID = two.SOPInstanceUID = "1.2.3"
    save(tmp_path / "d", [one, two])
    rows, _ = curated(tmp_path / "d", tmp_path / "c")
    spacings = [row["spacing_y_mm"] for row in rows]

    assert sorted(spacings, key=str) == [pytest.approx(0.3), None]


def test_pictures_of_one_series_are_images_of_their_own(tmp_path):
    """Two X-rays are no volume."""
    files = []
    for number in range(2):
        data = picture((GREY + 500 + number).astype(np.uint16), DX, "DX", InstanceNumber=number)
        data.SOPInstanceUID = uid("x", number)
        files.append(data)
    save(tmp_path / "d", files)
    rows, _ = curated(tmp_path / "d", tmp_path / "c")

    assert [row["volume_id"] for row in rows] == [None, None]
    assert len({row["image_id"] for row in rows}) == 2


def test_a_png_is_the_mask_of_the_picture_that_it_is_called_like(tmp_path):
    """`images/7.dcm` and `masks/7_lung.png`."""
    save(tmp_path / "d/images", [picture((GREY + 500).astype(np.uint16), DX, "DX")], "7.dcm")
    mask = np.zeros(GREY.shape, np.uint8)
    mask[2:20, 3:21] = 255
    (tmp_path / "d/masks").mkdir()
    Image.fromarray(mask).save(tmp_path / "d/masks/7_lung.png")
    curated(tmp_path / "d", tmp_path / "c")
    targets = pl.read_parquet(tmp_path / "c/targets/*.parquet")

    assert targets.select("object", "area_px").rows() == [("7_lung", 18 * 18)] or targets.select(
        "object", "area_px"
    ).rows() == [("lung", 18 * 18)]


def test_an_enhanced_file_is_the_volume_of_its_frames(tmp_path):
    """One file, converted by highdicom, against the files that it was made of."""
    pixels = rng.integers(-500, 900, (6, 20, 26), dtype=np.int16)
    files = series(pixels, AFFINE, RescaleIntercept=-24, WindowCenter=40, WindowWidth=400)
    for data in files:
        data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        data.PositionReferenceIndicator, data.PatientPosition = "", "HFS"
    one = hd.legacy.LegacyConvertedEnhancedCTImage(files, uid("e"), 3, uid("e1"), 1)
    save(tmp_path / "a", files)
    save(tmp_path / "b", [one])
    plain, enhanced = (curated(tmp_path / n, tmp_path / f"c{n}")[0] for n in ("a", "b"))
    wanted = ("affine", "sha256", "plane", "intensity_lo", "spacing_slice_mm", "slice_index")

    assert len(enhanced) == 6
    for one_row, other in zip(plain, enhanced, strict=True):
        assert [one_row[key] for key in wanted] == [other[key] for key in wanted]


def test_the_window_of_the_header_is_kept_with_the_volume(tmp_path):
    """Where black and white lie, in the values that the volume stands for."""
    from promptseg.reader.dicom.load import read_series
    from promptseg.reader.dicom.study import read_study

    values = {"WindowCenter": [40, 300], "WindowWidth": [401, 2000], "RescaleIntercept": -24}
    files = series(np.stack([GREY, GREY]).astype(np.int16), AFFINE, **values)
    inverted = series(np.stack([GREY, GREY]).astype(np.int16), AFFINE, name="i", **values)
    for data in inverted:
        data.PhotometricInterpretation = "MONOCHROME1"
    save(tmp_path / "d", files)
    save(tmp_path / "i", inverted)
    plain, turned = (
        read_series(
            tmp_path / name, read_study(tmp_path / name, ["000.dcm", "001.dcm"]).series[0][0]
        )[0]
        for name in ("d", "i")
    )

    assert plain.window == (-160.5 + 0.0, 239.5)
    lo, hi = turned.window
    # a stored value at the dark end of the window stands for the same grey, from the other side
    assert hi - lo == 400
    assert lo == -24 - (239.5 + 24) - 1 == -288.5
    assert (plain.dicom_modality, plain.patient) == ("CT", "p1")


@pytest.mark.parametrize(
    ("modality", "sop_class", "reason"),
    [
        ("SR", "1.2.840.10008.5.1.4.1.1.88.11", "a DICOM object of the kind SR holds no image"),
        ("PR", "1.2.840.10008.5.1.4.1.1.11.1", "a DICOM object of the kind PR holds no image"),
        (
            "JO",
            "1.2.840.10008.5.1.4.1.1.88.11",
            "its header says of no picture how large it is, or is cut off",
        ),
        ("CT", "1.2.840.10008.1.3.10", "a DICOMDIR lists files and holds no image"),
    ],
)
def test_what_is_no_image_has_its_reason(tmp_path, modality, sop_class, reason):
    """It lies beside an image."""
    data = dataset(sop_class, uid("o"))
    data.Modality, data.SeriesInstanceUID = modality, uid("os")
    save(tmp_path / "d", [picture((GREY + 500).astype(np.uint16), DX, "DX"), data])
    curated(tmp_path / "d", tmp_path / "c")
    drops = pl.read_parquet(tmp_path / "c/drops/*.parquet")

    assert drops["reason"].to_list() == [reason]


def test_a_video_has_its_reason(tmp_path):
    """What is packed as no picture is named by its transfer syntax."""
    data = picture(np.zeros((3, 16, 16, 3), np.uint8), US, "US", "YBR_FULL_422")
    save(tmp_path / "d", [pack(data, [b"0" * 90] * 3, f"{JPEG}102")])
    with pytest.raises(DataError, match=r"transfer syntax MPEG-N AVC"):
        curated(tmp_path / "d", tmp_path / "c")


def test_a_folder_without_dicom_and_images_says_what_is_expected(tmp_path):
    """As before, and with DICOM as a way."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a.dcm").write_text("no preamble")
    with pytest.raises(DataError, match=r"no folder images/.*DICOM"):
        curated(tmp_path / "d", tmp_path / "c")
    assert CT != DX
