"""Pieces of one image's work on several cores, each piece in one thread.

Threads that share every single operation wait for each other after every one: on small pieces that
costs as much as the work, and many times the work where another program takes a core. A piece that
one thread does alone also has the same digits on any number of cores.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")
Each = Callable[[Callable[[Any], None], Iterable[Any]], None]  # call with every item, and wait


def each_on_one_core(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Apply a function to every item, as many at once as PyTorch has threads."""
    return _in_order(function, items, None)


def side_by_side(function: Callable[[T], R], items: Sequence[T], most: int) -> list[R]:
    """Apply a function to every item, some at once, each with its share of PyTorch's threads."""
    at_once = max(1, min(len(items), most, torch.get_num_threads()))
    return _in_order(function, items, at_once)


def _in_order(function: Callable[[T], R], items: Sequence[T], at_once: int | None) -> list[R]:
    found: dict[int, R] = {}

    def keep(index: int) -> None:
        found[index] = function(items[index])

    with own_cores(at_once) as each:
        each(keep, range(len(items)))
    return [found[index] for index in range(len(items))]


def _here(function: Callable[[Any], None], items: Iterable[Any]) -> None:
    for item in items:
        function(item)


@contextmanager
def own_cores(at_once: int | None = None) -> Iterator[Each]:
    """Start as many threads as PyTorch has, or some that share them; they end with the block.

    They take over whether gradients are recorded; what a function raises is raised again. They
    live no longer, so that a forked process inherits none.
    """
    whole = torch.get_num_threads()
    count = at_once or whole
    if count == 1:
        yield _here
        return
    ready = threading.Barrier(count + 1)
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def begin() -> None:
        torch.get_num_threads()  # a thread's first use of PyTorch would undo what was set before it
        torch.set_num_threads(whole // count)
        ready.wait()
        ready.wait()

    with ThreadPoolExecutor(count, "own core") as pool:
        begun = [pool.submit(begin) for _ in range(count)]
        ready.wait()
        torch.set_num_threads(whole)  # else threads that others start would have 1 as well
        ready.wait()
        for one in begun:
            one.result()

        def each(function: Callable[[Any], None], items: Iterable[Any]) -> None:
            def alone(item: Any) -> None:
                with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
                    function(item)

            for future in [pool.submit(alone, item) for item in items]:
                future.result()

        yield each
