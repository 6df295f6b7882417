"""Evaluate a model on samples: image by image, every prompt from one embedding, every mask scored.

The loop knows no files; `promptseg.run` takes it over a corpus and into a run folder.
"""

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool

from promptseg.mask import to_rle
from promptseg.metric import dice as dice_of
from promptseg.metric import score
from promptseg.model import Candidates, Segmenter, Selection, masks_at
from promptseg.prompt import Prompt, points_of, to_json
from promptseg.record import MaskRow, PromptRow, Record
from promptseg.sample import Sample, Target, Unit, Unreadable, regroup, task_name
from promptseg.selection import choose
from promptseg.strategy import Strategy

SaveMasks = Literal["none", "selected", "all"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of every model, and how its answers are scored."""

    strategies: tuple[Strategy, ...]
    selections: tuple[Selection, ...] = ("single", "oracle", "predicted")
    unit: Unit = "class"
    seed: int = 0
    nsd_tolerance: float = 2.0
    save_masks: SaveMasks = "selected"


@dataclass(frozen=True, slots=True)
class Evaluated:
    """All that one image gave."""

    image_id: str
    records: list[Record]
    prompts: list[PromptRow]
    masks: list[MaskRow]


@dataclass(frozen=True, slots=True)
class _Asked:
    """One prompt to be decoded, with the record that its scores will complete."""

    target: Target
    strategy: Strategy
    prompt: Prompt
    draft: Record


def evaluate(
    samples: Iterable[Sample | Unreadable], model: Segmenter[Any], plan: Plan
) -> Iterator[Evaluated]:
    """Yield what every sample gives; each image is embedded once.

    A sample that cannot be read, a target that gives no prompt and a model that raises become
    `failed` records with the reason, and the loop goes on.
    """
    for sample in samples:
        if isinstance(sample, Unreadable):
            yield _unreadable(sample, model, plan)
        else:
            yield _evaluate_sample(sample, model, plan)


def _evaluate_sample(sample: Sample, model: Segmenter[Any], plan: Plan) -> Evaluated:
    # in the order of their names, so that the order in a corpus can change no digit of a batch
    targets = sorted(regroup(sample.targets, plan.unit), key=lambda target: target.target_id)
    result = Evaluated(sample.image_id, [], [], [])
    asked = []
    for target in targets:
        for strategy in plan.strategies:
            draft = _draft(sample, model, plan, strategy, target.target_id, target.object)
            try:
                prompt = strategy.make(target.mask)
            except ValueError as error:
                result.records.extend(_failed(draft, model, plan, strategy, str(error)))
                continue
            asked.append(_ask(target, strategy, prompt, draft))
    result.prompts.extend(_prompt_row(item) for item in asked)
    try:
        answers, embed_ms, decode_ms = _answers(sample, model, asked)
    except Exception as error:  # whatever a model raises costs this image, not the run
        reason = f"the model raised {type(error).__name__}: {error}"
        for item in asked:
            result.records.extend(_failed(item.draft, model, plan, item.strategy, reason))
        return result
    for item, candidates in zip(asked, answers, strict=True):
        item = replace(item, draft=replace(item.draft, embed_ms=embed_ms, decode_ms=decode_ms))
        try:
            records, masks = _scored_answer(sample, item, candidates, model, plan)
        except Exception as error:  # an answer can be wrong in any way
            reason = f"the model's answer cannot be scored: {type(error).__name__}: {error}"
            records, masks = _failed(item.draft, model, plan, item.strategy, reason), []
        result.records.extend(records)
        result.masks.extend(masks)
    return result


def _answers(
    sample: Sample, model: Segmenter[Any], asked: Sequence[_Asked]
) -> tuple[Sequence[Candidates], float, float]:
    start = time.perf_counter()
    (embedding,) = model.embed([sample.image])
    embedded = time.perf_counter()
    answers = model.segment(embedding, [item.prompt for item in asked]) if asked else []
    decoded = time.perf_counter()
    if len(answers) != len(asked):
        raise ValueError(f"{len(asked)} prompts were answered with {len(answers)} candidates")
    per_prompt = (decoded - embedded) / max(len(asked), 1)
    return answers, 1e3 * (embedded - start), 1e3 * per_prompt


def _scored_answer(
    sample: Sample, item: _Asked, candidates: Candidates, model: Segmenter[Any], plan: Plan
) -> tuple[list[Record], list[MaskRow]]:
    """Score one answer: a record per selection, and the masks that they chose."""
    iou = candidates.predicted_iou
    if not np.isfinite(candidates.logits).all() or not (iou is None or np.isfinite(iou).all()):
        raise ValueError("it holds numbers that are not finite")
    masks = masks_at(candidates, (sample.image.shape[0], sample.image.shape[1]))
    overlaps = [dice_of(mask, item.target.mask) for mask in masks]
    records: list[Record] = []
    scored: dict[int, Record] = {}
    for selection in plan.selections:
        draft = _selected(item.draft, selection, model, item.strategy)
        index = choose(candidates, selection, overlaps)
        if index is None:
            records.append(replace(draft, outcome="failed", reason=_NO_SUCH[selection]))
            continue
        if index not in scored:
            scored[index] = _scored(item.draft, sample, masks[index], item.target, plan)
        chosen = replace(
            scored[index],
            selection=selection,
            off_protocol=draft.off_protocol,
            mask_index=index,
            predicted_iou=None if iou is None else float(iou[index]),
        )
        records.append(chosen)
    kept = {"none": [], "selected": sorted(scored), "all": range(len(masks))}[plan.save_masks]
    return records, [_mask_row(item, masks[index], index) for index in kept]


_NO_SUCH: Mapping[Selection, str] = {
    "single": "the model has no single-mask token",
    "oracle": "the model has no multimask tokens",
    "predicted": "the model has no multimask tokens with a predicted IoU",
}


def _scored(
    draft: Record, sample: Sample, mask: Bool[np.ndarray, "h w"], target: Target, plan: Plan
) -> Record:
    scores = score(mask, target.mask, sample.spacing_yx_mm, nsd_tolerance=plan.nsd_tolerance)
    spacing = sample.spacing_yx_mm or (1.0, 1.0)
    height, width = mask.shape
    return replace(
        draft,
        outcome="ok" if mask.any() else "miss",
        reason=None if mask.any() else "the mask is empty",
        image_diagonal=float(np.hypot(height * spacing[0], width * spacing[1])),
        **{name: getattr(scores, name) for name in scores.__slots__},
    )


def _draft(
    sample: Sample | Unreadable,
    model: Segmenter[Any],
    plan: Plan,
    strategy: Strategy,
    target_id: str | None,
    object_name: str | None,
) -> Record:
    """Fill in what is known of a record before the model is asked."""
    return Record(
        model=model.name,
        strategy=strategy.name,
        selection="",
        protocol="paper",
        unit=plan.unit,
        off_protocol=False,
        seed=plan.seed,
        dataset=sample.dataset,
        subject=sample.subject,
        image_id=sample.image_id,
        target_id=target_id,
        prompt_id=None,
        object=object_name,
        modality=sample.modality,
        task=None if object_name is None else task_name(object_name, sample.modality),
        outcome="failed",
    )


def _ask(target: Target, strategy: Strategy, prompt: Prompt, draft: Record) -> _Asked:
    points = points_of(prompt)
    positive = 0 if points is None else int(points.positive.sum())
    negative = 0 if points is None else len(points.positive) - positive
    identity = f"{draft.image_id}\n{target.target_id}\n{to_json(prompt)}"
    draft = replace(
        draft,
        prompt_id=hashlib.sha256(identity.encode()).hexdigest()[:24],
        n_positive=positive,
        n_negative=negative,
        clicks=positive + negative,
    )
    return _Asked(target, strategy, prompt, draft)


def _selected(
    draft: Record, selection: Selection, model: Segmenter[Any], strategy: Strategy
) -> Record:
    covered = model.training.covers(strategy.prompt_kind, selection)
    return replace(draft, selection=selection, off_protocol=not covered)


def _failed(
    draft: Record, model: Segmenter[Any], plan: Plan, strategy: Strategy, reason: str
) -> list[Record]:
    return [
        replace(_selected(draft, selection, model, strategy), reason=_one_line(reason))
        for selection in plan.selections
    ]


def _one_line(text: str) -> str:
    return " ".join(text.split())[:500]


def _unreadable(sample: Unreadable, model: Segmenter[Any], plan: Plan) -> Evaluated:
    """Give every target that should have been scored its failed records."""
    listed: list[tuple[str | None, str | None]] = list(sample.targets)
    if plan.unit == "class":
        names = dict.fromkeys(name for _, name in sample.targets)
        listed = [(f"{sample.image_id}#{name}", name) for name in names]
    records = [
        record
        for target_id, name in listed or [(None, None)]
        for strategy in plan.strategies
        for record in _failed(
            _draft(sample, model, plan, strategy, target_id, name),
            model,
            plan,
            strategy,
            sample.reason,
        )
    ]
    return Evaluated(sample.image_id, records, [], [])


def _prompt_row(item: _Asked) -> PromptRow:
    draft = item.draft
    assert draft.prompt_id is not None
    return PromptRow(draft.prompt_id, draft.image_id, item.target.target_id, to_json(item.prompt))


def _mask_row(item: _Asked, mask: Bool[np.ndarray, "h w"], index: int) -> MaskRow:
    draft = item.draft
    assert draft.prompt_id is not None
    return MaskRow(
        draft.prompt_id, draft.image_id, item.target.target_id, draft.model, index, to_rle(mask)
    )
