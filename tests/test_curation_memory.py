"""Thousands of slices in the memory of a few: nothing but their names outlives them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import flat_curation
import pytest

FEW = 500  # bytes a slice: its name and its hash, which the corpus' fingerprint and checks need


def _growth(folder: Path, n_slices: int, workers: int, leak: str) -> dict[str, float]:
    """Run the script; return the bytes a slice that were held on, and at the end."""
    command = [sys.executable, flat_curation.__file__, str(folder), str(n_slices), str(workers)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, leak], stdout=subprocess.PIPE, check=True, env=environment)
    growth: dict[str, float] = json.loads(done.stdout)
    return growth


@pytest.mark.parametrize("workers", [0, 1])
def test_memory_is_flat_over_thousands_of_slices(tmp_path: Path, workers: int):
    """Neither what reads nor what writes keeps a slice, its masks or its rows."""
    growth = _growth(tmp_path, 3_072, workers, "nothing")

    assert growth["held"] < FEW, growth
    assert growth["end"] < FEW, growth


@pytest.mark.parametrize("leak", ["row", "array"])
def test_a_leak_of_one_row_or_array_a_slice_is_seen(tmp_path: Path, leak: str):
    """The check can fail: a writer that keeps a small thing of every slice is caught."""
    assert _growth(tmp_path, 1_536, 0, leak)["held"] > FEW


def test_rows_of_all_slices_at_once_are_seen(tmp_path: Path):
    """As is one that reads its rows again, all at once, when the corpus is done."""
    growth = _growth(tmp_path, 1_536, 0, "end")

    assert growth["held"] < FEW
    assert growth["end"] > FEW
