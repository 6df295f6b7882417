"""The first screen: what was asked, answered in words with numbers, from what the report found."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from promptseg.contrast import Arm, Contrast, Place
from promptseg.report.compared import Compared, Ranked, is_sure, judged, signed_span
from promptseg.report.depends import Depends, body
from promptseg.report.sloppy import Sloppy, clause
from promptseg.report.table import Row, is_deployable, merit
from promptseg.report.view import combination
from promptseg.report.words import (
    Naming,
    count,
    fraction,
    interval,
    percent,
    plural,
    signed,
    subjects,
)
from promptseg.response import ALL, Response
from promptseg.stats import Group

MOST_NAMED = 3
GOOD, BAD = 0.9, 0.5


@dataclass(frozen=True, slots=True)
class Answer:
    """One question, its answer, and the section that shows more."""

    question: str
    text: str
    anchor: str = ""


@dataclass(frozen=True, slots=True)
class Findings:
    """All that the first screen speaks of."""

    rows: Sequence[Row]
    best: Sequence[Row]  # the leading on-protocol combination of every model
    name: Naming
    compared: Compared | None
    sloppy: Sloppy | None
    depends: Depends | None
    n_failed: int
    gap: str = ""  # what a user loses to the choice among candidates, in words
    training: str = ""  # whether the leading model may know the data, in words

    @property
    def leading(self) -> Row | None:
        """Of the models' leading combinations, that of the highest mean DICE over most tasks."""
        return max(self.best, key=merit, default=None)


def answers(found: Findings) -> list[Answer]:
    """Answer what a reader asks first; nothing where no result may be spoken of."""
    lead = found.leading
    if lead is None:
        return []
    return [
        Answer("Which model?", _which_model(found, lead), "which" if found.compared else "dice"),
        Answer("Which prompt?", _which_prompt(found, lead), "which" if found.compared else "dice"),
        Answer(
            "How sloppy may the prompt be?",
            _how_sloppy(found, lead.group),
            "jitter" if found.sloppy else "",
        ),
        Answer("On which objects does it work?", _where(found, lead), "dice"),
        Answer(
            "Why does it fail where it fails?",
            _why(found, lead.group),
            "depends" if found.depends else "",
        ),
        Answer("How sure is this?", _how_sure(found, lead), "table"),
    ]


def _ranking(found: Findings) -> Ranked | None:
    """Give the ranking of what a user gets, if there is one."""
    rankings = found.compared.rankings if found.compared else ()
    return next((one for one in rankings if one.places[0].arm.is_deployable), None)


def _placed(found: Findings) -> list[tuple[Place, Contrast | None]]:
    ranked = _ranking(found)
    return list(zip(ranked.places, ranked.against, strict=True)) if ranked else []


def _which_model(found: Findings, lead: Row) -> str:
    models = list(dict.fromkeys(row.group.model for row in found.best))
    if len(models) < 2:
        return (
            f"{lead.group.model} is the only model with on-protocol results, so that there is "
            "nothing to compare it with."
        )
    placed = _placed(found)
    if not placed:
        return _by_means(found)
    first = placed[0][0]
    others: dict[str, tuple[Place, Contrast | None]] = {}
    for place, against in placed:
        if place.arm.model != first.arm.model:
            others.setdefault(place.arm.model, (place, against))
    told = (
        f"{_how_clear([against for _, against in others.values()])}{first.arm.model}, by "
        f"{_way(first.arm)} (DICE {fraction(first.dice)} on common targets)"
    )
    ranked = {first.arm.model, *others}
    left = [row for row in found.best if row.group.model not in ranked]
    return " ".join([f"{told}{_at_best(others)}.", *_not_ranked(left)])


def _not_ranked(left: Sequence[Row]) -> Iterator[str]:
    """Say which models take no part in the ranking, and why."""
    reasons: dict[str, list[str]] = {}
    for row in left:
        reasons.setdefault(_why_not_ranked(row.group), []).append(row.group.model)
    for reason, models in reasons.items():
        yield f"Not ranked{reason}: {', '.join(dict.fromkeys(models))}."


def _why_not_ranked(group: Group) -> str:
    if group.strategy == "everything":
        return ", as only everything was run, which has no rule by which a user could take a mask"
    if not is_deployable(group):
        return ", as only the reference chose among candidates"
    return " with it, on other or few common targets"


def _how_clear(against: Sequence[Contrast | None]) -> str:
    """Say before the first is named that it may be first by chance; nothing where it is ahead."""
    known = [one for one in against if one is not None]
    ahead = [one for one in known if is_sure(one) and (one.cell.difference.value or 0.0) < 0]
    if len(ahead) == len(known):
        return ""
    if all(one.p_holm is None for one in known):
        return "Too few subjects to test. Highest: "
    return "Not told apart from all others. Highest: " if ahead else "Not told apart. Highest: "


def _at_best(others: dict[str, tuple[Place, Contrast | None]]) -> str:
    if not others:
        return ""
    told = [
        f"{model} at its best, by {_way(place.arm)}, {_versus(against)}"
        for model, (place, against) in list(others.items())[:MOST_NAMED]
    ]
    more = len(others) - MOST_NAMED
    told += [f"and {plural(more, 'model')} more"] if more > 0 else []
    return f"; {'; '.join(told)}"


def _by_means(found: Findings) -> str:
    told = [
        f"{row.group.model} {fraction(row.dice.value)} over {plural(row.dice.n_tasks, 'task')}"
        for row in sorted(found.best, key=merit, reverse=True)[: MOST_NAMED + 1]
    ]
    return f"They share too few targets to be ranked. Each by itself: {'; '.join(told)}."


def _way(arm: Arm) -> str:
    return f"{arm.strategy} / {arm.selection}"


def _versus(against: Contrast | None) -> str:
    """Write a difference from the first with its interval and its p, and what that says."""
    if against is None:
        return "has no targets in common"
    span = signed_span(against.cell.difference)
    told = [f"95\u00a0% {span}"] if span else []
    told += [judged(against) if against.p_holm is None else f"{judged(against)} after Holm"]
    told += ["not told apart"] if against.p_holm is not None and not is_sure(against) else []
    return f"{signed(against.cell.difference.value)} ({', '.join(told)})"


def _which_prompt(found: Findings, lead: Row) -> str:
    if lead.group.strategy == "masks":
        return f"None: {lead.group.model} made its masks without one.{_prompted(found)}"
    own = [
        (place, against) for place, against in _placed(found) if place.arm.model == lead.group.model
    ]
    if len(own) < 2:
        return (
            f"Only {found.name.strategy(lead.group)} / {lead.group.selection} was run on-protocol "
            f"with {lead.group.model} in a way that a user could choose.{found.gap}"
        )
    first = own[0][0]
    seen = {first.arm.strategy}
    others = []
    for place, against in own[1:]:
        if place.arm.strategy not in seen:  # of every strategy its better selection
            seen.add(place.arm.strategy)
            others.append((place, against))
    shown = (others or own[1:])[:MOST_NAMED]
    is_first = _placed(found)[0][0] is first
    told = [
        f"{_way(place.arm)} {_versus(against) if is_first else fraction(place.dice)}"
        for place, against in shown
    ]
    clear = _how_clear([against for _, against in shown]) if is_first else ""
    tested = "" if is_first else " (these not tested against each other)"
    text = f"For {first.arm.model}, {_way(first.arm)} (DICE {fraction(first.dice)}); then "
    if clear:
        text = f"{clear}for {text[4:]}"
    return f"{text}{'; '.join(told)}{tested}.{found.gap}"


def _prompted(found: Findings) -> str:
    """Say which prompt comes first, where something comes before it that has none."""
    prompted = [pair for pair in _placed(found) if pair[0].arm.strategy != "masks"]
    if not prompted:
        return ""
    first = prompted[0][0]
    own = f"{_way(first.arm)} of {first.arm.model}"
    return f" Of the prompts {own} comes first (DICE {fraction(first.dice)})."


def _how_sloppy(found: Findings, group: Group) -> str:
    if group.strategy == "masks":
        return f"Nobody prompts {group.model}."
    if found.sloppy is None:
        return "Not measured: no prompt was jittered. evaluate --jitter shift:px:0-10 would tell."
    own = [one for one in found.sloppy.radii if _same(one, group) and one.measure != "px as rel"]
    told = [one for one in own if one.task == ALL] or own
    if not told:
        return f"Not measured for {group.strategy} / {group.selection} of {group.model}."
    return " ".join(f"{clause(one)}." for one in told[:MOST_NAMED])


def _same(one: Response, group: Group) -> bool:
    names = ("model", "protocol", "strategy", "selection", "off_protocol")
    return all(getattr(one, name) == getattr(group, name) for name in names)


def _where(found: Findings, lead: Row) -> str:
    scored = sorted(
        (
            (row.dice.value, str(row.group.task))
            for row in found.rows
            if row.dice.value is not None and combination(row.group) == combination(lead.group)
        ),
        reverse=True,
    )
    if len(scored) == 1:
        return f"One task was scored: {scored[0][1]}, {fraction(scored[0][0])}."
    n = len(scored)
    good = sum(value >= GOOD for value, _ in scored)
    bad = sum(value < BAD for value, _ in scored)
    shown = min(MOST_NAMED, n // 2)
    best = ", ".join(f"{task} {fraction(value)}" for value, task in scored[:shown])
    worst = ", ".join(f"{task} {fraction(value)}" for value, task in reversed(scored[-shown:]))
    empty = lead.dice.rate_no_overlap
    missed = f" It misses {percent(empty)} of the targets altogether." if empty else ""
    return (
        f"Best on {best}; worst on {worst}. In {count(good)} of {plural(n, 'task')} the mean DICE "
        f"reaches {GOOD:g}, in {count(bad)} it stays below {BAD:g}.{missed}"
    )


def _why(found: Findings, group: Group) -> str:
    if found.depends is None:
        return "Not known: these runs did not describe their targets."
    own = found.depends.columns[0]
    if own.model != group.model or own.strategy != group.strategy:
        return f"See the section: {found.depends.leading} is described there."
    told = body(own)
    return f"{told[0].upper()}{told[1:]}"


def _how_sure(found: Findings, lead: Row) -> str:
    return " ".join(_doubts(found, lead))


def _doubts(found: Findings, lead: Row) -> Iterator[str]:
    dice = lead.dice
    base = (
        f"{subjects(dice)} {'subject' if dice.n_subjects == 1 else 'subjects'}, "
        f"{plural(dice.n_images, 'image')}, {plural(dice.n_targets, 'target')}"
    )
    if dice.lo is None:
        yield (
            f"Not sure: {base}, fewer than five {_who(lead)} "
            f"{'in it' if dice.n_tasks == 1 else 'in at least one task'}, so that there is no "
            "interval."
        )
    else:
        yield f"{base}; mean DICE {fraction(dice.value)}, 95\u00a0% interval {interval(dice)}."
    if "few" in dice.notes and dice.lo is not None:
        yield f"A task has only 5 to 11 {_who(lead)}: intervals are wide, and rough."
    if "by image" in dice.notes:
        yield "Patients are unknown: intervals are by image, too narrow if images share patients."
    placed = _placed(found)
    if placed and placed[0][0].first is not None:
        yield (
            f"With other subjects {placed[0][0].arm.model} by {_way(placed[0][0].arm)} would come "
            f"first in {percent(placed[0][0].first)} of resamples."
        )
    if any(against and _has_both(against) for _, against in placed):
        yield "Intervals of differences are not corrected for the number of comparisons; p is."
    if found.n_failed:
        yield f"{plural(found.n_failed, 'record')} failed and are in no mean."
    if found.training:
        yield found.training


def _has_both(against: Contrast) -> bool:
    """Tell whether a difference is shown with an interval and with a p."""
    return against.p_holm is not None and against.cell.difference.lo is not None


def _who(lead: Row) -> str:
    return "images" if lead.dice.n_subjects is None else "subjects"
