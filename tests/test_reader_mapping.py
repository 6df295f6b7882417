"""Mapping files: what they say, what they refuse, and which files they find."""

import os
import re
import sys
from pathlib import Path

import pytest

from promptseg.errors import DataError
from promptseg.reader import mapping
from promptseg.reader.mapped import scan_by
from promptseg.reader.mapping import read_mapping
from promptseg.reader.pattern import keys_of, pattern

FIELDS = ("key", "object", "instance", "annotator")


def mapping_of(tmp_path, text):
    """Read a mapping file of a text."""
    path = tmp_path / "m.toml"
    path.write_text(text, encoding="utf-8")
    return read_mapping(path)


def listing_of(tmp_path, text, *files):
    """Scan empty files by a mapping file; names alone tell."""
    for file in files:
        (tmp_path / "data" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / file).touch()
    return scan_by(tmp_path / "data", mapping_of(tmp_path, text))


def masks_by_image(listing):
    """Give the mask files of every image."""
    return {image.source: [mask.source for mask in image.masks] for image in listing.images}


@pytest.mark.parametrize(
    ("text", "source", "found"),
    [
        ("m/{key}.png", "m/a/1.png", ("a/1", {})),
        ("m/{key}_{object}.png", "m/1_left_lung.png", ("1", {"object": "left_lung"})),
        ("m/{key}_{object}_{instance}.png", "m/1_2_rib_9_0.png", ("1_2", {"object": "rib_9"})),
        ("m/{key}/{object}__*.png", "m/1/lung__x.png", ("1", {"object": "lung"})),
        ("m/x*_{key}.(1, 2).npz", "m/xyz_1.(1, 2).npz", ("1", {})),
        ("**/{key}_{annotator}.png", "a/b/1_A.png", ("1", {"annotator": "A"})),
        ("m/{key}.*", "m/1.nii.gz", ("1", {})),
        ("m/{key}.*", "m/1.5.png", ("1.5", {})),
        ("m/{key}_{object}.png", "m/9_liver.png", None),
        ("m/{key}.png", "m/1.PNG", None),
        ("m/{key}.png", "mm/1.png", None),
    ],
)
def test_a_pattern_finds_the_longest_key_that_an_image_has(text, source, found):
    """Keys may contain what parts them from objects, so only the images can tell."""
    hit = pattern(text, FIELDS).find(source, keys_of({"1", "1_2", "a/1", "1.5"}))

    assert (hit is None) is (found is None)
    if hit is not None:
        hit[1].pop("instance", None)
        assert hit == found


def test_numbers_are_keys_without_their_leading_zeros():
    """`labels00000008.png` is the mask of `08.tif`; of two with one number, neither's."""
    by_number = pattern("m/labels{key:d}.png", FIELDS)

    assert by_number.find("m/labels00000008.png", keys_of({"08", "8a"})) == ("08", {})
    assert by_number.find("m/labels00000009.png", keys_of({"08"})) is None
    assert by_number.find("m/labels00000008.png", keys_of({"08", "008"})) is None
    assert by_number.find("m/labels١.png", keys_of({"1"})) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("../m/{key}.png", "below the folder"),
        ("/m/{key}.png", "below the folder"),
        ("m/../../{key}.png", "below the folder"),
        ("m\\{key}.png", "below the folder"),
        ("m//{key}.png", "below the folder"),
        ("", "below the folder"),
        ("m/{kee}.png", "Did you mean {key}"),
        ("m/{key", "cannot be read at '{'"),
        ("m/{key}_{object:d}.png", "{object:d}"),
        ("m/{key}/{key}.png", "twice"),
    ],
)
def test_a_pattern_that_cannot_be_is_refused(text, told):
    """No pattern leads out of the folder, and a typo does not become a name to look for."""
    with pytest.raises(DataError) as raised:
        pattern(text, FIELDS)

    assert told in str(raised.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('modalty = "CT"', "no key 'modalty'. Did you mean 'modality'?"),
        ('[[masks]]\npath = "m/{key}.png"\ntreshold = 1', "Did you mean 'threshold'?"),
        ('[[masks]]\nobject = "liver"', "[[masks]] needs a path"),
        ('[masks]\npath = "m/{key}.png"', "under [[masks]]"),
        ("masks = [1]", "under [[masks]]"),
        ('[[masks]]\npath = "m/a.png"', "has no {key}"),
        ('images = "i/a.png"', "has no {key}"),
        ("images = 3", "expected is a pattern"),
        ('[[masks]]\npath = "m/{key}.png"\nthreshold = "127"', "expected is a number"),
        ('[[masks]]\npath = "m/{key}.png"\nthreshold = nan', "expected is a number"),
        ('[[masks]]\npath = "m/{key}.png"\nthreshold = true', "expected is a number"),
        ('[[masks]]\npath = "m/{key}.png"\noutline = 1', "expected is true or false"),
        ('[[masks]]\npath = "m/{key}.png"\nlabels = { "a" = -1 }', '"a" with -1'),
        ('[[masks]]\npath = "m/{key}.png"\nlabels = { "a" = 1.5 }', '"a" with 1.5'),
        ('[[masks]]\npath = "m/{key}.png"\nlabels = { "background" = 0 }', "names no value"),
        ('[[masks]]\npath = "m/{key}.png"\nlabels = "a"', "labels holds 'a'"),
        ('[[masks]]\npath = "m/{key}.png"\nchannels = ["a", "a"]', "'a' twice"),
        ('[[masks]]\npath = "m/{key}.png"\nchannels = []', "expected is a list of names"),
        ('[[masks]]\npath = "m/{key}.png"\nobject = "a"\nchannels = ["a"]', "object and channels"),
        ('[[masks]]\npath = "m/{key}.png"\nobject = "a"\nlabels = {"a"=1}', "object and labels"),
        ('[[masks]]\npath = "m/{key}_{object}.png"\nobject = "a"', "has {object}"),
        ('[[masks]]\npath = "m/{key}.png"\noffsets = { table = "t" }', "offsets needs top"),
        ('[[masks]]\npath = "m/{key}.png"\noffsets = { tabel = "t" }', "Did you mean 'table'?"),
        ('[[masks]]\npath = "m/{key}.png"\noffsets = {table="t",top="T",left="L"}', "needs file"),
        ("spacing = [1.0]", "expected is [Y, X] in mm"),
        ("spacing = [1.0, -1.0]", "expected is [Y, X] in mm"),
        ('object = ""', "expected is a text"),
        ('object = "a\\nb"', "no plain text"),
        ("modality = 1", "expected is a text"),
        ("modality = { CT = 1 }", "expected is a text"),
        ("a = [", "is no mapping file"),
        ("x = " + "[" * 5000, "is no mapping file"),
    ],
)
def test_what_a_mapping_file_cannot_say_is_refused(tmp_path, text, told):
    """A typo in a key would else silently leave a threshold away."""
    with pytest.raises(DataError) as raised:
        mapping_of(tmp_path, text)

    assert told in str(raised.value)


def test_a_mapping_file_that_is_not_there_or_no_text_is_refused(tmp_path):
    """The message names the file."""
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "big.toml").write_bytes(b"#" * (2**22 + 1))

    with pytest.raises(DataError, match=r"There is no file .*a\.toml"):
        read_mapping(tmp_path / "a.toml")
    with pytest.raises(DataError, match=r"b\.toml is no mapping file"):
        read_mapping(tmp_path / "b.toml")
    with pytest.raises(DataError, match=r"big\.toml is no mapping file: it is too large"):
        read_mapping(tmp_path / "big.toml")
    with pytest.raises(DataError, match="cannot be read"):
        read_mapping(tmp_path)


def test_masks_are_found_by_their_patterns(tmp_path):
    """Several kinds of masks of one image, in folders of their own."""
    listing = listing_of(
        tmp_path,
        """
        images = "img/{key}.*"
        [[masks]]
        path = "a/{key}_{object}.png"
        replace = { "+" = " " }
        names = { "lv" = "left ventricle" }
        [[masks]]
        path = "b/labels{key:d}.png"
        labels = { "cell" = [1, 2], "nucleus" = 2 }
        """,
        *("img/1.tif", "img/2.png", "a/1_left+lung.png", "a/2_lv.png", "b/labels001.png"),
    )
    one, two = listing.images

    assert [(m.source, m.object) for m in one.masks] == [
        ("a/1_left+lung.png", "left lung"),
        ("b/labels001.png", None),
    ]
    assert [(m.source, m.object) for m in two.masks] == [("a/2_lv.png", "left ventricle")]
    assert one.masks[1].kind.labels == {"cell": (1, 2), "nucleus": (2,)}
    assert listing.left_out == ()


def test_images_and_masks_may_share_a_folder(tmp_path):
    """`1.png` and `1_mask.png`: a file that a pattern of masks fits is no image."""
    listing = listing_of(
        tmp_path,
        'images = "{key}.png"\n[[masks]]\npath = "{key}_mask.png"',
        *("1.png", "1_mask.png", "2_mask.png"),
    )

    assert masks_by_image(listing) == {"1.png": ["1_mask.png"]}
    assert listing.left_out == (("2_mask.png", "no image has the key in this mask's name"),)


def test_masks_without_a_word_on_them_are_paired_by_name(tmp_path):
    """A mapping file may say where images are and nothing else."""
    listing = listing_of(
        tmp_path,
        'images = "scans/{key}.png"',
        *("scans/1.png", "masks/1_liver.png", "masks/9.png", "odd/x.png", "README.txt"),
    )

    assert masks_by_image(listing) == {"scans/1.png": ["masks/1_liver.png"]}
    assert listing.left_out == (
        ("masks/9.png", "no image belongs to this mask by its name"),
        ("odd/x.png", "it lies in no folder of images or masks"),
    )


def test_what_no_pattern_fits_is_listed_and_what_is_ignored_is_not(tmp_path):
    """Nothing is left out silently but what the user says."""
    listing = listing_of(
        tmp_path,
        'ignore = "fov/*"\n[[masks]]\npath = "masks/{key}.png"',
        *("images/1.png", "images/2.dcm", "masks/1.png", "masks/1.txt", "fov/1.png", "x/1.png"),
        *("LICENCE", "x/.hidden.png", ".git/a.png"),
    )

    assert listing.left_out == (
        ("images/2.dcm", "it is no DICOM file: it has no preamble"),
        ("masks/1.txt", "no pattern of the mapping file fits it"),
        ("x/1.png", "no pattern of the mapping file fits it"),
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('images = "img/{key}.png"', "no file fits 'img/{key}.png' of images"),
        ('[[masks]]\npath = "mask/{key}.png"', "no file fits 'mask/{key}.png' of [[masks]]"),
        (
            '[[masks]]\npath = "masks/m{key}_x.png"',
            "masks/m9_x.png would have the key '9', and keys of images are '1'",
        ),
        ('images = "images/{key}.*"', "Two images have the key '1'"),
        (
            '[[masks]]\npath = "masks/{key}.png"\n[[masks]]\npath = "masks/*{key}.png"',
            "masks/1.png fits two kinds of masks",
        ),
        (
            '[[masks]]\npath = "masks/{key}.png"\nkeys = { "1" = "one" }',
            "names the image 'one', which is not there. Did you mean '1'?",
        ),
        (
            '[[masks]]\npath="masks/{key}.png"\noffsets={table="../t.csv",file="a",top="b",left="c"}',
            "'../t.csv' lies outside the folder",
        ),
    ],
)
def test_patterns_that_do_not_go_together_with_the_files_are_refused(tmp_path, text, told):
    """One clear line, before anything is written."""
    with pytest.raises(DataError) as raised:
        listing_of(tmp_path, text, "images/1.png", "images/1.tif", "masks/1.png", "masks/m9_x.png")

    assert told in str(raised.value)


def test_masks_whose_names_have_nothing_of_their_images_go_by_a_list(tmp_path):
    """Nothing but the order tells; the mapping file writes it down."""
    listing = listing_of(
        tmp_path,
        '[[masks]]\npath = "masks/{key}.png"\nkeys = { "x" = "b", "y" = "a" }',
        *("images/a.png", "images/b.png", "masks/x.png", "masks/y.png"),
    )

    assert masks_by_image(listing) == {
        "images/a.png": ["masks/y.png"],
        "images/b.png": ["masks/x.png"],
    }


def test_masks_of_one_object_are_numbered_and_those_of_annotators_are_not(tmp_path):
    """Two files of one object are two instances, unless two people drew it."""
    listing = listing_of(
        tmp_path,
        """
        [[masks]]
        path = ["m/{key}_mask.png", "m/{key}_mask_{instance}.png"]
        object = "lesion"
        [[masks]]
        path = "n/{key}_{annotator}.png"
        object = "vessels"
        """,
        *("images/1.png", "m/1_mask.png", "m/1_mask_1.png", "n/1_A.png", "n/1_B.png"),
    )
    (image,) = listing.images

    assert [(m.object, m.instance, m.annotator) for m in image.masks] == [
        ("lesion", 0, None),
        ("lesion", 1, None),
        ("vessels", None, "A"),
        ("vessels", None, "B"),
    ]


def test_object_modality_and_subject_may_be_told_by_the_path(tmp_path):
    """Several data sets in one folder; of two texts in a path the longer counts."""
    listing = listing_of(
        tmp_path,
        """
        images = "images/{subject}_{key}.png"
        [modality]
        "_MR_" = "MRI"
        "_MR_FLAIR_" = "FLAIR MRI"
        [[masks]]
        path = "masks/*_{key}.png"
        object = { "/A" = "liver", "/B" = "femur" }
        """,
        *("images/A_MR_1.png", "images/B_MR_FLAIR_2.png", "images/C_CT_3.png"),
        *("masks/A_MR_1.png", "masks/B_MR_FLAIR_2.png", "masks/C_CT_3.png"),
    )
    told = [(i.subject, i.modality, [m.object for m in i.masks]) for i in listing.images]

    assert told == [
        ("A", "MRI", ["liver"]),
        ("B", "FLAIR MRI", ["femur"]),
        ("C", None, []),
    ]
    assert listing.left_out == (
        ("masks/C_CT_3.png", "its path has none of the texts that tell the object"),
    )
    assert listing.images[2].lost_mask


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_that_lead_out_of_the_folder_are_not_followed(tmp_path):
    """A data set must not bring in a file from beside it."""
    (tmp_path / "secret.png").touch()
    (tmp_path / "data/images").mkdir(parents=True)
    (tmp_path / "data/masks").mkdir()
    os.symlink(tmp_path / "secret.png", tmp_path / "data/masks/1.png")
    os.symlink("2.png", tmp_path / "data/masks/3.png")
    files = ("images/1.png", "images/2.png", "images/3.png", "masks/2.png")
    listing = listing_of(tmp_path, '[[masks]]\npath = "masks/{key}.png"', *files)

    assert listing.left_out == (("masks/1.png", "a link that leads out of the folder"),)
    assert [image.lost_mask for image in listing.images] == [True, False, False]
    assert [len(image.masks) for image in listing.images] == [0, 1, 1]


DOCS = Path(__file__).parents[1] / "docs/curation.md"


@pytest.mark.parametrize("text", re.findall(r"```toml\n(.*?)```", DOCS.read_text(), re.DOTALL))
def test_the_examples_of_the_docs_are_mapping_files(tmp_path, text):
    """What the page teaches can be copied."""
    assert mapping_of(tmp_path, text).masks


def test_the_docs_know_every_key_of_a_mapping_file():
    """A key that the page does not name will not be found."""
    page = DOCS.read_text()

    for key in (*mapping._TOP, *mapping._MASKS, *mapping._OFFSETS):
        assert re.search(rf"\b{key}\b", page), key
