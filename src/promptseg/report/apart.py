"""Results apart: by data set, and by volume."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from promptseg.report.table import Row, is_deployable
from promptseg.report.view import combination
from promptseg.stats import Estimate, Group, estimate, over_tasks
from promptseg.volume import volume_records

VOLUME_METHOD = (
    "DICE of a volume is 2 (sum of intersections) / (sum of areas) over its slices on which the "
    "object is annotated and that were evaluated; other slices, and what a model would find there, "
    "take no part. A slice without a mask counts with its whole target missed. A volume of which a "
    "slice failed is incomplete and has no DICE. Volumes are averaged within subjects, then "
    "tasks. Frames of a video are pooled as slices are."
)


@dataclass(frozen=True, slots=True)
class DatasetLine:
    """One data set: the mean over its tasks of every way of answering."""

    dataset: str
    group: Group
    item: Estimate


@dataclass(frozen=True, slots=True)
class VolumeLine:
    """One task by volume, beside the mean over slices."""

    group: Group
    item: Estimate
    n_slices: int  # of complete volumes
    by_slice: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Volumes:
    """All of the section."""

    lines: tuple[VolumeLine, ...]
    whole: pl.DataFrame  # one row per volume
    n_volumes: int
    n_incomplete: int  # records of volumes
    is_subset: bool


def by_dataset(records: pl.DataFrame) -> tuple[DatasetLine, ...]:
    """Average on-protocol results by data set, exact prompts alone; nothing where there is one."""
    exact = records.filter(pl.col("jitter_mode").is_null())
    parts = exact.partition_by("dataset", as_dict=True)
    if len(parts) < 2:
        return ()
    return tuple(
        DatasetLine(str(name), group, item)
        for (name,), own in sorted(parts.items(), key=lambda part: str(part[0]))
        for group, item in over_tasks(own, "dice").items()
        if item.value is not None and is_deployable(group)
    )


def by_volume(records: pl.DataFrame, rows: Sequence[Row], *, is_subset: bool) -> Volumes | None:
    """Give DICE of volumes; None where no volume has two slices."""
    whole = volume_records(records)
    if not whole.height:
        return None
    at = {(combination(row.group), row.group.task): row.dice.value for row in rows}
    complete = whole.filter(pl.col("outcome") != "failed")
    of_task = ("model", "protocol", "strategy", "selection", "task")
    slices = {
        tuple(key): int(n)
        for *key, n in complete.group_by(of_task).agg(pl.col("n_slices").sum()).iter_rows()
    }
    lines = [
        VolumeLine(
            group,
            item,
            slices.get(tuple(getattr(group, name) for name in of_task), 0),
            at.get((combination(group), group.task)),
        )
        for group, item in estimate(whole, "dice").items()
    ]
    lines.sort(key=lambda line: (line.group.task or "", line.group.off_protocol))
    return Volumes(
        lines=tuple(lines),
        whole=whole,
        n_volumes=whole.select("corpus", "volume").n_unique(),
        n_incomplete=whole.height - complete.height,
        is_subset=is_subset,
    )
