"""Quality against cost, drawn: mean DICE by the time of one image with one prompt."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import floor, log10

from promptseg.contrast import Arm, Place

WIDTH, HEIGHT = 640.0, 320.0
LEFT, RIGHT, TOP, BOTTOM = 48.0, 18.0, 14.0, 44.0
DIFFERENT = 1.05  # ratio of costs below which there is nothing to weigh
CLOSE = 12.0  # labels nearer than this are moved apart


@dataclass(frozen=True, slots=True)
class Point:
    """One arm in the figure; `number` is its rank, by which the legend names it."""

    x: float
    y: float
    label_y: float
    number: int
    is_frontier: bool
    said: str


@dataclass(frozen=True, slots=True)
class Frontier:
    """The figure, in a box of WIDTH x HEIGHT."""

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
    """Draw arms by cost (a logarithmic axis) and DICE; None where costs hardly differ."""
    timed = [(place, time) for place in places if (time := _time(place)) is not None and time > 0]
    times, values = [time for _, time in timed], [place.dice for place, _ in timed]
    if not timed or max(times) < DIFFERENT * min(times):
        return None
    first, last = log10(min(times)) - 0.05, log10(max(times)) + 0.05
    low, high = _range(values)

    def across(time: float) -> float:
        return LEFT + 16 + (WIDTH - LEFT - RIGHT - 46) * (log10(time) - first) / (last - first)

    def down(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low)

    points = [
        Point(
            across(time), down(place.dice), down(place.dice), place.rank, place.is_frontier,
            f"{place.rank}: {name(place.arm)}, DICE {place.dice:.3f}, {time:.0f} ms",
        )
        for place, time in timed
    ]  # fmt: skip
    return Frontier(
        points=tuple(_apart(points)),
        path=_steps([point for point in points if point.is_frontier]),
        x_ticks=tuple(
            (across(value), f"{value:.3g}" if value < 1000 else f"{value:.0f}")
            for value in _ticks(times)
        ),
        y_ticks=tuple((down(value), f"{value:g}") for value in _y_values(low, high)),
    )


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
    """Move the labels of points that lie close apart, the higher ones up."""
    placed: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda one: one.y):
        at = point.y
        while any(abs(x - point.x) < 22 and abs(y - at) < CLOSE for x, y in placed):
            at += 1
        placed.append((point.x, at))
        yield Point(point.x, point.y, at, point.number, point.is_frontier, point.said)
