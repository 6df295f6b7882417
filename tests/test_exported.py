"""The exported model answers as the PyTorch one, prompt by prompt, and is made once."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pytest
import torch
from golden_litemedsam import SHAPES, picture

from promptseg.errors import ModelError
from promptseg.model import Candidates, logits_at
from promptseg.models import exported, load_model
from promptseg.models.exported import GRAPHS, MANIFEST, ExportedSegmenter, graphs_of
from promptseg.models.litemedsam import LiteMedSam, LiteMedSamSegmenter
from promptseg.prompt import Box, BoxPoints, Points, Prompt

LOGITS, IOU = 1e-3, 1e-5  # tolerances: logits reach 40, and 1 % of them lie within 0.01 of 0
CLICKS = Points(np.array([[20.0, 30.0], [3.0, 4.0], [40.0, 9.0]]), np.array([True, False, True]))
PROMPTS: tuple[Prompt, ...] = (
    Box(8, 10, 40, 50),
    Points(CLICKS.xy[:1], CLICKS.positive[:1]),
    CLICKS,
    BoxPoints(Box(5, 6, 30, 33), CLICKS),
    Box(20, 2, 61, 30),
)


@pytest.fixture
def untrained() -> LiteMedSamSegmenter:
    """Give the network with random weights."""
    torch.manual_seed(0)
    return LiteMedSamSegmenter(LiteMedSam(), "0" * 64)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """Replace the exporter, which takes long, by one that counts; with a cache of its own."""
    calls: list[str] = []

    def graphs(model: LiteMedSamSegmenter) -> tuple[bytes, bytes]:
        calls.append(model.weights_hash)
        return b"encoder", b"decoder"

    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path))
    monkeypatch.setattr(exported, "graphs", graphs)
    monkeypatch.setattr(exported, "version", lambda package: "1.0")
    return calls


def test_graphs_are_made_once_and_anew_where_they_are_damaged(
    untrained: LiteMedSamSegmenter, counted: list[str]
):
    """A lost, cut or half-written export is noticed; nothing temporary stays."""
    folder = graphs_of(untrained)

    assert graphs_of(untrained) == folder
    assert len(counted) == 1
    for number, damage in enumerate(
        (
            lambda: (folder / GRAPHS[1]).write_bytes(b"decode"),
            lambda: (folder / GRAPHS[0]).unlink(),
            lambda: (folder / MANIFEST).unlink(),
            lambda: (folder / MANIFEST).write_text("[]"),
        )
    ):
        damage()
        assert graphs_of(untrained) == folder
        assert len(counted) == number + 2
        assert (folder / GRAPHS[1]).read_bytes() == b"decoder"
    assert sorted(path.name for path in folder.iterdir()) == sorted([*GRAPHS, MANIFEST])


def test_other_weights_and_versions_have_graphs_of_their_own(
    untrained: LiteMedSamSegmenter, counted: list[str], monkeypatch: pytest.MonkeyPatch
):
    """Whatever changes the answers changes the folder, also what was loaded into the network."""
    folders = [graphs_of(untrained)]
    with torch.no_grad():
        untrained.network.head.mask_decoder.iou_token.weight[0, 0] += 1
    folders.append(graphs_of(untrained))
    monkeypatch.setattr(exported, "EXPORT", exported.EXPORT + 1)
    folders.append(graphs_of(untrained))
    monkeypatch.setattr(exported, "version", lambda package: "2.0")
    folders.append(graphs_of(untrained))

    assert len(set(folders)) == len(counted) == 4


def test_a_model_of_one_s_own_is_refused_in_one_line():
    """Only what we know how to export is."""
    with pytest.raises(ModelError, match="cannot be exported: the backend onnx is for litemedsam"):
        exported.exported(fakes.reference())


def test_half_precision_is_refused():
    """The backend runs in float32, which has to be said."""
    model = LiteMedSamSegmenter(LiteMedSam(), "0" * 64, dtype="bfloat16")
    with pytest.raises(ModelError, match="--dtype float32"):
        exported.exported(model)


@pytest.mark.parametrize("missing", ["openvino", "onnxscript"])
def test_a_missing_package_is_one_line(
    untrained: LiteMedSamSegmenter,
    missing: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    """What to install is said, before anything is exported."""
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModelError, match=rf'needs {missing}.*pip install "promptseg\[onnx\]"'):
        exported.exported(untrained)


@pytest.fixture(scope="module")
def both(litemedsam_weights: Path) -> tuple[Any, ExportedSegmenter]:
    """Load the published model twice: as it is, and exported."""
    model = load_model("litemedsam", weights=litemedsam_weights)
    assert isinstance(model, LiteMedSamSegmenter)
    return model, exported.exported(model)


def _answers(model: Any, image: np.ndarray, prompts: tuple[Prompt, ...]) -> list[Candidates]:
    (embedding,) = model.embed([image])
    return list(model.segment(embedding, prompts))


@pytest.mark.real
@pytest.mark.parametrize("shape", SHAPES[:3])
def test_all_kinds_of_prompts_have_the_same_answers(both: Any, shape: tuple[int, int]):
    """Logits of all tokens, predicted IoU, and masks of all but a few pixels in a million."""
    model, other = both
    image, pixels, differing = picture(*shape), 0, 0
    for own, found in zip(
        _answers(model, image, PROMPTS), _answers(other, image, PROMPTS), strict=True
    ):
        assert float(np.abs(own.logits).max()) > 1
        assert float(np.abs(found.logits - own.logits).max()) < LOGITS
        assert float(np.abs(found.predicted_iou - own.predicted_iou).max()) < IOU
        assert (found.canvas, found.single, found.multimask) == (
            own.canvas,
            own.single,
            own.multimask,
        )
        masks = [logits_at(one.logits, one.canvas, shape) > 0 for one in (own, found)]
        pixels += masks[0].size
        differing += int((masks[0] != masks[1]).sum())

    assert differing <= 1e-4 * pixels


@pytest.mark.real
def test_an_answer_does_not_depend_on_its_companions(both: Any):
    """Bit for bit, alone or among others, first or last."""
    _, other = both
    (embedding,) = other.embed([picture(*SHAPES[0])])
    together = other.segment(embedding, PROMPTS * 3)
    backwards = other.segment(embedding, PROMPTS[::-1])[::-1]
    for number, prompt in enumerate(PROMPTS):
        (alone,) = other.segment(embedding, [prompt])
        for found in (together[number], together[number + 5], backwards[number]):
            assert np.array_equal(found.logits, alone.logits)
            assert np.array_equal(found.predicted_iou, alone.predicted_iou)


@pytest.mark.real
def test_the_same_image_has_the_same_embedding(both: Any):
    """Bit for bit, whatever image came between."""
    _, other = both
    images = [picture(*shape) for shape in SHAPES[:2]]
    first, _, again = other.embed([images[0], images[1], images[0]])

    assert torch.equal(first.prepared.cells, again.prepared.cells)
    assert not other.segment(first, [])


@pytest.mark.real
def test_the_backend_is_told(both: Any):
    """With the library's version, so that runs of two versions are told apart."""
    _, other = both
    assert other.backend.startswith("onnx, export ")
    assert json.dumps(other.backend)
    assert other.weights_hash == both[0].weights_hash
