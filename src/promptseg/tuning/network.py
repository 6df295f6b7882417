"""Which parameters are trained: chosen, adapters put in, all others frozen; and taken out again."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from promptseg.errors import ModelError
from promptseg.trainable import Trainable
from promptseg.tuning.settings import Settings

ADAPTER = "default"  # peft's name of the only adapter


@dataclass(frozen=True, slots=True)
class Chosen:
    """The parameters that are trained, and the first encoder stage that holds one."""

    names: tuple[str, ...]
    cut: int  # the stages before are frozen; len(stages): all of them
    n_values: int


def trainable(model: Any) -> Trainable:
    """Take a model as trainable; raises ModelError where it is not."""
    if isinstance(model, Trainable):
        return model
    needed = (
        "network",
        "stages",
        "tokens",
        "parameters_of",
        "canvas",
        "pixels",
        "encode",
        "decode",
        "embedding",
        *("name", "weights_hash", "training", "embed", "segment"),
    )
    lacking = ", ".join(name for name in needed if not hasattr(model, name))
    raise ModelError(
        f"{getattr(model, 'name', model)} cannot be trained: it has no {lacking}. What a trainable "
        "model shows is promptseg.trainable.Trainable; litemedsam can be trained."
    )


def choose_parameters(model: Trainable, settings: Settings) -> Chosen:
    """Freeze all parameters but the chosen ones, after adapters were put in where asked for.

    Raises
    ------
    ModelError
        No linear layer has a name that the adapters are for, or nothing is chosen.
    """
    names = [
        name
        for part in settings.parts
        for name in model.parameters_of(part, settings.tokens, settings.kinds)
        if settings.iou_weight > 0 or "iou_prediction_head" not in name
    ]
    if settings.uses_lora:
        names += _with_adapters(model.network, settings)
    chosen = set(names)
    if gone := chosen - {name for name, _ in model.network.named_parameters()}:
        raise ModelError(
            f"--lora-targets {settings.lora_targets!r} puts adapters where --method "
            f"{settings.method} trains all weights ({min(gone)}): name layers of the encoder only."
        )
    if not chosen:
        raise ModelError(f"{model.name} has no parameter that --method {settings.method} trains.")
    n_values = 0
    for name, parameter in model.network.named_parameters():
        parameter.requires_grad_(name in chosen)
        n_values += parameter.numel() if name in chosen else 0
    model.network.eval()  # batches are too small for statistics of their own
    cut = next(
        (
            n
            for n, stage in enumerate(model.stages)
            if any(c.startswith(f"{stage}.") for c in chosen)
        ),
        len(model.stages),
    )
    return Chosen(tuple(sorted(chosen)), cut, n_values)


def _with_adapters(network: nn.Module, settings: Settings) -> list[str]:
    """Put low-rank adapters beside linear layers (Hu et al. 2022, LoRA, arXiv 2106.09685)."""
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,  # type: ignore[arg-type]  # a scale, of which only the ratio counts
        lora_dropout=0.0,
        target_modules=settings.lora_targets,
    )
    # peft draws its first factor from the global generator
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        try:
            inject_adapter_in_model(config, network, adapter_name=ADAPTER)
        except (ValueError, re.error) as error:
            raise ModelError(
                f"No layer has a name like --lora-targets {settings.lora_targets!r}: give a "
                f"regular expression of whole names, as {_linear(network)}."
            ) from error
    return [name for name, _ in network.named_parameters() if "lora_" in name]


def _linear(network: nn.Module) -> str:
    found = (name for name, module in network.named_modules() if isinstance(module, nn.Linear))
    return next(found, "(there is no linear layer)")


def merged_state(network: nn.Module) -> dict[str, Tensor]:
    """Give the network's state as if it never had adapters: added to the weights they stand at."""
    from peft.tuners.lora import LoraLayer

    deltas: dict[str, Tensor] = {}
    for name, module in network.named_modules():
        if isinstance(module, LoraLayer):
            layer: Any = module
            deltas[name] = layer.get_delta_weight(ADAPTER).detach()
    state: dict[str, Tensor] = {}
    for name, value in network.state_dict().items():
        if ".lora_" in name:
            continue
        plain = name.replace(".base_layer.", ".")
        module_name, _, kind = plain.rpartition(".")
        delta = deltas.get(module_name) if kind == "weight" else None
        state[plain] = value.detach().clone() if delta is None else value.detach() + delta
    return state


def without_adapters(network: nn.Module) -> None:
    """Take adapters out of a network, their work undone."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(network.named_modules()):
        if isinstance(module, LoraLayer):
            parent, _, last = name.rpartition(".")
            setattr(network.get_submodule(parent), last, module.get_base_layer())


def trained_values(network: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
    """Copy the chosen parameters, on the CPU."""
    return {name: network.get_parameter(name).detach().cpu().clone() for name in names}


def set_values(network: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Give parameters these values, in place."""
    with torch.no_grad():
        for name, value in values.items():
            network.get_parameter(name).copy_(value)


def rate_at(step: int, n_steps: int, settings: Settings) -> float:
    """Give the learning rate of a step: a short warm-up, then constant or down a cosine to 1 %."""
    if settings.schedule == "constant":
        return settings.learning_rate
    warm = max(1, n_steps // 20)
    if step < warm:
        return settings.learning_rate * (step + 1) / warm
    done = (step - warm) / max(1, n_steps - warm)
    return settings.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def gradients(network: nn.Module, names: Sequence[str]) -> list[Tensor]:
    """Give the gradients of chosen parameters; one that was not reached has one of zeros.

    So that the optimiser treats it alike, however many processes there are.
    """
    found: list[Tensor] = []
    for name in names:
        parameter = network.get_parameter(name)
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        found.append(parameter.grad)
    return found
