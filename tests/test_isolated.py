"""Files that crash, hang or swell their reader cost themselves, and nothing else."""

import os

import pytest
from hostile_work import heavy, much, numbers, one, pid, told, work

from promptseg.isolated import AHEAD_BYTES, BATCH_BYTES, Limits, Lost, Processes, in_order

KIND = ["plain", "crash", "hang", "swell", "raise", "exit", "plain"]
LIMITS = Limits(memory_bytes=1 << 30, silent_s=6.0)


def test_what_one_task_does_to_its_process_is_its_reason_and_the_rest_goes_on():
    """A segmentation fault, an endless loop, too much memory, an exception, an exit."""
    told = {}
    for number, result in in_order(work, KIND, workers=2, limits=LIMITS, size=one):
        told.setdefault(number, []).append(result)

    assert [told[n][-2] for n in (0, 6)] == ["plain ends", "plain ends"]
    assert all(results[-1] is None for results in told.values())
    assert told[1][-2] == Lost("reading it crashed the reader (signal 11)")
    assert told[2][-2] == Lost("reading it takes more than 6 s")
    assert told[3][-2] == Lost("it needs more than 1 GiB of memory")
    assert told[4][-2] == Lost("reading it raised ValueError")
    assert told[5][-2] == Lost("reading it ended the reader (exit code 7)")


def test_without_workers_an_exception_is_a_reason_too():
    """The words of an exception may tell names: its kind is enough."""
    told = list(in_order(work, ["raise", "plain"], workers=0, limits=LIMITS, size=one))

    assert told == [
        (0, "raise begins"),
        (0, Lost("reading it raised ValueError")),
        (0, None),
        (1, "plain begins"),
        (1, "plain ends"),
        (1, None),
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_of_small_tasks_handed_out_together_only_the_bad_one_is_lost(workers):
    """The others of its batch are done again; each has its own reason."""
    kind = [f"plain {n}" for n in range(100)]
    kind[41] = "raise"
    if workers:
        kind[7], kind[40], kind[99] = "crash", "exit", "swell"
    limits = Limits(memory_bytes=1 << 30, silent_s=60.0)
    found = dict(Processes(workers, limits).one_each(told, kind, one))

    assert sorted(found) == list(range(100))
    assert found[41] == Lost("reading it raised ValueError")
    assert [n for n, word in found.items() if word != f"{kind[n]} ends"] == (
        [41] if not workers else [7, 40, 41, 99]
    )
    if workers:
        assert found[7] == Lost("reading it crashed the reader (signal 11)")
        assert found[40] == Lost("reading it ended the reader (exit code 7)")
        assert found[99] == Lost("it needs more than 1 GiB of memory")


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_the_order_of_tasks(workers):
    """However many work, and whoever is faster."""
    told = list(in_order(numbers, range(5), workers=workers, limits=LIMITS, size=one))
    expected = [(n, r) for n in range(5) for r in [*((n, i) for i in range(200)), None]]

    assert told == expected


def test_processes_work_in_the_folder_of_whoever_began_them(tmp_path, monkeypatch):
    """Paths may be relative, also after a change of folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").touch()
    found = dict(Processes(1).one_each(os.path.exists, ["here", "there"], one))

    assert found == {0: True, 1: False}


def test_who_is_ahead_waits(tmp_path):
    """While the first task's results are not asked for, the second makes no more than fit."""
    results = in_order(heavy, [(tmp_path, 0), (tmp_path, 1)], workers=2, limits=Limits(), size=len)
    for _ in range(300):
        next(results)
    made = len(list(tmp_path.glob("1-*")))
    results.close()

    assert made <= AHEAD_BYTES // BATCH_BYTES + 4


def test_nobody_is_left_when_the_results_are_not_wanted_any_more(tmp_path):
    """Ctrl-C, or an error of whoever asked, ends the processes."""
    results = in_order(pid, [0, 1], workers=2, limits=LIMITS, size=much)
    _, process = next(results)
    results.close()

    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
