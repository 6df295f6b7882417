"""Table 7: does a model save annotators work? Quality, time and correction effort, two ways of it.

python recipes/study/table_7.py CORPUS --log LOG.csv --before scratch --after assisted --out DIR

The log is of anybody's annotation tool; promptseg has none yet. It has a row per mask: `target_id`
of the corpus, `annotator`, `arm`, `seconds`, `mask` (a PNG beside the log, of the image's size,
object not 0). Measured are DICE, time, and the human correction effort (HCE) that is left, paired
by target, with intervals over subjects, sign-flip p, and Holm over the three. Several annotators of
a target are averaged before arms are paired. So that arms differ by nothing else, give every
annotator both arms on different targets (crossover), the arm by lot; nobody should draw one target
twice.
"""

import argparse
import csv
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl
import sheet
from asked import plainly
from jaxtyping import Bool

from promptseg import Sample, Target, open_corpus
from promptseg.corpus import Corpus
from promptseg.effort import correction_effort
from promptseg.errors import DataError
from promptseg.metric import dice
from promptseg.paired import Comparison, compare
from promptseg.record import Record
from promptseg.sample import regroup, task_name
from promptseg.significance import holm

COLUMNS = ("target_id", "annotator", "arm", "seconds", "mask")
MEASURES = ("dice", "seconds", "effort")


def annotated(corpus: Corpus, log: Path) -> tuple[pl.DataFrame, int]:
    """Score every mask of a log, and count the annotators.

    Raises
    ------
    DataError
        The log cannot be read, names a target that is not there, or a mask is missing or of
        another size: with the line.
    """
    rows = _rows(log)
    known = _named(corpus, {row["target_id"] for _, row in rows})
    records = []
    for line, row in rows:
        where = f"{log}, line {line}"
        if row["target_id"] not in known:
            raise DataError(f"{where}: {corpus.path} has no target {row['target_id']!r}")
        records.append(_scored(row, *known[row["target_id"]], log.parent, where))
    frame = pl.DataFrame(records, infer_schema_length=None)
    averaged = [pl.col(*MEASURES).mean(), pl.all().exclude(*MEASURES, "model", "target_id").first()]
    once = frame.group_by("model", "target_id", maintain_order=True).agg(averaged)
    return once, len({row["annotator"] for _, row in rows})


def study(records: pl.DataFrame, before: str, after: str) -> pl.DataFrame:
    """Compare two arms by every measure; p are corrected over the measures."""
    found = [_row(measure, compare(records, before, after, metric=measure)) for measure in MEASURES]
    tested = [row["p"] for row in found if row["p"] is not None]
    corrected = iter(holm(tested))
    for row in found:
        row["p_holm"] = None if row["p"] is None else next(corrected)
    return pl.DataFrame(found, infer_schema_length=None)


def _row(measure: str, compared: Comparison) -> dict[str, Any]:
    if not compared.n_pairs:
        raise DataError(
            f"no target was annotated both by {compared.before} and by {compared.after}"
        )
    cell = (*compared.means, *compared.cells)[0]
    gain, alone = cell.difference, compared.counts
    relative = gain.value / cell.before if gain.value is not None and cell.before else None
    return {
        "measure": measure,
        "before": cell.before,
        "after": cell.after,
        "difference": gain.value,
        "lo": gain.lo,
        "hi": gain.hi,
        "relative": relative,
        "n_tasks": max(gain.n_tasks, 1),
        "n_subjects": cell.n_units,
        "n_targets": cell.n_pairs,
        "n_alone": alone.unpaired_before + alone.unpaired_after,
        "verdict": cell.verdict,
        "p": cell.p,
    }


def _named(corpus: Corpus, names: set[str]) -> dict[str, tuple[Sample, Target]]:
    """Find targets by their names; those of images that cannot be read are not found."""
    return {
        target.target_id: (sample, target)
        for group in corpus.row_groups()
        for sample in corpus.read(group)
        if isinstance(sample, Sample)
        for target in regroup(sample.targets, "class")
        if target.target_id in names
    }


def _rows(log: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        with log.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            there = reader.fieldnames or ()
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{log} cannot be read as CSV: {error}") from error
    lacking = [name for name in COLUMNS if name not in there]
    if lacking or not rows:
        raise DataError(
            f"{log} has no {', '.join(lacking) or 'rows'}. Columns: {','.join(COLUMNS)}"
        )
    for line, row in rows:
        if any(not row[name] for name in COLUMNS):
            raise DataError(f"{log}, line {line}: a value is missing")
    return rows


def _mask(path: Path, shape: tuple[int, ...], where: str) -> Bool[np.ndarray, "h w"]:
    try:
        content = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        image = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE)
    except (OSError, cv2.error) as error:
        raise DataError(f"{where}: {path} cannot be read ({error})") from error
    if image is None or image.shape != shape:
        size = "no image" if image is None else f"of {image.shape[1]} x {image.shape[0]} pixels"
        raise DataError(f"{where}: {path} is {size}; the target's is {shape[1]} x {shape[0]}")
    mask: Bool[np.ndarray, "h w"] = np.asarray(image) > 0
    return mask


def _scored(
    row: dict[str, str], sample: Sample, target: Target, folder: Path, where: str
) -> dict[str, Any]:
    mask = _mask(folder / row["mask"], target.mask.shape, where)
    record = Record(
        model=row["arm"],
        strategy="annotation",
        selection="single",
        protocol="annotation",
        unit="class",
        off_protocol=False,
        seed=0,
        dataset=sample.dataset,
        subject=sample.subject,
        image_id=sample.image_id,
        target_id=target.target_id,
        prompt_id=target.target_id,
        object=target.object,
        modality=sample.modality,
        task=task_name(target.object, sample.modality),
        outcome="ok" if mask.any() else "miss",
        dice=dice(mask, target.mask),
    )
    effort = float(correction_effort(mask, target.mask).total)
    return asdict(record) | {"seconds": _seconds(row["seconds"], where), "effort": effort}


def _seconds(told: str, where: str) -> float:
    try:
        seconds = float(told)
    except ValueError:
        seconds = np.nan
    if not 0 <= seconds < np.inf:
        raise DataError(f"{where}: {told!r} are no seconds")
    return seconds


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--log", type=Path, required=True, help="CSV of an annotation study")
    parser.add_argument("--before", default="scratch", help="arm of the log (default: scratch)")
    parser.add_argument("--after", default="assisted", help="arm of the log (default: assisted)")
    parser.add_argument("--out", type=Path, required=True, help="folder of what is written")
    told = parser.parse_args(arguments)
    records, n_annotators = annotated(open_corpus(told.corpus), told.log)
    found = study(records, told.before, told.after).with_columns(n_annotators=pl.lit(n_annotators))
    told.out.mkdir(parents=True, exist_ok=True)
    title = (
        f"Table 7: {told.before} and {told.after}, by the same targets; {n_annotators} annotators. "
        "`effort` is the HCE that is left; `relative` is the difference as a share of `before`."
    )
    sheet.write(found, told.out / "table_7", title)


if __name__ == "__main__":
    plainly(main)
