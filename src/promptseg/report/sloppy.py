"""How sloppy a prompt may be, as the report tells and draws it."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from promptseg.report.words import count, fraction, plural
from promptseg.response import ALL, Level, Response
from promptseg.tolerance import LOST

WIDTH, HEIGHT = 560.0, 250.0
LEFT, RIGHT, TOP, BOTTOM = 48.0, 14.0, 10.0, 40.0
MOST_LINES = 4  # of one chart: marks and colours that are told apart
MOST_CHARTS = 4  # of one kind of jitter
STEPS = (1.0, 2.0, 5.0)  # of axes, times a power of ten
CHOICE = ("predicted", "single", "oracle")  # which selection is drawn: what a user gets goes first
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
IN = {
    "px": "pixels",
    "rel": "share of size",
    "px as rel": "share of size, from pixels",
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
    base: str  # how many subjects and targets its levels are of
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
    told = _chosen(_overall([r for r in found if not r.off_protocol and r.levels]))
    kinds = list(dict.fromkeys((r.mode, r.measure) for r in told))
    charts = tuple(
        chart
        for kind in kinds
        for chart in _charts([r for r in told if (r.mode, r.measure) == kind], several_models)
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


def _chosen(found: Sequence[Response]) -> list[Response]:
    """Take one selection of every model and strategy: that of `CHOICE` which comes first."""

    def place(one: Response) -> int:
        return CHOICE.index(one.selection) if one.selection in CHOICE else len(CHOICE)

    names = ("model", "protocol", "unit", "strategy", "mode", "measure")
    first: dict[tuple[str, ...], int] = {}
    for one in found:
        key = tuple(getattr(one, name) for name in names)
        first[key] = min(place(one), first.get(key, len(CHOICE)))
    return [one for one in found if place(one) == first[tuple(getattr(one, n) for n in names)]]


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


@dataclass(frozen=True, slots=True)
class _Axes:
    """The axes of a kind of jitter: they end at round numbers, and hold every interval whole."""

    furthest: float
    lowest: float
    highest: float
    x_step: float
    y_step: float

    @classmethod
    def of(cls, lines: Sequence[Response]) -> "_Axes":
        """Choose axes that hold some lines, no loss, and the loss that is tolerated."""
        levels = [level for one in lines for level in one.levels]
        ends = [end for one in levels for end in (one.loss, one.lo, one.hi) if end is not None]
        furthest, low, high = max(one.at for one in levels), min(0.0, *ends), max(1.2 * LOST, *ends)
        x_step, y_step = _step(furthest, 6), _step(high - low, 6)
        return cls(
            furthest,
            y_step * floor(low / y_step + 1e-9),
            y_step * ceil(high / y_step - 1e-9),
            x_step,
            y_step,
        )

    def across(self, at: float) -> float:
        """Place a distance."""
        return LEFT + (WIDTH - LEFT - RIGHT) * at / (1.05 * self.furthest)

    def down(self, loss: float) -> float:
        """Place a loss."""
        share = (loss - self.lowest) / (self.highest - self.lowest)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    def mark(self, level: Level) -> Mark:
        """Place a level with its interval."""
        return Mark(
            self.across(level.at),
            self.down(level.loss),
            None if level.lo is None else self.down(level.lo),
            None if level.hi is None else self.down(level.hi),
        )

    def x_ticks(self) -> tuple[tuple[float, str], ...]:
        """Give round distances, from none on."""
        n = floor(1.05 * self.furthest / self.x_step)
        return tuple((self.across(i * self.x_step), _number(i * self.x_step)) for i in range(n + 1))

    def y_ticks(self) -> tuple[tuple[float, str], ...]:
        """Give round losses; none is among them."""
        first, last = round(self.lowest / self.y_step), round(self.highest / self.y_step)
        values = [i * self.y_step for i in range(first, last + 1)]
        return tuple((self.down(value), _number(value)) for value in values)


def _step(length: float, most: int) -> float:
    """Find the smallest round step of which at most so many fit into a length."""
    power = 10.0 ** floor(max(-9.0, log10(length) - 2)) if length > 0 else 1.0
    steps = (digit * power * 10.0**more for more in range(5) for digit in STEPS)
    return next(step for step in steps if length / step <= most)


def _number(value: float) -> str:
    return f"{round(value, 9) + 0.0:g}".replace("-", "\N{MINUS SIGN}")


def _charts(lines: Sequence[Response], several_models: bool) -> list[Chart]:
    """Draw one kind of jitter, in as many charts of the same axes as its lines need."""
    drawn = lines[: MOST_LINES * MOST_CHARTS]
    axes = _Axes.of(drawn)
    parts = [drawn[i : i + MOST_LINES] for i in range(0, len(drawn), MOST_LINES)]
    return [
        _chart(
            part,
            axes,
            f", {place} of {len(parts)}" if len(parts) > 1 else "",
            several_models,
            len(lines) - len(drawn) if place == len(parts) else 0,
        )
        for place, part in enumerate(parts, start=1)
    ]


def _chart(
    lines: Sequence[Response], axes: _Axes, which: str, several_models: bool, n_left_out: int
) -> Chart:
    first = lines[0]
    traces = (
        Trace(
            _label(one, several_models),
            "M" + "L".join(
                f"{axes.across(x):.1f} {axes.down(y):.1f}"
                for x, y in ((0.0, 0.0), *((level.at, level.loss) for level in one.levels))
            ),
            tuple(axes.mark(level) for level in one.levels),
        )
        for one in lines
    )  # fmt: skip
    return Chart(
        title=f"When {MODES[first.mode]} ({IN[first.measure]}){which}",
        base=_base(lines),
        across=f"Distance, {MEASURES[first.measure]}",
        traces=tuple(traces),
        x_ticks=axes.x_ticks(),
        y_ticks=axes.y_ticks(),
        limit=axes.down(LOST),
        n_left_out=n_left_out,
    )


def _base(lines: Sequence[Response]) -> str:
    """Write how many subjects and targets the levels of some lines are of."""
    who = "images" if any(one.by_image for one in lines) else "subjects"
    levels = [level for one in lines for level in one.levels]
    n_subjects = {level.n_subjects for level in levels}
    n_targets = {level.n_targets for level in levels}
    return f"{_span(n_subjects)} {who}, {_span(n_targets)} targets"


def _span(numbers: set[int]) -> str:
    low, high = count(min(numbers)), count(max(numbers))
    return low if low == high else f"{low} to {high}"
