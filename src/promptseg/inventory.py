"""What is in a corpus: counts, tasks, subjects, splits, licences, drops, size, and duplicates."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Shaped

from promptseg.corpus import Corpus, part_paths
from promptseg.duplicates import Pair, Seen, pairs, seen_in
from promptseg.likeness import Look, look_of
from promptseg.pixels import decode_image

Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Inventory:
    """A corpus in numbers; a number of subjects is None where that of an image is unknown.

    `tasks` have task, targets, images, subjects, area_px (the median); `splits` split, images,
    subjects, targets; `datasets` dataset, licence, images; `drops` reason, number.
    """

    path: str
    name: str
    version: str
    fingerprint: str
    n_images: int
    n_targets: int
    n_drops: int
    n_subjects: int | None
    n_volumes: int
    n_bytes: int
    smallest_hw: tuple[int, int]  # by the number of pixels
    largest_hw: tuple[int, int]
    rules: dict[str, str]
    tasks: Rows
    splits: Rows
    datasets: Rows
    drops: Rows


_SUBJECTS = (
    pl.when(pl.col("subject").is_null().any())
    .then(None)
    .otherwise(pl.struct("dataset", "subject").n_unique())
    .alias("subjects")
)
_IMAGES = pl.col("image_id").n_unique().alias("images")


def take(corpus: Corpus) -> Inventory:
    """Count what a corpus holds; no image is decoded."""
    columns = ("image_id", "dataset", "subject", "modality", "volume_id", "width", "height")
    images = _read(corpus, "images", *columns, "split", "licence")
    targets = _read(corpus, "targets", "image_id", "object", "area_px")
    drops = _read(corpus, "drops", "reason")
    rows = targets.join(images, on="image_id").with_columns(
        task=pl.format("{} ({})", "object", "modality")
    )
    by_size = images.sort(pl.col("width") * pl.col("height"), maintain_order=True)
    sizes = by_size.select("height", "width").rows()
    return Inventory(
        path=str(corpus.path),
        name=corpus.info.name,
        version=corpus.info.version,
        fingerprint=corpus.info.fingerprint,
        n_images=images.height,
        n_targets=targets.height,
        n_drops=drops.height,
        n_subjects=images.select(_SUBJECTS).item(),
        n_volumes=images["volume_id"].drop_nulls().n_unique(),
        n_bytes=sum(path.stat().st_size for path in corpus.path.rglob("*") if path.is_file()),
        smallest_hw=sizes[0],
        largest_hw=sizes[-1],
        rules=corpus.info.rules,
        tasks=_grouped(rows, "task", pl.len().alias("targets"), _IMAGES, _SUBJECTS,
                       pl.col("area_px").median()),
        splits=_splits(images, rows),
        datasets=_grouped(images, "dataset", pl.col("licence").first(), _IMAGES, _SUBJECTS),
        drops=drops.with_columns(pl.col("reason").str.replace_all(r"\d+", "N"))
        .group_by("reason").len("number").sort(["number", "reason"], descending=[True, False])
        .to_dicts(),
    )  # fmt: skip


def _splits(images: pl.DataFrame, rows: pl.DataFrame) -> Rows:
    if images["split"].is_null().all():
        return []
    n_targets = dict(rows.group_by("split").len().rows())
    found = _grouped(images, "split", _IMAGES, _SUBJECTS)
    return [{**row, "targets": n_targets.get(row["split"], 0)} for row in found]


def _grouped(rows: pl.DataFrame, by: str, *counts: pl.Expr) -> Rows:
    return rows.group_by(by).agg(*counts).sort(by).to_dicts()


def _read(corpus: Corpus, kind: str, *columns: str) -> pl.DataFrame:
    paths = part_paths(corpus.path, kind)
    if not paths:
        return pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
    return pl.scan_parquet(paths, glob=False).select(columns).collect()


def duplicates(
    corpora: Sequence[Corpus], looked: Callable[[int], None] = lambda done: None
) -> Iterator[Pair]:
    """Yield the pairs of images that are in one corpus, or in several, more than once.

    Corpora that were curated before looks were kept have all their images decoded for it.

    Parameters
    ----------
    looked
        Is told after every image how many were looked at.
    """
    images: list[Seen] = []
    by_path = {str(corpus.path): corpus for corpus in corpora}
    for path, corpus in by_path.items():
        for image, look in _looked_at(corpus):
            images.append(seen_in(path, image, look))
            looked(len(images))

    def pixels(seen: Seen) -> Shaped[np.ndarray, "h w *rgb"]:
        own = _pictures(by_path[seen.corpus], pl.col("image_id") == seen.look.image_id)
        return next(own)[1]

    yield from pairs(images, pixels)


def _looked_at(corpus: Corpus) -> Iterator[tuple[dict[str, Any], Look]]:
    columns = ("image_id", "dataset", "subject", "volume_id", "split")
    images = _read(corpus, "images", *columns).iter_rows(named=True)
    kept = _read(corpus, "looks", *(field.name for field in fields(Look)))
    if kept.height:
        yield from zip(images, (Look(**row) for row in kept.iter_rows(named=True)), strict=True)
        return
    for image, (name, pixels) in zip(images, _pictures(corpus), strict=True):
        yield image, look_of(name, pixels)


def _pictures(
    corpus: Corpus, condition: pl.Expr | None = None
) -> Iterator[tuple[str, Shaped[np.ndarray, "h w *rgb"]]]:
    """Decode images of a corpus, part by part."""
    for path in part_paths(corpus.path, "images"):
        rows = pl.scan_parquet(path, glob=False).select("image_id", "sha256", "image")
        chosen = rows if condition is None else rows.filter(condition)
        for row in chosen.collect().iter_rows(named=True):
            yield row["image_id"], decode_image(row["image"]["bytes"], row["sha256"])
