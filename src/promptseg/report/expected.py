"""What DICE to expect of which objects, as the report tells and draws it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from promptseg.expectation import (
    Error,
    Examples,
    Expected,
    Fitted,
    Lack,
    Way,
    fit_way,
    planning_examples,
)
from promptseg.expectation.feature import MEASURES
from promptseg.report.words import listed, percent, plural

CLEAR = 0.05  # DICE by which a prompt has to be expected to be better, to be advised
CELL = 5  # targets that a kind of object needs
CELL_SUBJECTS = 3
MOST_COLUMNS = 6
MOST_PLOTS = 4
ACROSS = ("area_share", "intensity_difference")
SIZES = ("small", "medium", "large")
CONTRASTS = ("low", "medium", "high")
METHOD = (
    "Ridge regression on restricted cubic splines of what targets look like (size relative to the "
    "image, intensity difference, boundary complexity, contrast to noise, compactness, aspect "
    "ratio, distance to the edge, components, holes: the first of these that vary, one for every "
    "three subjects) and on modality; every subject weighs the same, and the penalty is chosen on "
    "held-out subjects. Intervals: CV+ (Barber et al. 2021, doi:10.1214/20-AOS1965) with residuals "
    "in multiples of the spread there, and with subjects as units (Dunn et al. 2023, "
    "doi:10.1080/01621459.2022.2060112); there is none below nine subjects. The error is that on "
    "subjects held out in ten folds, everything learnt anew without them, and on whole data sets "
    "held out; it is compared with the mean of the other subjects (squared errors by subject, sign "
    "flips, every way of answering for itself, without correction for their number). Nothing is "
    "expected where a feature lies outside of the range of training, where the combination is "
    "farther from targets of other subjects than theirs from each other, or where the modality is "
    "new. Prompts are exact: with a sloppy one, expect less. What the error is of after the answer "
    "also knows prompt, mask and the model's predicted IoU, and no reference."
)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object, told by its most central target, and what to expect of it."""

    name: str
    like: str
    n_targets: int
    n_subjects: int
    cells: tuple[Expected, ...]  # of every column
    best: int | None  # column to use; None: none is clearly better


@dataclass(frozen=True, slots=True)
class Dot:
    """Targets of which about the same was expected, in percent of the chart."""

    x: float
    y: float
    said: str


@dataclass(frozen=True, slots=True)
class Plot:
    """Calibration of one way of answering."""

    title: str
    dots: tuple[Dot, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """One way of answering in the table of errors."""

    name: str
    when: str  # before the prompt, after the answer
    error: Error
    new_dataset: Error | None


@dataclass(frozen=True, slots=True)
class Expectations:
    """All of the section."""

    lines: tuple[str, ...]
    columns: tuple[str, ...]
    kinds: tuple[Kind, ...]
    errors: tuple[Line, ...]
    plots: tuple[Plot, ...]


def expected(
    records: pl.DataFrame, attributes: pl.DataFrame, after: Sequence[Fitted | Lack] = ()
) -> Expectations | None:
    """Tell what to expect of which objects; None where nothing is on-protocol, or described.

    `after` is what was learnt from answers, where a predictor is written beside the report.
    """
    if not attributes.height:
        return None
    every = planning_examples(records, attributes)
    examples = {way: own for way, own in every.items() if _is_told(way)}
    if not examples:
        return None
    name = _naming(list(examples))
    found = [fit_way(way, "planning", own) for way, own in examples.items()]
    fitted = [one for one in found if isinstance(one, Fitted)]
    useful = [one for one in fitted if one.is_useful][:MOST_COLUMNS]
    kinds = tuple(_kinds(examples[useful[0].way], useful)) if useful else ()
    answers = [one for one in after if isinstance(one, Fitted)]
    return Expectations(
        lines=(
            *_advice(kinds, [name(one.way) for one in useful]),
            *_judgement(found, name),
            *_after(after, name),
        ),
        columns=tuple(name(one.way) for one in useful),
        kinds=kinds,
        errors=tuple(
            Line(name(one.way), when, one.error, one.new_dataset)
            for when, several in (("before the prompt", fitted), ("after the answer", answers))
            for one in several
            if one.error is not None
        ),
        plots=tuple(_plots([*useful, *(one for one in answers if one.is_useful)], name)),
    )


def _is_told(way: Way) -> bool:
    """Leave out what no user gets: the oracle, everything's matches, and off-protocol ways."""
    return not way.off_protocol and way.selection != "oracle" and way.strategy != "everything"


@dataclass(frozen=True, slots=True)
class _Naming:
    """How ways of answering are called: only what differs between them is said."""

    models: bool
    protocols: bool
    units: bool

    def __call__(self, way: Way) -> str:
        extra = [f"{way.protocol} protocol"] if self.protocols else []
        extra += [f"by {way.unit}"] if self.units else []
        told = f"{way.strategy} ({', '.join(extra)})" if extra else way.strategy
        return (
            f"{way.model}, {told} / {way.selection}"
            if self.models
            else (f"{told} / {way.selection}")
        )


def _naming(ways: Sequence[Way]) -> _Naming:
    several = [len({getattr(way, of) for way in ways}) > 1 for of in ("model", "protocol", "unit")]
    return _Naming(*several)


def _kinds(examples: Examples, columns: Sequence[Fitted]) -> Iterator[Kind]:
    """Sort targets by thirds of size and contrast; only kinds of which there are some."""
    size, contrast = (examples.values[:, examples.names.index(name)] for name in ACROSS)
    by_size, by_contrast = _third(size), _third(contrast)
    place = 3 * by_contrast + by_size
    unit = examples.numbers()
    for number in range(9):
        own = np.flatnonzero(place == number)
        n_subjects = len(np.unique(unit[own]))
        if len(own) >= CELL and n_subjects >= CELL_SUBJECTS:
            row = _central(examples.values[own])
            values, modality = examples.values[own][row], examples.modality[own[row]]
            cells = tuple(one.expected_of(values, modality) for one in columns)
            yield Kind(
                name=_called(
                    SIZES[number % 3] if len(set(by_size.tolist()) - {-9}) > 1 else "",
                    CONTRASTS[number // 3] if len(set(by_contrast.tolist()) - {-9}) > 1 else "",
                ),
                like=_like(values, examples, modality),
                n_targets=len(own),
                n_subjects=n_subjects,
                cells=cells,
                best=_best(cells),
            )


def _called(size: str, contrast: str) -> str:
    """Name a kind; what is the same everywhere is not said."""
    parts = [size, f"{contrast} contrast" if contrast else ""]
    return ", ".join(part for part in parts if part) or "all"


def _third(column: Float[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    cuts = np.nanquantile(column, [1 / 3, 2 / 3])
    third: Int[np.ndarray, " n"] = np.searchsorted(cuts, column, side="right")
    return np.where(np.isnan(column), -9, third)


def _central(values: Float[np.ndarray, "n k"]) -> int:
    """Find the target that lies closest to the medians of all features."""
    filled = np.nan_to_num(values - np.nanmedian(np.where(np.isnan(values), 0, values), axis=0))
    scale = np.maximum(filled.std(0), 1e-9)
    return int(((filled / scale) ** 2).sum(1).argmin())


def _like(values: Float[np.ndarray, "k"], examples: Examples, modality: str) -> str:
    size, contrast = (values[examples.names.index(name)] for name in ACROSS)
    told = f"{MEASURES[ACROSS[0]].told(size)} of the image, intensity difference "
    told += MEASURES[ACROSS[1]].told(contrast)
    return f"{told}, {modality}" if len(set(examples.modality)) > 1 else told


def _best(cells: Sequence[Expected]) -> int | None:
    known = sorted(((one.value, i) for i, one in enumerate(cells) if one.value is not None))
    if len(known) < 2 or known[-1][0] - known[-2][0] < CLEAR:
        return None
    return known[-1][1]


def _advice(kinds: Sequence[Kind], names: Sequence[str]) -> Iterator[str]:
    """Say what to expect of the hardest and of the easiest kind, and which prompt to use."""

    def highest(kind: Kind) -> float:
        return max((one.value for one in kind.cells if one.value is not None), default=np.nan)

    told = [kind for kind in kinds if not np.isnan(highest(kind))]
    ordered = sorted(told, key=highest)
    for kind in (ordered[:1] + ordered[-1:]) if len(ordered) > 1 else ordered:
        known = [
            (one.value, name, one)
            for one, name in zip(kind.cells, names, strict=True)
            if one.value is not None
        ]
        best, first, cell = max(known, key=lambda item: item[0])
        rest = [(value, name) for value, name, _ in known if name != first]
        near = {name: f"{name} ({value:.2f})" for value, name in rest if best - value < CLEAR}
        far = [f"{name} ({value:.2f})" for value, name in rest if best - value >= CLEAR]
        told_of = [f"expect {said(cell)} from {first}"]
        told_of += [f"about as much from {', '.join(near.values())}"] if near else []
        told_of += [f"less from {', '.join(far)}"] if far else []
        yield (
            f"For objects like these ({kind.name}: {kind.like}) {'; '.join(told_of)}."
            f"{_end(first, tuple(near), bool(far))}"
        )


def _end(first: str, near: tuple[str, ...], some_are_worse: bool) -> str:
    """Say which prompt to use, if it matters."""
    if some_are_worse:
        return f" Use {listed((first, *near), 'or')}."
    return f" No prompt is better by {CLEAR:g}." if near else ""


def said(one: Expected) -> str:
    """Write an expected DICE with its interval."""
    if one.value is None:
        return "nothing"
    if one.lo is None or one.hi is None:
        return f"{one.value:.2f}"
    return f"{one.value:.2f} (90\u00a0% of such targets {one.lo:.2f} to {one.hi:.2f})"


def _judgement(found: Sequence[Fitted | Lack], name: _Naming) -> Iterator[str]:
    """Say which ways of answering are no better told than by the mean, and which not at all."""
    useless = [one for one in found if isinstance(one, Fitted) and not one.is_useful]
    if useless:
        several = ", ".join(f"{name(one.way)} ({one.learnt.mean:.2f})" for one in useless)
        yield (
            "What targets look like does not tell DICE better than the mean of other subjects, "
            f"which is all there is to expect, for {several}."
        )
    reasons: dict[str, list[str]] = {}
    for one in found:
        if isinstance(one, Lack):
            reasons.setdefault(one.reason, []).append(name(one.way))
    for reason, names in reasons.items():
        yield f"Nothing is expected of {', '.join(names)}: {reason}."


def _after(after: Sequence[Fitted | Lack], name: _Naming) -> Iterator[str]:
    fitted = [one for one in after if isinstance(one, Fitted)]
    for one in fitted:
        if one.is_useful and one.error is not None:
            raw = one.error.predicted_iou
            beside = "" if raw is None else f", the model's predicted IoU by {raw.mae:.3f}"
            yield (
                f"After the answer of {name(one.way)}, what is expected misses the DICE of "
                f"held-out subjects by {one.error.own.mae:.3f} on average (the mean of the other "
                f"subjects misses it by {one.error.mean.mae:.3f}{beside}), for "
                f"{percent(one.error.answered)} of answers."
            )
    useless = [name(one.way) for one in fitted if not one.is_useful]
    if useless:
        yield f"Answers do not tell their DICE better than the mean for {', '.join(useless)}."
    reasons = {
        one.reason for one in after if isinstance(one, Lack) and _is_told(one.way) and not fitted
    }
    for reason in sorted(reasons):
        yield f"Nothing is told from answers: {reason}."


def _plots(fitted: Sequence[Fitted], name: _Naming) -> Iterator[Plot]:
    for one in fitted[:MOST_PLOTS]:
        assert one.error is not None
        when = "" if one.kind == "planning" else ", after the answer"
        yield Plot(
            f"{name(one.way)}{when}",
            tuple(
                Dot(
                    100 * dot.expected,
                    100 * (1 - dot.observed),
                    f"expected {dot.expected:.2f}, came {dot.observed:.2f}, "
                    f"{plural(dot.n_targets, 'target')}",
                )
                for dot in one.error.bins
            ),
        )
