"""Folders that a mapping file explains become corpora, with every kind of masks."""

import json

import numpy as np
import polars as pl
import pytest
from PIL import Image
from skimage.draw import ellipse_perimeter

from promptseg.corpus import open_corpus
from promptseg.curation import Curation, curate
from promptseg.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

GREY = np.random.default_rng(5).integers(0, 256, (40, 60), dtype=np.uint8)
BLOCK = np.zeros((40, 60), np.uint8)
BLOCK[5:15, 10:30] = 255


class Folder:
    """A folder of data, its mapping file and the corpus that comes of it."""

    def __init__(self, root):
        self.root = root

    def put(self, name, array):
        """Write a picture or an array."""
        path = self.root / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".npz":
            np.savez(path, array)
        else:
            Image.fromarray(array).save(path)

    def curate(self, text, **settings):
        """Curate by a mapping file; gives the facts."""
        (self.root / "m.toml").write_text(text)
        out = self.root / "corpus"
        for _ in curate(
            self.root / "data", out, Curation(mapping=self.root / "m.toml", **settings)
        ):
            pass
        corpus = open_corpus(out)
        self.info = corpus.info
        self.images = pl.read_parquet(out / "images" / "*.parquet").to_dicts()
        self.targets = pl.read_parquet(out / "targets" / "*.parquet").to_dicts()
        self.drops = pl.read_parquet(out / "drops" / "*.parquet").to_dicts()
        samples = (s for group in corpus.row_groups() for s in corpus.read(group))
        self.masks = {t.target_id: t.mask for s in samples for t in s.targets}


@pytest.fixture
def folder(tmp_path):
    """Give a folder with one image."""
    folder = Folder(tmp_path)
    folder.put("images/1.png", GREY)
    return folder


def test_the_facts_of_a_mapping_file_come_into_the_corpus(folder):
    """Data set, modality, licence, citation, spacing, subject; and what was read as what."""
    folder.put("m/1_P07.png", BLOCK)
    folder.put("images/1_P07.png", GREY)
    (folder.root / "data/images/1.png").unlink()
    folder.curate(
        """
        dataset = "set"
        modality = "US"
        licence = "CC0-1.0"
        citation = "Somebody 2020"
        subject = "_(P[0-9]+)"
        spacing = [0.5, 0.25]
        [[masks]]
        path = "m/{key}.png"
        object = "lesion"
        """
    )
    (image,), (target,) = folder.images, folder.targets

    assert (image["image_id"], image["modality"], image["licence"]) == (
        "set/1_P07",
        "US",
        "CC0-1.0",
    )
    assert (image["subject"], image["subject_source"]) == ("P07", "pattern")
    assert (image["spacing_y_mm"], image["spacing_x_mm"]) == (0.5, 0.25)
    assert target["target_id"] == "set/1_P07#lesion"
    assert folder.info.datasets == [
        {"name": "set", "licence": "CC0-1.0", "citation": "Somebody 2020"}
    ]
    assert folder.info.rules["mapping"] == "m.toml"
    assert folder.info.rules["masks"] == "m/{key}.png (lesion)"
    croissant = json.loads((folder.root / "corpus/croissant.json").read_text())
    assert croissant["citeAs"] == "Somebody 2020"


def test_what_the_caller_says_is_put_before_the_mapping_file(folder):
    """Options on the command line win, also over modalities by path."""
    folder.put("masks/1.png", BLOCK)
    folder.curate(
        'dataset = "a"\nobject = "a"\nlicence = "a"\n[modality]\n"images/" = "a"',
        dataset="b",
        object_name="b",
        licence="b",
        modality="b",
    )

    assert folder.images[0]["image_id"] == "b/1"
    assert (folder.images[0]["modality"], folder.images[0]["licence"]) == ("b", "b")
    assert folder.targets[0]["object"] == "b"


def test_the_modality_may_differ_within_a_folder(folder):
    """Each image has its own, and one without has to be named."""
    folder.put("images/2_MR.png", GREY)
    for name in ("1", "2_MR"):
        folder.put(f"masks/{name}.png", BLOCK)
    folder.curate('object = "a"\n[modality]\n"_MR" = "MRI"\n"images/1" = "CT"')

    assert [image["modality"] for image in folder.images] == ["CT", "MRI"]
    assert set(folder.info.tasks) == {"a (CT)", "a (MRI)"}


def test_an_image_without_a_modality_is_named(folder):
    """Before anything is written."""
    folder.put("masks/1.png", BLOCK)

    with pytest.raises(DataError, match=r"The modality of images/1\.png is not known"):
        folder.curate('[modality]\n"_MR" = "MRI"')
    assert not (folder.root / "corpus/corpus.json").exists()


def test_values_may_be_merged_shared_and_zero(folder):
    """A cell with its nucleus, a background that is an object, and a value that nobody named."""
    values = np.zeros((40, 60), np.uint8)
    values[:10], values[10:20], values[20:25] = 128, 255, 7
    folder.put("m/1.png", values)
    folder.curate(
        """
        modality = "EM"
        [[masks]]
        path = "m/{key}.png"
        labels = { "cell" = [128, 255], "nucleus" = 255, "ground" = 0, "background" = 0 }
        """
    )
    areas = {target["object"]: target["area_px"] for target in folder.targets}

    assert areas == {"cell": 1200, "nucleus": 600, "ground": 900}
    assert np.array_equal(folder.masks["data/1#ground"], values == 0)
    assert [(drop["object"], drop["reason"]) for drop in folder.drops] == [
        ("label 7", "the table of labels has no value 7")
    ]


def test_masks_of_two_annotators_are_two_targets_of_one_object(folder):
    """The target's name says whose it is."""
    folder.put("m/1_A.png", BLOCK)
    folder.put("m/1_B.png", np.roll(BLOCK, 1, axis=0))
    folder.curate('modality = "US"\n[[masks]]\npath = "m/{key}_{annotator}.png"\nobject = "lesion"')

    assert [(t["target_id"], t["object"], t["annotator"]) for t in folder.targets] == [
        ("data/1#lesion@A", "lesion", "A"),
        ("data/1#lesion@B", "lesion", "B"),
    ]
    assert not np.array_equal(folder.masks["data/1#lesion@A"], folder.masks["data/1#lesion@B"])


def test_thresholds_are_those_of_the_masks(folder):
    """Each kind of masks has its own, so that one threshold does not ruin another's labels."""
    soft = np.zeros((40, 60), np.uint8)
    soft[:10], soft[10:20] = 100, 200
    folder.put("soft/1.png", soft)
    folder.put("map/1.png", soft // 100)
    folder.curate(
        """
        modality = "CT"
        [[masks]]
        path = "soft/{key}.png"
        object = "liver"
        threshold = 127
        [[masks]]
        path = "map/{key}.png"
        labels = { "a" = 1, "b" = 2 }
        """
    )

    assert {t["object"]: t["area_px"] for t in folder.targets} == {"liver": 600, "a": 600, "b": 600}
    assert np.array_equal(folder.masks["data/1#liver"], soft == 200)


def test_a_soft_mask_of_one_object_without_a_threshold_has_a_reason(folder):
    """Its greys are not taken for the object."""
    soft = np.zeros((40, 60), np.uint8)
    soft[:10], soft[10:20] = 100, 200
    folder.put("soft/1.png", soft)

    with pytest.raises(DataError, match="it holds N values besides N; expected is one"):
        folder.curate('modality = "CT"\n[[masks]]\npath = "soft/{key}.png"\nobject = "liver"')


def test_values_may_number_instances_of_an_object(folder):
    """As the glands of GlaS."""
    numbers = np.zeros((40, 60), np.uint8)
    numbers[:10], numbers[20:30] = 1, 9
    folder.put("m/1.png", numbers)
    folder.curate(
        'modality = "H"\n[[masks]]\npath = "m/{key}.png"\nobject = "gland"\ninstances = true'
    )

    assert [(t["object"], t["instance"]) for t in folder.targets] == [("gland", 1), ("gland", 9)]


def test_outlines_are_filled_and_one_with_a_gap_has_a_reason(folder):
    """Two closed lines are two instances; the other image is left out."""
    lines = np.zeros((40, 60), np.uint8)
    lines[ellipse_perimeter(20, 15, 12, 10)] = 255
    lines[ellipse_perimeter(20, 42, 12, 10)] = 255
    folder.put("m/1.png", lines)
    folder.put("images/2.png", GREY)
    lines = lines.copy()
    lines[18:22] = 0
    folder.put("m/2.png", lines)
    folder.curate(
        """
        modality = "US"
        [[masks]]
        path = "m/{key}.png"
        object = "head"
        outline = true
        instances = true
        """
    )

    assert [(t["image_id"], t["instance"]) for t in folder.targets] == [
        ("data/1", 1),
        ("data/1", 2),
    ]
    assert all(folder.masks[f"data/1#head/{n}"][20, x] for n, x in ((1, 15), (2, 42)))
    assert [drop["reason"] for drop in folder.drops] == [
        "a line in it is no closed outline: it encloses less than it covers itself",
        "none of its masks is usable",
    ]


def test_cropped_masks_come_to_their_place(folder):
    """Two have sound rows; the others have a reason, and their image stays."""
    for name in ("liver", "left_lung", "heart", "aorta", "spleen"):
        folder.put(f"m/1/{name}.png", np.full((10, 12), 200, np.uint8))
    (folder.root / "data/boxes.csv").write_text(
        "Image,Class,Top,Left\n1.png,Liver,3,4\n1.png,Left lung,20,40\n"
        "1.png,heart,35,0\n1.png,aorta,x,0\n"
    )
    folder.curate(
        """
        modality = "X-ray"
        [[masks]]
        path = "m/{key}/{object}.png"
        replace = { "_" = " " }
        [masks.offsets]
        table = "boxes.csv"
        image = "Image"
        object = "Class"
        top = "Top"
        left = "Left"
        """
    )

    assert {t["object"]: t["box"] for t in folder.targets} == {
        "liver": [4, 3, 16, 13],
        "left lung": [40, 20, 52, 30],
    }
    assert {drop["source"]: drop["reason"] for drop in folder.drops} == {
        "m/1/aorta.png": "the table of offsets has no whole numbers for it",
        "m/1/spleen.png": "the table of offsets has no row for it",
        "m/1/heart.png": "its box of 12 x 10 pixels at (0, 35) is not within its image, 60 x 40",
    }


def test_channels_are_objects_that_may_overlap(folder):
    """One file with a channel for each object."""
    stack = np.zeros((3, 40, 60), np.uint8)
    stack[0, :20], stack[2, 10:30] = 1, 1
    folder.put("m/1.npz", stack)
    folder.curate(
        'modality = "CT"\n[[masks]]\npath = "m/{key}.npz"\nchannels = ["liver", "spleen", "aorta"]'
    )

    assert np.array_equal(folder.masks["data/1#liver"], stack[0] > 0)
    assert np.array_equal(folder.masks["data/1#aorta"], stack[2] > 0)
    assert len(folder.targets) == 2
    assert folder.drops == []


def test_a_mask_of_another_size_has_a_reason(folder):
    """And does not hide the mask that fits."""
    folder.put("m/1_mask.png", BLOCK)
    folder.put("m/1_mask_1.png", BLOCK[:20])
    folder.curate(
        """
        modality = "US"
        [[masks]]
        path = ["m/{key}_mask.png", "m/{key}_mask_{instance}.png"]
        object = "lesion"
        """
    )

    assert [t["area_px"] for t in folder.targets] == [200]
    assert [drop["reason"] for drop in folder.drops] == [
        "its size 60 x 20 is not its image's, 60 x 40"
    ]


def test_the_same_folder_and_mapping_give_the_same_corpus(folder):
    """Whatever order the file system has."""
    folder.put("m/1_A.png", BLOCK)
    folder.put("m/1_B.png", BLOCK)
    text = 'modality = "US"\n[[masks]]\npath = "m/{key}_{annotator}.png"\nobject = "lesion"'
    folder.curate(text)
    first = folder.info.fingerprint
    for path in sorted((folder.root / "corpus").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    folder.curate(text)

    assert folder.info.fingerprint == first
