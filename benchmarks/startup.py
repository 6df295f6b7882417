"""How much CPU `promptseg --help` takes: the median of fresh processes, beside an empty Python.

python benchmarks/startup.py
"""

import os
import statistics
import subprocess
import sys

RUNS = 15


def cpu_seconds(command: list[str]) -> float:
    """Run a command and return its user and system time."""
    before = os.times()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    return (after.children_user - before.children_user) + (
        after.children_system - before.children_system
    )


def main() -> None:
    """Print both medians; the goal for `--help` is 0.3 s."""
    commands = {
        "promptseg --help": [sys.executable, "-m", "promptseg", "--help"],
        "python -c pass": [sys.executable, "-c", "pass"],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(RUNS):
        for name, command in commands.items():
            taken[name].append(cpu_seconds(command))
    for name, seconds in taken.items():
        print(f"{name:18s} median {statistics.median(seconds):.3f} s CPU, max {max(seconds):.3f} s")


if __name__ == "__main__":
    main()
