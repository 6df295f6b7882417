"""Work of a CPU spread over threads of one core each, with the digits that one thread gives.

The last digits of a matrix product depend on how many threads share it. A piece of work that one
thread does alone has the same answer beside whatever others and on however many cores; and pieces
do not wait for each other at every operation, which costs many times their work on a busy machine.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def each_on_one_core(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Apply a function to every item, as many at once as PyTorch has threads, each in one thread.

    The threads live for this call only, so that a forked process inherits none. They do not share
    modes such as `torch.inference_mode` with the caller.
    """
    if not items:
        return []
    n_threads = torch.get_num_threads()
    ready = threading.Barrier(min(n_threads, len(items)) + 1)

    def alone() -> None:
        torch.get_num_threads()  # a thread's first use of PyTorch would undo what was set before it
        torch.set_num_threads(1)
        ready.wait()
        ready.wait()

    with ThreadPoolExecutor(ready.parties - 1, "one core", alone) as pool:
        futures = [pool.submit(function, item) for item in items]
        ready.wait()
        torch.set_num_threads(n_threads)  # else threads that others start would have 1 as well
        ready.wait()
        return [future.result() for future in futures]
