"""Evaluate images by a fake model into a run, and print how much more is held at their end.

python tests/flat_memory.py FOLDER N_IMAGES LEAK, where LEAK is nothing, tensor or array: what the
model keeps of every image. A process of its own, in which nothing else allocates.
"""

import gc
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import fakes
import numpy as np
import torch
from phantom import write_phantoms

from promptseg.corpus import Corpus, RowGroup
from promptseg.memory import peak_bytes
from promptseg.model import Candidates
from promptseg.plan import Plan
from promptseg.prompt import Prompt
from promptseg.record import start_run
from promptseg.run import describe_run, evaluate_corpus
from promptseg.sample import Sample, Target
from promptseg.strategy import STRATEGIES

PER_PART = 100
SETTLED = 500  # images until every import, cache and pool is there
BOX = Plan((STRATEGIES["box"],), selections=("single",), save_masks="none")
MASK = np.zeros((12, 12), dtype=bool)
MASK[3:9, 4:8] = True


class Drawn(Corpus):
    """A loader that draws its images, as many as are asked for, in row groups of a hundred."""

    __slots__ = ()

    def row_groups(self) -> list[RowGroup]:
        """List them."""
        return [RowGroup(0, index, PER_PART) for index in range(self.info.n_images // PER_PART)]

    def read(self, group: RowGroup, targets: object = None) -> Iterator[Sample]:
        """Draw the images of one."""
        for number in range(group.index * PER_PART, (group.index + 1) * PER_PART):
            image = np.repeat(100 * MASK[:, :, None].astype(np.uint8), 3, axis=2)
            target = Target(f"{number}#disc", "disc", MASK.copy())
            yield Sample(str(number), image, "drawn", "CT", (target,))


class Model(fakes.Fake):
    """A model whose embeddings are tensors, and that may keep something of every image."""

    leak = "nothing"
    kept: list[object] = []  # noqa: RUF012 - the planted fault

    def embed(self, images: Sequence[fakes.Image]) -> list[torch.Tensor]:
        """Hand the images on."""
        if self.leak == "array":
            self.kept.extend(image[0].copy() for image in images)
        embeddings = [torch.from_numpy(image.copy()) for image in images]
        if self.leak == "tensor":
            self.kept.extend(embedding[0, 0].clone() for embedding in embeddings)
        return embeddings

    def segment(self, embedding: torch.Tensor, prompts: Sequence[Prompt]) -> list[Candidates]:
        """Answer with the box."""
        return fakes.Fake.segment(self, embedding.numpy(), prompts)


def held() -> dict[str, int]:
    """Count live tensors, the blocks of memory that Python's objects take, and the peak so far."""
    gc.collect()
    tensors = sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())
    return {"tensors": tensors, "blocks": sys.getallocatedblocks(), "peak": peak_bytes()}


def growth(folder: Path, n_images: int, leak: str) -> dict[str, int]:
    """Evaluate so many images; tell what is held more after the last part but one than early."""
    torch.set_num_threads(1)
    model = Model("model", fakes.filled_box)
    model.leak = leak
    small = write_phantoms(folder / "c", range(1))
    run = start_run(folder / "r", describe_run(small, {"fakes:model": model}, BOX))
    corpus = Drawn(small.path, replace(small.info, n_images=n_images))
    looks = [
        held()
        for number, _ in enumerate(evaluate_corpus(corpus, run, {"fakes:model": model}, BOX))
        if number in (SETTLED + 1, n_images - PER_PART + 1)  # both at the second image of a part
    ]
    assert len(list((folder / "r/records").iterdir())) == n_images // PER_PART
    before, after = looks
    return {name: after[name] - before[name] for name in before}


if __name__ == "__main__":
    print(json.dumps(growth(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])))
