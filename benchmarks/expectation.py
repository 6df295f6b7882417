"""The predictor of DICE against gradient boosting and against means, on subjects held out.

python benchmarks/expectation.py RUN... [--strategy box] [--selection single --selection predicted]

Needs runs with masks, and their corpora where they were (`recipes/study/runs.py` makes such), and
scikit-learn. Both learners see the same features and subjects, fold by fold; counted are the
targets that lie in the range of what ours learnt from, where alone it answers. Boosting is
scikit-learn's histogram one, with subjects weighing the same; its number of trees is chosen among
`TREES` with hindsight, by the very error that is shown, which flatters it.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Int
from sklearn.ensemble import HistGradientBoostingRegressor

from promptseg.expectation import (
    Examples,
    Kind,
    Way,
    by_dataset,
    by_subject,
    learn,
    planning_examples,
)
from promptseg.expectation.interval import subject_weights
from promptseg.expectation.learning import folds_of, joined
from promptseg.expectation.table import corpus_of, deployable_examples
from promptseg.record import RunFolder, open_run

TREES = (25, 50, 100, 200)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One way of answering, before or after the prompt, with its mean absolute errors."""

    model: str
    strategy: str
    selection: str
    kind: Kind
    held_out: str
    n_targets: int
    n_subjects: int
    answered: float
    own: float
    boosting: float
    trees: int
    mean: float
    task: float | None
    predicted_iou: float | None
    coverage: float | None


def boosted(examples: Examples, fold: Int[np.ndarray, "n"]) -> dict[int, float]:
    """Give the mean absolute error of boosting on the held-out targets that ours answers."""
    modality = np.unique(examples.modality, return_inverse=True)[1]
    errors: dict[int, list[float]] = {trees: [] for trees in TREES}
    units: list[str] = []
    for k in range(int(fold.max()) + 1):
        rest, own = examples.at(fold != k), examples.at(fold == k)
        if rest.n_units < 2:
            continue
        learnt = learn(rest)
        rows = zip(own.values, own.modality, strict=True)
        inside = np.array([learnt.reason_against(*row) is None for row in rows], dtype=bool)
        known = np.isfinite(rest.values).any(axis=0)  # it bins no column without a value
        values = np.column_stack([examples.values[:, known], modality])
        for trees in TREES if inside.any() else ():
            model = HistGradientBoostingRegressor(
                max_iter=trees,
                early_stopping=False,
                min_samples_leaf=5,
                learning_rate=0.05,
                categorical_features=[values.shape[1] - 1],
                random_state=0,
            )
            model.fit(values[fold != k], rest.dice, sample_weight=subject_weights(rest.numbers()))
            found = np.clip(model.predict(values[fold == k][inside]), 0, 1)
            errors[trees] += list(np.abs(found - own.dice[inside]))
        units += list(np.array(own.unit)[inside])
    weight = subject_weights(np.unique(units, return_inverse=True)[1])
    return {trees: float(weight @ found / weight.sum()) for trees, found in errors.items()}


def measured(way: Way, kind: Kind, examples: Examples) -> Iterator[Line]:
    """Measure one way on subjects, and on data sets, that are held out."""
    datasets = np.unique(examples.dataset, return_inverse=True)[1]
    for held_out, error, fold in (
        ("subjects", by_subject(examples), folds_of(examples.unit, examples.dataset)),
        ("data sets", by_dataset(examples), datasets),
    ):
        if error is None:
            continue
        tried = boosted(examples, fold)
        best = min(tried, key=lambda trees: tried[trees])
        yield Line(
            model=way.model,
            strategy=way.strategy,
            selection=way.selection,
            kind=kind,
            held_out=held_out,
            n_targets=error.n_targets,
            n_subjects=error.n_units,
            answered=error.answered,
            own=error.own.mae,
            boosting=tried[best],
            trees=best,
            mean=error.mean.mae,
            task=None if error.task is None else error.task.mae,
            predicted_iou=None if error.predicted_iou is None else error.predicted_iou.mae,
            coverage=error.coverage,
        )


def gathered(runs: list[RunFolder], told: argparse.Namespace) -> Iterator[Line]:
    """Go through the ways that are asked for, before and after the prompt."""
    names = [pl.lit(folder.run.corpus_fingerprint).alias("corpus") for folder in runs]
    pairs = list(zip(runs, names, strict=True))
    records = pl.concat([folder.records().with_columns(name) for folder, name in pairs])
    looks = pl.concat([folder.attributes().with_columns(name) for folder, name in pairs])
    planning = planning_examples(records, looks.unique(["corpus", "target_id"]))
    ways = [
        way
        for way in planning
        if way.strategy in told.strategy
        and way.selection in told.selection
        and not way.off_protocol
    ]
    answers: dict[Way, list[Examples]] = {}
    for folder in runs:
        corpus = corpus_of(folder, {})
        if isinstance(corpus, str):
            raise SystemExit(corpus)
        for way, own in deployable_examples(folder, corpus, ways).items():
            answers.setdefault(way, []).append(own)
    for way in ways:
        yield from measured(way, "planning", planning[way])
        if way in answers:
            yield from measured(way, "deployable", joined(answers[way]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, nargs="+")
    parser.add_argument("--strategy", action="append")
    parser.add_argument("--selection", action="append")
    told = parser.parse_args()
    told.strategy = told.strategy or ["box"]
    told.selection = told.selection or ["single", "predicted"]
    lines = list(gathered([open_run(path) for path in told.run], told))
    with pl.Config(tbl_cols=-1, tbl_rows=-1, tbl_width_chars=200, float_precision=3):
        print(pl.DataFrame(lines))


if __name__ == "__main__":
    main()
