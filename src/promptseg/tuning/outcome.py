"""What came of a training, as `training.json` keeps it beside the model."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from promptseg.errors import DataError
from promptseg.parquet import write_atomically

FILE = "training.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The settings, data, checks and course of a training. Subjects are counted, never named."""

    name: str  # of the trained model
    base: str  # the name of the model it was trained from ...
    asked: str  # ... and the word that loads it
    base_hash: str
    settings: dict[str, Any]
    split_source: str  # where the split comes from, in words
    split_by: str  # subject or image
    n_subjects: dict[str, int]  # role -> subjects (images, where these are split)
    n_images: dict[str, int]
    n_targets: dict[str, int]  # of train and val
    also: list[str] = field(default_factory=list)  # fingerprints of --also: none trained on
    datasets: list[dict[str, str | None]] = field(default_factory=list)  # name, licence, citation
    images: list[str] = field(default_factory=list)  # of train and val: hashes, shortened
    tasks: list[str] = field(default_factory=list)  # trained on
    left_out: dict[str, int] = field(default_factory=dict)  # reason -> images
    n_values: int = 0  # trained parameters
    of_values: int = 0  # of the whole network
    checks: list[dict[str, str]] = field(default_factory=list)  # name, outcome, detail
    n_steps: int = 0
    steps: list[list[float]] = field(default_factory=list)  # loss, mask, IoU, DICE, gradient norm
    steps_per_row: int = 1  # long trainings: each of these is a mean
    epochs: list[dict[str, Any]] = field(default_factory=list)  # epoch, step, dice, tasks
    steps_per_epoch: int = 0
    best_step: int = 0
    best_score: float | None = None  # None: nobody chose, the last state counts
    seconds: float = 0.0  # of this start; a training that was interrupted took longer
    peak_bytes: int = 0  # of the first process's main memory ...
    device_peak_bytes: int = 0  # ... and of its GPU, by PyTorch
    cache_bytes: int = 0
    device: str = "cpu"
    processes: int = 1
    versions: dict[str, str] = field(default_factory=dict)
    started: str = ""

    def write(self, folder: Path) -> None:
        """Write `training.json`."""
        content = json.dumps(asdict(self), indent=1, allow_nan=False) + "\n"
        write_atomically(folder / FILE, content.encode())


def read_outcome(folder: Path) -> Outcome:
    """Read `training.json`; raises DataError where it is not there or damaged."""
    try:
        content = json.loads((folder / FILE).read_bytes())
        if not isinstance(content, Mapping):
            raise ValueError("it holds no object")
        known = {f.name for f in fields(Outcome)}
        return Outcome(**{key: value for key, value in content.items() if key in known})
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{folder / FILE} is missing or damaged: {error}.") from error
