"""How long 64 prompts of one image take our decoder, beside transformers' SamModel.

Both decode the same embedding with LiteMedSAM's weights, each in processes of its own, in turn:
ours as our commands start it, one prompt at a time and all four mask tokens; SamModel as its users
call it, with all 64 prompts in one call, and again in chunks, for boxes with the single mask and
for points with the multimask tokens. Told beside them is SamModel with our memory setting, which
is not its own. Results are compared: those tokens that SamModel gave.

python benchmarks/decoder.py
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from promptseg.everything import grid_points_xy
from promptseg.memory import keep_freed_memory
from promptseg.models import MODELS, load_model
from promptseg.models.litemedsam import EMBEDDING_SIDE, SIDE, LiteMedSamSegmenter, load
from promptseg.models.sam_decoder import renamed
from promptseg.prompt import Box, Points, Prompt
from promptseg.weights import fetch, load_state

GOAL = 3.0  # times as fast
PER_SIDE = 8  # of the grid: 64 prompts
KINDS = ("points", "boxes")
SIDES = ("ours", "whole", "chunks", "whole, our memory", "chunks, our memory")
ONE = np.array([True])


def image() -> np.ndarray:
    """Draw discs on noise, 256 px on each side so that no prompt is scaled."""
    rng = np.random.default_rng(0)
    y, x = np.ogrid[:SIDE, :SIDE]
    grey = rng.normal(70, 10, (SIDE, SIDE))
    for _ in range(12):
        cy, cx, radius = [*rng.uniform(20, 236, 2).tolist(), rng.uniform(8, 30)]
        grey[np.hypot(y - cy, x - cx) <= radius] += rng.uniform(30, 100)
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def prompts(kind: str) -> list[Prompt]:
    """Give 64 prompts on whole pixels."""
    grid = np.floor(grid_points_xy(PER_SIDE, (SIDE, SIDE)))
    if kind == "points":
        return [Points(xy[None], ONE) for xy in grid]
    rng = np.random.default_rng(1)
    corners = [(x, y, *rng.integers(6, 40, 4)) for x, y in grid.astype(int).tolist()]
    return [
        Box(int(max(0, x - w)), int(max(0, y - n)), int(min(SIDE, x + e)), int(min(SIDE, y + s)))
        for x, y, w, n, e, s in corners
    ]


def ours(model: LiteMedSamSegmenter, kind: str, features: Tensor) -> Callable[[], Any]:
    """Decode as our commands do, the part that is once per image included."""
    asked = prompts(kind)

    def decode() -> Any:
        embedding = model.embedding(features, (SIDE, SIDE))
        answers = model.segment(embedding, asked)
        tokens = [1, 2, 3] if kind == "points" else [0]
        logits = [answer.logits[tokens] for answer in answers]
        iou = [
            answer.predicted_iou[tokens] for answer in answers if answer.predicted_iou is not None
        ]
        return logits, iou

    return decode


def sam_model(weights: Path) -> Any:
    """Make transformers' SamModel with LiteMedSAM's weights behind an encoder that is not used."""
    from transformers import SamConfig, SamModel

    config = SamConfig(
        vision_config={
            "image_size": SIDE,
            "patch_size": SIDE // EMBEDDING_SIDE,
            "hidden_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "global_attn_indexes": [],
        },
        prompt_encoder_config={"image_size": SIDE, "patch_size": SIDE // EMBEDDING_SIDE},
        mask_decoder_config={"layer_norm_eps": 1e-5},
    )
    model = SamModel(config).eval()
    state = renamed(load_state(weights))
    head = {key: value for key, value in state.items() if not key.startswith("image_encoder.")}
    place = "prompt_encoder.shared_embedding.positional_embedding"
    head["shared_image_embedding.positional_embedding"] = head[place]
    missing, unexpected = model.load_state_dict(head, strict=False)
    if unexpected or any(not name.startswith("vision_encoder.") for name in missing):
        raise SystemExit(f"SamModel did not take the weights: {missing[:3]}, {unexpected[:3]}")
    return model


def theirs(model: Any, kind: str, features: Tensor, chunk: int) -> Callable[[], Any]:
    """Decode with SamModel, `chunk` prompts a call."""
    given: dict[str, Tensor] = {}
    if kind == "points":
        xy = np.concatenate([p.xy for p in prompts(kind) if isinstance(p, Points)])
        given["input_points"] = torch.from_numpy(xy).float()[None, :, None]
        given["input_labels"] = torch.ones(1, len(xy), 1, dtype=torch.int64)
    else:
        boxes = [[b.x0, b.y0, b.x1 - 1, b.y1 - 1] for b in prompts(kind) if isinstance(b, Box)]
        given["input_boxes"] = torch.tensor(boxes, dtype=torch.float32)[None]

    @torch.inference_mode()
    def decode() -> Any:
        logits, iou = list[np.ndarray](), list[np.ndarray]()
        for start in range(0, PER_SIDE**2, chunk):
            part = {key: value[:, start : start + chunk] for key, value in given.items()}
            multi = kind == "points"
            answer = model(image_embeddings=features, multimask_output=multi, **part)
            logits.extend(answer.pred_masks[0].numpy())
            iou.extend(answer.iou_scores[0].numpy())
        return logits, iou

    return decode


def run_side(given: argparse.Namespace) -> None:
    """Time one side in this process, and write what it found."""
    features: Float[Tensor, "1 256 64 64"] = torch.from_numpy(
        np.load(given.folder / "features.npy")
    )
    side = given.side
    if side == "ours" or side.endswith("our memory"):
        keep_freed_memory()
    if side == "ours":
        model = load_model("litemedsam")
        assert isinstance(model, LiteMedSamSegmenter)
        decode = ours(model, given.kind, features)
    else:
        chunk = given.chunk if side.startswith("chunks") else PER_SIDE**2
        decode = theirs(sam_model(given.weights), given.kind, features, chunk)
    logits, iou = decode()  # also warms up
    clock = time.process_time if given.cpu else time.perf_counter
    seconds = []
    for _ in range(given.repeats):
        start = clock()
        decode()
        seconds.append(clock() - start)
    np.savez(given.folder / f"{side}-{given.kind}.npz", logits=np.stack(logits), iou=np.stack(iou))
    print(json.dumps(seconds))


def in_process_of_its_own(side: str, kind: str, given: argparse.Namespace) -> list[float]:
    """Run one side afresh; seconds of every repetition."""
    command = [sys.executable, __file__, "--side", side, "--kind", kind]
    for name in ("folder", "weights", "chunk", "repeats"):
        command += [f"--{name}", str(getattr(given, name))]
    command += ["--cpu"] if given.cpu else []
    own = {"OMP_NUM_THREADS": str(given.threads)}
    done = subprocess.run(
        command, env=os.environ | own, stdout=subprocess.PIPE, check=True, text=True
    )
    seconds: list[float] = json.loads(done.stdout.splitlines()[-1])
    return seconds


def differences(folder: Path, side: str, kind: str) -> tuple[float, float, int]:
    """Largest differences of logits and of predicted IoU, and how many pixels change sides."""
    with np.load(folder / f"ours-{kind}.npz") as one, np.load(folder / f"{side}-{kind}.npz") as two:
        logits, others = one["logits"], two["logits"]
        changed = int(np.count_nonzero((logits > 0) != (others > 0)))
        apart = float(np.abs(logits - others).max())
        return apart, float(np.abs(one["iou"] - two["iou"]).max()), changed


def compare(given: argparse.Namespace) -> None:
    """Run all sides in turn, and print medians, ratios and differences."""
    for kind in given.kinds:
        seen: dict[str, list[float]] = {side: [] for side in given.sides}
        for _ in range(given.rounds):
            for side, seconds in seen.items():
                seconds.append(float(np.median(in_process_of_its_own(side, kind, given))))
                print(f"{kind:6s} {side:18s} {seconds[-1]:7.3f} s", flush=True)
        median = {side: float(np.median(seconds)) for side, seconds in seen.items()}
        for side, seconds in seen.items():
            ratios = [t / o for o, t in zip(seen["ours"], seconds, strict=True)]
            apart, iou, changed = differences(given.folder, side, kind)
            print(
                f"| {kind} | {side} | {median[side]:.3f} s | {median[side] / median['ours']:.2f} | "
                f"{min(ratios):.2f} to {max(ratios):.2f} | {apart:.1e} | {iou:.1e} | {changed} |"
            )
    print(f"Ratios are to ours; the goal is {GOAL:g}.")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3, help="in one process, after a warm-up")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu", action="store_true", help="tell CPU time: of use with one thread")
    parser.add_argument("--chunk", type=int, default=4, help="prompts a call of SamModel in chunks")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    for name in ("--side", "--kind", "--folder", "--weights"):
        hidden = Path if name in {"--folder", "--weights"} else str
        parser.add_argument(name, type=hidden, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Prepare what the sides share, and compare them; or be one side."""
    given = arguments()
    if given.side:
        run_side(given)
        return
    with tempfile.TemporaryDirectory() as folder:
        given.folder, given.weights = Path(folder), fetch(MODELS["litemedsam"].weights)
        model = load(weights=given.weights)
        with torch.inference_mode():
            features = model.encoder(model.pixels(image()))
        np.save(given.folder / "features.npy", features.numpy())
        compare(given)


if __name__ == "__main__":
    main()
