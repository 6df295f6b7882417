"""Evaluate a whole corpus into a run folder, part by part, and go on where a killed run ended."""

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from promptseg.corpus import Corpus, RowGroup
from promptseg.evaluation import Evaluated, Plan, evaluate
from promptseg.model import Segmenter
from promptseg.models import MODELS
from promptseg.record import Run, RunFolder

MOST_PARTS = 4096  # bounds the number of files of a run
RECORDED = ("promptseg", "torch", "transformers", "numpy", "scipy", "opencv-python-headless")


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a run: the row groups of which its files hold the records, for one model."""

    index: int
    model: int
    groups: tuple[RowGroup, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """What one more image, or one more part found whole, adds to an evaluation."""

    model: str
    images: int
    prompts: int = 0
    failed: int = 0


def parts_of(groups: Sequence[RowGroup], n_models: int) -> list[Part]:
    """Divide an evaluation into its parts; their number is bounded, whatever the corpus."""
    per_part = -(-len(groups) * n_models // MOST_PARTS)
    runs = [
        (model, tuple(groups[start : start + per_part]))
        for model in range(n_models)
        for start in range(0, len(groups), per_part)
    ]
    return [Part(index, model, part) for index, (model, part) in enumerate(runs)]


def describe_run(
    corpus: Corpus,
    models: Mapping[str, Segmenter[Any]],
    plan: Plan,
    *,
    device: str = "cpu",
    dtype: str = "float32",
) -> Run:
    """Gather what makes the records of an evaluation repeatable.

    `models` are given by the words that ask for them: `litemedsam`, `package.module:name`.
    """
    published = {
        model.name: MODELS[word].licence
        for word, model in models.items()
        if word in MODELS and model.weights_hash == MODELS[word].weights.sha256
    }
    return Run(
        corpus=corpus.info.name,
        corpus_path=str(corpus.path.resolve()),
        corpus_fingerprint=corpus.info.fingerprint,
        layout=corpus.layout(),
        models={model.name: model.weights_hash for model in models.values()},
        asked={model.name: word for word, model in models.items()},
        trained_for={
            model.name: sorted(model.training.prompts) + sorted(model.training.selections)
            for model in models.values()
        },
        licences=published,
        custom_weights=[
            model.name
            for word, model in models.items()
            if word in MODELS and model.name not in published
        ],
        strategies=[strategy.name for strategy in plan.strategies],
        selections=list(plan.selections),
        protocol="paper",
        unit=plan.unit,
        seed=plan.seed,
        nsd_tolerance=plan.nsd_tolerance,
        save_masks=plan.save_masks,
        device=device,
        dtype=dtype,
        n_images=corpus.info.n_images,
        n_parts=len(parts_of(corpus.row_groups(), len(models))),
        versions={"python": platform.python_version(), **_versions()},
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _versions() -> dict[str, str]:
    return {package: version(package) for package in RECORDED}


def evaluate_corpus(
    corpus: Corpus,
    folder: RunFolder,
    models: Mapping[str, Segmenter[Any]],
    plan: Plan,
    *,
    retry_failed: bool = False,
) -> Iterator[Progress]:
    """Evaluate what a run folder lacks yet, and yield after every image.

    `retry_failed` also evaluates again the parts that hold a failed record.
    """
    ordered = list(models.values())
    for part in parts_of(corpus.row_groups(), len(ordered)):
        model = ordered[part.model]
        whole = folder.has_part(part.index)
        if whole and not (retry_failed and folder.has_failures(part.index)):
            yield Progress(model.name, sum(group.n_images for group in part.groups))
        else:
            yield from _evaluate_part(corpus, folder, model, plan, part)


def _evaluate_part(
    corpus: Corpus, folder: RunFolder, model: Segmenter[Any], plan: Plan, part: Part
) -> Iterator[Progress]:
    done: list[Evaluated] = []
    samples = (sample for group in part.groups for sample in corpus.read(group))
    for one in evaluate(samples, model, plan):
        done.append(one)
        failed = sum(record.outcome == "failed" for record in one.records)
        yield Progress(model.name, 1, len(one.prompts), failed)
    folder.write_part(
        part.index,
        [record for one in done for record in one.records],
        [row for one in done for row in one.prompts],
        [row for one in done for row in one.masks],
    )


def failures(folder: RunFolder) -> dict[str, int]:
    """Count the failed samples of a run by reason: images with at least one failed record."""
    import polars as pl

    failed = folder.records().filter(pl.col("outcome") == "failed")
    counted = failed.group_by("reason").agg(pl.col("image_id").n_unique().alias("images"))
    return dict(counted.sort("images", "reason", descending=[True, False]).iter_rows())
