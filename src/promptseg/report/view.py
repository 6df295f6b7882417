"""What the page shows as tables and figure: columns, lines and marks, ready to be drawn."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from promptseg.report.table import Pool, Row, is_deployable
from promptseg.report.words import Naming
from promptseg.stats import Group, unit_means

COLUMNS_PER_TABLE = 9  # what fits a small laptop and a printed page
MOST_SERIES = 4
MOST_DOTS = 40


@dataclass(frozen=True, slots=True)
class Head:
    """A heading over one or more columns."""

    text: str
    span: int


@dataclass(frozen=True, slots=True)
class Line:
    """One task in a comparison: a row per column, None where the combination was not run."""

    task: str | None
    cells: tuple[Row | None, ...]
    best: int | None  # the column with the highest mean DICE that may be compared


@dataclass(frozen=True, slots=True)
class Comparison:
    """Mean DICE of tasks (lines) by what answered (columns, under two rows of headings)."""

    models: tuple[Head, ...]
    heads: tuple[Head, ...]
    labels: tuple[str, ...]  # of single columns
    columns: tuple[Group, ...]
    lines: tuple[Line, ...]
    is_even: bool  # all means over tasks are over the same tasks


def combination(group: Group) -> Group:
    """Drop the task of a group and how it was evaluated: what answered, not on what."""
    return replace(group, task=None, unit="", distance_unit=None)


def combinations(pooled: Pool, rows: Sequence[Row]) -> list[Group]:
    """List what answered, in the order in which it is shown."""
    found = {combination(row.group): row for row in rows}
    return sorted(found, key=lambda group: pooled.order(replace(found[group], group=group)))


def comparisons(
    columns: Sequence[Group], rows: Sequence[Row], means: Sequence[Row], name: Naming
) -> list[Comparison]:
    """Set exact prompts side by side, in tables narrow enough to be seen whole."""
    exact = [group for group in columns if group.jitter is None]
    blocks = _blocks(exact, lambda group: replace(group, selection="", off_protocol=False))
    return _tables(blocks, rows, means, name, lambda group: (name.strategy(group), group.selection))


def under_jitter(
    columns: Sequence[Group], rows: Sequence[Row], means: Sequence[Row], name: Naming
) -> list[Comparison]:
    """Set every strategy and selection beside itself under jitter; empty where there was none."""
    blocks = _blocks(columns, lambda group: replace(group, jitter=None))
    moved = [block for block in blocks if len(block) > 1]
    moved.sort(key=lambda block: block[0].off_protocol)

    def heads(group: Group) -> tuple[str, str]:
        return f"{name.strategy(replace(group, jitter=None))} / {group.selection}", (
            group.jitter or "exact"
        )

    tables = _tables(moved, rows, means, name, heads)
    # exact prompts always win: to mark them as the best would tell nothing
    return [
        replace(table, lines=tuple(replace(line, best=None) for line in table.lines))
        for table in tables
    ]


def _tables(
    blocks: Sequence[Sequence[Group]],
    rows: Sequence[Row],
    means: Sequence[Row],
    name: Naming,
    heads: Callable[[Group], tuple[str, str]],
) -> list[Comparison]:
    """Lay columns out as tables; `heads` gives the heading of a block and that of a column."""
    columns = [group for block in blocks for group in block]
    at = {(combination(row.group), row.group.task): row for row in (*rows, *means)}
    tasks = dict.fromkeys(row.group.task for row in rows)
    first: tuple[str | None, ...] = (None,) if len(tasks) > 1 and means else ()
    is_even = _is_even(rows, means)
    lines = [_line(columns, task, at) for task in (*first, *tasks)]
    if first and not is_even:
        lines[0] = replace(lines[0], best=None)
    return [
        Comparison(
            models=_heads([columns[i].model for i in part]) if name.models else (),
            heads=_heads([(columns[i].model, heads(columns[i])[0]) for i in part]),
            labels=tuple(heads(columns[i])[1] for i in part),
            columns=tuple(columns[i] for i in part),
            lines=tuple(_cut(line, part) for line in lines),
            is_even=is_even,
        )
        for part in _parts(blocks)
    ]


def _is_even(rows: Sequence[Row], means: Sequence[Row]) -> bool:
    """Tell whether all means over tasks are over the same tasks, and may be compared."""
    tasks: dict[Group, set[str | None]] = {combination(row.group): set() for row in means}
    for row in rows:
        if row.dice.value is not None and combination(row.group) in tasks:
            tasks[combination(row.group)].add(row.group.task)
    return len({frozenset(own) for own in tasks.values() if own}) <= 1


def _blocks(columns: Sequence[Group], key: Callable[[Group], Group]) -> list[list[Group]]:
    """Group neighbours that belong together."""
    return [list(same) for _, same in groupby(columns, key=key)]


def _parts(blocks: Sequence[Sequence[Group]]) -> list[list[int]]:
    """Divide columns among tables; a block stays together if it can."""
    parts: list[list[int]] = []
    start = 0
    for size in map(len, blocks):
        block = list(range(start, start + size))
        start += size
        if parts and len(parts[-1]) + size <= COLUMNS_PER_TABLE:
            parts[-1] += block
        else:
            parts += [block[i : i + COLUMNS_PER_TABLE] for i in range(0, size, COLUMNS_PER_TABLE)]
    return parts


def _heads(names: Sequence[str | tuple[str, str]]) -> tuple[Head, ...]:
    spans = [(name, len(list(same))) for name, same in groupby(names)]
    return tuple(Head(name if isinstance(name, str) else name[1], span) for name, span in spans)


def _line(
    columns: Sequence[Group], task: str | None, at: Mapping[tuple[Group, str | None], Row]
) -> Line:
    cells = tuple(at.get((column, task)) for column in columns)
    merits = {i: cell.dice.value for i, cell in enumerate(cells) if cell and _competes(cell)}
    known = {i: value for i, value in merits.items() if value is not None}
    best = max(known, key=lambda i: known[i]) if len(known) > 1 else None
    is_tied = best is not None and list(known.values()).count(known[best]) > 1
    counted = [cell.dice for i, cell in enumerate(cells) if cell and i in known]
    is_even = len({(dice.n_images, dice.n_targets) for dice in counted}) <= 1
    return Line(task, cells, best if is_even and not is_tied else None)


def _competes(row: Row) -> bool:
    """Tell what may be marked as best: on-protocol, and without a look at the reference."""
    return not row.group.off_protocol and is_deployable(row.group)


def _cut(line: Line, part: Sequence[int]) -> Line:
    best = part.index(line.best) if line.best in part else None
    return Line(line.task, tuple(line.cells[i] for i in part), best)


@dataclass(frozen=True, slots=True)
class Series:
    """What one mark of the figure stands for; its place in the figure gives the mark its shape."""

    group: Group
    label: str


@dataclass(frozen=True, slots=True)
class Strip:
    """One series of one task: its mean and interval, and the unit means behind it as dots."""

    row: Row
    dots: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """DICE by task, best first; `thinned` when some dots are quantiles of more unit means."""

    series: tuple[Series, ...]
    lines: tuple[tuple[str, tuple[Strip | None, ...]], ...]
    thinned: bool
    n_left_out: int  # tasks for which no series has a value


def figure(
    pooled: Pool, columns: Sequence[Group], rows: Sequence[Row], best: Sequence[Row], name: Naming
) -> Figure:
    """Draw the leading combination of every model; of a model without one, its first."""
    leading = {row.group.model: combination(row.group) for row in best}
    shown = {group.model: leading.get(group.model, group) for group in reversed(columns)}
    groups = [shown[model] for model in dict.fromkeys(group.model for group in columns)]
    series = tuple(Series(group, name.combination(group)) for group in groups[:MOST_SERIES])
    at = {(combination(row.group), row.group.task): row for row in rows}
    means = unit_means(pooled.records, "dice")
    tasks = dict.fromkeys(str(row.group.task) for row in rows)
    lines = [
        (task, tuple(_strip(at.get((item.group, task)), means) for item in series))
        for task in tasks
    ]
    shown_lines = sorted(
        (line for line in lines if any(line[1])), key=lambda line: _height(line[1]), reverse=True
    )
    thinned = any(len(values) > MOST_DOTS for values in means.values())
    return Figure(series, tuple(shown_lines), thinned, len(tasks) - len(shown_lines))


def _height(strips: Sequence[Strip | None]) -> float:
    values = [
        strip.row.dice.value for strip in strips if strip and strip.row.dice.value is not None
    ]
    return values[0] if values else -1.0


def _strip(row: Row | None, means: Mapping[Group, tuple[float, ...]]) -> Strip | None:
    if row is None or row.dice.value is None:
        return None
    return Strip(row, tuple(_thin(means.get(row.group, ()))))


def _thin(values: Sequence[float]) -> Iterator[float]:
    """Keep the shape of many dots: their quantiles."""
    if len(values) <= MOST_DOTS:
        yield from values
    else:
        yield from map(float, np.quantile(values, np.linspace(0, 1, MOST_DOTS)))


def by_task(rows: Sequence[Row], means: Sequence[Row]) -> list[tuple[str | None, list[Row]]]:
    """Group the rows of the full table by task, the mean over tasks first."""
    tasks = {task: list(own) for task, own in groupby(rows, key=lambda row: row.group.task)}
    first: list[tuple[str | None, list[Row]]] = []
    if len(tasks) > 1 and means:
        first = [(None, list(means))]
    return [*first, *tasks.items()]
