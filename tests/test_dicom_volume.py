"""A DICOM series is the volume that was written, whatever way it was acquired."""

import nibabel as nib
import numpy as np
import polars as pl
import pytest
from dicom_files import CT, MR, clinical, native, save, segmentation, series
from polars.testing import assert_frame_equal

from promptseg.corpus import open_corpus
from promptseg.curation import curate
from promptseg.errors import DataError

# pycocotools has not followed NumPy 2 in one place; what it decodes is right
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SHAPE = (22, 18, 9)
SPACING = (0.8, 1.1, 2.5)
AXIAL, CORONAL, SAGITTAL = (0, 1, 2), (0, 2, 1), (1, 2, 0)
rng = np.random.default_rng(7)
VOXELS = rng.integers(-1000, 2000, SHAPE, dtype=np.int16)  # no symmetry at all
OBJECTS = np.zeros((*SHAPE, 2), np.uint8)
OBJECTS[3:12, 2:9, 1:6, 0] = 1
OBJECTS[8:20, 5:16, 4:9, 1] = 1  # overlaps the first
OBJECTS[4, 3, 2, 0] = 0


def affine(degrees=0.0):
    """Give an affine with an origin of its own, turned about an axis that is none of its axes."""
    axis = np.array([0.36, 0.48, 0.8])
    k = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    angle = np.radians(degrees)
    turn = np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ np.diag(SPACING)
    matrix[:3, 3] = -31.5, 12.25, 140.0
    return matrix


def tables(folder, out, **settings):
    """Curate a folder and give its images and targets in a form that can be compared."""
    settings = {"modality": "CT", "dataset": "d", "min_area_px": 0, **settings}
    list(curate(folder, out, clinical(**settings)))
    images = pl.read_parquet(out / "images/*.parquet")
    targets = pl.read_parquet(out / "targets/*.parquet")
    facts = images.select("plane", "slice_index", "n_slices", "width", "height", "^spacing.*$")
    lists = images.select("affine", "sha256", "intensity_lo", "intensity_hi", "intensity_rule")
    tail = targets.with_columns(pl.col("image_id").str.extract(r"([a-z]+/\d+)$"))
    masks = tail.select("image_id", "object", "instance", "area_px", "box", "mask")
    return pl.concat([facts, lists], how="horizontal"), masks.sort("image_id", "object")


def put_nifti(folder, matrix):
    """Write the phantom as NIfTI with one mask an object."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    nib.save(nib.Nifti1Image(VOXELS, matrix), folder / "images/a.nii.gz")
    for number, name in enumerate(("liver", "tumour")):
        mask = nib.Nifti1Image(OBJECTS[..., number], matrix)
        nib.save(mask, folder / f"masks/a_{name}.nii.gz")
    return folder


def put_dicom(folder, matrix, axes, flips="", order=None):
    """Write the phantom as a series and a segmentation, all in one folder."""
    slices, moved = native(VOXELS, matrix, axes, flips)
    files = series(slices, moved)
    masks = np.stack([native(OBJECTS[..., n], matrix, axes, flips)[0] for n in (0, 1)], axis=-1)
    seg = segmentation(files, masks, ["liver", "tumour"])
    order = range(len(files)) if order is None else order
    save(folder, [files[k] for k in order], "IM{:04d}")
    save(folder, [seg], "SEG{}")
    return folder


@pytest.mark.parametrize("degrees", [0, 13])
@pytest.mark.parametrize(
    ("axes", "flips"),
    [
        (AXIAL, "cr"),
        (AXIAL, "crs"),
        (AXIAL, ""),
        (CORONAL, "r"),
        (CORONAL, "crs"),
        (SAGITTAL, "cr"),
        (SAGITTAL, "s"),
    ],
)
def test_any_acquisition_gives_what_the_same_voxels_give_as_nifti(tmp_path, axes, flips, degrees):
    """Pixels, spacing, affine and masks, in the three planes; files lie in no order."""
    shuffled = np.random.default_rng(1).permutation(SHAPE[axes[2]])
    matrix = affine(degrees)
    dicom = put_dicom(tmp_path / "dicom", matrix, axes, flips, shuffled)
    nifti = put_nifti(tmp_path / "nifti", matrix)
    images, masks = tables(dicom, tmp_path / "d", plane="all")
    expected_images, expected_masks = tables(nifti, tmp_path / "n", plane="all")

    assert images.height == 39  # of 49 slices, those that show an object
    assert_frame_equal(images, expected_images, abs_tol=1e-4)
    assert_frame_equal(masks, expected_masks)


def test_a_corpus_does_not_depend_on_names_and_order_of_files(tmp_path):
    """What a file is called says nothing."""
    one = put_dicom(tmp_path / "x/d", affine(), AXIAL, "cr")
    two = put_dicom(tmp_path / "y/d", affine(), AXIAL, "cr", [4, 0, 8, 2, 1, 7, 3, 6, 5])
    for number, folder in enumerate((one, two)):
        list(curate(folder, tmp_path / f"c{number}", clinical(modality="CT")))
    first, second = (open_corpus(tmp_path / f"c{number}").info for number in (0, 1))

    assert first.fingerprint == second.fingerprint


def test_modality_need_not_be_said_where_the_header_says_it(tmp_path):
    """CT is one word; MR is not, and has to be said."""
    folder = put_dicom(tmp_path / "ct", affine(), AXIAL, "cr")
    list(curate(folder, tmp_path / "c", clinical()))
    images = pl.read_parquet(tmp_path / "c/images/*.parquet")

    assert set(images["modality"]) == {"CT"}
    assert set(images["dicom_modality"]) == {"CT"}
    slices, moved = native(VOXELS, affine(), AXIAL, "cr")
    save(tmp_path / "mr", series(slices, moved, MR))
    with pytest.raises(DataError, match="--modality"):
        list(curate(tmp_path / "mr", tmp_path / "m", clinical(keep_empty=True)))
    list(curate(tmp_path / "mr", tmp_path / "m2", clinical(modality="T1W MRI", keep_empty=True)))
    images = pl.read_parquet(tmp_path / "m2/images/*.parquet")
    assert set(images["modality"]) == {"T1W MRI"}
    assert set(images["dicom_modality"]) == {"MR"}


def grey(folder, out, **settings):
    """Curate a folder without masks, and give its rows and its notes."""
    settings = {"modality": "CT", "keep_empty": True, "dataset": "d", **settings}
    list(curate(folder, out, clinical(**settings)))
    corpus = open_corpus(out)
    rows = pl.read_parquet(out / "images/*.parquet")
    drops = pl.read_parquet(out / "drops/*.parquet") if list(out.glob("drops/*")) else None
    return rows, corpus, drops


def samples(corpus):
    """Read the images of a corpus in their order."""
    return [sample for group in corpus.row_groups() for sample in corpus.read(group)]


def axial(**values):
    """Make an axial series of the phantom."""
    slices, moved = native(VOXELS, affine(), AXIAL, "cr")
    return series(slices, moved, **values)


def test_a_scale_that_all_slices_share_is_applied(tmp_path):
    """The recorded range is in Hounsfield units."""
    save(tmp_path / "d", axial(RescaleSlope=2, RescaleIntercept=-1024))
    rows, _, _ = grey(tmp_path / "d", tmp_path / "c")

    assert rows["intensity_lo"][0] == VOXELS.min() * 2.0 - 1024
    assert rows["intensity_hi"][0] == VOXELS.max() * 2.0 - 1024


@pytest.mark.parametrize(
    ("keyword", "stored", "reason"),
    [
        ("RescaleSlope", b"zz", "its RescaleSlope is no number"),
        ("RescaleIntercept", b"zz", "its RescaleIntercept is no number"),
        ("RescaleSlope", b"0 ", "its RescaleSlope is zero"),
    ],
)
def test_a_scale_that_cannot_be_read_is_not_taken_for_none(tmp_path, keyword, stored, reason):
    """Values of another scale would look as sound as those of the right one."""
    save(tmp_path / "d", axial(RescaleSlope="22", RescaleIntercept="10"))
    element = {"RescaleSlope": b"\x53", "RescaleIntercept": b"\x52"}[keyword]
    head = b"\x28\x00" + element + b"\x10DS\x02\x00"
    for path in (tmp_path / "d").iterdir():
        content = path.read_bytes()
        at = content.index(head) + 8
        path.write_bytes(content[:at] + stored + content[at + 2 :])

    with pytest.raises(DataError, match=reason):
        grey(tmp_path / "d", tmp_path / "c")


def test_scales_that_differ_are_applied_slice_by_slice(tmp_path):
    """PET has its own slope in every slice."""
    files = axial()
    for k, data in enumerate(files):
        data.RescaleSlope, data.RescaleIntercept = 1 + k / 4, k
    save(tmp_path / "d", files)
    _, corpus, _ = grey(tmp_path / "d", tmp_path / "c")
    values = native(VOXELS, affine(), AXIAL, "cr")[0] * (1 + np.arange(9) / 4)[:, None, None]
    values = values + np.arange(9)[:, None, None]
    lo, hi = values.min(), values.max()
    shown = np.stack([sample.image[..., 0] for sample in samples(corpus)])

    assert np.abs(shown - (values - lo) / (hi - lo) * 255).max() <= 0.51


@pytest.mark.parametrize("slope", [1, -1])
def test_padding_is_no_value(tmp_path, slope):
    """It would stretch the range, and is shown as the darkest value that is none."""
    slices, moved = native(VOXELS, affine(), AXIAL, "cr")
    padded = slices.copy()
    padded[:, :3] = -2000
    files = series(padded, moved, PixelPaddingValue=-2000, RescaleSlope=slope)
    for data in files:
        data["PixelPaddingValue"].VR = "SS"
    save(tmp_path / "d", files)
    rows, corpus, _ = grey(tmp_path / "d", tmp_path / "c")

    assert rows["intensity_lo"][0] == (slope * slices[:, 3:]).min()
    assert "padding" in corpus.info.rules["notes"]
    assert (next(iter(samples(corpus))).image[:3] == 0).all()


def test_a_gap_leaves_frames_of_their_own(tmp_path):
    """What lies between the slices is not known: no volume, no distance, but the pixels' size."""
    files = axial()
    del files[5:7]
    save(tmp_path / "d", files)
    rows, corpus, _ = grey(tmp_path / "d", tmp_path / "c")

    assert rows["plane"].to_list() == ["frame"] * 7
    assert rows["spacing_slice_mm"].null_count() == rows["affine"].null_count() == 7
    assert rows["spacing_x_mm"][0] == 0.8
    assert "uneven" in corpus.info.rules["notes"]


def test_a_tilted_gantry_leaves_frames_of_their_own(tmp_path):
    """Slices that are shifted against each other make no box."""
    files = axial()
    for k, data in enumerate(files):
        data.ImagePositionPatient = [*data.ImagePositionPatient[:1], 0.5 * k, 2.5 * k]
    save(tmp_path / "d", files)
    _, corpus, _ = grey(tmp_path / "d", tmp_path / "c")

    assert "tilted" in corpus.info.rules["notes"]


def test_what_is_there_twice_is_dropped(tmp_path):
    """The same file, and another picture at the same place."""
    files = axial()
    again = axial(name="b")[3]
    again.SeriesInstanceUID, again.InstanceNumber = files[0].SeriesInstanceUID, 99
    save(tmp_path / "d", [*files, files[2], again])
    rows, _, drops = grey(tmp_path / "d", tmp_path / "c")

    assert rows.height == 9
    assert sorted(drops["reason"]) == [
        "another slice lies at the same place",
        "the same image is there twice",
    ]


def test_times_of_one_series_are_volumes_of_their_own(tmp_path):
    """Nine places, three times each."""
    slices, moved = native(VOXELS, affine(), AXIAL, "cr")
    files = []
    for time in range(3):
        for data in series(slices + 10 * time, moved, name=f"t{time}"):
            data.SeriesInstanceUID, data.TemporalPositionIdentifier = "1.2.3", time + 1
            files.append(data)
    save(tmp_path / "d", files)
    rows, _, drops = grey(tmp_path / "d", tmp_path / "c", names="keep")

    assert drops is None or drops.is_empty()
    assert rows["volume_id"].n_unique() == 3
    assert rows.sort("image_id")["intensity_lo"].unique(maintain_order=True).to_list() == [
        VOXELS.min() + 10.0 * time for time in range(3)
    ]


def test_a_localiser_is_no_slice_of_its_series(tmp_path):
    """A picture of another direction in the same series is one of its own."""
    files = axial()
    localiser = series(*native(VOXELS, affine(), CORONAL, "r"), name="l")[0]
    localiser.SeriesInstanceUID = files[0].SeriesInstanceUID
    save(tmp_path / "d", [localiser, *files])
    rows, _, _ = grey(tmp_path / "d", tmp_path / "c")

    assert rows.group_by("volume_id").len().sort("len")["len"].to_list() == [1, 9]


def test_a_missing_slice_makes_a_plane_across_impossible_and_says_so(tmp_path):
    """Frames of their own cannot be cut along another plane."""
    files = axial()
    del files[5:7]
    save(tmp_path / "d", files)
    with pytest.raises(DataError, match="no volume"):
        grey(tmp_path / "d", tmp_path / "c", plane="coronal")


def test_masks_of_other_formats_pair_with_the_only_series(tmp_path):
    """By nothing but being there: a NIfTI file says where it lies."""
    save(tmp_path / "d/images/s", axial())
    put_nifti(tmp_path / "n", affine())
    (tmp_path / "d/masks").mkdir()
    for name in ("liver", "tumour"):
        (tmp_path / f"n/masks/a_{name}.nii.gz").rename(tmp_path / f"d/masks/{name}.nii.gz")
    _, masks = tables(tmp_path / "d", tmp_path / "c")
    put_nifti(tmp_path / "n2", affine())
    _, expected = tables(tmp_path / "n2", tmp_path / "c2")

    assert_frame_equal(masks, expected)


def test_masks_of_other_formats_pair_by_the_folder_of_a_series(tmp_path):
    """Where there are two series, a mask is called like one, or lies in a folder called so."""
    save(tmp_path / "d/images/one", axial(name="one"))
    save(tmp_path / "d/images/two", axial(name="two"))
    put_nifti(tmp_path / "n", affine())
    (tmp_path / "d/masks/two").mkdir(parents=True)
    (tmp_path / "n/masks/a_liver.nii.gz").rename(tmp_path / "d/masks/one_liver.nii.gz")
    (tmp_path / "n/masks/a_tumour.nii.gz").rename(tmp_path / "d/masks/two/tumour.nii.gz")
    list(curate(tmp_path / "d", tmp_path / "c", clinical(modality="CT", min_area_px=0)))
    targets = pl.read_parquet(tmp_path / "c/targets/*.parquet")
    volumes = targets.with_columns(pl.col("image_id").str.extract("/(.*)/axial"))

    assert volumes.group_by("object").agg(pl.col("image_id").n_unique())["image_id"].sum() == 2
    assert volumes["image_id"].n_unique() == 2


def test_the_pixels_of_a_series_are_decoded_once(tmp_path, monkeypatch):
    """Two segmentations beside it change nothing."""
    from promptseg.reader.dicom import load

    put_dicom(tmp_path / "d", affine(), AXIAL, "cr")
    decoded = []
    read = load.read_pixels

    def count(path, kind, n_frames, wanted):
        for number, frame in zip(wanted, read(path, kind, n_frames, wanted), strict=True):
            decoded.append((path, number))
            yield frame

    monkeypatch.setattr(load, "read_pixels", count)
    tables(tmp_path / "d", tmp_path / "c", plane="all")

    assert len(decoded) == len(set(decoded)) == 9


def test_ct_is_the_same_object(tmp_path):
    """The constant of the tests is the standard's CT Image Storage."""
    assert CT == "1.2.840.10008.5.1.4.1.1.2"
