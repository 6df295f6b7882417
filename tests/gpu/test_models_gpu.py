"""LiteMedSAM on a GPU: the answers of a CPU, to the digits that each type has."""

from pathlib import Path

import numpy as np
import pytest
import torch
from golden_litemedsam import picture
from phantom import write_phantoms
from test_cli import run
from torch import nn

from promptseg.model import Candidates
from promptseg.models import load_model
from promptseg.models.litemedsam import PROMPTS_PER_PASS, LiteMedSam, LiteMedSamSegmenter
from promptseg.prompt import Box, BoxPoints, Points, Prompt
from promptseg.record import open_run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
GPU = "cuda"
BOX = Box(10, 10, 50, 40)
CLICK = Points(np.array([[30.0, 20.0]]), np.array([True]))
CLICKS = Points(np.array([[30.0, 20.0], [5.0, 5.0]]), np.array([True, False]))
PROMPTS: list[Prompt] = [BOX, CLICK, BoxPoints(BOX, CLICK), CLICKS, Box(0, 0, 80, 60)]


def untrained(device: str, dtype: str = "float32") -> LiteMedSamSegmenter:
    """Give the network with the same random weights on any device."""
    torch.manual_seed(0)
    network = LiteMedSam()
    for parameter in network.head.parameters():
        nn.init.normal_(parameter, std=0.2)
    return LiteMedSamSegmenter(network, "random", device=device, dtype=dtype)


def answers(model: LiteMedSamSegmenter, prompts: list[Prompt]) -> list[Candidates]:
    """Ask a model about a picture."""
    (embedding,) = model.embed([picture(60, 80)])
    return model.segment(embedding, prompts)


def apart(ours: list[Candidates], theirs: list[Candidates]) -> float:
    """Give the largest distance between logits, in standard deviations of theirs."""
    pairs = zip(ours, theirs, strict=True)
    return max(float(np.abs(o.logits - t.logits).max() / t.logits.std()) for o, t in pairs)


def test_answers_on_a_gpu_are_those_on_a_cpu():
    """Boxes, points and both: float32 is float32, also in convolutions."""
    here, there = answers(untrained("cpu"), PROMPTS), answers(untrained(GPU), PROMPTS)

    assert apart(there, here) < 1e-3
    for ours, theirs in zip(there, here, strict=True):
        np.testing.assert_allclose(ours.predicted_iou, theirs.predicted_iou, atol=1e-4)


@pytest.mark.parametrize(("dtype", "bound"), [("float16", 0.05), ("bfloat16", 0.4)])
def test_half_precision_rounds_the_encoder_only(dtype: str, bound: float):
    """The answers move by what the encoder's type rounds, and do move."""
    exact, rounded = answers(untrained(GPU), PROMPTS), answers(untrained(GPU, dtype), PROMPTS)

    assert 1e-4 < apart(rounded, exact) < bound


def test_prompts_of_several_passes_come_back_in_order():
    """More than one pass holds, each with the answer that it has alone."""
    model = untrained(GPU)
    boxes: list[Prompt] = [Box(n % 40, n % 25, 50, 40) for n in range(PROMPTS_PER_PASS + 9)]
    (embedding,) = model.embed([picture(60, 80)])
    together = model.segment(embedding, boxes)
    alone = [model.segment(embedding, [box])[0] for box in boxes]

    assert apart(together, alone) < 1e-3


def test_scores_on_a_gpu_are_those_on_a_cpu(tmp_path: Path, capsys, litemedsam_weights: Path):
    """The command, with boxes, points, clicks and Everything, of the weights that are shipped."""
    write_phantoms(tmp_path / "c", range(3), spacing_mm=0.5)
    found = []
    for device in ("cpu", GPU):
        out = tmp_path / device
        words = ["--model", "litemedsam-points", "--model", "litemedsam", "--device", device]
        for strategy in ("box", "points5", "everything"):
            words += ["--strategy", strategy]
        code, _, err = run(capsys, "evaluate", tmp_path / "c", *words, "--out", out)
        assert code == 0, err
        assert open_run(out).run.device.startswith(device)
        keys = ["model", "image_id", "target_id", "strategy", "selection"]
        found.append(open_run(out).records().sort(keys))

    here, there = found
    same = ["model", "target_id", "strategy", "selection", "outcome"]
    assert here.select(same).equals(there.select(same))
    gaps = (here["dice"] - there["dice"]).abs()
    prompted = here["strategy"] != "everything"
    assert prompted.sum() > 30
    assert gaps.filter(prompted).max() < 0.02
    assert gaps.mean() < 2e-3


@pytest.mark.usefixtures("litemedsam_weights")
def test_a_fine_tuned_model_is_loaded_onto_the_device():
    """Its delta lies on the CPU, its base where it was asked for."""
    model = load_model("litemedsam-points", device=GPU)

    assert {p.device.type for p in model.network.parameters()} == {GPU}
