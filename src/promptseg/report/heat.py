"""The map of strategies and tasks: mean DICE as colour and as text, model by model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from promptseg.report.table import Row
from promptseg.report.view import Head, combination
from promptseg.report.words import Naming
from promptseg.stats import Group

STEPS = 10  # colours
MOST_COLUMNS = 18  # of one map: what fits beside the names of tasks on a small laptop


@dataclass(frozen=True, slots=True)
class Tile:
    """One mean DICE: its text, its colour (0 to 9), and what a pointer reads."""

    text: str
    step: int | None  # None: no value, or off-protocol
    is_off: bool
    said: str


@dataclass(frozen=True, slots=True)
class Map:
    """Tasks (lines) by what answered (columns); None where a combination was not run."""

    model: str
    heads: tuple[Head, ...]
    labels: tuple[str, ...]
    lines: tuple[tuple[str, tuple[Tile | None, ...]], ...]


def maps(columns: Sequence[Group], rows: Sequence[Row], name: Naming) -> list[Map]:
    """Draw a map of every model's exact prompts, the tasks of the highest DICE first."""
    exact = [group for group in columns if group.jitter is None]
    at = {(combination(row.group), str(row.group.task)): row for row in rows}
    tasks = _ordered(exact, at, list(dict.fromkeys(str(row.group.task) for row in rows)))
    return [
        _map(part, at, tasks, name)
        for _, own in groupby(exact, key=lambda group: group.model)
        for part in _cut(list(own))
    ]


def _cut(columns: Sequence[Group]) -> list[Sequence[Group]]:
    return [columns[i : i + MOST_COLUMNS] for i in range(0, len(columns), MOST_COLUMNS)]


def _ordered(
    columns: Sequence[Group], at: Mapping[tuple[Group, str], Row], tasks: Sequence[str]
) -> list[str]:
    """Sort tasks by the mean of what is on-protocol, else of all."""
    leading = [group for group in columns if not group.off_protocol] or list(columns)

    def height(task: str) -> float:
        values = [at[group, task].dice.value for group in leading if (group, task) in at]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else -1.0

    return sorted(tasks, key=height, reverse=True)


def _map(
    columns: Sequence[Group],
    at: Mapping[tuple[Group, str], Row],
    tasks: Sequence[str],
    name: Naming,
) -> Map:
    heads = [
        Head(strategy, len(list(same)))
        for strategy, same in groupby(columns, key=lambda group: name.strategy(group))
    ]
    lines = [(task, tuple(_tile(at.get((one, task)), name) for one in columns)) for task in tasks]
    return Map(
        model=columns[0].model,
        heads=tuple(heads),
        labels=tuple(group.selection for group in columns),
        lines=tuple(line for line in lines if any(line[1])),
    )


def _tile(row: Row | None, name: Naming) -> Tile | None:
    if row is None:
        return None
    value, off = row.dice.value, row.group.off_protocol
    who = f"{name.combination(row.group)}{', off-protocol' if off else ''}, {row.group.task}"
    if value is None:
        return Tile("–", None, off, f"{who}: no value")
    step = None if off else min(STEPS - 1, int(value * STEPS))
    return Tile(f"{value:.2f}", step, off, f"{who}: DICE {value:.3f}")
