"""Tables of labels: every form is understood, and a file that has none says why."""

import json

import pytest

from promptseg.errors import DataError
from promptseg.reader.table import find_table, read_table


def written(path, content):
    """Write JSON, and give its path."""
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("content", "table"),
    [
        ({"0": "background", "1": "liver", "2": "spleen"}, {"liver": (1,), "spleen": (2,)}),
        ({"2": "kidney", "3": "kidney"}, {"kidney": (2, 3)}),
        ({"liver": 1, "background": 0}, {"liver": (1,)}),
        ({"whole": [1, 2], "core": [2]}, {"whole": (1, 2), "core": (2,)}),
        (
            {"info": {"1": "LeftVentricle", "2": "Myocardium"}, "color": {"1": 85, "2": 170}},
            {"LeftVentricle": (85,), "Myocardium": (170,)},
        ),
        ({"info": {"1": "LeftVentricle"}}, {"LeftVentricle": (1,)}),
    ],
)
def test_each_form_of_a_table_is_understood(tmp_path, content, table):
    """Plain tables either way round, unions of values, and the paper's own form."""
    assert read_table(written(tmp_path / "labels.json", content)) == table


@pytest.mark.parametrize(
    "content", [{}, [], {"a": "b"}, {"a": 1.5}, {"a": True}, {"info": {"1": "a"}, "color": {}}]
)
def test_other_json_is_no_table(tmp_path, content):
    """The message shows the forms that are."""
    with pytest.raises(DataError, match="no table of labels"):
        read_table(written(tmp_path / "labels.json", content))


def test_two_labels_of_one_colour_are_refused(tmp_path):
    """Every mask would become both objects."""
    content = {"info": {"1": "Pancreas", "2": "Mass"}, "color": {"1": 255, "2": 255}}

    with pytest.raises(DataError, match="one colour"):
        find_table(written(tmp_path / "labels.json", content).parent, None)


def test_the_only_table_in_the_folder_is_found(tmp_path):
    """Other JSON files, and broken ones, are left out, but for hidden ones."""
    path = written(tmp_path / "names.json", {"1": "liver"})
    written(tmp_path / "about.json", {"title": "text"})
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "._names.json").write_text("{")
    found = find_table(tmp_path, None)

    assert (found.path, found.table) == (path, {"liver": (1,)})
    assert found.left_out == tuple(
        (f"{name}.json", "no table of labels") for name in ("about", "broken", "deep", "folder")
    )


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('{"1": "liver",}', "it cannot be read as JSON"),
        ('{"2": null}', 'its entry "2" with null cannot be used'),
        ('{"1": "liver", "x": "spleen"}', 'its entry "x" with "spleen" cannot be used'),
        ('["liver"]', "it holds .'liver'., not an object"),
        ('{"liver": [255, 0, 0]}', 'its entry "liver" with .255, 0, 0. cannot be used'),
        ('{"liver": [7, 7, 8]}', 'its entry "liver" with .7, 7, 8. cannot be used'),
        ('{"info": {"1": "a"}, "color": {"1": [9, 8, 7]}}', 'its entry "1" with .9, 8, 7. cannot'),
        ('{"info": {"1": "a"}, "color": 7}', 'its "color" holds 7'),
        ('{"info": {"1": null}}', 'its entry "1" with null cannot be used'),
        ('{"0": "background"}', "it names no value"),
        ('{"liver": 4294967296}', 'its entry "liver" with 4294967296 cannot'),
        ('{"1": "\\ud800"}', 'its entry "1" with ".*" cannot'),
        ("[" * 100_000, "it is nested too deeply"),
        (f'{{"{"1" * 5000}": "liver"}}', 'its entry "1{59}... with "liver" cannot be used'),
        (f'{{"liver": {"1" * 5000}}}', "it holds a number of too many digits"),
        ("\xff", "it cannot be read as JSON"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_given", [True, False])
def test_labels_json_that_cannot_be_used_is_an_error_in_one_line(tmp_path, content, why, is_given):
    """Passed over silently, all objects would be called "label N"."""
    path = tmp_path / "labels.json"
    path.write_bytes(content.encode("latin-1"))

    with pytest.raises(DataError, match=f"labels.json is no table of labels: {why}") as caught:
        find_table(tmp_path, path if is_given else None)

    assert '{"liver": [1, 2]}' in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value).replace(str(path), "")) < 300


def test_labels_json_that_leads_nowhere_is_an_error(tmp_path):
    """A broken link is a file that somebody wanted to be read."""
    (tmp_path / "labels.json").symlink_to(tmp_path / "gone.json")

    with pytest.raises(DataError, match="No such file"):
        find_table(tmp_path, None)


def test_of_several_tables_none_is_guessed(tmp_path):
    """The user has to say which."""
    written(tmp_path / "a.json", {"1": "liver"})
    written(tmp_path / "b.json", {"1": "spleen"})

    with pytest.raises(DataError, match="--labels"):
        find_table(tmp_path, None)


def test_a_given_table_must_be_readable(tmp_path):
    """A typing error in --labels is no folder without a table."""
    path = tmp_path / "none.json"

    with pytest.raises(DataError, match=f"^There is no file {path}.$"):
        find_table(tmp_path, path)
