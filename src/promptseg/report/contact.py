"""The contact sheet of a corpus: for every task some images with the reference drawn in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from promptseg.corpus import Corpus, part_paths
from promptseg.inventory import Inventory
from promptseg.parquet import write_atomically
from promptseg.report.gallery import samples
from promptseg.report.picture import Drawing, draw
from promptseg.report.template import template
from promptseg.sample import Sample, Unreadable, task_name
from promptseg.subset import Choice, choose_subset

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Shown:
    """One target: what it is called, whose it is, and its picture, or why there is none."""

    target_id: str
    subject: str | None
    split: str | None
    area_px: int | None = None
    drawing: Drawing | None = None
    remark: str | None = None


@dataclass(frozen=True, slots=True)
class Sheet:
    """One task with so many of its targets."""

    task: str
    n_targets: int
    shown: tuple[Shown, ...]


def write_contact_sheet(
    corpus: Corpus,
    inventory: Inventory,
    out: Path,
    *,
    per_task: int = 12,
    drawn: Callable[[int], None] = lambda done: None,
) -> Path:
    """Write one HTML page that shows targets of every task, spread over subjects and volumes.

    Parameters
    ----------
    per_task
        How many targets of a task are shown.
    drawn
        Is told after every task how many are done.

    Raises
    ------
    DataError
        The corpus is damaged, or the page cannot be written.
    """
    chosen = choose_subset(corpus, Choice(per_task=per_task), unit="instance")
    task_of = _tasks(corpus, chosen.targets)
    sheets = []
    for done, row in enumerate(inventory.tasks, start=1):
        own = [target_id for target_id, task in task_of.items() if task == row["task"]]
        sheets.append(Sheet(row["task"], row["targets"], _shown(corpus, own)))
        drawn(done)
    page = template(HERE / "contact.html.jinja", size=size_in_words).render(
        inventory=inventory, sheets=sheets, per_task=per_task
    )
    write_atomically(out, page.encode())
    return out


def size_in_words(n_bytes: int) -> str:
    """Write a number of bytes."""
    size, unit = float(n_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.3g} {unit}"


def _tasks(corpus: Corpus, targets: Mapping[str, frozenset[str]]) -> dict[str, str]:
    chosen = sorted(name for names in targets.values() for name in names)
    rows = (
        pl.scan_parquet(part_paths(corpus.path, "targets"), glob=False)
        .filter(pl.col("target_id").is_in(chosen))
        .select("target_id", "object", "image_id")
        .join(
            pl.scan_parquet(part_paths(corpus.path, "images"), glob=False).select(
                "image_id", "modality"
            ),
            on="image_id",
        )
        .collect()
    )
    return {
        row["target_id"]: task_name(row["object"], row["modality"])
        for row in rows.sort("target_id").iter_rows(named=True)
    }


def _shown(corpus: Corpus, target_ids: list[str]) -> tuple[Shown, ...]:
    image_of = {name: name.rpartition("#")[0] for name in target_ids}
    splits = dict(
        pl.scan_parquet(part_paths(corpus.path, "images"), glob=False)
        .filter(pl.col("image_id").is_in(sorted(set(image_of.values()))))
        .select("image_id", "split")
        .collect()
        .iter_rows()
    )
    found = samples(corpus, set(image_of.values()))
    return tuple(
        _drawn(Shown(name, found[image].subject, splits[image]), found[image])
        for name, image in image_of.items()
    )


def _drawn(shown: Shown, sample: Sample | Unreadable) -> Shown:
    if isinstance(sample, Unreadable):
        return replace(shown, remark=f"This image cannot be read: {sample.reason}")
    mask = next(t.mask for t in sample.targets if t.target_id == shown.target_id)
    drawing = draw(sample.image, mask, None, None)
    return replace(shown, area_px=int(mask.sum()), drawing=drawing)
