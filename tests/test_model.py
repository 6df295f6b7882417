"""The seam to models: logits become masks as the original code does it, and names find models."""

from pathlib import Path

import fakes
import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from promptseg.errors import ModelError, UnknownName, pick
from promptseg.model import Candidates, Canvas, Segmenter, logits_at, masks_at, pieces
from promptseg.models import load_model
from promptseg.selection import choose


def _candidates(logits: np.ndarray, canvas: Canvas | None = None) -> Candidates:
    iou = np.linspace(0, 1, len(logits), dtype=np.float32)
    return Candidates(logits, iou, 0, tuple(range(1, len(logits))), canvas)


def test_logits_of_the_image_itself_are_only_thresholded():
    """A logit of exactly 0 is background, as in SAM."""
    logits = np.array([[[-1.0, 0.0, 1e-6]]], dtype=np.float32)

    np.testing.assert_array_equal([[[False, False, True]]], masks_at(_candidates(logits), (1, 3)))


def test_logits_are_enlarged_to_the_canvas_then_cut_then_resized():
    """SAM's two steps, written out once more with torch."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 16, 16)).astype(np.float32)
    canvas = interpolate(torch.from_numpy(logits)[None], (64, 64), mode="bilinear")
    expected = interpolate(canvas[..., :64, :40], (50, 31), mode="bilinear")[0] > 0
    masks = masks_at(_candidates(logits, Canvas(64, (64, 40))), (50, 31))

    assert expected.any()
    np.testing.assert_array_equal(expected.numpy(), masks)


def test_oracle_takes_the_best_dice_and_predicted_the_highest_iou():
    """Only the multimask tokens compete, and ties go to the lowest index."""
    candidates = _candidates(np.zeros((4, 2, 2), dtype=np.float32))

    assert choose(candidates, "single", [1.0, 0, 0, 0]) == 0
    assert choose(candidates, "oracle", [1.0, 0.3, 0.7, 0.7]) == 2
    assert choose(candidates, "predicted", [1.0, 0.3, 0.7, 0.7]) == 3


def test_a_model_without_tokens_has_no_choice():
    """A selection that a model cannot offer is None, not a guess."""
    alone = Candidates(np.zeros((1, 2, 2), dtype=np.float32), None, 0, ())

    assert choose(alone, "oracle", [0.5]) is None
    assert choose(alone, "predicted", [0.5]) is None


def test_a_fake_is_a_segmenter():
    """The protocol asks for attributes and two methods, no base class."""
    assert isinstance(fakes.reference(), Segmenter)
    assert load_model("fakes:reference").name == "reference"


def test_an_unknown_model_is_answered_with_the_nearest():
    """A slip of the finger costs one line."""
    with pytest.raises(UnknownName, match=r"Did you mean 'litemedsam'\?"):
        load_model("litmedsam")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("no_such_module:thing", "Cannot import no_such_module:thing"),
        ("fakes:no_such_name", "Cannot import fakes:no_such_name"),
        ("fakes:", "Cannot import fakes:"),
        ("fakes:not_a_model", "is no Segmenter: it has no name"),
        ("fakes:broken", "no such device"),
        ("fakes:Fake", "could not be made"),
    ],
)
def test_an_own_model_that_cannot_be_had_is_said_in_one_line(name: str, told: str):
    """Foreign code may fail in any way; the message says which name it was."""
    with pytest.raises(ModelError, match=told):
        load_model(name)


def test_pick_lists_what_is_known():
    """Where nothing is near, all names are shown."""
    with pytest.raises(UnknownName, match="Known: bar, foo"):
        pick({"foo": 1, "bar": 2}, "zzz", "thing")


@pytest.mark.parametrize("content", ["def broken(:", "import sys; sys.exit(3)", "1 / 0"])
def test_a_module_that_cannot_be_imported_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
):
    """A slip in one's own file is no traceback of ours, and no silent exit."""
    name = f"own_{abs(hash(content))}"
    (tmp_path / f"{name}.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match=f"Cannot import {name}:model: "):
        load_model(f"{name}:model")


@pytest.mark.parametrize("canvas", [None, Canvas(64, (64, 41))])
def test_masks_are_the_same_however_few_maps_are_enlarged_at_a_time(
    canvas: Canvas | None, monkeypatch: pytest.MonkeyPatch
):
    """A large image is brought to its size map by map, which moves no pixel."""
    logits = np.random.default_rng(0).normal(size=(4, 32, 32)).astype(np.float32)
    candidates = Candidates(logits, None, 0, (1, 2, 3), canvas)
    together = masks_at(candidates, (301, 193))
    assert len(list(pieces(4, canvas, (301, 193)))) == 1

    monkeypatch.setattr("promptseg.model.PIECE_BYTES", 1)
    assert len(list(pieces(4, canvas, (301, 193)))) == 4
    np.testing.assert_array_equal(masks_at(candidates, (301, 193)), together)


def test_a_map_of_one_sample_is_enlarged_alike_alone_and_among_others():
    """PyTorch rounds several of them otherwise than one; every pixel is the sample."""
    maps = np.array([-0.3, 0.7, 9.0], np.float32)[:, None, None]
    for canvas in (None, Canvas(1, (1, 1)), Canvas(5, (1, 1))):
        together = logits_at(maps, canvas, (62, 67))
        alone = [logits_at(one[None], canvas, (62, 67))[0] for one in maps]

        np.testing.assert_array_equal(together, alone)
        np.testing.assert_array_equal(together, np.broadcast_to(maps, (3, 62, 67)))
