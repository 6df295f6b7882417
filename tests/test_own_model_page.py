"""The page on one's own model: its example runs as printed, keeps the contract and is scored."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from phantom import phantom

from promptseg.contract import check_model
from promptseg.evaluation import Plan, evaluate
from promptseg.models import load_model
from promptseg.sample import Sample, Target
from promptseg.strategy import STRATEGIES

PAGE = Path(__file__).parents[1] / "docs" / "own-model.md"
MOST_LINES = 30


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Save the page's first block of code where Python finds it; give the module's name."""
    match = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert match is not None
    (tmp_path / "my_model.py").write_text(match[1], encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_model", raising=False)
    return "my_model"


def _sample(index: int) -> Sample:
    image, masks = phantom(index)
    targets = tuple(Target(f"p#{name}", name, mask) for name, mask in masks.items())
    return Sample(f"p{index}", np.repeat(image[:, :, None], 3, axis=2), "phantom", "CT", targets)


def test_the_example_is_short(module: str, tmp_path: Path):
    """At most 30 lines, or the page would say that joining is hard."""
    lines = (tmp_path / f"{module}.py").read_text(encoding="utf-8").splitlines()

    assert len(lines) <= MOST_LINES
    assert max(map(len, lines)) <= 100


def test_the_example_keeps_the_contract(module: str):
    """Boxes are claimed, and all promises about them kept; the rest is skipped."""
    checks = {check.name: check for check in check_model(load_model(f"{module}:otsu"))}
    passed = {name for name, check in checks.items() if check.outcome == "passed"}

    assert {check.outcome for check in checks.values()} == {"passed", "skipped"}
    assert {"answers to box", "selection single", "batch invariance of prompts"} <= passed
    assert "segment raises AttributeError" in checks["answers to points"].detail


def test_the_example_is_measured(module: str):
    """Phantoms are brighter than their background: Otsu in the box finds them, to the pixel."""
    model = load_model(f"{module}:otsu")
    plan = Plan((STRATEGIES["box"], STRATEGIES["point1"]), selections=("single",))
    samples = [_sample(index) for index in range(3)]
    records = [record for one in evaluate(samples, model, plan) for record in one.records]
    found = {(r.strategy, r.outcome, r.off_protocol, r.dice) for r in records}

    assert len(records) == 3 * 2 * 2
    assert found == {("box", "ok", False, 1.0), ("point1", "failed", True, None)}


def test_the_page_shows_the_names_that_exist(module: str):
    """The commands ask for the example, and each field of an answer is explained."""
    text = PAGE.read_text(encoding="utf-8")

    assert "promptseg models check my_model:otsu" in text
    assert "promptseg evaluate CORPUS --model my_model:otsu --out RUN" in text
    for name in ("logits", "canvas", "single", "multimask", "predicted_iou", "weights_hash"):
        assert f"| `{name}` |" in text
