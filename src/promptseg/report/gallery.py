"""The gallery: the worst, the median and the best target of every task, as pictures."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool

from promptseg.corpus import Corpus, open_corpus, part_paths
from promptseg.errors import DataError
from promptseg.mask import from_rle
from promptseg.prompt import Everything, Prompt, from_json
from promptseg.record import Run, RunFolder
from promptseg.report.picture import Drawing, draw
from promptseg.report.table import Pool, Row
from promptseg.report.words import same_combination
from promptseg.sample import Sample, Unit, Unreadable, regroup
from promptseg.stats import COMBINATION, Group
from promptseg.stored import read_sample

MOST_TASKS = 12
EMPTY_MASK = "the mask is empty"
PROMPTLESS = ("everything", "masks")  # strategies without a prompt of a target
# what reading a prompt or a run length that is none raises, and a Parquet part with other columns
DAMAGED = (ValueError, TypeError, KeyError, AttributeError, pl.exceptions.PolarsError)


@dataclass(frozen=True, slots=True)
class Example:
    """One target of the gallery: its rank in the task, its record, and its picture if it has one.

    `remark` says what the picture lacks, or why there is none.
    """

    rank: str
    record: Mapping[str, Any]
    drawing: Drawing | None = None
    remark: str | None = None


@dataclass(frozen=True, slots=True)
class Gallery:
    """The examples by task, all of one model, strategy and selection (`group`)."""

    group: Group
    tasks: tuple[tuple[str, tuple[Example, ...]], ...]
    n_tasks: int  # of which those with the lowest mean DICE are shown
    n_left_out: int  # tasks of the report of which this combination has no value
    problems: tuple[str, ...] = ()


def gallery(
    pooled: Pool, rows: Sequence[Row], group: Group, corpora: Mapping[str, Corpus]
) -> Gallery:
    """Choose the examples of a model, strategy and selection, and draw them."""
    own = [row for row in rows if same_combination(row.group, group)]
    scored = [row for row in own if row.dice.value is not None]
    worst_first = sorted(scored, key=lambda row: (row.dice.value or 0.0, row.group.task or ""))
    tasks = [str(row.group.task) for row in worst_first[:MOST_TASKS]]
    chosen = {task: list(choose(pooled.records, group, task)) for task in tasks}
    everyone = [example for examples in chosen.values() for example in examples]
    drawn: dict[tuple[int, str], Example] = {}
    problems: list[str] = []
    for number, folder in enumerate(pooled.runs):
        mine = [example for example in everyone if example.record["run"] == number]
        found = find_corpus(folder.run, corpora) if mine else None
        try:
            if isinstance(found, Corpus):
                drawn |= {_key(example): example for example in _draw_all(mine, folder, found)}
            elif found is not None:
                problems.append(found)
        except DataError as error:
            reason = without_folders(str(error), folder.path, Path(folder.run.corpus_path))
            problems.append(f"No pictures of {folder.run.corpus}: {reason}")
    shown = tuple(
        (task, tuple(drawn.get(_key(example), example) for example in examples))
        for task, examples in chosen.items()
    )
    n_left_out = len({row.group.task for row in rows}) - len(scored)
    return Gallery(group, shown, len(scored), n_left_out, tuple(dict.fromkeys(problems)))


def without_folders(text: str, *paths: Path) -> str:
    """Leave of absolute paths the last name: a path may name its owner, and pages are shared."""
    for path in paths:
        text = text.replace(f"{path.absolute().parent}/", "") if path.name else text
    return text


def _key(example: Example) -> tuple[int, str]:
    return example.record["run"], f"{example.record['task']}\n{example.rank}"


def choose(records: pl.DataFrame, group: Group, task: str) -> Iterator[Example]:
    """Choose the worst, the median and the best scored target of a task by DICE.

    Of an even number the median is the lower of the two in the middle. Of two targets there is
    no median, and one is shown once.
    """
    same = [pl.col(name).eq_missing(pl.lit(getattr(group, name))) for name in COMBINATION]
    scored = records.filter(
        *same, pl.col("task") == task, pl.col("outcome") != "failed", pl.col("dice").is_not_null()
    ).sort("dice", "dataset", "image_id", "target_id", "seed")
    last = len(scored) - 1
    places = {"worst": 0, "median": last // 2, "best": last}
    ranks = {0: ["best"], 1: ["worst", "best"]}.get(last, ["worst", "median", "best"])
    for rank in ranks if last >= 0 else []:
        yield Example("only" if last == 0 else rank, scored.row(places[rank], named=True))


def find_corpus(run: Run, corpora: Mapping[str, Corpus]) -> Corpus | str:
    """Find the corpus of a run, or say why there are no pictures."""
    path = Path(run.corpus_path)
    lead = f"No pictures of {run.corpus}:"
    if run.corpus_path not in corpora and not path.exists():
        return (
            f"{lead} the corpus {path.name} is not where it was. Put it back there and write the "
            "report again."
        )
    try:
        corpus = corpora.get(run.corpus_path) or open_corpus(path)
    except DataError as error:
        return f"{lead} {without_folders(str(error), path)}"
    if corpus.info.fingerprint != run.corpus_fingerprint:
        return f"{lead} the corpus {path.name} has changed since the run (its fingerprint differs)."
    return corpus


def _draw_all(examples: Sequence[Example], folder: RunFolder, corpus: Corpus) -> Iterator[Example]:
    asked = {example.record["prompt_id"] for example in examples} - {None}
    wanted = pl.col("prompt_id").is_in(list(asked))
    try:
        read = {
            row["prompt_id"]: from_json(row["prompt"])
            for row in folder.prompts().filter(wanted).iter_rows(named=True)
        }
        # everything has no prompt of a target to be drawn
        prompts = {key: one for key, one in read.items() if not isinstance(one, Everything)}
        masks = {
            (row["model"], row["prompt_id"], row["mask_index"]): from_rle(row["mask"])
            for row in folder.masks().filter(wanted).iter_rows(named=True)
        }
    except DAMAGED as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"a prompt or a mask in {folder.path} is damaged ({reason}).") from error
    found = samples(corpus, {example.record["image_id"] for example in examples})
    for example in examples:
        record = example.record
        mask = masks.get((record["model_of_run"], record["prompt_id"], record["mask_index"]))
        sample = found.get(record["image_id"])
        yield _drawn(example, sample, folder.run.unit, mask, prompts.get(record["prompt_id"]))


def samples(corpus: Corpus, image_ids: set[str]) -> dict[str, Sample | Unreadable]:
    """Read some images of a corpus, with their targets, wherever they are stored."""
    wanted = pl.col("image_id").is_in(sorted(image_ids))
    try:
        images, targets = (
            pl.scan_parquet(part_paths(corpus.path, kind)).filter(wanted).collect()
            for kind in ("images", "targets")
        )
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{corpus.path} is damaged: {error}") from error
    by_image: dict[str, list[dict[str, Any]]] = {image_id: [] for image_id in image_ids}
    for target in targets.iter_rows(named=True):
        by_image[target["image_id"]].append(target)
    return {
        row["image_id"]: read_sample(row, by_image[row["image_id"]])
        for row in images.iter_rows(named=True)
    }


def _drawn(
    example: Example,
    sample: Sample | Unreadable | None,
    unit: str,
    prediction: Bool[np.ndarray, "h w"] | None,
    prompt: Prompt | None,
) -> Example:
    match sample:
        case None:
            return _without(example, "This image is not in the corpus.")
        case Unreadable(reason=reason):
            return _without(example, f"This image cannot be read: {reason}")
    targets = {target.target_id: target for target in regroup(sample.targets, shown_unit(unit))}
    target = targets.get(example.record["target_id"])
    if target is None:
        return _without(example, "This target is not in the corpus.")
    if prediction is not None and prediction.shape != target.mask.shape:
        return _without(example, "The predicted mask has another size than the image.")
    drawing = draw(sample.image, target.mask, prediction, prompt)
    return Example(example.rank, example.record, drawing, _remark(example, prediction, prompt))


def shown_unit(name: str) -> Unit:
    """Take the unit that a run names."""
    units: Mapping[str, Unit] = {"class": "class", "instance": "instance", "component": "component"}
    return units[name]


def _without(example: Example, remark: str) -> Example:
    return Example(example.rank, example.record, remark=remark)


def _remark(
    example: Example, prediction: Bool[np.ndarray, "h w"] | None, prompt: Prompt | None
) -> str | None:
    parts = []
    record = example.record
    if record["outcome"] == "miss":
        nothing = record["reason"] or EMPTY_MASK
        parts.append(
            "The model returned no mask."
            if nothing == EMPTY_MASK
            else f"{nothing[0].upper()}{nothing[1:]}."
        )
    elif prediction is None:
        parts.append("The predicted mask was not saved.")
    if prompt is None and record["strategy"] not in PROMPTLESS:
        parts.append("There is no prompt to draw.")
    return " ".join(parts) or None
