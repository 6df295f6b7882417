"""How much CPU it takes to start: helps, and the first record of an evaluation.

Medians of fresh processes, beside an empty Python. The evaluation is the real command on one drawn
image with one prompt; what of it is loading (imports, corpus, weights) is told by its own profile.

python benchmarks/startup.py
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from memory import CASES, write_corpus

PROMPTSEG = [sys.executable, "-m", "promptseg"]


def cpu_seconds(command: list[str]) -> tuple[float, str]:
    """Run a command and return its user and system time, and what it printed."""
    before = os.times()
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    after = os.times()
    spent = after.children_user - before.children_user
    return spent + after.children_system - before.children_system, done.stdout


def evaluation(corpus: Path, out: Path) -> tuple[float, float]:
    """Evaluate one image; return the CPU time of the process, and of its loading."""
    seconds, told = cpu_seconds(
        [*PROMPTSEG, "evaluate", str(corpus), "--out", str(out), "--profile", "--json"]
    )
    stages = {line["stage"]: line for line in json.loads(told)["profile"]["stages"]}
    return seconds, stages["loading"]["cpu_s"]


def main() -> None:
    """Print the medians; the goal for `--help` is 0.3 s."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=9)
    given = parser.parse_args()
    commands = {
        "promptseg --help": [*PROMPTSEG, "--help"],
        "promptseg evaluate --help": [*PROMPTSEG, "evaluate", "--help"],
        "python -c pass": [sys.executable, "-c", "pass"],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    taken |= {"promptseg evaluate, first record": [], "  of it loading": []}
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(Path(folder) / "corpus", CASES[0])
        for number in range(given.runs):
            for name, command in commands.items():
                taken[name].append(cpu_seconds(command)[0])
            whole, loading = evaluation(Path(folder) / "corpus", Path(folder) / f"{number}.run")
            taken["promptseg evaluate, first record"].append(whole)
            taken["  of it loading"].append(loading)
    for name, seconds in taken.items():
        print(f"{name:32s} median {statistics.median(seconds):.3f} s CPU, max {max(seconds):.3f} s")


if __name__ == "__main__":
    main()
