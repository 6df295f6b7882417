"""Every table of the report as CSV: full precision, one file per table, undefined is empty."""

import base64
import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import polars as pl

from promptseg.contrast import Arm, Contrast
from promptseg.factors import Factors
from promptseg.parquet import write_atomically
from promptseg.report.apart import DatasetLine, Volumes
from promptseg.report.compared import Compared
from promptseg.report.depends import Depends
from promptseg.report.expected import Expectations
from promptseg.report.gapped import Gapped
from promptseg.report.table import Row, Scalar, flat
from promptseg.response import Response
from promptseg.stats import Estimate, Group

Lines = Sequence[Mapping[str, Scalar]]


@dataclass(frozen=True, slots=True)
class Tables:
    """What the report found, of which the tables are made; empty where there is no section."""

    rows: Sequence[Row]  # means over tasks first
    compared: Compared | None = None
    gapped: Gapped | None = None
    responses: Sequence[Response] = ()
    factors: Sequence[Factors] = ()
    depends: Depends | None = None
    expected: Expectations | None = None
    datasets: Sequence[DatasetLine] = ()
    volumes: Volumes | None = None


def sheets(found: Tables) -> dict[str, str]:
    """Give every table that has a line, by the name of its file without .csv, as CSV."""
    made = {
        "numbers": [flat(row) for row in found.rows],
        "ranking": list(_ranking(found.compared)),
        "comparisons": list(_contrasts(found.compared)),
        "oracle_gap": list(_gaps(found.gapped)),
        "oracle_gap_factors": list(_factors(found.gapped.found if found.gapped else ())),
        "jitter": list(_levels(found.responses)),
        "tolerance": list(_radii(found.responses)),
        "factors": list(_factors(found.factors)),
        "partial_effects": list(_effects(found.depends)),
        "expected": list(_expected(found.expected)),
        "expected_errors": list(_errors(found.expected)),
        "datasets": [_estimate(one.group, one.item, dataset=one.dataset) for one in found.datasets],
        "volumes_by_task": list(_volume_means(found.volumes)),
        "volumes": list(_volumes(found.volumes)),
    }
    return {name: csv_of(lines) for name, lines in made.items() if lines or name == "numbers"}


def write_sheets(made: Mapping[str, str], folder: Path) -> list[Path]:
    """Write tables into a folder as NAME.csv, and return their paths; others there stay."""
    paths = []
    for name, content in made.items():
        paths.append(folder / f"{name}.csv")
        write_atomically(paths[-1], content.encode())
    return paths


def uri(content: str) -> str:
    """Make a link that holds a CSV itself."""
    coded = base64.b64encode(content.encode()).decode("ascii")
    return f"data:text/csv;charset=utf-8;base64,{coded}"


def csv_of(lines: Lines) -> str:
    """Write lines of the same fields as CSV."""
    sink = io.StringIO()
    writer = csv.DictWriter(sink, list(lines[0]) if lines else ["task"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return sink.getvalue()


def _ranking(found: Compared | None) -> Iterator[dict[str, Scalar]]:
    for ranked in found.rankings if found else ():
        for place in ranked.places:
            own = {
                field.name: getattr(place, field.name)
                for field in fields(place)
                if field.name != "arm"
            }
            yield {"ranking": ranked.title, **_arm(place.arm), **own}


def _arm(arm: Arm, prefix: str = "") -> dict[str, Scalar]:
    return {f"{prefix}{name}": value for name, value in asdict(arm).items()}


def _contrasts(found: Compared | None) -> Iterator[dict[str, Scalar]]:
    for ranked in found.rankings if found else ():
        for one in ranked.against:
            if one is not None:
                yield {"table": ranked.title, **_contrast(one)}
    for one in found.gaps if found else ():
        yield {"table": "The oracle gap", **_contrast(one)}


def _contrast(one: Contrast) -> dict[str, Scalar]:
    cell = one.cell
    return {
        **_arm(one.arm),
        **_arm(one.against, "against_"),
        "dice": cell.after,
        "against_dice": cell.before,
        "difference": cell.difference.value,
        "difference_lo": cell.difference.lo,
        "difference_hi": cell.difference.hi,
        "p": one.p if one.p_holm is not None else None,
        "p_holm": one.p_holm,
        "effect": cell.effect,
        "n_subjects": cell.n_units,
        "n_pairs": cell.n_pairs,
    }


def _estimate(group: Group, item: Estimate, **first: Scalar) -> dict[str, Scalar]:
    return {
        **first,
        "task": group.task,
        "model": group.model,
        "strategy": group.strategy,
        "selection": group.selection,
        "protocol": group.protocol,
        "unit": group.unit,
        "off_protocol": group.off_protocol,
        "value": item.value,
        "lo": item.lo,
        "hi": item.hi,
        "interval": item.method,
        "notes": "; ".join(item.notes),
        "n_tasks": item.n_tasks,
        "n_subjects": item.n_subjects,
        "n_images": item.n_images,
        "n_targets": item.n_targets,
        "n_undefined": item.n_undefined,
        "n_failed": item.n_failed,
    }


def _gaps(found: Gapped | None) -> Iterator[dict[str, Scalar]]:
    for group, item in (*found.means, *found.tasks) if found else ():
        yield {**_estimate(group, item), "rate_best_chosen": item.rate_no_overlap}


def _factors(found: Iterable[Factors]) -> Iterator[dict[str, Scalar]]:
    for one in found:
        for row in one.rows:
            yield {
                "model": one.model, "strategy": one.strategy, "selection": one.selection,
                "protocol": one.protocol, "off_protocol": one.off_protocol, **asdict(row),
                "n_targets": one.n_targets, "n_units": one.n_units, "by_image": one.by_image,
                "n_strata": one.n_strata, "n_left_out": one.n_left_out,
            }  # fmt: skip


def _effects(found: Depends | None) -> Iterator[dict[str, Scalar]]:
    for attribute, steps in found.steps if found else ():
        for number, step in enumerate(steps, start=1):
            yield {"of": found.leading if found else None, "attribute": attribute,
                   "fifth_by_rank": number, **asdict(step)}  # fmt: skip


def _expected(found: Expectations | None) -> Iterator[dict[str, Scalar]]:
    for kind in found.kinds if found else ():
        for way, cell in zip(found.columns if found else (), kind.cells, strict=True):
            yield {
                "kind": kind.name, "like": kind.like, "n_targets": kind.n_targets,
                "n_subjects": kind.n_subjects, "way": way, "dice": cell.value, "lo": cell.lo,
                "hi": cell.hi, "reason": cell.reason,
            }  # fmt: skip


def _errors(found: Expectations | None) -> Iterator[dict[str, Scalar]]:
    for line in found.errors if found else ():
        for held_out, error in (("subjects", line.error), ("data sets", line.new_dataset)):
            if error is None:
                continue
            yield {
                "way": line.name, "when": line.when, "held_out": held_out,
                "n_units": error.n_units, "n_targets": error.n_targets,
                "answered": error.answered, "mae": error.own.mae, "mae_mean": error.mean.mae,
                "mae_task": error.task.mae if error.task else None,
                "mae_predicted_iou": error.predicted_iou.mae if error.predicted_iou else None,
                "rho": error.own.rho, "r2": error.r2, "p": error.p, "p_task": error.p_task,
                "coverage": error.coverage, "width": error.width,
            }  # fmt: skip


def _of_response(one: Response) -> dict[str, Scalar]:
    names = ("task", "model", "strategy", "selection", "protocol", "unit", "off_protocol", "mode",
             "measure", "exact")  # fmt: skip
    return {name: getattr(one, name) for name in names}


def _radii(found: Iterable[Response]) -> Iterator[dict[str, Scalar]]:
    for one in found:
        spread: dict[str, Any] = {
            "radius": one.radius, "radius_lo": one.radius_lo, "radius_hi": one.radius_hi,
            "largest_jitter": one.levels[-1].at if one.levels else None, "by_image": one.by_image,
        }  # fmt: skip
        yield _of_response(one) | spread


def _levels(found: Iterable[Response]) -> Iterator[dict[str, Scalar]]:
    for one in found:
        for level in one.levels:
            yield _of_response(one) | asdict(level)


def _volume_means(found: Volumes | None) -> Iterator[dict[str, Scalar]]:
    for line in found.lines if found else ():
        told = _estimate(line.group, line.item)
        told["n_volumes"] = told.pop("n_images")
        yield {**told, "n_slices": line.n_slices, "dice_by_slice": line.by_slice}


def _volumes(found: Volumes | None) -> Iterator[dict[str, Scalar]]:
    if found is not None:
        names = (
            "task", "dataset", "subject", "volume", "model", "strategy", "selection", "protocol",
            "off_protocol", "seed", "outcome", "reason", "dice", "n_slices", "n_missed",
            "n_failed", "predicted_px", "reference_px",
        )  # fmt: skip
        yield from found.whole.select(pl.col(names)).iter_rows(named=True)
