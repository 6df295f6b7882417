"""Splits of a curation: subjects stay whole, copies stay together, leaks are errors."""

import numpy as np
import polars as pl
import pytest
from test_curation import put
from test_likeness import CHANGES, scene

from promptseg.corpus import open_corpus
from promptseg.curation import Curation, curate
from promptseg.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
MASK = np.zeros((180, 220), np.uint8)
MASK[30:90, 40:120] = 255


def write(folder, name, image, objects=("liver",)):
    """Write one image with a mask per object."""
    put(folder / "images" / f"{name}.png", image)
    mask = np.zeros(image.shape[:2], np.uint8)
    mask[10:40, 10:50] = 255
    for shown in objects:
        put(folder / "masks" / f"{name}_{shown}.png", mask)


@pytest.fixture
def folder(tmp_path):
    """Twelve subjects of two images; three of them with a second object."""
    for number in range(24):
        objects = ("liver", "tumour") if number < 6 else ("liver",)
        write(tmp_path / "data", f"s{number // 2:02d}_{number % 2}", scene(number), objects)
    return tmp_path / "data"


def curated(folder, out, **settings):
    """Curate, and give image_id -> split."""
    settings.setdefault("subject_pattern", r"(s\d+)_")
    for _ in curate(folder, out, Curation(modality="CT", **settings)):
        pass
    corpus = open_corpus(out)  # checks that facts and digests agree
    samples = [sample for group in corpus.row_groups() for sample in corpus.read(group)]
    assert len(samples) == corpus.info.n_images
    return dict(pl.read_parquet(out / "images" / "*.parquet").select("image_id", "split").rows())


def test_subjects_stay_whole_and_every_task_is_everywhere(folder, tmp_path):
    """Two images of one patient never part; the rare object is in each split."""
    splits = curated(folder, tmp_path / "out", split="train=0.5,val=0.25,test=0.25")
    of_subject = {}
    for image_id, split in splits.items():
        of_subject.setdefault(image_id[5:8], set()).add(split)
    rare = [splits[f"data/s{number:02d}_0"] for number in range(3)]

    assert all(len(found) == 1 for found in of_subject.values())
    assert sorted(found.pop() for found in of_subject.values()) == (
        ["test"] * 3 + ["train"] * 6 + ["val"] * 3
    )
    assert set(rare) == {"train", "val", "test"}
    assert "seed 0" in open_corpus(tmp_path / "out").info.rules["split"]


def test_another_seed_is_another_split_and_the_same_is_the_same(folder, tmp_path):
    """Splits depend on names and the seed alone."""
    shares = "train=0.5,test=0.5"
    first = curated(folder, tmp_path / "a", split=shares)

    assert curated(folder, tmp_path / "b", split=shares) == first
    assert curated(folder, tmp_path / "c", split=shares, split_seed=1) != first


@pytest.mark.parametrize("change", ["same", "half", "compressed"])
def test_subjects_with_copies_stay_together(folder, tmp_path, change):
    """Whatever the seed: what one teaches is not asked of the other."""
    write(folder, "s20_0", CHANGES[change](scene(3)))  # an image of subject s01
    shares = "train=0.5,test=0.5"
    for seed in range(4):
        splits = curated(folder, tmp_path / str(seed), split=shares, split_seed=seed)

        assert splits["data/s20_0"] == splits["data/s01_0"] == splits["data/s01_1"]
    assert "1 kept with another" in open_corpus(tmp_path / "0").info.rules["split"]


def test_a_split_that_paths_tell_is_taken_and_leaks_in_it_are_errors(tmp_path):
    """A resized copy of another patient's image, and a patient on both sides."""
    data = tmp_path / "data"
    for number in range(6):
        write(data, f"{'train' if number < 4 else 'test'}/s{number}_0", scene(number))
    pattern = {"split_pattern": "/(train|test)/", "subject_pattern": r"(s\d+)_"}
    clean = curated(data, tmp_path / "clean", **pattern)
    write(data, "test/s8_0", CHANGES["half"](scene(1)))
    with pytest.raises(DataError, match="1 leak: data/test/s8_0 is nearly the same as data/tr"):
        curated(data, tmp_path / "leak", **pattern)

    allowed = curated(data, tmp_path / "leak", **pattern, allow_leaks=("data/test/s8_0",))
    write(data, "test/s2_1", scene(77))
    with pytest.raises(DataError, match="A leak: subject s2 is in split"):
        curated(data, tmp_path / "subject", **pattern)

    assert sorted(clean.values()) == ["test"] * 2 + ["train"] * 4
    assert allowed["data/test/s8_0"] == "test"


def test_a_refused_split_costs_no_reading_again(tmp_path):
    """What was read waits for a name to be allowed."""
    data = tmp_path / "data"
    write(data, "train/s1_0", scene(1))
    write(data, "test/s2_0", scene(1))
    pattern = {"split_pattern": "/(train|test)/"}
    with pytest.raises(DataError, match="is the same as"):
        curated(data, tmp_path / "out", **pattern)
    (data / "images" / "train" / "s1_0.png").chmod(0)
    settings = Curation(modality="CT", subject_pattern=r"(s\d+)_", **pattern, allow_leaks=("data",))

    assert list(curate(data, tmp_path / "out", settings)) == []
    assert open_corpus(tmp_path / "out").info.n_images == 2


def test_what_cannot_be_split_is_refused(folder, tmp_path):
    """Unknown subjects, too few, no shares, and two answers to one question."""
    shares = {"split": "train=0.5,test=0.5"}
    with pytest.raises(DataError, match="subject of an image is unknown"):
        curated(folder, tmp_path / "a", **shares, subject_pattern=None)
    with pytest.raises(DataError, match="1 subject cannot give train, test one each"):
        curated(folder, tmp_path / "b", **shares, subject_pattern="s")
    with pytest.raises(DataError, match="Cannot read the split 'half'"):
        curated(folder, tmp_path / "c", split="half")
    with pytest.raises(DataError, match="either --split or --split-pattern"):
        curated(folder, tmp_path / "d", **shares, split_pattern="s1")
    with pytest.raises(DataError, match="finds a split in no image's path"):
        curated(folder, tmp_path / "e", split_pattern="/(train|test)/")


def test_images_may_be_split_where_no_subject_is_known(folder, tmp_path):
    """If the user says so."""
    splits = curated(
        folder, tmp_path / "a", split="train=0.5,test=0.5", subject_pattern=None, split_by="image"
    )

    assert sorted(splits.values()) == ["test"] * 12 + ["train"] * 12
