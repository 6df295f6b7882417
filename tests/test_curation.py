"""Folders of images and masks become corpora, and nothing is left out silently."""

import hashlib
import json

import nibabel as nib
import numpy as np
import polars as pl
import pytest
from PIL import Image

from promptseg.corpus import open_corpus
from promptseg.curation import Curation, Progress, curate
from promptseg.errors import DataError

# pycocotools has not followed NumPy 2 in one place; what it decodes is right
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

rng = np.random.default_rng(3)
GREY = rng.integers(0, 256, (20, 30), dtype=np.uint8)
LEFT = np.zeros((20, 30), dtype=np.uint8)
LEFT[3:15, 2:10] = 255
RIGHT = np.fliplr(LEFT)
NOTHING = np.zeros_like(LEFT)


def write(folder, **files):
    """Write arrays as files; `images__a_1__png` is images/a_1.png."""
    for name, array in files.items():
        put(folder / (name.replace("__", "/", 1).replace("__", ".")), array)
    return folder


def put(path, array):
    """Write one picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def put_volume(path, voxels, affine, codes="RAS", unit="mm"):
    """Write RAS voxels in the order of `codes`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units(unit)
    orientations = nib.orientations
    turn = orientations.ornt_transform(
        orientations.axcodes2ornt("RAS"), orientations.axcodes2ornt(codes)
    )
    nib.save(image.as_reoriented(turn), path)


class Curated:
    """A corpus as three tables and its samples."""

    def __init__(self, folder, out, **settings):
        settings.setdefault("modality", "CT")
        self.progress = list(curate(folder, out, Curation(**settings)))
        self.path = out
        self.corpus = open_corpus(out)
        self.info = self.corpus.info
        self.images = pl.read_parquet(out / "images" / "*.parquet").to_dicts()
        self.targets = pl.read_parquet(out / "targets" / "*.parquet").to_dicts()
        self.drops = pl.read_parquet(out / "drops" / "*.parquet").to_dicts()

    @property
    def samples(self):
        """All samples by image_id."""
        groups = self.corpus.row_groups()
        return {s.image_id: s for group in groups for s in self.corpus.read(group)}

    @property
    def names(self):
        """All targets as image, object and instance."""
        return [(t["image_id"], t["object"], t["instance"]) for t in self.targets]

    @property
    def reasons(self):
        """All drops as source and reason."""
        return [(drop["source"], drop["reason"]) for drop in self.drops]


@pytest.fixture
def curated(tmp_path):
    """Curate the folder `data` below tmp_path, once or several times."""
    runs = []

    def run(**settings):
        runs.append(None)
        return Curated(tmp_path / "data", tmp_path / f"corpus{len(runs)}", **settings)

    return run


@pytest.fixture
def data(tmp_path):
    """Give the folder that `curated` reads."""
    return tmp_path / "data"


def test_a_binary_mask_per_image(data, curated):
    """The simplest layout: masks that say nothing but where, named by the user."""
    write(data, images__a__png=GREY, masks__a__png=LEFT)
    corpus = curated(object_name="liver", licence="CC0-1.0")
    (image,), (target,) = corpus.images, corpus.targets

    assert corpus.drops == []
    assert image["image_id"] == "data/a"
    assert (image["height"], image["width"], image["modality"]) == (20, 30, "CT")
    assert (image["source"], image["licence"]) == ("images/a.png", "CC0-1.0")
    assert image["sha256"] == hashlib.sha256(image["image"]["bytes"]).hexdigest()
    assert (target["target_id"], target["object"]) == ("data/a#liver", "liver")
    assert (target["area_px"], target["box"]) == (96, [2, 3, 10, 15])
    assert np.array_equal(corpus.samples["data/a"].image[:, :, 0], GREY)
    assert np.array_equal(corpus.samples["data/a"].targets[0].mask, LEFT > 0)


def test_what_a_picture_does_not_tell_is_null(data, curated):
    """Subject, spacing and place in a volume are unknown, not 0 or 1."""
    write(data, images__a__png=GREY, masks__a__png=LEFT)
    (image,) = curated().images
    unknown = {name for name, value in image.items() if value is None}

    assert image["subject_source"] == "unknown"
    assert unknown == {
        *("subject", "volume_id", "slice_index", "n_slices", "plane", "dicom_modality"),
        *("spacing_y_mm", "spacing_x_mm", "spacing_slice_mm", "affine", "licence", "split"),
        *("tile_of", "tile_x", "tile_y"),
    }


def test_a_label_map_with_the_papers_table(data, curated):
    """Grey values stand for classes: 85, 170, 255."""
    labels = np.zeros_like(LEFT)
    labels[:10, :10], labels[:10, 10:20], labels[10:, :] = 85, 170, 255
    write(data, images__a__png=GREY, masks__a__png=labels)
    table = {
        "info": {"1": "LeftVentricle", "2": "Myocardium", "3": "RightVentricle"},
        "color": {"1": 85, "2": 170, "3": 255},
    }
    (data / "labels.json").write_text(json.dumps(table))
    corpus = curated()

    assert corpus.names == [
        ("data/a", "LeftVentricle", None),
        ("data/a", "Myocardium", None),
        ("data/a", "RightVentricle", None),
    ]
    assert [target["area_px"] for target in corpus.targets] == [100, 100, 300]
    assert corpus.info.rules["labels"] == "labels.json"


def test_values_that_no_table_names_are_named_by_their_number(data, curated):
    """So they can be told apart; where one is alone in an image it keeps its name."""
    write(
        data,
        images__a__png=GREY,
        images__b__png=GREY,
        masks__a__png=np.maximum(LEFT, RIGHT // 3 * 2),
        masks__b__png=LEFT,
    )
    corpus = curated()

    assert corpus.names == [
        ("data/a", "label 170", None),
        ("data/a", "label 255", None),
        ("data/b", "label 255", None),
    ]


def test_a_value_that_the_table_lacks_is_dropped_alone(data, curated):
    """The drop says which value, and how large it was."""
    write(data, images__a__png=GREY, masks__a__png=(LEFT // 255) + (RIGHT // 255) * 7)
    (data / "labels.json").write_text('{"1": "liver"}')
    corpus = curated()

    assert corpus.names == [("data/a", "liver", None)]
    assert [(d["object"], d["area_px"], d["reason"]) for d in corpus.drops] == [
        ("label 7", 96, "the table of labels has no value 7")
    ]


def test_one_mask_file_per_object(data, curated):
    """Objects and instances come from the names of the files, in masks/ or labels/."""
    write(
        data,
        images__a__jpg=GREY,
        labels__a_liver__png=LEFT,
        labels__a_kidney_1__png=RIGHT,
        labels__a_kidney_2__png=LEFT,
    )
    corpus = curated()

    assert corpus.names == [
        ("data/a", "kidney", 1),
        ("data/a", "kidney", 2),
        ("data/a", "liver", None),
    ]
    assert [target["target_id"] for target in corpus.targets] == [
        "data/a#kidney/1",
        "data/a#kidney/2",
        "data/a#liver",
    ]


def test_a_folder_of_masks_per_image(data, curated):
    """Each file is an instance of one object; they may overlap."""
    put(data / "images/a.png", GREY)
    put(data / "masks/a/7f3e5959f808f791.png", LEFT)
    put(data / "masks/a/8f3e5959f808f791.png", LEFT)
    corpus = curated(object_name="nucleus")

    assert corpus.names == [("data/a", "nucleus", 1), ("data/a", "nucleus", 2)]


def test_an_instance_map(data, curated):
    """Values are numbers of glands, not kinds of tissue."""
    write(data, images__a__png=GREY, masks__a__png=(LEFT // 255) * 4 + (RIGHT // 255) * 9)
    corpus = curated(object_name="gland", instances=True)

    assert corpus.names == [("data/a", "gland", 4), ("data/a", "gland", 9)]
    assert corpus.info.tasks == {"gland (CT)": 2}


def test_a_nameless_object_gets_the_name_of_the_data_set_at_last(data, curated):
    """The user's word first, the table's only object next; the rules say what it was."""
    write(data, images__a__png=GREY, masks__a__png=LEFT)
    by_folder = curated()
    by_data_set = curated(dataset="spleens")
    (data / "labels.json").write_text('{"liver": 1}')
    by_table = curated()

    assert by_folder.names == [("data/a", "data", None)]
    assert by_data_set.names == [("spleens/a", "spleens", None)]
    assert by_table.names == [("data/a", "liver", None)]
    assert by_data_set.info.rules["nameless_object"] == "spleens"


def test_labels_of_at_most_50_pixels_are_dropped(data, curated):
    """The paper's rule, by area: 50 is too small, 51 is not."""
    fifty, one_more = np.zeros_like(LEFT), np.zeros_like(LEFT)
    fifty[:5, :10] = one_more[:5, :10] = 255
    one_more[9, 9] = 255
    write(data, images__a__png=GREY, masks__a_small__png=fifty, masks__a_large__png=one_more)
    corpus = curated()

    assert corpus.names == [("data/a", "large", None)]
    assert [(d["source"], d["object"], d["area_px"]) for d in corpus.drops] == [
        ("masks/a_small.png", "small", 50)
    ]
    assert len(curated(min_area_px=49).targets) == 2


def test_images_without_a_target_are_dropped_or_kept(data, curated):
    """An empty mask and no mask at all; false positives can be counted only where they stay."""
    write(data, images__a__png=GREY, images__b__png=GREY, images__c__png=GREY)
    write(data, masks__a__png=LEFT, masks__b__png=NOTHING)
    dropped, kept = curated(), curated(keep_empty=True)

    assert [image["image_id"] for image in dropped.images] == ["data/a"]
    assert dropped.reasons == [
        ("masks/b.png", "the mask is empty"),
        ("images/b.png", "no target is left in it"),
        ("images/c.png", "no mask belongs to it by its name"),
    ]
    assert [image["image_id"] for image in kept.images] == ["data/a", "data/b", "data/c"]
    assert kept.reasons == [("masks/b.png", "the mask is empty")]
    assert kept.samples["data/c"].targets == ()


def test_misfits_are_dropped_with_their_reason_and_the_rest_goes_on(data, curated):
    """Another size, a damaged file, an orphan, many colours, soft edges."""
    noise = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for name in "abcdef":
        put(data / f"images/{name}.png", GREY)
    put(data / "masks/a.png", LEFT)
    put(data / "masks/b.png", LEFT[:, :25])
    put(data / "masks/c.png", noise)
    put(data / "masks/d.png", GREY)
    put(data / "masks/e.png", LEFT)
    put(data / "masks/z.png", LEFT)
    (data / "images/e.png").write_bytes((data / "images/e.png").read_bytes()[:99])
    (data / "masks/f.png").write_bytes(b"")
    corpus = curated()
    reasons = dict(corpus.reasons)

    assert [image["image_id"] for image in corpus.images] == ["data/a"]
    assert reasons["masks/b.png"] == "its size 25 x 20 is not its image's, 30 x 20"
    assert "colours; expected are greys, or one colour on black" in reasons["masks/c.png"]
    assert "--threshold makes a mask" in reasons["masks/d.png"]
    assert reasons["images/e.png"].startswith("it cannot be read")
    assert reasons["masks/f.png"].startswith("it cannot be read")
    assert reasons["masks/z.png"] == "no image belongs to this mask by its name"
    assert reasons["images/b.png"] == "none of its masks is usable"


def test_a_second_mask_of_the_same_object_is_dropped(data, curated):
    """Nothing says which of them is right; the first by name is kept."""
    write(data, images__a__png=GREY, masks__a_mask__png=LEFT, masks__a_seg__png=RIGHT)
    corpus = curated()

    assert corpus.names == [("data/a", "data", None)]
    assert corpus.reasons == [
        ("masks/a_seg.png", "another mask of this image has the same object and instance")
    ]


def test_jpeg_masks_lose_their_ringing(data, curated):
    """Both images and masks of Kvasir are JPEG; the mask is what lies above the middle."""
    write(data, images__a__jpg=GREY)
    Image.fromarray(LEFT).save(data / "images" / "tmp.jpg", quality=75)
    (data / "masks").mkdir()
    (data / "images" / "tmp.jpg").rename(data / "masks" / "a.jpg")
    corpus = curated(object_name="polyp")

    assert len(np.unique(np.asarray(Image.open(data / "masks/a.jpg")))) > 2
    assert np.array_equal(corpus.samples["data/a"].targets[0].mask, LEFT > 0)
    assert corpus.info.rules["jpeg_masks"] == "value > 127"


def test_a_threshold_makes_masks_of_probabilities(data, curated):
    """Above it, not at it; it is kept with the corpus."""
    ramp = np.tile(np.arange(0, 240, 8, dtype=np.uint8), (20, 1))
    write(data, images__a__png=GREY, masks__a__png=ramp)
    corpus = curated(threshold=80)

    assert np.array_equal(corpus.samples["data/a"].targets[0].mask, ramp > 80)
    assert corpus.info.rules["threshold"] == "value > 80"


@pytest.mark.parametrize(
    ("pattern", "subjects"),
    [
        (r"p\d+", ["p1", "p2", None]),
        (r"images/(p\d+)_", ["p1", "p2", None]),
        (r"(?P<rest>.)/(?P<subject>p\d+)", ["p1", "p2", None]),
    ],
)
def test_the_subject_is_found_by_a_pattern(data, curated, pattern, subjects):
    """Slices of one patient share it; where the pattern finds nothing it is unknown."""
    for name in ("p1_a", "p2_b", "x_c"):
        put(data / f"images/{name}.png", GREY)
        put(data / f"masks/{name}.png", LEFT)
    images = curated(subject_pattern=pattern).images

    assert [image["subject"] for image in images] == subjects
    assert [image["subject_source"] for image in images] == ["pattern", "pattern", "unknown"]


def test_spacing_may_be_stated(data, curated):
    """In millimetres along y and x."""
    write(data, images__a__png=GREY, masks__a__png=LEFT)
    (image,) = curated(spacing_yx_mm=(0.5, 0.25)).images

    assert (image["spacing_y_mm"], image["spacing_x_mm"]) == (0.5, 0.25)


def test_16_bit_grey_is_stored_whole(data, curated):
    """With the range by which it is shown."""
    deep = rng.integers(100, 4000, (20, 30), dtype=np.uint16)
    write(data, images__a__png=deep, masks__a__png=LEFT)
    corpus = curated()
    (image,) = corpus.images
    expected = np.rint((deep - image["intensity_lo"]) / (deep.max() - deep.min()) * 255)

    assert image["intensity_rule"] == "min-max image"
    assert (image["intensity_lo"], image["intensity_hi"]) == (deep.min(), deep.max())
    assert np.array_equal(corpus.samples["data/a"].image[:, :, 1], expected)


def test_hash_signs_in_names_do_not_part_ids(data, curated):
    """What stands before # in the id of a target is the id of its image."""
    put(data / "images/a#1.png", GREY)
    put(data / "masks/a#1_b#2c.png", LEFT)
    (target,) = curated(dataset="d#1").targets

    assert target["target_id"].split("#") == ["d_1/a_1", "b_2c"]
    assert target["image_id"] == "d_1/a_1"


def test_an_image_id_that_is_taken_is_a_drop(data, curated):
    """A picture may be called as a slice of a volume is; the run goes on."""
    put_volume(data / "images/s1.nii.gz", VOXELS, AFFINE)
    put_volume(data / "masks/s1.nii.gz", LIVER, AFFINE)
    put(data / "images/s1/axial/0001.png", GREY)
    put(data / "masks/s1/axial/0001.png", LEFT)
    corpus = curated()

    assert len({image["image_id"] for image in corpus.images}) == len(corpus.images) == 2
    assert ("images/s1/axial/0001.png", "two images have the image_id 'data/s1/axial/0001'") in (
        corpus.reasons
    )


def test_two_runs_give_the_same_corpus(data, curated):
    """Records of two runs can be compared, whatever order the disk lists files in."""
    for name in "cab":
        put(data / f"images/{name}.png", GREY)
        put(data / f"masks/{name}.png", LEFT)
    first, second = curated(), curated()

    assert first.info == second.info
    assert first.images == second.images
    assert [image["image_id"] for image in first.images] == ["data/a", "data/b", "data/c"]


def test_progress_is_told_after_each_image(data, curated):
    """A bar needs to know how far it is, and the corpus info is what the generator returns."""
    write(data, images__a__png=GREY, images__b__png=GREY, masks__a__png=LEFT, masks__b__png=LEFT)
    corpus = curated()

    assert corpus.progress == [Progress(1, 2, "images/a.png"), Progress(2, 2, "images/b.png")]
    assert (corpus.info.n_images, corpus.info.n_targets, corpus.info.n_drops) == (2, 2, 0)
    assert (corpus.path / "croissant.json").is_file()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"modality": None}, "--modality"),
        ({"modality": " "}, "--modality"),
        ({"subject_pattern": "("}, "--subject-pattern"),
        ({"subject_pattern": "P([0-9]+)"}, "such as 'images/a.png'"),
        ({"subject_pattern": "(x)?"}, "such as 'images/a.png'"),
    ],
)
def test_settings_that_cannot_be_used_are_an_error_at_once(data, curated, settings, message):
    """Before anything is read or written."""
    write(data, images__a__png=GREY, masks__a__png=LEFT)

    with pytest.raises(DataError, match=message):
        curated(**settings)


def test_nothing_usable_is_an_error_with_the_commonest_reasons(data, curated, tmp_path):
    """A corpus of nothing would pass for one."""
    for name in "ab":
        put(data / f"images/{name}.png", GREY)
        put(data / f"masks/{name}.png", LEFT[:5])

    with pytest.raises(DataError, match=r"its size N x N .* \(2 times\)\.$"):
        curated()

    assert not (tmp_path / "corpus1" / "corpus.json").exists()


@pytest.mark.parametrize("lost", ["misfit", "damaged", "link", "latin", "type"])
def test_an_image_whose_masks_are_lost_is_not_kept_as_an_empty_one(data, curated, lost):
    """What it shows is unknown, so that it can tell nothing of false positives."""
    write(data, images__a__png=GREY, images__b__png=GREY, masks__b__png=NOTHING)
    match lost:
        case "misfit":
            put(data / "masks/a.png", LEFT[:5])
        case "damaged":
            (data / "masks/a.png").write_bytes(b"")
        case "link":
            (data / "masks/a.png").symlink_to(data / "gone.png")
        case "latin":
            put(data / "masks/a_caf\udce9.png", LEFT)
        case "type":
            (data / "masks/a.gif").touch()
    corpus = curated(keep_empty=True)

    assert [image["image_id"] for image in corpus.images] == ["data/b"]
    assert ("images/a.png", "none of its masks is usable") in corpus.reasons


def test_a_volume_whose_masks_are_lost_is_not_kept_as_an_empty_one(data, curated):
    """But one whose mask is empty is."""
    for name in ("s1", "s2"):
        put_volume(data / f"images/{name}.nii.gz", VOXELS, AFFINE)
    put_volume(data / "masks/s1.nii.gz", 0 * LIVER, AFFINE)
    put_volume(data / "masks/s2.nii.gz", LIVER * 0.3, AFFINE)
    corpus = curated(keep_empty=True)

    assert {image["source"] for image in corpus.images} == {"images/s1.nii.gz"}
    assert ("images/s2.nii.gz", "none of its masks is usable") in corpus.reasons


def test_1_and_255_in_one_binary_mask_are_one_object(data, curated):
    """Nothing of it is lost."""
    write(data, images__a__png=GREY, masks__a__png=LEFT | (RIGHT // 255))
    corpus = curated(object_name="lungs")

    assert [target["area_px"] for target in corpus.targets] == [192]
    assert corpus.drops == []


def test_names_that_are_not_utf_8_are_drops(data, curated):
    """Old disks have such names; the rest of the folder is curated all the same."""
    write(data, images__a__png=GREY, masks__a__png=LEFT)
    put(data / "images/caf\udce9.png", GREY)
    put(data / "masks/caf\udce9.png", LEFT)
    (data / "caf\udce9.json").write_text("{}")
    corpus = curated()

    assert corpus.reasons == [
        (r"images/caf\udce9.png", "its name is not in UTF-8"),
        (r"masks/caf\udce9.png", "its name is not in UTF-8"),
        (r"caf\udce9.json", "no table of labels"),
    ]


def test_a_data_set_whose_folder_is_not_utf_8_has_a_printable_name(tmp_path):
    """It names the images and the nameless object."""
    folder = write(tmp_path / "caf\udce9", images__a__png=GREY, masks__a__png=LEFT)

    assert Curated(folder, tmp_path / "c").names == [(r"caf\udce9/a", r"caf\udce9", None)]


@pytest.mark.parametrize(
    ("pattern", "told"),
    [(r"p\d+", "2 by pattern, 1 image without"), (".", "1 by pattern"), (None, "unknown")],
)
def test_the_rules_say_how_many_subjects_there_are(data, curated, pattern, told):
    """Two patients, one of them with two images, and an image of nobody knows whom."""
    for name in ("p1_a", "p1_b", "p2_b", "x_c"):
        put(data / f"images/{name}.png", GREY)
        put(data / f"masks/{name}.png", LEFT)

    assert curated(subject_pattern=pattern).info.rules["subjects"] == told


def test_the_rules_say_that_a_volume_counts_as_a_subject(data, curated):
    """Which need not be so."""
    put_volume(data / "images/s1.nii.gz", VOXELS, AFFINE)
    put_volume(data / "masks/s1.nii.gz", LIVER, AFFINE)
    one_volume = "2 slices of 1 volume: one subject per volume"
    advice = "(pass --subject-pattern if volumes share patients)"
    alone = curated().info.rules["subjects"]
    write(data, images__a__png=GREY, masks__a__png=LEFT)

    assert alone == f"{one_volume} {advice}"
    assert curated().info.rules["subjects"] == f"{one_volume} {advice}; unknown for 1 image"


def test_the_last_progress_has_the_reasons_of_all_drops(data, curated):
    """With those that differ by numbers only counted together."""
    write(data, images__a__png=GREY, images__b__png=GREY, images__c__png=GREY)
    write(data, masks__a__png=LEFT, masks__b__png=LEFT[:5], masks__c__png=LEFT[:6])
    corpus = curated()
    misfit = "its size N x N is not its image's, N x N"

    assert [step.drops for step in corpus.progress] == [
        {},
        {misfit: 1, "none of its masks is usable": 1},
        {misfit: 2, "none of its masks is usable": 2},
    ]
    assert sum(corpus.progress[-1].drops.values()) == corpus.info.n_drops


@pytest.mark.parametrize(
    ("settings", "mask", "hint"),
    [
        ({}, LEFT, "--object NAME"),
        ({"instances": True}, LEFT, "--object NAME"),
        ({"object_name": "liver"}, LEFT, None),
        ({"object_name": "data"}, LEFT, None),
        ({"object_name": "liver"}, LEFT // 5 | RIGHT // 3, "--labels FILE.json"),
        ({"object_name": "liver", "instances": True}, LEFT // 5 | RIGHT // 3, None),
    ],
)
def test_a_name_that_was_guessed_is_told(data, curated, settings, mask, hint):
    """With the option that says it better."""
    write(data, images__a__png=GREY, masks__a__png=mask)
    told = curated(**settings).info.rules.get("hint")

    assert (told is None) if hint is None else (hint in told)


@pytest.mark.parametrize("files", ["table", "named"])
def test_a_name_that_was_found_is_no_guess(data, curated, files):
    """Also if it is that of the data set."""
    name = "a_data" if files == "named" else "a"
    put(data / "images/a.png", GREY)
    put(data / f"masks/{name}.png", LEFT)
    if files == "table":
        (data / "labels.json").write_text('{"data": 255}')
    corpus = curated()

    assert corpus.names == [("data/a", "data", None)]
    assert "hint" not in corpus.info.rules


# Volumes: a phantom without symmetry, in RAS order

VOXELS = rng.normal(0, 300, (12, 14, 5)).astype(np.float32)
LIVER = np.zeros((12, 14, 5), dtype=np.uint8)
LIVER[1:8, 2:12, 1:3] = 1
LIVER[9:11, 2:4, 1:4] = 1
SPACING_RAS = (0.5, 0.75, 4.0)
AFFINE = np.array([[0.5, 0, 0, -3], [0, 0.75, 0, 10], [0, 0, 4, -20], [0, 0, 0, 1]])


def test_a_volume_is_cut_along_its_main_plane(data, curated):
    """Across the thick slices, in radiological view, scaled over the volume; all is recorded."""
    put_volume(data / "images/s1.nii.gz", VOXELS, AFFINE)
    put_volume(data / "masks/s1_liver.nii.gz", LIVER, AFFINE)
    corpus = curated()
    image = corpus.images[0]
    sample = corpus.samples["data/s1/axial/0001"]
    lo, hi = float(VOXELS.min()), float(VOXELS.max())
    shown = np.rint((VOXELS[::-1, ::-1, 1].T.astype(float) - lo) / (hi - lo) * 255)

    assert [i["image_id"] for i in corpus.images] == ["data/s1/axial/0001", "data/s1/axial/0002"]
    assert (image["volume_id"], image["plane"], image["slice_index"], image["n_slices"]) == (
        *("data/s1", "axial"),
        *(1, 5),
    )
    assert (image["spacing_y_mm"], image["spacing_x_mm"], image["spacing_slice_mm"]) == (
        *(0.75, 0.5),
        4.0,
    )
    assert image["affine"] == AFFINE.ravel().tolist()
    assert (image["intensity_rule"], image["intensity_lo"], image["intensity_hi"]) == (
        *("min-max volume", lo),
        hi,
    )
    assert np.array_equal(sample.image[:, :, 0], shown)
    assert np.array_equal(sample.targets[0].mask, LIVER[::-1, ::-1, 1].T > 0)
    assert sample.targets[0].target_id == "data/s1/axial/0001#liver"


def test_slices_without_a_target_are_drops(data, curated):
    """With what is in them: nothing, or a label too small to keep."""
    put_volume(data / "images/s1.nii.gz", VOXELS, AFFINE)
    put_volume(data / "masks/s1_liver.nii.gz", LIVER, AFFINE)
    corpus = curated()
    drops = [(d["image_id"], d["source"], d["area_px"]) for d in corpus.drops]

    assert drops == [
        ("data/s1/axial/0000", "images/s1.nii.gz", None),
        ("data/s1/axial/0003", "masks/s1_liver.nii.gz", 4),
        ("data/s1/axial/0003", "images/s1.nii.gz", None),
        ("data/s1/axial/0004", "images/s1.nii.gz", None),
    ]
    assert len(curated(keep_empty=True).images) == 5


@pytest.mark.parametrize("codes", ["LPS", "PSR", "IAL"])
def test_the_stored_order_of_a_volume_does_not_matter(data, tmp_path, codes):
    """One scan in several orientations is one corpus, to the last bit."""
    for name, order in (("one", "RAS"), ("other", codes)):
        put_volume(tmp_path / name / "images/s1.nii.gz", VOXELS, AFFINE, order)
        put_volume(tmp_path / name / "masks/s1.nii.gz", LIVER, AFFINE, codes)
    settings = {"plane": "all", "dataset": "d", "object_name": "liver", "min_area_px": 0}
    one = Curated(tmp_path / "one", tmp_path / "c1", **settings)
    other = Curated(tmp_path / "other", tmp_path / "c2", **settings)

    assert {image["plane"] for image in one.images} == {"axial", "coronal", "sagittal"}
    assert one.info.fingerprint == other.info.fingerprint


def test_all_planes_may_be_cut(data, curated):
    """Coronal and sagittal slices have the head at the top; each plane has its own spacing."""
    put_volume(data / "images/s1.nii", VOXELS, AFFINE)
    put_volume(data / "masks/s1.nii", LIVER, AFFINE)
    corpus = curated(plane="all", min_area_px=0)
    spacing = {
        image["plane"]: (image["spacing_y_mm"], image["spacing_x_mm"], image["spacing_slice_mm"])
        for image in corpus.images
    }
    coronal = corpus.samples["data/s1/coronal/0002"].targets[0].mask
    sagittal = corpus.samples["data/s1/sagittal/0009"].targets[0].mask

    assert spacing == {
        "axial": (0.75, 0.5, 4.0),
        "coronal": (4.0, 0.5, 0.75),
        "sagittal": (4.0, 0.75, 0.5),
    }
    assert np.array_equal(coronal, LIVER[::-1, 2, ::-1].T > 0)
    assert np.array_equal(sagittal, LIVER[9, ::-1, ::-1].T > 0)
    assert len(curated(plane="sagittal", min_area_px=0).images) == 9


def test_slices_of_a_volume_share_a_subject(data, curated):
    """A volume is of one patient at least; a pattern may say of whom."""
    put_volume(data / "images/p7_s1.nii.gz", VOXELS, AFFINE)
    put_volume(data / "masks/p7_s1.nii.gz", LIVER, AFFINE)
    by_file, by_pattern = curated().images, curated(subject_pattern=r"p\d").images

    assert {(i["subject"], i["subject_source"]) for i in by_file} == {("data/p7_s1", "file")}
    assert {(i["subject"], i["subject_source"]) for i in by_pattern} == {("p7", "pattern")}


def test_a_header_that_knows_no_spacing_leaves_it_unknown(data, curated):
    """An identity affine without units is a default, not a measurement; the user may know."""
    put_volume(data / "images/s1.nii.gz", VOXELS, np.eye(4), unit="unknown")
    put_volume(data / "masks/s1.nii.gz", LIVER, np.eye(4), unit="unknown")
    image, stated = curated().images[0], curated(spacing_yx_mm=(2.0, 3.0)).images[0]

    assert (image["spacing_y_mm"], image["spacing_slice_mm"], image["affine"]) == (None, None, None)
    assert (stated["spacing_y_mm"], stated["spacing_x_mm"]) == (2.0, 3.0)


def test_float_labels_and_infinite_voxels_are_fine(data, curated):
    """Labels of 0.99999997 are 1; NaN outside the field of view does not spoil the contrast."""
    voxels = VOXELS.copy()
    voxels[0, 0, :], voxels[0, 1, :] = np.nan, np.inf
    put_volume(data / "images/s1.nii.gz", voxels, AFFINE)
    put_volume(data / "masks/s1.nii.gz", LIVER * 0.99999997, AFFINE)
    image, *_ = curated().images
    finite = voxels[np.isfinite(voxels)]

    assert (image["intensity_lo"], image["intensity_hi"]) == (finite.min(), finite.max())


@pytest.mark.parametrize(
    ("voxels", "affine", "reason"),
    [
        (LIVER, np.diag([0.5, 0.75, 4, 1]), "it lies wholly beside its image"),
        (0 * LIVER, AFFINE, "the mask is empty"),
        (LIVER * 0.3, AFFINE, "its values are no labels"),
        (np.stack([LIVER, LIVER], 3), AFFINE, "it has the shape 12 x 14 x 5 x 2"),
    ],
)
def test_label_volumes_that_do_not_fit_are_dropped_whole(data, curated, voxels, affine, reason):
    """With one reason, not one for every slice; other labels of the volume stay."""
    put_volume(data / "images/s1.nii.gz", VOXELS, AFFINE)
    put_volume(data / "images/s2.nii.gz", VOXELS, AFFINE)
    put_volume(data / "masks/s1_liver.nii.gz", LIVER, AFFINE)
    put_volume(data / "masks/s1_spleen.nii.gz", voxels, affine)
    put_volume(data / "masks/s2_spleen.nii.gz", voxels, affine)
    corpus = curated(min_area_px=0)
    dropped = [(source, why) for source, why in corpus.reasons if "s1_spleen" in source]

    assert {name for _, name, _ in corpus.names} == {"liver"}
    assert len(dropped) == 1
    assert dropped[0][1].startswith(reason)
    assert ("images/s2.nii.gz", "none of its masks is usable") in corpus.reasons


def test_series_of_volumes_and_damaged_ones_are_dropped(data, curated):
    """And a mask of the other kind than its image."""
    put_volume(data / "images/s1.nii.gz", VOXELS, AFFINE)
    put_volume(data / "images/s2.nii.gz", np.stack([VOXELS, VOXELS], 3), AFFINE)
    put_volume(data / "images/s3.nii.gz", VOXELS, AFFINE)
    put(data / "images/s4.png", GREY)
    for name in ("s1", "s2", "s3", "s4"):
        put_volume(data / f"masks/{name}.nii.gz", LIVER, AFFINE)
    broken = (data / "images/s3.nii.gz").read_bytes()
    (data / "images/s3.nii.gz").write_bytes(broken[: len(broken) // 2])
    corpus = curated()
    reasons = dict(corpus.reasons)

    assert {image["source"] for image in corpus.images} == {"images/s1.nii.gz"}
    assert reasons["images/s2.nii.gz"].endswith("expected are three axes")
    assert reasons["images/s3.nii.gz"].startswith("it cannot be read")
    assert "one is a volume and one a picture" in reasons["masks/s4.nii.gz"]


# The sample set: what stands in its files, counted by other code than ours


def areas(path):
    """Count the pixels of every value but 0 in a mask file."""
    values, counts = np.unique(np.asarray(Image.open(path)), return_counts=True)
    return {int(v): int(n) for v, n in zip(values, counts, strict=True) if v}


def test_the_papers_heart_images(sample_set, tmp_path):
    """Nine images of two patients with three classes, of which one image lacks one."""
    names = {"1": "LeftVentricle", "2": "Myocardium", "3": "RightVentricle"}
    table = tmp_path / "heart.json"
    table.write_text(json.dumps({"info": names, "color": {"1": 85, "2": 170, "3": 255}}))
    folder = sample_set / "paper_22_heart_mr"
    corpus = Curated(
        folder,
        tmp_path / "corpus",
        labels=table,
        modality="MR",
        subject_pattern=r"22_Heart_(\d+)_",
    )
    found = {(t["image_id"].rpartition("/")[2], t["object"]): t["area_px"] for t in corpus.targets}
    expected = {
        (path.stem, names[str(value // 85)]): area
        for path in (folder / "masks").glob("*.png")
        for value, area in areas(path).items()
    }

    assert found == expected
    assert corpus.info.tasks == {
        "LeftVentricle (MR)": 9,
        "Myocardium (MR)": 9,
        "RightVentricle (MR)": 8,
    }
    assert {image["subject"] for image in corpus.images} == {"2", "4"}
    assert corpus.drops == []
    for image in corpus.images:
        stored = np.asarray(Image.open(folder / image["source"]))
        assert np.array_equal(corpus.samples[image["image_id"]].image[:, :, 0], stored)


def test_the_papers_pancreas_images(sample_set, tmp_path):
    """Eleven binary masks."""
    folder = sample_set / "paper_6_pancreas_ct"
    corpus = Curated(folder, tmp_path / "corpus", object_name="pancreas")

    assert corpus.info.tasks == {"pancreas (CT)": 11}
    assert sorted(t["area_px"] for t in corpus.targets) == sorted(
        areas(path)[255] for path in (folder / "masks").glob("*.png")
    )


def test_nuclei_in_a_folder_of_masks_per_image(sample_set, tmp_path):
    """195 files, of which eight show 50 pixels or fewer; images lose their alpha."""
    folder = sample_set / "dsb2018_nuclei"
    corpus = Curated(folder, tmp_path / "corpus", object_name="nucleus", modality="microscopy")
    sizes = [areas(path)[255] for path in (folder / "masks").rglob("*.png")]

    assert (corpus.info.n_images, corpus.info.n_targets, corpus.info.n_drops) == (12, 187, 8)
    assert len(sizes) == 195
    assert sorted(t["area_px"] for t in corpus.targets) == sorted(n for n in sizes if n > 50)


def test_glands_as_instance_numbers(sample_set, tmp_path):
    """Fifty numbers in six maps, of which one is a stray pixel."""
    folder = sample_set / "glas_histology"
    corpus = Curated(
        folder, tmp_path / "corpus", object_name="gland", instances=True, modality="histology"
    )

    assert (corpus.info.n_images, corpus.info.n_targets) == (6, 49)
    assert [(d["object"], d["instance"], d["area_px"]) for d in corpus.drops] == [("gland", 4, 1)]


def test_breast_ultrasound_with_empty_and_misfitting_masks(sample_set, tmp_path):
    """Two normal cases have empty masks, one mask has another size, one image has two masks."""
    corpus = Curated(
        sample_set / "busi_us", tmp_path / "corpus", object_name="lesion", modality="ultrasound"
    )

    assert (corpus.info.n_images, corpus.info.n_targets) == (12, 13)
    assert sorted(corpus.reasons) == [
        ("images/normal (1).png", "no target is left in it"),
        ("images/normal (2).png", "no target is left in it"),
        ("masks/benign (4)_mask_1.png", "its size 555 x 465 is not its image's, 416 x 416"),
        ("masks/normal (1)_mask.png", "the mask is empty"),
        ("masks/normal (2)_mask.png", "the mask is empty"),
    ]
    assert [i for image, _, i in corpus.names if image == "busi_us/benign (25)"] == [0, 1]


def test_a_spleen_in_a_ct_volume(sample_set, tmp_path):
    """Axial slices of 5 mm; 20 of 26 show more than 50 pixels of the spleen."""
    folder = sample_set / "msd_spleen_ct_nifti"
    corpus = Curated(folder, tmp_path / "corpus", object_name="spleen")
    (mask,) = (folder / "masks").glob("*.nii.gz")
    sizes = np.asarray(nib.load(mask).dataobj).sum(axis=(0, 1), dtype=int)

    assert [t["area_px"] for t in corpus.targets] == sizes[sizes > 50].tolist()
    assert (corpus.info.n_images, corpus.info.n_drops) == (20, 6)
    assert corpus.images[0]["plane"] == "axial"
    assert corpus.images[0]["spacing_slice_mm"] == 5
    assert (corpus.images[0]["intensity_lo"], corpus.images[0]["intensity_hi"]) == (-1019, 949)


def test_spinal_cords_that_are_stored_in_other_orders(sample_set, tmp_path):
    """PSR and LAS become RAS; t2s is not t2, and its slices are 7.5 mm thick."""
    corpus = Curated(sample_set / "spinalcord_mr_nifti", tmp_path / "corpus", modality="MR")
    volumes = {image["volume_id"]: image for image in corpus.images}

    assert {v.rpartition("/")[2]: image["n_slices"] for v, image in volumes.items()} == {
        "t2": 55,
        "t2s": 9,
    }
    assert {image["plane"] for image in corpus.images} == {"axial"}
    assert {source for source, _ in corpus.reasons} <= {
        *("images/t2.nii.gz", "images/t2s.nii.gz", "masks/t2s_gmseg_manual.nii.gz"),
        *("masks/t2_seg-manual.nii.gz", "masks/t2_seg-manual_labeled.nii.gz"),
        "masks/t2s_seg.nii.gz",
    }
    assert "gmseg" in {name for _, name, _ in corpus.names}
