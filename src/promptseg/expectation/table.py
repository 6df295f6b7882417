"""Runs as examples to learn from: of each way of answering, the targets with features and DICE."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Bool, UInt8

from promptseg.attributes import Attributes
from promptseg.corpus import Corpus, open_corpus
from promptseg.errors import DataError
from promptseg.expectation.feature import (
    DEPLOYABLE,
    PLANNING,
    answer_of,
    deployable_values,
    look_of,
    planning_values,
)
from promptseg.expectation.learning import Examples
from promptseg.factors import scored_targets
from promptseg.mask import from_rle
from promptseg.prompt import Everything, from_json
from promptseg.record import RunFolder
from promptseg.sample import Unreadable

MOST_TARGETS = 1000  # of one way of answering that are learnt from, spread over subjects
SELECTIONS = ("single", "predicted")  # what a user gets: the oracle looks at the reference
WITHOUT_PROMPT = ("everything", "masks")  # strategies that ask for no target of its own
_ATTRIBUTES = tuple(Attributes.__dataclass_fields__)


@dataclass(frozen=True, slots=True, order=True)
class Way:
    """A way of answering: what expected DICE is of."""

    model: str
    protocol: str
    unit: str  # of evaluation: class, instance or component
    strategy: str
    selection: str
    off_protocol: bool


_WAY = tuple(Way.__dataclass_fields__)


def planning_examples(records: pl.DataFrame, attributes: pl.DataFrame) -> dict[Way, Examples]:
    """Give the targets of every way of answering with what they look like, without jitter.

    A miss has DICE 0, and several seeds of one target are averaged. At most 1,000 targets a way,
    spread over subjects.
    """
    found = {}
    for (unit,), own in records.group_by("unit", maintain_order=True):
        scored = scored_targets(own, attributes).with_columns(evaluated=pl.lit(unit))
        key = [name if name != "unit" else "evaluated" for name in _WAY]
        for values, frame in scored.group_by(key, maintain_order=True):
            whole = frame.drop_nulls("area_px")
            if whole.height:
                chosen = _spread(whole)
                found[Way(*values)] = _examples(
                    chosen, PLANNING, np.array([_look(row) for row in _rows(chosen)])
                )
    return found


def _rows(frame: pl.DataFrame) -> Iterator[dict[str, object]]:
    return frame.select(_ATTRIBUTES).iter_rows(named=True)


def _look(row: Mapping[str, object]) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    return planning_values(look_of(Attributes(**row)))  # type: ignore[arg-type] # Parquet's own


def _spread(frame: pl.DataFrame) -> pl.DataFrame:
    """Take so many targets that each subject gives as evenly as it can; names decide which."""
    if frame.height <= MOST_TARGETS:
        return frame
    shuffled = pl.col("target_id").hash(seed=0)
    turn = shuffled.rank("ordinal").over("unit")
    return (
        frame.with_columns(turn=turn, draw=pl.col("unit").hash(seed=0))
        .sort("turn", "draw", "target_id")
        .head(MOST_TARGETS)
        .drop("turn", "draw")
    )


def _examples(
    frame: pl.DataFrame,
    names: Sequence[str],
    values: "np.ndarray[tuple[int, int], np.dtype[np.float64]]",
) -> Examples:
    own = "predicted_iou"
    iou = frame[own].to_numpy() if own in frame.columns else np.full(frame.height, np.nan)
    return Examples(
        names=tuple(names),
        values=values.reshape(frame.height, len(names)).astype(np.float64),
        dice=frame["dice"].to_numpy().astype(np.float64),
        predicted_iou=iou.astype(np.float64),
        **{name: tuple(frame[name]) for name in ("unit", "dataset", "modality", "task")},
    )


def deployable_examples(
    folder: RunFolder, corpus: Corpus, ways: Sequence[Way]
) -> dict[Way, Examples]:
    """Give the answers of every way that is asked for, with what a user knows of them.

    Needs the saved masks, and the images. Of each way at most 1,000 answers. Left out are empty
    masks, which say by themselves that DICE is 0. The reference takes part in DICE alone.

    Raises
    ------
    DataError
        A prompt or a mask of the run is damaged.
    """
    chosen = _answers(folder, ways)
    if not chosen.height:
        return {}
    try:
        described = list(_described(folder, corpus, chosen))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"A prompt or a mask in {folder.path} is damaged ({error}).") from error
    known = dict(described)
    names = ("prompt_id", "model", "mask_index")
    keys = list(chosen.select(names).iter_rows())
    there = chosen.filter(pl.Series([key in known for key in keys], dtype=pl.Boolean))
    found = {}
    for values, frame in there.group_by(_KEY, maintain_order=True):
        rows = np.array([known[key] for key in frame.select(names).iter_rows()])
        found[Way(*values)] = _examples(frame, DEPLOYABLE, rows)
    return found


_KEY = [name if name != "unit" else "evaluated" for name in _WAY]


def _answers(folder: RunFolder, ways: Sequence[Way]) -> pl.DataFrame:
    """List the answers of a run that are learnt from."""
    wanted = pl.DataFrame([[getattr(w, n) for n in _WAY] for w in ways], _KEY, orient="row")
    own = folder.records().filter(
        pl.col("jitter_mode").is_null(),
        pl.col("outcome") == "ok",
        pl.col("selection").is_in(SELECTIONS),
        ~pl.col("strategy").is_in(WITHOUT_PROMPT),
        pl.col("mask_index").is_not_null() & pl.col("dice").is_not_null(),
    )
    named = own.rename({"unit": "evaluated"}).with_columns(
        unit=pl.concat_str("dataset", pl.coalesce("subject", "image_id"), separator="\n")
    )
    if not ways:
        return named.head(0)
    known = named.join(wanted, on=_KEY, how="semi", maintain_order="left")
    groups = known.group_by(_KEY, maintain_order=True)
    return pl.concat([known.head(0), *(_spread(frame) for _, frame in groups)])


Key = tuple[str, str, int]  # prompt, model, index of the mask
Mask = Bool[np.ndarray, "h w"]


def _described(
    folder: RunFolder, corpus: Corpus, chosen: pl.DataFrame
) -> Iterator[tuple[Key, "np.ndarray[tuple[int], np.dtype[np.float64]]"]]:
    """Describe every answer once, image by image."""
    names = ("prompt_id", "model", "mask_index")
    once = chosen.unique(names, maintain_order=True)
    prompts = dict(folder.prompts().select("prompt_id", "prompt").iter_rows())
    masks = folder.masks().join(once.select("prompt_id").unique(), on="prompt_id", how="semi")
    of_prompt = {key: frame for key, frame in masks.group_by("prompt_id", "model")}
    by_image = {str(key): frame for (key,), frame in once.group_by("image_id")}
    for group in corpus.groups_of(set(by_image)):
        for sample in corpus.read(group):
            if isinstance(sample, Unreadable) or sample.image_id not in by_image:
                continue
            for row in by_image[sample.image_id].iter_rows(named=True):
                key = (row["prompt_id"], row["model"], row["mask_index"])
                saved = of_prompt.get(key[:2])
                values = _one(sample.image, prompts[key[0]], saved, row, _all_saved(folder))
                if values is not None:
                    yield key, values


def _all_saved(folder: RunFolder) -> bool:
    # which masks are saved by default follows from the oracle's choice: they would tell of it
    return folder.run.save_masks == "all"


def _one(
    image: UInt8[np.ndarray, "h w 3"],
    prompt: str,
    saved: pl.DataFrame | None,
    row: Mapping[str, object],
    all_saved: bool,
) -> "np.ndarray[tuple[int], np.dtype[np.float64]] | None":
    asked = from_json(prompt)
    if saved is None or isinstance(asked, Everything):
        return None
    masks: dict[int, Mask] = {
        index: from_rle(mask)
        for index, mask in saved.select("mask_index", "mask").iter_rows()
        if index == row["mask_index"] or all_saved
    }
    mask = masks.pop(row["mask_index"], None)  # type: ignore[call-overload] # Parquet's own
    if mask is None or mask.shape != image.shape[:2] or not mask.any():
        return None
    iou = row["predicted_iou"]
    assert iou is None or isinstance(iou, float)
    # a single-mask token agrees with nothing: the multimask tokens answer another question
    others = list(masks.values()) if row["selection"] == "predicted" else []
    return deployable_values(image, mask, answer_of(mask, asked, predicted_iou=iou, others=others))


def corpus_of(folder: RunFolder, corpora: Mapping[str, Corpus]) -> Corpus | str:
    """Find the corpus of a run by its path, or tell why it is not to be had."""
    path = Path(folder.run.corpus_path)
    try:
        corpus = corpora.get(folder.run.corpus_path) or open_corpus(path)
    except DataError:
        return f"the corpus {path.name} is not where it was"
    if corpus.info.fingerprint != folder.run.corpus_fingerprint:
        return f"the corpus {path.name} has changed since the run"
    return corpus
