"""Curate volumes, and print how much more memory is held, and was at most, a slice.

python tests/flat_curation.py FOLDER N_SLICES WORKERS LEAK, where LEAK is nothing, row, array or
end: what is kept of every slice that is written, or put together for the corpus once all are. A
process of its own, in which nothing else allocates.
"""

import gc
import json
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from promptseg.corpus_writer import IMAGES_PER_PART, CorpusWriter
from promptseg.curation import Curation, curate

SHAPE = (32, 32, 64)
FILES_A_PART = IMAGES_PER_PART // SHAPE[2]
SETTLED = 2 * FILES_A_PART  # files until every import, cache and pool is there

kept: list[Any] = []


def write_volumes(folder: Path, count: int) -> None:
    """Write volumes that differ, with one label map for all."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    labels = np.zeros(SHAPE, np.uint8)
    labels[5:20, 7:30] = 1
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4) * 2), folder / "masks/v0000.nii")
    for number in range(count):
        values = np.random.default_rng(number).integers(0, 200, SHAPE, np.int16)
        nibabel.save(
            nibabel.Nifti1Image(values, np.eye(4) * 2), folder / f"images/v{number:04d}.nii"
        )
        if number:
            (folder / f"masks/v{number:04d}.nii").hardlink_to(folder / "masks/v0000.nii")


def plant(leak: str) -> None:
    """Make the writer keep something of every slice."""
    add, finish = CorpusWriter.add, CorpusWriter.finish

    def leaky_add(self: CorpusWriter, image: Any, content: bytes, *rest: Any) -> None:
        kept.append({"row": image, "array": np.zeros((32, 32), np.uint8)}[leak])
        add(self, image, content, *rest)

    def leaky_finish(self: CorpusWriter, **told: Any) -> Any:
        assert self.rows("images", ["image_id", "sha256"])
        return finish(self, **told)

    if leak in ("row", "array"):
        CorpusWriter.add = leaky_add  # type: ignore
    if leak == "end":
        CorpusWriter.finish = leaky_finish  # type: ignore[method-assign]


def growth(folder: Path, n_slices: int, workers: int, leak: str) -> dict[str, float]:
    """Curate; give bytes a slice: held more at the last part than early, and at most at the end."""
    n_files = n_slices // SHAPE[2]
    assert n_files % FILES_A_PART == 0  # so that no part is begun when it is looked
    write_volumes(folder / "data", n_files)
    plant(leak)
    settings = Curation(modality="CT", object_name="block")
    steps = curate(folder / "data", folder / "out", settings, workers=workers)
    looks: dict[int, int] = {}
    tracemalloc.start()
    for step in steps:
        if step.done in (SETTLED, n_files):
            gc.collect()
            looks[step.done], _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
    peak = tracemalloc.get_traced_memory()[1] - looks[n_files]
    between = n_slices - SETTLED * SHAPE[2]
    return {"held": (looks[n_files] - looks[SETTLED]) / between, "end": peak / n_slices}


if __name__ == "__main__":
    folder, n_slices, workers, leak = sys.argv[1:]
    print(json.dumps(growth(Path(folder), int(n_slices), int(workers), leak)))
