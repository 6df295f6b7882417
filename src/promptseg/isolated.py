"""Work on files that may be hostile, in processes of their own: a crash costs one task, not all.

Results come in the order of the tasks, whichever process is faster, and memory is bounded: a
process that is ahead waits until its results are wanted.
"""

import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

GIB = 1 << 30
BATCH_BYTES = 1 << 20  # of results sent at once ...
BATCH_S = 1.0  # ... or what there is after so long
MOST_AT_ONCE = 32  # small tasks
AHEAD_BYTES = 64 << 20  # of results held of one process that is ahead
# what every task needs, so that no process has to import it again
_PRELOADED = ("promptseg.curation.pieces", "cv2", "imagecodecs", "pycocotools.mask")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one process may take for a task before it is stopped."""

    memory_bytes: int = 2 * GIB
    silent_s: float = 300.0  # without a result


@dataclass(frozen=True, slots=True)
class Lost:
    """Instead of (the rest of) a task's results: why there are none."""

    reason: str


Work = Callable[[T], Iterable[R]]
Size = Callable[[R], int]


@dataclass(frozen=True, slots=True)
class Processes:
    """How many processes work on files, and what each may take; 0: this one, unprotected."""

    workers: int = 0
    limits: Limits = field(default_factory=Limits)

    def in_order(
        self, work: Work[T, R], tasks: Sequence[T], size: Size[R]
    ) -> Iterator[tuple[int, R | Lost | None]]:
        """Work on tasks, as `in_order` does."""
        return in_order(work, tasks, workers=self.workers, limits=self.limits, size=size)

    def one_each(
        self, work: Callable[[T], R], tasks: Sequence[T], size: Size[R]
    ) -> Iterator[tuple[int, R | Lost]]:
        """Yield (number of the task, its only result), for many small tasks.

        They are handed out some at a time, which spares waiting. Those of a process that was lost
        are done again one by one, so that each has its own reason; their results come last.
        """
        step = max(1, min(MOST_AT_ONCE, len(tasks) // (8 * self.workers))) if self.workers else 1
        again: list[int] = []
        for start, results in self._by(step, work, tasks, size):
            if isinstance(results, list):
                yield from enumerate(results, start)
            elif step == 1:
                yield start, results
            else:
                again += range(start, min(start + step, len(tasks)))
        for number, results in self._by(1, work, [tasks[number] for number in again], size):
            yield again[number], results[0] if isinstance(results, list) else results

    def _by(
        self, step: int, work: Callable[[T], R], tasks: Sequence[T], size: Size[R]
    ) -> Iterator[tuple[int, list[R] | Lost]]:
        """Yield (number of the first task, results of `step` tasks)."""
        batches = [tasks[start : start + step] for start in range(0, len(tasks), step)]
        results: list[R] = []
        lost: Lost | None = None
        for number, result in self.in_order(partial(_each, work=work), batches, size):
            if isinstance(result, Lost):
                lost = result
            elif result is not None:
                results.append(result)
            else:
                yield number * step, lost or results
                results, lost = [], None


def _each(tasks: Sequence[T], work: Callable[[T], R]) -> Iterator[R]:
    for task in tasks:
        yield work(task)


def in_order(
    work: Work[T, R],
    tasks: Sequence[T],
    *,
    workers: int,
    limits: Limits,
    size: Size[R],
) -> Iterator[tuple[int, R | Lost | None]]:
    """Yield (number of the task, result) in order; None ends a task.

    Parameters
    ----------
    work
        What is done to a task; it goes to the other processes by pickle. With `workers` 0 it
        runs in this process, without protection.
    size
        Bytes of a result, about.
    """
    if workers == 0:
        for number, task in enumerate(tasks):
            yield from ((number, result) for result in _caught(work, task, limits))
            yield number, None
        return
    pool = _Pool(work, tasks, limits, size)
    try:
        pool.start(min(workers, len(tasks)))
        for number in range(len(tasks)):
            yield from ((number, result) for result in pool.results_of(number))
            yield number, None
    finally:
        pool.stop()


@dataclass(slots=True, eq=False)
class _Worker:
    process: Any
    pipe: Connection
    number: int | None = None  # of the task it is at
    heard: float = 0.0  # when it last sent something


@dataclass(slots=True)
class _Inbox(Generic[R]):
    """The results of one task that have arrived."""

    results: deque[tuple[R | Lost, int]] = field(default_factory=deque)
    n_bytes: int = 0
    is_whole: bool = False


class _Pool(Generic[T, R]):
    """Processes, and what they have sent."""

    def __init__(self, work: Work[T, R], tasks: Sequence[T], limits: Limits, size: Size[R]) -> None:
        self._work, self._tasks, self._limits, self._size = work, tasks, limits, size
        self._next = 0  # task to hand out
        self._workers: list[_Worker] = []
        self._inboxes: dict[int, _Inbox[R]] = {}
        methods = multiprocessing.get_all_start_methods()
        # never a plain fork: threads of this process may hold locks
        self._context: Any = multiprocessing.get_context(
            "forkserver" if "forkserver" in methods else "spawn"
        )
        if "forkserver" in methods:
            self._context.set_forkserver_preload(list(_PRELOADED))

    def start(self, count: int) -> None:
        for _ in range(count):
            self._workers.append(self._begun())
        for worker in self._workers:
            self._hand_out(worker)

    def stop(self) -> None:
        for worker in self._workers:
            with suppress(OSError):
                worker.pipe.close()
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()

    def results_of(self, number: int) -> Iterator[R | Lost]:
        """Yield the results of a task as they come, and empty its inbox."""
        inbox = self._inbox(number)
        while True:
            while inbox.results:
                result, n_bytes = inbox.results.popleft()
                inbox.n_bytes -= n_bytes
                yield result
            if inbox.is_whole:
                del self._inboxes[number]
                return
            self._listen()

    def _inbox(self, number: int) -> _Inbox[R]:
        return self._inboxes.setdefault(number, _Inbox())

    def _begun(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve,
            args=(theirs, self._work, self._limits, self._size, os.getcwd()),
            daemon=True,
        )
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def _hand_out(self, worker: _Worker) -> None:
        worker.number = None
        if self._next < len(self._tasks):
            worker.number, self._next = self._next, self._next + 1
            worker.heard = time.monotonic()
            with suppress(OSError):  # it died meanwhile, which is seen when it is listened to
                worker.pipe.send(self._tasks[worker.number])

    def _listen(self) -> None:
        """Take what has arrived; who is far ahead is not listened to, and waits."""
        first = min(w.number for w in self._workers if w.number is not None)
        heard = [
            worker
            for worker in self._workers
            if worker.number is not None
            and (worker.number == first or self._inbox(worker.number).n_bytes < AHEAD_BYTES)
        ]
        oldest = min(worker.heard for worker in heard)
        left = max(0.0, self._limits.silent_s - (time.monotonic() - oldest))
        ready = wait([worker.pipe for worker in heard], timeout=left)
        now = time.monotonic()
        for worker in heard:
            if worker.pipe in ready:
                self._receive(worker)
            elif now - worker.heard >= self._limits.silent_s:
                self._replace(worker, f"reading it takes more than {self._limits.silent_s:g} s")
        for worker in set(self._workers) - set(heard):
            worker.heard = now  # it waits for us

    def _receive(self, worker: _Worker) -> None:
        assert worker.number is not None
        try:
            results, is_whole = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join()
            self._replace(worker, _why_dead(worker.process.exitcode))
            return
        worker.heard = time.monotonic()
        inbox = self._inbox(worker.number)
        inbox.results.extend(results)
        inbox.n_bytes += sum(n_bytes for _, n_bytes in results)
        if is_whole:
            inbox.is_whole = True
            self._hand_out(worker)

    def _replace(self, worker: _Worker, reason: str) -> None:
        """Give up on a process and its task, and begin another."""
        assert worker.number is not None
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()
        inbox = self._inbox(worker.number)
        inbox.results.append((Lost(reason), 0))
        inbox.is_whole = True
        self._workers.remove(worker)
        fresh = self._begun()
        self._workers.append(fresh)
        self._hand_out(fresh)


def _why_dead(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"reading it crashed the reader (signal {-exitcode})"
    return f"reading it ended the reader (exit code {exitcode})"


def _serve(
    pipe: Connection, work: Work[Any, Any], limits: Limits, size: Size[Any], folder: str
) -> None:
    """Work on tasks that come through a pipe until it is closed."""
    os.chdir(folder)  # a process begins where its server began
    _limit(limits)
    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        outgoing: list[tuple[Any, int]] = []
        total, sent = 0, time.monotonic()
        try:
            for result in _caught(work, task, limits):
                n_bytes = 0 if isinstance(result, Lost) else size(result)
                outgoing.append((result, n_bytes))
                total += n_bytes
                if total >= BATCH_BYTES or time.monotonic() - sent > BATCH_S:
                    pipe.send((outgoing, False))
                    outgoing, total, sent = [], 0, time.monotonic()
            pipe.send((outgoing, True))
        except BrokenPipeError:
            return


def _caught(work: Work[Any, Any], task: Any, limits: Limits) -> Iterator[Any]:
    """Work on a task; whatever is raised ends its results with the reason."""
    try:
        yield from work(task)
    except MemoryError:
        gib = limits.memory_bytes / GIB
        yield Lost(f"it needs more than {gib:g} GiB of memory")
    except Exception as error:  # decoders raise anything; its words may tell names
        yield Lost(f"reading it raised {type(error).__name__}")


def _limit(limits: Limits) -> None:
    """Bound the memory of this process, leave Ctrl-C to the parent, and use one core.

    What libraries say of files they do not like goes nowhere: it quotes names and values.
    """
    import signal

    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    resource.setrlimit(resource.RLIMIT_DATA, (limits.memory_bytes, limits.memory_bytes))
