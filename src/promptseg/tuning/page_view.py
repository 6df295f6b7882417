"""What the before/after report draws: the table, a slope for each task, and the curves."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from promptseg.paired import Cell
from promptseg.report.words import Naming
from promptseg.tuning.outcome import Outcome
from promptseg.tuning.page_story import OTHER, TRAINED, Story
from promptseg.tuning.page_words import SCOPES

MOST_SLOPES = 60  # faint lines of one task
POINTS = 400  # of a curve
SMOOTHED = 0.04  # of all steps: the width over which the loss is averaged
STEPS_OF_AXIS = (0.05, 0.1, 0.2, 0.25)


@dataclass(frozen=True, slots=True)
class Line:
    """One strategy of a task: a cell per selection, None where it was not run."""

    label: str
    cells: tuple[Cell | None, ...]

    @property
    def first(self) -> Cell:
        """Give the first cell, whose counts stand for the line."""
        return next(cell for cell in self.cells if cell is not None)


@dataclass(frozen=True, slots=True)
class Block:
    """The lines of one task, or of a mean over tasks."""

    title: str
    is_mean: bool
    is_trained: bool
    lines: tuple[Line, ...]


def blocks(story: Story, name: Naming) -> list[Block]:
    """Lay the comparison out: means first, then the tasks trained on, then the others."""
    found = story.comparison
    means = [
        Block(SCOPES[scope], True, scope == TRAINED, lines)
        for scope in (TRAINED, OTHER)
        if (lines := _lines(story, [c for c in found.means if c.scope == scope], name))
    ]
    tasks = sorted({str(c.group.task) for c in found.cells})
    tasks.sort(key=lambda task: not story.is_trained(task))
    return means + [
        Block(
            task,
            False,
            story.is_trained(task),
            _lines(story, [c for c in found.cells if c.group.task == task], name),
        )
        for task in tasks
    ]


def _lines(story: Story, cells: Sequence[Cell], name: Naming) -> tuple[Line, ...]:
    several = len({c.group.unit for c in story.comparison.cells}) > 1
    groups: dict[str, dict[str, Cell]] = {}
    for cell in sorted(cells, key=story.place):
        unit = f", by {cell.group.unit}" if several else ""
        label = f"{name.strategy(cell.group)}{unit}"
        groups.setdefault(label, {})[cell.group.selection] = cell
    return tuple(
        Line(label, tuple(own.get(selection) for selection in story.selections))
        for label, own in groups.items()
    )


def as_csv(story: Story) -> str:
    """Write every row of the comparison with full precision; undefined is an empty field."""
    cells = (*story.comparison.means, *story.comparison.cells)
    rows = [_flat(story, cell) for cell in cells]
    sink = io.StringIO()
    writer = csv.DictWriter(sink, list(rows[0]) if rows else ["task"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue()


def _flat(story: Story, cell: Cell) -> dict[str, str | int | float | bool | None]:
    group, item = cell.group, cell.difference
    trained = cell.scope == TRAINED if cell.scope else story.is_trained(group.task)
    return {
        "task": group.task,
        "mean_over": cell.scope,
        "trained_on": trained,
        "before": story.comparison.before,
        "after": story.comparison.after,
        "strategy": group.strategy,
        "selection": group.selection,
        "protocol": group.protocol,
        "unit": group.unit,
        "jitter": group.jitter,
        "off_protocol": cell.off,
        "dice_before": cell.before,
        "dice_after": cell.after,
        "difference": item.value,
        "difference_lo": item.lo,
        "difference_hi": item.hi,
        "interval": item.method,
        "effect_size": cell.effect,
        "p": cell.p,
        "p_holm": cell.p_holm,
        "verdict": cell.verdict,
        "n_tasks": item.n_tasks,
        "n_subjects": item.n_subjects,
        "n_units": cell.n_units,
        "n_images": item.n_images,
        "n_targets": item.n_targets,
        "n_pairs": cell.n_pairs,
        **asdict(cell.counts),
        "notes": "; ".join(item.notes),
    }


@dataclass(frozen=True, slots=True)
class Slope:
    """One task of the figure; `lines` are the units shown, all or a part that is spread evenly."""

    task: str
    strategy: str
    is_trained: bool
    cell: Cell
    lines: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Slopes:
    """The figure: DICE before above DICE after, on an axis from `lo` to `hi`."""

    lo: float
    hi: float
    ticks: tuple[float, ...]
    rows: tuple[Slope, ...]
    strategies: tuple[str, ...]
    thinned: bool

    def at(self, value: float) -> str:
        """Give the place of a value along the axis."""
        return f"{100 * (value - self.lo) / (self.hi - self.lo):.2f}%"


def slopes(story: Story) -> Slopes | None:
    """Draw what the training is judged by, the tasks trained on first; None without a value."""
    cells = sorted(
        story.led(),
        key=lambda c: (not story.is_trained(c.group.task), story.place(c), -(c.after or 0.0)),
    )
    if not cells:
        return None
    rows = tuple(
        Slope(
            str(cell.group.task),
            cell.group.strategy,
            story.is_trained(cell.group.task),
            cell,
            tuple(_spread(cell)),
        )
        for cell in cells
    )
    ends = [value for row in rows for line in row.lines for value in line]
    ends += [value for row in rows for value in (row.cell.before, row.cell.after) if value]
    lo, hi, ticks = axis(min(ends, default=0.0), max(ends, default=1.0))
    strategies = tuple(dict.fromkeys(row.strategy for row in rows))
    thinned = any(len(row.cell.units) > MOST_SLOPES for row in rows)
    return Slopes(lo, hi, ticks, rows, strategies, thinned)


def _spread(cell: Cell) -> Iterator[tuple[float, float]]:
    """Thin many units, keeping those of the largest and the smallest change."""
    units = sorted(cell.units, key=lambda unit: unit.after - unit.before)
    last = min(len(units), MOST_SLOPES)
    for i in np.linspace(0, len(units) - 1, last).round().astype(int):
        yield units[i].before, units[i].after


def axis(lowest: float, highest: float) -> tuple[float, float, tuple[float, ...]]:
    """Choose an axis of DICE with at most six steps, whose ends are round numbers."""
    step = next((s for s in STEPS_OF_AXIS if (highest - lowest) / s <= 5), STEPS_OF_AXIS[-1])
    lo = step * np.floor(lowest / step + 1e-9)
    hi = max(step * np.ceil(highest / step - 1e-9), lo + step)
    ticks = tuple(np.round(np.arange(lo, hi + step / 2, step), 4).tolist())
    return ticks[0], ticks[-1], ticks


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve in a box of 1000 x 1000: y runs down."""

    title: str
    path: str
    faint: str  # the same before smoothing
    low: float
    high: float
    end: float  # of the x axis, in epochs
    marks: tuple[tuple[float, float, float, bool], ...] = ()  # x, y in percent, value, is best


def curves(outcome: Outcome) -> list[Curve]:
    """Draw the loss by step, and where states were validated, their DICE by epoch."""
    found = []
    per_epoch = max(outcome.steps_per_epoch, 1)
    loss = np.array([step[0] for step in outcome.steps], dtype=np.float64)
    if len(loss) > 1:
        done = (np.arange(len(loss)) + 1) * outcome.steps_per_row
        at = np.minimum(done, outcome.n_steps) / per_epoch
        found.append(_curve("Loss in training, smoothed", at, smoothed(loss), loss))
    if len(outcome.epochs) > 1:
        at = np.array([epoch["step"] / per_epoch for epoch in outcome.epochs])
        dice = np.array([epoch["dice"] for epoch in outcome.epochs])
        best = [epoch["step"] == outcome.best_step for epoch in outcome.epochs]
        curve = _curve("DICE on the subjects that choose the best state", at, dice, None, best)
        found.append(curve)
    return found


def smoothed(values: np.ndarray) -> np.ndarray:
    """Average values over a window around each, which is cut at the ends."""
    half = max(1, round(SMOOTHED * len(values) / 2))
    total = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    start, stop = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    mean: np.ndarray = (total[stop] - total[start]) / (stop - start)
    return mean


def _curve(
    title: str,
    x: np.ndarray,
    y: np.ndarray,
    raw: np.ndarray | None,
    best: Sequence[bool] = (),
) -> Curve:
    # single peaks of the raw loss are cut, or the curve would be flat
    tall = y if raw is None else np.concatenate([y, np.quantile(raw, [0.02, 0.98])])
    low, high = float(tall.min()), float(tall.max())
    room = 0.08 * (high - low) or 0.05
    low, high = low - room, high + room
    end = float(x[-1])
    marks = [
        (100 * px / end if end else 0.0, 100 * (high - py) / (high - low), float(py), is_best)
        for px, py, is_best in zip(x, y, best, strict=False)
    ]
    faint = "" if raw is None else _path(x / end, (high - np.clip(raw, low, high)) / (high - low))
    line = _path(x / end, (high - y) / (high - low))
    return Curve(title, line, faint, low, high, end, tuple(marks))


def _path(x: np.ndarray, y: np.ndarray) -> str:
    chosen = np.unique(np.linspace(0, len(x) - 1, min(len(x), POINTS)).round().astype(int))
    points = [f"{1000 * x[i]:.1f} {1000 * y[i]:.1f}" for i in chosen]
    return "M" + "L".join(points)
