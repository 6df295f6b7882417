"""What a report of many records costs: CPU time, peak memory and size of the page.

python benchmarks/report.py --records 1000000

Writes runs of drawn records by the project's own writer, then a report in a fresh process.
There is no corpus, so there are no pictures. Every target is asked for by both models, by every
strategy, exact and moved, under every selection; so fewer levels of jitter mean more targets.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from promptseg.attributes import AttributeRow
from promptseg.prompt import Box, to_json
from promptseg.record import PromptRow, Record, Run, RunFolder, start_run

MODELS = {"alpha": 0.2, "beta": 0.0}  # name -> what it adds to the logit of DICE
STRATEGIES = {"box": 2.0, "point1": 0.2, "points5": 0.8, "points5+5": 1.1}
SELECTIONS = {"single": 0.0, "predicted": 0.1, "oracle": 0.4}
MODALITIES = ("CT", "T2W MRI", "Ultrasound", "X-ray", "Dermoscopy", "Histopathology")
PER_PART = 8000  # records
OBJECTS = 5  # of a dataset
PX = 4  # every fourth dataset has no spacing
LEVEL_PX = 10


@dataclass(frozen=True, slots=True)
class Shape:
    """What the runs look like."""

    records: int
    subjects: int
    datasets: int
    levels: int  # of jitter, 10 px each
    seeds: int  # of every level
    runs: int  # which share the images between them, and hold all models
    unknown: bool  # nobody knows the subjects of the first dataset

    @property
    def per_target(self) -> int:
        """Records of one target."""
        ways = len(MODELS) * len(STRATEGIES) * len(SELECTIONS)
        return ways * (1 + self.levels * self.seeds)

    @property
    def images(self) -> int:
        """Images, of 2.5 targets on average."""
        return max(1, round(self.records / self.per_target / 2.5))


@dataclass(frozen=True, slots=True)
class Question:
    """One way in which a target is asked for: strategy, level of jitter (0: none) and seed."""

    strategy: str
    level: int
    seed: int

    @property
    def jitter(self) -> dict[str, Any]:
        """The columns of a record that say so."""
        if not self.level:
            return {}
        mode = "shift" if self.strategy == "box" else "all"
        lo, hi = (float(LEVEL_PX * edge) for edge in (self.level - 1, self.level))
        return {"jitter_mode": mode, "jitter_unit": "px", "jitter_lo": lo, "jitter_hi": hi}


def questions(shape: Shape) -> list[Question]:
    """List what is asked of every target."""
    moved = [(level, seed) for level in range(1, shape.levels + 1) for seed in range(shape.seeds)]
    return [Question(name, *one) for name in STRATEGIES for one in [(0, 0), *moved]]


def described(shape: Shape, number: int, images: int) -> Run:
    """Tell of a run what a report needs."""
    modes = ("shift", "all")
    levels = [
        f"{mode}:px:{LEVEL_PX * n}-{LEVEL_PX * (n + 1)}"
        for mode in modes
        for n in range(shape.levels)
    ]
    per_part = images_per_part(shape)
    return Run(
        corpus=f"drawn-{number}", corpus_path=f"drawn-{number}.corpus",
        corpus_fingerprint=f"{number:064d}", layout="0" * 64,
        models=dict.fromkeys(MODELS, "0" * 64), asked={},
        trained_for={}, licences={}, custom_weights=[], strategies=list(STRATEGIES),
        selections=list(SELECTIONS), protocol="paper", unit="class", seeds=list(range(shape.seeds)),
        jitter=levels, everything={}, subset={}, max_targets=None, nsd_tolerance=2.0,
        save_masks="none", batch_size=64, device="cpu", dtype="float32", n_images=images,
        n_targets=None, of_images=images, of_targets=None, n_parts=-(-images // per_part),
        versions={}, started="2026-01-01T00:00:00+00:00",
    )  # fmt: skip


def images_per_part(shape: Shape) -> int:
    """Spread records over parts as `evaluate` does."""
    return max(1, round(PER_PART / shape.per_target / 2.5))


def write_run(path: Path, shape: Shape, number: int) -> int:
    """Write one of the runs, and count its records."""
    own = range(number, shape.images, shape.runs)
    folder = start_run(path, described(shape, number, len(own)))
    size, written = images_per_part(shape), 0
    for index in range(folder.run.n_parts):
        part = own[index * size : (index + 1) * size]
        written += write_part(folder, index, shape, part)
    return written


def write_part(folder: RunFolder, index: int, shape: Shape, images: range) -> int:
    """Write the records, prompts and attributes of some images."""
    records: list[Record] = []
    prompts: list[PromptRow] = []
    attributes: list[AttributeRow] = []
    for image in images:
        for row in targets(shape, image):
            attributes.append(row)
            records += answers(shape, image, row)
            prompts += asked(shape, row)
    folder.write_part(index, records, prompts, [], attributes)
    return len(records)


def prompt_id(row: AttributeRow, question: Question) -> str:
    """Name a prompt."""
    return f"{row.target_id}/{question.strategy}/{question.level}/{question.seed}"


def asked(shape: Shape, row: AttributeRow) -> Iterator[PromptRow]:
    """Give the prompts of a target, all alike: the report reads those that it draws."""
    prompt = to_json(Box(10.0, 10.0, 60.0, 60.0))
    for question in questions(shape):
        yield PromptRow(prompt_id(row, question), row.image_id, row.target_id, prompt)


def targets(shape: Shape, image: int) -> Iterator[AttributeRow]:
    """Describe 2 or 3 targets of an image."""
    rng = np.random.default_rng([1, image])
    for place in rng.permutation(OBJECTS)[: 2 + image % 2]:
        difference = float(rng.gamma(2.0, 15.0))
        order = float(1 + rng.poisson(4))
        yield AttributeRow(
            area_px=int(rng.lognormal(7, 1)) + 30,
            area_share=0.05,
            aspect_ratio=float(rng.uniform(0.2, 1)),
            intensity_difference=difference,
            contrast_to_noise=difference / float(rng.uniform(8, 25)),
            fourier_order=None if rng.random() < 0.01 else order,
            fourier_censored=False,
            fourier_order_paper=order + float(rng.uniform(0, 20)),
            compactness=float(rng.uniform(0.1, 1)) / order,
            n_components=int(1 + rng.poisson(0.3)),
            n_holes=int(rng.poisson(0.1)),
            border_distance_px=int(rng.integers(0, 100)),
            image_id=f"image-{image:07d}",
            target_id=f"image-{image:07d}#object-{place}",
        )


def answers(shape: Shape, image: int, row: AttributeRow) -> Iterator[Record]:
    """Score a target as both models answer it."""
    who = image % shape.subjects
    dataset = who % shape.datasets
    place = int(row.target_id[-1])
    modality = MODALITIES[dataset % len(MODALITIES)]
    unit = "px" if dataset % PX == PX - 1 else "mm"
    shared: dict[str, Any] = {
        "protocol": "paper", "unit": "class", "off_protocol": False,
        "dataset": f"set-{dataset:03d}",
        "subject": None if shape.unknown and dataset == 0 else f"subject-{who:05d}",
        "image_id": row.image_id, "target_id": row.target_id,
        "object": f"object {place} of {dataset:03d}", "modality": modality,
        "task": f"object {place} of {dataset:03d} ({modality})", "nsd_tolerance": 2.0,
        "distance_unit": unit, "image_diagonal": 362.0 if unit == "px" else 289.6,
        "n_positive": 1, "n_negative": 0, "clicks": 1, "embed_ms": 40.0,
    }  # fmt: skip
    of_subject = 0.6 * np.random.default_rng([2, who]).normal()
    ease = 0.01 * (row.intensity_difference or 0.0) - 0.1 * (row.fourier_order or 5.0) + of_subject
    rng = np.random.default_rng([3, image, place])
    for question in questions(shape):
        lost = 3.0 * question.level * LEVEL_PX / np.sqrt(row.area_px) / 10
        key = {
            "strategy": question.strategy, "seed": question.seed, **question.jitter,
            "prompt_id": prompt_id(row, question),
        }  # fmt: skip
        for model, strength in MODELS.items():
            noise = 0.4 * rng.normal()
            level = ease + STRATEGIES[question.strategy] + strength - lost + noise
            for selection, more in SELECTIONS.items():
                known = {"model": model, "selection": selection, "decode_ms": 5.0 + rng.random()}
                score = scores(rng, float(level + more))
                yield Record(**(shared | key | known | score))


def scores(rng: np.random.Generator, level: float) -> dict[str, Any]:
    """Draw the outcome of an answer, and all measures that it has."""
    chance = rng.random()
    if chance < 0.002:
        return {"outcome": "failed", "reason": "the model answered with NaN", "distance_unit": None}
    if chance < 0.02:
        return {
            "outcome": "miss", "reason": "the mask is empty", "dice": 0.0, "jaccard": 0.0,
            "nsd": 0.0, "boundary_iou": 0.0,
        }  # fmt: skip
    dice = float(1 / (1 + np.exp(-level)))
    far = 30.0 * (1 - dice)
    return {
        "outcome": "ok", "mask_index": 1, "dice": dice, "jaccard": dice / (2 - dice),
        "hd": 1.5 * far, "hd95": far, "assd": far / 4, "asd": far / 5, "nsd": dice**2,
        "boundary_iou": dice**3, "conformity": (3 * dice - 2) / dice, "predicted_iou": dice,
    }  # fmt: skip


def measure(runs: list[Path], page: Path) -> str:
    """Write a report in a fresh process, and tell what it cost."""
    command = [sys.executable, "-m", "promptseg", "report", *map(str, runs), "--out", str(page)]
    before = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the report ended with status {status}")
    return (
        f"CPU {usage.ru_utime + usage.ru_stime:.1f} s ({usage.ru_utime:.1f} user), wall "
        f"{time.perf_counter() - before:.1f} s, peak memory {usage.ru_maxrss / 1024**2:.2f} GiB, "
        f"page {page.stat().st_size / 1024**2:.2f} MiB"
    )


def main() -> None:
    """Write the runs that are not there yet, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--subjects", type=int, default=2000)
    parser.add_argument("--datasets", type=int, default=8, help="each of five tasks")
    parser.add_argument("--levels", type=int, default=2, help="of jitter")
    parser.add_argument("--seeds", type=int, default=2, help="of every level")
    parser.add_argument("--runs", type=int, default=1, help="which are pooled")
    parser.add_argument("--unknown", action="store_true", help="subjects of the first dataset")
    parser.add_argument("--out", type=Path, help="keep the runs and the page here")
    known = vars(parser.parse_args())
    out: Path | None = known.pop("out")
    shape = Shape(**known)
    with tempfile.TemporaryDirectory() as scratch:
        folder = out or Path(scratch)
        paths = [folder / f"{number}.run" for number in range(shape.runs)]
        there = all((path / "run.json").exists() for path in paths)
        if not there:
            written = sum(write_run(path, shape, i) for i, path in enumerate(paths))
            print(f"{written:,} records of {shape.images:,} images written")
        print(measure(paths, folder / "report.html"))


if __name__ == "__main__":
    main()
