"""Fine-tuning LiteMedSAM itself: the cache, adapters and the export change no answer."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from phantom import write_phantoms

from promptseg.models import load_model
from promptseg.prompt import Box, Points
from promptseg.tuning.network import (
    choose_parameters,
    merged_state,
    set_values,
    without_adapters,
)
from promptseg.tuning.run import Job, finetune, make_accelerator
from promptseg.tuning.settings import Settings
from promptseg.tuning.split import Division
from promptseg.tuning.training import Stepped

pytestmark = pytest.mark.real

SHORT = Settings(epochs=1, augmentation="none", overfit_steps=0, batch_size=1)
BOX, CLICK = Box(10, 12, 40, 36), Points(np.array([[20.0, 24.0]]), np.array([True]))


@pytest.fixture
def phantoms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, litemedsam_weights: Path) -> Any:
    """Write a few phantoms; embeddings go to a cache of their own, beside the weights."""
    cache = tmp_path / "cache"
    kept = cache / litemedsam_weights.parent.name / litemedsam_weights.name
    kept.parent.mkdir(parents=True)
    kept.symlink_to(litemedsam_weights)
    monkeypatch.setenv("PROMPTSEG_CACHE", str(cache))
    return write_phantoms(tmp_path / "c", range(6), subjects=6)


def losses(corpus: Any, folder: Path, settings: Settings) -> list[float]:
    """Train LiteMedSAM without anyone choosing, and give the loss of every step."""
    job = Job(
        corpora=(corpus,),
        model=load_model("litemedsam"),
        asked="litemedsam",
        name="taught",
        settings=settings,
        division=Division(val_share=0, test_share=0.5),
        folder=folder,
    )
    events = finetune(job, make_accelerator("cpu"))
    return [event.log.loss for event in events if isinstance(event, Stepped)]


def test_steps_from_the_cache_equal_steps_without_it(phantoms, tmp_path):
    """To the last bit in float32, and to 5e-5 of the loss in float16 (2e-5 were seen)."""
    live = losses(phantoms, tmp_path / "live", replace(SHORT, cached=False))
    for dtype, bound in (("float32", 0.0), ("float16", 5e-5)):
        kept = losses(phantoms, tmp_path / dtype, replace(SHORT, cache_dtype=dtype))
        assert len(kept) == 3
        assert np.abs(np.subtract(kept, live)).max() <= bound * max(live), dtype


def test_merged_adapters_equal_unmerged_ones(litemedsam_weights):
    """Logits of a box and a click move by less than 1e-4 of their size when adapters go."""
    model = load_model("litemedsam", weights=litemedsam_weights)
    chosen = choose_parameters(model, replace(SHORT, method="lora"))
    rng = torch.Generator().manual_seed(1)
    moved = {
        name: torch.randn(model.network.get_parameter(name).shape, generator=rng) * 0.05
        for name in chosen.names
    }
    before = answers(model)
    set_values(model.network, moved)
    unmerged = answers(model)
    state = merged_state(model.network)
    without_adapters(model.network)
    undone = answers(model)
    model.network.load_state_dict(state)
    merged = answers(model)

    size = np.abs(unmerged).max()
    assert np.abs(unmerged - before).max() > 0.1
    assert np.abs(undone - before).max() < 1e-4 * size  # without adapters it runs in strips
    assert np.abs(merged - unmerged).max() < 1e-4 * size


def answers(model: Any) -> np.ndarray:
    """Ask about a drawn image."""
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    (embedding,) = model.embed([image])
    return np.stack([c.logits for c in model.segment(embedding, [BOX, CLICK])])


def test_all_that_is_chosen_is_reached_by_every_way_of_asking(phantoms, tmp_path):
    """No parameter is listed as trained that a kind of prompt never uses; images encoded once."""
    for prompts in ("box", "points", "mixed", "clicks"):
        settings = replace(SHORT, prompts=prompts, prompt_encoder=True, rounds=1)
        assert len(losses(phantoms, tmp_path / prompts, settings)) == 3, prompts
