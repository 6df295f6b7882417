"""The page on studies: its Python runs as printed."""

import re
from pathlib import Path

import pytest
from phantom import write_phantoms

PAGE = Path(__file__).parents[1] / "docs" / "studies.md"


@pytest.mark.real
def test_the_code_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, litemedsam_weights: Path
):
    """From a corpus to a run, then every question, one block after the other."""
    write_phantoms(tmp_path / "heart.corpus", range(4))
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    made = next(block for block in blocks if "evaluate_into" in block)
    names: dict[str, object] = {}
    for block in ["import promptseg\n" + made, *(block for block in blocks if block != made)]:
        exec(block, names)

    assert len(blocks) == 3
    assert (tmp_path / "heart.run" / "run.json").is_file()
