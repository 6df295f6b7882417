"""What fine-tuning gains on patients it has not seen: every subject left out once, several seeds.

python recipes/leave_one_out.py CORPUS... --method decoder --seed 0 --seed 1 --seed 2 --out DIR

Each fold trains on all subjects of a corpus but one, for a length that is fixed beforehand: nobody
chooses a state, and nothing is chosen afterwards. Base and trained model are scored on the subject
left out, with the same prompts. What is done stays in DIR, and is not done again. The last lines
are, per task, the mean over seeds and its spread between them.
"""

import argparse
import hashlib
import json
import shutil
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import polars as pl

from promptseg.corpus import Corpus, open_corpus
from promptseg.memory import keep_freed_memory, peak_bytes
from promptseg.models import load_model
from promptseg.paired import compare
from promptseg.record import open_run
from promptseg.tuning.judge import judge, judged
from promptseg.tuning.result import write_result
from promptseg.tuning.run import Job, finetune, make_accelerator
from promptseg.tuning.settings import PRESETS, Settings, changed
from promptseg.tuning.split import Division

MODEL, NAME = "litemedsam", "tuned"


def subjects_of(corpus: Corpus) -> list[str]:
    """List the subjects of a corpus, which are known all."""
    images = pl.read_parquet(corpus.path / "images" / "*.parquet", columns=["subject"])
    return sorted(set(images["subject"].to_list()))


def identity(corpus: Corpus, subject: str, settings: Settings) -> str:
    """Name what a fold depends on."""
    told = [corpus.info.fingerprint, subject, settings.told()]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def fold(corpus: Corpus, subject: str, settings: Settings, folder: Path) -> None:
    """Train without one subject, and score base and trained model on it."""
    begun = time.monotonic()
    job = Job(
        corpora=(corpus,),
        model=load_model(MODEL),
        asked=MODEL,
        name=NAME,
        settings=settings,
        division=Division(test_subjects=(subject,), val_share=0),
        folder=folder,
    )
    steps = finetune(job, make_accelerator("cpu"))
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
    }
    for done_with in ("state", "model"):
        shutil.rmtree(folder / done_with)
    (folder / "done.json").write_text(json.dumps(told))


def records(folders: list[Path]) -> pl.DataFrame:
    """Read the records of all folds of one seed."""
    runs = [run for folder in folders for run in sorted((folder / "before-after").glob("*.run"))]
    return pl.concat([open_run(run).records() for run in runs])


def table(folders: dict[int, list[Path]]) -> None:
    """Print what every task gained: mean over seeds, and the spread between them."""
    values: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for of_seed in folders.values():
        for cell in compare(records(of_seed), MODEL, NAME).cells:
            if cell.group.strategy == "box" and cell.before is not None and cell.after is not None:
                key = (str(cell.group.task), cell.group.selection)
                values[key].append((cell.before, cell.after))
    gains: dict[str, list[np.ndarray]] = defaultdict(list)
    most = max(map(len, values.values()))
    for (task, selection), pairs in sorted(values.items()):
        if len(pairs) < most:
            print(f"{task:45} {selection:9} only {len(pairs)} of {most} seeds are there")
            continue
        before, after = np.array(pairs).T
        gain = after - before
        gains[selection].append(gain)
        print(
            f"{task:45} {selection:9} {before.mean():.3f} -> {after.mean():.3f}  "
            f"{gain.mean():+.3f} (seeds {gain.min():+.3f} to {gain.max():+.3f})"
        )
    for selection, rows in gains.items():
        over = np.mean(rows, axis=0)
        print(
            f"mean over {len(rows)} tasks, {selection}: {over.mean():+.4f} "
            f"(seeds {', '.join(f'{value:+.4f}' for value in over)})"
        )


def main() -> None:
    """Run the folds that are not done yet, seed by seed, and print the table."""
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
    parser.add_argument("--table", action="store_true", help="only print what is there")
    told = parser.parse_args()
    keep_freed_memory()
    corpora = [open_corpus(path) for path in told.corpus]
    folders: dict[int, list[Path]] = defaultdict(list)
    for seed in told.seed or [0]:
        settings = changed(
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
        for corpus in corpora:
            for number, subject in enumerate(subjects_of(corpus)):
                folder = told.out / f"{corpus.path.stem}-{number:02d}-seed{seed}"
                done = folder / "done.json"
                name = identity(corpus, subject, settings)
                if done.is_file() and json.loads(done.read_text()).get("identity") != name:
                    raise SystemExit(f"{folder} is of other data or settings: another --out")
                if not done.is_file() and not told.table:
                    fold(corpus, subject, settings, folder)
                    print(folder.name, done.read_text(), flush=True)
                if done.is_file():
                    folders[seed].append(folder)
    table(folders)


if __name__ == "__main__":
    main()
