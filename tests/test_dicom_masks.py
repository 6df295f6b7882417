"""DICOM segmentations and structure sets give the masks that were written or drawn."""

import shutil

import numpy as np
import polars as pl
import pytest
import SimpleITK as sitk  # noqa: N813
from dicom_files import clinical, native, save, segmentation, series, structure_set
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco
from skimage.draw import polygon2mask

from promptseg.curation import curate
from promptseg.errors import DataError
from promptseg.reader.dicom.rtstruct import fill

# pycocotools has not followed NumPy 2 in one place; what it decodes is right
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

N, H, W = 6, 20, 26
AFFINE = np.array([[0.7, 0, 0, -9.1], [0, 0.9, 0, 4.3], [0, 0, 3.0, 50.0], [0, 0, 0, 1.0]])
rng = np.random.default_rng(5)
PIXELS = rng.integers(0, 900, (N, H, W), dtype=np.int16)
MASKS = np.zeros((N, H, W, 3), np.uint8)
MASKS[1:4, 3:11, 4:15, 0] = 1
MASKS[2:6, 8:17, 9:22, 1] = 1  # overlaps the first
MASKS[3, 9:12, 10:13, 2] = 1  # within both
MASKS[2, 4, 5, 0] = 0


def source(name="a", affine=AFFINE):
    """Make the series that masks lie on: slices from below, seen as they are stored."""
    return series(PIXELS, affine, name=name)


def curated(folder, out, **options):
    """Curate; return the masks by slice and object, the drops, and the rules."""
    options = {"min_area_px": 0, "dataset": "d", "keep_empty": True, **options}
    generator = curate(folder, out, clinical(**options))
    while True:
        try:
            next(generator)
        except StopIteration as stop:
            info = stop.value
            break
    targets = pl.read_parquet(out / "targets/*.parquet").to_dicts()
    masks = {}
    for row in targets:
        index = int(row["image_id"].rpartition("/")[2])
        key = (row["object"], row["instance"])
        masks.setdefault(key, np.zeros((N, H, W), bool))[index] = coco.decode(row["mask"])
    drops = pl.read_parquet(out / "drops/*.parquet").to_dicts() if any(out.glob("drops/*")) else []
    return masks, drops, info.rules


def test_binary_segments_that_overlap_come_back_bit_for_bit(tmp_path):
    """Written by highdicom, read by us; no segment hides another."""
    files = source()
    save(tmp_path / "d/images", files)
    save(tmp_path / "d/masks", [segmentation(files, MASKS, ["liver", "tumour", "core"])])
    masks, drops, _ = curated(tmp_path / "d", tmp_path / "c")

    assert drops == []
    assert list(masks) == [("liver", None), ("tumour", None), ("core", None)]
    for number, mask in enumerate(masks.values()):
        assert np.array_equal(mask, MASKS[..., number].astype(bool))


@pytest.mark.parametrize("threshold", [None, 0.2, 0.75])
def test_fractions_count_above_a_half_or_what_is_asked_for(tmp_path, threshold):
    """Highdicom stores them in 255 steps; the threshold is one of the rules."""
    files = source()
    fractions = rng.random((N, H, W, 1)).astype(np.float32) * MASKS[..., :1]
    save(tmp_path / "d", files)
    save(tmp_path / "d", [segmentation(files, fractions, ["liver"], "FRACTIONAL")], "seg")
    masks, _, rules = curated(tmp_path / "d", tmp_path / "c", threshold=threshold)
    limit = 0.5 if threshold is None else threshold
    stored = np.around(fractions[..., 0] * 255) / 255

    assert np.array_equal(masks["liver", None], stored > limit)
    assert f"fraction > {limit:g}" in rules["notes"]


def test_a_label_map_is_read_segment_by_segment(tmp_path):
    """The newer kind, whose pixels are numbers of segments."""
    files = source()
    labels = MASKS[..., 0].copy()
    labels[4, 2:6, 2:6] = 2
    save(tmp_path / "d", files)
    save(tmp_path / "d", [segmentation(files, labels, ["liver", "spine"], "LABELMAP")], "seg")
    masks, _, _ = curated(tmp_path / "d", tmp_path / "c")

    assert np.array_equal(masks["liver", None], labels == 1)
    assert np.array_equal(masks["spine", None], labels == 2)


def test_segments_of_one_name_are_instances(tmp_path):
    """They keep their numbers; a name of its own needs none."""
    files = source()
    save(tmp_path / "d", files)
    save(tmp_path / "d", [segmentation(files, MASKS, ["node", "liver", "node"])], "seg")
    masks, _, _ = curated(tmp_path / "d", tmp_path / "c")

    assert set(masks) == {("node", 1), ("liver", None), ("node", 3)}


def test_frames_that_refer_to_nothing_lie_where_they_say(tmp_path):
    """By their place, when the images that they were drawn on have other UIDs here."""
    files = source()
    seg = segmentation(files, MASKS[..., :1], ["liver"])
    moved = source(name="copy")
    for data in moved:
        data.SeriesInstanceUID = files[0].SeriesInstanceUID
    save(tmp_path / "d", moved)
    save(tmp_path / "d", [seg], "seg")
    masks, drops, _ = curated(tmp_path / "d", tmp_path / "c")

    assert drops == []
    assert np.array_equal(masks["liver", None], MASKS[..., 0].astype(bool))


def test_frames_on_no_slice_are_counted(tmp_path):
    """Two of its three slices are not here."""
    files = source()
    seg = segmentation(files, MASKS[..., :1], ["liver"])
    save(tmp_path / "d", [*files[:2], *files[4:]])
    save(tmp_path / "d", [seg], "seg")
    _, drops, _ = curated(tmp_path / "d", tmp_path / "c")

    assert [drop["reason"] for drop in drops] == ["2 of its frames lie on no slice of its image"]


def test_a_segmentation_of_another_series_is_no_ones(tmp_path):
    """What it refers to is not here."""
    seg = segmentation(source(name="elsewhere"), MASKS[..., :1], ["liver"])
    save(tmp_path / "d", source())
    save(tmp_path / "d", [seg], "seg")
    masks, drops, _ = curated(tmp_path / "d", tmp_path / "c")

    assert masks == {}
    assert [drop["reason"] for drop in drops] == ["the series that it refers to is not here"]


def test_a_finer_segmentation_is_brought_to_its_image(tmp_path):
    """Twice as many rows, columns and slices: every voxel holds its nearest."""
    fine = AFFINE @ np.diag([0.5, 0.5, 0.5, 1])
    fine[:3, 3] = (AFFINE @ [-0.25, -0.25, -0.25, 1])[:3]
    pixels = np.repeat(np.repeat(np.repeat(PIXELS, 2, 0), 2, 1), 2, 2)
    files, finer = source(), series(pixels, fine, name="fine")
    mask = np.repeat(np.repeat(np.repeat(MASKS[..., :1], 2, 0), 2, 1), 2, 2)
    seg = segmentation(finer, mask, ["liver"])
    seg.ReferencedSeriesSequence[0].SeriesInstanceUID = files[0].SeriesInstanceUID
    save(tmp_path / "d", files)
    save(tmp_path / "d", [seg], "seg")
    masks, drops, rules = curated(tmp_path / "d", tmp_path / "c")

    assert drops == []
    assert "another grid" in rules["notes"]
    assert np.array_equal(masks["liver", None], MASKS[..., 0].astype(bool))


def test_a_picture_among_the_masks_is_no_mask(tmp_path):
    """Nor is it an image to segment."""
    files = source()
    save(tmp_path / "d/images", files)
    save(tmp_path / "d/masks", [segmentation(files, MASKS[..., :1], ["liver"])], "seg")
    save(tmp_path / "d/masks", source(name="b")[:1], "picture")
    masks, drops, _ = curated(tmp_path / "d", tmp_path / "c")

    assert list(masks) == [("liver", None)]
    assert ["not read as a mask" in drop["reason"] for drop in drops] == [True]


def test_an_empty_segment_is_said_to_be_empty(tmp_path):
    """It has no frame at all."""
    files = source()
    masks = MASKS[..., :2].copy()
    masks[..., 1] = 0
    save(tmp_path / "d", files)
    save(tmp_path / "d", [segmentation(files, masks, ["liver", "tumour"])], "seg")
    _, drops, _ = curated(tmp_path / "d", tmp_path / "c")

    assert [(drop["object"], drop["reason"]) for drop in drops] == [("tumour", "the mask is empty")]


POLYGONS = {
    "triangle": np.array([[3.2, 2.1], [20.4, 5.9], [8.7, 17.3]]),
    "star": np.array([[12, 1.3], [15, 9.1], [24.2, 9.4], [16, 12.2], [19, 18.1], [4, 8.3]]),
    "thin": np.array([[2.5, 3.1], [22.1, 3.6], [22.1, 4.9]]),
}


def at(points, k, affine=AFFINE):
    """Put points (x, y) in voxels onto slice k, in mm."""
    whole = np.column_stack([points, np.full(len(points), k), np.ones(len(points))])
    return (whole @ affine.T)[:, :3]


def crossing_number(points, h, w):
    """Tell for every pixel centre whether a ray to the left leaves it: exact in whole numbers.

    Points are taken in steps of a 64th.
    """
    ends = np.rint(np.asarray(points) * 64).astype(np.int64)
    y, x = np.mgrid[:h, :w] * 64
    inside = np.zeros((h, w), bool)
    for (x0, y0), (x1, y1) in zip(ends, np.roll(ends, -1, axis=0), strict=True):
        sign = 1 if y1 > y0 else -1
        is_left = sign * (y - y0) * (x1 - x0) <= sign * (x - x0) * (y1 - y0)
        inside ^= ((y0 <= y) != (y1 <= y)) & is_left
    return inside


@pytest.mark.parametrize("name", POLYGONS)
def test_contours_fill_the_pixels_whose_centres_they_enclose(tmp_path, name):
    """All pixels as a ray from each centre and as scikit-image say."""
    files = source()
    save(tmp_path / "d", files)
    save(tmp_path / "d", [structure_set(files, {"liver": [at(POLYGONS[name], 2)]})], "rt")
    masks, _, _ = curated(tmp_path / "d", tmp_path / "c")
    drawn = masks["liver", None]

    assert drawn[2].any()
    assert not drawn[[0, 1, 3, 4, 5]].any()
    assert np.array_equal(drawn[2], crossing_number(POLYGONS[name], H, W))
    assert np.array_equal(drawn[2], polygon2mask((H, W), POLYGONS[name][:, ::-1]))


corner = st.tuples(st.integers(-256, W * 64 + 256), st.integers(-256, H * 64 + 256))


@settings(max_examples=80)
@given(st.lists(st.lists(corner, min_size=3, max_size=9), min_size=1, max_size=3))
def test_any_contours_combine_by_the_even_odd_rule(contours):
    """Also those that leave the picture or cross themselves."""
    arrays = [np.array(points) / 64 for points in contours]
    expected = np.logical_xor.reduce([crossing_number(points, H, W) for points in arrays])

    assert np.array_equal(fill(arrays, (H, W)), expected)


def test_a_contour_within_another_is_a_hole(tmp_path):
    """A ring, and an island in it."""
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    centre = np.array([12.0, 10.0])
    contours = [at(centre + square * size, 1) for size in (7.5, 4.5, 1.5)]
    files = source()
    save(tmp_path / "d", files)
    save(tmp_path / "d", [structure_set(files, {"ring": contours})], "rt")
    masks, _, _ = curated(tmp_path / "d", tmp_path / "c")

    assert np.count_nonzero(masks["ring", None][1]) == 15 * 15 - 9 * 9 + 3 * 3


def twice(points, how):
    """Give a contour's points as an exporter may write them again."""
    if how == "closed":  # by its first point
        return np.vstack([points, points[:1]])
    return {"same": points, "reversed": points[::-1], "turned": np.roll(points, 2, axis=0)}[how]


@pytest.mark.parametrize("how", ["same", "reversed", "turned", "closed"])
def test_a_contour_that_is_there_twice_counts_once(tmp_path, how):
    """It would take itself away; a hole in it stays one, also when that is there twice."""
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1.25]])
    outer, inner = (at(12 + square * size, 1) for size in (7.5, 3.25))
    contours = [outer, inner, twice(outer, how), twice(inner, how)]
    files = source()
    save(tmp_path / "d", files)
    save(tmp_path / "d", [structure_set(files, {"ring": contours})], "rt")
    masks, _, rules = curated(tmp_path / "d", tmp_path / "c")
    expected = fill([12 + square * size for size in (7.5, 3.25)], (H, W))

    assert expected.any()
    assert np.array_equal(masks["ring", None][1], expected)
    assert "contours that are in a structure set twice count once" in rules["notes"]


def test_contours_of_equal_points_that_are_not_the_same_both_count(tmp_path):
    """On other slices, in other objects, in another order of corners; or where XOR is asked for."""
    star, files = POLYGONS["star"], source()
    crossed = star[[0, 2, 1, 3, 4, 5]]
    rois = {"liver": [at(star, 1), at(star, 2), at(crossed, 1)], "spleen": [at(star, 1)]}
    save(tmp_path / "d", files)
    save(tmp_path / "d", [structure_set(files, rois)], "rt")
    none = structure_set(files, {"xor": [at(star, 1)] * 2}, "CLOSEDPLANAR_XOR")
    none.SOPInstanceUID = "1.2.3.4"
    save(tmp_path / "d", [none], "rt2")
    masks, _, rules = curated(tmp_path / "d", tmp_path / "c")

    assert np.array_equal(masks["liver", None][1], fill([star, crossed], (H, W)))
    assert np.array_equal(masks["liver", None][2], fill([star], (H, W)))
    assert np.array_equal(masks["spleen", None][1], fill([star], (H, W)))
    assert ("xor", None) not in masks
    assert "twice" not in str(rules)


def test_contours_that_share_an_edge_share_no_pixel():
    """An edge through centres of pixels belongs to one side."""
    left, right = ([[x, 2], [x + 5, 2], [x + 5, 9], [x, 9]] for x in (3, 8))
    one, two = (fill([np.array(points, float)], (H, W)) for points in (left, right))

    assert not (one & two).any()
    assert np.count_nonzero(one | two) == 10 * 7


def test_contours_between_slices_go_to_the_nearest(tmp_path):
    """At 2.3 and 2.45 slices: slice 2, and the nearer plane alone; at 3.5 it is the lower."""
    wide, narrow = POLYGONS["star"], POLYGONS["triangle"]
    contours = [at(narrow, 2.45), at(wide, 2.3), at(narrow, 3.5)]
    files = source()
    save(tmp_path / "d", files)
    save(tmp_path / "d", [structure_set(files, {"liver": contours})], "rt")
    masks, _, rules = curated(tmp_path / "d", tmp_path / "c")

    assert np.array_equal(masks["liver", None][2], crossing_number(wide, H, W))
    assert np.array_equal(masks["liver", None][3], crossing_number(narrow, H, W))
    assert "between slices" in rules["notes"]


def test_contours_that_are_no_areas_of_slices_have_a_reason(tmp_path):
    """Beside the slices, across them, of two points; and those that are not closed."""
    files = source()
    across = at(POLYGONS["star"], 2)
    across[:, 2] += np.arange(6)
    bad = [at(POLYGONS["star"], 8), across, at(POLYGONS["star"], 2)[:2]]
    good = at(POLYGONS["star"], 2)
    save(tmp_path / "d", files)
    save(tmp_path / "d", [structure_set(files, {"liver": [good, *bad]})], "rt")
    points = structure_set(files, {"seed": [at(POLYGONS["star"], 2)]}, "POINT")
    points.SOPInstanceUID = "1.2.3.4"
    save(tmp_path / "d", [points], "rt2")
    masks, drops, _ = curated(tmp_path / "d", tmp_path / "c")

    assert np.array_equal(masks["liver", None][2], crossing_number(POLYGONS["star"], H, W))
    assert {(drop["object"], drop["reason"]) for drop in drops} == {
        ("liver", "1 contours that are damaged or have fewer than 3 points"),
        ("liver", "1 contours that do not lie along the slices"),
        ("liver", "1 contours above or below the slices"),
        ("seed", "1 contours that are not closed (points, open lines)"),
        ("seed", "the mask is empty"),
    }


def test_contours_on_oblique_slices(tmp_path):
    """The patient's millimetres are turned into voxels, in any direction."""
    turn = np.linalg.qr(np.array([[0.9, 0.2, 0.1], [-0.3, 1.1, 0.2], [0.1, -0.1, 1.0]]))[0]
    affine = AFFINE.copy()
    affine[:3, :3] = turn @ AFFINE[:3, :3]
    files = source(affine=affine)
    contours = [at(POLYGONS["star"], k, affine) for k in (1, 4)]
    save(tmp_path / "d", files)
    save(tmp_path / "d", [structure_set(files, {"liver": contours})], "rt")
    masks, _, _ = curated(tmp_path / "d", tmp_path / "c")
    sizes = sorted(np.count_nonzero(mask) for mask in masks["liver", None] if mask.any())

    assert sizes == [np.count_nonzero(crossing_number(POLYGONS["star"], H, W))] * 2


def test_a_segmentation_lies_on_frames_without_a_grid(tmp_path):
    """A slice is missing: by UIDs and places the masks are found all the same."""
    files = source()
    seg = segmentation(files, MASKS[..., :2], ["liver", "tumour"])
    save(tmp_path / "d", [*files[:2], *files[3:]])
    save(tmp_path / "d", [seg], "seg")
    masks, _, _ = curated(tmp_path / "d", tmp_path / "c")
    left = np.delete(MASKS, 2, axis=0).astype(bool)

    assert np.array_equal(masks["tumour", None][:5], left[..., 1])
    assert np.array_equal(masks["liver", None][:5], left[..., 0])


def test_contours_lie_on_the_slices_that_are_there(tmp_path):
    """One of six is missing: its contours are counted, and go to no neighbour.

    Nor does one just above it; what is near a slice goes there, as ever.
    """
    files = source()
    star, triangle = POLYGONS["star"], POLYGONS["triangle"]
    rois = {
        "liver": [*(at(star, k) for k in range(N)), at(triangle, 2), at(triangle, 2.3)],
        "spleen": [at(triangle, 4.4), at(triangle, -3)],
        "gone": [at(star, 2)],
    }
    save(tmp_path / "d", [*files[:2], *files[3:]])
    save(tmp_path / "d", [structure_set(files, rois)], "rt")
    masks, drops, rules = curated(tmp_path / "d", tmp_path / "c")

    assert set(masks) == {("liver", None), ("spleen", None)}
    assert np.array_equal(masks["liver", None][:5], [crossing_number(star, H, W)] * 5)
    assert np.flatnonzero(masks["spleen", None].any(axis=(1, 2))).tolist() == [3]  # it was the 4th
    assert np.array_equal(masks["spleen", None][3], crossing_number(triangle, H, W))
    assert "between slices" in rules["notes"]
    assert [(drop["object"], drop["reason"]) for drop in drops] == [
        ("liver", "3 contours on 2 slices that are not here"),
        ("spleen", "1 contours above or below the slices"),
        ("gone", "1 contours on 1 slices that are not here"),
        ("gone", "the mask is empty"),
    ]


def test_contours_lie_on_slices_of_a_tilted_gantry(tmp_path):
    """Each slice is shifted against the one before, by more than a pixel."""
    sheared = AFFINE.copy()
    sheared[1, 2] = 1.2
    files = source(affine=sheared)
    contours = [at(POLYGONS["star"], k, sheared) for k in (0, 3, 5)]
    save(tmp_path / "d", files)
    save(tmp_path / "d", [structure_set(files, {"liver": contours})], "rt")
    masks, drops, rules = curated(tmp_path / "d", tmp_path / "c")

    assert drops == []
    assert "tilted gantry" in rules["notes"]
    assert np.flatnonzero(masks["liver", None].any(axis=(1, 2))).tolist() == [0, 3, 5]
    assert np.array_equal(masks["liver", None][5], crossing_number(POLYGONS["star"], H, W))


def test_contours_need_slices_that_say_where_they_lie(tmp_path):
    """Pictures without a position are of no patient's space."""
    files = source()
    rt = structure_set(files, {"liver": [at(POLYGONS["star"], 2)]})
    for data in files:
        del data.ImagePositionPatient
    save(tmp_path / "d", files)
    save(tmp_path / "d", [rt], "rt")
    with pytest.raises(DataError, match="do not say where they lie, as contours do"):
        curated(tmp_path / "d", tmp_path / "c")


def test_the_sample_of_dcmqi_agrees_with_its_label_maps(sample_set, tmp_path):
    """Liver and five overlapping scribbles, pixel by pixel as SOURCES.md counts them."""
    folder = sample_set / "dicom_ct_seg"
    for name in ("images", "masks"):
        (tmp_path / "d").mkdir(exist_ok=True)
        (tmp_path / "d" / name).symlink_to(folder / name)
    list(curate(tmp_path / "d", tmp_path / "c", clinical(min_area_px=0)))
    targets = pl.read_parquet(tmp_path / "c/targets/*.parquet")
    areas = targets.group_by("object").agg(pl.col("area_px").sort()).to_dicts()

    assert {row["object"]: row["area_px"] for row in areas} == {
        "Liver": [35220, 35645, 36233],
        "GREEN": [9602],
        "ORANGE": [11888],
        "PURPLE": [117, 117, 10509],
        "LIGHT_BLUE": [6693],
        "DARK_BLUE": [4713],
    }
    label_map = sitk.GetArrayFromImage(sitk.ReadImage(folder / "masks_nrrd/liver_seg.nrrd"))
    liver = targets.filter(pl.col("object") == "Liver").sort("image_id")["mask"]
    assert np.array_equal([coco.decode(mask) for mask in liver], label_map == 1)


def test_the_sample_of_highdicom_keeps_its_gap(sample_set, tmp_path):
    """Four slices, of which the first is 200 mm away: frames; fractions of 128/255 count."""
    folder = sample_set / "dicom_seg_small"
    (tmp_path / "d").mkdir()
    (tmp_path / "d/images").symlink_to(folder / "images")
    (tmp_path / "d/masks").mkdir()
    name = "seg_image_ct_true_fractional.dcm"
    shutil.copy(folder / "masks" / name, tmp_path / "d/masks")
    list(curate(tmp_path / "d", tmp_path / "c", clinical(min_area_px=0)))
    images = pl.read_parquet(tmp_path / "c/images/*.parquet")
    targets = pl.read_parquet(tmp_path / "c/targets/*.parquet")

    assert set(images["plane"]) == {"frame"}
    assert images["spacing_slice_mm"].null_count() == images.height
    assert targets["area_px"].to_list() == [127, 256, 255]


def test_axial_helper_keeps_the_order_of_slices():
    """The tests' own acquisition: columns, rows and slices are axes of the volume."""
    turned, moved = native(np.arange(24).reshape(2, 3, 4), np.eye(4), (0, 1, 2), "c")

    assert turned.shape == (4, 3, 2)
    assert turned[1, 2, 0] == np.arange(24).reshape(2, 3, 4)[1, 2, 1]
    assert moved[:3, 0].tolist() == [1, 0, 0]
