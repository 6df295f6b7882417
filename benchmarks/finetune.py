"""How many steps a second `promptseg finetune --preset paper` trains, beside a plain loop.

The plain loop does what the study's released trainer does, with the same weights and images: an
archive per image from a DataLoader, transformers' own decoder forward, logits enlarged to the
image's size, and DICE (squared) and cross-entropy there. Both sides run in processes of their own,
in turn. Where there was a choice the plain loop got the faster way: it validates nothing, saves no
state and makes no points; ours saves its state after every epoch, and writes its curves.

python benchmarks/finetune.py
python benchmarks/finetune.py --corpus heart.corpus

Source of the loop: Huang et al. 2024, Segment Anything Model for Medical Images?,
doi:10.1016/j.media.2023.103061, and its released train_only_box.py.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from promptseg.corpus import Corpus, open_corpus
from promptseg.corpus_writer import CorpusWriter
from promptseg.memory import keep_freed_memory
from promptseg.metric import dice
from promptseg.model import masks_at
from promptseg.models import MODELS
from promptseg.models.litemedsam import SIDE, LiteMedSamSegmenter, load, resized_hw
from promptseg.pixels import encode_image
from promptseg.rows import ImageRow, target_row
from promptseg.sample import Sample, Target, regroup
from promptseg.strategy import tight_box
from promptseg.tuning.board import Board
from promptseg.tuning.run import Job, finetune, make_accelerator
from promptseg.tuning.settings import PRESETS
from promptseg.tuning.split import Division, split_corpora
from promptseg.tuning.training import Stepped
from promptseg.weights import fetch

PAPER = PRESETS["paper"]
ALL_TRAIN = Division(test_share=0, val_share=0)
HEIGHT, WIDTH, N_IMAGES = 512, 440, 24
WARM_UP = 2  # steps that are not measured
GOAL = 3.0  # times as many steps a second


@dataclass(frozen=True, slots=True)
class Course:
    """What one process saw: speed, mean loss of the first and the last epoch, DICE afterwards."""

    steps_per_s: float
    first_loss: float
    last_loss: float
    dice: float


def draw(index: int) -> tuple[UInt8[np.ndarray, "h w"], dict[str, Bool[np.ndarray, "h w"]]]:
    """Draw a heart of a sort: a cavity, the ring around it, and a crescent beside it."""
    rng = np.random.default_rng(index)
    y, x = np.ogrid[:HEIGHT, :WIDTH]
    cy, cx = rng.uniform(220, 290), rng.uniform(200, 260)
    inner, outer = rng.uniform(25, 40), rng.uniform(52, 70)
    from_centre = np.hypot(y - cy, x - cx)
    beside = np.hypot((y - cy) / 1.2, x - cx + outer) <= outer
    masks = {
        "cavity": from_centre <= inner,
        "wall": (from_centre > inner) & (from_centre <= outer),
        "crescent": beside & (from_centre > outer),
    }
    grey = rng.normal(90, 18, (HEIGHT, WIDTH))
    for mask, step in zip(masks.values(), (60, -30, 50), strict=True):
        grey = grey + step * mask
    return np.clip(grey, 0, 255).astype(np.uint8), masks


def write_corpus(path: Path) -> None:
    """Write the drawings as a corpus."""
    writer = CorpusWriter(path)
    for index in range(N_IMAGES):
        image, masks = draw(index)
        image_id, content = f"drawn/{index:04d}", encode_image(image)
        row = ImageRow(
            image_id=image_id,
            dataset="drawn",
            subject=f"s{index // 2}",
            modality="MR",
            width=WIDTH,
            height=HEIGHT,
            intensity_rule="none",
            intensity_lo=0,
            intensity_hi=255,
            source=f"images/{index:04d}.png",
            sha256=hashlib.sha256(content).hexdigest(),
        )
        targets = [Target(f"{image_id}#{name}", name, mask) for name, mask in masks.items()]
        writer.add(row, content, [target_row(image_id, target) for target in targets])
    writer.finish(name="drawn", datasets=[], rules={})


def samples_of(corpus: Corpus) -> Iterator[tuple[Sample, list[np.ndarray]]]:
    """Yield the images that are trained on, with the masks of their targets."""
    ids = split_corpora((corpus,), ALL_TRAIN).ids("train", 0)
    for group in corpus.groups_of(ids):
        for sample in corpus.read(group):
            if isinstance(sample, Sample) and sample.image_id in ids:
                masks = [t.mask for t in regroup(sample.targets, PAPER.unit) if t.mask.any()]
                if masks:
                    yield sample, masks


def write_archives(corpus: Corpus, model: LiteMedSamSegmenter, folder: Path) -> None:
    """Write an archive per image: its embedding and masks, compressed as the study's are."""
    folder.mkdir()
    for number, (sample, masks) in enumerate(samples_of(corpus)):
        with torch.no_grad():
            features = model.encoder(model.pixels(sample.image))[0].cpu().numpy()
        np.savez_compressed(
            folder / f"{number:05d}.npz", features=features, masks=np.stack(masks).astype(np.uint8)
        )


class Archives(Dataset[dict[str, Tensor]]):
    """The archives of a folder, with the closed boxes of all masks on the model's canvas."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.npz"))

    def __len__(self) -> int:
        """Count them."""
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Read one: features (256, 64, 64), masks (b, h, w), boxes (b, 4)."""
        with np.load(self.paths[index]) as kept:
            features, masks = kept["features"], kept["masks"]
        boxes = []
        for mask in masks:
            y, x = np.nonzero(mask)
            boxes.append([x.min(), y.min(), x.max(), y.max()])
        boxes_xyxy = torch.tensor(np.array(boxes), dtype=torch.float32)
        return {
            "features": torch.from_numpy(features),
            "masks": torch.from_numpy(masks).float(),
            "boxes": boxes_xyxy * (SIDE / max(masks.shape[1:])),
        }


def plain_loss(logits: Float[Tensor, "b h w"], masks: Float[Tensor, "b h w"]) -> Float[Tensor, ""]:
    """Add cross-entropy, and 1 - DICE whose denominator has squares."""
    p = torch.sigmoid(logits)
    both, squares = (p * masks).sum((1, 2)), (p.square() + masks.square()).sum((1, 2))
    overlap = (2 * both + 1e-5) / (squares + 1e-5)
    return (1 - overlap).mean() + F.binary_cross_entropy_with_logits(logits, masks)


def plain_image(head: Any, record: dict[str, Tensor]) -> Float[Tensor, ""]:
    """Give the loss of one image: all its boxes in one call of transformers' decoder."""
    device = next(head.parameters()).device
    record = {name: value.to(device) for name, value in record.items()}
    with torch.no_grad():
        sparse, dense = head.prompt_encoder(None, None, record["boxes"][None], None)
        positions = head.image_positions()
    logits = head.mask_decoder(
        image_embeddings=record["features"][None],
        image_positional_embeddings=positions,
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=False,
    )[0][0]
    image_hw = (record["masks"].shape[1], record["masks"].shape[2])
    height, width = resized_hw(image_hw)
    whole = F.interpolate(
        logits[..., :height, :width], image_hw, mode="bilinear", align_corners=False
    )
    return plain_loss(whole[:, 0], record["masks"])


def plain_steps(
    model: LiteMedSamSegmenter, folder: Path, epochs: int, workers: int
) -> Iterator[float]:
    """Train the plain way, and yield the loss of every step."""
    torch.manual_seed(0)
    loader = DataLoader(
        Archives(folder / "archives"),
        batch_size=PAPER.batch_size,
        shuffle=True,
        num_workers=workers,
        collate_fn=list,
    )
    parameters = list(model.head.mask_decoder.parameters())
    optimizer = torch.optim.AdamW(
        parameters, lr=PAPER.learning_rate, weight_decay=PAPER.weight_decay
    )
    for _ in range(epochs):
        for batch in loader:
            losses = [plain_image(model.head, record) for record in batch]
            loss = torch.stack(losses).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            yield loss.item()


def our_steps(
    model: LiteMedSamSegmenter, corpus: Corpus, folder: Path, epochs: int
) -> Iterator[float]:
    """Train as the command does, its curves included, and yield the loss of every step."""
    out = Path(tempfile.mkdtemp(dir=folder))
    job = Job(
        corpora=(corpus,),
        model=model,
        asked="litemedsam",
        name="tuned",
        settings=replace(PAPER, epochs=epochs, overfit_steps=0),
        division=ALL_TRAIN,
        folder=out,
    )
    with Board(out / "log") as board:
        for happened in finetune(job, make_accelerator(model.device.type)):
            if isinstance(happened, Stepped):
                board.add(happened, happened.step)
                yield happened.log.loss


def score(model: LiteMedSamSegmenter, folder: Path) -> float:
    """Give the mean DICE of the tight boxes of all targets, by the single-mask token."""
    found: list[float] = []
    for path in sorted((folder / "archives").glob("*.npz")):
        with np.load(path) as kept:
            features, masks = kept["features"], kept["masks"] > 0
        image_hw = (masks.shape[1], masks.shape[2])
        maps = torch.from_numpy(features)[None].to(model.device)
        embedding = model.embedding(maps, image_hw)
        answers = model.segment(embedding, [tight_box(mask) for mask in masks])
        for answer, mask in zip(answers, masks, strict=True):
            found.append(dice(masks_at(answer, image_hw)[0], mask))
    return float(np.mean(found))


def run_side(given: argparse.Namespace) -> Course:
    """Train one side in this process, and measure it after its first steps."""
    model, corpus = load(weights=given.weights, device=given.device), open_corpus(given.corpus)
    if given.side == "ours":
        steps = our_steps(model, corpus, given.folder, given.epochs)
    else:
        steps = plain_steps(model, given.folder, given.epochs, given.workers)
    losses, stamps = [], []
    for loss in steps:
        losses.append(loss)
        stamps.append(time.perf_counter())
    each = len(losses) // given.epochs
    return Course(
        steps_per_s=(len(losses) - WARM_UP) / (stamps[-1] - stamps[WARM_UP - 1]),
        first_loss=statistics.mean(losses[:each]),
        last_loss=statistics.mean(losses[-each:]),
        dice=score(model, given.folder),
    )


def in_process_of_its_own(side: str, given: argparse.Namespace) -> Course:
    """Run one side afresh, and read what it saw."""
    command = [sys.executable, __file__, "--side", side]
    if side == "ours":  # as the command does, before PyTorch is imported
        own_start = f"import runpy; from {keep_freed_memory.__module__} import keep_freed_memory; "
        run_this = f"keep_freed_memory(); runpy.run_path({__file__!r}, run_name='__main__')"
        command = [sys.executable, "-c", own_start + run_this, "--side", side]
    for name in ("corpus", "folder", "weights", "epochs", "workers", "device"):
        command += [f"--{name}", str(getattr(given, name))]
    own = {"OMP_NUM_THREADS": str(given.threads), "PROMPTSEG_CACHE": str(given.folder / "cache")}
    done = subprocess.run(
        command, env=os.environ | own, stdout=subprocess.PIPE, check=True, text=True
    )
    return Course(**json.loads(done.stdout.splitlines()[-1]))


def compare(given: argparse.Namespace) -> None:
    """Run both sides in turn, and print every run, the medians and their ratio."""
    seen: dict[str, list[Course]] = {"ours": [], "plain": []}
    for _ in range(given.pairs):
        for side, courses in seen.items():
            course = in_process_of_its_own(side, given)
            courses.append(course)
            print(
                f"{side:5s} {course.steps_per_s:6.3f} steps/s; "
                f"loss {course.first_loss:.3f} -> {course.last_loss:.3f}; "
                f"DICE {course.dice:.4f}",
                flush=True,
            )
    median = {name: statistics.median(c.steps_per_s for c in seen[name]) for name in seen}
    ratios = [o.steps_per_s / p.steps_per_s for o, p in zip(*seen.values(), strict=True)]
    for name, value in median.items():
        print(f"{name:5s} median {value:.3f} steps/s")
    print(
        f"ratio of medians {median['ours'] / median['plain']:.2f}, of pairs "
        f"{min(ratios):.2f} to {max(ratios):.2f}; the goal is {GOAL:g}"
    )


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, help="one made by curate; else drawn images")
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=0, help="of the plain loop's DataLoader")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    for name in ("--side", "--folder", "--weights"):
        hidden = str if name == "--side" else Path
        parser.add_argument(name, type=hidden, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Prepare what both sides need, and compare them; or be one side."""
    given = arguments()
    if given.side:
        print(json.dumps(asdict(run_side(given))))
        return
    if given.pairs < 1 or given.epochs < 2:
        raise SystemExit("One pair and two epochs are the least that says anything.")
    with tempfile.TemporaryDirectory() as folder:
        given.folder = Path(folder)
        given.weights = fetch(MODELS["litemedsam"].weights)
        if given.corpus is None:
            given.corpus = given.folder / "drawn.corpus"
            write_corpus(given.corpus)
        model = load(weights=given.weights)
        write_archives(open_corpus(given.corpus), model, given.folder / "archives")
        print(f"DICE {score(model, given.folder):.4f} before training", flush=True)
        compare(given)


if __name__ == "__main__":
    main()
