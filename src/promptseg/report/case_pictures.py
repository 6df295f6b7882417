"""What is drawn of every case: its image once, and outlines and prompts as lines over it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import UInt8

from promptseg.corpus import Corpus
from promptseg.errors import DataError
from promptseg.mask import from_rle
from promptseg.prompt import Everything, Prompt, box_of, from_json, points_of
from promptseg.record import RunFolder
from promptseg.report.cases import Cases, by_run
from promptseg.report.gallery import DAMAGED, find_corpus, shown_unit, without_folders
from promptseg.report.picture import Window, encoded_within, outline, window_of
from promptseg.sample import Sample, Target, Unreadable, regroup

SIDE = 640  # pixels of a picture's longer side, at most
COARSE = 200  # a target shown on fewer pixels of its side has a picture of its own
BYTES = 40_000  # of one picture, at most
ALL_BYTES = 40_000_000  # of all pictures of a page

Detail = dict[str, Any]  # of the page's JSON: cargo that only the page's script reads


@dataclass(frozen=True, slots=True)
class Drawn:
    """One case: its number, its lines, and by file name the pictures that no case before had."""

    case: int
    detail: Detail
    pictures: Mapping[str, bytes] = field(default_factory=dict)


def draw_cases(
    cases: Cases, runs: Sequence[RunFolder], corpora: Mapping[str, Corpus]
) -> Iterator[Drawn | str]:
    """Draw all cases, image by image; yield also why a run has no pictures.

    A case of several runs is yielded by each of them, with the answers of that run.
    """
    budget = min(BYTES, ALL_BYTES // max(1, cases.n_shown))
    for number, own in by_run(cases):
        folder = runs[number]
        corpus = find_corpus(folder.run, corpora)
        if not isinstance(corpus, Corpus):
            yield corpus
            continue
        try:
            yield from _of_run(cases, own, folder, corpus, budget)
        except DataError as error:
            reason = without_folders(str(error), folder.path, corpus.path)
            yield f"No pictures of {folder.run.corpus}: {reason}"


def _of_run(
    cases: Cases, own: pl.DataFrame, folder: RunFolder, corpus: Corpus, budget: int
) -> Iterator[Drawn]:
    lines = _lines(own, folder)
    images = own["image_id"].unique(maintain_order=True).to_list()
    of_image = {str(key[0]): frame for key, frame in own.group_by("image_id")}
    for group in corpus.groups_of(images):
        for sample in corpus.read(group):
            if sample.image_id in of_image:
                frame = of_image[sample.image_id]
                yield from _of_image(sample, frame, lines, budget)


@dataclass(frozen=True, slots=True)
class _Lines:
    """The masks and prompts of a run that are drawn."""

    masks: Mapping[tuple[str, str, int], Any]  # (model, prompt, index) -> RLE
    prompts: Mapping[str, Prompt]
    unit: str


def _lines(own: pl.DataFrame, folder: RunFolder) -> _Lines:
    asked = set(own["prompt_id"].drop_nulls().to_list())
    try:
        read = {
            row["prompt_id"]: from_json(row["prompt"])
            for row in folder.prompts(asked).iter_rows(named=True)
        }
        masks = {
            (row["model"], row["prompt_id"], row["mask_index"]): row["mask"]
            for row in folder.masks(asked).iter_rows(named=True)
        }
    except DAMAGED as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"a prompt or a mask in {folder.path} is damaged ({reason}).") from error
    prompts = {key: one for key, one in read.items() if not isinstance(one, Everything)}
    return _Lines(masks, prompts, folder.run.unit)


def _of_image(
    sample: Sample | Unreadable, own: pl.DataFrame, lines: _Lines, budget: int
) -> Iterator[Drawn]:
    """Draw all cases of one image; the first one brings the picture of the whole."""
    cases = {int(str(key[0])): frame for key, frame in own.group_by("case", maintain_order=True)}
    if isinstance(sample, Unreadable):
        for case in cases:
            yield Drawn(case, {"remark": f"This image cannot be read: {sample.reason}"})
        return
    targets = {one.target_id: one for one in regroup(sample.targets, shown_unit(lines.unit))}
    kind, content = encoded_within(sample.image, side=SIDE, most_bytes=budget)
    whole = f"{min(cases)}.{kind}"
    pictures = {whole: content}
    for case, frame in cases.items():
        target = targets.get(frame["target_id"][0])
        if target is None:
            yield Drawn(case, {"remark": "This target is not in the corpus."})
            continue
        detail, window = _detail(sample.image, target, frame, lines)
        detail["picture"] = whole
        longest = max(sample.image.shape[:2])
        if longest > SIDE and window.side * SIDE / longest < COARSE:
            crop = sample.image[window.y0 : window.y1, window.x0 : window.x1]
            kind, content = encoded_within(crop, side=2 * COARSE, most_bytes=budget // 2)
            detail["crop"] = f"{case}-near.{kind}"
            pictures[detail["crop"]] = content
        yield Drawn(case, detail, pictures)
        pictures = {}


def _detail(
    image: UInt8[np.ndarray, "h w 3"], target: Target, own: pl.DataFrame, lines: _Lines
) -> tuple[Detail, Window]:
    """Trace the reference, the mask of every answer, and what else the run kept of its prompts."""
    height, width = target.mask.shape
    asked = [lines.prompts.get(row) for row in own["prompt_id"].drop_nulls().unique().sort()]
    windows = [window_of(target.mask, None, prompt) for prompt in asked or [None]]
    window = max(windows, key=lambda one: one.side)
    fine = window.side / 500
    masks: dict[str, Any] = {}
    chosen: dict[int, tuple[str | None, str | None]] = {}
    named = {}
    for row in own.iter_rows(named=True):
        key = (row["model_of_run"], row["prompt_id"], row["mask_index"])
        rle = lines.masks.get(key)
        if rle is not None:
            masks[_name(key)] = rle
        chosen[row["answer"]] = (_name(key) if rle is not None else None, row["prompt_id"])
        named[row["model_of_run"], row["prompt_id"]] = row["model"]
    others = {
        _name(key): (model, key)
        for key in lines.masks
        if (model := named.get(key[:2])) is not None and _name(key) not in masks
    }
    masks |= {name: lines.masks[key] for name, (_, key) in others.items()}
    numbers = {name: number for number, name in enumerate(masks)}
    prompts = dict.fromkeys(p for _, p in chosen.values() if p in lines.prompts)
    places = {name: number for number, name in enumerate(prompts)}
    return {
        "size": [width, height],
        "window": [window.x0, window.y0, window.x1, window.y1],
        "reference": outline(target.mask, fine),
        "paths": [_traced(rle, (height, width), fine) for rle in masks.values()],
        "prompts": [_prompt(lines.prompts[str(name)]) for name in prompts],
        "answers": {
            answer: [numbers.get(str(mask)), places.get(prompt)]
            for answer, (mask, prompt) in chosen.items()
        },
        "others": [
            [f"{model}, mask {key[2]}", numbers[name], places.get(key[1])]
            for name, (model, key) in others.items()
        ],
    }, window


def _name(key: tuple[object, object, object]) -> str:
    return "\n".join(map(str, key))


def _traced(rle: Any, image_hw: tuple[int, int], fine: float) -> str | None:
    """Trace a mask; None where it has another size than the image."""
    if tuple(rle["size"]) != image_hw:
        return None
    return outline(from_rle(rle), fine)


def _prompt(prompt: Prompt) -> Detail:
    box, points = box_of(prompt), points_of(prompt)
    clicks = (
        [] if points is None else zip(points.xy.tolist(), points.positive.tolist(), strict=True)
    )
    return {
        "box": None if box is None else [box.x0, box.y0, box.x1, box.y1],
        "clicks": [[x + 0.5, y + 0.5, int(positive)] for (x, y), positive in clicks],
    }
