"""Fine-tuning on a GPU: the same course as on a CPU, to the digits that float32 has there."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from phantom import write_discs
from test_tuning import QUICK, job
from tiny import Tiny

from promptseg.tuning.run import finetune, make_accelerator
from promptseg.tuning.training import Stepped

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize(("precision", "bound"), [("no", 1e-3), ("bf16", 0.05)])
def test_losses_on_a_gpu_are_those_on_a_cpu(tmp_path, monkeypatch, precision, bound):
    """The first epoch of both, step by step."""
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path / "cache"))
    corpus = write_discs(tmp_path / "c", 12, grey=50)
    settings = replace(QUICK, epochs=1, overfit_steps=0, precision=precision, learning_rate=1e-4)
    found = []
    for device in ("cpu", "cuda"):
        AcceleratorState._reset_state(reset_partial_state=True)  # one process has one device
        accelerator = make_accelerator(device, precision if device == "cuda" else "no")
        model = Tiny()
        model.network.to(accelerator.device)
        steps = finetune(job(model, corpus, tmp_path / device, settings), accelerator)
        found.append([event.log.loss for event in steps if isinstance(event, Stepped)])

    assert np.abs(np.subtract(*found)).max() < bound
