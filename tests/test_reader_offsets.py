"""Tables of corners: which row belongs to a mask, and what is no table."""

import pytest

from promptseg.errors import DataError
from promptseg.reader.offsets import MOST_BYTES, read_offsets

BY_FILE = {"file": "Mask", "top": "Top", "left": "Left"}
BY_NAME = {"image": "Filename", "object": "Class", "top": "Top", "left": "Left"}


def table(tmp_path, *rows):
    """Write a table of some rows."""
    path = tmp_path / "t.csv"
    path.write_text("Mask,Filename,Class,Top,Left\n" + "\n".join(rows), encoding="utf-8-sig")
    return path


def test_a_row_belongs_to_the_mask_of_its_file(tmp_path):
    """Paths in a table are those of another machine: the file's name counts."""
    offsets = read_offsets(table(tmp_path, r"C:\x\m1.png,,,3,4", "m/m2.png,,,5.0,6"), BY_FILE)

    assert offsets.corner("masks/m1.png", "images/1.png", None) == (3, 4)
    assert offsets.corner("masks/m2.png", "images/1.png", None) == (5, 6)


def test_a_row_belongs_to_the_mask_of_its_image_and_object(tmp_path):
    """Capitals, and _ for a space, make no difference."""
    offsets = read_offsets(table(tmp_path, ",1.jpg,Left Lung,3,4", ",1.jpg,Liver,5,6"), BY_NAME)

    assert offsets.corner("masks/1/a.png", "images/1.jpg", "left_lung") == (3, 4)
    assert offsets.corner("masks/1/b.png", "images/1.jpg", "liver") == (5, 6)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (["m2.png,,,1,2"], "no row"),
        (["m.png,,,1,2", "m.png,,,1,3"], "2 rows"),
        (["m.png,,,x,2"], "no whole numbers"),
        (["m.png,,,,"], "no whole numbers"),
        (["m.png"], "no whole numbers"),
        (["m.png,,,1.5,2"], "no whole numbers"),
        (["m.png,,,nan,2"], "no whole numbers"),
        (["m.png,,,1e3,2"], "no whole numbers"),
        (["m.png,,,٣,2"], "no whole numbers"),
        (["m.png,,,99999999999999999999,2"], "no whole numbers"),
        (["../../m2.png,,,1,2"], "no row"),
    ],
)
def test_a_mask_without_a_clear_row_has_a_reason(tmp_path, rows, told):
    """The mask is left out, and the others are read."""
    with pytest.raises(DataError, match=told):
        read_offsets(table(tmp_path, *rows), BY_FILE).corner("a/m.png", "i.png", None)


def test_the_same_row_twice_is_one(tmp_path):
    """Tables are joined by hand."""
    offsets = read_offsets(table(tmp_path, "m.png,,,1,2", "m.png,,,1,2"), BY_FILE)

    assert offsets.corner("m.png", "i.png", None) == (1, 2)


def test_what_is_no_such_table_is_refused(tmp_path):
    """With the columns that there are."""
    with pytest.raises(DataError, match=r"no column 'Y'. It has 'Mask', 'Filename'"):
        read_offsets(table(tmp_path), BY_FILE | {"top": "Y"})
    with pytest.raises(DataError, match=r"missing\.csv cannot be read"):
        read_offsets(tmp_path / "missing.csv", BY_FILE)
    (tmp_path / "b.csv").write_bytes(b"Mask,Top,Left\n\xff,1,2")
    with pytest.raises(DataError, match=r"b\.csv cannot be read"):
        read_offsets(tmp_path / "b.csv", BY_FILE)
    (tmp_path / "c.csv").write_text("Mask,Top,Left\n" + "x" * 200_000 + ",1,2")
    with pytest.raises(DataError, match=r"c\.csv cannot be read"):
        read_offsets(tmp_path / "c.csv", BY_FILE)
    with (tmp_path / "d.csv").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(DataError, match=r"d\.csv is too large"):
        read_offsets(tmp_path / "d.csv", BY_FILE)
