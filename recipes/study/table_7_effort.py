"""Beside Table 7: the correction effort that masks leave to an annotator who starts from them.

python recipes/study/table_7_effort.py RUN... --out DIR

Per task, model and strategy the mean human correction effort (HCE: vertices to draw and regions to
click) of the selected masks, exact prompts alone. The corpus of a run is read where the run says
that it was. Needs: runs of kind `prompts`, with masks saved (the default).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import runs
import sheet
from asked import ask, exact, plainly

from promptseg import Sample, Target, frame_of, load_run, open_corpus, open_run
from promptseg.corpus import Corpus
from promptseg.effort import correction_effort
from promptseg.errors import DataError
from promptseg.mask import Rle, from_rle
from promptseg.paired import ALL
from promptseg.sample import Unit, regroup
from promptseg.stats import estimate, over_tasks

KEY = ("prompt_id", "target_id", "model", "mask_index")


def effort_of(path: Path) -> pl.DataFrame:
    """Give the records of a run, exact prompts alone, each with the effort that its mask leaves.

    A miss leaves all of the object to be drawn, whether there is an empty mask or none.

    Raises
    ------
    DataError
        The corpus is not there or another, or masks were not saved.
    """
    folder = open_run(path)
    corpus = open_corpus(folder.run.corpus_path)
    if corpus.info.fingerprint != folder.run.corpus_fingerprint:
        raise DataError(f"{corpus.path} is not the corpus that {path} was made of")
    own = exact(load_run(path)).filter(pl.col("outcome") != "failed")
    wanted = own.select(KEY).unique(maintain_order=True)
    saved = folder.masks(wanted["prompt_id"].unique()).select(*KEY[:1], *KEY[2:], "mask")
    masks = wanted.join(saved, on=["prompt_id", "model", "mask_index"], how="left")
    lacking = masks.filter(pl.col("mask").is_null(), pl.col("mask_index").is_not_null()).height
    if lacking:
        raise DataError(f"{path} lacks {lacking} masks: evaluate with --save-masks selected")
    of_target = masks.partition_by("target_id", as_dict=True)
    efforts = [
        {name: row[name] for name in KEY} | {"effort": float(_effort(row["mask"], target))}
        for target in _targets(corpus, folder.run.unit)
        if (target.target_id,) in of_target
        for row in of_target[(target.target_id,)].iter_rows(named=True)
    ]
    schema = {name: wanted.schema[name] for name in KEY} | {"effort": pl.Float64}
    found = pl.DataFrame(efforts, schema=schema)
    return own.join(found, on=KEY, how="left", nulls_equal=True)


def table(records: pl.DataFrame) -> pl.DataFrame:
    """Give the mean effort over tasks and per task, beside the DICE of the same masks."""
    tables = []
    for estimates in (over_tasks, estimate):
        found = frame_of(estimates(records, "effort"))
        if found.is_empty():
            continue
        key = ["model", "strategy", "selection", "task", "protocol", "unit"]
        quality = frame_of(estimates(records, "dice"))
        beside = quality.select(*key, pl.col("value").alias("dice"))
        tables.append(
            found.filter(~pl.col("off_protocol"))
            .join(beside, on=key, how="left", nulls_equal=True)
            .with_columns(pl.col("task").cast(pl.String).fill_null(ALL), pl.col("lo").clip(0))
        )
    return pl.concat(tables, how="diagonal_relaxed") if tables else pl.DataFrame()


def _effort(mask: Rle | None, target: Target) -> int:
    drawn = np.zeros_like(target.mask) if mask is None else from_rle(mask)
    return correction_effort(drawn, target.mask).total


def _targets(corpus: Corpus, unit: Unit) -> Iterator[Target]:
    for group in corpus.row_groups():
        for sample in corpus.read(group):
            if isinstance(sample, Sample):
                yield from regroup(sample.targets, unit)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table."""
    asked = ask(__doc__, [runs.PROMPTS], arguments)
    found = table(pl.concat([effort_of(path) for path in asked.runs]))
    shown = ("task", "model", "strategy", "selection", "value", "lo", "hi", "dice", "n_subjects",
             "n_targets")  # fmt: skip
    title = "Human correction effort (HCE) that the selected masks leave; lower is better."
    sheet.write(found, asked.out / "table_7_effort", title, shown)


if __name__ == "__main__":
    plainly(main)
