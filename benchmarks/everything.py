"""How long everything takes on a grid of 32 x 32, beside SAM's published generator written out.

The generator is that of the paper's appendix B on one crop, the image: 64 points a call of
transformers' SamModel, all three masks of each enlarged to the image, filtered by predicted IoU, by
stability, thresholded, boxed and suppressed, and the survivors' run lengths. Both sides start from
the same embedding, with the same weights, in processes of their own, in turn. Last, the generator's
rules on the logits of our own decoder must give our survivors, each mask to the pixel.

python benchmarks/everything.py heart.corpus glands.corpus
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from decoder import sam_model
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from promptseg.corpus import open_corpus
from promptseg.everything import Survivors, grid_points_xy, survivors
from promptseg.mask import from_rle, to_rle
from promptseg.memory import keep_freed_memory, peak_bytes
from promptseg.models import MODELS, load_model
from promptseg.models.litemedsam import LiteMedSamSegmenter, resized_hw
from promptseg.prompt import Everything, Points
from promptseg.sample import Sample

GOAL = 3.0  # times as fast
MODEL = "litemedsam-points"
SETTINGS = {"own": MODELS[MODEL].everything, "sam": Everything()}
SIDES = ("ours", "generator", "generator, our memory")
BATCH = 64
ONE = np.array([True])


def images(corpora: list[Path], sizes: list[int]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the first image of every corpus, and enlarged copies of the first to some sizes."""
    first = None
    for path in corpora:
        corpus = open_corpus(path)
        read = (sample for group in corpus.row_groups() for sample in corpus.read(group))
        sample = next(one for one in read if isinstance(one, Sample))
        first = sample.image if first is None else first
        yield f"{path.stem} {sample.image.shape[0]} x {sample.image.shape[1]}", sample.image
    for size in sizes:
        assert first is not None, "there is a corpus"
        width = round(first.shape[1] / first.shape[0] * size)
        large = Image.fromarray(first).resize((width, size), Image.Resampling.BICUBIC)
        yield f"{corpora[0].stem} {size} x {width}", np.asarray(large)


def generate(
    answers: Callable[[np.ndarray], tuple[Tensor, Tensor]],
    image_hw: tuple[int, int],
    settings: Everything,
) -> list[dict[str, Any]]:
    """Run the published generator's rules; `answers` gives logits (n, 3, 256, 256) and IoU."""
    height, width = resized_hw(image_hw)
    offset, kept = settings.stability_score_offset, list[dict[str, Any]]()
    grid = grid_points_xy(settings.points_per_side, image_hw)
    for start in range(0, len(grid), BATCH):
        low, iou = answers(grid[start : start + BATCH])
        logits = F.interpolate(low[..., :height, :width], image_hw, mode="bilinear").flatten(0, 1)
        flat = iou.flatten()
        if settings.pred_iou_thresh > 0:
            above = flat > settings.pred_iou_thresh
            logits, flat = logits[above], flat[above]
        inner = (logits > offset).sum((1, 2), dtype=torch.int32)
        stability = inner / (logits > -offset).sum((1, 2), dtype=torch.int32)
        if settings.stability_score_thresh > 0:
            stable = stability >= settings.stability_score_thresh
            logits, flat, stability = logits[stable], flat[stable], stability[stable]
        masks = logits > 0
        boxes = boxes_of(masks)
        for mask, score, box in zip(masks.numpy(), flat.tolist(), boxes.tolist(), strict=True):
            kept.append({"iou": score, "box": box, "rle": to_rle(mask)})
    return [kept[index] for index in suppress(kept, settings.box_nms_thresh)]


def boxes_of(masks: Tensor) -> Tensor:
    """Give closed boxes, and four zeros of an empty mask."""
    edges = []
    for axis in (1, 2):
        there = masks.any(dim=axis).int()
        n = there.shape[1]
        edges.append((there.argmax(1), n - 1 - there.flip(1).argmax(1)))
    (x0, x1), (y0, y1) = edges
    return torch.stack([x0, y0, x1, y1], dim=1) * masks.any(dim=1).any(dim=1)[:, None]


def suppress(kept: list[dict[str, Any]], threshold: float) -> list[int]:
    """Suppress boxes as torchvision does, one after the other."""
    boxes = torch.tensor([item["box"] for item in kept]).float().view(-1, 4)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    scores = torch.tensor([item["iou"] for item in kept])
    left, chosen = torch.argsort(scores, descending=True, stable=True), list[int]()
    while len(left):
        best, left = left[0], left[1:]
        chosen.append(int(best))
        lo = torch.maximum(boxes[best, :2], boxes[left, :2])
        hi = torch.minimum(boxes[best, 2:], boxes[left, 2:])
        shared = (hi - lo).clamp(min=0).prod(dim=1)
        left = left[~(shared / (area[best] + area[left] - shared) > threshold)]
    return chosen


@torch.inference_mode()
def run_side(given: argparse.Namespace) -> None:
    """Time one side in this process, and write what survives."""
    if given.side != "generator":
        keep_freed_memory()
    kept = np.load(given.folder / "image.npz")
    features, image_hw = torch.from_numpy(kept["features"]), tuple(kept["image_hw"].tolist())
    settings = replace(SETTINGS[given.settings], points_per_side=given.points_per_side)
    clock = time.process_time if given.cpu else time.perf_counter
    out: list[Any]
    if given.side == "ours":
        model = load_model(MODEL)
        assert isinstance(model, LiteMedSamSegmenter)
        embedding = model.embedding(features, image_hw)
        model.segment(embedding, [Points(np.array([[1.0, 1.0]]), ONE)])
        start = clock()
        found = survivors(model, embedding, image_hw, settings)
        seconds = clock() - start
        out = list(found.masks)
    else:
        sam = sam_model(given.weights)
        scale = np.array(resized_hw(image_hw)[::-1]) / np.array(image_hw[::-1])

        def answers(xy: np.ndarray) -> tuple[Tensor, Tensor]:
            points = torch.from_numpy(xy * scale).float()[None, :, None]
            labels = torch.ones(1, len(xy), 1, dtype=torch.int64)
            answer = sam(image_embeddings=features, input_points=points, input_labels=labels)
            return answer.pred_masks[0], answer.iou_scores[0]

        answers(np.array([[1.0, 1.0]]))
        start = clock()
        records = generate(answers, image_hw, settings)
        seconds = clock() - start
        out = [record["rle"] for record in records]
    (given.folder / f"{given.side}.json").write_text(json.dumps(out))
    print(json.dumps([seconds, peak_bytes(), len(out)]))


@torch.inference_mode()
def same_by_the_rules(model: Any, embedding: Any, given: argparse.Namespace) -> bool:
    """Compare our survivors with the generator's rules on the logits of our own decoder."""
    settings = replace(SETTINGS[given.settings], points_per_side=given.points_per_side)
    image_hw = embedding.image_hw

    def answers(xy: np.ndarray) -> tuple[Tensor, Tensor]:
        given_back = model.segment(embedding, [Points(one[None], ONE) for one in xy])
        logits = torch.from_numpy(np.stack([a.logits[1:] for a in given_back]))
        return logits, torch.from_numpy(np.stack([a.predicted_iou[1:] for a in given_back]))

    found: Survivors = survivors(model, embedding, image_hw, settings)
    return [item["rle"] for item in generate(answers, image_hw, settings)] == list(found.masks)


def apart(folder: Path) -> str:
    """Say how the survivors of both decoders differ."""
    ours, theirs = (json.loads((folder / f"{s}.json").read_text()) for s in SIDES[:2])
    if len(ours) != len(theirs):
        return f"{len(ours)} and {len(theirs)} masks"
    pixels = [int((from_rle(a) != from_rle(b)).sum()) for a, b in zip(ours, theirs, strict=True)]
    return f"{sum(n > 0 for n in pixels)} of {len(ours)} masks, {max(pixels, default=0)} px at most"


def in_process_of_its_own(side: str, given: argparse.Namespace) -> tuple[float, int, int]:
    """Run one side afresh: seconds, peak of memory, survivors."""
    command = [sys.executable, __file__, "--side", side]
    for name in ("folder", "weights", "settings", "points_per_side"):
        command += [f"--{name.replace('_', '-')}", str(getattr(given, name))]
    command += ["--cpu"] if given.cpu else []
    own = {"OMP_NUM_THREADS": str(given.threads)}
    done = subprocess.run(
        command, env=os.environ | own, stdout=subprocess.PIPE, check=True, text=True
    )
    seconds, peak, count = json.loads(done.stdout.splitlines()[-1])
    return seconds, peak, count


def compare(given: argparse.Namespace, model: LiteMedSamSegmenter) -> None:
    """Run all sides in turn for every image, and print what each took and found."""
    for name, image in images(given.corpora, given.sizes):
        embedding = model.embed([image])[0]
        with torch.inference_mode():
            features = model.encoder(model.pixels(image)).numpy()
        np.savez(given.folder / "image.npz", features=features, image_hw=image.shape[:2])
        for thresholds in given.thresholds:
            given.settings = thresholds
            seen: dict[str, list[tuple[float, int, int]]] = {side: [] for side in given.sides}
            for _ in range(given.rounds):
                for side, runs in seen.items():
                    runs.append(in_process_of_its_own(side, given))
                    print(f"{name}, {given.settings}: {side} {runs[-1][0]:.1f} s", flush=True)
            ours = float(np.median([run[0] for run in seen["ours"]]))
            for side, runs in seen.items():
                median = float(np.median([run[0] for run in runs]))
                peak = max(run[1] for run in runs) / 2**30
                print(
                    f"| {name} | {thresholds} | {side} | {median:.1f} s | {median / ours:.2f} | "
                    f"{peak:.2f} GiB | {runs[0][2]} |"
                )
            if "generator" in given.sides:
                print(f"  two decoders differ in {apart(given.folder)}")
            if given.rules:
                same = same_by_the_rules(model, embedding, given)
                print(f"  one decoder, both rules: {'the same masks' if same else 'NOT THE SAME'}")
    print(f"Ratios are to ours; the goal is {GOAL:g}.")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpora", type=Path, nargs="*", help="made by curate; their first images")
    parser.add_argument("--sizes", type=int, nargs="*", default=[], help="heights of copies, in px")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu", action="store_true", help="tell CPU time: of use with one thread")
    parser.add_argument("--points-per-side", type=int, default=32)
    parser.add_argument("--thresholds", nargs="+", choices=tuple(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--rules", action="store_true", help="compare also the rules alone")
    for name in ("--side", "--settings", "--folder", "--weights"):
        hidden = Path if name in {"--folder", "--weights"} else str
        parser.add_argument(name, type=hidden, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Prepare what the sides share, and compare them; or be one side."""
    given = arguments()
    if given.side:
        run_side(given)
        return
    if not given.corpora:
        raise SystemExit("Name a corpus, or several: their first images are asked.")
    with tempfile.TemporaryDirectory() as folder:
        given.folder = Path(folder)
        given.weights = given.folder / "weights.pth"
        model = load_model(MODEL)
        assert isinstance(model, LiteMedSamSegmenter)
        torch.save(model.original_state(), given.weights)
        compare(given, model)


if __name__ == "__main__":
    main()
