"""The page of a learning curve: one HTML file that says, draws and lists what was found."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from promptseg.parquet import write_atomically
from promptseg.report.template import template
from promptseg.report.words import fraction, plural
from promptseg.stats import FEW, FEWEST
from promptseg.tuning.curve import Learned
from promptseg.tuning.curve_fit import Curve, Place, Span
from promptseg.tuning.page_view import axis
from promptseg.tuning.page_words import METHODS, signed

HERE = Path(__file__).parent
REPORT = "curve.html"
WIDTH, HEIGHT = 860.0, 360.0
LEFT, RIGHT, TOP, BOTTOM = 56.0, 24.0, 12.0, 30.0
CLOSEST = 30.0  # of two labels of the axis


def spread(span: Span) -> str:
    """Write an interval of DICE in brackets; nothing where there is none."""
    if span.lo is None or span.hi is None:
        return ""
    return f"95\u00a0% {fraction(span.lo)}–{fraction(span.hi)}"


def signed_spread(span: Span) -> str:
    """Write the interval of a difference; nothing where there is none."""
    if span.lo is None or span.hi is None:
        return ""
    return f"95\u00a0% {signed(span.lo)} to {signed(span.hi)}"


def _with(value: str, told: str) -> str:
    return f"{value} ({told})" if told else value


def answer(found: Learned) -> str:
    """Say how good the most subjects are, and what more would give where the fit supports it."""
    curve = found.curve
    last = curve.points[-1]
    lead = (
        f"With {plural(last.size, found.unit)} DICE is "
        f"{_with(fraction(last.dice.value), spread(last.dice))}"
    )
    if curve.verdict == "reaches":
        return f"{lead}; {_twice(curve)}{_goal(curve)}."
    return f"{lead}. What more would give is not said: {_why_not(found)}."


def _twice(curve: Curve) -> str:
    place = curve.ahead[0]
    return (
        f"twice as many would give {_with(fraction(place.dice.value), spread(place.dice))}, "
        f"which is {_with(signed(place.gain.value), signed_spread(place.gain))}"
    )


def _goal(curve: Curve) -> str:
    goal = curve.goal
    if goal is None:
        return ""
    most = f"more than {4 * curve.points[-1].size}" if goal.hi is None else str(goal.hi)
    return f"; reaching {goal.dice:.3g} would take about {goal.n} (95\u00a0% {goal.lo} to {most})"


def _why_not(found: Learned) -> str:
    curve = found.curve
    first, last = curve.points[0].size, curve.points[-1].size
    seen = _with(signed(curve.seen.value), signed_spread(curve.seen))
    course = f"from {first} to {plural(last, found.unit)}"
    match curve.verdict:
        case "few sizes":
            return (
                f"{len(curve.points)} sizes were trained on, and a fitted curve needs three or "
                f"more; {course} DICE changed by {seen}"
            )
        case "few subjects":
            return (
                f"{plural(curve.n_subjects, found.unit)} held out give no interval, five for every "
                "task are the fewest"
            )
        case "flat":
            return (
                f"{course} DICE changed by {seen}, so that the curve is flat as far as these "
                f"{plural(curve.n_subjects, found.unit)} held out can tell"
            )
        case "falls":
            return f"{course} DICE fell, by {seen}: look at the training before adding cases"
    ahead = curve.ahead[0].gain
    return (
        f"for twice as many the fitted curve gives a change of "
        f"{_with(signed(ahead.value), signed_spread(ahead))}, an interval that is wider than the "
        f"gain of {signed(curve.seen.value)} seen {course}"
    )


def trained(found: Learned) -> str:
    """Say what was trained, and on what the curve rests."""
    curve, unit = found.curve, found.unit
    method = METHODS.get(str(found.settings.get("method")), "a part of it")
    tasks = f"in {found.tasks[0]}" if len(found.tasks) == 1 else f"over {len(found.tasks)} tasks"
    return (
        f"{found.base} with {method} trained, {plural(curve.n_draws, 'draw')} per size. Mean DICE "
        f"{tasks}, with {' and '.join(found.strategies)} / {found.selection}, on "
        f"{plural(curve.n_subjects, unit)} held out; untrained it is "
        f"{_with(fraction(curve.base.value), spread(curve.base))}."
    )


def doubts(found: Learned) -> list[str]:
    """List what to look at twice."""
    curve, unit = found.curve, found.unit
    left_out = plural(found.n_left_out, f"{unit} mean")
    told = {
        f"One draw per size: which {unit}s are drawn, and chance in training, are in no "
        "interval. Give --repeats 3 or more.": curve.n_draws == 1,
        f"Few {unit}s are held out: the intervals rest on {curve.n_subjects}.": (
            curve.base.lo is not None and curve.n_subjects < FEW
        ),
        f"Fewer than five {unit}s are held out: there are no intervals, and the table shows "
        "every one of them. Hold out more (--test-share).": curve.n_subjects < FEWEST,
        "The exponent is at its bound: the gain ends within the sizes trained on.": (
            curve.law is not None and curve.law.c >= 1.99
        ),
        f"{plural(found.n_choosing, unit)} more choose the best state at every size: they are "
        "not counted in the sizes, but have to be had as well.": found.n_choosing > 0,
        f"{found.base} was not trained for this prompt or selection: its own DICE is no "
        "measure of what it can do.": found.off_protocol,
        f"Not trained on, and in no number here: {', '.join(found.others)}.": bool(found.others),
        f"{left_out} of a task left out, for want of a score of every model.": (
            found.n_left_out > 0
        ),
    }
    return [line for line, holds in told.items() if holds]


@dataclass(frozen=True, slots=True)
class Figure:
    """The curve as SVG has it, in a box of WIDTH x HEIGHT; x is logarithmic."""

    x: Callable[[float], str]
    y: Callable[[float], str]
    y_ticks: tuple[float, ...]
    x_ticks: tuple[int, ...]
    fitted: str  # path within what was trained on
    beyond: str  # path of the extrapolation
    band: str
    means: str  # path through the means
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    bottom: float = HEIGHT - BOTTOM
    top: float = TOP


def figure(curve: Curve) -> Figure:
    """Draw the points, their means, and the fitted curve with its band."""
    lo, hi, ticks = axis(*_ends(curve))
    first, last = curve.points[0].size, curve.points[-1].size
    start, stop = np.log(first), np.log(last * curve.reach)
    margin = 0.05 * (stop - start)
    start, stop = start - margin, stop + margin

    def across(n: float) -> float:
        return float(LEFT + (WIDTH - LEFT - RIGHT) * (np.log(n) - start) / (stop - start))

    def down(value: float) -> float:
        return float(TOP + (HEIGHT - TOP - BOTTOM) * (hi - value) / (hi - lo))

    def path(places: Sequence[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{across(n):.1f} {down(v):.1f}" for n, v in places)

    inside = [(p.n, p.dice.value) for p in curve.course if p.n <= last * 1.0001]
    beyond = [(p.n, p.dice.value) for p in curve.course if p.n > last * 1.0001]
    return Figure(
        x=lambda n: f"{across(n):.1f}",
        y=lambda value: f"{down(value):.1f}",
        y_ticks=ticks,
        x_ticks=_apart(curve, across),
        fitted=path(inside) if inside else "",
        beyond=path([inside[-1], *beyond]) if beyond else "",
        band=path(_around(curve.course)) + "Z" if curve.course else "",
        means=path([(p.size, p.dice.value) for p in curve.points]),
    )


def _ends(curve: Curve) -> tuple[float, float]:
    """Find the lowest and the highest value that has to be seen."""
    spans = [curve.base, *(point.dice for point in curve.points)]
    if curve.reach > 1:
        spans += [place.dice for place in curve.course]
    values = [value for point in curve.points for value in point.draws]
    values += [value for s in spans for value in (s.value, s.lo, s.hi) if value is not None]
    return min(values), max(values)


def _around(course: Sequence[Place]) -> list[tuple[float, float]]:
    low = [(place.n, place.dice.lo or 0.0) for place in course]
    high = [(place.n, place.dice.hi or 0.0) for place in course]
    return [*low, *reversed(high)]


def _apart(curve: Curve, across: Callable[[float], float]) -> tuple[int, ...]:
    """Choose the numbers of the axis that can be read: the largest ones come first."""
    last = curve.points[-1].size
    wanted = [last, *(last * times for times in (2, 4) if times <= curve.reach)]
    wanted += [point.size for point in reversed(curve.points)]
    kept: list[int] = []
    for n in wanted:
        if all(abs(across(n) - across(other)) >= CLOSEST for other in kept):
            kept.append(n)
    return tuple(sorted(kept))


def render(found: Learned) -> str:
    """Render the page."""
    filters: dict[str, Callable[..., str]] = {
        "signed": signed,
        "spread": spread,
        "signed_spread": signed_spread,
    }
    return template(HERE / "curve.html.jinja", **filters).render(
        title=f"{found.name}: how many cases are needed",
        found=found,
        curve=found.curve,
        answer=answer(found),
        trained=trained(found),
        doubts=doubts(found),
        figure=figure(found.curve),
        settings=sorted(found.settings.items()),
        several=len(found.tasks) > 1,
    )


def write_curve_page(folder: Path, found: Learned) -> Path:
    """Write `curve.html`, and return its path."""
    write_atomically(folder / REPORT, render(found).encode())
    return folder / REPORT
