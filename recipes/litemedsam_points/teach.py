"""Label images by a teacher that knows boxes: masks that LiteMedSAM is sure of, as corpora.

python recipes/litemedsam_points/teach.py CORPUS... --out DIR

Random boxes are asked for; an answer counts when it fills its box as an object does, hardly changes
with the threshold, and comes out the same when it is asked for again by its own tight box. What is
kept teaches a student what a point on such an object means. Images need no masks.
"""

import argparse
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from scipy import ndimage

from promptseg.corpus import open_corpus
from promptseg.corpus_writer import CorpusWriter
from promptseg.mask import bounding_box_xyxy
from promptseg.memory import keep_freed_memory
from promptseg.metric import dice
from promptseg.model import Segmenter, logits_at
from promptseg.models import load_model
from promptseg.pixels import encode_image
from promptseg.prompt import Box
from promptseg.rows import ImageRow, target_row
from promptseg.sample import Sample, Target
from promptseg.strategy import tight_box

ASKED, KEPT = 80, 12  # boxes that are asked for, and masks that are kept, of an image
SURE = 0.5  # to either side of the threshold of the logits ...
STABLE = 0.8  # ... between which masks overlap by this IoU at least
IN_BOX = 0.5  # IoU of the box of an answer with the box asked for
SAME = 0.88  # DICE of the answers to a box and to the answer's own box
APART = 0.8  # masks of a higher DICE are one


def boxes(image_hw: tuple[int, int], rng: np.random.Generator) -> Iterator[Box]:
    """Draw boxes of any place, and of sizes and shapes spread evenly in their logarithm."""
    height, width = image_hw
    for _ in range(ASKED):
        side = np.exp(rng.uniform(np.log(0.06), np.log(0.7))) * min(image_hw)
        aspect = np.exp(rng.uniform(np.log(0.5), np.log(2.0)) / 2)
        w, h = min(side * aspect, width - 1), min(side / aspect, height - 1)
        x0, y0 = rng.uniform(0, width - w), rng.uniform(0, height - h)
        yield Box(np.floor(x0), np.floor(y0), np.ceil(x0 + w), np.ceil(y0 + h))


def answer(
    model: Segmenter, embedding: object, box: Box, image_hw: tuple[int, int]
) -> Float32[np.ndarray, "h w"]:
    """Give the logits of the single-mask token at the size of the image."""
    (candidates,) = model.segment(embedding, [box])
    single = candidates.logits[candidates.single][None]
    return logits_at(single, candidates.canvas, image_hw)[0]


def main_part(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Keep the largest piece of a mask."""
    labels, count = ndimage.label(mask)
    if count <= 1:
        return mask
    return labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])


def iou_of_boxes(a: Box, b: Box) -> float:
    """Compare two boxes."""
    w = max(0.0, min(a.x1, b.x1) - max(a.x0, b.x0))
    h = max(0.0, min(a.y1, b.y1) - max(a.y0, b.y0))
    areas = [(c.x1 - c.x0) * (c.y1 - c.y0) for c in (a, b)]
    return w * h / (sum(areas) - w * h)


def sure_mask(
    model: Segmenter, embedding: object, box: Box, image_hw: tuple[int, int]
) -> Bool[np.ndarray, "h w"] | None:
    """Ask for a box, and give the answer if the teacher is sure of it."""
    logits = answer(model, embedding, box, image_hw)
    mask = main_part(logits > 0)
    if bounding_box_xyxy(mask) is None or mask.sum() < 40:
        return None
    tight = tight_box(mask)
    fill = mask.sum() / ((tight.x1 - tight.x0) * (tight.y1 - tight.y0))
    surer, looser = (logits > SURE).sum(), (logits > -SURE).sum()
    if not 0.2 < fill < 0.95 or surer < STABLE * looser or iou_of_boxes(tight, box) < IN_BOX:
        return None
    again = main_part(answer(model, embedding, tight, image_hw) > 0)
    return again if dice(again, mask) >= SAME else None


def taught(model: Segmenter, sample: Sample) -> list[Bool[np.ndarray, "h w"]]:
    """Give the masks of an image that the teacher is sure of, each once."""
    digest = hashlib.sha256(sample.image_id.encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8]))
    image_hw = (sample.image.shape[0], sample.image.shape[1])
    (embedding,) = model.embed([sample.image])
    kept: list[Bool[np.ndarray, "h w"]] = []
    for box in boxes(image_hw, rng):
        mask = sure_mask(model, embedding, box, image_hw)
        if mask is not None and all(dice(mask, other) < APART for other in kept):
            kept.append(mask)
        if len(kept) == KEPT:
            break
    return kept


def row_of(sample: Sample, image: UInt8[np.ndarray, "h w 3"], content: bytes) -> ImageRow:
    """Describe an image anew; it stays the image of its subject."""
    return ImageRow(
        image_id=sample.image_id,
        dataset=sample.dataset,
        subject=sample.subject,
        modality=sample.modality,
        width=image.shape[1],
        height=image.shape[0],
        intensity_rule="none",
        intensity_lo=0,
        intensity_hi=255,
        source=sample.source or sample.image_id,
        sha256=hashlib.sha256(content).hexdigest(),
    )


def main() -> None:
    """Write one corpus of taught masks for each corpus."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    told = parser.parse_args()
    keep_freed_memory()
    model = load_model("litemedsam")
    for path in told.corpus:
        corpus = open_corpus(path)
        writer, count = CorpusWriter(told.out / path.name), 0
        for group in corpus.row_groups():
            for sample in corpus.read(group):
                if not isinstance(sample, Sample):
                    raise SystemExit(f"{sample.image_id}: {sample.reason}")
                masks = taught(model, sample)
                content = encode_image(sample.image)
                name = sample.image_id
                targets = [
                    target_row(name, Target(f"{name}#taught.{n}", "taught", mask, n))
                    for n, mask in enumerate(masks, start=1)
                ]
                writer.add(row_of(sample, sample.image, content), content, targets)
                count += len(masks)
        writer.finish(
            name=f"{corpus.info.name}, taught",
            datasets=corpus.info.datasets,
            rules={"targets": "masks that LiteMedSAM is sure of"},
        )
        print(f"{path.name}: {count} masks on {writer.n_images} images", flush=True)


if __name__ == "__main__":
    main()
