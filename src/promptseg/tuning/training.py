"""The training itself: checks first, then steps, validations and states, as a generator."""

import hashlib
import json
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from promptseg.contract import Check
from promptseg.corpus import Corpus
from promptseg.errors import ModelError
from promptseg.trainable import Trainable
from promptseg.tuning.checks import checked
from promptseg.tuning.items import Items, Source
from promptseg.tuning.network import Chosen, rate_at
from promptseg.tuning.settings import Settings
from promptseg.tuning.split import Split
from promptseg.tuning.state import (
    Progressed,
    has_state,
    load_best,
    load_state,
    save_best,
    save_state,
)
from promptseg.tuning.step import StepLog, Stepper, batches
from promptseg.tuning.validation import Score, validate

# a killed training has to do again what it did since its last state: so long at most, or as many
# times as long as a state takes to write, which is then one part in so many of the time
SAVE_SECONDS, SAVE_TIMES = 30, 50
# how PyTorch's allocator, its GPUs' one and cuBLAS tell of a full memory
FULL_MEMORY = ("allocate memory", "out of memory", "ALLOC_FAILED")
H = TypeVar("H")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Stepped:
    """One step is done."""

    step: int
    of: int
    log: StepLog


@dataclass(frozen=True, slots=True)
class Validated:
    """The state after an epoch (0: before the first step) was scored."""

    epoch: int
    of: int
    score: Score
    best: bool


Event = Check | Stepped | Validated


@dataclass(slots=True)
class Training:
    """A training that is ready to run, and everything it needs."""

    model: Trainable
    settings: Settings
    chosen: Chosen
    items: Items
    source: Source
    folder: Path
    accelerator: Any
    identity: str
    done: Progressed = field(default_factory=Progressed)
    moving: bool = False  # the optimiser is at work: a state would be half of two

    @property
    def n_steps(self) -> int:
        """Number of steps of all epochs."""
        return self.settings.epochs * self.per_epoch

    @property
    def per_epoch(self) -> int:
        """Number of steps of one epoch."""
        return -(-len(self.items.of_role["train"]) // self.settings.batch_size)

    def is_validated(self, epoch: int) -> bool:
        """Tell whether the state after an epoch is scored."""
        due = epoch % self.settings.val_every == 0 or epoch == self.settings.epochs
        return due and bool(self.items.of_role["val"])

    def owes_validation(self) -> bool:
        """Tell whether an epoch is done that was not scored."""
        epoch, rest = divmod(self.done.step, self.per_epoch)
        scored = any(line["epoch"] == epoch for line in self.done.epochs)
        return rest == 0 and epoch > 0 and self.is_validated(epoch) and not scored

    def stepper(self) -> Stepper:
        """Make what computes gradients."""
        names = self.chosen.names
        return Stepper(self.model, self.settings, self.source, names, self.accelerator)

    def score(self) -> Score:
        """Score the present state on the subjects that choose the best."""
        val = self.items.of_role["val"]
        return validate(self.model, val, self.source, self.settings, self.accelerator)


def identity_of(
    model: Trainable, settings: Settings, split: Split, corpora: Sequence[Corpus], device: str
) -> str:
    """Name everything that the course of a training depends on."""
    told = settings.told()
    del told["overfit_steps"]  # a check leaves the course as it is
    images = {role: [(i.corpus, i.image_id) for i in split.images[role]] for role in split.images}
    content = {
        "weights": model.weights_hash,
        "model": model.name,
        "settings": told,
        "images": images,
        "corpora": [corpus.info.fingerprint for corpus in corpora],
        "device": device.partition(":")[0],
        "torch": torch.__version__.partition("+")[0],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def make_optimizer(training: Training) -> torch.optim.Optimizer:
    """Make AdamW for the chosen parameters."""
    network = training.model.network
    return torch.optim.AdamW(
        [network.get_parameter(name) for name in training.chosen.names],
        lr=training.settings.learning_rate,
        weight_decay=training.settings.weight_decay,
        fused=True,  # a pass over each parameter, not ten
    )


def train(training: Training) -> Generator[Event, None, None]:
    """Train, and yield every check, step and validation; the network ends in its best state.

    A state that is in the folder is gone on from, to the same result as without the interruption.
    A KeyboardInterrupt, and everything that stops the training, leaves the last state and the best
    one behind.

    Raises
    ------
    ModelError
        A check failed; the loss is not finite; the memory is too small.
    DataError
        The folder holds another training.
    """
    optimizer = make_optimizer(training)
    names, network = training.chosen.names, training.model.network
    before = load_state(training.folder, network, names, optimizer, training.identity)
    if before is None:
        yield from guarded(_first(training), training.folder)
        _save(training, optimizer)
        _check_shared(training)
    else:
        training.done = before
    try:
        yield from guarded(_steps(training, optimizer), training.folder)
    except (KeyboardInterrupt, ModelError):
        if not training.moving:  # else the last state stands
            _save(training, optimizer)
        raise
    training.accelerator.wait_for_everyone()  # the best state is written by one of them
    if training.items.of_role["val"]:
        load_best(training.folder, network, training.done.best_step)


def _first(training: Training) -> Generator[Event, None, None]:
    """Check, and score the model as it came."""
    for check in checked(training.stepper(), training.items, training.settings):
        training.done.checks.append(asdict(check))
        yield check
        if check.outcome == "failed":
            raise ModelError(f"The check of {check.name} failed: {check.detail}")
    if training.items.of_role["val"]:
        yield _validated(training, 0)


def _check_shared(training: Training) -> None:
    """Stop at once where a machine does not see what the first process writes."""
    training.accelerator.wait_for_everyone()
    if not has_state(training.folder):
        raise ModelError(
            f"This process does not see the state that the first one wrote to {training.folder}. "
            "Machines that train together need an --out on a disk that all of them share."
        )


def guarded(work: Generator[H, None, R], folder: Path) -> Generator[H, None, R]:
    """Do some work; a full memory is told in one line."""
    try:
        return (yield from work)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(folder) from error
    except RuntimeError as error:
        if any(words in str(error) for words in FULL_MEMORY):
            raise _out_of_memory(folder) from error
        raise


def _out_of_memory(folder: Path) -> ModelError:
    return ModelError(
        "The memory is too small for this training. What was reached is kept in "
        f"{folder}. Try fewer targets per image (--max-targets), another method, or a "
        "smaller batch (--batch-size) in a new --out."
    )


def _steps(training: Training, optimizer: torch.optim.Optimizer) -> Generator[Event, None, None]:
    stepper, per_epoch, done = training.stepper(), training.per_epoch, training.done
    train_items, saver = training.items.of_role["train"], _Saver(training, optimizer)
    if training.owes_validation():  # it was stopped between the last step of an epoch and its score
        yield _validated(training, done.step // per_epoch)
        saver.save()
    for epoch in range(done.step // per_epoch, training.settings.epochs):
        for number, batch in enumerate(batches(train_items, epoch, training.settings)):
            if epoch * per_epoch + number < done.step:
                continue
            log = stepper.backward(batch, epoch)
            _apply(training, optimizer)
            done.course.add(astuple(log))
            yield Stepped(done.step, training.n_steps, log)
            if done.step % per_epoch:  # else the epoch is scored first
                saver.save_if_due()
        if training.is_validated(epoch + 1):
            yield _validated(training, epoch + 1)
        saver.save_if_due()
    saver.save()


def _apply(training: Training, optimizer: torch.optim.Optimizer) -> None:
    """Move the parameters along their gradients."""
    settings, network = training.settings, training.model.network
    training.moving = True
    for group in optimizer.param_groups:
        group["lr"] = rate_at(training.done.step, training.n_steps, settings)
    if settings.clip_norm is not None:
        chosen = [network.get_parameter(name) for name in training.chosen.names]
        torch.nn.utils.clip_grad_norm_(chosen, settings.clip_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    training.done.step += 1
    training.moving = False


def _validated(training: Training, epoch: int) -> Validated:
    """Score a state, and keep it where it is better than all before."""
    done, score = training.done, training.score()
    best = score.dice > done.best_score
    if best:
        if training.accelerator.is_main_process:
            save_best(training.folder, training.model.network, training.chosen.names, done.step)
        done.best_score, done.best_step = score.dice, done.step
    told = {"epoch": epoch, "step": done.step, "dice": score.dice, "tasks": dict(score.tasks)}
    done.epochs.append(told)
    return Validated(epoch, training.settings.epochs, score, best)


def _save(training: Training, optimizer: torch.optim.Optimizer) -> None:
    if training.accelerator.is_main_process:
        network, names = training.model.network, training.chosen.names
        save_state(training.folder, network, names, optimizer, training.done, training.identity)


@dataclass(slots=True)
class _Saver:
    """Saves states, no more often than is worth its time."""

    training: Training
    optimizer: torch.optim.Optimizer
    took: float = 0.0
    last: float = field(default_factory=time.monotonic)

    def save_if_due(self) -> None:
        """Save where the last state is too old."""
        if time.monotonic() - self.last > max(SAVE_SECONDS, SAVE_TIMES * self.took):
            self.save()

    def save(self) -> None:
        """Save, and see how long it takes."""
        began = time.monotonic()
        _save(self.training, self.optimizer)
        self.last = time.monotonic()
        self.took = self.last - began
