"""The page on studies: its Python runs as printed."""

import re
from pathlib import Path

import numpy as np
import pytest
from phantom import write_phantoms
from test_report import folder, record

from promptseg.stats import estimate

PAGE = Path(__file__).parents[1] / "docs" / "studies.md"


def blocks_of_page() -> list[str]:
    """Read the Python of the page."""
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.real
def test_the_code_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, litemedsam_weights: Path
):
    """From a corpus to a run, then every question, one block after the other."""
    write_phantoms(tmp_path / "heart.corpus", range(4))
    monkeypatch.chdir(tmp_path)
    blocks = blocks_of_page()
    made = next(block for block in blocks if "evaluate_into" in block)
    names: dict[str, object] = {}
    for block in ["import promptseg\n" + made, *(block for block in blocks if block != made)]:
        exec(block, names)

    assert len(blocks) == 3
    assert (tmp_path / "heart.run" / "run.json").is_file()


def test_the_mean_of_the_page_is_that_of_the_report_on_a_run_with_jitter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Subjects of unlike numbers of images and targets; jittered and other answers are worse."""
    rng = np.random.default_rng(3)
    records = [
        record(
            subject=f"s{s}", image_id=f"i{s}-{i}", target_id=f"i{s}-{i}#{t}", strategy=strategy,
            selection=selection, dice=float(rng.uniform(0.2, 1)) * (0.5 if jitter else 1),
            task=f"{organ} (CT)", object=organ, unit="instance", seed=seed, **jitter,
        )
        for s in range(4) for i in range(1 + s) for t in range(1 + 3 * (i % 2))
        for organ in ("liver", "vessel") for strategy in ("box", "point1")
        for selection in ("single", "oracle")
        for seed, jitter in (
            (0, {}), *((seed, {"jitter_mode": "shift", "jitter_unit": "px", "jitter_lo": 0.0,
                               "jitter_hi": 10.0}) for seed in (0, 1)),
        )
    ]  # fmt: skip
    run = folder(tmp_path / "heart.run", records, unit="instance", seeds=[0, 1])
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(blocks_of_page()[0], names)
    expected = {
        group.task: item.value
        for group, item in estimate(run.records(), "dice").items()
        if (group.strategy, group.selection, group.jitter) == ("box", "single", None)
    }
    found = {row["task"]: row["dice"] for row in names["means"].iter_rows(named=True)}  # type: ignore[attr-defined]

    assert set(found) == {"liver (CT)", "vessel (CT)"}
    assert found == pytest.approx(expected)
