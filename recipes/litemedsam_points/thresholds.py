"""Choose the thresholds of everything on images that litemedsam-points was trained on.

python recipes/litemedsam_points/thresholds.py CORPUS... --model FOLDER --out FILE

One image of every corpus; every point of the grid is decoded once. Of the thresholds that leave a
mask on every image, and not more than 150, those count that lose least of the DICE which the
best of all candidates gives.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from promptseg.corpus import open_corpus
from promptseg.everything import overlaps, survivors
from promptseg.memory import keep_freed_memory
from promptseg.model import Candidates
from promptseg.models import load_model
from promptseg.prompt import Everything, Prompt, to_json
from promptseg.sample import Sample

GRID = 16  # points a side: what is chosen hardly depends on it
PRED_IOU = (0.2, 0.3, 0.4, 0.5, 0.6)
STABILITY = ((0.0, 1.0), (0.7, 1.0), (0.8, 1.0))
NMS = (0.7, 0.9)
FEWEST, MOST = 1, 150
ALL = Everything(points_per_side=GRID, pred_iou_thresh=0, stability_score_thresh=0)


@dataclass(slots=True)
class Remembering:
    """A model that decodes every prompt of an image once."""

    model: Any
    answers: dict[str, Candidates]

    def segment(self, embedding: Any, prompts: Sequence[Prompt]) -> list[Candidates]:
        """Answer from memory where it can."""
        names = [to_json(prompt) for prompt in prompts]
        new = [(n, p) for n, p in zip(names, prompts, strict=True) if n not in self.answers]
        if new:
            found = self.model.segment(embedding, [prompt for _, prompt in new])
            self.answers |= dict(zip((name for name, _ in new), found, strict=True))
        return [self.answers[name] for name in names]

    def __getattr__(self, name: str) -> Any:
        """Be the model in all else."""
        return getattr(self.model, name)


def choices() -> Iterator[Everything]:
    """List what is tried, after what rejects nothing."""
    yield replace(ALL, box_nms_thresh=1.0)
    for iou, (stability, offset), nms in product(PRED_IOU, STABILITY, NMS):
        yield replace(
            ALL,
            pred_iou_thresh=iou,
            stability_score_thresh=stability,
            stability_score_offset=offset,
            box_nms_thresh=nms,
        )


def first_image(path: Path) -> Sample:
    """Give the first image of a corpus that has targets."""
    corpus = open_corpus(path)
    for group in corpus.row_groups():
        for sample in corpus.read(group):
            if isinstance(sample, Sample) and sample.targets:
                return sample
    raise SystemExit(f"{path} has no image with a target")


def main() -> None:
    """Try all, print the table, and write what was chosen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path, nargs="+")
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, required=True)
    told = parser.parse_args()
    keep_freed_memory()
    model = load_model(told.model)
    tried = list(choices())
    counts, dice = np.zeros((2, len(tried), len(told.corpus)))
    for column, path in enumerate(told.corpus):
        sample = first_image(path)
        remembering = Remembering(model, {})
        (embedding,) = model.embed([sample.image])
        size_hw = (sample.image.shape[0], sample.image.shape[1])
        for row, settings in enumerate(tried):
            found = survivors(remembering, embedding, size_hw, settings, points_per_batch=64)
            table = overlaps(found, [target.mask for target in sample.targets])
            counts[row, column] = len(found.masks)
            dice[row, column] = table.max(axis=0).mean() if len(found.masks) else 0.0
        print(path.stem, counts[:, column].astype(int).tolist(), flush=True)
    allowed = (counts.min(1) >= FEWEST) & (counts.max(1) <= MOST)
    for settings, n, d, ok in zip(tried, counts, dice, allowed, strict=True):
        print(
            f"iou {settings.pred_iou_thresh} stability {settings.stability_score_thresh} "
            f"nms {settings.box_nms_thresh}: "
            f"{n.min():.0f} to {n.max():.0f} masks, oracle DICE {d.mean():.3f}"
            f"{'' if ok else ' (not allowed)'}"
        )
    if not allowed[1:].any():
        raise SystemExit("no thresholds leave a mask on every image and few enough on each")
    best = 1 + int(np.where(allowed[1:], dice[1:].mean(1), -1.0).argmax())
    chosen = asdict(tried[best])
    kept = ("pred_iou_thresh", "stability_score_thresh", "stability_score_offset", "box_nms_thresh")
    n, d = counts[best], dice[best].mean()
    source = (
        f"chosen on {len(told.corpus)} of its training images, by a grid of {GRID} x {GRID}: "
        f"{n.min():.0f} to {n.max():.0f} masks survive there, with an oracle DICE of {d:.3f} where "
        f"all candidates give {dice[0].mean():.3f} (recipes/litemedsam_points/thresholds.py)"
    )
    told.out.write_text(
        json.dumps({"everything": {k: chosen[k] for k in kept}, "source": source}, indent=2)
    )
    print(source)


if __name__ == "__main__":
    main()
