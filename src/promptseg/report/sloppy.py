"""How sloppy a prompt may be, as the report tells and draws it."""

from collections.abc import Sequence
from dataclasses import dataclass

from promptseg.report.words import fraction, plural
from promptseg.response import ALL, Level, Response
from promptseg.tolerance import LOST

WIDTH, HEIGHT = 560.0, 250.0
LEFT, RIGHT, TOP, BOTTOM = 48.0, 14.0, 10.0, 40.0
MOST_LINES = 4
METHOD = (
    "The loss is the exact prompt's DICE minus the jittered one's, of the same targets, averaged "
    "within targets, images, subjects and tasks, in this order. The tolerance radius is the "
    "distance at which the mean loss reaches 0.05, between the middles of two levels by a straight "
    "line; its interval is a percentile bootstrap over subjects, from five on."
)
MEASURES = {
    "px": "pixels",
    "rel": "of the target's size (√area)",
    "px as rel": "of the target's size (√area), from pixels",
}
MODES = {
    "centre": "the first point moves",
    "all": "every point moves",
    "shift": "the box is shifted",
    "edge": "every edge of the box moves",
}


@dataclass(frozen=True, slots=True)
class Mark:
    """One level of a line."""

    x: float
    y: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Trace:
    """One strategy's line; its place gives it its colour and shape."""

    label: str
    path: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """The losses of several strategies to one kind of jitter, in a box of WIDTH x HEIGHT."""

    title: str
    across: str
    traces: tuple[Trace, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    limit: float  # y of the loss that is tolerated
    n_left_out: int
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    bottom: float = HEIGHT - BOTTOM
    top: float = TOP


@dataclass(frozen=True, slots=True)
class Sloppy:
    """All of the section."""

    lines: tuple[str, ...]
    charts: tuple[Chart, ...]
    radii: tuple[Response, ...]  # of every task


def sloppy(found: Sequence[Response], several_models: bool) -> Sloppy | None:
    """Tell what jitter costs; None where nothing was jittered."""
    if not found:
        return None
    told = _overall([r for r in found if not r.off_protocol and r.levels])
    kinds = list(dict.fromkeys((r.mode, r.measure) for r in told))
    charts = tuple(
        _chart([r for r in told if (r.mode, r.measure) == kind], several_models) for kind in kinds
    )
    lines = tuple(sentence(r) for r in told if r.measure != "px as rel")
    return Sloppy(lines, charts, tuple(r for r in found if r.levels))


def _overall(found: Sequence[Response]) -> list[Response]:
    """Take the means over tasks, and where there are none the tasks."""
    names = ("model", "protocol", "unit", "strategy", "selection", "mode", "measure")
    groups: dict[tuple[str, ...], list[Response]] = {}
    for one in found:
        groups.setdefault(tuple(getattr(one, name) for name in names), []).append(one)
    return [one for own in groups.values() for one in ([r for r in own if r.task == ALL] or own)]


def distance(value: float, measure: str) -> str:
    """Write a distance in its measure."""
    return f"{value:.3g}\u00a0px" if measure == "px" else f"{value:.2g} of the size"


def radius(found: Response) -> str:
    """Write a tolerance radius, or that it lies beyond what was tried."""
    if found.radius is None:
        return f"beyond {distance(found.levels[-1].at, found.measure)}"
    return distance(found.radius, found.measure)


def radius_span(found: Response) -> str:
    """Write the interval of a radius; nothing where there is none."""
    if found.radius_lo is None:
        return ""
    high = (
        f"beyond {distance(found.levels[-1].at, found.measure)}"
        if found.radius_hi is None
        else distance(found.radius_hi, found.measure)
    )
    return f"{distance(found.radius_lo, found.measure)} to {high}"


def sentence(found: Response) -> str:
    """Say whose prompts were jittered, and what `clause` says."""
    told = clause(found)
    return f"{found.model} with {found.strategy} / {found.selection}: {told[0].lower()}{told[1:]}."


def clause(found: Response) -> str:
    """Say how much one kind of jitter costs, and how much of it is tolerated."""
    last = found.levels[-1]
    over = "" if found.task == ALL else f" in {found.task}"
    lead = f"When {MODES[found.mode]}"
    span = f" (95\u00a0% {radius_span(found)})" if radius_span(found) else ""
    if found.radius is None:
        return (
            f"{lead}, DICE has not lost {LOST:g} at {distance(last.at, found.measure)}{over}: it "
            f"went from {fraction(found.exact)} to {fraction(found.exact - last.loss)}"
        )
    who = "image" if found.by_image else "subject"
    return (
        f"{lead}, DICE has lost {LOST:g} at {radius(found)}{span}{over}; at "
        f"{distance(last.at, found.measure)} it went from {fraction(found.exact)} to "
        f"{fraction(found.exact - last.loss)} ({plural(last.n_subjects, who)})"
    )


def _label(one: Response, several_models: bool) -> str:
    words = f"{one.strategy} / {one.selection}"
    words = f"{one.model}, {words}" if several_models else words
    return words if one.task == ALL else f"{words}, {one.task}"


def _chart(lines: Sequence[Response], several_models: bool) -> Chart:
    shown = lines[:MOST_LINES]
    furthest = max(level.at for one in shown for level in one.levels)
    highest = max(
        LOST * 1.2,
        *(level.loss if level.hi is None else level.hi for one in shown for level in one.levels),
    )
    lowest = min(0.0, *(level.loss for one in shown for level in one.levels))
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if (highest - lowest) / s <= 6)

    def across(at: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * at / (1.05 * furthest)

    def down(loss: float) -> float:
        share = (min(loss, highest) - lowest) / (highest - lowest)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    def mark(level: Level) -> Mark:
        known = level.lo is not None and level.hi is not None
        return Mark(
            across(level.at),
            down(level.loss),
            down(max(lowest, level.lo or 0.0)) if known else None,
            down(level.hi or 0.0) if known else None,
        )

    traces = tuple(
        Trace(
            _label(one, several_models),
            "M" + "L".join(
                f"{across(x):.1f} {down(y):.1f}"
                for x, y in ((0.0, 0.0), *((level.at, level.loss) for level in one.levels))
            ),
            tuple(mark(level) for level in one.levels),
        )
        for one in shown
    )  # fmt: skip
    first = shown[0]
    n = int((highest - lowest) / step) + 1
    y_values = [lowest + i * step for i in range(n + 1) if lowest + i * step <= highest]
    x_values = sorted({level.at for one in shown for level in one.levels})
    return Chart(
        title=f"When {MODES[first.mode]}",
        across=f"Distance, {MEASURES[first.measure]}",
        traces=traces,
        x_ticks=tuple((across(at), f"{at:.3g}") for at in (0.0, *x_values)),
        y_ticks=tuple((down(value), f"{value:.2g}") for value in y_values),
        limit=down(LOST),
        n_left_out=len(lines) - len(shown),
    )
