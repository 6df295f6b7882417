"""Progress of long work where there is no terminal: lines that grow rarer."""

import io
import re

import pytest
from rich.console import Console

from promptseg.bars import Bars


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Tell the time in seconds."""
        return self.now


def worked(seconds: int, *, terminal: bool = False, quiet: bool = False) -> str:
    """Update a bar every second of so many, and give what was written."""
    clock, text = Clock(), io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=100)
    with Bars("steps", console, quiet=quiet, clock=clock) as bars:
        task = bars.add_task("train a[/b]", total=2 * seconds, rate="loss 0.5")
        for second in range(seconds):
            clock.now += 1
            bars.update(task, completed=second + 1)
    return text.getvalue()


def test_a_log_has_a_line_after_a_minute_and_then_rarer() -> None:
    """The first line comes after a minute, later ones at twice the time, or ten minutes apart."""
    lines = worked(3000).splitlines()
    at = [re.search(r"(\d):(\d\d):(\d\d) so far", line) for line in lines]
    seconds = [int(m[1]) * 3600 + int(m[2]) * 60 + int(m[3]) for m in at if m]
    assert seconds == [60, 120, 240, 480, 960, 1560, 2160, 2760]
    assert lines[0] == "train a[/b] 60/6000 steps loss 0.5, 0:01:00 so far, about 1:39:00 left"


def test_short_work_writes_nothing_to_a_log() -> None:
    """A log of short work stays as it was."""
    assert worked(59) == ""


def test_the_quiet_write_nothing() -> None:
    """Other processes of one training are quiet."""
    assert worked(3000, quiet=True) == ""


def test_a_terminal_has_bars_and_no_lines() -> None:
    """A terminal is drawn on, and not written to line by line."""
    shown = worked(300, terminal=True)
    assert "300/600" in shown
    assert "train a[/b]" in shown
    assert "so far" not in shown


@pytest.mark.parametrize("total", [None, 500])
def test_what_is_not_known_is_left_out(total: int | None) -> None:
    """A total and a time left are told only where they are known."""
    clock, text = Clock(), io.StringIO()
    with Bars("", Console(file=text, width=100), clock=clock) as bars:
        task = bars.add_task("look", total=total, rate="")
        clock.now += 61
        bars.update(task, completed=3)
    of = "" if total is None else "/500"
    assert text.getvalue() == f"look 3{of}, 0:01:01 so far\n"
