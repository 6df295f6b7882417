"""How long `promptseg evaluate` takes from the first image to the last record, beside a plain loop.

The plain loop works as the study's released code does, with the same weights and images: a first
pass saves the embedding of every image, a second one loads it and asks prompt by prompt through
transformers' own prompt encoder and decoder with three masks, enlarges them to the image's size,
takes the best by DICE, and writes a line of DICE, JAC, HD and ASD by medpy, in pixels. Both sides
run in processes of their own, in turn. Where there was a choice the plain loop got the faster way:
its embeddings are not compressed, its prompts are made by our code, it scores one selection by four
measures and keeps no mask. Ours is the real command, which scores three selections by eleven,
describes every target, and keeps masks, prompts and records.

python benchmarks/evaluate.py heart.corpus pancreas.corpus

Source of the loop: Huang et al. 2024, Segment Anything Model for Medical Images?,
doi:10.1016/j.media.2023.103061, and its released test_only_box.py.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from promptseg.stages import STAGES

ASKED = ("point1", "points5", "points5+5", "box", "box+point")
GOAL = 2.0  # times as fast
MOST_BESIDE = 0.15  # of our time that reading, prompting and scoring may take


@dataclass(frozen=True, slots=True)
class Course:
    """What one process saw, from the first image to the last record."""

    wall_s: float
    cpu_s: float
    n_prompts: int
    dice: float  # mean by the oracle: both sides have to find the same


def write_pictures(corpora: list[Path], folder: Path) -> None:
    """Write images and masks as the released code expects them: pictures in folders."""
    import cv2

    from promptseg.corpus import open_corpus
    from promptseg.sample import Sample, regroup

    number = 0
    for path in corpora:
        corpus = open_corpus(path)
        for group in corpus.row_groups():
            for sample in corpus.read(group):
                assert isinstance(sample, Sample)
                own = folder / f"{number:05d}"
                own.mkdir(parents=True)
                cv2.imwrite(str(own / "image.png"), sample.image)
                for place, target in enumerate(regroup(sample.targets, "class")):
                    mask = 255 * target.mask.astype(np.uint8)
                    cv2.imwrite(str(own / f"mask-{place:03d}.png"), mask)
                number += 1


def save_embeddings(model: Any, pictures: Path, embeddings: Path) -> None:
    """Embed every image, and keep the embedding with the image's masks."""
    import cv2
    import torch

    embeddings.mkdir()
    for own in sorted(pictures.iterdir()):
        image = cv2.imread(str(own / "image.png"))
        masks = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted(own.glob("mask-*"))]
        with torch.no_grad():
            embedding = model.encoder(model.pixels(image))
        np.savez(
            embeddings / f"{own.name}.npz",
            img_embeddings=embedding.numpy(),
            gts=np.stack(masks) > 0,
            image_shape=image.shape[:2],
        )


def three_masks(
    model: Any, embedding: Any, prompt: Any, image_hw: tuple[int, int]
) -> Bool[np.ndarray, "3 h w"]:
    """Ask one prompt through transformers' modules, and enlarge the three masks."""
    import torch
    from torch.nn.functional import interpolate

    from promptseg.models.litemedsam import SIDE, box_to_canvas, points_to_canvas, resized_hw
    from promptseg.prompt import box_of, points_of

    height, width = resized_hw(image_hw)
    box, clicks = box_of(prompt), points_of(prompt)
    xy = labels = boxes = None
    if clicks is not None:
        xy, labels = (
            torch.from_numpy(array)[None, None]
            for array in points_to_canvas(clicks, image_hw, (height, width))
        )
    if box is not None:
        boxes = torch.from_numpy(box_to_canvas(box, image_hw))[None, None]
    with torch.no_grad():
        sparse, dense = model.head.prompt_encoder(xy, labels, boxes, None)
        logits, _ = model.head.mask_decoder(
            image_embeddings=embedding,
            image_positional_embeddings=model.head.image_positions(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
        whole = interpolate(logits[0], (SIDE, SIDE), mode="bilinear", align_corners=False)
        whole = interpolate(
            whole[..., :height, :width], image_hw, mode="bilinear", align_corners=False
        )
    return (whole[0] > 0).numpy()


def plain_rows(model: Any, embeddings: Path) -> Iterator[tuple[str, int, str, *tuple[float, ...]]]:
    """Score one prompt after the other: image, target, strategy, DICE, JAC, HD, ASD."""
    import torch
    from medpy.metric.binary import asd, dc, hd, jc

    from promptseg.strategy import STRATEGIES

    for path in sorted(embeddings.glob("*.npz")):
        with np.load(path) as kept:
            embedding = torch.from_numpy(kept["img_embeddings"])
            masks, (height, width) = kept["gts"], kept["image_shape"]
        for strategy in ASKED:
            for place, reference in enumerate(masks):
                make = STRATEGIES[strategy].make
                assert make is not None
                try:
                    prompt = make(reference)
                except ValueError:  # no room for negative points
                    continue
                found = three_masks(model, embedding, prompt, (int(height), int(width)))
                best = max(found, key=lambda mask: float(dc(mask, reference)))
                try:
                    distances = float(hd(best, reference)), float(asd(best, reference))
                except RuntimeError:  # an empty mask: the released code says 0
                    distances = 0.0, 0.0
                overlaps = float(dc(best, reference)), float(jc(best, reference))
                yield (path.stem, place, strategy, *overlaps, *distances)


def run_plain(pictures: Path, folder: Path) -> Course:
    """Be the plain loop, once its model is there."""
    from medpy.metric import binary

    from promptseg.models import tinyvit_strips
    from promptseg.models.litemedsam import load

    tinyvit_strips.in_strips = lambda module, x: False  # the network's own modules, eager
    model = load()
    assert binary.dc is not None  # imported before the clock starts, as ours is
    wall, cpu = time.perf_counter(), time.process_time()
    save_embeddings(model, pictures, folder / "embeddings")
    with (folder / "scores.csv").open("w", newline="") as file:
        writer, dice = csv.writer(file), []
        for row in plain_rows(model, folder / "embeddings"):
            writer.writerow(row)
            dice.append(float(row[3]))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Course(wall, cpu, len(dice), float(np.mean(dice)))


def run_ours(corpora: list[Path], folder: Path) -> tuple[Course, list[dict[str, Any]]]:
    """Run the command on every corpus; return what it took, loading apart, and its profiles."""
    from promptseg.record import open_run

    profiles, dice = [], []
    for corpus in corpora:
        out = folder / f"{corpus.stem}.run"
        command = [sys.executable, "-m", "promptseg", "evaluate", str(corpus), "--out", str(out)]
        command += [word for name in ASKED for word in ("--strategy", name)]
        done = subprocess.run(
            [*command, "--profile", "--json"], capture_output=True, check=False, text=True
        )
        if done.returncode not in {0, 3}:
            raise SystemExit(done.stderr)
        profiles.append(json.loads(done.stdout)["profile"])
        records = open_run(out).records()
        dice += records.filter(records["selection"] == "oracle")["dice"].drop_nulls().to_list()
    loading = [stages_of(profile)["loading"] for profile in profiles]
    course = Course(
        wall_s=sum(p["wall_s"] - one["wall_s"] for p, one in zip(profiles, loading, strict=True)),
        cpu_s=sum(p["cpu_s"] - one["cpu_s"] for p, one in zip(profiles, loading, strict=True)),
        n_prompts=sum(profile["prompts"] for profile in profiles),
        dice=float(np.mean(dice)),
    )
    return course, profiles


def stages_of(profile: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Give the lines of a profile by their stage."""
    return {line["stage"]: line for line in profile["stages"]}


def plain_in_a_process(pictures: Path, folder: Path) -> Course:
    """Run the plain loop afresh, and read what it saw."""
    command = [sys.executable, __file__, "--plain", str(pictures), str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return Course(**json.loads(done.stdout.splitlines()[-1]))


def say(name: str, course: Course) -> None:
    """Print what one process saw."""
    print(
        f"{name:5s} {course.wall_s:7.2f} s, CPU {course.cpu_s:7.2f} s; "
        f"{course.n_prompts} prompts, DICE by the oracle {course.dice:.4f}",
        flush=True,
    )


def show_stages(runs: list[list[dict[str, Any]]]) -> None:
    """Print the medians of our own profile, over all corpora together."""
    print("\n| stage | seconds | CPU s | share of our time | share of our CPU time |")
    print("|---|---|---|---|---|")
    shares = {"seconds": 0.0, "CPU": 0.0}
    for stage in STAGES[1:]:
        lines = [[stages_of(p)[stage] for p in run if stage in stages_of(p)] for run in runs]
        if not any(lines):
            continue
        wall, cpu = (
            [sum(line[key] for line in own) for own in lines] for key in ("wall_s", "cpu_s")
        )
        apart = [[stages_of(p)["loading"] for p in run] for run in runs]
        of_wall, of_cpu = (
            statistics.median(
                part / (sum(p[key] for p in run) - sum(one[key] for one in loading))
                for part, run, loading in zip(parts, runs, apart, strict=True)
            )
            for key, parts in (("wall_s", wall), ("cpu_s", cpu))
        )
        if stage in {"reading", "prompting", "scoring"}:
            shares["seconds"] += of_wall
            shares["CPU"] += of_cpu
        print(
            f"| {stage} | {statistics.median(wall):.2f} | {statistics.median(cpu):.2f} "
            f"| {of_wall:.1%} | {of_cpu:.1%} |"
        )
    print(
        f"\nReading, prompting and scoring together: {shares['seconds']:.1%} of our time (beside "
        f"the model's), {shares['CPU']:.1%} of its CPU time; the goal is under {MOST_BESIDE:.0%}."
    )


def compare(given: argparse.Namespace, folder: Path) -> None:
    """Run both sides in turn; print every run, medians, their ratio, and our profile."""
    write_pictures(given.corpora, folder / "pictures")
    seen: dict[str, list[Course]] = {"ours": [], "plain": []}
    profiles = []
    for number in range(given.pairs):
        for side in seen:
            own = folder / f"{side}-{number}"
            own.mkdir()
            if side == "ours":
                course, told = run_ours(given.corpora, own)
                profiles.append(told)
            else:
                course = plain_in_a_process(folder / "pictures", own)
            seen[side].append(course)
            say(side, course)
    print("\n| side | seconds, median | CPU s, median | prompts |")
    print("|---|---|---|---|")
    wall, cpu = (
        {side: statistics.median(getattr(c, key) for c in seen[side]) for side in seen}
        for key in ("wall_s", "cpu_s")
    )
    for side, courses in seen.items():
        print(f"| {side} | {wall[side]:.2f} | {cpu[side]:.2f} | {courses[0].n_prompts} |")
    ratios = [p.wall_s / o.wall_s for o, p in zip(*seen.values(), strict=True)]
    print(
        f"\nRatio of medians {wall['plain'] / wall['ours']:.2f} by the clock (pairs "
        f"{min(ratios):.2f} to {max(ratios):.2f}), {cpu['plain'] / cpu['ours']:.2f} by CPU time; "
        f"the goal is {GOAL:g}"
    )
    show_stages(profiles)


def main() -> None:
    """Compare both sides, or be the plain one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpora", nargs="*", type=Path, help="made by curate")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of torch, on both sides; else its own choice")
    parser.add_argument("--plain", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.plain:
        print(json.dumps(asdict(run_plain(*given.plain))))
        return
    if not given.corpora or given.pairs < 1:
        parser.error("give one corpus or more, and at least one pair")
    if given.threads:
        os.environ["OMP_NUM_THREADS"] = str(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        compare(given, Path(folder))


if __name__ == "__main__":
    main()
