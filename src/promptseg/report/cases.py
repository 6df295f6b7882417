"""Which cases a report shows one by one, and what every way of answering scored on them.

A case is one target. Where there are more than asked for, the worst of every task are shown, and
as many drawn at random: what is left out is counted.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from promptseg.report.table import Pool
from promptseg.report.words import Naming, naming_of
from promptseg.stats import COMBINATION, Group

KEY = ("corpus", "dataset", "image_id", "target_id", "unit", "task")
OUTCOMES = ("ok", "miss", "failed")  # and -1: not asked
MEASURES = ("dice", "hd95", "nsd", "predicted_iou")
ATTRIBUTES: Mapping[str, str] = {
    "area_px": "size (pixels)",
    "aspect_ratio": "aspect ratio",
    "intensity_difference": "intensity difference",
    "contrast_to_noise": "contrast to noise",
    "fourier_order": "boundary complexity",
    "n_components": "components",
    "border_distance_px": "distance to edge (pixels)",
}
Columns = dict[str, Any]  # of the page's JSON: cargo that only the page's script reads


@dataclass(frozen=True, slots=True, eq=False)
class Cases:
    """The cases of a report: one row of `targets` each, in order, and what the page's script reads.

    `answers` are the ways of answering, in the order of the columns; `chosen` are the records of
    the first seed of every case and answer, with their numbers as `case` and `answer`.
    """

    targets: pl.DataFrame
    chosen: pl.DataFrame
    answers: tuple[Group, ...]
    columns: Columns
    n_all: int

    @property
    def n_shown(self) -> int:
        """Number of cases."""
        return len(self.targets)


def find_cases(
    pooled: Pool,
    attributes: pl.DataFrame,
    answers: Sequence[Group],
    *,
    lead: Group,
    most: int | None,
) -> Cases | None:
    """Choose at most `most` cases (None: all), the worst of `lead` first; None without any."""
    asked = pooled.records.filter(pl.col("target_id").is_not_null(), pl.col("task").is_not_null())
    records = _numbered(asked, answers)
    every = records.select(KEY).unique(maintain_order=True)
    if not len(every):
        return None
    leading, naming = answers.index(lead), naming_of(answers)
    of_lead = records.filter(answer=leading).group_by(KEY).agg(pl.col("dice").mean())
    ordered = every.join(of_lead, on=KEY, how="left", maintain_order="left", nulls_equal=True)
    kept = _chosen(ordered, most).sort("dice", *KEY, nulls_last=True).drop("dice")
    targets = kept.with_row_index("case").with_columns(pl.col("case").cast(pl.Int64))
    own = records.join(targets, on=KEY, how="inner", nulls_equal=True)
    scored = own.group_by("case", "answer").agg(pl.col(MEASURES).mean())
    chosen = own.sort("seed").unique(["case", "answer"], keep="first", maintain_order=True)
    known = attributes.unique(["corpus", "target_id"], maintain_order=True)
    described = targets.join(known, on=["corpus", "target_id"], how="left", maintain_order="left")
    return Cases(
        targets=targets,
        chosen=chosen.sort("case", "answer"),
        answers=tuple(answers),
        columns={
            "answers": [_told(group, naming) for group in answers],
            "lead": leading,
            **_facts(described, own),
            **_scores(len(targets), len(answers), scored, chosen),
        },
        n_all=len(every),
    )


def _numbered(records: pl.DataFrame, answers: Sequence[Group]) -> pl.DataFrame:
    """Keep the records of `answers`, with their numbers."""
    rows = [
        {name: getattr(group, name) for name in COMBINATION} | {"answer": number}
        for number, group in enumerate(answers)
    ]
    kinds = {name: records.schema[name] for name in COMBINATION} | {"answer": pl.Int64()}
    listed = pl.DataFrame(rows, schema=kinds)
    return records.join(listed, on=COMBINATION, nulls_equal=True, maintain_order="left")


def _chosen(ordered: pl.DataFrame, most: int | None) -> pl.DataFrame:
    """Take the worst of every task, and fill up by chance, which depends on names alone."""
    if most is None or len(ordered) <= most:
        return ordered
    of_task = ordered.sort("dice", *KEY, nulls_last=True).with_columns(
        place=pl.int_range(pl.len()).over("task")
    )
    worst = of_task.sort("place", "task").head(most // 2)
    rest = of_task.join(worst.select(KEY), on=KEY, how="anti", nulls_equal=True)
    chance = [
        hashlib.sha256("\n".join(map(str, row)).encode()).hexdigest()
        for row in rest.select("corpus", "image_id", "target_id").iter_rows()
    ]
    drawn = rest.with_columns(chance=pl.Series(chance, dtype=pl.String)).sort("chance")
    filled = drawn.head(most - len(worst)).drop("chance")
    return pl.concat([worst, filled]).drop("place")


def _told(group: Group, name: Naming) -> Mapping[str, object]:
    return {"label": name.combination(group), "off": group.off_protocol}


def _facts(described: pl.DataFrame, own: pl.DataFrame) -> Columns:
    """Give what is known of the cases: names by number, attributes as they are."""
    subjects = own.group_by("case").agg(pl.col("subject", "distance_unit").first()).sort("case")
    tasks = sorted(set(described["task"].to_list()))
    datasets = sorted(set(described["dataset"].to_list()))
    known = [
        column
        for column in ATTRIBUTES
        if column in described.columns and described[column].null_count() < len(described)
    ]
    return {
        "tasks": tasks,
        "datasets": datasets,
        "task": [tasks.index(value) for value in described["task"]],
        "dataset": [datasets.index(value) for value in described["dataset"]],
        "image": described["image_id"].to_list(),
        "target": described["target_id"].to_list(),
        "subject": subjects["subject"].to_list(),
        "unit": subjects["distance_unit"].to_list(),
        "attributes": [ATTRIBUTES[column] for column in known],
        "values": [list(map(_short, described[column].to_list())) for column in known],
    }


def _scores(n_cases: int, n_answers: int, scored: pl.DataFrame, chosen: pl.DataFrame) -> Columns:
    """Give the measures of every answer and case: lists of lists, by answer and then by case."""
    columns: Columns = {
        measure: [[None] * n_cases for _ in range(n_answers)] for measure in MEASURES
    }
    for row in scored.iter_rows(named=True):
        for measure in MEASURES:
            columns[measure][row["answer"]][row["case"]] = _short(row[measure])
    outcomes = [[-1] * n_cases for _ in range(n_answers)]
    why = [[-1] * n_cases for _ in range(n_answers)]
    reasons: dict[str, int] = {}
    for case, answer, outcome, reason in chosen.select(
        "case", "answer", "outcome", "reason"
    ).iter_rows():
        outcomes[answer][case] = OUTCOMES.index(outcome)
        if reason:
            why[answer][case] = reasons.setdefault(reason, len(reasons))
    return {**columns, "outcome": outcomes, "why": why, "reasons": list(reasons)}


def _short(value: float | None) -> float | None:
    """Keep what can be read: four decimals, or four digits."""
    if value is None:
        return None
    return round(value, 4) if abs(value) < 100 else float(f"{value:.5g}")


def as_json(content: object) -> str:
    """Write JSON that may stand in a script element of a page, whatever names are in it."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def by_run(cases: Cases) -> Iterator[tuple[int, pl.DataFrame]]:
    """Yield the chosen records run by run; a case of several runs comes with each of them."""
    for (number,), own in cases.chosen.group_by("run", maintain_order=True):
        yield int(str(number)), own
