"""Masks that other tools predicted: paired, named and cut as the corpus's own were."""

import gzip
import json
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import polars as pl
import pytest
from phantom import write_phantoms
from PIL import Image

from promptseg.corpus import open_corpus
from promptseg.curation import Curation, curate
from promptseg.errors import DataError
from promptseg.predictions import open_predictions
from promptseg.reader.table import find_table, read_table

rng = np.random.default_rng(5)
SHAPE = (20, 30)
LV = np.zeros(SHAPE, dtype=np.uint8)
LV[3:15, 2:12] = 1
RV = np.fliplr(LV)
MAP = LV + 2 * RV
NOTHING = np.zeros_like(LV)
NAMES = {"LV": 1, "RV": 2}
AFFINE = np.array([[2.0, 0, 0, -3], [0, 3, 0, 10], [0, 0, 5, -20], [0, 0, 0, 1]])
VOXELS = np.zeros((12, 14, 6), dtype=np.uint8)
VOXELS[2:11, 3:13, 1:4] = 1
VOXELS[3:11, 4:8, 2:5] = 2


def put(path, array):
    """Write a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def put_all(folder, **files):
    """Write pictures as PNG; `a__1_LV` is a/1_LV.png."""
    for name, array in files.items():
        put(folder / f"{name.replace('__', '/')}.png", array)
    return folder


def put_volume(path, voxels=VOXELS, affine=AFFINE, codes="RAS", unit="mm"):
    """Write RAS voxels in the order of `codes`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units(unit)
    orientations = nib.orientations
    turn = orientations.ornt_transform(
        orientations.axcodes2ornt("RAS"), orientations.axcodes2ornt(codes)
    )
    nib.save(image.as_reoriented(turn), path)
    return path


def grey(shape=SHAPE):
    """Draw noise."""
    return rng.integers(0, 256, shape, dtype=np.uint8)


def curated(folder, **settings):
    """Curate a folder, and open the corpus."""
    out = folder.parent / f"{folder.name}_corpus"
    list(curate(folder, out, Curation(modality="MR", **settings)))
    return open_corpus(out)


@pytest.fixture
def heart(tmp_path):
    """Give a corpus of images P01_s3 and P01_s4 in the folder `a`, each with an LV and an RV."""
    data = tmp_path / "heart"
    for stem in ("P01_s3", "P01_s4"):
        put(data / f"images/a/{stem}.png", grey())
        put(data / f"masks/a/{stem}.png", MAP)
    (data / "labels.json").write_text(json.dumps(NAMES))
    return curated(data)


@pytest.fixture
def one(tmp_path):
    """Give a corpus of one image, 1, with one object, LV."""
    data = tmp_path / "one"
    put(data / "images/1.png", grey())
    put(data / "masks/1.png", LV)
    return curated(data, object_name="LV")


@pytest.fixture
def scan(tmp_path):
    """Give a corpus of one volume, case_001, with an LV and an RV."""
    return a_scan(tmp_path / "scan")


def a_scan(data, name="case_001", affine=AFFINE, unit="mm", **settings):
    """Curate one volume, or several."""
    for stem in name.split():
        put_volume(data / f"images/{stem}.nii.gz", grey(VOXELS.shape), affine, unit=unit)
        put_volume(data / f"masks/{stem}.nii.gz", VOXELS, affine, unit=unit)
    (data / "labels.json").write_text(json.dumps(NAMES))
    return curated(data, min_area_px=5, **settings)


@pytest.fixture
def preds(tmp_path):
    """Name the folder of predictions."""
    return tmp_path / "preds"


def table(path, content=NAMES):
    """Write a table of labels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def samples(corpus):
    """List all samples."""
    return [sample for group in corpus.row_groups() for sample in corpus.read(group)]


def named(predicted):
    """Give the masks by target id."""
    assert predicted.missing is None
    return {target.target_id: target.mask for target in predicted.targets}


def n_reproduced(corpus, predictions, but=()):
    """Count the masks of a corpus, all of which are predicted bit for bit under their own ids."""
    count = 0
    for sample in samples(corpus):
        if sample.image_id in but:
            continue
        masks = named(predictions.of(sample))
        for target in sample.targets:
            assert np.array_equal(masks[target.target_id], target.mask)
            count += 1
    return count


def test_label_maps_give_back_the_masks(heart, preds):
    """A table beside the corpus's own subfolders; objects and ids are the corpus's."""
    put_all(preds, a__P01_s3=MAP, a__P01_s4=NOTHING)
    predictions = open_predictions(preds, heart, labels=table(preds / "t" / "names.json"))
    first, second = samples(heart)

    assert {i: m.sum() for i, m in named(predictions.of(first)).items()} == {
        "heart/a/P01_s3#LV": LV.sum(),
        "heart/a/P01_s3#RV": RV.sum(),
    }
    assert predictions.of(second).targets == ()
    assert predictions.of(second).missing is None
    assert predictions.name == "preds"


@pytest.mark.parametrize("inner", ["", "masks", "labels"])
def test_the_masks_lie_in_the_folder_or_in_masks_or_labels(heart, preds, inner):
    """As tools write them, or as a curated folder holds them, with the table beside."""
    put_all(preds / inner, a__P01_s3=MAP, a__P01_s4=MAP)
    table(preds / "labels.json")

    assert n_reproduced(heart, open_predictions(preds, heart)) == 4


def test_one_file_per_object_gives_back_the_masks(heart, preds):
    """By suffix or in a folder per image, as 0/1 or 0/255; a word for prediction says nothing."""
    put_all(
        preds,
        a__P01_s3_LV=LV,
        a__P01_s3_RV_pred=RV * 255,
        a__P01_s4__LV=LV,
        a__P01_s4__P01_s4_RV=RV,
    )
    predictions = open_predictions(preds, heart, name="tool")

    assert n_reproduced(heart, predictions) == 4
    assert predictions.name == "tool"


def test_phantoms_are_given_back(tmp_path, preds):
    """Twelve images of two objects, of sizes of their own, in any order."""
    corpus = write_phantoms(tmp_path / "phantoms", range(12))
    for sample in samples(corpus):
        for target in sample.targets:
            put(preds / f"{sample.image_id[-4:]}-{target.object}.png", np.uint8(target.mask))

    assert n_reproduced(corpus, open_predictions(preds, corpus)) == 24


def test_files_that_number_instances_give_back_instances(tmp_path, preds):
    """`1_cell_07.png` is the cell 7 of image 1."""
    data = put_all(tmp_path / "cells", images__1=grey(), masks__1_cell_07=LV, masks__1_cell_8=RV)
    corpus = curated(data)
    put_all(preds, **{"1_cell_07": LV, "1_cell_8": RV})
    predictions = open_predictions(preds, corpus)

    assert n_reproduced(corpus, predictions) == 2
    assert set(named(predictions.of(samples(corpus)[0]))) == {"cells/1#cell/7", "cells/1#cell/8"}


def test_nameless_files_in_a_folder_are_instances_of_the_only_object(tmp_path, preds):
    """With names that machines made; --instances makes other names as silent."""
    data = put_all(tmp_path / "cells", images__x=grey(), masks__x__1=LV, masks__x__2=RV)
    corpus = curated(data, object_name="cell")
    put_all(preds, x__1=LV, x__2=RV)
    odd = put_all(preds.parent / "odd", x__left_1=LV, x__left_2=RV)

    assert n_reproduced(corpus, open_predictions(preds, corpus)) == 2
    assert n_reproduced(corpus, open_predictions(odd, corpus, instances=True)) == 2
    with pytest.raises(DataError, match="Predicted are left; the corpus has cell"):
        open_predictions(odd, corpus)


def test_instance_maps_give_back_instances(tmp_path, preds):
    """Values of a map are the instances of the one object, from a table or the corpus."""
    data = put_all(tmp_path / "cells", images__1=grey(), masks__1=MAP)
    corpus = curated(data, object_name="cell", instances=True)
    put_all(preds, **{"1": MAP})
    predictions = open_predictions(preds, corpus, instances=True)

    assert n_reproduced(corpus, predictions) == 2
    assert set(named(predictions.of(samples(corpus)[0]))) == {"cells/1#cell/1", "cells/1#cell/2"}


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "PSR", "IAL", "SRP"])
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal", "all"])
def test_volumes_are_cut_as_the_corpus_was(tmp_path, preds, codes, plane):
    """Whatever the order of the stored axes, if the affine says so."""
    corpus = a_scan(tmp_path / "scan", plane=plane)
    put_volume(preds / "case_001.nii.gz", codes=codes)
    predictions = open_predictions(preds, corpus, labels=table(tmp_path / "t.json"))

    assert n_reproduced(corpus, predictions) == corpus.info.n_targets > 5
    for sample in samples(corpus):
        assert len(predictions.of(sample).targets) == len(sample.targets)


def test_volumes_come_as_a_file_per_object_too(scan, preds):
    """As TotalSegmentator writes them; objects of another corpus are not even read."""
    put_volume(preds / "case_001/LV.nii.gz", np.uint8(VOXELS == 1))
    put_volume(preds / "case_001/RV.nii.gz", np.uint8(VOXELS == 2), codes="LPS")
    (preds / "case_001/aorta.nii.gz").write_bytes(b"damaged")
    predictions = open_predictions(preds, scan)

    assert n_reproduced(scan, predictions) == scan.info.n_targets
    assert predictions.files_read == 2


def test_a_slice_beyond_the_objects_is_empty(tmp_path, preds):
    """Volumes are kept cropped; the slices outside are there all the same."""
    corpus = a_scan(tmp_path / "scan", keep_empty=True)
    put_volume(preds / "case_001.nii.gz")
    predictions = open_predictions(preds, corpus, labels=table(tmp_path / "t.json"))
    counts = [len(predictions.of(sample).targets) for sample in samples(corpus)]

    late = np.roll(VOXELS, 1, axis=2)
    put_volume(preds / "case_001.nii.gz", late)
    predictions = open_predictions(preds, corpus, labels=tmp_path / "t.json")
    shifted = [len(predictions.of(sample).targets) for sample in samples(corpus)]

    assert counts == [0, 1, 2, 2, 1, 0]
    assert shifted == [0, 0, 1, 2, 2, 1]


def test_an_empty_volume_is_a_prediction(tmp_path, scan, preds):
    """The tool saw nothing: that is a miss, not a missing file."""
    put_volume(preds / "case_001.nii.gz", np.zeros_like(VOXELS))
    predictions = open_predictions(preds, scan, labels=table(tmp_path / "t.json"))

    assert [named(predictions.of(sample)) for sample in samples(scan)] == [{}] * 4


def test_a_volume_is_read_once_for_all_of_its_slices(tmp_path, preds):
    """A damaged one too; opening looks into the first, which is still at hand."""
    corpus = a_scan(tmp_path / "scan", "case_001 case_002 case_003", plane="all")
    for number in (1, 3):
        put_volume(preds / f"case_00{number}.nii.gz")
    (preds / "case_002.nii.gz").write_bytes(b"damaged")
    predictions = open_predictions(preds, corpus, labels=table(tmp_path / "t.json"))
    for sample in samples(corpus):
        if "case_002" in sample.image_id:
            with pytest.raises(DataError, match="cannot be read"):
                predictions.of(sample)
        else:
            predictions.of(sample)

    assert corpus.info.n_images > 60
    assert predictions.files_read == 3


def test_predictions_of_nnunet_lack_the_channel_of_their_image(tmp_path, preds):
    """And `dataset.json` beside them names the values; its other files do no harm."""
    corpus = a_scan(tmp_path / "scan", "case_001_0000 case_002_0000")
    for number in (1, 2):
        put_volume(preds / f"case_00{number}.nii.gz")
    dataset = {"channel_names": {"0": "MR"}, "labels": {"background": 0, **NAMES}, "numTraining": 9}
    table(preds / "dataset.json", dataset)
    table(preds / "plans.json", {"dataset_name": "Dataset027", "configurations": {}})
    (preds / "case_001.npz").touch()
    predictions = open_predictions(preds, corpus)

    assert n_reproduced(corpus, predictions) == corpus.info.n_targets
    assert predictions.unpaired == 0


def test_an_exact_name_goes_before_that_of_nnunet(tmp_path, preds):
    """The other file belongs to no image then; nor does one that is only similar."""
    corpus = a_scan(tmp_path / "scan", "case_001_0000")
    put_volume(preds / "case_001_0000.nii.gz")
    put_volume(preds / "case_001.nii.gz", np.zeros_like(VOXELS))
    put_volume(preds / "case_001_0001.nii.gz")
    predictions = open_predictions(preds, corpus, labels=table(tmp_path / "t.json"))

    assert n_reproduced(corpus, predictions) == corpus.info.n_targets
    assert predictions.unpaired_names == ("case_001.nii.gz", "case_001_0001.nii.gz")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"labels": {"background": 0, "liver": 1}}, {"liver": (1,)}),
        ({"name": "x", "labels": {"0": "background", "1": "liver"}}, {"liver": (1,)}),
        ({"labels": {"background": 0, "all": [1, 2], "core": 2}}, {"all": (1, 2), "core": (2,)}),
    ],
)
def test_the_dataset_json_of_nnunet_is_a_table_that_gives_way_to_others(
    tmp_path, content, expected
):
    """Of both versions, with regions; a mere table of labels beside it was made to be read."""
    path = table(tmp_path / "dataset.json", content)
    alone = find_table(tmp_path, None).table
    table(tmp_path / "labels.json", {"spleen": 3})

    assert read_table(path) == alone == expected
    assert find_table(tmp_path, None).table == {"spleen": (3,)}
    assert find_table(tmp_path, None).left_out == (
        ("dataset.json", "another table of labels is read"),
    )


def test_the_longest_name_of_an_image_wins(tmp_path, preds):
    """`1_2_LV.png` belongs to image 1_2, not to image 1; `1_3.png` beside `1.png` to none."""
    data = tmp_path / "data"
    for stem in ("1", "1_2"):
        put_all(data, **{f"images__{stem}": grey(), f"masks__{stem}": LV})
    corpus = curated(data, object_name="LV")
    put_all(preds, **{"1": LV, "1_2_LV": LV, "1_3": LV})
    predictions = open_predictions(preds, corpus)

    assert n_reproduced(corpus, predictions) == 2
    assert predictions.unpaired_names == ("1_3.png",)


@pytest.mark.parametrize("value", [1, 7, 255])
def test_a_binary_mask_shows_the_only_object(one, preds, value):
    """Whatever the value; nothing else needs to be said."""
    put_all(preds, **{"1": LV * np.uint8(value)})

    assert n_reproduced(one, open_predictions(preds, one)) == 1


def test_several_values_without_a_name_are_no_binary_mask(one, preds, tmp_path):
    """Instances and classes are not joined by guess; either can be said."""
    put_all(preds, **{"1": MAP})
    (sample,) = samples(one)
    with pytest.raises(DataError, match=r"^1.png: it holds 2 values .* --labels .* --instances"):
        open_predictions(preds, one).of(sample)

    predictions = open_predictions(preds, one, labels=table(tmp_path / "t.json"))
    assert set(named(predictions.of(sample))) == {"one/1#LV", "one/1#RV"}
    predictions = open_predictions(preds, one, instances=True)
    assert set(named(predictions.of(sample))) == {"one/1#LV/1", "one/1#LV/2"}


def test_values_are_named_as_the_corpus_does_without_a_table(tmp_path, preds):
    """Both sides have value 2 as "label 2"; other values of the tool are ignored."""
    data = put_all(tmp_path / "data", images__1=grey(), masks__1=MAP)
    corpus = curated(data)
    more = MAP.copy()
    more[19] = 9
    put_all(preds, **{"1": more})
    files = put_all(preds.parent / "files", **{"1_label_1": LV, "1_label_2": RV})

    assert set(corpus.info.tasks) == {"label 1 (MR)", "label 2 (MR)"}
    assert n_reproduced(corpus, open_predictions(preds, corpus)) == 2
    assert n_reproduced(corpus, open_predictions(files, corpus)) == 2


def test_a_binary_mask_shows_an_only_object_that_is_called_by_its_value(tmp_path, preds):
    """If all masks have the one other value; else values are what they are."""
    data = put_all(tmp_path / "data", images__1=grey(), masks__1=LV * 2)
    put_all(data, images__2=grey(), masks__2=LV * 2)
    data_1 = data / "masks/2.png"
    stray = LV * 2
    stray[0, 0] = 7  # one pixel, dropped: so curation calls the other "label 2"
    put(data_1, stray)
    corpus = curated(data)
    binary = put_all(preds / "binary", **{"1": LV * 255, "2": LV * 255})
    maps = put_all(preds / "maps", **{"1": LV * 2 + RV, "2": LV})
    others = put_all(preds / "others", **{"1": LV * 3 + RV, "2": LV})

    assert set(corpus.info.tasks) == {"label 2 (MR)"}
    assert n_reproduced(corpus, open_predictions(binary, corpus)) == 2
    predictions = open_predictions(maps, corpus)
    first, second = samples(corpus)
    assert np.array_equal(named(predictions.of(first))["data/1#label 2"], LV > 0)
    assert named(predictions.of(second)) == {}
    with pytest.raises(DataError, match="Predicted are value 1, value 3; the corpus has label 2"):
        open_predictions(others, corpus)


def test_names_of_files_that_hold_spaces_numbers_and_mask_words_are_found(tmp_path, preds):
    """The corpus knows that the rib 9 is no ninth rib, and a label no word for a mask."""
    objects = ["left ventricle", "rib_left_9", "label 3", "rib_left"]
    data = put_all(tmp_path / "data", images__1=grey((8, 80)))
    labels = np.repeat(np.arange(8, dtype=np.uint8), 10)[None].repeat(8, axis=0)
    put(data / "masks/1.png", labels)
    (data / "labels.json").write_text(json.dumps({n: i for i, n in enumerate(objects, start=1)}))
    corpus = curated(data)
    for value, stem in enumerate(["left_ventricle", "rib_left_9_mask", "label_3", "rib_left"], 1):
        put(preds / f"1_{stem}.png", np.uint8(labels == value) * 255)

    assert n_reproduced(corpus, open_predictions(preds, corpus)) == 4


def test_a_name_with_spaces_and_one_with_underscores_are_two_if_the_corpus_has_both(
    tmp_path, preds
):
    """An exact match goes first."""
    data = put_all(tmp_path / "data", images__1=grey(), masks__1=MAP)
    (data / "labels.json").write_text(json.dumps({"a b": 1, "a_b": 2}))
    corpus = curated(data)
    put(preds / "1_a b.png", LV)
    put(preds / "1_a_b.png", RV)

    assert n_reproduced(corpus, open_predictions(preds, corpus)) == 2


def test_a_name_that_fits_two_objects_is_that_of_neither(tmp_path, preds):
    """Which of them it means is not guessed."""
    data = put_all(tmp_path / "data", images__1=grey(), masks__1=MAP)
    (data / "labels.json").write_text(json.dumps({"a b_c": 1, "a_b c": 2}))
    corpus = curated(data)
    put_all(preds, **{"1_a_b_c": LV})

    with pytest.raises(DataError, match="Predicted are a_b_c; the corpus has a b_c, a_b c"):
        open_predictions(preds, corpus)


def test_names_in_a_table_are_read_as_those_of_files(tmp_path, preds, one):
    """Underscores for spaces; what the corpus lacks does no harm."""
    data = put_all(tmp_path / "data", images__1=grey(), masks__1=LV)
    corpus = curated(data, object_name="left ventricle")
    put_all(preds, **{"1": MAP})
    names = table(tmp_path / "t.json", {"left_ventricle": 1, "right_ventricle": 2})
    predictions = open_predictions(preds, corpus, labels=names)

    assert n_reproduced(corpus, predictions) == 1


def test_a_file_called_like_an_object_is_that_object_whatever_the_table_says(heart, preds):
    """Its value is 1, which the table has for the LV."""
    put_all(preds, a__P01_s3_RV=RV, a__P01_s3_LV=LV, a__P01_s4_LV=LV, a__P01_s4_RV=RV)
    table(preds / "labels.json", {"LV": 1})

    assert n_reproduced(heart, open_predictions(preds, heart)) == 4


def test_with_a_table_other_names_are_other_objects_or_say_nothing(heart, preds):
    """A word after all names is the tool's; beside an LV an aorta of value 1 is no LV."""
    names = table(preds / "labels.json")
    put_all(preds, a__P01_s3_unet=MAP, a__P01_s4_unet=MAP)
    assert n_reproduced(heart, open_predictions(preds, heart)) == 4
    files = put_all(preds.parent / "files", a__P01_s3_LV=LV, a__P01_s3_aorta=RV, a__P01_s4_aorta=RV)
    predictions = open_predictions(files, heart, labels=names)

    assert [list(named(predictions.of(sample))) for sample in samples(heart)] == [
        ["heart/a/P01_s3#LV"],
        [],
    ]


def test_soft_masks_need_a_threshold_as_in_curation(one, preds):
    """Probabilities are no labels; above the threshold is in the mask."""
    put(preds / "1.tif", LV * np.float32(0.7) + RV * np.float32(0.4))
    (sample,) = samples(one)
    with pytest.raises(DataError, match=r"^1.tif: its values are no labels .* --threshold"):
        open_predictions(preds, one).of(sample)

    assert n_reproduced(one, open_predictions(preds, one, threshold=0.5)) == 1
    low = named(open_predictions(preds, one, threshold=0.3).of(sample))
    assert np.array_equal(low["one/1#LV"], MAP > 0)


def test_soft_volumes_are_thresholded_too(tmp_path, preds):
    """A file of probabilities per object."""
    corpus = a_scan(tmp_path / "scan")
    for value, name in enumerate(NAMES, start=1):
        soft = np.where(value == VOXELS, np.float32(0.9), np.float32(0.2))
        put_volume(preds / f"case_001_{name}.nii.gz", soft)

    assert n_reproduced(corpus, open_predictions(preds, corpus, threshold=0.5)) == 6


def test_an_image_without_a_file_is_missing(heart, preds):
    """And a file that is of no use is named as the reason."""
    put_all(preds, a__P01_s3_LV=LV)
    _, second = samples(heart)
    predicted = open_predictions(preds, heart).of(second)
    (preds / "a/P01_s4.npy").touch()
    told = open_predictions(preds, heart).of(second).missing

    assert (predicted.targets, predicted.missing) == ((), "no prediction file")
    assert told == "no prediction file (a/P01_s4.npy: files of this type are not read)"


def test_what_is_beside_a_prediction_is_no_lost_one_of_another_image(tmp_path, preds):
    """The probabilities of image 1_2 do not belong to image 1."""
    data = tmp_path / "data"
    for stem in ("1", "1_2"):
        put_all(data, **{f"images__{stem}": grey(), f"masks__{stem}": LV})
    corpus = curated(data, object_name="LV")
    put_all(preds, **{"1_2": LV})
    (preds / "1_2.npz").touch()

    assert open_predictions(preds, corpus).of(samples(corpus)[0]).missing == "no prediction file"


def test_an_image_with_files_of_other_objects_alone_has_none_but_is_not_missing(heart, preds):
    """The tool looked at it."""
    put_all(preds, a__P01_s3_LV=LV, a__P01_s4_aorta=LV)
    predictions = open_predictions(preds, heart)

    assert named(predictions.of(samples(heart)[1])) == {}


def test_files_of_no_image_are_counted_and_some_named(one, preds):
    """Hidden files are none, and links to folders are not followed."""
    put_all(preds, **{"1": LV}, **{f"x__{n}": LV for n in range(7)})
    put(preds / ".hidden.png", LV)
    put(preds.parent / "elsewhere/9.png", LV)
    (preds / "linked").symlink_to(preds.parent / "elsewhere")
    predictions = open_predictions(preds, one)

    assert predictions.unpaired == 7
    assert predictions.unpaired_names == tuple(f"x/{n}.png" for n in range(5))


def test_a_link_to_a_folder_of_the_images_name_is_not_followed(one, heart, preds):
    """As in curation; the reason is given."""
    put_all(preds, a__P01_s3_LV=LV)
    put(preds.parent / "elsewhere/LV.png", LV)
    (preds / "a/P01_s4").symlink_to(preds.parent / "elsewhere")
    predicted = open_predictions(preds, heart).of(samples(heart)[1])

    assert predicted.missing == ("no prediction file (a/P01_s4: links to folders are not followed)")


def test_no_folder_and_no_file_of_use_are_errors(one, preds):
    """The message says what is expected, or what was left out."""
    with pytest.raises(DataError, match=r"^There is no folder"):
        open_predictions(preds, one)
    preds.mkdir()
    with pytest.raises(DataError, match=r"holds no mask. Expected are files ending in .png"):
        open_predictions(preds, one)
    (preds / "1.npy").touch()
    with pytest.raises(DataError, match=r"Left out: 1.npy \(files of this type are not read\)"):
        open_predictions(preds, one)


def test_files_of_other_images_alone_are_an_error(heart, preds):
    """It names both sides: often a subfolder is all that is missing."""
    put_all(preds, P01_s3=MAP)

    with pytest.raises(DataError, match=r"files are P01_s3.png; the images are a/P01_s3, a/P01_s4"):
        open_predictions(preds, heart)


@pytest.mark.parametrize("stem", ["P01_s3", "P01_s3_2"])
def test_values_that_nothing_names_are_an_error_at_opening(heart, preds, stem):
    """Before anything is scored, with what to do."""
    put_all(preds, **{f"a__{stem}": LV, "a__P01_s4_LV": LV})

    with pytest.raises(DataError, match=rf"a/{stem}.png .* several objects: LV, RV. .* --labels"):
        open_predictions(preds, heart)


def test_instances_of_several_objects_need_names(heart, preds):
    """Numbers cannot tell whose they are; the name of a file can."""
    put_all(preds, a__P01_s3=MAP)
    with pytest.raises(DataError, match="several objects"):
        open_predictions(preds, heart, instances=True)
    shutil.rmtree(preds)
    put_all(preds, a__P01_s3_LV=MAP)
    predictions = open_predictions(preds, heart, instances=True)

    assert set(named(predictions.of(samples(heart)[0]))) == {
        "heart/a/P01_s3#LV/1",
        "heart/a/P01_s3#LV/2",
    }


def test_objects_of_another_corpus_alone_are_an_error_that_lists_both(heart, preds, tmp_path):
    """By the table, by the names of files, and by values that the table does not have."""
    put_all(preds, a__P01_s3=MAP * 100)
    for content, what in [({"liver": 100, "spleen": 200}, "liver, spleen"), (NAMES, "value 100")]:
        with pytest.raises(DataError, match=rf"Predicted are {what}.*; the corpus has LV, RV"):
            open_predictions(preds, heart, labels=table(tmp_path / "t.json", content))
    files = put_all(tmp_path / "files", a__P01_s3_liver=LV, a__P01_s4_spleen=LV)

    with pytest.raises(DataError, match=r"Predicted are liver, spleen; the corpus has LV, RV"):
        open_predictions(files, heart)


def test_several_tables_are_an_error_as_in_curation(heart, preds):
    """--labels chooses."""
    put_all(preds, a__P01_s3=MAP, a__P01_s4=MAP)
    table(preds / "a.json")
    chosen = table(preds / "b.json")
    with pytest.raises(DataError, match="several tables"):
        open_predictions(preds, heart)

    assert n_reproduced(heart, open_predictions(preds, heart, labels=chosen)) == 4


def test_two_files_with_the_same_object_are_an_error_of_their_image(heart, preds):
    """Which of them counts is not guessed; the other image is scored."""
    put_all(preds, a__P01_s3=MAP, a__P01_s3_RV=RV, a__P01_s4=MAP)
    predictions = open_predictions(preds, heart, labels=table(preds / "t" / "t.json"))
    first, second = samples(heart)

    with pytest.raises(
        DataError, match=r"^a/P01_s3_RV.png: a/P01_s3.png shows 'RV' of its image, too$"
    ):
        predictions.of(first)
    assert len(predictions.of(second).targets) == 2


def whole(path):
    """Write a large mask, and give its bytes."""
    put(path, rng.integers(0, 2, (200, 300), dtype=np.uint8))
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["cut", "text", "empty"])
def test_a_damaged_picture_is_an_error_of_its_image_without_a_path(one, preds, kind):
    """On one line, which fits into a record."""
    content = whole(preds / "1.png")
    damaged = {"cut": content[: len(content) // 2], "text": b"no picture", "empty": b""}[kind]
    (preds / "1.png").write_bytes(damaged)
    predictions = open_predictions(preds, one)
    with pytest.raises(DataError, match=r"^1.png: it cannot be read: ") as caught:
        predictions.of(samples(one)[0])

    assert str(preds) not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["cut", "text", "cut inside"])
def test_a_damaged_volume_is_an_error_of_its_slices(scan, preds, tmp_path, kind):
    """A download that broke off is the usual case."""
    path = put_volume(preds / "case_001.nii.gz")
    content = path.read_bytes()
    cut = gzip.compress(gzip.decompress(content)[:700])
    path.write_bytes(
        {"cut": content[: len(content) // 2], "text": b"no volume", "cut inside": cut}[kind]
    )
    predictions = open_predictions(preds, scan, labels=table(tmp_path / "t.json"))
    for sample in samples(scan):
        with pytest.raises(
            DataError, match=r"^case_001.nii.gz: it (cannot be read: |is cut off: )"
        ) as caught:
            predictions.of(sample)

        assert str(preds) not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_mask_of_another_size_is_an_error_of_its_image(one, preds):
    """Nothing is resized behind the user's back."""
    put_all(preds, **{"1": LV[:, :-1]})

    with pytest.raises(DataError, match=r"^1.png: its size 29 x 20 is not its image's, 30 x 20$"):
        open_predictions(preds, one).of(samples(one)[0])


SHIFT = np.eye(4)
SHIFT[1, 3] = 1.0
FLIP = np.diag([-1.0, -1, 1, 1])


@pytest.mark.parametrize(
    ("voxels", "affine", "reason"),
    [
        (VOXELS[:-1], AFFINE, "its shape 11 x 14 x 6 is not its image's, 12 x 14 x 6"),
        (VOXELS, SHIFT @ AFFINE, "its affine is not its image's"),
        (VOXELS, AFFINE @ FLIP, "its affine is not its image's"),
    ],
)
def test_a_volume_on_another_grid_is_an_error(scan, preds, tmp_path, voxels, affine, reason):
    """A shift of a third of a voxel is another grid, and so are mirrored axes."""
    put_volume(preds / "case_001.nii.gz", voxels, affine)
    predictions = open_predictions(preds, scan, labels=table(tmp_path / "t.json"))

    with pytest.raises(DataError, match=rf"^case_001.nii.gz: {reason}$"):
        predictions.of(samples(scan)[0])


def test_rounding_in_an_affine_is_the_same_grid(scan, preds, tmp_path):
    """The tolerance of curation: a tenth of an edge."""
    put_volume(preds / "case_001.nii.gz", affine=AFFINE + 1e-3 * np.eye(4))
    predictions = open_predictions(preds, scan, labels=table(tmp_path / "t.json"))

    assert n_reproduced(scan, predictions) == 6


def test_without_an_affine_in_the_corpus_the_grid_is_the_identity(tmp_path, preds):
    """An image that says nothing has it; a mask with other axes would be mirrored unseen."""
    corpus = a_scan(tmp_path / "scan", affine=np.eye(4), unit="unknown")
    path = put_volume(preds / "case_001.nii.gz", affine=np.eye(4))
    names = table(tmp_path / "t.json")

    assert samples(corpus)[0].place.affine is None
    assert n_reproduced(corpus, open_predictions(preds, corpus, labels=names)) == 6
    put_volume(path, affine=FLIP)
    with pytest.raises(DataError, match="its affine is not its image's"):
        open_predictions(preds, corpus, labels=names).of(samples(corpus)[0])


def test_a_picture_for_a_volume_and_a_volume_for_a_picture_are_errors(scan, one, preds, tmp_path):
    """They may have one name, but no grid in common."""
    put_all(preds, case_001_LV=VOXELS[:, :, 0])
    put_volume(preds / "1.nii.gz", np.uint8(VOXELS == 1))

    told = "case_001_LV.png: of this mask and its image one is a volume and one a picture"
    assert open_predictions(preds, scan).of(samples(scan)[0]).lost == {"LV": told}
    with pytest.raises(DataError, match="one is a volume and one a picture"):
        open_predictions(preds, one).of(samples(one)[0])


def test_a_sample_that_tells_no_file_or_an_unknown_plane_is_an_error(one, scan, preds, tmp_path):
    """Corpora that other programs wrote may hold either."""
    put_all(preds, **{"1": LV})
    put_volume(preds / "case_001.nii.gz")
    (picture,), (cut, *_) = samples(one), samples(scan)
    oblique = replace(cut, place=replace(cut.place, plane="oblique"))

    with pytest.raises(DataError, match="does not say from which file one/1 came"):
        open_predictions(preds, one).of(replace(picture, source=None))
    with pytest.raises(DataError, match="a slice of an unknown plane, 'oblique'"):
        open_predictions(preds, scan, labels=table(tmp_path / "t.json")).of(oblique)


def test_a_number_for_a_name_needs_values_of_the_table(heart, preds):
    """Image `P01_s3` has a file 7, of which the table says nothing."""
    put_all(preds, a__P01_s3_7=LV * 9, a__P01_s4_7=LV)
    table(preds / "labels.json")
    predictions = open_predictions(preds, heart)
    first, second = samples(heart)

    with pytest.raises(DataError, match="neither its name nor the table of labels says what"):
        predictions.of(first)
    assert set(named(predictions.of(second))) == {"heart/a/P01_s4#LV/7"}


def test_the_hash_is_that_of_the_files_used(heart, preds, tmp_path):
    """Other files, another place and times do not matter; contents, names and settings do."""
    put_all(preds, a__P01_s3=MAP, a__P01_s4=MAP)
    table(preds / "labels.json")

    def found(folder=preds, **settings):
        return open_predictions(folder, heart, **settings).weights_hash

    first = found()
    put_all(preds, a__P99=LV, a__P01_s3_note=LV)
    (preds / "notes.txt").write_text("read me")
    copy = tmp_path / "copy"
    shutil.copytree(preds, copy / "masks")
    same = [found(), found(copy, labels=preds / "labels.json")]
    hashes = [first, found(threshold=3)]
    put_all(preds, a__P01_s4=LV)
    hashes.append(found())
    (preds / "a/P01_s4.png").rename(preds / "a/P01_s4_mask.png")
    hashes.append(found())
    table(preds / "labels.json", {"LV": 1})
    hashes.append(found())

    assert same == [first, first]
    assert len(set(hashes)) == 5


def test_two_images_of_one_name_cannot_be_told_apart(tmp_path, heart, preds):
    """Corpora that were joined by hand; a prediction would count for both."""
    part = heart.path / "images/part-00000.parquet"
    images = pl.read_parquet(part)
    images.with_columns(
        pl.lit("images/a/P01_s3.png").alias("source"), dataset="image_id"
    ).write_parquet(part)
    put_all(preds, a__P01_s3_LV=LV)

    with pytest.raises(DataError, match="Two images of the corpus are called a/P01_s3"):
        open_predictions(preds, heart)


REAL = [
    ("paper_22_heart_mr", {"labels": "heart"}, {"labels": "heart"}, ()),
    ("paper_6_pancreas_ct", {"object_name": "pancreas"}, {}, ()),
    ("dsb2018_nuclei", {"object_name": "nucleus"}, {}, ()),
    ("glas_histology", {"object_name": "gland", "instances": True}, {"instances": True}, ()),
    ("msd_spleen_ct_nifti", {"object_name": "spleen"}, {}, ()),
    ("sammed2d_demo_ct", {}, {}, ()),
    ("wbc_blood_smear", {}, {}, ()),
    ("busi_us", {"object_name": "lesion"}, {}, ("busi_us/benign (4)",)),
]


@pytest.mark.parametrize(
    ("name", "settings", "options", "but"), REAL, ids=[name for name, *_ in REAL]
)
def test_real_masks_fed_back_are_those_of_the_corpus(
    sample_set, tmp_path, name, settings, options, but
):
    """All layouts as they come; a mask of another size fails its image alone."""
    names = {"info": {"1": "left ventricle", "2": "myocardium", "3": "right ventricle"}}
    heart = table(tmp_path / "h.json", {**names, "color": {"1": 85, "2": 170, "3": 255}})
    settings, options = (
        {key: heart if value == "heart" else value for key, value in given.items()}
        for given in (settings, options)
    )
    out = tmp_path / "corpus"
    list(curate(sample_set / name, out, Curation(modality="any", **settings)))
    corpus = open_corpus(out)
    predictions = open_predictions(sample_set / name, corpus, **options)

    left_out = sum(len(s.targets) for s in samples(corpus) if s.image_id in but)
    assert n_reproduced(corpus, predictions, but) == corpus.info.n_targets - left_out
    for sample in samples(corpus):
        if sample.image_id in but:
            with pytest.raises(DataError, match="is not its image's"):
                predictions.of(sample)


@pytest.mark.parametrize("content", [b"", b"no picture", None], ids=["empty", "text", "other size"])
def test_a_damaged_file_of_one_object_costs_that_object_alone(tmp_path, preds, content):
    """The other files of the image are as good as before; which object is lost, the name tells."""
    data = tmp_path / "two"
    put(data / "images/1.png", grey())
    put(data / "masks/1.png", MAP)
    corpus = curated(data, labels=table(data / "labels.json"))
    put_all(preds, **{"1_LV": LV[:, :-1], "1_RV": RV})
    if content is not None:
        (preds / "1_LV.png").write_bytes(content)
    found = open_predictions(preds, corpus).of(samples(corpus)[0])

    assert set(found.lost) == {"LV"}
    assert found.lost["LV"].startswith("1_LV.png: ")
    assert [target.object for target in found.targets] == ["RV"]
    assert (found.targets[0].mask == (RV > 0)).all()


def test_predictions_of_which_none_can_be_read_do_not_start(tmp_path, preds):
    """A forgotten option fails every file: one line at the start, not one per image."""
    data = tmp_path / "cells"
    for index in range(3):
        put(data / f"images/{index}.png", grey())
        put(data / f"masks/{index}.png", MAP)
        put(preds / f"{index}.png", MAP)
    corpus = curated(data, object_name="cell", instances=True)
    with pytest.raises(DataError, match=r"No prediction in .* can be used.*--instances"):
        open_predictions(preds, corpus)

    assert open_predictions(preds, corpus, instances=True).of(samples(corpus)[0]).missing is None


def test_what_a_prediction_holds_instead_is_told(tmp_path, preds):
    """A miss is often a wrong name: objects and values that the corpus does not know."""
    data = tmp_path / "two"
    put(data / "images/1.png", grey())
    put(data / "masks/1.png", MAP)
    corpus = curated(data, labels=table(data / "labels.json"))
    put_all(preds, **{"1": np.where(MAP == 0, 6, MAP).astype(np.uint8)})
    names = tmp_path / "names.json"
    names.write_text(json.dumps({"LV": 1, "right ventricle": 2}))
    found = open_predictions(preds, corpus, labels=names).of(samples(corpus)[0])

    assert found.besides == ", but right ventricle, value 6, unknown to the corpus"
