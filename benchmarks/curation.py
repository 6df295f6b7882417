"""How many slices `promptseg curate` takes a second, beside a straight loop that does the same.

Both sides run in processes of their own, in turn, on the same drawn data: volumes of 256 x 256 x 64
voxels with seven objects (`.nii.gz`, 16 bits), and RGB pictures of 512 x 512 pixels with forty
instances (PNG and TIFF). The loop is what published preprocessing is, one file after the other:
nibabel's `get_fdata` in the nearest RAS+ order, values brought from the volume's minimum and
maximum to 0..255, slice by slice the mask of every value that is there, none of 50 pixels or less,
box and area by scikit-image's `regionprops`, and by imageio a PNG of the image and of every mask; a
table of all masks at the end. What comes out is compared: images, masks and pixels have to agree.

Our corpus has more, which the loop does not do: checksums of the files are looked at, images and
rows are hashed, what was left out is listed with its reason, a part may be taken up where it was
interrupted, files are read in processes of their own, and every image has a perceptual hash and a
thumbnail, by which duplicates and leaks are found. `loop+looks` is the loop with the last of these:
SHA-256 of the pixels, `resize` of scikit-image to 32 x 32 and 16 x 16, a cosine transform.

Seconds are of the whole process, imports and all. CPU time is that of all processes together.

python benchmarks/curation.py
"""

import argparse
import csv
import hashlib
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import curation_data as drawn
import curation_process
import numpy as np
from jaxtyping import Shaped, UInt8

GOAL = 3.0  # times as fast
MIN_AREA = 50  # pixels
SIDES = ("ours, 1 worker", "ours, a worker a core", "loop", "loop+looks")


@dataclass(frozen=True, slots=True)
class Made:
    """What came of one side: the same on both, if they do the same."""

    images: int
    masks: int
    pixels: int  # of all masks together


def grey_of(values: Shaped[np.ndarray, "*space"]) -> UInt8[np.ndarray, "*space"]:
    """Bring values from their minimum and maximum to 0..255."""
    lo, hi = values.min(), values.max()
    grey: UInt8[np.ndarray, "*space"] = np.rint((values - lo) / (hi - lo) * 255).astype(np.uint8)
    return grey


def slices_of(folder: Path) -> Iterator[tuple[str, Any, Any]]:
    """Give the slices of all volumes as radiologists see them, with their labels."""
    import nibabel

    for path in sorted((folder / "images").iterdir()):
        image, labels = (
            nibabel.as_closest_canonical(nibabel.load(file)).get_fdata()
            for file in (path, folder / "masks" / path.name)
        )
        grey, labels = grey_of(image), labels.astype(np.uint8)
        for k in range(grey.shape[2]):
            stem = path.name.partition(".")[0]
            yield f"{stem}-{k:04d}", grey[::-1, ::-1, k].T, labels[::-1, ::-1, k].T


def pictures_of(folder: Path) -> Iterator[tuple[str, Any, Any]]:
    """Give all pictures with their instances."""
    import imageio.v3 as imageio

    for path in sorted((folder / "images").iterdir()):
        instances = imageio.imread(folder / "masks" / f"{path.stem}.png")
        yield path.stem, imageio.imread(path), instances


def look_of(pixels: Shaped[np.ndarray, "h w *rgb"]) -> tuple[str, str, str]:
    """Hash the pixels of an image, and what it looks like."""
    from scipy.fft import dctn
    from skimage.transform import resize

    grey = pixels if pixels.ndim == 2 else pixels.mean(axis=2)
    low = dctn(resize(grey, (32, 32), anti_aliasing=True))[:8, :8].ravel()[1:]
    thumb = resize(grey, (16, 16), anti_aliasing=True)
    return (
        hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest(),
        np.packbits(low > np.median(low)).tobytes().hex(),
        np.rint(thumb).astype(np.uint8).tobytes().hex(),
    )


def run_loop(folder: Path, out: Path, looks: bool) -> Made:
    """Be the loop."""
    import imageio.v3 as imageio
    from skimage.measure import regionprops

    is_volume = (folder / "labels.json").exists()
    rows: list[list[Any]] = []
    n_images = 0
    for name, image, labels in (slices_of if is_volume else pictures_of)(folder):
        own = []
        for value in np.unique(labels)[1:]:
            mask = labels == value
            if mask.sum() <= MIN_AREA:
                continue
            (region,) = regionprops(mask.astype(np.uint8))
            imageio.imwrite(out / f"{name}-mask-{value}.png", mask.astype(np.uint8) * 255)
            own.append([name, value, int(region.area), *region.bbox])
        if own:
            imageio.imwrite(out / f"{name}.png", image)
            seen = look_of(image) if looks else ()
            rows += [[*row, *seen] for row in own]
            n_images += 1
    with (out / "masks.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return Made(n_images, len(rows), sum(row[2] for row in rows))


def made_in(corpus: Path) -> Made:
    """Count what a corpus holds."""
    import polars as pl

    targets = pl.read_parquet(corpus / "targets/*.parquet", columns=["area_px"])
    info = json.loads((corpus / "corpus.json").read_text())
    return Made(info["n_images"], info["n_targets"], int(targets["area_px"].sum()))


def command_of(folder: Path) -> list[str]:
    """Give the words of `promptseg curate` for one of the two folders, but where to."""
    options = ["--object", "cell", "--instances"]
    if (folder / "labels.json").exists():
        options = []
    return [sys.executable, "-m", "promptseg", "curate", str(folder), "--modality", "CT", *options]


def run_side(side: str, folder: Path, out: Path) -> tuple[curation_process.Course, Made]:
    """Run one side in a process of its own."""
    if side.startswith("loop"):
        out.mkdir()
        words = ["--loop", str(folder), str(out), *(["--looks"] if side == "loop+looks" else [])]
        course = curation_process.run([sys.executable, __file__, *words])
        return course, Made(**json.loads(course.said))
    workers = ["--workers", "1"] if "1" in side else []
    course = curation_process.run([*command_of(folder), "--out", str(out), "--json", *workers])
    return course, made_in(out)


def compare(what: str, folder: Path, pairs: int, work: Path) -> None:
    """Run all sides in turn; print every run, medians and ratios."""
    seen: dict[str, list[curation_process.Course]] = {side: [] for side in SIDES}
    first: Made | None = None
    for number in range(pairs):
        for side, courses in seen.items():
            course, made = run_side(side, folder, work / f"{what}-{number}-{side}")
            first = first or made
            if made != first:
                raise SystemExit(f"{side} made {made}, another side {first}.")
            courses.append(course)
            print(f"{what}, {side}: {course.wall_s:.2f} s, CPU {course.cpu_s:.2f} s", flush=True)
    assert first is not None
    cores = os.cpu_count() or 1
    print(f"\n{what}: {first.images} images, {first.masks} masks, {cores} cores\n")
    print("| side | seconds | CPU s | images / s | images / CPU s | peak, and of a worker |")
    print("|---|---|---|---|---|---|")
    median = {
        side: [statistics.median(getattr(c, key) for c in courses) for key in ("wall_s", "cpu_s")]
        for side, courses in seen.items()
    }
    for side, (wall, cpu) in median.items():
        peak = max(course.peak_bytes for course in seen[side]) / 2**20
        worker = max(course.peak_of_others for course in seen[side]) / 2**20
        of_worker = f", {worker:.0f} MiB" if worker else ""
        rates = f"{first.images / wall:.1f} | {first.images / cpu:.1f}"
        print(f"| {side} | {wall:.2f} | {cpu:.2f} | {rates} | {peak:.0f} MiB{of_worker} |")
    print()
    for loop in SIDES[2:]:
        for ours in SIDES[:2]:
            wall, cpu = (a / b for a, b in zip(median[loop], median[ours], strict=True))
            ratios = [a.cpu_s / b.cpu_s for a, b in zip(seen[loop], seen[ours], strict=True)]
            print(
                f"{loop} / {ours}: {cpu:.2f} by CPU time (pairs {min(ratios):.2f} to "
                f"{max(ratios):.2f}), {wall:.2f} by the clock; the goal is {GOAL:g}"
            )
    print(flush=True)


def main() -> None:
    """Draw the data and compare; or be the loop."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--volumes", type=int, default=24, help="0 leaves them out")
    parser.add_argument("--pictures", type=int, default=200, help="0 leaves them out")
    parser.add_argument("--loop", nargs=2, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--looks", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.loop:
        made = run_loop(given.loop[0], given.loop[1], given.looks)
        print(json.dumps({"images": made.images, "masks": made.masks, "pixels": made.pixels}))
        return
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for what, count, write in (
            ("volumes", given.volumes, drawn.write_volumes),
            ("pictures", given.pictures, drawn.write_pictures),
        ):
            if count:
                write(work / what, count)
                compare(what, work / what, given.pairs, work)


if __name__ == "__main__":
    main()
