"""Quality against cost, drawn: mean DICE by the time of one image with one prompt.

A strategy is one point, by its best selection: its selections come from the same answers. A model
whose strategies all cost the same is one point, by the best of them, and the figure says so.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import cos, floor, hypot, log10, pi, sin

from promptseg.contrast import Arm, Place

WIDTH, HEIGHT = 640.0, 320.0
LEFT, RIGHT, TOP, BOTTOM = 48.0, 18.0, 14.0, 44.0
DIFFERENT = 1.05  # ratio of costs below which there is nothing to weigh
RADIUS = 5.0  # of a point
DIGIT, LINE = 7.5, 11.0  # the width of a digit of a label, and its height
NEAR, RINGS = 13.0, 8  # how far a label is from its point at least, and how often as far at most


@dataclass(frozen=True, slots=True)
class Point:
    """One arm in the figure; `number` is its rank, by which the table names it."""

    x: float
    y: float
    label_x: float  # the middle of the label
    label_y: float
    number: int
    is_frontier: bool
    said: str

    @property
    def is_led(self) -> bool:
        """Tell whether the label is so far away that a line has to lead to it."""
        return hypot(self.label_x - self.x, self.label_y - self.y) > 1.5 * NEAR


@dataclass(frozen=True, slots=True)
class Frontier:
    """The figure, in a box of WIDTH x HEIGHT; without points only what is said of the costs."""

    notes: tuple[str, ...]
    points: tuple[Point, ...]
    path: str  # through the arms on the frontier, as steps
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM


def frontier(places: Sequence[Place], name: Callable[[Arm], str]) -> Frontier | None:
    """Draw arms by cost (a logarithmic axis) and DICE; None where no two have a cost."""
    timed = [(place, time) for place in places if (time := _time(place)) is not None and time > 0]
    if len(timed) < 2:
        return None
    every = [time for _, time in timed]
    if _alike(every):
        cost = f"about {sorted(every)[len(every) // 2]:.0f} ms for an image with one prompt"
        note = f"All of these cost the same, {cost}: there is nothing to weigh."
        return Frontier(notes=(note,), points=(), path="", x_ticks=(), y_ticks=())
    drawn, notes = _drawn(timed)
    times = [time for _, time in drawn]
    low, high = _range([place.dice for place, _ in drawn])
    first, last = log10(min(times)) - 0.05, log10(max(times)) + 0.05

    def across(time: float) -> float:
        return LEFT + 16 + (WIDTH - LEFT - RIGHT - 46) * (log10(time) - first) / (last - first)

    def down(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low)

    points = [
        Point(
            across(time), down(place.dice), across(time), down(place.dice), place.rank,
            place.is_frontier,
            f"{place.rank}: {name(place.arm)}, DICE {place.dice:.3f}, {time:.0f} ms",
        )
        for place, time in drawn
    ]  # fmt: skip
    return Frontier(
        notes=notes,
        points=tuple(_apart(points)),
        path=_steps([point for point in points if point.is_frontier]),
        x_ticks=tuple(
            (across(value), f"{value:.3g}" if value < 1000 else f"{value:.0f}")
            for value in _ticks(times)
        ),
        y_ticks=tuple((down(value), f"{value:g}") for value in _y_values(low, high)),
    )


def _alike(times: Sequence[float]) -> bool:
    return max(times) < DIFFERENT * min(times)


def _drawn(
    timed: Sequence[tuple[Place, float]],
) -> tuple[list[tuple[Place, float]], tuple[str, ...]]:
    """Choose the best place of every strategy, or of a model whose strategies cost the same."""
    of_model: dict[str, dict[tuple[str, str], tuple[Place, float]]] = {}
    for place, time in sorted(timed, key=lambda pair: pair[0].rank):
        strategies = of_model.setdefault(place.arm.model, {})
        strategies.setdefault((place.arm.protocol, place.arm.strategy), (place, time))
    drawn: list[tuple[Place, float]] = []
    notes: list[str] = []
    for model, strategies in of_model.items():
        own = list(strategies.values())
        if len(own) > 1 and _alike([time for _, time in own]):
            notes.append(f"All {len(own)} prompts of {model} cost the same: its best is drawn.")
            own = own[:1]
        drawn += own
    return drawn, tuple(notes)


def _time(place: Place) -> float | None:
    if place.embed_ms is None or place.decode_ms is None:
        return None
    return place.embed_ms + place.decode_ms


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Choose round ends that hold all values; DICE lies in [0, 1]."""
    low, high = max(0.0, floor(10 * min(values) - 0.3) / 10), min(1.0, max(values) + 0.05)
    return low, max(high, low + 0.1)


def _y_values(low: float, high: float) -> list[float]:
    step = 0.2 if high - low > 0.6 else 0.1 if high - low > 0.25 else 0.05
    first = round(low / step)
    return [round(i * step, 2) for i in range(first, round(1 / step) + 1) if i * step <= high]


def _ticks(times: Sequence[float]) -> Iterator[float]:
    """Yield the ends, and round numbers between them."""
    yield min(times)
    for power in range(floor(log10(min(times))), floor(log10(max(times))) + 1):
        for digit in (1, 2, 5):
            value = float(digit * 10.0**power)
            if min(times) * 1.15 <= value <= max(times) / 1.15:
                yield value
    yield max(times)


def _steps(points: Sequence[Point]) -> str:
    ordered = sorted(points, key=lambda point: point.x)
    if not ordered:
        return ""
    path = f"M{ordered[0].x:.1f} {ordered[0].y:.1f}"
    return path + "".join(f"H{point.x:.1f}V{point.y:.1f}" for point in ordered[1:])


def _apart(points: Sequence[Point]) -> Iterator[Point]:
    """Put every label beside its point, on no other label and on no point."""
    taken = [_Box(point.x, point.y, 2 * RADIUS, 2 * RADIUS) for point in points]
    for point in points:
        width = DIGIT * len(str(point.number))
        around = (_Box(x, y, width, LINE) for x, y in _around(point))
        free = (box for box in around if box.is_inside() and not any(map(box.meets, taken)))
        box = next(free, _Box(point.x + NEAR, point.y, width, LINE))
        taken.append(box)
        yield replace(point, label_x=box.x, label_y=box.y)


def _around(point: Point) -> Iterable[tuple[float, float]]:
    """Yield where a label may be: to the right first, then around, then further away."""
    for ring in range(1, RINGS + 1):
        for eighth in (0, 4, 6, 2, 7, 1, 5, 3):
            angle = eighth * pi / 4
            yield point.x + ring * NEAR * cos(angle), point.y + ring * NEAR * sin(angle)


@dataclass(frozen=True, slots=True)
class _Box:
    """What a label or a point covers, by its middle."""

    x: float
    y: float
    width: float
    height: float

    def meets(self, other: "_Box") -> bool:
        """Tell whether two boxes overlap."""
        return (
            2 * abs(self.x - other.x) < self.width + other.width
            and 2 * abs(self.y - other.y) < self.height + other.height
        )

    def is_inside(self) -> bool:
        """Tell whether a box lies within the axes."""
        across = abs(self.x - (LEFT + WIDTH - RIGHT) / 2) <= (WIDTH - RIGHT - LEFT - self.width) / 2
        return across and TOP <= self.y <= HEIGHT - BOTTOM - self.height / 2
