"""The targets that gained and lost most, drawn before and after."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool

from promptseg.corpus import Corpus
from promptseg.errors import DataError
from promptseg.mask import from_rle
from promptseg.paired import pairs_of
from promptseg.prompt import Everything, Prompt, from_json
from promptseg.record import RunFolder
from promptseg.report.gallery import DAMAGED, PROMPTLESS, find_corpus, samples
from promptseg.report.picture import Drawing, draw, outline
from promptseg.sample import Sample, Unit, Unreadable, regroup
from promptseg.tuning.page_story import Story

MOST = 4  # of either kind

Mask = Bool[np.ndarray, "h w"]
Key = tuple[str, str | None, int | None]  # model, prompt, mask


@dataclass(frozen=True, slots=True)
class Shown:
    """One target: its pair of records, and its two pictures if it has them."""

    record: Mapping[str, Any]
    before: Drawing | None = None
    after: Drawing | None = None
    remark: str | None = None


@dataclass(frozen=True, slots=True)
class Pictures:
    """What gained and what lost most, under one strategy and selection."""

    strategy: str
    selection: str
    of_trained: bool  # of the tasks that were trained on, and of no others
    gained: tuple[Shown, ...]
    lost: tuple[Shown, ...]
    problems: tuple[str, ...]


def pictures(story: Story, corpora: Mapping[str, Corpus]) -> Pictures | None:
    """Choose and draw targets of the tasks trained on, or where there are none, of the others.

    At most one target of a subject and task is shown. None where nothing has a pair.
    """
    cells = story.led()
    if not cells:
        return None
    trained = [cell for cell in cells if story.is_trained(cell.group.task)]
    wanted = trained or cells
    lead = min(wanted, key=story.place).group
    pairs = pairs_of(story.records, story.comparison.before, story.comparison.after).filter(
        pl.col("strategy") == lead.strategy,
        pl.col("selection") == story.score,
        pl.col("jitter_mode").is_null(),
        pl.col("task").is_in([str(cell.group.task) for cell in wanted]),
        pl.col("difference").is_not_null(),
    )
    gained, lost = (list(_extreme(pairs, sign)) for sign in (1, -1))
    drawn: list[Shown] = []
    problems: dict[str, None] = {}
    for folder in story.runs:
        mine = [r for r in (*gained, *lost) if r["corpus"] == folder.run.corpus_fingerprint]
        done = {_identity(shown.record) for shown in drawn}
        mine = [record for record in mine if _identity(record) not in done]
        found = find_corpus(folder.run, corpora) if mine else None
        if isinstance(found, Corpus):
            try:
                drawn += _draw_all(mine, story, folder, found)
            except DataError as error:
                parent = f"{folder.path.absolute().parent}/"
                corpus = f"{found.path.absolute().parent}/"
                problems[str(error).replace(parent, "").replace(corpus, "")] = None
        elif found is not None:
            problems[found] = None
    by_identity = {_identity(shown.record): shown for shown in drawn}
    sides = [
        tuple(by_identity.get(_identity(record), Shown(record)) for record in side)
        for side in (gained, lost)
    ]
    return Pictures(
        strategy=lead.strategy,
        selection=story.score,
        of_trained=bool(trained),
        gained=sides[0],
        lost=sides[1],
        problems=tuple(problems),
    )


def _identity(record: Mapping[str, Any]) -> tuple[Any, ...]:
    return record["corpus"], record["image_id"], record["target_id"], record["protocol"]


def _extreme(pairs: pl.DataFrame, sign: int) -> Iterator[Mapping[str, Any]]:
    """Yield the pairs that changed most in one direction, one of each subject and task."""
    changed = pairs.filter(sign * pl.col("difference") > 0).sort(
        "difference", "image_id", "target_id", descending=[sign > 0, False, False]
    )
    who = pl.coalesce("subject", "image_id").alias("who")
    own = changed.unique(["dataset", who, "task"], keep="first", maintain_order=True)
    yield from own.head(MOST).iter_rows(named=True)


def _draw_all(
    records: Sequence[Mapping[str, Any]], story: Story, folder: RunFolder, corpus: Corpus
) -> list[Shown]:
    wanted = pl.col("prompt_id").is_in([r["prompt_id"] for r in records if r["prompt_id"]])
    masks: dict[Key, Mask] = {}
    prompts: dict[str, Prompt] = {}
    same = [f for f in story.runs if f.run.corpus_fingerprint == folder.run.corpus_fingerprint]
    try:
        for run in same:
            for row in run.masks().filter(wanted).iter_rows(named=True):
                masks[row["model"], row["prompt_id"], row["mask_index"]] = from_rle(row["mask"])
            for row in run.prompts().filter(wanted).iter_rows(named=True):
                asked = from_json(row["prompt"])
                if not isinstance(asked, Everything):  # which asks for no target
                    prompts[row["prompt_id"]] = asked
    except DAMAGED as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"a prompt or a mask of these runs is damaged ({reason}).") from error
    found = samples(corpus, {record["image_id"] for record in records})
    return [
        _shown(record, story, found.get(record["image_id"]), masks, prompts) for record in records
    ]


def _shown(
    record: Mapping[str, Any],
    story: Story,
    sample: Sample | Unreadable | None,
    masks: Mapping[Key, Mask],
    prompts: Mapping[str, Prompt],
) -> Shown:
    if not isinstance(sample, Sample):
        return Shown(record, remark="This image is not in the corpus, or cannot be read.")
    targets = {t.target_id: t for t in regroup(sample.targets, _unit(record["unit"]))}
    target = targets.get(record["target_id"])
    if target is None:
        return Shown(record, remark="This target is not in the corpus.")
    asked = record["prompt_id"]
    before = masks.get((story.comparison.before, asked, record["mask_before"]))
    after = masks.get((story.comparison.after, asked, record["mask_index"]))
    known = [mask for mask in (before, after) if mask is not None]
    if any(mask.shape != target.mask.shape for mask in known):
        return Shown(record, remark="A predicted mask has another size than the image.")
    union = np.logical_or.reduce(known) if known else None
    prompt = None if record["strategy"] in PROMPTLESS else prompts.get(asked)
    drawing = draw(sample.image, target.mask, union, prompt)
    return Shown(record, _with(drawing, before), _with(drawing, after), _remark(before, after))


def _unit(name: str) -> Unit:
    units: Mapping[str, Unit] = {"class": "class", "instance": "instance", "component": "component"}
    return units[name]


def _with(drawing: Drawing, mask: Mask | None) -> Drawing:
    """Put one prediction into a picture."""
    tolerance = drawing.window.side / 800
    return replace(drawing, prediction=None if mask is None else outline(mask, tolerance))


def _remark(before: Mask | None, after: Mask | None) -> str | None:
    sides = (("before", before), ("after", after))
    lacking = [side for side, mask in sides if mask is None]
    if not lacking:
        return None
    return f"There is no mask {' and '.join(lacking)}: it was not saved, or is empty."
