"""Evaluate a model on samples: image by image, every prompt from one embedding, every mask scored.

The loop knows no files; `promptseg.run` takes it over a corpus and into a run folder.
"""

import hashlib
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, Literal

from promptseg.ahead import together
from promptseg.attributes import AttributeRow, described
from promptseg.errors import DataError
from promptseg.everything import Survivors, survivors
from promptseg.jitter import jittered, stream
from promptseg.model import Segmenter
from promptseg.pending import Begun, Evaluated, Scoring
from promptseg.plan import Plan, Question
from promptseg.predictions import Predictions
from promptseg.prompt import to_json
from promptseg.record import PromptRow, Record
from promptseg.sample import Sample, Target, Unreadable, class_id, regroup
from promptseg.scoring import Answerer, Asked, Scored, Scorer, named, of_target, prompt_id, raised
from promptseg.stages import Watch, unwatched
from promptseg.strategy import EMPTY_REFERENCE, Strategy


def evaluate(
    samples: Iterable[Sample | Unreadable],
    model: Segmenter[Any],
    plan: Plan,
    *,
    watch: Watch = unwatched,
) -> Iterator[Evaluated]:
    """Yield what every sample gives; each image is embedded once.

    A sample that cannot be read, a target that gives no prompt and a model that raises become
    `failed` records with the reason, and the loop goes on. While the model is at one image, the
    answers about the one before are scored; it comes as soon as they are. Where samples raise, or
    the user interrupts, the images that were asked about before come first.
    """
    scorer = Scorer(Answerer(model.name, model.training), plan, watch)
    with ThreadPoolExecutor(plan.workers, thread_name_prefix="score") as pool:
        waiting: deque[Begun] = deque()
        steps = _Loop(model, scorer, pool).steps(samples, waiting)
        while True:
            try:
                going_on = next(steps, False)
            except BaseException:
                yield from _finished(waiting, 0, watch)
                raise
            yield from _finished(waiting, int(going_on), watch)
            if not going_on:
                return


def _finished(waiting: deque[Begun], most: int, watch: Watch) -> Iterator[Evaluated]:
    """Yield the images that are done, and wait for the oldest until no more than so many wait."""
    while waiting and (len(waiting) > most or waiting[0].is_done()):
        with watch("waiting"):
            done = waiting.popleft().finish()
        yield done


@dataclass(frozen=True, slots=True)
class _Embedded:
    """An embedding, or what the model raised instead."""

    value: Any
    error: Exception | None
    ms: float

    def open(self) -> Any:
        """Give the embedding, or raise."""
        if self.error is not None:
            raise self.error
        return self.value


@dataclass(frozen=True, slots=True)
class _Loop:
    """What stays the same from image to image."""

    model: Segmenter[Any]
    scorer: Scorer
    pool: Executor

    def steps(
        self, samples: Iterable[Sample | Unreadable], waiting: deque[Begun]
    ) -> Iterator[Literal[True]]:
        """Ask about every sample, and let it wait then; yield whenever the model is free."""
        for group in together(samples, getattr(self.model, "images_at_once", 1)):
            begun = [self._begin(sample) for sample in group]
            embedded = self._embed([sample.image for _, sample, targets in begun if targets])
            yield True
            for image, sample, targets in begun:
                if targets:
                    for _ in self._ask(image, sample, targets, embedded.popleft()):
                        yield True
                waiting.append(image)
                yield True

    def _begin(self, sample: Sample | Unreadable) -> tuple[Begun, Any, list[Target]]:
        """Settle what is asked about of an image, and have it described; nothing if unreadable."""
        plan, watch, begun = self.scorer.plan, self.scorer.watch, Begun(sample.image_id)
        if isinstance(sample, Unreadable):
            begun.failed.extend(_unreadable(sample, self.scorer))
            return begun, sample, []
        targets = targets_of(sample, plan)
        if targets:
            begun.attributes = self.pool.submit(_describe_all, watch, sample, targets)
        return begun, sample, targets

    def _ask(
        self,
        begun: Begun,
        sample: Sample,
        targets: Sequence[Target],
        embedded: _Embedded,
    ) -> Iterator[None]:
        """Decode all that is asked of an image, and hand the answers to the scorers."""
        plan, watch = self.scorer.plan, self.scorer.watch
        for strategy in plan.strategies:
            if strategy.make is None:
                self._find_everything(begun, sample, targets, strategy, embedded)
                yield
        with watch("prompting"):
            asked = list(self._asked(begun, sample, targets))
            begun.prompts.extend(map(_prompt_row, asked))
        for places in _chunks(asked, plan.batch_size):
            chunk = [asked[place] for place in places]
            with watch("decoding"):
                answers, decode_ms = self._decode(embedded, chunk)
            timed = [item.timed(embedded.ms, decode_ms) for item in chunk]
            future = self.pool.submit(_score_all, self.scorer, sample, timed, answers)
            self._scoring(begun, Scoring(future, places, len(chunk)))
            yield

    def _scoring(self, begun: Begun, scoring: Scoring) -> None:
        """Keep what is being scored; of an image no more than a batch per worker may wait."""
        begun.scored.append(scoring)
        with self.scorer.watch("waiting"):
            begun.wait(self.scorer.plan.workers * self.scorer.plan.batch_size)

    def _embed(self, images: Sequence[Any]) -> deque[_Embedded]:
        """Embed images together; if the model raises, one by one, to find which it cannot do."""
        if not images:
            return deque()
        start = time.perf_counter()
        try:
            with self.scorer.watch("embedding"):
                values = list(self.model.embed(images))
            if len(values) != len(images):
                raise ValueError(f"{len(values)} embeddings are not {len(images)}")
        except Exception as error:  # whatever a model raises costs this image, not the run
            if len(images) > 1:
                return deque(one for image in images for one in self._embed([image]))
            return deque([_Embedded(None, error, 1e3 * (time.perf_counter() - start))])
        ms = 1e3 * (time.perf_counter() - start) / len(images)
        return deque(_Embedded(value, None, ms) for value in values)

    def _asked(self, begun: Begun, sample: Sample, targets: Sequence[Target]) -> Iterator[Asked]:
        """Make the prompts of an image; where there is none, the records are failed."""
        for target in targets:
            for strategy in self.scorer.plan.strategies:
                try:
                    yield from self._of_target(sample, target, strategy)
                except ValueError as error:
                    begun.failed.extend(self._unasked(sample, target, strategy, str(error)))

    def _of_target(self, sample: Sample, target: Target, strategy: Strategy) -> Iterator[Asked]:
        if strategy.make is None:
            return
        if not target.mask.any():
            raise ValueError(EMPTY_REFERENCE)
        exact = strategy.make(target.mask)
        for question in self.scorer.plan.questions(strategy):
            prompt = exact
            if question.jitter is not None:
                rng = stream(question.seed, sample.image_id, target.target_id, strategy.name)
                prompt = jittered(exact, question.jitter, target.mask, rng)
            yield self.scorer.ask(sample, target, question, prompt)

    def _unasked(
        self, sample: Sample, target: Target, strategy: Strategy, reason: str
    ) -> Iterator[Record]:
        for question in self.scorer.plan.questions(strategy):
            draft = of_target(self.scorer.draft(sample, question), target)
            yield from self.scorer.failed(draft, question, reason)

    def _decode(self, embedded: _Embedded, chunk: Sequence[Asked]) -> tuple[list[Any], float]:
        """Decode prompts together; if the model raises, one by one, to find which it cannot do."""
        start = time.perf_counter()
        try:
            answers = list(self.model.segment(embedded.open(), [item.prompt for item in chunk]))
            if len(answers) != len(chunk):
                raise ValueError(f"{len(answers)} candidates are no answer to {len(chunk)} prompts")
        except Exception as error:  # whatever a model raises
            if len(chunk) == 1 or embedded.error is not None:
                return [error] * len(chunk), 1e3 * (time.perf_counter() - start)
            alone = [self._decode(embedded, [item]) for item in chunk]
            return [answer for (answer,), _ in alone], sum(ms for _, ms in alone) / len(chunk)
        return answers, 1e3 * (time.perf_counter() - start) / len(chunk)

    def _find_everything(
        self,
        begun: Begun,
        sample: Sample,
        targets: Sequence[Target],
        strategy: Strategy,
        embedded: _Embedded,
    ) -> None:
        """Find all masks of an image, and have them matched to its targets."""
        plan = self.scorer.plan
        settings = plan.everything_of(self.model)
        name = prompt_id(sample.image_id, None, to_json(settings))
        begun.prompts.append(PromptRow(name, sample.image_id, None, to_json(settings)))
        (question,) = plan.questions(strategy)
        draft = replace(self.scorer.draft(sample, question), prompt_id=name)
        start = time.perf_counter()
        try:
            size_hw = (sample.image.shape[0], sample.image.shape[1])
            with self.scorer.watch("everything"):
                found = survivors(
                    self.model, embedded.open(), size_hw, settings, points_per_batch=plan.batch_size
                )
        except Exception as error:  # whatever a model raises
            for target in targets:
                own = of_target(draft, target)
                begun.failed.extend(self.scorer.failed(own, question, raised(error)))
            return
        decode_ms = 1e3 * (time.perf_counter() - start)
        draft = replace(draft, embed_ms=embedded.ms, decode_ms=decode_ms)
        future = self.pool.submit(
            _score_survivors, self.scorer, sample, targets, draft, found, question
        )
        self._scoring(begun, Scoring(future, repeat(-1), plan.batch_size))  # before all prompts


def _chunks(asked: Sequence[Asked], most: int) -> Iterator[list[int]]:
    """Group the places of prompts that are decoded together: of one strategy, jittered or not.

    The time of a group is thus that of its strategy.
    """
    of_strategy: dict[Strategy, list[int]] = {}
    for place, item in enumerate(asked):
        of_strategy.setdefault(item.question.strategy, []).append(place)
    for places in of_strategy.values():
        for start in range(0, len(places), most):
            yield places[start : start + most]


def _describe_all(watch: Watch, sample: Sample, targets: Sequence[Target]) -> list[AttributeRow]:
    # an empty mask, and one of another size, have failed records and nothing to be described
    size = sample.image.shape[:2]
    there = [target for target in targets if target.mask.any() and target.mask.shape == size]
    with watch("attributes"):
        return [described(sample.image, target, sample.image_id) for target in there]


def _score_all(
    scorer: Scorer,
    sample: Sample,
    asked: Sequence[Asked],
    answers: Sequence[Any],
) -> list[Scored]:
    with scorer.watch("scoring"):
        return [scorer.answered(sample, *pair) for pair in zip(asked, answers, strict=True)]


def _score_survivors(
    scorer: Scorer,
    sample: Sample,
    targets: Sequence[Target],
    draft: Record,
    found: Survivors,
    question: Question,
) -> list[Scored]:
    there = [target for target in targets if target.mask.any()]
    reasons = {id(target): EMPTY_REFERENCE for target in targets if not target.mask.any()}
    try:
        with scorer.watch("scoring"):
            scored = [scorer.survived(sample, there, draft, found, question)]
    except Exception as error:  # as with other answers
        reason = f"the masks cannot be scored: {type(error).__name__}: {error}"
        scored, reasons = [], {**{id(target): reason for target in there}, **reasons}
    failed = [
        scorer.failed(of_target(draft, target), question, reasons[id(target)])
        for target in targets
        if id(target) in reasons
    ]
    return [*scored, *(Scored(records, []) for records in failed)]


def _prompt_row(item: Asked) -> PromptRow:
    draft = item.draft
    assert draft.prompt_id is not None
    return PromptRow(draft.prompt_id, draft.image_id, item.target.target_id, to_json(item.prompt))


def targets_of(sample: Sample, plan: Plan) -> list[Target]:
    """Bring the targets of a sample to the plan's unit, and draw so many as it allows.

    They come in the order of their names, which no corpus can change. Which are drawn depends on
    the seed and their names alone; of a smaller number all are among those of a larger one.
    """
    targets = sorted(regroup(sample.targets, plan.unit), key=lambda target: target.target_id)
    drawn = _drawn([target.target_id for target in targets], plan)
    return [target for target in targets if target.target_id in drawn]


def _drawn(target_ids: Sequence[str], plan: Plan) -> set[str]:
    if plan.max_targets is None:
        return set(target_ids)

    def lot(target_id: str) -> bytes:
        return hashlib.sha256(f"{plan.seeds[0]}\n{target_id}".encode()).digest()

    return set(sorted(target_ids, key=lot)[: plan.max_targets])


def _unreadable(sample: Unreadable, scorer: Scorer) -> Iterator[Record]:
    """Give every target that should have been scored its failed records.

    By component they are the stored targets: what they fall into cannot be seen.
    """
    by_class = scorer.plan.unit == "class"
    names: dict[str | None, str | None] = {
        class_id(target) if by_class else target.target_id: target.object
        for target in sample.targets
    }
    drawn = _drawn([str(target_id) for target_id in names], scorer.plan)
    listed = {target_id: name for target_id, name in names.items() if target_id in drawn}
    for target_id, name in listed.items() or [(None, None)]:
        for strategy in scorer.plan.strategies:
            for question in scorer.plan.questions(strategy):
                draft = scorer.draft(sample, question)
                own = draft if name is None else named(draft, target_id, name)
                yield from scorer.failed(own, question, sample.reason)


def evaluate_masks(
    samples: Iterable[Sample | Unreadable],
    predictions: Predictions,
    plan: Plan,
    *,
    watch: Watch = unwatched,
) -> Iterator[Evaluated]:
    """Yield what every sample gives when the masks are those that another tool predicted.

    The plan is one of `plan_of_masks`. An object without a prediction is a miss; a prediction that
    cannot be read, or lies on another grid, is failed.
    """
    scorer = Scorer(Answerer(predictions.name, None), plan, watch)
    for sample in samples:
        if isinstance(sample, Unreadable):
            yield Evaluated(sample.image_id, list(_unreadable(sample, scorer)), [], [])
        else:
            done = _score_predictions(scorer, sample, predictions)
            records = [record for one in done for record in one.records]
            masks = [row for one in done for row in one.masks]
            described_all = _describe_all(watch, sample, targets_of(sample, plan))
            yield Evaluated(sample.image_id, records, [], masks, described_all)


def _score_predictions(scorer: Scorer, sample: Sample, predictions: Predictions) -> list[Scored]:
    (strategy,) = scorer.plan.strategies
    (question,) = scorer.plan.questions(strategy)
    targets = targets_of(sample, scorer.plan)
    draft = scorer.draft(sample, question)

    def failed(lost: Sequence[Target], reason: str) -> list[Scored]:
        drafts = [of_target(draft, target) for target in lost]
        return [Scored(scorer.failed(own, question, reason), []) for own in drafts]

    try:
        with scorer.watch("reading"):
            predicted = predictions.of(sample)
    except DataError as error:
        return failed(targets, str(error))
    empty = [target for target in targets if not target.mask.any()]
    there = [target for target in targets if target.mask.any()]
    with scorer.watch("scoring"):
        scored = scorer.predicted(sample, there, question, predicted)
    return [*scored, *failed(empty, EMPTY_REFERENCE)]
