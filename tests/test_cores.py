"""Work spread over threads has the answers of one thread, and leaves no trace."""

import threading

import pytest
import torch

from promptseg.models.cores import each_on_one_core, side_by_side


def test_every_item_has_one_thread_and_answers_come_in_order():
    """Whatever the caller's number, which is the caller's again afterwards."""
    before = torch.get_num_threads()
    try:
        for n_threads in (3, 1):
            torch.set_num_threads(n_threads)
            found = each_on_one_core(lambda item: (item, torch.get_num_threads()), range(10))

            assert found == [(item, 1) for item in range(10)]
            assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)


def test_as_many_items_at_once_as_there_are_threads():
    """Two that wait for each other both get through; fewer items need fewer threads."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        both = threading.Barrier(2, timeout=20)
        found = each_on_one_core(lambda item: both.wait() >= 0 and item, [5, 6])
        assert found == [5, 6]
        assert each_on_one_core(str, [7]) == ["7"]
        assert each_on_one_core(str, []) == []
    finally:
        torch.set_num_threads(before)


def test_items_side_by_side_share_the_threads():
    """Fewer items than threads, each with its share; never more at once than asked for."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(6)
        assert side_by_side(lambda item: (item, torch.get_num_threads()), [1, 2], 4) == [
            (1, 3),
            (2, 3),
        ]
        found = side_by_side(lambda item: (item, torch.get_num_threads()), range(5), 2)
        assert found == [(item, 3) for item in range(5)]
        assert side_by_side(lambda _: torch.get_num_threads(), [0], 4) == [6]
        assert side_by_side(str, [], 4) == []
        assert torch.get_num_threads() == 6
    finally:
        torch.set_num_threads(before)


def test_threads_that_others_start_meanwhile_have_the_callers_number():
    """The setting of ours is for ours alone."""
    before = torch.get_num_threads()
    seen: list[int] = []
    try:
        torch.set_num_threads(3)

        def start(_: int) -> None:
            other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
            other.start()
            other.join()

        each_on_one_core(start, [0])
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert seen == [3]


def test_what_an_item_raises_is_raised():
    """No answer is silently missing."""
    with pytest.raises(ZeroDivisionError):
        each_on_one_core(lambda item: 1 // item, [1, 0, 2])
