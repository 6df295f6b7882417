"""The oracle gap as the report tells it: by task, and what it depends on."""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from promptseg.factors import Factors
from promptseg.gap import gap_factors, gaps
from promptseg.report.depends import MOST_COLUMNS, Line, lines_of, relations
from promptseg.report.words import fraction, percent
from promptseg.stats import FEWEST, Estimate, Group

METHOD = (
    "The gap of a target is the DICE of the best candidate of a prompt (oracle) minus that of the "
    "candidate with the highest predicted IoU (predicted), averaged within targets, images, "
    "subjects and tasks. It is never negative, so that no test asks whether it is zero. Best "
    "chosen: the share of targets for which the model's choice was its best candidate. What it "
    "depends on is found as for DICE; a positive correlation is a larger gap."
)


@dataclass(frozen=True, slots=True)
class Gapped:
    """All of the section."""

    lines: tuple[str, ...]
    means: tuple[tuple[Group, Estimate], ...]  # over tasks
    tasks: tuple[tuple[Group, Estimate], ...]
    columns: tuple[Factors, ...]
    table: tuple[Line, ...]
    n_left_out: int  # columns
    found: tuple[Factors, ...]  # of all columns, left out or not

    def of(self, model: str, strategy: str) -> Estimate | None:
        """Give the mean gap of a model's strategy, over its tasks or of its only one."""
        found = [
            item
            for group, item in (*self.means, *self.tasks)
            if (group.model, group.strategy) == (model, strategy) and not group.off_protocol
        ]
        return found[0] if found else None


def gapped(records: pl.DataFrame, attributes: pl.DataFrame) -> Gapped | None:
    """Tell what the choice among candidates costs; None where it was not scored both ways."""
    found = gaps(records)
    if not found:
        return None
    told = gap_factors(records, attributes) if attributes.height else []
    told = sorted(told, key=lambda one: one.off_protocol)
    columns = tuple(told[:MOST_COLUMNS])
    tasks = [(group, item) for group, item in found.items() if group.task is not None]
    return Gapped(
        lines=tuple(_lines(found, columns)),
        means=tuple((group, item) for group, item in found.items() if group.task is None),
        tasks=tuple(sorted(tasks, key=_order)),
        columns=columns,
        table=lines_of(columns),
        n_left_out=len(told) - len(columns),
        found=tuple(told),
    )


def _order(line: tuple[Group, Estimate]) -> tuple[str, str, str, float]:
    group, item = line
    return group.model, group.strategy, group.protocol, -(item.value or 0.0)


def _lines(found: Mapping[Group, Estimate], columns: tuple[Factors, ...]) -> list[str]:
    known = [
        (item.value, group, item)
        for group, item in found.items()
        if group.task is not None and item.value is not None and not group.off_protocol
    ]
    told = []
    if known:
        value, group, item = max(known, key=lambda one: one[0])
        told.append(
            f"The gap is largest in {group.task} with {group.model}, {group.strategy}: "
            f"{fraction(value)} DICE; the model chose its best candidate for "
            f"{percent(item.rate_no_overlap)} of the targets there."
        )
    able = [one for one in columns if not one.off_protocol]
    if able and all(one.n_units < FEWEST for one in able):
        return [*told, "The subjects are too few to test what the gap depends on."]
    told += [f"{one.model} with {one.strategy}: {relations(one, 'the gap')}" for one in able]
    return told
