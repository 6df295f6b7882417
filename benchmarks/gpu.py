"""How long LiteMedSAM takes on a GPU, and how far its answers are from those of the CPU.

python benchmarks/gpu.py

In float32, with convolutions in TF32 as PyTorch has them by itself, and with the encoder in half
precision.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch

from promptseg.model import Candidates
from promptseg.models.litemedsam import LiteMedSamSegmenter, load
from promptseg.prompt import Box

WAYS = (("float32", False), ("float32", True), ("bfloat16", False), ("float16", False))
COMPARED = 8  # boxes


def image() -> np.ndarray:
    """Draw noise that is brighter to the right, (300, 400, 3)."""
    grey = np.random.default_rng(0).normal(60, 20, (300, 400)) + np.linspace(0, 100, 400)
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def features(model: LiteMedSamSegmenter) -> torch.Tensor:
    """Encode the image, and bring the result to the CPU."""
    with torch.inference_mode():
        made: torch.Tensor = model.encoder(model.pixels(image())).float().cpu()
    return made


def milliseconds(work: Callable[[], object], repeats: int) -> float:
    """Give the median time of a piece of work, whose result is on the CPU or waited for."""
    times = []
    for number in range(repeats + 2):
        begun = time.perf_counter()
        work()
        if number > 1:
            times.append(time.perf_counter() - begun)
    return 1000 * statistics.median(times)


def apart(ours: Sequence[Candidates], theirs: Sequence[Candidates]) -> float:
    """Give the largest distance between logits, in standard deviations."""
    pairs = zip(ours, theirs, strict=True)
    return max(float(np.abs(o.logits - t.logits).max() / t.logits.std()) for o, t in pairs)


def main() -> None:
    """Print a line for every way to compute."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--boxes", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=20)
    given = parser.parse_args()
    boxes = [Box(10 + n % 90, 10 + n % 90, 200 + n % 90, 150 + n % 90) for n in range(given.boxes)]
    here = load()
    exact = features(here)
    answers = here.segment(here.embed([image()])[0], boxes[:COMPARED])
    for dtype, tf32 in WAYS:
        there = load(device=given.device, dtype=dtype)
        torch.backends.cudnn.allow_tf32 = tf32
        off = float((features(there) - exact).norm() / exact.norm())
        (embedding,) = there.embed([image()])
        logits = apart(there.segment(embedding, boxes[:COMPARED]), answers)
        work = (
            partial(there.embed, [image()]),
            partial(there.segment, embedding, boxes[:1]),
            partial(there.segment, embedding, boxes),
        )
        times = [milliseconds(piece, given.repeats) for piece in work]
        print(
            f"{dtype + (', TF32' if tf32 else ''):15} embedding off by {off:.2g} of its norm, "
            f"logits by {logits:.2g} sd; embed {times[0]:.1f} ms, a box {times[1]:.1f} ms, "
            f"{len(boxes)} boxes {times[2]:.1f} ms",
            flush=True,
        )


if __name__ == "__main__":
    main()
