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
