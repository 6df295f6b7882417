"""How many cases are needed: the same training on more and more subjects, each scored alike."""

import copy
import hashlib
import json
import shutil
from collections.abc import Generator, Iterator, Sequence, Set
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from promptseg.contamination import declared
from promptseg.errors import DataError, ModelError
from promptseg.parquet import write_atomically
from promptseg.plan import Plan
from promptseg.record import RunFolder, open_run
from promptseg.run import Progress
from promptseg.trainable import Trainable
from promptseg.tuned import load_tuned
from promptseg.tuning.curve_fit import Curve, Scores, Unit, curve_of
from promptseg.tuning.judge import held_out_of, judge, trials
from promptseg.tuning.network import trainable
from promptseg.tuning.outcome import read_outcome
from promptseg.tuning.result import MODEL, write_result
from promptseg.tuning.run import Happened, Job, finetune, split_of
from promptseg.tuning.settings import Settings
from promptseg.tuning.split import Split, check_unseen
from promptseg.tuning.state import alone
from promptseg.tuning.training import identity_of
from promptseg.tuning.validation import tested_strategies

FOLDER, FILE, DONE, SCORED = "curve", "curve.json", "done.json", "scored"
REPEATS = 3
ALL = "all"


@dataclass(frozen=True, slots=True)
class Study:
    """A training to be repeated on `repeats` draws of each of some numbers of subjects.

    `job` is the training on all of them; its model is never changed.
    """

    job: Job
    sizes: tuple[int, ...]
    repeats: int = REPEATS

    @property
    def folder(self) -> Path:
        """Where the trainings are kept."""
        return self.job.folder / FOLDER

    def jobs(self) -> Iterator[tuple[int, int]]:
        """List sizes and draws in the order of the work: a whole curve first, then the next."""
        for draw in range(self.repeats):
            for size in self.sizes:
                yield size, draw


@dataclass(frozen=True, slots=True)
class Turn:
    """A training of the curve begins; `is_done` where it was found done. Size 0 is the base."""

    number: int
    of: int
    size: int
    draw: int
    is_done: bool


@dataclass(frozen=True, slots=True)
class Learned:
    """What a curve is made of, and what came of it."""

    curve: Curve
    tasks: tuple[str, ...]
    settings: dict[str, Any]
    base: str  # the name of the model trained from
    name: str
    strategies: tuple[str, ...]  # DICE is the mean over them
    selection: str
    off_protocol: bool  # of the base: it was not trained for what is scored
    unit: str  # subject or image
    n_choosing: int  # subjects that choose the best state, at every size
    split_source: str
    n_left_out: int  # held-out subjects and tasks without a score of every model
    others: tuple[str, ...] = ()  # tasks of the held-out subjects that no training has


def parse_sizes(words: str) -> tuple[str, ...]:
    """Read `2,4,8,all` or `25%,50%,100%`; raises DataError on anything else."""
    found = tuple(word.strip().lower() for word in words.split(","))
    for word in found:
        number = word.removesuffix("%")
        if word != ALL and not (number.isdecimal() and number.isascii()):
            raise DataError(
                f"Cannot read the size {word!r}: give numbers of training subjects, shares or all, "
                "as --curve 2,4,8,all or --curve 25%,50%,100%."
            )
        if number.isdecimal() and (int(number) < 1 or ("%" in word and int(number) > 100)):
            raise DataError(
                f"The size {word} cannot be trained on: the smallest is 1, the largest 100% (all). "
                "The base, which is size 0, is always scored."
            )
    return found


def sizes_of(words: Sequence[str], every: int, by: str = "subject") -> tuple[int, ...]:
    """Turn sizes into numbers of the `every` subjects that can be trained on, in order.

    Raises
    ------
    DataError
        A size is larger than that, or all are the same.
    """
    sizes = sorted({_number(word, every) for word in words})
    if sizes[-1] > every:
        raise DataError(
            f"Cannot train on {sizes[-1]} {by}s: {every} are left to train on when those that "
            "choose the best state and those held out are taken. Ask for fewer, or for all."
        )
    if len(sizes) < 2:
        raise DataError(
            f"A curve needs two sizes or more (three to be extended), and {','.join(words)} gives "
            f"{sizes[0]} only: try --curve 25%,50%,100%."
        )
    return tuple(sizes)


def _number(word: str, every: int) -> int:
    if word == ALL:
        return every
    if word.endswith("%"):
        return max(1, round(every * int(word[:-1]) / 100))
    return int(word)


def study_of(job: Job, words: Sequence[str], repeats: int = REPEATS) -> Study:
    """Set out the trainings of a curve.

    Raises
    ------
    DataError
        Nobody is held out, a size is too large, there is only one, or the split is none.
    """
    split = split_of(job)
    if not split.images["test"]:
        raise DataError(
            "No subject is held out, so that no size can be scored: a curve needs --test-share "
            "above 0, or --test-subject."
        )
    sizes = sizes_of(words, len(split.owners("train")), job.division.by)
    return Study(job, sizes, repeats)


def learn(study: Study, accelerator: Any) -> Generator[Turn | Happened | Progress, None, Learned]:
    """Train and score every size and draw that is not done yet; yield what happens.

    All sizes are trained for the same number of steps: a smaller one for more epochs. Validation
    subjects choose its best state, and are the same at every size. Draw k changes the subjects and
    the seed of the training. What is scored is kept, the models are not.

    Raises
    ------
    DataError
        The folder holds another curve, or a training has nothing to train on.
    ModelError
        As `finetune`; or there are several processes.
    """
    if accelerator.num_processes > 1:
        raise ModelError("A curve is trained by one process: start it without torchrun.")
    job = study.job
    model, plan = trainable(job.model), _plan(job.settings)
    split = split_of(job)
    check_unseen(split, job.model.name, declared(job.asked, job.model))
    total = len(study.sizes) * study.repeats + 1
    folder = study.folder / "base"
    mark = _identity(model, job, split, accelerator)
    done = _is_done(folder, mark)
    with alone(folder, writes=True):
        yield Turn(0, total, 0, 0, done)
        if not done:
            yield from _score(study, job, {job.asked: job.model}, folder, plan)
            _finish(folder, mark)
        for number, (size, draw) in enumerate(study.jobs(), start=1):
            own = job_of(study, size, draw, split)
            mark = _identity(model, own, split_of(own), accelerator)
            done = _is_done(own.folder, mark)
            yield Turn(number, total, size, draw, done)
            if done:
                _clear(own.folder)  # it may have been stopped before that
            else:
                yield from _one(study, own, plan, accelerator)
                _finish(own.folder, mark)
    return learned(study, split)


def job_of(study: Study, size: int, draw: int, split: Split) -> Job:
    """Make the training of one size and draw; its model is a copy."""
    job = study.job
    division = replace(job.division, train_subjects=size, draw=draw)
    per_epoch = _steps(split_of(replace(job, division=division)), job.settings)
    largest = replace(division, train_subjects=study.sizes[-1])
    most = _steps(split_of(replace(job, division=largest)), job.settings)
    settings = job.settings.stretched(most)
    first = next(study.jobs()) == (size, draw)
    return replace(
        job,
        model=copy.deepcopy(job.model),
        name=f"{job.name[:48]}-size-{size}-draw-{draw}",
        settings=replace(
            settings,
            min_steps=0,
            epochs=max(1, round(settings.epochs * most / per_epoch)),
            val_every=max(1, round(settings.val_every * most / per_epoch)),
            seed=settings.seed + draw,
            overfit_steps=settings.overfit_steps if first else 0,
        ),
        division=division,
        folder=study.folder / f"size-{size:02d}-draw-{draw}",
    )


def _steps(split: Split, settings: Settings) -> int:
    return -(-len(split.images["train"]) // settings.batch_size)


def _plan(settings: Settings) -> Plan:
    """Plan how every size is scored: as the training is judged, under its deployable selection."""
    strategies = tuple(tested_strategies(settings))
    return Plan(strategies=strategies, selections=(settings.score,), unit=settings.unit)


def _one(
    study: Study, job: Job, plan: Plan, accelerator: Any
) -> Generator[Happened | Progress, None, None]:
    outcome = yield from finetune(job, accelerator)
    made = write_result(job, outcome)
    device = str(accelerator.device)
    tuned = load_tuned(made, device=device, trust_base=":" in job.asked)
    yield from _score(study, job, {str(made): tuned}, job.folder, plan)


def _score(
    study: Study, job: Job, models: dict[str, Any], folder: Path, plan: Plan
) -> Iterator[Progress]:
    split = split_of(job)
    held_out = held_out_of(job.corpora, split, ())
    device = str(getattr(study.job.model, "device", "cpu"))
    for trial in trials(held_out, models, plan, folder / SCORED, device=device):
        yield from judge(trial, models, plan)


def _identity(model: Trainable, job: Job, split: Split, accelerator: Any) -> str:
    own = identity_of(model, job.settings, split, job.corpora, str(accelerator.device))
    return hashlib.sha256(f"{own}\n{job.asked}".encode()).hexdigest()


def _is_done(folder: Path, identity: str) -> bool:
    """Tell whether a training was trained and scored."""
    path = folder / DONE
    if not path.is_file():
        return False
    try:
        told = json.loads(path.read_text())["identity"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged: delete {folder} to train it again.") from error
    if told != identity:
        raise DataError(
            f"{folder} holds a training of other settings, data or weights. Give another --out, or "
            f"delete {folder.parent} to start again."
        )
    return True


def _finish(folder: Path, identity: str) -> None:
    """Mark a training as done, and clear up."""
    write_atomically(folder / DONE, json.dumps({"identity": identity}).encode())
    _clear(folder)


def _clear(folder: Path) -> None:
    """Delete what only a training that goes on needs."""
    for name in (MODEL, "state"):
        shutil.rmtree(folder / name, ignore_errors=True)


def learned(study: Study, split: Split) -> Learned:
    """Bring the scores of all trainings together, and fit.

    Raises
    ------
    DataError
        A run is missing or damaged, or no held-out subject was scored by every model.
    """
    job = study.job
    scores, n_left_out, others = scores_of(study)
    plan = _plan(job.settings)
    return Learned(
        curve=curve_of(scores, seed=job.settings.seed),
        tasks=scores.tasks,
        settings=job.settings.told(),
        base=job.model.name,
        name=job.name,
        strategies=tuple(strategy.name for strategy in plan.strategies),
        selection=job.settings.score,
        off_protocol=bool(_records(study.folder / "base")["off_protocol"].any()),
        unit=job.division.by,
        n_choosing=len(split.owners("val")),
        split_source=split.source,
        n_left_out=n_left_out,
        others=others,
    )


def scores_of(study: Study) -> tuple[Scores, int, tuple[str, ...]]:
    """Read the DICE of every held-out subject in the tasks that the most subjects train on.

    Beside it: how many were not scored by every model, and the tasks that are left out. Those of
    the largest size count for all: what smaller ones lack is what more subjects are for.
    """
    by = study.job.division.by
    folders = {key: study.folder / f"size-{key[0]:02d}-draw-{key[1]}" for key in study.jobs()}
    of_most = (folder for (size, _), folder in folders.items() if size == study.sizes[-1])
    taught = {task for folder in of_most for task in read_outcome(folder).tasks}
    every_base = _values(_records(study.folder / "base"), by)
    others = tuple(sorted({task for task, _ in every_base} - taught))
    base, found = _only(every_base, taught), {}
    for key, folder in folders.items():
        found[key] = _only(_values(_records(folder), by), taught)
    shared = set(base).intersection(*found.values())
    every = set(base).union(*found.values())
    if not shared:
        raise DataError(
            f"No held-out subject was scored by every model. See why in {study.folder}: promptseg "
            "report on the runs below it tells the failures."
        )
    tasks = tuple(sorted({task for task, _ in shared}))
    units = tuple(sorted({unit for _, unit in shared}))

    def table(own: dict[tuple[str, Unit], float]) -> np.ndarray:
        cells = [[own[t, u] if (t, u) in shared else np.nan for u in units] for t in tasks]
        return np.array(cells, dtype=np.float64)

    values = np.stack(
        [
            np.stack([table(found[size, draw]) for draw in range(study.repeats)])
            for size in study.sizes
        ]
    )
    return Scores(study.sizes, tasks, units, values, table(base)), len(every - shared), others


def _only(values: dict[tuple[str, Unit], float], tasks: Set[str]) -> dict[tuple[str, Unit], float]:
    return {(task, unit): value for (task, unit), value in values.items() if task in tasks}


def runs_of(study: Study) -> list[RunFolder]:
    """Open the runs that the scores of a curve are from: of the base, then by size and draw.

    Raises
    ------
    DataError
        A run is missing or damaged.
    """
    trained = (f"size-{size:02d}-draw-{draw}" for size, draw in study.jobs())
    return [run for name in ("base", *trained) for run in _runs(study.folder / name)]


def _runs(folder: Path) -> list[RunFolder]:
    found = [open_run(path) for path in sorted((folder / SCORED).glob("*.run"))]
    if not found:
        raise DataError(f"{folder} holds no scores: delete it, and give the same command again.")
    return found


def _records(folder: Path) -> pl.DataFrame:
    return pl.concat([run.records() for run in _runs(folder)])


def _values(records: pl.DataFrame, by: str) -> dict[tuple[str, Unit], float]:
    """Average DICE: strategies in targets, targets in images, images in subjects."""
    who = pl.col("image_id" if by == "image" else "subject")
    scored = records.filter(pl.col("outcome") != "failed", pl.col("task").is_not_null())
    frame = scored.with_columns(who=who)
    unit = ["task", "dataset", "who"]
    for level in ([*unit, "image_id", "target_id"], [*unit, "image_id"], unit):
        frame = frame.group_by(level, maintain_order=True).agg(pl.col("dice").mean())
    return {(task, (dataset, owner)): dice for task, dataset, owner, dice in frame.iter_rows()}


def write_curve(folder: Path, found: Learned) -> Path:
    """Write `curve.json`."""
    content = json.dumps(asdict(found), indent=1, allow_nan=False) + "\n"
    write_atomically(folder / FILE, content.encode())
    return folder / FILE
