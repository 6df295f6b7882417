"""Records, and the run folder that keeps them.

A run folder holds `run.json`, and `records/`, `prompts/` and `masks/` of Parquet parts. A part is
written under a temporary name and renamed, and its records come last, so a part with records is
whole: a killed run goes on where the last whole part ended.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from promptseg.errors import DataError
from promptseg.mask import Rle
from promptseg.parquet import (
    arrow_schema,
    sweep_temporaries,
    write_atomically,
    write_parquet,
)

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

SCHEMA_VERSION = 1
Outcome = Literal["ok", "miss", "failed"]
TIMES = ("embed_ms", "decode_ms")  # the only columns in which two runs of one command may differ
IDENTITY = (
    "model", "dataset", "image_id", "target_id", "strategy", "selection",
    "jitter_mode", "jitter_unit", "jitter_lo", "jitter_hi", "seed",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One scored mask: who, on what, with which prompt, under which rule, and how well.

    Undefined is None. Overlaps are fractions; distances are in `distance_unit`. Of a `miss` (no
    candidate, or an empty mask) overlaps are 0 and distances None; a `failed` record has a reason
    and no score.
    """

    schema_version: int = SCHEMA_VERSION
    model: str
    strategy: str
    selection: str
    protocol: str
    unit: str
    off_protocol: bool  # the model was not trained for this strategy or selection
    jitter_mode: str | None = None
    jitter_unit: str | None = None
    jitter_lo: float | None = None
    jitter_hi: float | None = None
    seed: int
    dataset: str
    subject: str | None
    image_id: str
    target_id: str | None
    prompt_id: str | None
    object: str | None
    modality: str
    task: str | None
    outcome: str
    reason: str | None = None
    mask_index: int | None = None
    dice: float | None = None
    jaccard: float | None = None
    hd: float | None = None
    hd95: float | None = None
    assd: float | None = None
    asd: float | None = None
    nsd: float | None = None
    nsd_tolerance: float | None = None
    boundary_iou: float | None = None
    conformity: float | None = None
    distance_unit: str | None = None
    image_diagonal: float | None = None  # in distance_unit: what a miss counts as, at worst
    predicted_iou: float | None = None
    n_positive: int | None = None
    n_negative: int | None = None
    clicks: int | None = None
    embed_ms: float | None = None
    decode_ms: float | None = None


@dataclass(frozen=True, slots=True)
class PromptRow:
    """One prompt of a run; `prompt` is the JSON of `promptseg.prompt.to_json`."""

    prompt_id: str
    image_id: str
    target_id: str | None
    prompt: str


@dataclass(frozen=True, slots=True)
class MaskRow:
    """One predicted mask of a run, at the image's size; records point at it by prompt and index."""

    prompt_id: str
    image_id: str
    target_id: str | None
    model: str
    mask_index: int
    mask: Rle


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What makes records repeatable. Two runs with one fingerprint give the same records."""

    corpus: str
    corpus_path: str
    corpus_fingerprint: str
    models: dict[str, str]  # name -> hash of its weights
    licences: dict[str, str]  # name -> licence of its weights
    strategies: list[str]
    selections: list[str]
    protocol: str
    unit: str
    seed: int
    nsd_tolerance: float
    save_masks: str
    device: str
    dtype: str
    n_images: int
    n_parts: int
    versions: dict[str, str]
    started: str
    schema_version: int = SCHEMA_VERSION


NOT_IN_FINGERPRINT = frozenset({"corpus_path", "licences", "started"})


def settings_that_differ(old: Run, new: Run) -> list[str]:
    """Name the settings by which two runs may not share a folder, with both values."""
    before, after = dataclasses.asdict(old), dataclasses.asdict(new)
    return [
        f"{key} was {before[key]!r} and is {after[key]!r}"
        for key in before
        if key not in NOT_IN_FINGERPRINT and before[key] != after[key]
    ]


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run on disk: its settings, and its parts as Polars frames."""

    path: Path
    run: Run

    def has_part(self, index: int) -> bool:
        """Tell whether a part is there, whole."""
        return self._part("records", index).exists()

    def write_part(
        self,
        index: int,
        records: Sequence[Record],
        prompts: Sequence[PromptRow],
        masks: Sequence[MaskRow],
    ) -> None:
        """Write one part; its records come last, since they say that it is whole."""
        write_parquet(self._part("masks", index), MaskRow, masks)
        write_parquet(self._part("prompts", index), PromptRow, prompts)
        write_parquet(self._part("records", index), Record, records)

    def parts_done(self) -> int:
        """Count the parts that are there."""
        return sum(self.has_part(index) for index in range(self.run.n_parts))

    def records(self) -> "pl.DataFrame":
        """Read all records, in an order that depends on their identity alone."""
        return self._read("records", Record).sort(IDENTITY, nulls_last=False)

    def prompts(self) -> "pl.DataFrame":
        """Read all prompts."""
        return self._read("prompts", PromptRow)

    def masks(self) -> "pl.DataFrame":
        """Read the saved masks, as COCO run lengths."""
        return self._read("masks", MaskRow)

    def _part(self, kind: str, index: int) -> Path:
        return self.path / kind / f"part-{index:05d}.parquet"

    def _read(self, kind: str, row: type) -> "pl.DataFrame":
        import polars as pl
        import pyarrow as pa
        import pyarrow.parquet as pq

        paths = [self._part(kind, index) for index in range(self.run.n_parts)]
        tables = [_read_part(pq, path) for path in paths if path.exists()]
        whole = pa.concat_tables(tables) if tables else arrow_schema(row).empty_table()
        frame = pl.from_arrow(whole)
        assert isinstance(frame, pl.DataFrame)
        return frame


def _read_part(parquet: Any, path: Path) -> "pa.Table":
    try:
        return parquet.read_table(path)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read ({error}). Delete it and run the same evaluate command again."
        ) from error


def start_run(path: Path, run: Run) -> RunFolder:
    """Begin a run in a new or empty folder, or go on with the same run in its own.

    Raises
    ------
    DataError
        The folder holds a run with other settings, or files that are no run.
    """
    if (path / "run.json").exists():
        old = open_run(path)
        if differences := settings_that_differ(old.run, run):
            raise DataError(
                f"{path} holds another run ({'; '.join(differences)}). "
                "Choose another --out, or delete that folder."
            )
        sweep_temporaries(path)
        return old
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DataError(f"{path} exists and is not a run. Choose another --out.")
    content = json.dumps(dataclasses.asdict(run), indent=2) + "\n"
    write_atomically(path / "run.json", content.encode())
    return RunFolder(path, run)


def open_run(path: Path) -> RunFolder:
    """Open a run folder to read its records.

    Raises
    ------
    DataError
        There is no run, it is damaged, or another version of promptseg wrote it.
    """
    file = path / "run.json"
    if not file.is_file():
        raise DataError(f"{path} is not a run: it has no run.json. Was it made by evaluate --out?")
    try:
        content = json.loads(file.read_text())
        version = content.get("schema_version")
    except (ValueError, AttributeError, OSError) as error:
        raise DataError(f"{file} is damaged ({error}).") from error
    if version != SCHEMA_VERSION:
        raise DataError(
            f"{path} was written with run schema {version}, this promptseg reads "
            f"{SCHEMA_VERSION}. Run evaluate again, or install the promptseg that wrote it."
        )
    try:
        return RunFolder(path, Run(**content))
    except TypeError as error:
        raise DataError(f"{file} is damaged ({error}).") from error
