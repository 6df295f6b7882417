"""Progress of long work: bars on a terminal, and a line now and then where there is none."""

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

FIRST_S, RAREST_S = 60.0, 600.0  # a log of a night's work has a line for every ten minutes


class Bars(Progress):
    """Bars of done and total, a rate (the field `rate`) and the time left.

    Where the console is no terminal, as in the log of a cluster's job, an update writes a line
    after a minute, and then whenever as much time as before has passed, or ten minutes.
    """

    def __init__(
        self,
        unit: str,
        console: Console,
        *,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Show what is counted in a unit; a quiet one shows nothing."""
        super().__init__(
            # names of models are no markup, whatever they are
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TextColumn("{task.fields[rate]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
            get_time=clock,
        )
        self._unit, self._logs = unit, not quiet and not console.is_terminal
        self._begun = clock()
        self._next = self._begun + FIRST_S

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Change what a task has done; perhaps write a line of it."""
        super().update(task_id, **changes)
        now = self.get_time()
        if self._logs and now >= self._next:
            self._next = now + min(RAREST_S, now - self._begun)
            self.console.print(self._line(self._tasks[task_id], now), markup=False, soft_wrap=True)

    def _line(self, task: Task, now: float) -> str:
        of = "" if task.total is None else f"/{task.total:.0f}"
        words = [task.description, f"{task.completed:.0f}{of}", self._unit, task.fields["rate"]]
        told = " ".join(filter(None, words))
        left = task.time_remaining
        ends = "" if left is None else f", about {_clock_time(left)} left"
        return f"{told}, {_clock_time(now - self._begun)} so far{ends}"


def _clock_time(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}"
