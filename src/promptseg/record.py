"""Records, and the run folder that keeps them.

A run folder holds `run.json`, and `records/`, `prompts/`, `masks/` and `attributes/` of Parquet
parts. A part is written under a temporary name and renamed, and its records come last, so a part
with records is whole: a killed run goes on where the last whole part ended.
"""

import dataclasses
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_origin, get_type_hints

from promptseg.attributes import AttributeRow
from promptseg.errors import DataError
from promptseg.history import lacking, settings_of
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

SCHEMA_VERSION = 3
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
    volume: str | None = None  # and plane, that the image is a slice of (a video, a frame)
    target_id: str | None
    prompt_id: str | None
    object: str | None
    modality: str
    task: str | None
    outcome: str
    reason: str | None = None
    mask_index: int | None = None
    predicted_px: int | None = None  # area of the mask
    reference_px: int | None = None  # area of the target
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
    n_survivors: int | None = None  # of everything: the masks that survived in this image ...
    n_unmatched: int | None = None  # ... those that match no target that was asked for ...
    n_matches: int | None = None  # ... and the targets that this record's mask matches
    embed_ms: float | None = None
    decode_ms: float | None = None


@dataclass(frozen=True, slots=True)
class PromptRow:
    """One prompt of a run; `prompt` is the JSON of `promptseg.prompt.to_json`.

    `target_id` is None for everything, which asks for all objects of an image at once.
    """

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
    """What makes records repeatable; runs that differ in any of it may not share a folder.

    Not in it, because it cannot be known: the code of anyone's own model, and the processor.
    """

    corpus: str
    corpus_path: str
    corpus_fingerprint: str
    layout: str  # which image lies in which row group: what numbers the parts
    models: dict[str, str]  # name -> hash of its weights, in the order of the parts
    asked: dict[str, str]  # name -> the words by which it was asked for
    trained_for: dict[str, list[str]]  # name -> prompts, selections, and "not ..." of pairs
    licences: dict[str, str]  # name -> licence of its weights, where known
    custom_weights: list[str]  # built-in models with other weights than the published ones
    strategies: list[str]
    selections: list[str]
    protocol: str
    unit: str
    seeds: list[int]
    jitter: list[str]  # as the command line writes them: shift:px:10-20
    everything: dict[str, Any]  # model -> its settings of everything, where that was asked for
    subset: dict[str, Any]  # what of the corpus was chosen (split, where, per_task, limit)
    max_targets: int | None  # per image
    nsd_tolerance: float
    save_masks: str
    batch_size: int | None  # prompts at a time: on a GPU it may change the last digits
    device: str
    dtype: str
    n_images: int  # chosen ...
    n_targets: int | None  # (None: a run of schema 1, which did not count them)
    of_images: int  # ... of all in the corpus
    of_targets: int | None
    n_parts: int
    versions: dict[str, str]
    started: str
    datasets: list[dict[str, Any]] = field(default_factory=list)  # name, licence, citation
    # name of a model -> data sets that it was trained on, as it or the user says ...
    trained_on: dict[str, list[str]] = field(default_factory=dict)
    # ... and those of its fine-tuning of which no image that it saw is evaluated here
    held_out: dict[str, list[str]] = field(default_factory=dict)
    backends: dict[str, str] = field(default_factory=dict)  # name -> what ran it instead of PyTorch
    schema_version: int = SCHEMA_VERSION


FREE = frozenset(
    {"corpus_path", "asked", "licences", "started", "datasets"}
)  # may differ in one folder
DERIVED = frozenset(
    {"layout", "trained_for", "custom_weights", "n_images", "n_targets", "of_images", "of_targets",
     "n_parts"}
)  # fmt: skip
FREE_ON_CPU = frozenset({"batch_size"})


def settings_that_differ(old: Run, new: Run) -> list[str]:
    """Name the settings by which two runs may not share a folder, with both values."""
    before, after = dataclasses.asdict(old), dataclasses.asdict(new)
    free = FREE | (FREE_ON_CPU if new.device == "cpu" else frozenset())
    # as JSON, in which the order of models counts: it numbers the parts
    differ = [
        key
        for key in before
        if key not in free and json.dumps(before[key]) != json.dumps(after[key])
    ]
    # what follows from other settings is told where nothing else differs
    told = [key for key in differ if key not in DERIVED] or differ
    return [f"{key} was {_short(before[key])} and is {_short(after[key])}" for key in told]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:40]}...{text[-8:]}"


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
        attributes: Sequence[AttributeRow] = (),
    ) -> None:
        """Write one part; its records come last, since they say that it is whole."""
        write_parquet(self._part("attributes", index), AttributeRow, attributes)
        write_parquet(self._part("masks", index), MaskRow, masks)
        write_parquet(self._part("prompts", index), PromptRow, prompts)
        write_parquet(self._part("records", index), Record, records)

    def parts_done(self) -> int:
        """Count the parts that are there."""
        return sum(self.has_part(index) for index in range(self.run.n_parts))

    def records(self) -> "pl.DataFrame":
        """Read all records, in an order that depends on their identity alone."""
        return self._read("records", Record).sort(IDENTITY, nulls_last=False)

    def prompts(self, among: Collection[str] | None = None) -> "pl.DataFrame":
        """Read prompts, all or those named; what several models were asked comes once."""
        return self._read("prompts", PromptRow, among).unique("prompt_id", maintain_order=True)

    def masks(self, among: Collection[str] | None = None) -> "pl.DataFrame":
        """Read the saved masks, as COCO run lengths: all, or those of the prompts named."""
        return self._read("masks", MaskRow, among)

    def attributes(self) -> "pl.DataFrame":
        """Read what the targets look like, each once; older runs and broken images have nothing."""
        return self._read("attributes", AttributeRow).unique("target_id", maintain_order=True)

    def _part(self, kind: str, index: int) -> Path:
        return self.path / kind / f"part-{index:05d}.parquet"

    def has_failures(self, index: int) -> bool:
        """Tell whether a part holds a failed record."""
        table = self._read_part("records", index, Record)
        return "failed" in table["outcome"].to_pylist()

    def _read(self, kind: str, row: type, among: Collection[str] | None = None) -> "pl.DataFrame":
        import polars as pl
        import pyarrow as pa

        parts = [n for n in range(self.run.n_parts) if self._part(kind, n).exists()]
        tables = [self._read_part(kind, index, row, among) for index in parts]
        frame = pl.from_arrow(pa.concat_tables([arrow_schema(row).empty_table(), *tables]))
        assert isinstance(frame, pl.DataFrame)
        return frame

    def _read_part(
        self, kind: str, index: int, row: type, among: Collection[str] | None = None
    ) -> "pa.Table":
        import pyarrow.parquet as pq

        path, schema = self._part(kind, index), arrow_schema(row)
        try:
            asked = None if among is None else [("prompt_id", "in", list(among))]
            table = pq.read_table(path, filters=asked)
            for name in self._lacking() if row is Record else ():
                table = _with_nulls(table, schema, name)
            return table.cast(schema)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{path} cannot be read ({error}). Delete it and run the same evaluate command "
                "again."
            ) from error

    def _lacking(self) -> list[str]:
        """List the columns that came after this run was written, in their order."""
        order = list(Record.__dataclass_fields__)
        return sorted(lacking(self.run.schema_version), key=order.index)


def with_corpus(frame: "pl.DataFrame") -> "pl.DataFrame":
    """Make sure that there is a column `corpus`: two corpora may call their targets alike."""
    import polars as pl

    return frame if "corpus" in frame.columns else frame.with_columns(corpus=pl.lit(""))


def _with_nulls(table: "pa.Table", schema: "pa.Schema", name: str) -> "pa.Table":
    """Add a column of nulls, where the schema has it."""
    import pyarrow as pa

    column = schema.field(name)
    nulls = pa.nulls(table.num_rows, column.type)
    return table.add_column(schema.get_field_index(name), column, nulls)


def start_run(path: Path, run: Run) -> RunFolder:
    """Begin a run in a new or empty folder, or go on with the same run in its own.

    Raises
    ------
    DataError
        The folder holds a run with other settings, or files that are no run.
    """
    if (path / "run.json").exists():
        old = open_run(path)
        if old.run.schema_version != SCHEMA_VERSION:
            raise DataError(
                f"{path} was written by an earlier promptseg (run schema "
                f"{old.run.schema_version}): it can be reported, but not gone on with. Choose "
                "another --out."
            )
        if differences := settings_that_differ(old.run, run):
            raise DataError(
                f"{path} holds another run ({'; '.join(differences)}). "
                "Choose another --out, or delete that folder."
            )
        sweep_temporaries(path)
        if old.run.corpus_path == run.corpus_path:
            return old
        moved = RunFolder(path, dataclasses.replace(old.run, corpus_path=run.corpus_path))
        _write_run(moved)
        return moved
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DataError(f"{path} exists and is not a run. Choose another --out.")
    folder = RunFolder(path, run)
    _write_run(folder)
    return folder


def _write_run(folder: RunFolder) -> None:
    content = json.dumps(dataclasses.asdict(folder.run), indent=2) + "\n"
    write_atomically(folder.path / "run.json", content.encode())


def open_run(path: Path) -> RunFolder:
    """Open a run folder to read its records.

    Raises
    ------
    DataError
        There is no run, it is damaged, or another version of promptseg wrote it.
    """
    file = path / "run.json"
    if not file.is_file():
        what = "is not a run: it has no run.json" if path.exists() else "does not exist"
        raise DataError(f"{path} {what}. A run is made by `promptseg evaluate`.")
    try:
        content = json.loads(file.read_text())
        version = content.get("schema_version")
    except (ValueError, AttributeError, OSError) as error:
        raise DataError(f"{file} is damaged ({error}).") from error
    if version not in range(1, SCHEMA_VERSION + 1):
        raise DataError(
            f"{path} was written with run schema {version}, this promptseg reads up to "
            f"{SCHEMA_VERSION}. Run evaluate again, or install the promptseg that wrote it."
        )
    try:
        content = settings_of(content, version)
        _check_types(content)
        return RunFolder(path, Run(**content))
    except (TypeError, KeyError) as error:
        raise DataError(f"{file} is damaged ({error}).") from error


def _check_types(content: dict[str, Any]) -> None:
    """Raise TypeError where a setting is not of its kind: the file was edited."""
    for name, hint in get_type_hints(Run).items():
        if hint == int | None and name in content and content[name] is None:
            continue
        value, kind = content.get(name), int if hint == int | None else get_origin(hint) or hint
        is_number = kind is float and isinstance(value, int)
        if not (isinstance(value, kind) or is_number) or isinstance(value, bool):
            raise TypeError(f"{name} is {value!r}, expected {kind.__name__}")
