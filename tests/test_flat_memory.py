"""Ten thousand images in the memory of a few: nothing that an image needed outlives it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import flat_memory


def _growth(folder: Path, n_images: int, leak: str) -> dict[str, float]:
    """Run the script; return what is held more at its end, tensors and blocks per image."""
    command = [sys.executable, flat_memory.__file__, str(folder), str(n_images), leak]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment)
    told = json.loads(done.stdout)
    between = n_images - flat_memory.PER_PART - flat_memory.SETTLED
    return {
        "tensors": told["tensors"] / between,
        "blocks": told["blocks"] / between,
        "peak": told["peak"],
    }


def _is_flat(growth: dict[str, float]) -> bool:
    """Tell whether fewer than every second image left a tensor, or any object, behind."""
    return growth["tensors"] < 0.5 and growth["blocks"] < 0.5


def test_memory_is_flat_over_ten_thousand_images(tmp_path: Path):
    """Reading, asking, scoring and writing keep nothing of an image."""
    growth = _growth(tmp_path, 10_000, "nothing")

    assert _is_flat(growth), growth
    assert growth["peak"] < 32e6


def test_a_leak_of_one_tensor_an_image_is_seen(tmp_path: Path):
    """The check can fail: a model that keeps a small tensor of every image is caught."""
    growth = _growth(tmp_path, 2_000, "tensor")

    assert not _is_flat(growth)
    assert growth["tensors"] > 0.9


def test_a_leak_of_one_array_an_image_is_seen(tmp_path: Path):
    """Arrays are no objects that the garbage collector counts; they are caught all the same."""
    growth = _growth(tmp_path, 2_000, "array")

    assert not _is_flat(growth)
    assert growth["tensors"] < 0.5
