"""Peak memory of `promptseg evaluate`: by prompts of one image, by images, and by their size.

Every line is a fresh process: the real command with LiteMedSAM on drawn images, whose peak is the
whole process's (getrusage), torch and the weights among it.

python benchmarks/memory.py
"""

import argparse
import hashlib
import json
import math
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from promptseg.corpus_writer import CorpusWriter
from promptseg.pixels import encode_image
from promptseg.rows import ImageRow, target_row
from promptseg.sample import Target


@dataclass(frozen=True, slots=True)
class Case:
    """Images of one size, each with so many targets of one prompt each."""

    what: str
    images: int
    targets: int
    side: int


CASES = (
    Case("1 prompt", 1, 1, 512),
    Case("64 prompts", 1, 64, 512),
    Case("1,024 prompts", 1, 1024, 512),
    Case("8 images", 8, 1, 512),
    Case("32 images", 32, 1, 512),
    Case("128 images", 128, 1, 512),
    Case("a large image", 1, 4, 6000),
)


def write_corpus(path: Path, case: Case) -> None:
    """Draw images with a grid of squares, each an instance."""
    cells = math.ceil(math.sqrt(case.targets))
    step = case.side // cells
    writer = CorpusWriter(path)
    for number in range(case.images):
        rng = np.random.default_rng(number)
        image = rng.integers(0, 60, (case.side, case.side), dtype=np.uint8)
        image_id, targets = f"drawn/{number:04d}", []
        for index in range(case.targets):
            y, x = (step * place + step // 4 for place in divmod(index, cells))
            mask = np.zeros(image.shape, dtype=bool)
            mask[y : y + step // 2, x : x + step // 2] = True
            image[mask] += 100
            target = Target(f"{image_id}#square.{index}", "square", mask, index)
            targets.append(target_row(image_id, target))
        content = encode_image(image)
        row = ImageRow(
            image_id=image_id,
            dataset="drawn",
            subject=f"s{number}",
            modality="MR",
            width=case.side,
            height=case.side,
            intensity_rule="none",
            intensity_lo=0,
            intensity_hi=255,
            source=f"images/{number:04d}.png",
            sha256=hashlib.sha256(content).hexdigest(),
        )
        writer.add(row, content, targets)
    writer.finish(name="drawn", datasets=[], rules={})


def measure(folder: Path, case: Case) -> dict[str, float]:
    """Evaluate one corpus in a process of its own; return its profile."""
    corpus = folder / "corpus"
    write_corpus(corpus, case)
    command = [sys.executable, "-m", "promptseg", "evaluate", str(corpus), "--unit", "instance"]
    command += ["--out", str(folder / "run"), "--profile", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    profile: dict[str, float] = json.loads(done.stdout)["profile"]
    return profile


def main() -> None:
    """Print a line per case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", type=int, action="append", help="number of a case, from 0")
    given = parser.parse_args()
    print("| case | images | prompts | size | peak of the process |")
    print("|---|---|---|---|---|")
    for case in [CASES[number] for number in given.case] if given.case else CASES:
        with tempfile.TemporaryDirectory() as folder:
            profile = measure(Path(folder), case)
        print(
            f"| {case.what} | {case.images} | {case.images * case.targets} "
            f"| {case.side} x {case.side} px | {profile['peak_bytes'] / 2**20:.0f} MiB |",
            flush=True,
        )


if __name__ == "__main__":
    main()
