"""Where the time goes: whatever is timed adds up, from any thread, and costs nothing when off."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest

from promptseg.stages import STAGES, Stopwatch, unwatched, watched


def test_a_stage_has_the_time_of_its_blocks():
    """Wall time of sleeping, CPU time of work; other stages have nothing."""
    stopwatch = Stopwatch()
    for _ in range(3):
        with stopwatch.watch("reading"):
            time.sleep(0.01)
    profile = stopwatch.profile()
    line = profile.told("reading")

    assert line is not None
    assert line.calls == 3
    assert 0.03 <= line.wall_s <= profile.wall_s
    assert line.cpu_s < line.wall_s
    assert profile.told("scoring") is None
    assert [one.stage for one in profile.stages] == ["reading"]


def test_stages_of_several_threads_overlap():
    """Two threads that sleep side by side have more seconds than the clock; none is lost."""
    stopwatch = Stopwatch()
    together = threading.Barrier(2)

    def sleep(_: int) -> None:
        with stopwatch.watch("scoring"):
            together.wait()
            time.sleep(0.05)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(sleep, range(10)))
    profile = stopwatch.profile()
    line = profile.told("scoring")

    assert line is not None
    assert line.calls == 10
    assert profile.overlap == pytest.approx(line.wall_s / profile.wall_s)
    assert line.wall_s >= 10 * 0.05 > 0.9 * profile.wall_s / 2


def test_waiting_is_no_work_beside_others():
    """The overlap counts what is done, not what is waited for."""
    stopwatch = Stopwatch()
    with stopwatch.watch("waiting"):
        time.sleep(0.01)

    assert stopwatch.profile().overlap == 0


def test_means_are_over_what_was_counted():
    """A mean over nothing is none."""
    stopwatch = Stopwatch()
    with stopwatch.watch("writing"):
        pass
    (line,) = stopwatch.profile().stages
    assert line.ms_per_image is None

    stopwatch.count(2, 8)
    stopwatch.count(2, 0)
    (line,) = stopwatch.profile().stages
    assert line.ms_per_image == pytest.approx(1e3 * line.wall_s / 4)
    assert line.ms_per_prompt == pytest.approx(1e3 * line.wall_s / 8)


def test_what_raises_is_timed_and_raises():
    """A stage is no place for an error to vanish in."""
    stopwatch = Stopwatch()
    with pytest.raises(ValueError, match="planted"), stopwatch.watch("decoding"):
        raise ValueError("planted")

    assert stopwatch.profile().told("decoding") is not None


def test_stages_come_in_the_order_of_the_work():
    """Whichever was first."""
    stopwatch = Stopwatch()
    for stage in reversed(STAGES):
        with stopwatch.watch(stage):
            pass

    assert tuple(line.stage for line in stopwatch.profile().stages) == STAGES


def test_so_far_is_all_since_the_making():
    """What was before the first stage has a stage, too."""
    stopwatch = Stopwatch()
    time.sleep(0.01)
    stopwatch.so_far("loading")
    line = stopwatch.profile().told("loading")

    assert line is not None
    assert line.wall_s >= 0.01


def test_watched_items_are_the_items():
    """Making an item is timed, what is done with it is not; the end is a call of its own."""
    stopwatch = Stopwatch()
    seen = []
    for item in watched(range(3), stopwatch.watch, "reading"):
        seen.append(item)
        time.sleep(0.02)
    line = stopwatch.profile().told("reading")

    assert seen == [0, 1, 2]
    assert line is not None
    assert line.calls == 4
    assert line.wall_s < 0.02


def test_unwatched_makes_nothing():
    """Off, all stages share one context that does nothing."""
    assert unwatched("reading") is unwatched("scoring")
    assert isinstance(unwatched("reading"), nullcontext)
