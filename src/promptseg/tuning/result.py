"""What a training leaves behind: the model as a folder, and `training.json`."""

from itertools import product
from pathlib import Path
from typing import Any

from promptseg.model import Training, trained_for
from promptseg.models import MODELS, published_hash
from promptseg.tuned import TunedCard, write_tuned
from promptseg.tuned.card import MOST_LETTERS, stages_of
from promptseg.tuning.outcome import Outcome
from promptseg.tuning.run import Job

MODEL = "model"


def write_result(job: Job, outcome: Outcome) -> Path:
    """Write the trained model to `folder/model`, and the outcome beside it.

    The model holds what differs from the published weights of its base, so that it does not need
    the file that a training may have started from.
    """
    outcome.write(job.folder)
    base: TunedCard | None = getattr(job.model, "tuned_card", None)
    earlier = unknown_weights(job) if base is None else stages_of(base)
    card = TunedCard(
        name=job.name,
        base=job.asked,
        training=claims(job),
        licence=_licence(job, base),
        training_data=_training_data(outcome, base),
        everything=None if base is None else base.everything,
        everything_source=_source_of_everything(base),
        finetuned=_told(outcome) | ({"earlier": earlier} if earlier else {}),
    )
    state = job.model.network.state_dict()
    return write_tuned(job.folder / MODEL, state, job.model, card)


def claims(job: Job) -> Training:
    """Say what a model was trained for: what its base was, and what its decoder learned.

    Adapters alone teach no kind of prompt and no token: what reads their embeddings is as it was.
    """
    before: Training = job.model.training
    if not job.settings.parts:
        return before
    return trained_for(before.pairs | set(product(job.settings.kinds, job.settings.selections)))


def unknown_weights(job: Job) -> list[dict[str, Any]]:
    """Say that weights of a built-in model were given of which nobody knows what they saw."""
    word, own = job.asked, job.model.weights_hash
    if word not in MODELS or own == published_hash(MODELS[word]):
        return []
    data = [{"name": "not known", "licence": None}]
    return [{"name": f"weights {own[:12]} of {word}"[:64], "data": data, "images": []}]


def _licence(job: Job, base: TunedCard | None) -> str:
    """Name the licence of the base, under which what was made of it stands."""
    if job.asked in MODELS and not unknown_weights(job):
        return MODELS[job.asked].licence
    return "as its base and its training data" if base is None else base.licence


def _source_of_everything(base: TunedCard | None) -> str:
    if base is None or base.everything is None:
        return ""
    told = base.everything_source
    whose = "" if told.startswith("of ") else f"of {base.name}: "
    return f"{whose}{told}"[:MOST_LETTERS]


def _training_data(outcome: Outcome, base: TunedCard | None) -> str:
    names = ", ".join(str(dataset["name"]) for dataset in outcome.datasets) or "unnamed data"
    images = outcome.n_images["train"]
    own = f"{names}: {outcome.n_targets['train']} targets in {images} images"
    if base is None:
        return own
    line = f"{own}; before, as {base.name}: {base.training_data}"
    return line if len(line) <= MOST_LETTERS else f"{own}; before: that of {base.name}"


def _shown(where: str | None) -> str | None:
    """Give the condition of a training, unless it may name patients."""
    names = ("subject", "image_id", "source", "volume_id", "target_id")
    if where is not None and any(name in where.lower() for name in names):
        return "(a condition that may name patients)"
    return where


def _told(outcome: Outcome) -> dict[str, Any]:
    """Give what the model's card says of the training; subjects are counted only."""
    splits: dict[str, Any] = {
        role: {
            "subjects": outcome.n_subjects[role],
            "images": outcome.n_images[role],
            "targets": outcome.n_targets.get(role),
        }
        for role in outcome.n_subjects
    }
    scores = [
        {"step": line["step"], "task": task, "DICE": dice}
        for line in outcome.epochs
        if line["step"] in (0, outcome.best_step)
        for task, dice in line["tasks"].items()
    ]
    return {
        "data": outcome.datasets,
        "images": outcome.images,
        "splits": {"source": outcome.split_source, **splits},
        "settings": outcome.settings | {"where": _shown(outcome.settings["where"])},
        "scores": scores,
    }
