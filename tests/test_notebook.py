"""The notebook of the docs: it runs from nothing, and what it shows is what came out."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "studies.ipynb"
RUN = """
import sys, json, matplotlib
matplotlib.use("Agg")  # pictures are drawn, and shown to nobody
import warnings
warnings.simplefilter("ignore")
names = {}
for cell in json.loads(sys.stdin.read()):
    exec(compile(cell, "cell", "exec"), names)
    print("-- end of cell --")
"""


def cells() -> list[dict[str, Any]]:
    """Give the cells with code."""
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return [cell for cell in content["cells"] if cell["cell_type"] == "code"]


def shown(cell: dict[str, Any]) -> str:
    """Give what a cell printed when the notebook was made."""
    streams = (one for one in cell["outputs"] if one["output_type"] == "stream")
    return "".join("".join(one["text"]) for one in streams if one["name"] == "stdout")


def test_the_notebook_was_run_in_order_and_without_an_error():
    """Outputs are of one execution from top to bottom; there are pictures."""
    outputs = [one for cell in cells() for one in cell["outputs"]]
    pictures = [one for one in outputs if "image/png" in one.get("data", {})]

    assert [cell["execution_count"] for cell in cells()] == list(range(1, len(cells()) + 1))
    assert not [one for one in outputs if one["output_type"] == "error"]
    assert len(pictures) >= 3
    assert str(Path.home()) not in NOTEBOOK.read_text(encoding="utf-8")


@pytest.mark.real
def test_the_notebook_runs_and_prints_what_it_shows(tmp_path: Path, litemedsam_weights: Path):
    """In a fresh interpreter and an empty folder; the last digit may differ between processors."""
    code = ["".join(cell["source"]) for cell in cells()]
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps(code),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
        check=False,
    )
    printed = done.stdout.split("-- end of cell --\n")

    assert done.returncode == 0, done.stderr[-2000:]
    assert len(printed) == len(code) + 1
    for cell, text in zip(cells(), printed, strict=False):
        assert _words(text) == _words(shown(cell))
        assert _numbers(text) == pytest.approx(_numbers(shown(cell)), abs=0.02, nan_ok=True)


def _words(text: str) -> list[str]:
    """Give what is no number with a fraction; rank correlations of few may change their sign."""
    return [word for word in text.split() if not _is_number(word)]


def _numbers(text: str) -> list[float]:
    return [float(word) for word in text.split() if _is_number(word)]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
