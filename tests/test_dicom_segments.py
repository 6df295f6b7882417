"""Where the frames of a segmentation lie, and what its numbers mean, where little is said."""

import numpy as np
import polars as pl
import pytest
from dicom_files import clinical, put_pixels, save, segmentation, series, structure_set
from pycocotools import mask as coco
from pydicom.pixels.utils import pack_bits

from promptseg.curation import curate
from promptseg.errors import DataError

# pycocotools has not followed NumPy 2 in one place; what it decodes is right
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

N, H, W = 6, 20, 20
AFFINE = np.diag([0.8, 0.8, 3.0, 1.0])  # in LPS
rng = np.random.default_rng(5)
PIXELS = rng.integers(0, 900, (N, H, W), dtype=np.int16)
MASKS = np.zeros((N, H, W), np.uint8)
MASKS[1:4, 3:11, 4:15] = 1
MASKS[2, 4, 5] = 0


def source():
    """Make the series that masks lie on."""
    return series(PIXELS, AFFINE)


def curated(folder, out):
    """Curate; return the masks by object, the reasons of drops, and the rules."""
    settings = {"min_area_px": 0, "dataset": "d", "keep_empty": True, "modality": "CT"}
    generator = curate(folder, out, clinical(**settings))
    while True:
        try:
            next(generator)
        except StopIteration as stop:
            info = stop.value
            break
    masks = {}
    targets = out / "targets"
    for row in pl.read_parquet(targets / "*.parquet").to_dicts() if any(targets.glob("*")) else []:
        index = int(row["image_id"].rpartition("/")[2])
        whole = masks.setdefault(row["object"], np.zeros((N, H, W), bool))
        whole[index] = coco.decode(row["mask"])
    drops = out / "drops"
    table = pl.read_parquet(drops / "*.parquet") if any(drops.glob("*")) else None
    return masks, [] if table is None else table["reason"].to_list(), info.rules


def test_a_label_map_tells_background_from_a_segment_that_it_does_not_list(tmp_path):
    """Background is no empty object, whatever number stands for it."""
    files = source()
    labels = MASKS.copy()
    labels[4, 2:6, 2:6] = 2
    seg = segmentation(files, labels, ["liver", "spine"], "LABELMAP")
    save(tmp_path / "d", files)
    save(tmp_path / "d", [seg], "seg")
    _, drops, _ = curated(tmp_path / "d", tmp_path / "c")

    assert drops == []
    seg.SegmentSequence.pop()
    save(tmp_path / "d", [seg], "seg")
    with pytest.raises(DataError, match="of which it lists no segment"):
        curated(tmp_path / "d", tmp_path / "c2")


def test_a_segmentation_stored_the_other_way_round_lies_where_it_says(tmp_path):
    """Its rows are the columns of its image: two corners are the same, the pixels are not."""
    files = source()
    seg = segmentation(files, MASKS[..., None], ["liver"])
    plane = seg.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    plane.ImageOrientationPatient = [0, 1, 0, 1, 0, 0]
    frames = seg.pixel_array.transpose(0, 2, 1)
    seg.PixelData = pack_bits(np.ascontiguousarray(frames))
    save(tmp_path / "d", files)
    save(tmp_path / "d", [seg], "seg")
    masks, _, rules = curated(tmp_path / "d", tmp_path / "c")

    assert np.array_equal(masks["liver"], MASKS.astype(bool))
    assert "nearest voxels" in str(rules)


def moved(masks, columns):
    """Segment a series that lies to the right of `source` by a number of columns."""
    beside = AFFINE.copy()
    beside[0, 3] += columns * AFFINE[0, 0]
    seg = segmentation(series(PIXELS, beside, name="beside"), masks[..., None], ["liver"])
    seg.ReferencedSeriesSequence[0].SeriesInstanceUID = source()[0].SeriesInstanceUID
    return seg


def test_halfway_between_pixels_all_go_the_same_way(tmp_path):
    """Rounding to even numbers would double some columns and lose others."""
    stripes = np.zeros_like(MASKS)
    stripes[2, 3:15, 4:15] = rng.integers(0, 2, (12, 11))
    save(tmp_path / "d", source())
    save(tmp_path / "d", [moved(stripes, 0.5)], "seg")
    masks, drops, _ = curated(tmp_path / "d", tmp_path / "c")

    assert drops == []
    found = [np.array_equal(masks["liver"], np.roll(stripes, n, axis=2) > 0) for n in (0, 1)]
    assert any(found)


def test_what_of_a_segment_lies_outside_of_its_image_is_told(tmp_path):
    """Of eleven columns four."""
    save(tmp_path / "d", source())
    save(tmp_path / "d", [moved(np.where(np.indices(MASKS.shape)[0] == 2, MASKS, 0), 9)], "seg")
    masks, drops, _ = curated(tmp_path / "d", tmp_path / "c")

    assert np.array_equal(masks["liver"][2, :, 13:], MASKS[2, :, 4:11] > 0)
    assert [reason.partition(" % ")[2] for reason in drops] == [
        "of its volume lie outside its image"
    ]


def test_masks_of_two_patients_under_the_same_uids_stay_with_their_patient(tmp_path):
    """Software that takes names away may number every patient's files alike."""
    for number, patient in enumerate(("p1", "p2")):
        files = series(PIXELS, AFFINE, PatientID=patient)
        own = np.roll(MASKS, number, axis=1)
        seg = segmentation(files, own[..., None], [f"of {patient}"])
        seg.SOPInstanceUID = f"1.2.{number + 1}"
        save(tmp_path / "d" / patient, [*files, seg])
    list(curate(tmp_path / "d", tmp_path / "c", clinical(modality="CT", min_area_px=0)))
    images = pl.read_parquet(tmp_path / "c/images/*.parquet")
    targets = pl.read_parquet(tmp_path / "c/targets/*.parquet").join(images, on="image_id")

    assert targets.height == 6
    assert targets.group_by("subject").agg(pl.col("object").n_unique())["object"].to_list() == [
        1,
        1,
    ]


def test_a_contour_that_is_cut_at_the_edge_of_its_slice_is_said_to_be(tmp_path):
    """What the slice has of it is kept; half a pixel more is where pixels end."""
    whole = np.array([[-0.5, -0.5], [9.5, -0.5], [9.5, 9.5], [-0.5, 9.5]])
    contours = []
    for corners in (whole, whole - 4):
        voxels = np.column_stack([corners, np.full(4, 2), np.ones(4)])
        contours.append([(voxels @ AFFINE.T)[:, :3]])
    save(tmp_path / "d", source())
    save(tmp_path / "d", [structure_set(source(), {"in": contours[0], "out": contours[1]})], "rt")
    masks, drops, _ = curated(tmp_path / "d", tmp_path / "c")

    assert (masks["in"].sum(), masks["out"].sum()) == (100, 36)
    assert drops == ["1 contours that reach out of the slices by more than half a pixel: cut there"]


@pytest.mark.parametrize("is_said", [True, False])
def test_masks_of_a_cine_lie_on_the_frames_that_they_name(tmp_path, is_said):
    """Where none is named, nothing tells which of the frames is meant."""
    (cine,) = series(PIXELS[:1], AFFINE)
    del cine.ImagePositionPatient, cine.ImageOrientationPatient
    put_pixels(cine, PIXELS)
    seg = segmentation(source(), MASKS[..., None], ["liver"])
    del seg.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    for group in seg.PerFrameFunctionalGroupsSequence:
        del group.PlanePositionSequence
        one = group.DerivationImageSequence[0].SourceImageSequence[0]
        if is_said:
            slices = [data.SOPInstanceUID for data in source()]
            one.ReferencedFrameNumber = slices.index(one.ReferencedSOPInstanceUID) + 1
        one.ReferencedSOPInstanceUID = cine.SOPInstanceUID
    save(tmp_path / "d", [cine])
    save(tmp_path / "d", [seg], "seg")
    if is_said:
        masks, _, _ = curated(tmp_path / "d", tmp_path / "c")
        assert np.array_equal(masks["liver"], MASKS.astype(bool))
    else:
        with pytest.raises(DataError, match="none of its frames lies on a slice"):
            curated(tmp_path / "d", tmp_path / "c")
