"""Options that several verbs share, and how their words become objects."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from promptseg.errors import ModelError, pick

if TYPE_CHECKING:
    from promptseg.model import Segmenter

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Device = Annotated[
    str, typer.Option(help="cpu, cuda, cuda:1, mps, xpu; auto: cuda if there is one, else cpu.")
]
Weights = Annotated[
    Path | None, typer.Option(help="Load the model's weights from this .pth, .pt or .safetensors.")
]


BackendName = Annotated[
    str, typer.Option("--backend", help="torch, or onnx: exported once, run by OpenVINO on a CPU.")
]


def words(literal: Any) -> dict[str, Any]:
    """Give the words of a Literal type as a table for `pick`."""
    return {word: word for word in get_args(literal)}


def load_models(
    names: list[str],
    weights: Path | None,
    device: str,
    dtype: str = "float32",
    backend: str = "torch",
) -> "dict[str, Segmenter[Any]]":
    """Load models, each by its word; raises ModelError as `load_model` does."""
    from promptseg.model import Backend, Precision
    from promptseg.models import load_model

    pick(words(Precision), dtype, "dtype")
    runner = pick(words(Backend), backend, "backend")
    unique = list(dict.fromkeys(names))
    if weights is not None and len(unique) > 1:
        raise ModelError("--weights goes with one --model.")
    how: Any = {"weights": weights, "device": device, "dtype": dtype, "backend": runner}
    loaded = {name: load_model(name, **how) for name in unique}
    if len({model.name for model in loaded.values()}) < len(loaded):
        raise ModelError("Two of the models call themselves by one name; rename one of them.")
    return loaded


def usable_device(name: str, backend: str = "torch") -> str:
    """Find a device that models can run on here; raises ModelError."""
    import torch

    if name == "auto" and backend == "onnx":
        return "cpu"
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if torch.device(name).type not in {"cpu", "cuda", "mps", "xpu"}:
            raise ValueError("not a device that models run on")
        torch.empty(1, device=name)
    except Exception as error:  # drivers fail in any way
        raise ModelError(
            f"Device {name!r} cannot be used here. Known are cpu, cuda, cuda:1, mps and xpu; "
            "try --device cpu."
        ) from error
    return name
