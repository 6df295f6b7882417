"""Targets are regrouped to the unit of evaluation, and nothing of them is lost."""

import numpy as np

from promptseg.sample import Target, regroup, task_name


def _targets() -> list[Target]:
    first, second, other = (np.zeros((6, 9), dtype=bool) for _ in range(3))
    first[0:2, 0:2] = True
    second[4:6, 0:2] = True
    second[2, 8] = True
    other[0:6, 4:6] = True
    return [
        Target("a#cell/1", "cell", first, 1),
        Target("a#cell/2", "cell", second, 2),
        Target("a#duct", "duct", other),
    ]


def test_class_joins_the_instances_of_an_object():
    """The paper's unit: the union of all instances, one box around them."""
    cell, duct = regroup(_targets(), "class")

    assert (cell.target_id, cell.object, cell.instance) == ("a#cell", "cell", None)
    assert cell.mask.sum() == 4 + 5
    assert duct.target_id == "a#duct"


def test_instance_leaves_targets_as_they_are():
    """What the corpus holds is what is scored."""
    assert [t.target_id for t in regroup(_targets(), "instance")] == [
        "a#cell/1",
        "a#cell/2",
        "a#duct",
    ]


def test_component_splits_what_does_not_touch():
    """Diagonal neighbours belong together; the parts make up the whole."""
    parts = regroup(_targets(), "component")

    assert [t.target_id for t in parts] == ["a#cell/1", "a#cell/2.1", "a#cell/2.2", "a#duct"]
    assert [int(t.mask.sum()) for t in parts] == [4, 1, 4, 12]


def test_annotators_are_never_joined():
    """Two readers of one object are two references."""
    mask = np.ones((3, 3), dtype=bool)
    both = [Target("a#v@1", "v", mask, annotator="1"), Target("a#v@2", "v", mask, annotator="2")]

    assert [target.annotator for target in regroup(both, "class")] == ["1", "2"]


def test_a_task_is_an_object_in_a_modality():
    """The row of every table."""
    assert task_name("liver", "CT") == "liver (CT)"
