"""The state of a training on disk: one file, whole or not at all, from which it goes on exactly."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from promptseg.errors import DataError
from promptseg.parquet import write_atomically
from promptseg.tuning.course import Course
from promptseg.tuning.network import set_values

STATE = "state.safetensors"
COURSE = "course"  # name of its tensor
MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(slots=True)
class Progressed:
    """How far a training is, and what it saw."""

    step: int = 0  # steps done
    best_step: int = 0
    best_score: float = -1.0
    epochs: list[dict[str, Any]] = field(default_factory=list)  # a line for each validation
    course: Course = field(default_factory=Course)
    checks: list[dict[str, str]] = field(default_factory=list)


def save_state(
    folder: Path,
    network: nn.Module,
    names: Sequence[str],
    optimizer: torch.optim.Optimizer,
    done: Progressed,
    identity: str,
) -> None:
    """Write parameters, optimiser and progress together."""
    # figures of steps are a tensor: the text of a file of tensors may have 100 MB, a million steps
    tensors = {COURSE: torch.from_numpy(done.course.rows())}
    tensors |= {f"value/{name}": network.get_parameter(name) for name in names}
    for name in names:
        moments = optimizer.state.get(network.get_parameter(name), {})
        tensors |= {f"{kind}/{name}": moments[kind] for kind in MOMENTS if moments}
    told = {
        "identity": identity,
        "step": done.step,
        "best_step": done.best_step,
        "best_score": done.best_score,
        "epochs": done.epochs,
        "checks": done.checks,
    }
    _write(folder / STATE, tensors, {"progress": json.dumps(told)})
    for path in folder.glob("best-*.safetensors"):  # the state that is there now needs one only
        if path != _best(folder, done.best_step):
            path.unlink(missing_ok=True)


def _best(folder: Path, step: int) -> Path:
    return folder / f"best-{step}.safetensors"


def save_best(folder: Path, network: nn.Module, names: Sequence[str], step: int) -> None:
    """Keep the parameters as they are as the best; the last state may still need another best."""
    _write(_best(folder, step), {name: network.get_parameter(name) for name in names}, {})


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    from safetensors.torch import save

    write_atomically(path, save({k: v.detach().cpu() for k, v in tensors.items()}, metadata))


def load_best(folder: Path, network: nn.Module, step: int) -> None:
    """Give the network the best parameters; raises DataError when they are gone or damaged."""
    values, _ = _read(_best(folder, step))
    set_values(network, values)


@contextmanager
def alone(folder: Path, *, writes: bool) -> Iterator[None]:
    """Keep other trainings out of a folder of states; the lock ends with the process at the latest.

    Processes of one training that write nothing take none. Raises DataError where another process
    trains, or nothing can be written.
    """
    with ExitStack() as stack:
        if writes:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(folder / "lock", timeout=0))
            except Timeout as error:
                raise DataError(
                    f"Another process trains into {folder.parent}. Wait for it, or stop it first: "
                    "this command then goes on from its last state."
                ) from error
            except OSError as error:
                raise DataError(f"Cannot write {folder}: {error.strerror}.") from error
        yield


def has_state(folder: Path) -> bool:
    """Tell whether there is a state, without reading it."""
    return (folder / STATE).is_file()


def check_identity(folder: Path, identity: str) -> None:
    """Refuse the state of another training; raises DataError."""
    found = _header(folder)
    if found is not None and found[0].get("identity") != identity:
        raise DataError(
            f"{folder} holds a training of other settings, data or weights, or on another kind "
            "of device or torch. Give another --out, or delete it to start again."
        )


def peek(folder: Path) -> Progressed | None:
    """Tell how far a state is, without its parameters; None where there is none.

    Raises DataError when it is damaged.
    """
    found = _header(folder)
    if found is None:
        return None
    told, course = found
    told.pop("identity", None)
    try:
        return Progressed(**told, course=course)
    except TypeError as error:
        raise _damaged(folder / STATE, error) from error


def _header(folder: Path) -> tuple[dict[str, Any], Course] | None:
    """Read how far a state is, and its course; None where there is none."""
    from safetensors import safe_open

    path = folder / STATE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            told = dict(json.loads(file.metadata()["progress"]))
            return told, Course(file.get_tensor(COURSE).numpy())
    except Exception as error:  # damaged files make readers raise anything
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is damaged: {error}. Delete {path.parent} and start again.")


def load_state(
    folder: Path,
    network: nn.Module,
    names: Sequence[str],
    optimizer: torch.optim.Optimizer,
    identity: str,
) -> Progressed | None:
    """Go on from a state; None where there is none.

    Raises
    ------
    DataError
        The state is damaged, or of other settings, data or weights.
    """
    path = folder / STATE
    if not path.is_file():
        return None
    check_identity(folder, identity)
    tensors, metadata = _read(path)
    try:
        told = json.loads(metadata["progress"])
        told.pop("identity")
        course = Course(tensors[COURSE].numpy())
        values = {name: tensors[f"value/{name}"] for name in names}
        if told["best_score"] >= 0 and not (best := _best(folder, told["best_step"])).is_file():
            raise ValueError(f"{best.name} is gone")
    except (KeyError, ValueError, AttributeError) as error:
        raise _damaged(path, error) from error
    set_values(network, values)
    for name in names:
        parameter = network.get_parameter(name)
        moments = {k: tensors[f"{k}/{name}"] for k in MOMENTS if f"{k}/{name}" in tensors}
        if moments:
            # the count of steps as well: a fused optimiser reads it where the parameter is
            optimizer.state[parameter] = {k: v.to(parameter.device) for k, v in moments.items()}
    return Progressed(**told, course=course)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except Exception as error:  # damaged files make readers raise anything
        raise _damaged(path, error) from error
