"""How good litemedsam-points is on data sets it never saw: points, boxes, and its predicted IoU.

python recipes/litemedsam_points/measure.py CORPUS... --model FOLDER --out DIR

Both models answer the same prompts; the mean is over tasks of a data set, then over data sets.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from promptseg.corpus import Corpus, open_corpus
from promptseg.memory import keep_freed_memory
from promptseg.models import load_model
from promptseg.plan import Plan
from promptseg.record import RunFolder, start_run
from promptseg.run import describe_run, evaluate_corpus
from promptseg.strategy import STRATEGIES, Strategy, points

ASKED = (
    STRATEGIES["point1"],
    Strategy("points3", "points", points(3)),
    STRATEGIES["points5"],
    STRATEGIES["points5+5"],
    STRATEGIES["box"],
)
MOST_TARGETS = 10  # of an image: its nuclei would outweigh all else
BINS = 10


def score(corpus: Corpus, words: list[str], out: Path) -> RunFolder:
    """Evaluate the models on a corpus, or go on with it."""
    models = {word: load_model(word) for word in words}
    plan = Plan(ASKED, unit="instance", max_targets=MOST_TARGETS)
    folder = start_run(out / f"{corpus.path.stem}.run", describe_run(corpus, models, plan))
    for _ in evaluate_corpus(corpus, folder, models, plan):
        pass
    return folder


def by_dataset(records: pl.DataFrame) -> pl.DataFrame:
    """Average target -> image -> subject -> task -> data set -> all of them."""
    key = ["model", "strategy", "selection"]
    frame = records.filter(pl.col("outcome") != "failed").with_columns(
        subject=pl.col("subject").fill_null(pl.col("image_id"))
    )
    for level in ("image_id", "subject", "task", "dataset"):
        kept = ["dataset", "task", "subject", "image_id"]
        kept = kept[: kept.index(level) + 1]
        frame = frame.group_by(*key, *kept).agg(pl.col("dice").mean())
    return frame


def calibration(records: pl.DataFrame, model: str) -> Iterator[str]:
    """Compare the predicted IoU of the mask that it chose with its IoU, strategy by strategy."""
    chosen = records.filter(
        (pl.col("model") == model)
        & (pl.col("selection") == "predicted")
        & (pl.col("outcome") != "failed")
    )
    for (strategy,), frame in chosen.group_by("strategy", maintain_order=True):
        said, true = frame["predicted_iou"].to_numpy(), frame["jaccard"].to_numpy()
        bins = np.clip((said * BINS).astype(int), 0, BINS - 1)
        gaps = [
            abs(said[bins == b].mean() - true[bins == b].mean()) * (bins == b).mean()
            for b in set(bins.tolist())
        ]
        yield (
            f"{strategy}: says {said.mean():.3f}, is {true.mean():.3f}; mean error "
            f"{np.abs(said - true).mean():.3f}, expected calibration error {sum(gaps):.3f}, "
            f"correlation {np.corrcoef(said, true)[0, 1]:.2f} ({len(said)} masks)"
        )


def main() -> None:
    """Evaluate, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path, nargs="+")
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, required=True)
    told = parser.parse_args()
    keep_freed_memory()
    corpora = [open_corpus(path) for path in told.corpus]
    runs = [score(corpus, ["litemedsam", told.model], told.out) for corpus in corpora]
    records = pl.concat([run.records() for run in runs])
    means = by_dataset(records)
    order = [strategy.name for strategy in ASKED]
    with pl.Config(tbl_rows=200, tbl_cols=12, float_precision=3, tbl_hide_dataframe_shape=True):
        for model in records["model"].unique(maintain_order=True):
            own = means.filter(pl.col("model") == model)
            print(f"\n{model}: mean DICE over {own['dataset'].n_unique()} data sets")
            table = own.group_by("selection", "strategy").agg(pl.col("dice").mean())
            print(
                table.pivot("strategy", index="selection", values="dice").select(
                    "selection", *order
                )
            )
            predicted = own.filter(pl.col("selection") == "predicted").sort("dataset")
            print(
                predicted.pivot("strategy", index="dataset", values="dice").select(
                    "dataset", *order
                )
            )
            print("\n".join(calibration(records, model)))


if __name__ == "__main__":
    main()
