"""What the before/after report is about: a training, its runs, and the two models compared."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from promptseg.errors import DataError
from promptseg.paired import Cell, Comparison, compare, gather
from promptseg.record import RunFolder
from promptseg.tuning.outcome import Outcome

TRAINED, OTHER = "tasks trained on", "other tasks"


@dataclass(frozen=True, eq=False)  # not slotted: cached
class Story:
    """A training and what it did to the tasks of some runs.

    `score` is the deployable selection by which the training chose its best state, `leading` are
    the strategies by which it is judged, as far as they were run.
    """

    outcome: Outcome
    runs: tuple[RunFolder, ...]
    records: pl.DataFrame
    comparison: Comparison
    score: str
    leading: tuple[str, ...]

    @cached_property
    def selections(self) -> tuple[str, ...]:
        """List the selections, that of the training first and the upper bound last."""
        found = {cell.group.selection for cell in self.comparison.cells}
        return tuple(sorted(found, key=lambda s: (s != self.score, s == "oracle", s)))

    def is_trained(self, task: str | None) -> bool:
        """Tell whether a task was trained on."""
        return task in self.outcome.tasks

    def exact(self) -> Iterator[Cell]:
        """Give the cells of single tasks that have a value and prompts as they are."""
        for cell in self.comparison.cells:
            if cell.difference.value is not None and cell.group.jitter is None:
                yield cell

    def led(self) -> list[Cell]:
        """List the cells by which the training is judged."""
        return [c for c in self.exact() if is_led(self, c)]

    def place(self, cell: Cell) -> tuple[int, str, str]:
        """Sort key of a cell within a task: as the runs list strategies, exact prompts first."""
        order = [name for folder in self.runs for name in folder.run.strategies]
        group = cell.group
        place = order.index(group.strategy) if group.strategy in order else len(order)
        return place, group.protocol, group.jitter or ""


def is_led(story: Story, cell: Cell) -> bool:
    """Tell whether a cell is of a strategy and the selection by which the training is judged."""
    return cell.group.selection == story.score and cell.group.strategy in story.leading


def story_of(outcome: Outcome, runs: Sequence[RunFolder]) -> Story:
    """Compare the trained model with its base; raises DataError where the runs do not hold both."""
    records = gather(runs)
    tasks = frozenset(records["task"].drop_nulls().unique())
    trained = frozenset(outcome.tasks)
    scopes = {TRAINED: tasks & trained, OTHER: tasks - trained}
    found = compare(records, outcome.base, outcome.name, scopes=scopes)
    score = outcome.settings.get("score")
    if not isinstance(score, str):
        raise DataError("training.json does not say by which selection the training was judged.")
    return Story(outcome, tuple(runs), records, found, score, _leading(outcome, runs))


def _leading(outcome: Outcome, runs: Sequence[RunFolder]) -> tuple[str, ...]:
    """List the strategies of the training that were run; without any, all that were run."""
    from promptseg.tuning.validation import TESTED

    run = list(dict.fromkeys(name for folder in runs for name in folder.run.strategies))
    asked = TESTED.get(outcome.settings.get("prompts", "box"), ())
    return tuple(name for name in run if name in asked) or tuple(run)


@dataclass(frozen=True, slots=True)
class Summary:
    """What one strategy and selection did to some tasks: their mean, or the one cell there is.

    `whole` is None where there is no estimate for all of them together, which is so if a model
    was not trained for the strategy or the selection.
    """

    cells: tuple[Cell, ...]
    whole: Cell | None
    before: float
    after: float

    @property
    def n_tasks(self) -> int:
        """Number of tasks."""
        return len({cell.group.task for cell in self.cells})


def summaries(story: Story, cells: Sequence[Cell]) -> list[Summary]:
    """Sum cells up by strategy and selection; all are of tasks trained on, or all of others."""
    groups: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in sorted(cells, key=story.place):
        group = cell.group
        groups.setdefault((group.strategy, group.selection, group.protocol), []).append(cell)
    return [_summary(story, same) for same in groups.values()]


def _summary(story: Story, cells: Sequence[Cell]) -> Summary:
    group = cells[0].group
    scope = TRAINED if story.is_trained(group.task) else OTHER
    means = [
        mean
        for mean in story.comparison.means
        if mean.scope == scope
        and mean.group.jitter is None
        and (mean.group.strategy, mean.group.selection) == (group.strategy, group.selection)
        and mean.group.protocol == group.protocol
    ]
    whole = cells[0] if len(cells) == 1 else means[0] if means and not cells[0].off else None
    before = [cell.before for cell in cells if cell.before is not None]
    after = [cell.after for cell in cells if cell.after is not None]
    return Summary(tuple(cells), whole, sum(before) / len(before), sum(after) / len(after))
