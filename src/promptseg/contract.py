"""The contract that every model keeps, and the checks that tell whether yours does.

`promptseg models check package.module:name` shows them one by one. They ask about small drawn
images as evaluation does, and compare a model with itself: no data is needed, and nothing is said
of how good its masks are. What the promises mean: docs/own-model.md.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

import numpy as np

from promptseg.model import SELECTIONS, Candidates, Segmenter, Selection
from promptseg.probe import OBJECTS, Survey, draw_images, make_survey, mixed_prompts_in
from promptseg.promise import (
    KINDS,
    NONE,
    BrokenPromiseError,
    Difference,
    ask,
    described,
    difference,
    embed,
    largest,
    segment,
    sound_everything,
    sound_name,
    sound_training,
    sound_weights_hash,
)
from promptseg.prompt import PromptKind
from promptseg.selection import choose

Outcome = Literal["passed", "failed", "skipped"]

_Lazy = Callable[[], Survey]  # made by the first check that needs it

TOLERANCE = 1e-3  # of logits and predicted IoU between batches: rounding stays far below it


@dataclass(frozen=True, slots=True)
class Check:
    """One promise of the contract: kept, broken, or not applicable."""

    name: str
    outcome: Outcome
    detail: str  # one line: what was seen; of a failure what is wrong and what to do


@dataclass(frozen=True, slots=True)
class _Test:
    """A check to be run: it tells what it saw, or raises BrokenPromiseError."""

    name: str
    run: Callable[[], str]
    kept: Outcome = "passed"  # the outcome where it does not raise


def check_model(model: Segmenter[Any]) -> Iterator[Check]:
    """Check a model, and yield each check as soon as it is done.

    The checks do not build on each other, so one fault can break several. Whatever the model
    raises breaks the check that met it. What the model does not claim in its `training` is tried,
    and is skipped whatever happens.
    """
    for test in _tests(model):
        yield _checked(test)


def _checked(test: _Test) -> Check:
    try:
        return Check(test.name, test.kept, _one_line(test.run()))
    except BrokenPromiseError as broken:
        return Check(test.name, "failed", _one_line(str(broken)))
    except Exception as error:  # foreign objects can fail in any way
        detail = f"what the model gives cannot be used: {described(error)}"
        return Check(test.name, "failed", _one_line(detail))


def _one_line(text: str) -> str:
    return " ".join(text.split())[:400]


def _tests(model: Segmenter[Any]) -> Iterator[_Test]:
    kinds, selections = _claimed(model)
    survey = cache(lambda: make_survey(model, kinds))
    yield _Test("name", lambda: sound_name(model.name))
    yield _Test("weights_hash", lambda: sound_weights_hash(model.weights_hash))
    yield _Test("training", lambda: sound_training(model.training))
    if hasattr(model, "everything"):
        yield _Test("everything", lambda: sound_everything(getattr(model, "everything", None)))
    yield _Test("images of any shape", partial(_told, survey, "images of any shape"))
    yield _Test("no image", lambda: _no_image(model))
    for kind in KINDS:
        if kind in kinds:
            yield _Test(f"answers to {kind}", partial(_told, survey, f"answers to {kind}"))
            yield _Test(f"reaction to {kind}", partial(_reaction, survey, kind))
        else:
            yield _Test(f"answers to {kind}", partial(_tried, survey, kind), "skipped")
    for selection in SELECTIONS:
        if selection not in selections:
            attempt = partial(_tried_selection, survey, kinds or KINDS, selection)
            yield _Test(f"selection {selection}", attempt, "skipped")
        else:
            run = partial(_selection, survey, model, kinds, selection)
            yield _needing(kinds, f"selection {selection}", run)
    for name in ("no prompt", "prompts left alone", "extreme prompts"):
        yield _needing(kinds, name, partial(_told, survey, name))
    for name, check in _WITH_PROMPTS.items():
        yield _needing(kinds, name, partial(check, model, kinds))


def _needing(kinds: Sequence[PromptKind], name: str, run: Callable[[], str]) -> _Test:
    """Make a check that can ask only what the model claims."""
    if kinds:
        return _Test(name, run)
    return _Test(name, lambda: "the training claims no kind of prompt", "skipped")


def _claimed(model: Segmenter[Any]) -> tuple[list[PromptKind], list[Selection]]:
    """List the known words of a model's training, however wrong the rest of it is."""
    try:
        sets = [model.training.prompts, model.training.selections]
    except Exception:  # the check of `training` says why
        return [], []
    prompts, selections = (found if isinstance(found, Set) else frozenset() for found in sets)
    return [k for k in KINDS if k in prompts], [s for s in SELECTIONS if s in selections]


def _told(survey: _Lazy, name: str) -> str:
    return survey().told(name)


def _no_image(model: Segmenter[Any]) -> str:
    embed(model, [])
    return "no embedding"


def _reaction(survey: _Lazy, kind: PromptKind) -> str:
    answers = survey().answers(kind)
    one, two = (np.asarray(answers[index].logits) for index in OBJECTS)
    if np.array_equal(one, two):
        raise BrokenPromiseError(
            "the answer does not depend on the prompt: two places give the same logits"
        )
    return "two places give different logits"


def _tried(survey: _Lazy, kind: PromptKind) -> str:
    if broken := survey().broken.get(f"answers to {kind}"):
        return f"not claimed; {broken} (evaluation records these prompts as failed)"
    return "not claimed; runs, off-protocol"


def _offered(survey: _Lazy, kinds: Sequence[PromptKind], selection: Selection) -> bool:
    return all(
        choose(answer, selection, [0.0] * len(answer.logits)) is not None
        for kind in kinds
        for answer in survey().answers(kind)
    )


def _selection(
    survey: _Lazy, model: Segmenter[Any], kinds: Sequence[PromptKind], selection: Selection
) -> str:
    claimed = [kind for kind in kinds if (kind, selection) not in model.training.but]
    if not _offered(survey, claimed, selection):
        raise BrokenPromiseError(f"claimed, but without {_NEEDED[selection]}")
    return f"has {_NEEDED[selection]}"


def _tried_selection(survey: _Lazy, kinds: Sequence[PromptKind], selection: Selection) -> str:
    try:
        if _offered(survey, kinds, selection):
            return f"not claimed; has {_NEEDED[selection]}, off-protocol"
    except Exception as error:  # it promises nothing here
        return f"not claimed; {error}"
    return f"not claimed; without {_NEEDED[selection]} (evaluation records it as failed)"


_NEEDED = {
    "single": "a single-mask token (`single`)",
    "oracle": "multimask tokens (`multimask`)",
    "predicted": "multimask tokens with `predicted_iou`",
}


def _images_left(model: Segmenter[Any], kinds: Sequence[PromptKind]) -> str:
    image = draw_images()["square"]
    before = image.copy()
    ask(model, image, mixed_prompts_in(image, kinds))
    if not np.array_equal(before, image):
        raise BrokenPromiseError("the model writes to the image: work on image.copy()")
    image.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of the flag itself
        try:
            ask(model, image, mixed_prompts_in(image, kinds))
        except BrokenPromiseError as broken:
            raise BrokenPromiseError(f"of a read-only image, {broken}") from broken
    if not np.array_equal(before, image):
        raise BrokenPromiseError("the model writes to a read-only image: work on image.copy()")
    return "not written to"


def _determinism(model: Segmenter[Any], kinds: Sequence[PromptKind]) -> str:
    image = draw_images()["square"]
    (embedding,) = embed(model, [image])
    first, again = (segment(model, embedding, mixed_prompts_in(image, kinds)) for _ in range(2))
    afresh = ask(model, draw_images()["square"], mixed_prompts_in(image, kinds))
    for method, others in (("segment", again), ("embed", afresh)):
        seen = difference(first, others, image)
        if seen != NONE:
            raise BrokenPromiseError(
                f"the same call of {method}, made twice, changes {seen}: put the network "
                "in eval mode, fix seeds inside the call, and change no embedding"
            )
    return "the same calls give equal bits"


def _no_state(model: Segmenter[Any], kinds: Sequence[PromptKind]) -> str:
    images = draw_images()
    one, other = images["square"], images["wide"]
    (embedding,) = embed(model, [one])
    before = segment(model, embedding, mixed_prompts_in(one, kinds))
    (between,) = embed(model, [other])
    embedded = segment(model, embedding, mixed_prompts_in(one, kinds))
    segment(model, between, mixed_prompts_in(other, kinds))
    segmented = segment(model, embedding, mixed_prompts_in(one, kinds))
    for verb, after in (("embedded", embedded), ("segmented", segmented)):
        seen = difference(before, after, one)
        if seen != NONE:
            raise BrokenPromiseError(
                f"after another image was {verb}, the answers change by {seen}: "
                "keep what segment needs in the embedding, not in the model"
            )
    return "another image between changes no bit"


def _batches_of_prompts(model: Segmenter[Any], kinds: Sequence[PromptKind]) -> str:
    image = draw_images()["square"]
    (embedding,) = embed(model, [image])
    together = segment(model, embedding, mixed_prompts_in(image, kinds))
    order = list(range(len(together)))
    ways = {"one by one": [[index] for index in order], "in reverse": [order[::-1]]}
    ways["in chunks"] = [order[:1], order[1:3], order[3:]]
    found = {}
    for way, chunks in ways.items():
        answers: dict[int, Candidates] = {}
        for chunk in chunks:
            prompts = mixed_prompts_in(image, kinds)
            given = segment(model, embedding, [prompts[index] for index in chunk])
            answers.update(zip(chunk, given, strict=True))
        found[way] = difference(together, [answers[index] for index in order], image)
    return _invariant("prompts", "together", found)


def _batches_of_images(model: Segmenter[Any], kinds: Sequence[PromptKind]) -> str:
    drawn, again = draw_images(), draw_images()  # twice, for a model might write to them
    names = ("wide", "tall")
    alone = [ask(model, drawn[name], mixed_prompts_in(drawn[name], kinds)) for name in names]
    embeddings = embed(model, [again[name] for name in names])
    together = largest(
        difference(
            answers,
            segment(model, embedding, mixed_prompts_in(drawn[name], kinds)),
            drawn[name],
        )
        for name, answers, embedding in zip(names, alone, embeddings, strict=True)
    )
    return _invariant("images", "one by one", {"together": together})


def _invariant(noun: str, usual: str, found: Mapping[str, Difference]) -> str:
    """Judge how much answers change between batches; `found` names the ways to batch."""
    for way, seen in found.items():
        if not seen.within(TOLERANCE):
            raise BrokenPromiseError(
                f"{noun} {way} instead of {usual} change {seen}: answer each as if it were alone"
            )
    worst = largest(found.values())
    if worst == NONE:
        return "equal bits, one by one and together"
    return (
        f"equal masks; logits differ by up to {worst.numbers:.1g}: records may differ in the last "
        "digits between batch sizes"
    )


_WITH_PROMPTS: Mapping[str, Callable[[Segmenter[Any], Sequence[PromptKind]], str]] = {
    "images left alone": _images_left,
    "determinism": _determinism,
    "no state": _no_state,
    "batch invariance of prompts": _batches_of_prompts,
    "batch invariance of images": _batches_of_images,
}
