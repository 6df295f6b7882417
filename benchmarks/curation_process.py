"""Run a command, and tell what it took with all the processes that it started (Linux only)."""

import ctypes
import os
import resource
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_EVERY_S = 0.02


@dataclass(frozen=True, slots=True)
class Course:
    """What one command took."""

    wall_s: float
    cpu_s: float  # of all its processes
    peak_bytes: int  # of its first process
    peak_of_others: int  # the most that any other had; 0 without others
    said: str


def run(command: list[str]) -> Course:
    """Run a command to its end, and that of all that it started; SystemExit if it fails."""
    # processes whose own parent ends first become ours, so that their time is counted
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before, start = _cpu_s(), time.perf_counter()
    peaks: dict[int, int] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            for pid in _below(os.getpid()):
                peaks[pid] = max(peaks.get(pid, 0), _peak_of(pid))
            time.sleep(_EVERY_S)
        wall_s = time.perf_counter() - start
        assert process.stdout is not None
        said = process.stdout.read()
    if process.returncode not in {0, 3}:
        raise SystemExit(f"{' '.join(command)} failed.")
    with suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    others = [peak for pid, peak in peaks.items() if pid != process.pid]
    own = peaks[process.pid]
    return Course(wall_s, _cpu_s() - before, own, max(others, default=0), said)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _below(pid: int) -> list[int]:
    """List all processes that descend from one."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                facts = (entry / "stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(facts[1]), []).append(int(entry.name))
    found, left = [], [pid]
    while left:
        left += (own := children.get(left.pop(), []))
        found += own
    return found


def _peak_of(pid: int) -> int:
    """Give the peak of resident memory of a process so far; 0 where it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
