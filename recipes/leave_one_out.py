"""What fine-tuning gains on patients it has not seen: every subject left out once, several seeds.

python recipes/leave_one_out.py CORPUS... --method decoder --seed 0 --seed 1 --seed 2 --out DIR

Each fold trains on all subjects of a corpus but one, for a length that is fixed beforehand: nobody
chooses a state, and nothing is chosen afterwards. Base and trained model are scored on the subject
left out, with the same prompts. What is done stays in DIR, and is not done again; with --keep FILE
the values of every fold are written to a CSV file too, and folds that are in it need no DIR. The
last lines are, per task, the mean over seeds and its spread between them.

--share 0/4 does every fourth fold, from the first on: four such processes, on as many machines or
on one GPU, do all of them, each with a --keep of its own. Their files may be joined.
"""

import argparse
import hashlib
import json
import shutil
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from promptseg.corpus import Corpus, open_corpus
from promptseg.memory import keep_freed_memory, peak_bytes
from promptseg.models import load_model
from promptseg.paired import compare
from promptseg.parquet import write_atomically
from promptseg.record import open_run
from promptseg.tuning.judge import judge, judged
from promptseg.tuning.result import write_result
from promptseg.tuning.run import Job, finetune, make_accelerator
from promptseg.tuning.settings import PRESETS, Settings, changed
from promptseg.tuning.split import Division

MODEL, NAME = "litemedsam", "tuned"
SHORT = 16  # letters of an identity
COLUMNS: dict[str, Any] = {
    **dict.fromkeys(("fold", "method"), pl.String),
    "seed": pl.Int64,
    "device": pl.String,
    **dict.fromkeys(("identity", "task", "selection"), pl.String),
    **dict.fromkeys(("before", "after"), pl.Float64),
}


def subjects_of(corpus: Corpus) -> list[tuple[int, str]]:
    """Give the subjects of a corpus, which are all known, with their numbers."""
    images = pl.read_parquet(corpus.path / "images" / "*.parquet", columns=["subject"])
    return list(enumerate(sorted(set(images["subject"].to_list()))))


def identity(corpus: Corpus, subject: str, settings: Settings) -> str:
    """Name what a fold depends on."""
    told = [corpus.info.fingerprint, subject, settings.told()]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def fold(corpus: Corpus, subject: str, settings: Settings, folder: Path, device: str) -> None:
    """Train without one subject, and score base and trained model on it."""
    begun = time.monotonic()
    accelerator = make_accelerator(device)
    job = Job(
        corpora=(corpus,),
        model=load_model(MODEL, device=device),
        asked=MODEL,
        name=NAME,
        settings=settings,
        division=Division(test_subjects=(subject,), val_share=0),
        folder=folder,
    )
    steps = finetune(job, accelerator)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            outcome = stop.value
            break
    found = judged(job, write_result(job, outcome))
    for trial in found.trials:
        for _ in judge(trial, found.models, found.plan):
            pass
    told = {
        "identity": identity(corpus, subject, settings),
        "train_s": outcome.seconds,
        "all_s": round(time.monotonic() - begun, 1),
        "steps": outcome.n_steps,
        "images": outcome.n_images["train"],
        "peak_bytes_of_all_so_far": peak_bytes(),
        "device": device_named(device),
        "device_peak_bytes": outcome.device_peak_bytes,
    }
    for done_with in ("state", "model"):
        shutil.rmtree(folder / done_with)
    (folder / "done.json").write_text(json.dumps(told))


def device_named(device: str) -> str:
    """Name the GPU, or say cpu."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def values_of(folder: Path) -> list[dict[str, object]]:
    """Read the DICE of the subject that a fold left out, by task and selection, with boxes."""
    runs = sorted((folder / "before-after").glob("*.run"))
    records = pl.concat([open_run(run).records() for run in runs])
    return [
        {
            "task": str(cell.group.task),
            "selection": cell.group.selection,
            "before": cell.before,
            "after": cell.after,
        }
        for cell in compare(records, MODEL, NAME).cells
        if cell.group.strategy == "box" and cell.before is not None and cell.after is not None
    ]


def table(values: pl.DataFrame) -> None:
    """Print what every task gained: mean over seeds, and the spread between them.

    `values` have a row per fold, seed, task and selection. A fold is a subject.
    """
    of_seeds = values.group_by("task", "selection", "seed").agg(pl.col("before", "after").mean())
    values_of_task: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for task, selection, _, before, after in of_seeds.sort("seed").iter_rows():
        values_of_task[task, selection].append((before, after))
    print_gains(values_of_task)


def print_gains(values: dict[tuple[str, str], list[tuple[float, float]]]) -> None:
    """Print the gains of tasks, of which every seed has a value before and after."""
    gains: dict[str, list[np.ndarray]] = defaultdict(list)
    most = max(map(len, values.values()))
    for (task, selection), pairs in sorted(values.items()):
        if len(pairs) < most:
            print(f"{task:45} {selection:9} only {len(pairs)} of {most} seeds are there")
            continue
        earlier, later = np.array(pairs).T
        gain = later - earlier
        gains[selection].append(gain)
        print(
            f"{task:45} {selection:9} {earlier.mean():.3f} -> {later.mean():.3f}  "
            f"{gain.mean():+.3f} (seeds {gain.min():+.3f} to {gain.max():+.3f})"
        )
    for selection, rows in gains.items():
        over = np.mean(rows, axis=0)
        print(
            f"mean over {len(rows)} tasks, {selection}: {over.mean():+.4f} "
            f"(seeds {', '.join(f'{value:+.4f}' for value in over)})"
        )


def share(word: str) -> tuple[int, int]:
    """Read 0/4 as the first of four."""
    index, _, count = word.partition("/")
    if not 0 <= int(index) < int(count):
        raise ValueError("the first of four is 0/4, the last one 3/4")
    return int(index), int(count)


def asked() -> argparse.Namespace:
    """Read the words of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--preset", default="promptseg")
    parser.add_argument("--method", default="decoder")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--min-steps", type=int)
    parser.add_argument("--augment", dest="augmentation")
    parser.add_argument("--tokens")
    parser.add_argument("--lora-targets")
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--seed", type=int, action="append")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1")
    parser.add_argument("--share", type=share, default=(0, 1), help="K/N: every N-th fold")
    parser.add_argument("--keep", type=Path, help="CSV file of what every fold gave")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    return parser.parse_args()


def settings_of(told: argparse.Namespace, seed: int) -> Settings:
    """Change the preset by what was asked for."""
    return changed(
        PRESETS[told.preset],
        method=told.method,
        epochs=told.epochs,
        min_steps=told.min_steps,
        augmentation=told.augmentation,
        tokens=told.tokens,
        lora_targets=told.lora_targets,
        learning_rate=told.learning_rate,
        seed=seed,
        overfit_steps=0 if seed else None,  # the data do not change with the seed
    )


def done(folder: Path, name: str) -> bool:
    """Tell whether a fold is done; it is an error where the folder is of another one."""
    path = folder / "done.json"
    if path.is_file() and json.loads(path.read_text()).get("identity") != name:
        raise SystemExit(f"{folder} is of other data or settings: another --out")
    return path.is_file()


def kept_in(path: Path | None) -> pl.DataFrame:
    """Read what earlier folds gave."""
    if path is None or not path.is_file():
        return pl.DataFrame(schema=COLUMNS)
    try:
        columns = pl.read_csv(path, n_rows=0).columns
        if columns != list(COLUMNS):
            raise ValueError(f"its columns are {', '.join(columns)}")
        return pl.read_csv(path, schema=COLUMNS)
    except (pl.exceptions.PolarsError, ValueError) as error:
        raise SystemExit(f"{path} cannot be gone on from: {error}. Give another --keep.") from error


def main() -> None:
    """Run the folds that are not done yet, seed by seed, and print the table."""
    told = asked()
    keep_freed_memory()
    corpora = [open_corpus(path) for path in told.corpus]
    kept = kept_in(told.keep)
    names: list[str] = []
    every = [(seed, c, *s) for seed in told.seed or [0] for c in corpora for s in subjects_of(c)]
    index, count = told.share
    for seed, corpus, number, subject in every[index::count]:
        settings = settings_of(told, seed)
        folder = told.out / f"{corpus.path.stem}-{number:02d}-seed{seed}"
        name = identity(corpus, subject, settings)
        names.append(name[:SHORT])
        if name[:SHORT] in set(kept["identity"]):
            continue
        if not done(folder, name) and not told.table:
            fold(corpus, subject, settings, folder, told.device)
            print(folder.name, (folder / "done.json").read_text(), flush=True)
        if done(folder, name):
            device = json.loads((folder / "done.json").read_text()).get("device", "cpu")
            own = {"fold": folder.name, "method": told.method, "seed": seed, "device": device}
            rows = [own | {"identity": name[:SHORT]} | row for row in values_of(folder)]
            kept = pl.concat([kept, pl.DataFrame(rows, schema=COLUMNS)])
            if told.keep is not None:
                write_atomically(told.keep, kept.write_csv(float_precision=5).encode())
    table(kept.filter(pl.col("identity").is_in(names)))


if __name__ == "__main__":
    main()
