"""Corpora made by code: every image tells its answer, so that fakes can know it."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from promptseg.corpus import Corpus, open_corpus
from promptseg.corpus_writer import CorpusWriter
from promptseg.pixels import encode_image
from promptseg.rows import ImageRow, target_row
from promptseg.sample import Target

BACKGROUND, FIRST_OBJECT = 40, 150
OBJECTS = ("disc", "bar")


def disc(height: int, width: int, centre_yx: tuple[float, float], radius: float) -> np.ndarray:
    """Draw a filled circle."""
    y, x = np.ogrid[:height, :width]
    return (y - centre_yx[0]) ** 2 + (x - centre_yx[1]) ** 2 <= radius**2


def phantom(index: int) -> tuple[UInt8[np.ndarray, "h w"], dict[str, Bool[np.ndarray, "h w"]]]:
    """Draw image number `index`: a disc of grey 150 and a bar of grey 151, which do not touch."""
    height, width = 64 + index % 5, 80 - index % 7
    masks = {
        "disc": disc(height, width, (20 + index % 4, 24 + index % 3), 9 + index % 5),
        "bar": np.zeros((height, width), dtype=bool),
    }
    masks["bar"][44 : 52 + index % 6, 30 : 60 + index % 9] = True
    image = np.full((height, width), BACKGROUND, dtype=np.uint8)
    image[0, 0] = index % 251  # no two images are alike
    for value, mask in enumerate(masks.values(), start=FIRST_OBJECT):
        image[mask] = value
    return image, masks


def write_phantoms(
    path: Path,
    order: Iterable[int],
    *,
    spacing_mm: float | None = None,
    subjects: int | None = 6,
) -> Corpus:
    """Write phantoms as a corpus, in any order; image i belongs to subject i modulo `subjects`."""
    with_path = CorpusWriter(path)
    for index in order:
        image, masks = phantom(index)
        image_id = f"phantom/{index:04d}"
        content = encode_image(image)
        row = ImageRow(
            image_id=image_id,
            dataset="phantom",
            subject=None if subjects is None else f"s{index % subjects}",
            modality="CT",
            width=image.shape[1],
            height=image.shape[0],
            spacing_y_mm=spacing_mm,
            spacing_x_mm=spacing_mm,
            intensity_rule="none",
            intensity_lo=0,
            intensity_hi=255,
            source=f"images/{index:04d}.png",
            sha256=hashlib.sha256(content).hexdigest(),
        )
        targets = [
            target_row(image_id, Target(f"{image_id}#{name}", name, mask))
            for name, mask in masks.items()
        ]
        with_path.add(row, content, targets)
    with_path.finish(name="phantom", datasets=[], rules={})
    return open_corpus(path)


def write_discs(
    path: Path,
    count: int,
    *,
    grey: int,
    subjects: int = 6,
    split: Iterable[str | None] = (),
    empty: int = 0,
    black: bool = False,
) -> Corpus:
    """Write noisy images of one disc of a grey value; the background is 110 grey.

    What a model has to learn is which side of the background the object is on. Image i belongs to
    subject i modulo `subjects`, and to the i-th split; the first `empty` images have no
    target, and are alike where they are `black`.
    """
    writer, splits = CorpusWriter(path), list(split)
    for index in range(count):
        rng = np.random.default_rng(1000 * grey + index)
        height, width = 40 + index % 9, 60 - index % 7
        mask = disc(height, width, (rng.uniform(14, 26), rng.uniform(16, 42)), rng.uniform(6, 10))
        noisy = rng.normal(110, 12, (height, width)) + (grey - 110) * mask
        image = np.clip(noisy, 0, 255).astype(np.uint8)
        if black and index < empty:
            image = np.zeros((40, 60), np.uint8)
            height, width = image.shape
        image_id, content = f"discs{grey}/{index:04d}", encode_image(image)
        row = ImageRow(
            image_id=image_id,
            dataset=f"discs{grey}",
            subject=f"s{index % subjects}",
            modality="CT",
            width=width,
            height=height,
            intensity_rule="none",
            intensity_lo=0,
            intensity_hi=255,
            split=splits[index] if splits else None,
            source=f"images/{index:04d}.png",
            sha256=hashlib.sha256(content).hexdigest(),
        )
        targets = [target_row(image_id, Target(f"{image_id}#disc", "disc", mask))]
        writer.add(row, content, [] if index < empty else targets)
    writer.finish(name=path.stem, datasets=[], rules={})
    return open_corpus(path)
