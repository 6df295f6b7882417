"""Evaluate a corpus, killed twenty times at random moments, then left alone to the end.

Prints how many parts were whole after each kill. A process of its own, because it forks: nothing
here may start a thread pool before.
"""

import importlib
import os
import random
import signal
import sys
import time
from pathlib import Path

import fakes
import torch

from promptseg.corpus import open_corpus
from promptseg.plan import Plan
from promptseg.record import open_run, start_run
from promptseg.run import describe_run, evaluate_corpus
from promptseg.strategy import STRATEGIES

for name in ("PIL.PngImagePlugin", "pyarrow.parquet", "pyarrow.compute", "pycocotools.mask"):
    importlib.import_module(name)  # before the forks, which then start at once


def evaluate_once(corpus_path: Path, out: Path) -> None:
    """Do what the command does."""
    corpus, models, plan = (
        open_corpus(corpus_path),
        {"fakes:slow": fakes.slow()},
        Plan((STRATEGIES["box"], STRATEGIES["box+point"])),
    )
    folder = start_run(out, describe_run(corpus, models, plan))
    for _ in evaluate_corpus(corpus, folder, models, plan):
        pass


def in_a_child(corpus_path: Path, out: Path) -> int:
    """Start it; return the process id."""
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        evaluate_once(corpus_path, out)
        os._exit(0)
    return child


def parts_done(out: Path) -> int:
    """Count the whole parts, as a run that goes on would."""
    return open_run(out).parts_done() if (out / "run.json").exists() else 0


if __name__ == "__main__":
    corpus_path, out = Path(sys.argv[1]), Path(sys.argv[2])
    rng = random.Random(7)
    counts = [0]
    for _ in range(20):
        child = in_a_child(corpus_path, out)
        wanted = counts[-1] + rng.randint(0, 2)
        while parts_done(out) < wanted:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.3))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        counts.append(parts_done(out))
    _, status = os.waitpid(in_a_child(corpus_path, out), 0)
    print(*counts[1:])
    sys.exit(os.waitstatus_to_exitcode(status))
