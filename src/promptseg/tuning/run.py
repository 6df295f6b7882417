"""Fine-tune a model on corpora: from the split to the trained network, step by step."""

import os
import time
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from promptseg.contamination import HASH_LETTERS, declared
from promptseg.corpus import Corpus
from promptseg.errors import DataError, ModelError
from promptseg.memory import peak_bytes
from promptseg.tuning.frozen import Frozen, frozen_stages, room_for
from promptseg.tuning.items import VARIANTS, Item, Items, Source, gather, wanted_targets
from promptseg.tuning.network import (
    Chosen,
    choose_parameters,
    merged_state,
    trainable,
    without_adapters,
)
from promptseg.tuning.outcome import FILE, Outcome
from promptseg.tuning.settings import Precision, Settings
from promptseg.tuning.split import (
    ROLES,
    Division,
    Image,
    Role,
    Split,
    Wanted,
    check_apart,
    check_unseen,
    split_corpora,
)
from promptseg.tuning.state import alone, check_identity, load_best
from promptseg.tuning.training import Event, Training, guarded, identity_of, train

NEEDED = ("accelerate", "peft", "tensorboard")
# of processes for each other: one may encode, or write, for hours; those of one that died are ended
# by what started them
PATIENCE = timedelta(days=2)
RECORDED = ("promptseg", "torch", "transformers", "accelerate", "peft", "numpy")


@dataclass(frozen=True, slots=True)
class Gathered:
    """One more image was encoded by the frozen stages, or found encoded, or left out."""

    done: int
    of: int
    cache_bytes: int


@dataclass(frozen=True, slots=True)
class Begun:
    """The training starts, or goes on after so many steps."""

    split: Split
    chosen: Chosen
    n_values: int  # of the whole network
    step: int
    of: int
    unlisted: tuple[str, ...] = ()  # held-out data sets of which the base saw some images, unlisted


Happened = Gathered | Begun | Event


class StoppedEarly(ModelError):  # noqa: N818 - it says what happened
    """A training stopped before its end; the model has its best state, which `outcome` tells of."""

    def __init__(self, message: str, outcome: Outcome) -> None:
        super().__init__(message)
        self.outcome = outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is trained on what: a fine-tuning that can be started, and started again."""

    corpora: tuple[Corpus, ...]
    model: Any  # a Segmenter, which is changed in place
    asked: str  # the word that loads it
    name: str  # of what comes out
    settings: Settings
    division: Division
    folder: Path
    also: tuple[Corpus, ...] = ()  # scored before and after as well: what was forgotten


def split_of(job: Job) -> Split:
    """Divide the images of a job; raises DataError as `split_corpora` does."""
    return split_corpora(job.corpora, job.division, wanted_targets(job.corpora, job.settings))


def make_accelerator(device: str, precision: Precision = "no") -> Any:
    """Make what knows the device, the precision and the other processes.

    Processes are started by `torchrun` or `accelerate launch`.

    Raises
    ------
    ModelError
        The extra `train` is not installed, or the device cannot be taken.
    """
    if lacking := [name for name in NEEDED if find_spec(name) is None]:
        raise ModelError(
            f"Fine-tuning needs accelerate, peft and tensorboard, and {', '.join(lacking)} is not "
            "installed: pip install 'promptseg[train]'."
        )
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs, patch_environment

    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several and ":" in device:
        raise ModelError(
            f"Each of several processes takes a device of its own: say {device.partition(':')[0]}, "
            f"not {device}."
        )
    if several and device == "cuda":
        _check_gpus(int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"])))
    chosen = {} if several or device == "cpu" else {"ACCELERATE_TORCH_DEVICE": device}
    try:
        with patch_environment(**chosen):  # else accelerate takes the first it finds
            accelerator = Accelerator(
                cpu=device == "cpu",
                mixed_precision=precision,
                # no backend: the default of these is for GPUs only
                kwargs_handlers=[InitProcessGroupKwargs(backend=None, timeout=PATIENCE)],
            )
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"Cannot train on {device} with precision {precision}: {error}") from error
    if several and accelerator.num_processes == 1:
        raise ModelError(
            f"Several processes were started on {device}, and do not know of each other: start "
            "them by torchrun on CPUs or CUDA, or one process."
        )
    found = str(accelerator.device)
    if found != device and (":" in device or found.partition(":")[0] != device):
        raise ModelError(
            f"accelerate took {found}, not {device}: it keeps the first device of a process."
        )
    return accelerator


def _check_gpus(processes: int) -> None:
    import torch

    if processes > (gpus := torch.cuda.device_count()):
        raise ModelError(
            f"{processes} processes were started on this machine, and each needs a GPU of its own, "
            f"of which there are {gpus}: start {gpus}, or give --device cpu."
        )


def finetune(job: Job, accelerator: Any) -> Generator[Happened, None, Outcome]:
    """Fine-tune a model, and yield what happens; return the outcome.

    The model ends with its best weights, adapters merged into them. A folder that holds a part of
    the same training is gone on from, to the same result bit for bit (on a CPU).

    Raises
    ------
    ModelError
        The model cannot be trained, a check failed, the loss is not finite, or the memory is too
        small: StoppedEarly where a state was reached that is worth keeping.
    DataError
        The split leaks (what the base was fine-tuned on too) or leaves a role empty, there is
        nothing to train on, the folder holds another training or is being trained into, or the
        disk is too small.
    """
    started, begun = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    model, base_hash = trainable(job.model), job.model.weights_hash
    model.network.to(accelerator.device)  # one's own may be elsewhere
    _check_folder(job.folder)
    if accelerator.mixed_precision != job.settings.precision:
        raise ModelError(
            f"The settings ask for precision {job.settings.precision}, and the process was started "
            f"with {accelerator.mixed_precision}: make them agree (--precision)."
        )
    wanted = wanted_targets(job.corpora, job.settings)
    split = split_corpora(job.corpora, job.division, wanted)
    check_apart(split, job.also)
    unlisted = check_unseen(split, model.name, declared(job.asked, model))
    identity = identity_of(model, job.settings, split, job.corpora, str(accelerator.device))
    check_identity(job.folder / "state", identity)
    n_values = sum(value.numel() for value in model.network.parameters())
    chosen = choose_parameters(model, job.settings)
    try:
        with alone(job.folder / "state", writes=accelerator.is_main_process):
            frozen = frozen_stages(
                model, chosen.cut, job.settings.cache_dtype, cached=job.settings.cached
            )
            gathering = _gather(job, (split, wanted), frozen, accelerator)
            items, kept = yield from guarded(gathering, job.folder)
            training = Training(
                model=model,
                settings=job.settings.stretched(
                    -(-len(items.of_role["train"]) // job.settings.batch_size)
                ),
                chosen=chosen,
                items=items,
                source=Source(job.corpora, frozen),
                folder=job.folder / "state",
                accelerator=accelerator,
                identity=identity,
            )
            yield Begun(split, chosen, n_values, 0, training.n_steps, tuple(unlisted))
            stopped = yield from _trained(training)
            state = merged_state(model.network)
    finally:
        if job.settings.uses_lora:
            without_adapters(model.network)
    model.network.load_state_dict(state)
    for parameter in model.network.parameters():
        parameter.requires_grad_(False)
    clock = Clock(started, time.monotonic() - begun)
    outcome = _outcome(job, split, training, Sizes(n_values, kept), base_hash, clock)
    if stopped is not None:
        raise StoppedEarly(stopped, outcome)
    return outcome


def _trained(training: Training) -> Generator[Event, None, str | None]:
    """Train; tell what stopped it early, where a state that is better than the base is left."""
    try:
        yield from train(training)
    except ModelError as error:
        done, chooses = training.done, bool(training.items.of_role["val"])
        if training.moving or not (done.best_step if chooses else done.step):
            raise
        if chooses:
            load_best(training.folder, training.model.network, done.best_step)
        return str(error)  # the error itself holds what filled the memory
    return None


def _check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be written, or holds something else than a training."""
    nearest = next((path for path in (folder, *folder.absolute().parents) if path.exists()), folder)
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise DataError(
            f"Cannot write {folder}: {nearest} is no folder to write to. Give another --out."
        )
    try:
        there = {path.name for path in folder.iterdir()} if folder.exists() else set()
    except OSError as error:
        raise DataError(f"Cannot use {folder}: {error.strerror}. Give another --out.") from error
    if there and not there & {"state", FILE, "curve", "log"}:
        raise DataError(f"{folder} is not empty, and holds no training. Give another --out.")


def _gather(
    job: Job, whose: tuple[Split, Wanted], frozen: Frozen, accelerator: Any
) -> Generator[Gathered, None, tuple[Items, int]]:
    """Encode what is trained on: every process its share, and then finds what others have kept."""
    split, wanted = whose
    count = len(split.images["train"]) + len(split.images["val"])
    items = Items({role: [] for role in ROLES})
    left_out = Counter(split.left_out)
    kept = 0
    if frozen.folder is not None:
        per_image = len(VARIANTS[job.settings.augmentation])
        total = per_image * len(split.images["train"]) + len(split.images["val"])
        kept = room_for(frozen, _first_image(job), total)
    here, of = accelerator.process_index, accelerator.num_processes
    if of > 1 and frozen.folder is not None:
        shares = gather(job.corpora, split, wanted, job.settings, frozen, (here, of))
        for done, _ in enumerate(shares, start=1):
            yield Gathered(min(done * of, count), count, kept)
        accelerator.wait_for_everyone()
    every = gather(job.corpora, split, wanted, job.settings, frozen)
    for done, (role, item) in enumerate(every, start=1):
        if isinstance(item, Item):
            items.of_role[role].append(item)
        else:
            left_out[item] += 1
        yield Gathered(done, count, kept)
    items.left_out = dict(left_out)
    for role in ROLES[:2]:
        if not items.of_role[role] and split.images[role]:
            reasons = ", ".join(f"{reason} ({n})" for reason, n in left_out.items())
            raise DataError(
                f"None of the {len(split.images[role])} images of the {role} split can be used: "
                f"{reasons}."
            )
    return items, kept


def _first_image(job: Job) -> Any:
    for corpus in job.corpora:
        for group in corpus.row_groups():
            for sample in corpus.read(group):
                if hasattr(sample, "image"):
                    return sample.image
    raise DataError("No image of the corpus can be read. Curate it again.")


@dataclass(frozen=True, slots=True)
class Clock:
    """When a training was started, and how long it took since."""

    started: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Sizes:
    """Parameters of the whole network, and bytes that were kept of its frozen stages."""

    n_values: int
    cache_bytes: int


def _device_peak(device: Any) -> int:
    import torch

    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def _outcome(
    job: Job, split: Split, training: Training, sizes: Sizes, base_hash: str, clock: Clock
) -> Outcome:
    items, done = training.items, training.done
    used: dict[Role, list[Image]] = {"test": list(split.images["test"])}
    for role in ROLES[:2]:
        own = {(item.place[0], item.image_id) for item in items.of_role[role]}
        used[role] = [i for i in split.images[role] if (i.corpus, i.image_id) in own]
    names = {image.owner[0] for role in ROLES[:2] for image in used[role]}
    datasets = {
        str(d): d
        for corpus in job.corpora
        for d in corpus.info.datasets
        if d.get("name") is None or d["name"] in names
    }
    rows, steps_per_row = done.course.told()
    return Outcome(
        name=job.name,
        base=job.model.name,
        asked=job.asked,
        base_hash=base_hash,
        settings=training.settings.told(),
        split_source=split.source,
        split_by=split.division.by,
        n_subjects={role: len({i.owner for i in used[role]}) for role in ROLES},
        n_images={role: len(used[role]) for role in ROLES},
        n_targets={
            role: sum(len(item.goals) for item in items.of_role[role]) for role in ROLES[:2]
        },
        also=[corpus.info.fingerprint for corpus in job.also],
        datasets=list(datasets.values()),
        images=sorted({i.content[:HASH_LETTERS] for role in ROLES[:2] for i in used[role]}),
        tasks=sorted({goal.task for item in items.of_role["train"] for goal in item.goals}),
        left_out=items.left_out,
        n_values=training.chosen.n_values,
        of_values=sizes.n_values,
        checks=done.checks,
        n_steps=done.step,
        steps=rows,
        steps_per_row=steps_per_row,
        epochs=done.epochs,
        steps_per_epoch=training.per_epoch,
        best_step=done.best_step if items.of_role["val"] else done.step,
        best_score=done.best_score if items.of_role["val"] else None,
        seconds=round(clock.seconds, 1),
        peak_bytes=peak_bytes(),
        device_peak_bytes=_device_peak(training.accelerator.device),
        cache_bytes=sizes.cache_bytes,
        device=str(training.accelerator.device),
        processes=training.accelerator.num_processes,
        versions={name: version(name) for name in RECORDED},
        started=clock.started,
    )
