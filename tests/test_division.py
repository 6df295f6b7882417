"""Splits: by subject, each task in its share, the same for the same names and seed."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptseg.division import divide, parse_shares
from promptseg.errors import DataError

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}


def test_every_task_has_its_share_of_each_split():
    """A rare task too: of ten subjects with it, seven, one and two."""
    tasks = {f"s{n}": {"liver"} | ({"rare"} if n < 10 else set()) for n in range(100)}
    found = divide(tasks, SHARES)

    def count(task, split):
        return sum(task in tasks[unit] for unit, own in found.items() if own == split)

    assert [count("rare", split) for split in SHARES] == [7, 1, 2]
    assert [count("liver", split) for split in SHARES] == [70, 10, 20]


def test_the_order_of_subjects_does_not_matter_and_the_seed_does():
    """Only names and seed decide."""
    names = [f"s{n}" for n in range(40)]
    shuffled = random.Random(1).sample(names, 40)
    first = divide({name: {"a"} for name in names}, SHARES)

    assert divide({name: {"a"} for name in shuffled}, SHARES) == first
    assert divide({name: {"a"} for name in names}, SHARES, seed=1) != first


@given(st.lists(st.sets(st.sampled_from("abcde")), min_size=3, max_size=60), st.integers(0, 5))
def test_all_are_given_and_no_split_is_empty(found, seed):
    """However few there are, and with or without tasks; numbers are near the shares."""
    tasks = {f"s{n}": tasks for n, tasks in enumerate(found)}
    splits = divide(tasks, SHARES, seed=seed)
    sizes = [list(splits.values()).count(split) for split in SHARES]

    assert set(splits) == set(tasks)
    assert min(sizes) >= 1
    without = divide({name: set() for name in tasks}, SHARES, seed=seed)
    for split, share in SHARES.items():
        assert abs(list(without.values()).count(split) - share * len(tasks)) <= 2


def test_fewer_subjects_than_splits_are_refused():
    """One line says how many there are."""
    with pytest.raises(DataError, match="2 subjects cannot give train, val, test one each"):
        divide({"a": set(), "b": set()}, SHARES)


@pytest.mark.parametrize(
    "text", ["train", "train=1", "a=0.5,a=0.5", "a=-1,b=2", "a=0.5,b=0.4", "a=x,b=1", ""]
)
def test_shares_that_are_none_are_refused(text):
    """With an example of what they look like."""
    with pytest.raises(DataError, match=r"train=0\.7,val=0\.1,test=0\.2"):
        parse_shares(text)


def test_shares_may_be_percent():
    """As people say it."""
    assert parse_shares("train=80, test=20") == {"train": 0.8, "test": 0.2}
