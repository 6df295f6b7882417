"""Scoring: what a model answered about a target becomes records, one per selection."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool

from promptseg.errors import ModelError
from promptseg.everything import Survivors, overlaps
from promptseg.mask import Rle, from_rle, to_rle
from promptseg.metric import dice_table, dices, score
from promptseg.model import Candidates, Selection, Training, masks_at
from promptseg.plan import Plan, Question
from promptseg.predictions import Predicted
from promptseg.prompt import Prompt, points_of, to_json
from promptseg.record import MaskRow, Record
from promptseg.sample import Sample, Target, Unreadable, regroup, task_name
from promptseg.selection import choose
from promptseg.stages import Watch, unwatched
from promptseg.strategy import Strategy

LONGEST_REASON = 500
_NO_SUCH: Mapping[Selection, str] = {
    "single": "the model has no single-mask token",
    "oracle": "the model has no multimask tokens",
    "predicted": "the model has no multimask tokens with a predicted IoU",
}


@dataclass(frozen=True, slots=True)
class Answerer:
    """Who answers: a model, or a tool that did so before (its training is None)."""

    name: str
    training: Training | None

    def claims(self, selection: Selection) -> bool:
        """Tell whether a model says that it was trained for a selection."""
        return self.training is None or selection in self.training.selections

    def is_off_protocol(self, strategy: Strategy, selection: Selection) -> bool:
        """Tell whether a model was not trained for what is asked of it."""
        return self.training is not None and not self.training.covers(
            strategy.prompt_kind, selection
        )


@dataclass(frozen=True, slots=True)
class Asked:
    """One prompt, with the record that its scores will complete."""

    target: Target
    question: Question
    prompt: Prompt
    draft: Record

    def timed(self, embed_ms: float, decode_ms: float) -> "Asked":
        """Keep how long the answer took."""
        return replace(self, draft=replace(self.draft, embed_ms=embed_ms, decode_ms=decode_ms))


@dataclass(frozen=True, slots=True)
class Scored:
    """Records, and the masks that they are of."""

    records: list[Record]
    masks: list[MaskRow]


@dataclass(frozen=True, slots=True)
class Scorer:
    """What scoring needs beside an answer: whose it is, and by which plan it is scored."""

    answerer: Answerer
    plan: Plan
    watch: Watch = unwatched

    def draft(self, sample: Sample | Unreadable, question: Question) -> Record:
        """Fill in what is known of a record before there is a target and an answer."""
        jitter = question.jitter
        return Record(
            model=self.answerer.name,
            strategy=question.strategy.name,
            selection="",
            protocol=question.strategy.protocol,
            unit=self.plan.unit,
            off_protocol=False,
            jitter_mode=jitter.mode if jitter else None,
            jitter_unit=jitter.unit if jitter else None,
            jitter_lo=jitter.lo if jitter else None,
            jitter_hi=jitter.hi if jitter else None,
            seed=question.seed,
            dataset=sample.dataset,
            subject=sample.subject,
            image_id=sample.image_id,
            volume=sample.volume,
            target_id=None,
            prompt_id=None,
            object=None,
            modality=sample.modality,
            task=None,
            outcome="failed",
        )

    def ask(self, sample: Sample, target: Target, question: Question, prompt: Prompt) -> Asked:
        """Bring a prompt together with its record."""
        points = points_of(prompt)
        positive = 0 if points is None else int(points.positive.sum())
        negative = 0 if points is None else len(points.positive) - positive
        draft = replace(
            of_target(self.draft(sample, question), target),
            prompt_id=prompt_id(sample.image_id, target.target_id, to_json(prompt)),
            n_positive=positive,
            n_negative=negative,
            clicks=positive + negative,
        )
        return Asked(target, question, prompt, draft)

    def failed(self, draft: Record, question: Question, reason: str) -> list[Record]:
        """Give the failed records of one target and question, one per selection."""
        told = " ".join(reason.split())[:LONGEST_REASON]
        return [
            replace(self._selected(draft, question.strategy, selection), reason=told)
            for selection in self.plan.selections_of(question.strategy)
        ]

    def _selected(self, draft: Record, strategy: Strategy, selection: Selection) -> Record:
        off_protocol = self.answerer.is_off_protocol(strategy, selection)
        return replace(draft, selection=selection, off_protocol=off_protocol)

    def answered(self, sample: Sample, asked: Asked, answer: Any) -> Scored:
        """Score the answer to one prompt; one that cannot be scored is failed, not missed.

        An exception is what the model raised; all but `Candidates` cannot be scored.
        """
        if isinstance(answer, Exception):
            return Scored(self.failed(asked.draft, asked.question, raised(answer)), [])
        try:
            return self._candidates(sample, asked, answer)
        except Exception as error:  # an answer can be wrong in any way
            reason = f"the model's answer cannot be scored: {type(error).__name__}: {error}"
            return Scored(self.failed(asked.draft, asked.question, reason), [])

    def _candidates(self, sample: Sample, asked: Asked, candidates: Candidates) -> Scored:
        iou = candidates.predicted_iou
        if not np.isfinite(candidates.logits).all() or not (iou is None or np.isfinite(iou).all()):
            raise ValueError("it holds numbers that are not finite")
        masks = masks_at(candidates, (sample.image.shape[0], sample.image.shape[1]))
        dice = dices(masks, asked.target.mask)
        records: list[Record] = []
        scored: dict[int, Record] = {}
        for selection in self.plan.selections_of(asked.question.strategy):
            draft = self._selected(asked.draft, asked.question.strategy, selection)
            index = choose(candidates, selection, dice)
            if index is None:
                if self.answerer.claims(selection):
                    records.append(replace(draft, reason=_NO_SUCH[selection]))
                continue  # what a model neither claims nor has is no failure
            if index not in scored:
                scored[index] = self._score(asked.draft, sample, asked.target, masks[index])
            chosen = replace(
                scored[index],
                selection=selection,
                off_protocol=draft.off_protocol,
                mask_index=index,
                predicted_iou=None if iou is None else float(iou[index]),
            )
            records.append(chosen)
        rows = [
            _mask_row(asked.draft, asked.target.target_id, index, to_rle(masks[index]))
            for index in self._kept(scored, len(masks))
        ]
        return Scored(records, rows)

    def _kept(self, selected: Mapping[int, object], count: int) -> Sequence[int]:
        return {"none": [], "selected": sorted(selected), "all": range(count)}[self.plan.save_masks]

    def _score(
        self, draft: Record, sample: Sample, target: Target, mask: Bool[np.ndarray, "h w"]
    ) -> Record:
        tolerance = self.plan.nsd_tolerance
        scores = score(mask, target.mask, sample.spacing_yx_mm, nsd_tolerance=tolerance)
        spacing = sample.spacing_yx_mm or (1.0, 1.0)
        height, width = mask.shape
        predicted_px = int(np.count_nonzero(mask))
        return replace(
            draft,
            outcome="ok" if predicted_px else "miss",
            reason=None if predicted_px else "the mask is empty",
            predicted_px=predicted_px,
            reference_px=int(np.count_nonzero(target.mask)),
            image_diagonal=float(np.hypot(height * spacing[0], width * spacing[1])),
            **{name: getattr(scores, name) for name in scores.__slots__},
        )

    def _missed(self, draft: Record, sample: Sample, target: Target, reason: str) -> Record:
        return replace(
            self._score(draft, sample, target, np.zeros_like(target.mask)), reason=reason
        )

    def survived(
        self,
        sample: Sample,
        targets: Sequence[Target],
        draft: Record,
        survivors: Survivors,
        question: Question,
    ) -> Scored:
        """Match all survivors of everything to all targets, and score the matches.

        The oracle takes the survivor of the best DICE (the study's rule), whether another target
        has it or not; `predicted` takes the first survivor, that of the highest predicted IoU. A
        match is a survivor that the oracle took and that overlaps.
        """
        count = len(survivors.masks)
        table = overlaps(survivors, [target.mask for target in targets])
        best = [int(column.argmax()) if count else -1 for column in table.T]
        matches = Counter(i for j, i in enumerate(best) if count and table[i, j] > 0)
        draft = replace(draft, n_survivors=count, n_unmatched=count - len(matches))
        records: list[Record] = []
        used: dict[int, None] = {}
        first = from_rle(survivors.masks[0]) if count else None  # others are expanded one by one
        for target, match in zip(targets, best, strict=True):
            own = of_target(draft, target)
            for selection in self.plan.selections_of(question.strategy):
                selected = self._selected(own, question.strategy, selection)
                if not count:
                    records.append(self._missed(selected, sample, target, "no mask survived"))
                    continue
                index = match if selection == "oracle" else 0
                used[index] = None
                mask = from_rle(survivors.masks[index]) if index or first is None else first
                found = replace(
                    selected,
                    mask_index=index,
                    predicted_iou=float(survivors.predicted_iou[index]),
                    n_matches=matches[index],
                )
                records.append(self._score(found, sample, target, mask))
        rows = [
            _mask_row(draft, None, index, survivors.masks[index])
            for index in self._kept(used, count)
        ]
        return Scored(records, rows)

    def predicted(
        self, sample: Sample, targets: Sequence[Target], question: Question, predicted: Predicted
    ) -> list[Scored]:
        """Score what a tool predicted for the targets of an image: the masks of their objects.

        By instance or component the prediction whose DICE is best counts, which looks at the
        reference: the selection is `oracle` then.
        """
        own: dict[str, list[Target]] = {}
        for one in regroup(predicted.targets, self.plan.unit):
            if one.mask.any():
                own.setdefault(one.object, []).append(one)
        wanted: dict[str, list[Target]] = {}
        for target in targets:
            wanted.setdefault(target.object, []).append(target)
        return [
            self._predicted_object(sample, same, question, own.get(name, []), predicted)
            for name, same in wanted.items()
        ]

    def _predicted_object(
        self,
        sample: Sample,
        targets: Sequence[Target],
        question: Question,
        masks: Sequence[Target],
        predicted: Predicted,
    ) -> Scored:
        """Score the masks of one object for all of its targets, which are one or more."""
        name = targets[0].object
        (selection,) = self.plan.selections
        draft = self._selected(self.draft(sample, question), question.strategy, selection)
        drafts = [of_target(draft, target) for target in targets]
        if name in predicted.lost:
            reason = predicted.lost[name]
            return Scored([r for own in drafts for r in self.failed(own, question, reason)], [])
        if not masks:
            reason = predicted.missing or f"the prediction holds no {name}{predicted.besides}"
            pairs = zip(drafts, targets, strict=True)
            return Scored([self._missed(own, sample, t, reason) for own, t in pairs], [])
        encoded = [to_rle(one.mask) for one in masks]
        table = dice_table(encoded, [to_rle(target.mask) for target in targets])
        records, rows = [], []
        for own, target, best in zip(drafts, targets, table.argmax(axis=0), strict=True):
            identity = prompt_id(sample.image_id, target.target_id, question.strategy.name)
            record = replace(own, prompt_id=identity, mask_index=int(best))
            records.append(self._score(record, sample, target, masks[int(best)].mask))
            rows += [
                _mask_row(record, target.target_id, index, encoded[index])
                for index in self._kept({int(best): None}, len(masks))
            ]
        return Scored(records, rows)


def of_target(draft: Record, target: Target) -> Record:
    """Say of which target a record is."""
    return named(draft, target.target_id, target.object)


def named(draft: Record, target_id: str | None, object_name: str) -> Record:
    """Say of which target and object a record is."""
    task = task_name(object_name, draft.modality)
    return replace(draft, target_id=target_id, object=object_name, task=task)


def prompt_id(image_id: str, target_id: str | None, prompt: str) -> str:
    """Name a prompt by what it asks of which target; `target_id` is None for all of an image."""
    identity = f"{image_id}\n{target_id}\n{prompt}"
    return hashlib.sha256(identity.encode()).hexdigest()[:24]


def raised(error: Exception) -> str:
    """Tell what came instead of an answer, as a reason: what we refused, or what it raised."""
    if isinstance(error, ModelError):
        return str(error)
    return f"the model raised {type(error).__name__}: {error}"


def _mask_row(draft: Record, target_id: str | None, index: int, mask: Rle) -> MaskRow:
    assert draft.prompt_id is not None
    return MaskRow(draft.prompt_id, draft.image_id, target_id, draft.model, index, mask)
