"""A fine-tuned model on disk: a folder with what differs from its base, its card, and a README.

`model.safetensors` holds only the tensors of the network's state that differ from the base as it is
loaded; `model.json` says what the model is, and comes last, so that a folder with it is whole;
`README.md` is a model card as model hubs read it. Nothing of a folder is run: no path in it is
opened, and a base that is code of one's own is imported only where that is asked for.
"""

import copy
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from promptseg.errors import ModelError
from promptseg.model import Segmenter
from promptseg.parquet import write_atomically
from promptseg.tuned.card import CARD, card_text, parsed
from promptseg.tuned.card import TunedCard as TunedCard
from promptseg.tuned.card import read_card as read_card
from promptseg.tuned.readme import model_card
from promptseg.weights import sha256_of

if TYPE_CHECKING:
    from torch import Tensor

FORMAT, WEIGHTS, README = "promptseg-tuned-1", "model.safetensors", "README.md"
StoredType = Literal["float32", "float16"]


def write_tuned(
    folder: Path,
    state: Mapping[str, "Tensor"],
    model: Segmenter[Any],
    card: TunedCard,
    *,
    base: Segmenter[Any] | None = None,
    dtype: StoredType = "float32",
) -> Path:
    """Write a fine-tuned model into a folder, and return the folder.

    Parameters
    ----------
    folder
        Made if need be; a model that is in it is replaced.
    state
        The whole state of the trained network, without adapters: the names, shapes and types of
        the base's `network.state_dict()`.
    model
        The model that was trained, which is never compared with itself.
    card
        What the model is. Its base may be fine-tuned too: what is written is then based on that
        one's base, and holds all that differs from it.
    base
        The base as it was before training. Otherwise it is loaded anew by its word.
    dtype
        How tensors are stored; on load they take the type that the network has.

    Raises
    ------
    ModelError
        The base cannot be had anew, the state does not fit it, a value is not finite or too large
        for float16, or the card says what `model.json` cannot hold.
    DataError
        The folder cannot be written.
    """
    from safetensors.torch import save

    root = root_of(card.base)
    base = base or _with_network(root)
    if base is model or _network(base) is _network(model):
        raise ModelError(
            f"{root} is the one object that was trained, so that nothing differs: let the word "
            "name a function that makes the model, or pass the base as it was."
        )
    own = _network(base).state_dict()
    content = save(_differing(state, own, dtype), {"format": FORMAT})
    digest = hashlib.sha256(content).hexdigest()
    card = replace(card, base=root, base_hash=base.weights_hash, sha256=digest)
    try:
        text = card_text(card)
        readme = model_card(parsed(json.loads(text)))
    except (TypeError, ValueError) as error:
        raise ModelError(f"{card.name} cannot be written to {folder}: {error}.") from error
    write_atomically(folder / WEIGHTS, content)
    write_atomically(folder / README, readme.encode())
    write_atomically(folder / CARD, text.encode())
    return folder


def root_of(word: str) -> str:
    """Follow the word of a fine-tuned model to that of its base; other words are their own.

    Raises
    ------
    ModelError
        It is a damaged folder, or its base is code of someone's own.
    """
    from promptseg.models import folder_of

    folder = folder_of(word)
    if folder is None:
        return word
    card = read_card(folder)
    _refuse_code(folder, card)
    return card.base


def load_tuned(
    folder: Path, *, device: str = "cpu", dtype: str = "float32", trust_base: bool = False
) -> Segmenter[Any]:
    """Load a fine-tuned model: its base, with the tensors that differ.

    `trust_base` imports a base that is `package.module:name`.

    Raises
    ------
    ModelError
        A file is missing, damaged or foreign; the base is code and not trusted, cannot be loaded,
        or is another than that of the training; names or shapes do not fit.
    """
    import torch

    card = read_card(folder)
    if not trust_base:
        _refuse_code(folder, card)
    values = tensors_of(folder, card)
    model = _with_network(card.base, device, dtype)
    if model.weights_hash != card.base_hash:
        raise ModelError(
            f"{folder} was fine-tuned from {card.base} with weights {card.base_hash[:12]}, and "
            f"{card.base} has {model.weights_hash[:12]} here: use its version that was trained."
        )
    if ":" in card.base:  # the word may stand for one object, which others use too
        model = copy.deepcopy(model)
    own = _network(model).state_dict()
    _refuse_misfits(folder / WEIGHTS, values, own)
    with torch.no_grad():
        for name, value in values.items():
            own[name].copy_(value)
    return _renamed(model, card)


def _renamed(model: Segmenter[Any], card: TunedCard) -> Segmenter[Any]:
    """Let a model say what it has become."""
    said: dict[str, Any] = {
        "name": card.name,
        "weights_hash": card.sha256,
        "training": card.training,
        "tuned_card": card,
    }
    if card.everything is not None:
        said["everything"] = card.everything
    try:
        for name, value in said.items():
            setattr(model, name, value)
    except AttributeError as error:
        raise ModelError(
            f"{card.base} lets nobody set its attributes, as a base has to: {error}."
        ) from error
    return model


def tensors_of(folder: Path, card: TunedCard) -> dict[str, "Tensor"]:
    """Read the tensors that differ from the base's, after their file was checked.

    Raises
    ------
    ModelError
        The file is missing, not the one that the card is of, or holds what it must not.
    """
    import torch
    from safetensors import safe_open

    path = folder / WEIGHTS
    if not path.is_file() or sha256_of(path) != card.sha256:
        what = "damaged or of another model" if path.is_file() else "missing"
        raise ModelError(f"{path} is {what}: copy the folder again, or write the model anew.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # damaged files make readers raise anything
        raise ModelError(f"{path} is no intact safetensors file: write the model anew.") from error
    if metadata.get("format") != FORMAT:
        raise ModelError(
            f"{path} is no file of a fine-tuned model, which says {FORMAT}: write the model anew."
        )
    for name, value in values.items():
        if value.is_floating_point() and value.dtype not in (torch.float32, torch.float16):
            raise ModelError(f"{path} holds {name} as {value.dtype}, not float32 or float16.")
        _refuse_infinite(name, value, str(path))
    return values


def export_original(model: object, path: Path) -> Path:
    """Write a model's weights in the layout of its authors' checkpoint, and return the file.

    `torch.load(path, weights_only=True)` reads it, and so does `--weights`.

    Raises
    ------
    ModelError
        The file is there already or is no .pth, or the model has no such layout.
    DataError
        The file cannot be written.
    """
    import torch

    if path.suffix not in (".pth", ".pt"):
        raise ModelError(f"{path} has to end in .pth, which is the form of such a file.")
    if path.exists():
        raise ModelError(f"{path} is there already: name another file, or delete it.")
    if not hasattr(model, "original_state"):
        raise ModelError(
            f"{getattr(model, 'name', model)} has no original layout to be written in; litemedsam "
            "has one, and what was fine-tuned from it."
        )
    content = io.BytesIO()
    torch.save(model.original_state(), content)
    write_atomically(path, content.getvalue())
    return path


def _with_network(word: str, device: str = "cpu", dtype: str = "float32") -> Segmenter[Any]:
    """Load a base."""
    from promptseg.models import MODELS, load_model

    if ":" not in word and word not in MODELS:  # a name in a card is never a folder
        raise ModelError(f"The base {word} is no model of this promptseg: update promptseg.")
    model = load_model(word, device=device, dtype=dtype)
    _network(model)
    return model


def _network(model: Segmenter[Any]) -> Any:
    """Give the module of a model; raises ModelError where it shows none."""
    network = getattr(model, "network", None)
    if not hasattr(network, "state_dict"):
        raise ModelError(
            f"{model.name} shows no `network`, a torch module: it can be no base of a fine-tuning."
        )
    return network


def _refuse_code(folder: Path, card: TunedCard) -> None:
    if ":" in card.base:
        raise ModelError(
            f"{folder} is based on {card.base}, which is code that would run. If you trust it, "
            "write a function of your own that returns promptseg.tuned.load_tuned(FOLDER, "
            "trust_base=True), and give it as --model package.module:name."
        )


def _differing(
    state: Mapping[str, "Tensor"], own: Mapping[str, "Tensor"], dtype: StoredType
) -> dict[str, "Tensor"]:
    """Choose the tensors of a state that are not those of the base, as they are stored."""
    import torch

    missing = own.keys() - state.keys()
    if missing:
        raise ModelError(f"The trained state lacks {min(missing)}, which its base has.")
    _refuse_misfits("The trained state", state, own)
    found: dict[str, Tensor] = {}
    for name, value in sorted(state.items()):
        value, before = value.detach().cpu(), own[name].detach().cpu()
        if value.dtype != before.dtype:
            raise ModelError(
                f"The trained state has {name} as {value.dtype}, its base as {before.dtype}: train "
                "in the type of the base."
            )
        if torch.equal(value, before):
            continue
        _refuse_infinite(name, value, "The trained state")
        stored = value.to(getattr(torch, dtype)) if value.is_floating_point() else value
        if not bool(torch.isfinite(stored).all()):
            raise ModelError(f"{name} has values too large for {dtype}: store it as float32.")
        found[name] = stored.clone().contiguous()
    return found


def _refuse_misfits(
    whose: object, values: Mapping[str, "Tensor"], own: Mapping[str, "Tensor"]
) -> None:
    """Refuse tensors that the base does not have, or has in another shape or kind."""
    for name, value in values.items():
        if name not in own:
            raise ModelError(f"{whose} has a tensor {name}, which its base lacks: is it its base?")
        kind = own[name].dtype
        if value.shape != own[name].shape or (
            value.dtype != kind and not (value.is_floating_point() and kind.is_floating_point)
        ):
            told, needed = (f"{t.dtype} of {list(t.shape)}" for t in (value, own[name]))
            raise ModelError(f"{whose} has {name} as {told}, its base as {needed}: is it its base?")


def _refuse_infinite(name: str, value: "Tensor", whose: str) -> None:
    if not bool(value.isfinite().all()):
        raise ModelError(f"{whose} has values in {name} that are not finite: train it again.")
