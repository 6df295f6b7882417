"""Reading ahead: what comes next is made in a thread of its own while this is worked on."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from promptseg.stages import Watch, unwatched, watched

T = TypeVar("T")
_END = object()


def ahead(items: Iterable[T], watch: Watch = unwatched) -> Iterator[T]:
    """Yield items in their order; while one is worked on, the next one is made, and no more.

    What making an item raises is raised in its place. The time to make one counts as reading, the
    time that none is ready as waiting.
    """
    made = watched(items, watch, "reading")
    with ThreadPoolExecutor(1, thread_name_prefix="read") as reader:
        coming = reader.submit(next, made, _END)
        while True:
            with watch("waiting"):
                item = coming.result()
            if item is _END:
                return
            coming = reader.submit(next, made, _END)
            yield item  # type: ignore[misc]  # it is no _END


def together(items: Iterable[T], most: int) -> Iterator[list[T]]:
    """Yield items in groups of so many, the last of what is left.

    What making an item raises is raised after the group of those before it.
    """
    iterator = iter(items)
    while True:
        group: list[T] = []
        error = None
        while len(group) < most and error is None:
            try:
                group.append(next(iterator))
            except Exception as raised:  # StopIteration is the end
                error = raised
        if group:
            yield group
        if error is not None:
            if isinstance(error, StopIteration):
                return
            raise error
