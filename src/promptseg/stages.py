"""Where the time of an evaluation goes, stage by stage: what `evaluate --profile` tells.

Stages run beside one another in several threads, so that their seconds may add up to more than
the clock shows. Code that can be watched takes a `Watch`; `unwatched`, the default, costs nothing.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

from promptseg.memory import peak_bytes

Stage = Literal[
    "loading",  # imports, opening the corpus, the model's weights
    "reading",  # images and masks from the corpus
    "prompting",
    "embedding",
    "decoding",
    "everything",  # the grid of points, and what of its masks survives
    "scoring",
    "attributes",
    "writing",
    "waiting",  # of the thread that asks the model: for images to be read, answers to be scored
]
STAGES: tuple[Stage, ...] = get_args(Stage)

Watch = Callable[[Stage], AbstractContextManager[None]]
T = TypeVar("T")
_NOTHING = nullcontext()


def unwatched(stage: Stage) -> AbstractContextManager[None]:
    """Watch nothing."""
    return _NOTHING


def watched(items: Iterable[T], watch: Watch, stage: Stage) -> Iterator[T]:
    """Yield items, and count the time that each takes to come for a stage."""
    iterator = iter(items)
    while True:
        with watch(stage):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


@dataclass(slots=True)
class Spent:
    """What one stage took, in all threads together."""

    calls: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0  # of the threads that called it; those that torch keeps are not among them


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTimes:
    """One line of a profile; `share` is of the whole wall time, a mean over nothing is None."""

    stage: Stage
    calls: int
    wall_s: float
    cpu_s: float
    share: float
    ms_per_image: float | None
    ms_per_prompt: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Where the time of an evaluation went.

    `helpers_cpu_s` is the CPU time of the process that no stage's own thread took: of the threads
    that torch keeps for large products, and of what is no stage. `overlap` is the wall time of all
    stages but waiting over the wall time: above 1, stages ran beside one another.
    `cores_busy` is CPU time over wall time, `peak_bytes` the most memory the process had.
    """

    wall_s: float
    cpu_s: float
    helpers_cpu_s: float
    overlap: float
    cores_busy: float
    peak_bytes: int
    images: int
    prompts: int
    stages: tuple[StageTimes, ...]

    def told(self, stage: Stage) -> StageTimes | None:
        """Give the line of a stage; None: it was not reached."""
        return next((line for line in self.stages if line.stage == stage), None)


class Stopwatch:
    """Adds up what stages take, from any thread; the wall time counts from its making."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spent: dict[Stage, Spent] = {}
        self._images = self._prompts = 0
        self._start, self._start_cpu = time.perf_counter(), time.process_time()
        self._start_thread_cpu = time.thread_time()

    @contextmanager
    def watch(self, stage: Stage) -> Iterator[None]:
        """Count the time of a block for a stage, raise what it may."""
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            self._add(stage, time.perf_counter() - wall, time.thread_time() - cpu)

    def so_far(self, stage: Stage) -> None:
        """Count for a stage all the time since this was made, in this very thread."""
        self._add(
            stage,
            time.perf_counter() - self._start,
            time.thread_time() - self._start_thread_cpu,
        )

    def _add(self, stage: Stage, wall_s: float, cpu_s: float) -> None:
        with self._lock:
            spent = self._spent.setdefault(stage, Spent())
            spent.calls += 1
            spent.wall_s += wall_s
            spent.cpu_s += cpu_s

    def count(self, images: int, prompts: int) -> None:
        """Add what was done, to which means refer."""
        with self._lock:
            self._images += images
            self._prompts += prompts

    def profile(self) -> Profile:
        """Tell where the time went so far."""
        wall, cpu = time.perf_counter() - self._start, time.process_time() - self._start_cpu
        with self._lock:
            found = [(stage, self._spent[stage]) for stage in STAGES if stage in self._spent]
            images, prompts = self._images, self._prompts
        lines = tuple(
            StageTimes(
                stage=stage,
                calls=spent.calls,
                wall_s=spent.wall_s,
                cpu_s=spent.cpu_s,
                share=spent.wall_s / wall,
                ms_per_image=1e3 * spent.wall_s / images if images else None,
                ms_per_prompt=1e3 * spent.wall_s / prompts if prompts else None,
            )
            for stage, spent in found
        )
        return Profile(
            wall_s=wall,
            cpu_s=cpu,
            helpers_cpu_s=max(0.0, cpu - sum(line.cpu_s for line in lines)),
            overlap=sum(line.wall_s for line in lines if line.stage != "waiting") / wall,
            cores_busy=cpu / wall,
            peak_bytes=peak_bytes(),
            images=images,
            prompts=prompts,
            stages=lines,
        )
