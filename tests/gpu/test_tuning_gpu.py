"""Fine-tuning on a GPU: the same course as on a CPU, to the digits that float32 has there."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from phantom import write_discs
from test_cli import run
from test_tuning import QUICK, job
from tiny import Tiny

from promptseg.errors import ModelError
from promptseg.tuned import load_tuned
from promptseg.tuning.outcome import read_outcome
from promptseg.tuning.run import finetune, make_accelerator
from promptseg.tuning.settings import Settings
from promptseg.tuning.training import Stepped

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
GPU = "cuda"
ONE_EPOCH = replace(QUICK, epochs=1, overfit_steps=0, learning_rate=1e-4)
WORDS = (
    "--model", "tiny:make", "--epochs", "2", "--learning-rate", "0.01", "--augment", "none",
    "--overfit-steps", "0", "--val-share", "0", "--device", GPU,
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep embeddings out of the user's cache."""
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def one_device() -> Iterator[None]:
    """Let every test choose its device: accelerate keeps the first of a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def accelerator_on(device: str, settings: Settings) -> Any:
    """Make the accelerator of a device, in whatever precision the settings ask for."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return make_accelerator(device, settings.precision)


def losses(corpus: Any, folder: Path, device: str, settings: Settings) -> list[float]:
    """Train the small model on a device; give the loss of every step."""
    steps = finetune(job(Tiny(), corpus, folder, settings), accelerator_on(device, settings))
    return [event.log.loss for event in steps if isinstance(event, Stepped)]


@pytest.mark.parametrize("method", ["decoder", "lora", "both", "full"])
def test_losses_on_a_gpu_are_those_on_a_cpu(tmp_path, method):
    """The first epoch of both, step by step, whatever is trained."""
    corpus = write_discs(tmp_path / "c", 12, grey=50)
    settings = replace(ONE_EPOCH, method=method, cached=method != "full")
    here, there = (losses(corpus, tmp_path / d, d, settings) for d in ("cpu", GPU))

    assert len(here) == len(there) > 3
    assert np.abs(np.subtract(here, there)).max() < 1e-4


def test_mixed_precision_rounds_the_losses_and_no_more(tmp_path):
    """Of bf16, two digits are the same; and it is another course than that of float32."""
    corpus = write_discs(tmp_path / "c", 12, grey=50)
    half = replace(ONE_EPOCH, precision="bf16")
    here = losses(corpus, tmp_path / "cpu", "cpu", ONE_EPOCH)
    there = losses(corpus, tmp_path / GPU, GPU, half)

    assert 0 < np.abs(np.subtract(here, there)).max() < 0.05


def test_an_interrupted_training_goes_on_where_it_stopped(tmp_path):
    """Moments and weights come back to the device; digits are those of its atomic sums."""
    corpus = write_discs(tmp_path / "c", 12, grey=50)
    whole = losses(corpus, tmp_path / "whole", GPU, ONE_EPOCH)
    task = job(Tiny(), corpus, tmp_path / "parts", ONE_EPOCH)
    steps = finetune(task, accelerator_on(GPU, ONE_EPOCH))
    first = [next(event.log.loss for event in steps if isinstance(event, Stepped))]
    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt)
    rest = losses(corpus, tmp_path / "parts", GPU, ONE_EPOCH)

    assert len(rest) < len(whole)
    assert [*first, *rest] == pytest.approx(whole, abs=1e-5)


def test_a_full_memory_is_one_line_and_keeps_what_was_reached(tmp_path):
    """The card's own allocator fails, not a fake."""
    corpus = write_discs(tmp_path / "c", 12, grey=50)
    settings = replace(ONE_EPOCH, epochs=50)
    steps = finetune(job(Tiny(), corpus, tmp_path / "o", settings), accelerator_on(GPU, settings))
    done: list[int] = []

    def take_memory_away() -> None:
        for event in steps:
            if isinstance(event, Stepped):
                done.append(event.step)
            if len(done) == 12:
                torch.cuda.empty_cache()
                torch.cuda.set_per_process_memory_fraction(1e-9)

    try:
        with pytest.raises(ModelError, match="The memory is too small"):
            take_memory_away()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)

    assert len(done) == 12
    assert list((tmp_path / "o" / "state").glob("*.safetensors"))


def test_the_command_trains_scores_and_tells_the_memory_of_the_gpu(tmp_path, capsys):
    """A model of one's own, which was made on the CPU, is brought to the device."""
    write_discs(tmp_path / "dark.corpus", 12, grey=50)
    out = tmp_path / "taught"

    code, _, err = run(capsys, "finetune", tmp_path / "dark.corpus", "--out", out, *WORDS)

    assert code == 0, err
    outcome = read_outcome(out)
    assert outcome.device.startswith(GPU)
    assert outcome.device_peak_bytes > 10_000
    assert "Peak memory of the GPU" in (out / "report.html").read_text()
    assert load_tuned(out / "model", trust_base=True).name == "taught"


def test_more_processes_than_gpus_are_refused_in_one_line(tmp_path):
    """Each needs one of its own."""
    write_discs(tmp_path / "dark.corpus", 12, grey=50)
    count = str(torch.cuda.device_count() + 1)
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    words = ["-m", "promptseg", "finetune", str(tmp_path / "dark.corpus"), *WORDS]
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])

    done = subprocess.run(
        [*start, count, *words, "--out", str(tmp_path / "taught")],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode != 0
    assert f"{count} processes were started on this machine" in done.stderr
    assert "[rank" not in done.stderr  # as PyTorch prefixes what a process raises
