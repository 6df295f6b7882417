"""Time of all metrics of a pair of masks: ours, medpy's separate functions, and surface-distance.

python benchmarks/metrics.py CORPUS... [--run RUN...] [--side 512] [--pairs 150] [--rounds 3]

Pairs are the targets of corpora made by `promptseg curate` whose image is as long as `--side`.
Predictions are each target shifted, eroded, dilated, opened or made wavy by a fixed seed, and the
masks that runs on these corpora kept. Every side is a fresh process of one thread, in turn, and its
CPU time is told, which other programs disturb less than the clock. surface-distance is no
dependency: `pip install --no-deps surface-distance==0.1`.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from promptseg.corpus import open_corpus
from promptseg.mask import from_rle
from promptseg.record import open_run
from promptseg.sample import Unreadable, regroup

GOALS = {"medpy": 100.0, "surface-distance": 3.0}
SPACINGS_YX = {"isotropic": (1.0, 1.0), "0.8 mm": (0.8, 0.8), "anisotropic": (0.4, 2.5)}
TOLERANCE = 2.0
WARM_UP = 3

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Values = dict[str, float]


# Pairs


def made(rng: np.random.Generator, mask: Mask, kind: int) -> Mask:
    """Give what a prediction looks like: moved, too small, too large, smoother, or wavy."""
    radius = int(rng.integers(1, 7))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
    plain = mask.astype(np.uint8)
    if kind == 0:
        return np.roll(mask, tuple(rng.integers(-8, 9, 2)), axis=(0, 1))
    if kind == 1:
        return cv2.erode(plain, disc) > 0
    if kind == 2:
        return cv2.dilate(plain, disc) > 0
    if kind == 3:
        return cv2.morphologyEx(plain, cv2.MORPH_OPEN, disc) > 0
    inside, outside = (
        cv2.distanceTransform(np.uint8(part), cv2.DIST_L2, 5) for part in (mask, ~mask)
    )
    waves = cv2.GaussianBlur(rng.standard_normal(mask.shape), (0, 0), 6)
    return inside - outside > 3 * waves / waves.std()


def references_of(path: Path, side: int) -> Iterator[tuple[str, Mask]]:
    """Yield the targets of a corpus that are in images of that longer side, by class."""
    corpus = open_corpus(path)
    for sample in (s for group in corpus.row_groups() for s in corpus.read(group)):
        if not isinstance(sample, Unreadable) and max(sample.image.shape) == side:
            for target in regroup(sample.targets, "class"):
                if target.mask.any():
                    yield target.target_id, target.mask


def pairs(given: argparse.Namespace) -> Iterator[tuple[Mask, Mask, bool]]:
    """Yield predictions with their references, and whether a model made them."""
    rng = np.random.default_rng(0)
    references = dict(r for path in given.corpora for r in references_of(path, given.side))
    for number, mask in enumerate(references.values()):
        for kind in (number % 5, (number + 2) % 5):
            yield made(rng, mask, kind), mask, False
    for path in given.run:
        for row in open_run(path).masks().iter_rows(named=True):
            if row["target_id"] in references:
                yield from_rle(row["mask"]), references[row["target_id"]], True


def chosen(given: argparse.Namespace) -> list[tuple[Mask, Mask, bool]]:
    """Take at most so many pairs, half of them a model's where there are, spread evenly."""
    found = [pair for pair in pairs(given) if pair[0].any()]  # medpy refuses a miss
    taken: list[tuple[Mask, Mask, bool]] = []
    halves = [[pair for pair in found if pair[2] is own] for own in (False, True)]
    filled = [half for half in halves if half]
    for half in filled:
        count = min(len(half), given.pairs // len(filled))
        taken += [half[i] for i in np.linspace(0, len(half) - 1, count).astype(int)]
    return taken


# Sides: each gives all its metrics of one pair, called as its users do


def ours() -> Callable[[Mask, Mask, tuple[float, float]], Values]:
    """All ten of ours, in one call."""
    from promptseg import score

    def measure(pred: Mask, reference: Mask, spacing: tuple[float, float]) -> Values:
        found = score(pred, reference, spacing, nsd_tolerance=TOLERANCE)
        return {name: getattr(found, name) for name in found.__slots__ if name != "distance_unit"}

    return measure


def medpy() -> Callable[[Mask, Mask, tuple[float, float]], Values]:
    """Six functions on whole masks."""
    from medpy.metric import binary

    def measure(pred: Mask, reference: Mask, spacing: tuple[float, float]) -> Values:
        return {
            "dice": binary.dc(pred, reference),
            "jaccard": binary.jc(pred, reference),
            "hd": binary.hd(pred, reference, voxelspacing=spacing),
            "hd95": binary.hd95(pred, reference, voxelspacing=spacing),
            "assd": binary.assd(pred, reference, voxelspacing=spacing),
            "asd": binary.asd(pred, reference, voxelspacing=spacing),
        }

    return measure


def surface_distance() -> Callable[[Mask, Mask, tuple[float, float]], Values]:
    """Distances once, and all that it makes of them."""
    warnings.simplefilter("ignore", DeprecationWarning)  # 0.1 imports SciPy by names of old
    import surface_distance as sd

    def measure(pred: Mask, reference: Mask, spacing: tuple[float, float]) -> Values:
        distances = sd.compute_surface_distances(reference, pred, spacing)
        back, there = sd.compute_average_surface_distance(distances)
        sd.compute_surface_overlap_at_tolerance(distances, TOLERANCE)
        return {
            "dice": sd.compute_dice_coefficient(reference, pred),
            "hd": sd.compute_robust_hausdorff(distances, 100),
            "hd95": sd.compute_robust_hausdorff(distances, 95),
            "assd": (back + there) / 2,
            "asd": there,
            "nsd": sd.compute_surface_dice_at_tolerance(distances, TOLERANCE),
        }

    return measure


SIDES = {"ours": ours, "medpy": medpy, "surface-distance": surface_distance}
# of the same definition; what else both have differs by definition
ALIKE = {"medpy": ("dice", "jaccard", "hd", "asd"), "surface-distance": ("dice",)}


def run_side(given: argparse.Namespace) -> None:
    """Be one side: print the milliseconds and the values of every pair."""
    measure = SIDES[given.be]()
    with np.load(given.folder / "pairs.npz") as kept:
        preds, references = kept["preds"], kept["references"]
        masks = [
            [np.unpackbits(m, count=h * w).reshape(h, w).astype(bool) for m in pair]
            for *pair, (h, w) in zip(preds, references, kept["shapes"], strict=True)
        ]
    spacing = SPACINGS_YX[given.spacing]
    for pair in masks[:WARM_UP]:
        measure(*pair, spacing)
    times, values = [], []
    for pred, reference in masks:
        start = time.thread_time()
        found = measure(pred, reference, spacing)
        times.append(1000 * (time.thread_time() - start))
        values.append({name: float(v) for name, v in found.items() if v is not None})
    print(json.dumps({"ms": times, "values": values}))


# Comparison


def in_process_of_its_own(side: str, spacing: str, folder: Path) -> dict[str, Any]:
    """Run one side afresh, and read what it saw."""
    command = [sys.executable, __file__, "--be", side, "--spacing", spacing]
    command += ["--folder", str(folder)]
    own = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=own, stdout=subprocess.PIPE, check=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def compare(spacing: str, sides: list[str], folder: Path, rounds: int) -> None:
    """Run the sides in turn, and print their times and ratios, and where they agree."""
    seen: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, runs in seen.items():
            runs.append(in_process_of_its_own(side, spacing, folder))
    ms = {side: np.median([run["ms"] for run in runs], axis=0) for side, runs in seen.items()}
    print(f"\nSpacing {spacing} {SPACINGS_YX[spacing]}: {len(ms['ours'])} pairs, {rounds} rounds")
    for side, times in ms.items():
        print(f"  {side:16s} mean {times.mean():8.3f} ms, median {np.median(times):8.3f} ms")
    own = seen["ours"][0]["values"]
    for side in sides[1:]:
        each = ms[side] / ms["ours"]
        totals = ms[side].sum() / ms["ours"].sum()
        print(
            f"  {side} / ours: median of pairs {np.median(each):.1f} "
            f"({each.min():.1f} to {each.max():.1f}), of totals {totals:.1f}; "
            f"the goal is {GOALS[side]:g}"
        )
        theirs = seen[side][0]["values"]
        for name in sorted(set(own[0]) & set(theirs[0])):
            gap = np.abs([a[name] - b[name] for a, b in zip(own, theirs, strict=True)])
            told = "the same" if name in ALIKE[side] else "another"
            print(
                f"    {name:8s} by {told} definition: differs by {gap.max():.2g} at most, "
                f"{gap.mean():.2g} on average"
            )


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpora", type=Path, nargs="*", metavar="CORPUS")
    parser.add_argument("--run", type=Path, nargs="*", default=[], help="runs that kept masks")
    parser.add_argument("--side", type=int, default=512, help="longer side of the images, px")
    parser.add_argument("--pairs", type=int, default=150, help="the most that are measured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--spacings", nargs="*", default=list(SPACINGS_YX), choices=SPACINGS_YX)
    parser.add_argument("--be", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--spacing", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Write the pairs, and compare the sides on them; or be one side."""
    given = arguments()
    if given.be:
        run_side(given)
        return
    taken = chosen(given)
    if len(taken) < WARM_UP:
        raise SystemExit(f"These corpora have no targets in images of {given.side} px.")
    sides = list(SIDES)
    if importlib.util.find_spec("surface_distance") is None:
        sides.remove("surface-distance")
        print("Without surface-distance: pip install --no-deps surface-distance==0.1")
    own = sum(of_model for *_, of_model in taken)
    print(f"{len(taken)} pairs, {own} of them predictions that runs kept")
    with tempfile.TemporaryDirectory() as folder:
        columns = [[np.packbits(pair[i]) for pair in taken] for i in (0, 1)]
        longest = max(map(len, columns[0]))
        np.savez(
            Path(folder) / "pairs.npz",
            preds=[np.pad(m, (0, longest - len(m))) for m in columns[0]],
            references=[np.pad(m, (0, longest - len(m))) for m in columns[1]],
            shapes=[pair[0].shape for pair in taken],
        )
        for spacing in given.spacings:
            compare(spacing, sides, Path(folder), given.rounds)


if __name__ == "__main__":
    main()
