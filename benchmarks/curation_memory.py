"""Whether the memory of `promptseg curate` stays flat over 1,000, 10,000 and 100,000 slices.

The real command on volumes of 64 x 64 x 100 voxels, 100 slices each with two objects, which have
other voxels each. Every line is a fresh process with its workers; what is told is the peak of the
resident memory of the first process, and of any other (Linux only).

python benchmarks/curation_memory.py
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import curation_process
import nibabel
import numpy as np

SHAPE = (64, 64, 100)
SIZES = (1_000, 10_000, 100_000)  # slices


def write_volumes(folder: Path, count: int) -> None:
    """Write volumes of noise with two blocks of their own, whose label maps are one file."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    labels = np.zeros(SHAPE, np.uint8)
    labels[10:30, 12:40], labels[40:55, 20:50] = 1, 2
    first = folder / "masks" / "v00000.nii"
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4) * 2), first)
    for number in range(count):
        rng = np.random.default_rng(number)
        values = rng.integers(0, 200, SHAPE, np.int16) + np.int16(300) * labels
        name = f"v{number:05d}.nii"
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4) * 2), folder / "images" / name)
        if number:
            (folder / "masks" / name).hardlink_to(first)
    (folder / "labels.json").write_text('{"left": 1, "right": 2}')


def main() -> None:
    """Print a line per size, and how much the first process grows a slice."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, nargs="+", default=SIZES)
    parser.add_argument("--split", help="as train=0.7,test=0.3: then all looks are compared")
    given = parser.parse_args()
    print("| slices | targets | seconds | CPU s | peak of the first process | of a worker |")
    print("|---|---|---|---|---|---|")
    peaks = {}
    with tempfile.TemporaryDirectory() as name:
        for slices in given.slices:
            folder = Path(name) / str(slices)
            write_volumes(folder, slices // SHAPE[2])
            command = [sys.executable, "-m", "promptseg", "curate", str(folder), "--modality", "CT"]
            command += ["--out", f"{folder}.corpus", "--json"]
            command += ["--split", given.split] if given.split else []
            course = curation_process.run(command)
            told = json.loads(course.said)
            if told["n_images"] != slices:
                raise SystemExit(f"{told['n_images']} images of {slices}.")
            peaks[slices] = course.peak_bytes
            print(
                f"| {slices} | {told['n_targets']} | {course.wall_s:.1f} | {course.cpu_s:.1f} | "
                f"{course.peak_bytes / 2**20:.0f} MiB | {course.peak_of_others / 2**20:.0f} MiB |",
                flush=True,
            )
    few, many = min(peaks), max(peaks)
    if many > few:
        slope = (peaks[many] - peaks[few]) / (many - few)
        print(f"\nThe first process grows by {slope:.0f} bytes a slice.")


if __name__ == "__main__":
    main()
