"""From values in mask files to named objects."""

import numpy as np
import pytest

from promptseg.errors import DataError
from promptseg.reader.folder import MaskFile
from promptseg.reader.image import RawMask
from promptseg.reader.labels import (
    Entry,
    Naming,
    as_labels,
    name_values,
    values_in,
)

TABLE = {"liver": (1,), "kidney": (2, 3)}


def test_floats_close_to_whole_numbers_are_labels():
    """Resampling tools write 0.99999997 for 1."""
    labels = as_labels(RawMask(np.array([[0.0, 0.99999997], [2.0, 0.0]])), Naming(nameless="x"))

    assert labels.tolist() == [[0, 1], [2, 0]]


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0.0, 0.7]]),
        np.array([[0, -1]]),
        np.array([[0.0, np.nan]]),
        np.array([[np.inf]]),
        np.arange(40).reshape(5, 8),
    ],
    ids=["fraction", "negative", "nan", "infinity", "shades"],
)
def test_values_that_are_no_labels_need_a_threshold(values):
    """Probabilities, distances and shades are no objects; a threshold makes them one."""
    with pytest.raises(DataError, match="--threshold"):
        as_labels(RawMask(values), Naming(nameless="x"))

    with_threshold = as_labels(RawMask(values), Naming(nameless="x", threshold=0.5))
    assert np.array_equal(with_threshold, values > 0.5)


def test_a_threshold_leaves_masks_and_known_labels_alone():
    """A 0/1 mask beside soft ones must not vanish under a threshold of 127."""
    naming = Naming(nameless="x", table=TABLE, threshold=127)
    binary, known = np.array([[0, 1]]), np.array([[0, 1, 2, 3]])

    assert np.array_equal(as_labels(RawMask(binary), Naming(nameless="x", threshold=127)), binary)
    assert np.array_equal(as_labels(RawMask(known), naming), known)


@pytest.mark.parametrize("values", [[[0, 100, 100]], [[0, 100, 200]]])
def test_a_threshold_does_not_ask_how_many_values_a_mask_has(values):
    """A faint mask must not become a whole object because it has one shade only."""
    labels = as_labels(RawMask(np.array(values)), Naming(nameless="x", threshold=127))

    assert np.array_equal(labels, np.array(values) > 127)


def test_a_threshold_leaves_instance_numbers_alone():
    """They are no shades."""
    naming = Naming(nameless="x", threshold=127, instances=True)

    assert as_labels(RawMask(np.array([[0, 7]])), naming).tolist() == [[0, 7]]


def test_instance_numbers_may_be_many():
    """Hundreds of nuclei are no shades."""
    many = np.arange(400).reshape(20, 20)

    assert len(values_in(as_labels(RawMask(many), Naming(nameless="x", instances=True)))) == 399


def test_lossy_masks_are_parted_in_the_middle():
    """The ringing around an edge in a JPEG is neither object nor background."""
    ringing = np.array([[0, 3, 120, 135, 250, 255]], dtype=np.uint8)

    assert as_labels(RawMask(ringing, lossy=True), Naming(nameless="x")).tolist() == [
        [0, 0, 0, 255, 255, 255]
    ]


def test_a_lossy_label_map_is_refused():
    """An area of grey is a label that JPEG has blurred, and would be lost or merged."""
    grey = np.zeros((8, 8), dtype=np.uint8)
    grey[2:6, 2:6] = 85

    with pytest.raises(DataError, match="JPEG"):
        as_labels(RawMask(grey, lossy=True), Naming(nameless="x"))

    assert as_labels(RawMask(grey, lossy=True), Naming(nameless="x", threshold=40)).any()


@pytest.mark.parametrize(
    ("file", "values", "settings", "entries"),
    [
        (MaskFile("m"), [1, 3], {"table": TABLE}, [("liver", None, (1,)), ("kidney", None, (3,))]),
        (MaskFile("m"), [255], {"table": {"liver": (1,)}}, [("liver", None, (255,))]),
        (MaskFile("m"), [85, 170], {}, [("label 85", None, (85,)), ("label 170", None, (170,))]),
        (MaskFile("m"), [255], {}, [("label 255", None, (255,))]),
        (MaskFile("m"), [255], {"binary": True}, [("thing", None, (255,))]),
        (MaskFile("m"), [1, 255], {"binary": True}, [("thing", None, (1, 255))]),
        (MaskFile("m", "liver", 2), [255], {}, [("liver", 2, (255,))]),
        (MaskFile("m", None, 4), [255], {}, [("thing", 4, (255,))]),
        (MaskFile("m", "liver"), [2], {"table": TABLE}, [("liver", None, (2,))]),
        (MaskFile("m", "expert"), [1, 2], {"table": {"a": (1,), "b": (2,)}},
         [("a", None, (1,)), ("b", None, (2,))]),
        (MaskFile("m", "spleen"), [255], {"table": TABLE}, [("spleen", None, (255,))]),
        (MaskFile("m"), [3, 7], {"instances": True}, [("thing", 3, (3,)), ("thing", 7, (7,))]),
        (MaskFile("m", None, 5), [255], {"instances": True}, [("thing", 5, (255,))]),
        (MaskFile("m", "liver"), [], {"table": TABLE}, []),
    ],
)  # fmt: skip
def test_values_get_their_names(file, values, settings, entries):
    """By table, by file name, by value, by the curation's own name, or as instances."""
    named, unknown = name_values(file, values, Naming(nameless="thing", **settings))

    assert named == [Entry(*entry) for entry in entries]
    assert unknown == []


def test_a_value_may_belong_to_several_objects():
    """Tumour core and whole tumour overlap."""
    table = {"whole": (1, 2), "core": (2,)}
    named, _ = name_values(MaskFile("m"), [1, 2], Naming(nameless="x", table=table))

    assert named == [Entry("whole", None, (1, 2)), Entry("core", None, (2,))]


def test_a_value_that_the_table_lacks_is_rejected_alone():
    """The others are labels all the same. A lone 1 is not taken for the table's only object."""
    named, unknown = name_values(MaskFile("m"), [1, 9], Naming(nameless="x", table=TABLE))
    only, lone = name_values(MaskFile("m"), [1], Naming(nameless="x", table={"tumour": (2,)}))

    assert [entry.object for entry in named] == ["liver"]
    assert unknown == [(9, "the table of labels has no value 9")]
    assert (only, [value for value, _ in lone]) == ([], [1])


def test_a_file_of_one_object_holds_one_value():
    """Soft edges in a mask of one object would become objects of their own."""
    with pytest.raises(DataError, match="3 values"):
        name_values(MaskFile("m", "axon"), [130, 233, 255], Naming(nameless="x"))
