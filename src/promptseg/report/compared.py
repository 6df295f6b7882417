"""Which model and which prompt, as the report tells it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

from promptseg.contrast import (
    Arm,
    Contrast,
    Place,
    against_best,
    arms_of,
    oracle_gaps,
    ranking,
)
from promptseg.report.words import fraction, p_value, percent, plural, signed
from promptseg.stats import Estimate

SURE = 0.05
MOST_ARMS = 24
METHOD = (
    "Every way of answering (model, strategy, selection) is compared with the best one on the "
    "targets that both were scored on: differences are averaged within targets, images, subjects "
    "and tasks, intervals are over subjects, p is two-sided by flipping the signs of subjects, "
    "corrected by Holm for all pairs of the arms of a table, since these very scores choose the "
    "first. d is the mean of the subjects' differences over "
    "their standard deviation. The ranking counts only targets that all were scored on; how stable "
    "it is comes from 2,000 resamples of the subjects within data sets. Ways that look at the "
    "reference (oracle, everything) are ranked apart."
)
PROMPTLESS = (
    "were made without a prompt. A prompt, made from the reference, tells a model where to look; "
    "and what a tool draws where there is no target counts for nobody."
)


@dataclass(frozen=True, slots=True)
class Ranked:
    """A ranking of ways of answering, and each against the first."""

    title: str
    places: tuple[Place, ...]
    against: tuple[Contrast | None, ...]  # None: the first, or no common targets


@dataclass(frozen=True, slots=True)
class Compared:
    """All of the section."""

    lines: tuple[str, ...]
    rankings: tuple[Ranked, ...]
    gaps: tuple[Contrast, ...]
    several_models: bool
    several_protocols: bool
    n_left_out: int

    def name(self, arm: Arm) -> str:
        """Name an arm by what differs between arms."""
        words = f"{arm.strategy} / {arm.selection}"
        words = f"{words} ({arm.protocol} protocol)" if self.several_protocols else words
        return f"{arm.model}, {words}" if self.several_models else words


def compared(records: pl.DataFrame) -> Compared | None:
    """Compare all ways of answering; None where there is only one."""
    arms = arms_of(records)
    if len(arms) < 2:
        return None
    groups = [
        ("What a user gets", [arm for arm in arms if arm.is_deployable]),
        ("With the reference at hand: upper bounds", [a for a in arms if not a.is_deployable]),
    ]
    rankings = [
        found
        for title, own in groups
        if len(own) > 1 and (found := _ranked(records, title, own[:MOST_ARMS]))
    ]
    gaps = oracle_gaps(records, arms)[:MOST_ARMS]
    if not rankings and not gaps:
        return None
    whole = Compared(
        lines=(),
        rankings=tuple(rankings),
        gaps=tuple(gaps),
        several_models=len({arm.model for arm in arms}) > 1,
        several_protocols=len({arm.protocol for arm in arms}) > 1,
        n_left_out=len(set(arms) - _shown(rankings, gaps)),
    )
    return replace(whole, lines=(*_said(whole), *_promptless(whole), *_gap_said(whole)))


def _shown(rankings: Sequence[Ranked], gaps: Sequence[Contrast]) -> set[Arm]:
    """List the arms that stand in a table."""
    ranked = {place.arm for one in rankings for place in one.places}
    return ranked | {arm for gap in gaps for arm in (gap.arm, gap.against)}


def _ranked(records: pl.DataFrame, title: str, arms: Sequence[Arm]) -> Ranked | None:
    places = ranking(records, arms)
    if not places:
        return None
    found = {one.arm: one for one in against_best(records, arms, places[0].arm)}
    return Ranked(title, tuple(places), tuple(found.get(place.arm) for place in places))


def signed_span(item: Estimate) -> str:
    """Write the interval of a difference; nothing where there is none."""
    if item.lo is None or item.hi is None:
        return ""
    return f"{signed(item.lo)} to {signed(item.hi)}"


def judged(found: Contrast) -> str:
    """Write the p of a contrast, or why there is none."""
    if found.p_holm is None:
        return "too few subjects to test"
    return p_value(found.p_holm)


def _said(whole: Compared) -> list[str]:
    """Say which way is best, and which of the others are worse beyond chance."""
    if not whole.rankings or not whole.rankings[0].places[0].arm.is_deployable:
        return []
    first = whole.rankings[0].places[0]
    contrasts = [one for one in whole.rankings[0].against if one is not None]
    lead = (
        f"{whole.name(first.arm)} has the highest mean DICE of what a user gets, "
        f"{fraction(first.dice)}"
    )
    if first.first is not None:
        lead += f"; with other subjects it would come first in {percent(first.first)} of resamples"
    told = [f"{lead}."]
    if contrasts and all(one.p_holm is None for one in contrasts):
        return [f"{told[0]} The subjects are too few to test whether any other is worse."]
    sure = [one for one in contrasts if is_sure(one)]
    groups = {
        "Worse beyond chance": [one for one in sure if (one.cell.difference.value or 0) < 0],
        "Better beyond chance on the targets that both have": [
            one for one in sure if (one.cell.difference.value or 0) > 0
        ],
        "Not told apart from it": [
            one for one in contrasts if one.p_holm is not None and not is_sure(one)
        ],
        "Too few subjects to test": [one for one in contrasts if one.p_holm is None],
    }
    for title, own in groups.items():
        if own:
            names = (f"{whole.name(o.arm)} ({signed(o.cell.difference.value)})" for o in own)
            told.append(f"{title}: {', '.join(names)}.")
    return [" ".join(told)]


def _promptless(whole: Compared) -> list[str]:
    """Say what masks of other tools were made without, where they are compared with prompts."""
    arms = [place.arm for ranked in whole.rankings for place in ranked.places]
    tools = [arm.model for arm in arms if arm.strategy == "masks"]
    if not tools or len(tools) == len(arms):
        return []
    return [f"The masks of {' and '.join(dict.fromkeys(tools))} {PROMPTLESS}"]


def is_sure(one: Contrast) -> bool:
    """Tell whether a difference is more than chance after correction."""
    return one.p_holm is not None and one.p_holm < SURE


def _gap_said(whole: Compared) -> list[str]:
    known = [one for one in whole.gaps if one.cell.difference.value is not None]
    if not known:
        return []
    largest = min(known, key=lambda one: one.cell.difference.value or 0.0)
    lost = -(largest.cell.difference.value or 0.0)
    if lost <= 0:
        return []
    return [
        f"The oracle gap is largest with {whole.name(largest.arm)}: {fraction(lost)} DICE below "
        f"the best of its candidates, which only the reference can point out "
        f"({plural(largest.cell.n_pairs, 'pair')})."
    ]
