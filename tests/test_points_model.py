"""litemedsam-points: the fine-tuned model that the package carries."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_real import PAPER_LABELS, _run

from promptseg.everything import survivors
from promptseg.models import MODELS, PackagedCard, load_model
from promptseg.prompt import Points
from promptseg.weights import sha256_of

NAME = "litemedsam-points"
CARD = MODELS[NAME]
assert isinstance(CARD, PackagedCard)
FOLDER = CARD.folder


def test_it_is_small_whole_and_says_where_it_comes_from():
    """The tensors are those of the card, below 10 MB; every set has licence and attribution."""
    attribution = (FOLDER / "ATTRIBUTION.md").read_text()
    card = json.loads((FOLDER / "model.json").read_text())
    data = card["finetuned"]["data"]

    assert sha256_of(FOLDER / "model.safetensors") == CARD.sha256
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 10e6
    assert len(data) > 20
    for one in data:
        assert one["licence"], one
        named = rf"(?<!\w){re.escape(one['name'].removesuffix(', taught'))}(?!\w)"
        assert re.search(named, attribution), one["name"]
    assert not re.search("mni152|stardist", json.dumps(data)), "the demo's images are unseen"


def test_its_card_says_what_it_reached_beside_its_base():
    """On data sets that it never saw: one point, three, five, the box."""
    card = json.loads((FOLDER / "model.json").read_text())
    rows = {(row["model"], row["selection"]): row for row in card["finetuned"]["scores"]}
    own, base = rows[NAME, "predicted"], rows["litemedsam", "single"]

    assert own["point1"] > base["point1"] + 0.4
    assert own["point1"] < own["points3"] < own["points5"] < own["box"]
    assert own["box"] >= base["box"] - 0.01
    assert (FOLDER / "README.md").read_text().count("held-out data sets") == 1


@pytest.mark.real
def test_a_point_finds_what_it_lies_on(litemedsam_weights: Path):
    """A bright disc on noise: one point on it gives it, by the highest predicted IoU."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:200, :240]
    disc = (y - 90) ** 2 + (x - 130) ** 2 <= 40**2
    grey = np.clip(np.where(disc, 180, 60) + 12 * rng.normal(size=disc.shape), 0, 255)
    image = np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    model = load_model(NAME)
    (embedding,) = model.embed([image])
    (found,) = model.segment(embedding, [Points(np.array([[130.0, 90.0]]), np.array([True]))])
    best = found.multimask[int(np.argmax(found.predicted_iou[list(found.multimask)]))]
    height, width = found.canvas.valid_hw
    mask = found.logits[best, :height, :width] > 0
    rows = (np.arange(height) + 0.5) * 200 / height
    columns = (np.arange(width) + 0.5) * 240 / width
    seen = disc[rows.astype(int)][:, columns.astype(int)]

    assert 2 * (mask & seen).sum() / (mask.sum() + seen.sum()) > 0.85
    assert model.weights_hash == CARD.sha256
    few = replace(CARD.everything, points_per_side=8)
    assert len(survivors(model, embedding, (200, 240), few).masks) > 0


@pytest.mark.real
def test_points_on_a_heart_are_on_protocol_and_far_better_than_the_bases(
    sample_set: Path, litemedsam_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """A data set that it was not trained on: the left ventricle by points."""
    (tmp_path / "labels.json").write_text(json.dumps(PAPER_LABELS))
    corpus = tmp_path / "corpus"
    words = ("--modality", "MR", "--labels", tmp_path / "labels.json", "--out", corpus)
    assert _run("curate", sample_set / "paper_22_heart_mr", *words) == 0
    asked = ("--model", NAME, "--strategy", "point1", "--strategy", "points5", "--strategy", "box")
    capsys.readouterr()
    assert _run("evaluate", corpus, *asked, "--limit", "3", "--out", tmp_path / "r", "--json") == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    of = {(row["task"], row["strategy"], row["selection"]): row for row in rows}
    ventricle = "left ventricle (MR)"

    assert not any(row["off_protocol"] for row in rows)
    assert of[ventricle, "point1", "predicted"]["dice"] > 0.5
    assert of[ventricle, "points5", "predicted"]["dice"] > 0.7
    assert of[ventricle, "box", "single"]["dice"] > 0.85
