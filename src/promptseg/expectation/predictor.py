"""The predictor of expected quality: fitted on runs, asked about targets and about answers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, UInt8

from promptseg.attributes import Attributes
from promptseg.corpus import Corpus
from promptseg.errors import DataError
from promptseg.expectation.feature import (
    Answer,
    Kind,
    answer_of,
    deployable_values,
    look_of,
    planning_values,
)
from promptseg.expectation.learning import Examples, Learnt, joined, learn
from promptseg.expectation.table import (
    SELECTIONS,
    WITHOUT_PROMPT,
    Way,
    corpus_of,
    deployable_examples,
    planning_examples,
)
from promptseg.expectation.validation import Error, by_dataset, by_subject
from promptseg.prompt import Prompt, box_of, points_of
from promptseg.record import RunFolder
from promptseg.stats import FEWEST

OFF_PROTOCOL = "the model was not trained for it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What DICE to expect of one target or answer; without a value there is a reason."""

    value: float | None
    lo: float | None = None  # nine of ten such targets of new subjects lie between lo and hi
    hi: float | None = None
    reason: str | None = None
    mae: float | None = None  # mean absolute error of such values, on held-out subjects

    def sentence(self) -> str:
        """Say it in one line."""
        if self.value is None:
            return f"No DICE can be expected: {self.reason}."
        told = f"Expected DICE {self.value:.2f}"
        if self.lo is not None and self.hi is not None:
            told += f", 90 % of such answers {self.lo:.2f} to {self.hi:.2f}"
        return told if self.mae is None else f"{told} (mean error {self.mae:.2f})"


@dataclass(frozen=True, slots=True)
class Fitted:
    """One way of answering, learnt: what to expect, and how wrong that is."""

    way: Way
    kind: Kind
    learnt: Learnt
    error: Error | None  # on held-out subjects; None: all held-out targets were out of range
    new_dataset: Error | None  # on held-out data sets; None: there is one, or none had an answer

    @property
    def is_useful(self) -> bool:
        """Tell whether it is better than the mean, on held-out subjects, by more than chance."""
        return self.error is not None and self.error.beats_mean

    def expected_of(self, values: Float[np.ndarray, "k"], modality: str) -> Expected:
        """Tell what to expect of one target, by its features on the scales of learning."""
        if not self.is_useful:
            what = "what targets look like" if self.kind == "planning" else "such answers"
            return Expected(
                value=None,
                reason=f"{what} did not tell DICE better than its mean, {self.learnt.mean:.2f}, "
                "on held-out subjects",
            )
        if reason := self.learnt.reason_against(values, modality):
            return Expected(value=None, reason=reason)
        (value,) = self.learnt.expected(values[None], [modality])
        assert self.error is not None
        found = Expected(value=float(value), mae=self.error.own.mae)
        if not self.learnt.has_interval:
            return found
        (low,), (high,) = self.learnt.interval(values[None], [modality])
        return replace(found, lo=float(low), hi=float(high))


@dataclass(frozen=True, slots=True)
class Lack:
    """A way of answering of which nothing can be expected, and why."""

    way: Way
    kind: Kind
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictor:
    """What DICE to expect of models, by way of answering; see `fit`."""

    models: tuple[tuple[str, str], ...]  # name and hash of the weights
    corpora: tuple[str, ...]
    fitted: tuple[Fitted, ...]
    lacks: tuple[Lack, ...] = field(default=())

    def of(self, kind: Kind) -> tuple[Fitted, ...]:
        """List what was fitted of one kind."""
        return tuple(one for one in self.fitted if one.kind == kind)

    def after_answers(self) -> list[Fitted | Lack]:
        """List what is known of answers, and why not where nothing is."""
        lacks = [one for one in self.lacks if one.kind == "deployable"]
        return [*self.of("deployable"), *lacks]

    def require_model(self, name: str, weights_hash: str) -> None:
        """Refuse a model that was not learnt from; raises DataError."""
        if dict(self.models).get(name) != weights_hash:
            known = ", ".join(known for known, _ in self.models)
            raise DataError(
                f"The predictor was made of runs of {known}, and not of {name} with these weights: "
                "evaluate that model, and make a predictor of the run."
            )

    def before(self, attributes: Attributes, modality: str) -> dict[Way, Expected]:
        """Tell what to expect of a target that looks like this, by every way of answering."""
        values = planning_values(look_of(attributes))
        return {one.way: one.expected_of(values, modality) for one in self.of("planning")}

    def after(self, answer: "Answered", modality: str | None = None) -> Expected:
        """Tell what to expect of an answer, without its reference.

        Without a modality the only one of training is taken; several are a reason for no value.

        Raises
        ------
        DataError
            The model, or its weights, are not those that were learnt from.
        """
        self.require_model(answer.model, answer.weights_hash)
        one = self._way_of(answer)
        if isinstance(one, str):
            return Expected(value=None, reason=one)
        known_modalities = one.learnt.domain.modalities
        if modality is None and len(known_modalities) > 1:
            told = ", ".join(known_modalities)
            return Expected(value=None, reason=f"the modality has to be said, one of {told}")
        if not answer.mask.any():
            return Expected(value=None, reason="the mask is empty: there is nothing to judge")
        values = deployable_values(answer.image, answer.mask, answer.described())
        return one.expected_of(values, modality or known_modalities[0])

    def _way_of(self, answer: "Answered") -> Fitted | str:
        fitted = [one for one in self.of("deployable") if answer.is_of(one.way)]
        if len(fitted) == 1:
            return fitted[0]
        asked = f"{strategy_of(answer.prompt)} / {answer.selection}"
        if fitted:
            return f"several protocols or units of {asked} were learnt: fit one of them alone"
        reasons = [
            one.reason for one in self.lacks if one.kind == "deployable" and answer.is_of(one.way)
        ]
        return (*reasons, f"{asked} is not among the prompts that were learnt from")[0]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answered:
    """An answer of a model to a prompt, as a user has it."""

    model: str
    weights_hash: str
    selection: str
    image: UInt8[np.ndarray, "h w 3"]
    prompt: Prompt
    mask: Bool[np.ndarray, "h w"]
    predicted_iou: float | None

    def is_of(self, way: Way) -> bool:
        """Tell whether this is an answer of some way of answering."""
        own = (self.model, strategy_of(self.prompt), self.selection)
        return own == (way.model, way.strategy, way.selection)

    def described(self) -> Answer:
        """Describe the answer by what needs no reference."""
        return answer_of(self.mask, self.prompt, predicted_iou=self.predicted_iou)


def strategy_of(prompt: Prompt) -> str:
    """Name the strategy that a user's prompt is of, or else say what it is."""
    points = points_of(prompt)
    on = 0 if points is None else int(points.positive.sum())
    off = 0 if points is None else len(points.positive) - on
    boxed = box_of(prompt) is not None
    named = {
        (True, 0, 0): "box", (True, 1, 0): "box+point",
        (False, 1, 0): "point1", (False, 5, 0): "points5", (False, 5, 5): "points5+5",
    }  # fmt: skip
    said = f"{on} positive and {off} negative points" + (" with a box" if boxed else "")
    return named.get((boxed, on, off), said)


def fit(
    runs: Sequence[RunFolder],
    *,
    corpora: Mapping[str, Corpus] | None = None,
    kinds: Sequence[Kind] = ("planning", "deployable"),
) -> Predictor:
    """Learn from runs what DICE to expect, for every on-protocol way of answering.

    `planning` tells it from what targets look like, before there is a prompt; `deployable` from
    image, prompt, mask and the model's own predicted IoU. Both are ridge regressions on splines,
    with intervals by CV+ over subjects, and know their own error on held-out subjects and data
    sets. Prompts with jitter are not learnt from, and neither are the off-protocol ways.

    Parameters
    ----------
    corpora
        Corpora by the path that runs know; others are looked up on disk. They hold the images that
        `deployable` needs, beside the saved masks.

    Raises
    ------
    ValueError
        No run is given.
    DataError
        Runs hold models of one name with different weights, or are damaged.
    """
    if not runs:
        raise ValueError("a predictor is fitted on one run or several")
    models = _models(runs)
    records, attributes = _pooled(runs)
    examples = planning_examples(records, attributes)
    found: list[Fitted | Lack] = []
    if "planning" in kinds:
        found += [fit_way(way, "planning", own) for way, own in examples.items()]
    if "deployable" in kinds:
        found += _deployable(runs, list(examples), corpora or {})
    return Predictor(
        models=models,
        corpora=tuple(dict.fromkeys(folder.run.corpus for folder in runs)),
        fitted=tuple(one for one in found if isinstance(one, Fitted)),
        lacks=tuple(one for one in found if isinstance(one, Lack)),
    )


def _models(runs: Sequence[RunFolder]) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for name, digest in (item for folder in runs for item in folder.run.models.items()):
        if found.setdefault(name, digest) != digest:
            raise DataError(
                f"The runs hold two models called {name}, with different weights. Fit a predictor "
                "on runs of one of them."
            )
    return tuple(sorted(found.items()))


def _pooled(runs: Sequence[RunFolder]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Bring records and attributes together; the same target of several runs comes once."""
    corpus = [pl.lit(folder.run.corpus_fingerprint).alias("corpus") for folder in runs]
    pairs = list(zip(runs, corpus, strict=True))
    records = pl.concat([folder.records().with_columns(name) for folder, name in pairs])
    attributes = pl.concat([folder.attributes().with_columns(name) for folder, name in pairs])
    return records, attributes.unique(["corpus", "target_id"], maintain_order=True)


def fit_way(way: Way, kind: Kind, examples: Examples) -> Fitted | Lack:
    """Learn one way of answering from its examples, or tell why that cannot be."""
    if way.off_protocol:
        return Lack(way, kind, OFF_PROTOCOL)
    n_units = examples.n_units
    if n_units < FEWEST:
        word = "subject" if n_units == 1 else "subjects"
        return Lack(way, kind, f"{n_units} {word} are too few to learn from: at least {FEWEST}")
    return Fitted(way, kind, learn(examples), by_subject(examples), by_dataset(examples))


def _deployable(
    runs: Sequence[RunFolder], ways: Sequence[Way], corpora: Mapping[str, Corpus]
) -> Iterator[Fitted | Lack]:
    """Learn from answers; where that cannot be, the reason stands in its place."""
    possible = [way for way in ways if _lack_of(way) is None]
    examples: dict[Way, list[Examples]] = {}
    problems: list[str] = []
    for folder in runs:
        corpus = corpus_of(folder, corpora)
        if folder.run.save_masks == "none":
            problems.append(f"no masks were saved in {folder.path.name}")
        elif isinstance(corpus, str):
            problems.append(corpus)
        else:
            for way, own in deployable_examples(folder, corpus, possible).items():
                examples.setdefault(way, []).append(own)
    for way in ways:
        if reason := _lack_of(way):
            yield Lack(way, "deployable", reason)
        elif way in examples:
            yield fit_way(way, "deployable", joined(examples[way]))
        else:
            told = "; ".join(dict.fromkeys(problems)) or "there is no answer with a mask"
            yield Lack(way, "deployable", told)


def _lack_of(way: Way) -> str | None:
    if way.off_protocol:
        return OFF_PROTOCOL
    if way.selection not in SELECTIONS:
        return "its choice of the mask looks at the reference"
    if way.strategy in WITHOUT_PROMPT:
        return f"{way.strategy} asks for no object of its own"
    return None
