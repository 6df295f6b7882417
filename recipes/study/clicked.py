"""Runs of simulated clicks: a user who corrects a model's mask click by click, until a maximum.

The user sees what a user would: the candidate of the highest predicted IoU, or the single mask of a
model that has no trained choice. Every click is one prompt of all clicks so far, on the same
embedding; the model is not given its own mask back. A mask without error stays as it is.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from promptseg import Choice, Plan, Sample, Segmenter, Target
from promptseg.clicks import Click, next_click, points
from promptseg.corpus import Corpus
from promptseg.evaluation import Evaluated, evaluate, targets_of
from promptseg.mask import from_rle
from promptseg.plan import Question
from promptseg.prompt import Prompt, to_json
from promptseg.record import MaskRow, PromptRow, Record, RunFolder, start_run
from promptseg.run import describe_run, parts_of
from promptseg.sample import Unreadable
from promptseg.scoring import Answerer, Asked, Scorer, of_target
from promptseg.strategy import EMPTY_REFERENCE, Strategy
from promptseg.subset import choose_subset


def plan_of(model: Segmenter[Any], most: int) -> Plan:
    """Plan 1, 2, ... clicks, under the selection that the simulated user sees."""
    trusted = "predicted" in model.training.selections
    return Plan(
        strategies=tuple(Strategy(f"clicks{n}", "points", _answers) for n in range(1, most + 1)),
        selections=("predicted" if trusted else "single",),
    )


def click_into(
    path: Path,
    corpus: Corpus,
    models: Mapping[str, Segmenter[Any]],
    plan: Plan,
    *,
    choice: Choice,
    device: str = "cpu",
) -> RunFolder:
    """Write the run of one model, or finish the one that is there, as `evaluate_into` does."""
    ((_, model),) = models.items()
    subset = choose_subset(corpus, choice, unit=plan.unit, seed=plan.seeds[0])
    told = describe_run(corpus, models, plan, subset=subset, device=device)
    folder = start_run(path, told)
    for part in parts_of(corpus.groups_of(subset.targets), 1):
        if folder.has_part(part.index):
            continue
        samples = (one for group in part.groups for one in corpus.read(group, subset.targets))
        done = list(clicked(samples, model, plan))
        folder.write_part(
            part.index,
            [record for one in done for record in one.records],
            [row for one in done for row in one.prompts],
            [row for one in done for row in one.masks],
        )
    return folder


def clicked(
    samples: Iterable[Sample | Unreadable], model: Segmenter[Any], plan: Plan
) -> Iterator[Evaluated]:
    """Yield what every sample gives."""
    for sample in samples:
        if isinstance(sample, Unreadable):
            yield from evaluate([sample], model, plan)
            continue
        scorer = Scorer(Answerer(model.name, model.training), plan)
        users = [_User(sample, target, scorer) for target in targets_of(sample, plan)]
        answer = _answering(model, sample, plan.batch_size) if users else None
        for strategy in plan.strategies:
            question = Question(strategy, None, plan.seeds[0])
            asked = [(user, asks) for user in users if (asks := user.ask(question)) is not None]
            if answer is not None:
                answers = answer([asks.prompt for _, asks in asked])
                for (user, asks), said in zip(asked, answers, strict=True):
                    user.see(asks, said)
        yield Evaluated(
            sample.image_id,
            [record for user in users for record in user.records],
            [row for user in users for row in user.prompts],
            [row for user in users for row in user.masks],
        )


@dataclass(slots=True)
class _User:
    """Who clicks on one target, and what came of it."""

    sample: Sample
    target: Target
    scorer: Scorer
    mask: Bool[np.ndarray, "h w"] = field(init=False)
    clicks: list[Click] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    prompts: list[PromptRow] = field(default_factory=list)
    masks: list[MaskRow] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.mask = np.zeros_like(self.target.mask)

    def ask(self, question: Question) -> Asked | None:
        """Click once more; None, with the last record again, where there is nothing to click."""
        last = self.records[-1] if self.records else None
        ended = last is not None and last.outcome == "failed"
        click = None if ended else next_click(self.mask, self.target.mask, self.clicks)
        if click is not None:
            self.clicks.append(click)
            prompt = points(self.clicks)
            asks = self.scorer.ask(self.sample, self.target, question, prompt)
            name = asks.draft.prompt_id or ""
            self.prompts.append(
                PromptRow(name, self.sample.image_id, self.target.target_id, to_json(prompt))
            )
            return asks
        if last is None:
            draft = of_target(self.scorer.draft(self.sample, question), self.target)
            self.records += self.scorer.failed(draft, question, EMPTY_REFERENCE)
        else:
            self.records.append(replace(last, strategy=question.strategy.name))
        return None

    def see(self, asked: Asked, answer: Any) -> None:
        """Look at the answer, which is the mask until the next."""
        scored = self.scorer.answered(self.sample, asked, answer)
        self.records += scored.records
        self.masks += scored.masks
        for row in scored.masks:
            self.mask = from_rle(row.mask)


def _answering(model: Segmenter[Any], sample: Sample, at_a_time: int) -> Any:
    """Embed an image once; what the model raises is the answer to every prompt."""
    try:
        (embedding,) = model.embed([sample.image])
    except Exception as error:  # any model can fail in any way
        raised = error
        return lambda prompts: [raised] * len(prompts)

    def answer(prompts: Sequence[Prompt]) -> list[Any]:
        answers: list[Any] = []
        for start in range(0, len(prompts), at_a_time):
            chunk = prompts[start : start + at_a_time]
            try:
                answers += _as_many(model.segment(embedding, chunk), len(chunk))
            except Exception as error:
                answers += [error] * len(chunk)
        return answers

    return answer


def _as_many(answers: Sequence[Any], count: int) -> Sequence[Any]:
    if len(answers) != count:
        raise ValueError(f"{len(answers)} answers to {count} prompts")
    return answers


def _answers(mask: Bool[np.ndarray, "h w"]) -> Prompt:
    raise ValueError("a click answers to a model's mask: it is not made from the reference alone")
