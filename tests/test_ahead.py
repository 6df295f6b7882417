"""Reading ahead: the same items in the same order, one ahead and no more."""

import threading
from collections.abc import Iterator

import pytest

from promptseg.ahead import ahead, together
from promptseg.stages import Stopwatch


def test_items_come_in_their_order():
    """All of them, None among them, and of nothing nothing."""
    assert list(ahead(iter([3, None, 1]))) == [3, None, 1]
    assert list(ahead(())) == []


def test_the_next_one_is_made_while_this_one_is_worked_on_and_no_more():
    """It overlaps, and memory stays bounded: at most one item waits."""
    made: list[int] = []
    third = threading.Event()

    def items() -> Iterator[int]:
        for number in range(5):
            made.append(number)
            if number == 2:
                third.set()
            yield number

    coming = ahead(items())
    next(coming)
    next(coming)
    assert third.wait(10), "the third is made while the second is worked on"
    assert made == [0, 1, 2]
    coming.close()
    assert made == [0, 1, 2]


def test_an_error_comes_in_its_place():
    """What was made before it is worked on first, and nothing comes after it."""

    def items() -> Iterator[int]:
        yield 0
        yield 1
        raise KeyError("planted")

    seen: list[int] = []
    with pytest.raises(KeyError, match="planted"):
        seen.extend(ahead(items()))

    assert seen == [0, 1]


def test_all_is_made_in_one_thread_that_is_not_ours():
    """A generator is never run by two threads."""
    threads = set(ahead(threading.get_ident() for _ in range(20)))

    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_making_counts_as_reading():
    """Also what was made and not asked for."""
    stopwatch = Stopwatch()
    list(ahead(range(4), stopwatch.watch))
    profile = stopwatch.profile()
    reading, waiting = profile.told("reading"), profile.told("waiting")

    assert reading is not None
    assert waiting is not None
    assert (reading.calls, waiting.calls) == (5, 5)


def test_items_come_together_in_groups():
    """The last group is what is left."""
    assert list(together(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(together(range(2), 1)) == [[0], [1]]
    assert list(together((), 3)) == []


def test_a_group_is_not_lost_to_an_error_after_it():
    """What was made comes first, then the error, and nothing more is asked for."""

    def items() -> Iterator[int]:
        yield from range(4)
        raise KeyError("planted")

    seen: list[list[int]] = []
    with pytest.raises(KeyError, match="planted"):
        seen.extend(together(items(), 3))

    assert seen == [[0, 1, 2], [3]]
