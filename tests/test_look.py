"""The first look at a folder: what it takes files for, what it proposes, and the page."""

import os
import re

import dicom_files as dicom
import hostile_work
import numpy as np
import pytest
from PIL import Image
from skimage.draw import ellipse_perimeter

from promptseg import cli
from promptseg.curation import Curation, curate
from promptseg.errors import DataError
from promptseg.isolated import Limits
from promptseg.look import look, look_apart
from promptseg.look.names import guess
from promptseg.reader.mapping import read_mapping

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

rng = np.random.default_rng(11)
GREY = rng.integers(0, 256, (60, 80), dtype=np.uint8)
BLOCK = np.zeros((60, 80), np.uint8)
BLOCK[10:40, 10:50] = 255
LINE = np.zeros((60, 80), np.uint8)
LINE[ellipse_perimeter(30, 40, 20, 25)] = 255
SOFT = np.clip(np.hypot(*np.mgrid[-30:30, -40:40]) * -12 + 400, 0, 255).astype(np.uint8)
MAP = np.where(BLOCK > 0, np.uint8(170), np.uint8(0))
MAP[45:55] = 85


def cells(n):
    """Draw n squares with the numbers 1 to n."""
    numbers = np.zeros((60, 80), np.uint8)
    for i in range(n):
        y, x = 5 + 10 * (i // 7), 5 + 10 * (i % 7)
        numbers[y : y + 7, x : x + 7] = i + 1
    return numbers


def put(path, array):
    """Write a picture or a stack."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        Image.fromarray(array).save(path)


@pytest.fixture
def data(tmp_path):
    """Give a folder with two images."""
    folder = tmp_path / "data"
    for name in ("a1", "a2"):
        put(folder / f"images/{name}.png", GREY)
    return folder


def whats(first):
    """Give what every kind of masks is taken for."""
    return {section.title: section.content.what for section in first.sections}


@pytest.mark.parametrize(
    ("masks", "what", "said"),
    [
        ((BLOCK, BLOCK), "binary", ""),
        ((BLOCK // 255, BLOCK), "binary", ""),
        ((LINE, LINE), "outline", "outline = true"),
        ((SOFT, SOFT), "soft", "threshold = 127"),
        ((MAP, MAP), "labels", '"label 85" = 85 #'),
        ((cells(5), cells(9)), "instances", "instances = true"),
        ((BLOCK[:50, :60], BLOCK), "binary", ""),
        ((BLOCK[:50, :60], BLOCK[:40, :60]), "cropped", "# offsets ="),
        ((BLOCK * 0, BLOCK * 0), "empty", ""),
    ],
)
def test_masks_are_taken_for_what_they_hold(data, tmp_path, masks, what, said):
    """By their values, not by their names; what is proposed can be read."""
    for name, mask in zip(("a1", "a2"), masks, strict=True):
        put(data / f"masks/{name}.png", mask)
    first = look(data, tmp_path / "out")

    assert whats(first) == {"masks/{key}.png": what}
    assert said in first.text
    assert first.error is None
    assert read_mapping(tmp_path / "out/mapping.toml").masks


def test_a_stack_of_channels_is_told_by_its_header(data, tmp_path):
    """Its channels have no names yet."""
    for name in ("a1", "a2"):
        put(data / f"masks/{name}.npy", np.stack([BLOCK, BLOCK, LINE]))
    first = look(data, tmp_path / "out")

    assert whats(first) == {"masks/{key}.npy": "channels"}
    assert read_mapping(first.mapping).masks[0].kind.channels == (
        "channel 1",
        "channel 2",
        "channel 3",
    )


def test_a_table_of_offsets_is_found(data, tmp_path):
    """By columns that are called as corners are, and the names of files."""
    for name in ("a1", "a2"):
        put(data / f"masks/{name}.png", BLOCK[:50, :60])
    (data / "boxes.csv").write_text("mask,Y,X\na1.png,3,4\na2.png,5,6\n")
    first = look(data, tmp_path / "out")

    assert 'offsets = { table = "boxes.csv", file = "mask", top = "Y", left = "X" }' in first.text
    assert all(picture.layers for picture in first.sections[0].pictures)


def test_one_object_of_another_kind_is_parted_from_the_others(data, tmp_path):
    """A label map beside a binary mask, told apart by the ends of their names."""
    for name in ("a1", "a2"):
        put(data / f"masks/{name}_parts.png", MAP)
        put(data / f"masks/{name}_whole.png", BLOCK)
    first = look(data, tmp_path / "out")

    assert whats(first) == {"masks/{key}_parts.png": "labels", "masks/{key}_whole.png": "binary"}
    assert 'object = "whole"' in first.text


@pytest.mark.parametrize(
    ("files", "images", "patterns"),
    [
        (["images/1.png", "masks/1.png"], "images/{key}.png", ["masks/{key}.png"]),
        (["i/1.png", "i/1_mask.png"], "i/{key}.png", ["i/{key}_mask.png"]),
        (
            ["train/image/1.tif", "train/label/1.png"],
            "train/image/{key}.tif",
            ["train/label/{key}.png"],
        ),
        (
            ["images/00.tif", "images/08.tif", "m/labels0000.png", "m/labels0008.png"],
            "images/{key}.tif",
            ["m/labels{key:d}.png"],
        ),
        (
            ["images/7_img.png", "images/8_img.png", "masks/7_gt.png", "masks/8_gt.png"],
            "images/{key}_img.png",
            ["masks/{key}_gt.png"],
        ),
        (
            ["images/x.png", "images/y.png", "masks/b.png", "masks/c.png"],
            "images/{key}.png",
            ["masks/{key}.png"],
        ),
        (
            ["images/1.png", "masks/1_liver_1.png", "masks/1_aorta_2.png"],
            "images/{key}.png",
            ["masks/{key}_{object}_{instance}.png"],
        ),
        (
            ["images/1.png", "masks/1_1stHO.png", "masks/1_2ndHO.png"],
            "images/{key}.png",
            ["masks/{key}_{annotator}.png"],
        ),
        (
            ["images/1.nii.gz", "labels/1/liver.nii.gz"],
            "images/{key}.nii.gz",
            ["labels/{key}/liver.nii.gz"],
        ),
    ],
)
def test_names_are_paired(files, images, patterns):
    """By what they share, by number, or by their order."""
    found = guess(files)

    assert found.image_patterns == (images,)
    assert [shape.pattern for shape in found.shapes] == patterns
    assert found.unpaired == ()


def test_pairs_by_order_are_written_down(data, tmp_path):
    """So that they can be looked at, and changed."""
    for name in ("x", "y"):
        put(data / f"masks/{name}.png", BLOCK)
    first = look(data, tmp_path / "out")

    assert dict(read_mapping(first.mapping).masks[0].keys) == {"x": "a1", "y": "a2"}
    assert "by their order: look whether it is right" in first.text
    assert first.sections[0].n_images == 2


def test_what_is_proposed_curates(data, tmp_path):
    """From a look to a corpus, without a change but the modality."""
    for name in ("a1", "a2"):
        put(data / f"masks/{name}.png", MAP)
        put(data / f"masks_lesion/{name}.png", SOFT)
    look(data, tmp_path / "out")
    settings = Curation(mapping=tmp_path / "out/mapping.toml", modality="CT")
    *_, last = curate(data, tmp_path / "corpus", settings)

    assert (last.done, last.drops) == (2, {})


def test_a_folder_of_dicom_is_proposed_without_patterns(tmp_path):
    """Headers pair images and masks; a pattern for no file would be an empty list."""
    files = dicom.series(np.arange(3000, dtype=np.int16).reshape(5, 20, 30), np.eye(4))
    masks = np.zeros((5, 20, 30, 1), np.uint8)
    masks[1:4, 4:15, 5:20] = 1
    dicom.save(tmp_path / "d", [*files, dicom.segmentation(files, masks, ["liver"])])
    first = look(tmp_path / "d", tmp_path / "look.html")
    text = (tmp_path / "look.html").read_text()

    assert (first.n_images, [section.n_masks for section in first.sections]) == (1, [1])
    assert "images =" not in first.text
    assert "1 file of 1 image, taken for what names and headers say." in text
    assert not read_mapping(first.mapping).has_patterns()


def test_an_object_has_one_colour_in_all_images(data, tmp_path):
    """Also where another object is missing."""
    put(data / "masks/a1.png", MAP)
    put(data / "masks/a2.png", np.where(MAP == 170, MAP, 0).astype(np.uint8))
    first, second = look(data, tmp_path / "out").sections[0].pictures
    hues = {layer.name: layer.hue for layer in first.layers}

    assert len(set(hues.values())) == 2
    assert [(layer.name, layer.hue) for layer in second.layers] == [
        ("label 170", hues["label 170"])
    ]


def test_names_are_escaped(tmp_path):
    """A file's name is not to run in the page, nor to break the mapping file."""
    name = '<img src=x onerror=alert(1)>"&'
    put(tmp_path / f"d/images/{name}.png", GREY)
    put(tmp_path / f"d/masks/{name}_<b>x.png", BLOCK)
    first = look(tmp_path / "d", tmp_path / "out")
    page = first.page.read_text()

    assert first.error is None
    assert "<img" not in page
    assert "<b>" not in page
    assert "&lt;b&gt;x" in page
    assert not re.search(r"<script|(src|href)=\"(?!data:)", page)


def test_a_changed_mapping_file_is_not_written_over(data, tmp_path):
    """The same proposal may be written again."""
    put(data / "masks/a1.png", BLOCK)
    look(data, tmp_path / "out")
    look(data, tmp_path / "out")
    (tmp_path / "out/mapping.toml").write_text("# mine")

    with pytest.raises(DataError, match="is there already and says something else"):
        look(data, tmp_path / "out")
    assert (tmp_path / "out/mapping.toml").read_text() == "# mine"


def test_a_given_mapping_file_is_drawn(data, tmp_path):
    """To see what a change makes of the folder; nothing is proposed then."""
    put(data / "masks/a1.png", BLOCK)
    put(data / "masks/zz.png", BLOCK)
    mapping = tmp_path / "own.toml"
    mapping.write_text('[[masks]]\npath = "masks/{key}.png"\nobject = "liver"')
    first = look(data, tmp_path / "out.html", mapping)

    assert first.page == tmp_path / "out.html"
    assert [layer.name for layer in first.sections[0].pictures[0].layers] == ["liver"]
    assert first.reasons == {"no image has the key in this mask's name": 1}
    assert first.without == ("images/a2.png",)
    assert not (tmp_path / "mapping.toml").exists()
    mapping.write_text("mask = 1")
    with pytest.raises(DataError, match="Did you mean 'masks'"):
        look(data, tmp_path / "out.html", mapping)


def test_a_folder_that_holds_nothing_to_read_has_a_page_too(tmp_path):
    """It says what is there and why it is not read."""
    (tmp_path / "d/images").mkdir(parents=True)
    (tmp_path / "d/images/a.xyz").touch()
    first = look(tmp_path / "d", tmp_path / "out")

    assert "images/a.xyz (files of this type are not read)" in first.error
    assert "images/a.xyz" in first.page.read_text()
    with pytest.raises(DataError, match="There is no folder"):
        look(tmp_path / "none", tmp_path / "out")


def test_unreadable_masks_are_told(data, tmp_path):
    """The page says so where they would be drawn."""
    put(data / "masks/a1.png", BLOCK)
    (data / "masks/a2.png").write_bytes(b"no picture")
    first = look(data, tmp_path / "out")

    assert whats(first) == {"masks/{key}.png": "binary"}
    assert len(first.sections[0].content.reasons) == 1
    assert "left out: it cannot be read" in first.page.read_text()


def test_the_command_looks(data, tmp_path, capsys, monkeypatch):
    """`--look` needs no --out, and a corpus does."""
    put(data / "masks/a1.png", BLOCK)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as raised:
        cli.main(["curate", "data", "--look"])

    assert raised.value.code == 0
    assert (tmp_path / "data.look/look.html").is_file()
    assert "binary masks" in capsys.readouterr().out
    with pytest.raises(SystemExit) as raised:
        cli.main(["curate", "data", "--modality", "CT"])
    assert raised.value.code == 2
    assert "--out" in capsys.readouterr().err


def test_a_file_that_swells_its_reader_costs_no_more_than_itself(data, monkeypatch):
    """The command looks in a process of its own, with a limit, and again without that file."""
    monkeypatch.setattr("promptseg.look._LIMITS", Limits(memory_bytes=1 << 28))
    large = np.zeros((8000, 8000, 1), np.float32)
    put(data / "masks/a1.png", BLOCK)
    for folder in ("images", "masks"):
        np.save(data / folder / "large.npy", large)
    first = look_apart(data, data.parent / "look")

    assert first.reasons == {"it needs more than 0.25 GiB of memory": 1}
    assert [file for file, _ in first.left_out] == ["images/large.npy"]
    assert whats(first)["masks/{key}.png"] == "binary"


CRASHED = "reading it crashed the reader (signal 11)"


@pytest.mark.parametrize(
    "lost",
    [
        ("masks/a00.png",),  # drawn, and looked into before
        ("masks/a02.png",),  # drawn alone
        ("images/a02.png",),
        ("images/a04.png", "masks/a03.png", "masks/a02.png"),
    ],
    ids=lambda lost: " ".join(lost),
)
def test_a_file_that_crashes_its_reader_costs_no_more_than_itself(tmp_path, monkeypatch, lost):
    """The others are guessed and drawn; the page says why, and what is proposed is the same."""
    monkeypatch.setattr("promptseg.look._looked", hostile_work.look_and_crash)
    for number in range(12):
        for folder, picture in (("images", GREY), ("masks", BLOCK)):
            put(tmp_path / f"d/{folder}/a{number:02d}.png", picture)
    look(tmp_path / "d", tmp_path / "whole")
    for name in lost:
        os.utime(tmp_path / "d" / name, ns=(1, 1))
    first = look_apart(tmp_path / "d", tmp_path / "out")
    page = (tmp_path / "out/look.html").read_text()
    pictures = {picture.source: picture for picture in first.sections[0].pictures}
    proposals = [(tmp_path / name / "mapping.toml").read_text() for name in ("whole", "out")]

    assert whats(first) == {"masks/{key}.png": "binary"}
    assert first.left_out == tuple((name, CRASHED) for name in sorted(lost))
    assert CRASHED in page
    assert proposals[0] == proposals[1]
    assert list(pictures) == ["images/a00.png", "images/a02.png", "images/a04.png"]
    for source, picture in pictures.items():
        mask = source.replace("images", "masks")
        assert picture.reasons == ((CRASHED,) if {source, mask} & set(lost) else ())
        assert bool(picture.layers) is not bool({source, mask} & set(lost))
        assert bool(picture.uri) is (source not in lost)


def test_a_look_that_always_crashes_says_so(data, monkeypatch):
    """Where no file is to blame, and where too many are."""
    put(data / "masks/a1.png", BLOCK)
    monkeypatch.setattr("promptseg.look._looked", hostile_work.leave)
    with pytest.raises(DataError, match=r"^The folder cannot be looked at: reading it ended"):
        look_apart(data, data.parent / "look")
    monkeypatch.setattr("promptseg.look._looked", hostile_work.look_and_crash)
    monkeypatch.setattr("promptseg.look._MOST_LOST", 1)
    os.utime(data / "masks/a1.png", ns=(1, 1))
    with pytest.raises(DataError, match=r"looked at: 1 times, reading it crashed the reader"):
        look_apart(data, data.parent / "look")
