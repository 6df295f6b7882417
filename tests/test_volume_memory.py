"""A volume needs the memory of what is stored, and of a few slices."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import volume_phantom as phantom

SHAPE = (256, 256, 240)
FEW_SLICES = 32 * 2**20  # with what is kept of a part of the corpus, and the allocator's remains


def write(folder, suffix, shape):
    """Write a CT of 16 bits and a small organ as a label map of 8."""
    voxels = np.empty(shape, np.int16, order="F")
    slice_ = np.random.default_rng(0).integers(-1000, 1500, shape[:2], dtype=np.int16)
    for k in range(shape[2]):
        voxels[:, :, k] = np.roll(slice_, k, axis=0)
    labels = np.zeros(shape, np.uint8, order="F")
    labels[20:40, 20:40, 10:14] = 1
    for name, array in (("images", voxels), ("masks", labels)):
        path = folder / name / f"s{suffix}"
        if suffix == ".nii.gz":
            phantom.write_nifti(path, array, np.diag([0.8, 0.8, 1.2, 1]), "LPS")
        else:
            phantom.write_itk(path, array, np.diag([0.8, 0.8, 1.2, 1]), packed=suffix == ".nrrd")
    return voxels.nbytes + labels.nbytes


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mhd"])
def test_curating_a_ct_needs_its_stored_bytes_and_a_few_slices(tmp_path, suffix):
    """In float64 it would need four times as much; percentiles and labels make no copy either."""
    stored = write(tmp_path / "in", suffix, SHAPE)
    write(tmp_path / "warm", suffix, (64, 64, 16))
    script = Path(__file__).with_name("peak_memory.py")
    command = [sys.executable, script, tmp_path / "in", tmp_path / "out", tmp_path / "warm"]
    run = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )

    assert 0.5 * stored < int(run.stdout) < stored + FEW_SLICES
