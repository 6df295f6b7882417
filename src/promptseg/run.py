"""Evaluate a whole corpus into a run folder, part by part, and go on where a killed run ended."""

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from promptseg.ahead import ahead
from promptseg.contamination import found
from promptseg.corpus import Corpus, RowGroup
from promptseg.evaluation import evaluate, evaluate_masks
from promptseg.model import Segmenter
from promptseg.models import MODELS, licence_of, published_hash
from promptseg.parquet import write_atomically
from promptseg.pending import Evaluated
from promptseg.plan import Plan
from promptseg.predictions import Predictions
from promptseg.record import Run, RunFolder, start_run
from promptseg.stages import Profile, Stopwatch, unwatched
from promptseg.subset import Choice, Subset, choose_subset

Answering = Segmenter[Any] | Predictions

MOST_PARTS = 4096  # bounds the number of files of a run
RECORDED = ("promptseg", "torch", "transformers", "numpy", "scipy", "opencv-python-headless")


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a run: the row groups of which its files hold the records, for one model."""

    index: int
    model: int
    groups: tuple[RowGroup, ...]

    @property
    def n_images(self) -> int:
        """Count its images."""
        return sum(group.n_images for group in self.groups)


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
    models: Mapping[str, Answering],
    plan: Plan,
    *,
    subset: Subset | None = None,
    device: str = "cpu",
    dtype: str = "float32",
) -> Run:
    """Gather what makes the records of an evaluation repeatable.

    `models` are given by the words that ask for them: `litemedsam`, `package.module:name`, or the
    folder of another tool's masks. Without a subset all of the corpus is evaluated.
    """
    of_targets = corpus.n_classes() if plan.unit == "class" else corpus.info.n_targets
    licences = {
        model.name: licence
        for word, model in models.items()
        if not isinstance(model, Predictions) and (licence := licence_of(word, model.weights_hash))
    }
    trained_on, held_out = found(corpus, models, subset)
    return Run(
        corpus=corpus.info.name,
        corpus_path=str(corpus.path.resolve()),
        corpus_fingerprint=corpus.info.fingerprint,
        layout=corpus.layout() if subset is None else _layout(corpus, subset),
        models={model.name: model.weights_hash for model in models.values()},
        asked={model.name: word for word, model in models.items()},
        trained_for={model.name: _trained_for(model) for model in models.values()},
        licences=licences,
        custom_weights=[
            model.name
            for word, model in models.items()
            if word in MODELS and model.weights_hash != published_hash(MODELS[word])
        ],
        strategies=[strategy.name for strategy in plan.strategies],
        selections=list(plan.selections),
        protocol=plan.protocol,
        unit=plan.unit,
        seeds=list(plan.seeds),
        jitter=[str(jitter) for jitter in plan.jitter],
        everything=_everything(models, plan),
        subset={} if subset is None else subset.choice.told(),
        max_targets=plan.max_targets,
        nsd_tolerance=plan.nsd_tolerance,
        save_masks=plan.save_masks,
        batch_size=plan.batch_size,
        device=device,
        dtype=dtype,
        n_images=corpus.info.n_images if subset is None else subset.n_images,
        n_targets=of_targets if subset is None else subset.n_targets,
        of_images=corpus.info.n_images,
        of_targets=of_targets,
        n_parts=len(parts_of(_groups(corpus, subset), len(models))),
        versions={"python": platform.python_version(), **_versions()},
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        datasets=[dict(one) for one in corpus.info.datasets],
        trained_on=trained_on,
        held_out=held_out,
        backends={
            model.name: backend
            for model in models.values()
            if isinstance(backend := getattr(model, "backend", None), str)
        },
    )


def _trained_for(model: Answering) -> list[str]:
    if isinstance(model, Predictions):
        return []
    training = model.training
    exceptions = [f"not {pair}" for pair in training.exceptions()]
    return sorted(training.prompts) + sorted(training.selections) + exceptions


def _everything(models: Mapping[str, Answering], plan: Plan) -> dict[str, Any]:
    if all(strategy.prompt_kind != "everything" for strategy in plan.strategies):
        return {}
    return {
        model.name: asdict(plan.everything_of(model))
        for model in models.values()
        if not isinstance(model, Predictions)
    }


def _groups(corpus: Corpus, subset: Subset | None) -> list[RowGroup]:
    return corpus.row_groups() if subset is None else corpus.groups_of(subset.targets)


def _layout(corpus: Corpus, subset: Subset) -> str:
    """Hash which targets lie in which row group."""
    chosen = {image_id: sorted(ids) for image_id, ids in sorted(subset.targets.items())}
    return hashlib.sha256((corpus.layout() + json.dumps(chosen)).encode()).hexdigest()


def _versions() -> dict[str, str]:
    return {package: version(package) for package in RECORDED}


def evaluate_into(
    path: str | Path,
    corpus: Corpus,
    models: Mapping[str, Answering],
    plan: Plan,
    *,
    choice: Choice | None = None,
    device: str = "cpu",
) -> RunFolder:
    """Evaluate models on a corpus into a run folder, or finish the one that is there.

    What `promptseg evaluate` does, without its progress: `describe_run`, `start_run` and
    `evaluate_corpus` in one, for models in float32. `models` are given as `describe_run` takes
    them; `device` is where they are, and is recorded.

    Raises
    ------
    DataError
        The choice leaves nothing, or the folder holds a run that differs in its settings.
    """
    subset = None
    if choice is not None and choice != Choice():
        subset = choose_subset(corpus, choice, unit=plan.unit, seed=plan.seeds[0])
    folder = start_run(Path(path), describe_run(corpus, models, plan, subset=subset, device=device))
    for _ in evaluate_corpus(corpus, folder, models, plan, subset=subset):
        pass
    return folder


def evaluate_corpus(  # noqa: PLR0913 - what, with which models, whereto, and how
    corpus: Corpus,
    folder: RunFolder,
    models: Mapping[str, Answering],
    plan: Plan,
    *,
    subset: Subset | None = None,
    retry_failed: bool = False,
    stopwatch: Stopwatch | None = None,
) -> Iterator[Progress]:
    """Evaluate what a run folder lacks yet, and yield after every image.

    `retry_failed` also evaluates again the parts that hold a failed record. A stopwatch is told
    how long every stage takes.
    """
    ordered = list(models.values())
    left: dict[int, list[Part]] = {}
    for part in parts_of(_groups(corpus, subset), len(ordered)):
        if folder.has_part(part.index) and not (retry_failed and folder.has_failures(part.index)):
            yield Progress(ordered[part.model].name, part.n_images)
        else:
            left.setdefault(part.model, []).append(part)
    targets = None if subset is None else subset.targets
    watch = unwatched if stopwatch is None else stopwatch.watch
    for index, parts in left.items():
        groups = [group for part in parts for group in part.groups]
        samples = ahead((one for group in groups for one in corpus.read(group, targets)), watch)
        model = ordered[index]
        if isinstance(model, Predictions):
            answers = evaluate_masks(samples, model, plan, watch=watch)
        else:
            answers = evaluate(samples, model, plan, watch=watch)
        for part in parts:
            done: list[Evaluated] = []
            for one in islice(answers, part.n_images):
                done.append(one)
                if stopwatch is not None:
                    stopwatch.count(1, len(one.prompts))
                failed = sum(record.outcome == "failed" for record in one.records)
                yield Progress(model.name, 1, len(one.prompts), failed)
            with watch("writing"):
                _write(folder, part, done)


def _write(folder: RunFolder, part: Part, done: Sequence[Evaluated]) -> None:
    folder.write_part(
        part.index,
        [record for one in done for record in one.records],
        [row for one in done for row in one.prompts],
        [row for one in done for row in one.masks],
        [row for one in done for row in one.attributes],
    )


def keep_profile(folder: RunFolder, profile: Profile) -> None:
    """Write where the time went beside the records, over what was told before; no record has it."""
    content = json.dumps(asdict(profile), indent=2) + "\n"
    write_atomically(folder.path / "profile.json", content.encode())


def failures(folder: RunFolder) -> dict[str, int]:
    """Count the failed samples of a run by reason: images with at least one failed record."""
    import polars as pl

    failed = folder.records().filter(pl.col("outcome") == "failed")
    counted = failed.group_by("reason").agg(pl.col("image_id").n_unique().alias("images"))
    return dict(counted.sort("images", "reason", descending=[True, False]).iter_rows())
