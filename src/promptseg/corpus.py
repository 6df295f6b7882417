"""The standard corpus: Parquet shards of images, targets and drops that open without our code.

`corpus.json` describes it; `images/`, `targets/` and `drops/` hold parts. The target part with the
number of an image part holds the targets of its images. A row group of an image part is the unit
of work of an evaluation.
"""

import hashlib
import json
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.errors import DataError
from promptseg.parquet import arrow_schema
from promptseg.rows import DropRow, ImageRow, TargetRow, fingerprint, image_digest, image_schema
from promptseg.sample import Sample, Unreadable, task_name
from promptseg.store import Store
from promptseg.stored import DAMAGE, read_sample

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT_VERSION = 1
IMAGES_PER_PART = 256
IMAGES_PER_ROW_GROUP = 4  # what a killed evaluation has to do again


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusInfo:
    """The content of `corpus.json`."""

    name: str
    version: str
    fingerprint: str
    n_images: int
    n_targets: int
    n_drops: int
    tasks: dict[str, int]  # task -> number of targets
    datasets: list[dict[str, str | None]] = field(default_factory=list)  # name, licence, citation
    rules: dict[str, str] = field(default_factory=dict)  # how it was curated
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Some consecutive images of one part: what is read, and evaluated, at a time."""

    part: int
    index: int
    n_images: int


@dataclass(frozen=True, slots=True)
class Corpus:
    """A corpus on disk, read one row group at a time."""

    path: Path
    info: CorpusInfo

    def row_groups(self) -> list[RowGroup]:
        """List the row groups in the order in which they are stored."""
        return [
            RowGroup(part, index, metadata.row_group(index).num_rows)
            for part, metadata in enumerate(map(_metadata, part_paths(self.path, "images")))
            for index in range(metadata.num_row_groups)
        ]

    def groups_of(self, image_ids: Container[str]) -> list[RowGroup]:
        """List the row groups that hold any of these images, each with how many of them it holds.

        Reads no column but image_id.
        """
        stored = iter(_column(self.path, "image_id"))
        groups = [
            replace(group, n_images=sum(i in image_ids for i in islice(stored, group.n_images)))
            for group in self.row_groups()
        ]
        return [group for group in groups if group.n_images]

    def layout(self) -> str:
        """Hash which image lies in which row group: what numbers the parts of a run."""
        sizes = [group.n_images for group in self.row_groups()]
        content = json.dumps([sizes, _column(self.path, "image_id")])
        return hashlib.sha256(content.encode()).hexdigest()

    def n_classes(self) -> int:
        """Count the targets there are when all instances of an object in an image are joined."""
        import polars as pl

        targets = pl.scan_parquet(part_paths(self.path, "targets"))
        keys = pl.struct("image_id", "object", "annotator")
        return int(targets.select(keys.n_unique()).collect().item())

    def read(
        self, group: RowGroup, targets: Mapping[str, Container[str]] | None = None
    ) -> Iterator[Sample | Unreadable]:
        """Yield the samples of a row group; one that cannot be read comes as `Unreadable`.

        `targets` (image_id -> target_ids) leaves only the images that it names, each with only
        its targets named there; whether an image is as it was curated is asked of the whole.

        Raises
        ------
        DataError
            A part cannot be read at all.
        """
        import pyarrow.parquet as pq

        images = part_paths(self.path, "images")[group.part]
        masks = part_paths(self.path, "targets")[group.part]
        try:
            with pq.ParquetFile(images) as file:
                rows = file.read_row_group(group.index).to_pylist()
            wanted = [row["image_id"] for row in rows]
            table = pq.read_table(masks, filters=[("image_id", "in", wanted)])
            of_image = _by_image(table.to_pylist())
        except DAMAGE as error:
            raise DataError(
                f"{images.parent.parent} is damaged in part {group.part}: {error}. Curate it again."
            ) from error
        for row in rows:
            name = row["image_id"]
            if targets is None:
                yield read_sample(row, of_image.get(name, []))
            elif name in targets:
                yield read_sample(row, of_image.get(name, []), targets[name])


def _metadata(path: Path) -> Any:
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(path)
    except DAMAGE as error:
        raise DataError(f"{path} is damaged: {error}. Curate the corpus again.") from error


def _column(path: Path, name: str) -> list[Any]:
    """Read one column of all image parts."""
    import pyarrow.parquet as pq

    values: list[Any] = []
    for part in part_paths(path, "images"):
        try:
            with pq.ParquetFile(part) as file:
                values += file.read(columns=[name])[name].to_pylist()
        except DAMAGE as error:
            raise DataError(f"{part} is damaged: {error}. Curate the corpus again.") from error
    return values


def open_corpus(path: str | Path) -> Corpus:
    """Open a corpus folder, and check that it is whole and as it was curated.

    Raises
    ------
    DataError
        There is no corpus, it is damaged or was changed, or its format is unknown.
    """
    path = Path(path)
    info = _read_info(path)
    for kind, row, total in (
        ("images", ImageRow, info.n_images),
        ("targets", TargetRow, info.n_targets),
    ):
        _check_parts(path, kind, row, total)
    if fingerprint(_column(path, "digest")) != info.fingerprint:
        raise DataError(f"{path} was changed after it was curated. Curate it again.")
    return Corpus(path, info)


def _read_info(path: Path) -> CorpusInfo:
    file = path / "corpus.json"
    if not path.is_dir():
        raise DataError(f"There is no folder {path}. A corpus is made by `promptseg curate`.")
    if not file.is_file():
        raise DataError(
            f"{path} is not a corpus: it has no corpus.json. Make one with "
            "`promptseg curate FOLDER --out CORPUS`."
        )
    try:
        content = json.loads(file.read_bytes())
        version = content["format_version"]
        known = {f.name for f in fields(CorpusInfo)}
        info = CorpusInfo(**{key: value for key, value in content.items() if key in known})
        counts = (info.n_images, info.n_targets)
        if not all(type(count) is int for count in counts):
            raise ValueError("its counts are no numbers")
    except (*DAMAGE, RecursionError) as error:
        raise DataError(f"{file} is damaged ({error}).") from error
    if version != FORMAT_VERSION:
        known_version = f"this promptseg reads {FORMAT_VERSION}"
        raise DataError(f"{path} has corpus format {version}, {known_version}.")
    return info


def _check_parts(path: Path, kind: str, row: type, total: int) -> None:
    """Compare the parts of a kind with what corpus.json says of them."""
    paths = part_paths(path, kind)
    expected = [f"part-{number:05d}.parquet" for number in range(len(paths))]
    metadata = [_metadata(part) for part in paths]
    found = sum(part.num_rows for part in metadata)
    if [part.name for part in paths] != expected or found != total:
        raise DataError(
            f"{path} is damaged: its {kind}/ holds {found} rows in {len(paths)} parts, "
            f"corpus.json says {total}. Curate it again."
        )
    needed = {field.name for field in fields(row)}
    for part, name in zip(metadata, expected, strict=True):
        if missing := needed - set(part.schema.to_arrow_schema().names):
            raise DataError(
                f"{path} is damaged: {kind}/{name} has no {', '.join(sorted(missing))}."
            )


def part_paths(path: Path, kind: str) -> list[Path]:
    """List the parts of `images`, `targets` or `drops`, in order."""
    return sorted((path / kind).glob("part-*.parquet"))


class CorpusWriter:
    """Write a corpus image by image; memory does not grow with it.

    Call `add` and `drop` for each image and label, then `finish`, without which there is no
    `corpus.json` and the folder is no corpus.
    """

    def __init__(self, path: Path | str, *, is_begun: bool = False) -> None:
        self.store = Store(path)
        if not is_begun and not self.store.is_free():
            raise DataError(f"{path} exists and is not empty. Choose another --out, or delete it.")
        self.tasks: dict[str, int] = {}
        self.n_drops = 0
        self.n_parts = 0  # written so far; what came since is in memory
        self._digests: list[str] = []
        self._images: list[dict[str, Any]] = []
        self._targets: list[TargetRow] = []
        self._drops: list[DropRow] = []
        self._ids: dict[str, None] = {}  # in the order in which they came

    def restore(self, n_parts: int) -> Iterator[dict[str, list[dict[str, Any]]]]:
        """Go on after so many parts, and yield the rows of each by kind; others are deleted.

        Pictures are not among the columns.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        for name in self.store.names():
            kind, _, part = name.partition("/")
            if part.startswith("part-") and int(part[5:10]) >= n_parts:
                self.store.remove(f"{kind}/{part}")
        for self.n_parts in range(1, n_parts + 1):
            rows: dict[str, list[dict[str, Any]]] = {}
            for kind in ("images", "targets", "drops"):
                name = f"{kind}/part-{self.n_parts - 1:05d}.parquet"
                with pq.ParquetFile(pa.BufferReader(self.store.read(name))) as file:
                    names = [n for n in file.schema_arrow.names if n != "image"]
                    rows[kind] = file.read(columns=names).to_pylist()
            self._recall(rows)
            yield rows

    def _recall(self, rows: dict[str, list[dict[str, Any]]]) -> None:
        modality = {}
        for image in rows["images"]:
            self._ids[image["image_id"]] = None
            self._digests.append(image["digest"])
            modality[image["image_id"]] = image["modality"]
        for target in rows["targets"]:
            self._count(target["object"], modality[target["image_id"]])
        self.n_drops += len(rows["drops"])

    def _count(self, name: str, modality: str) -> None:
        task = task_name(name, modality)
        self.tasks[task] = self.tasks.get(task, 0) + 1

    def add(self, image: ImageRow, content: bytes, targets: list[TargetRow]) -> None:
        """Add one image (its facts and its PNG) with its targets.

        Raises ValueError when the image_id is there already.
        """
        if image.image_id in self._ids:
            raise ValueError(f"two images have the image_id {image.image_id!r}")
        self._ids[image.image_id] = None
        picture = {"bytes": content, "path": f"{image.image_id}.png"}
        self._images.append({**asdict(image), "digest": "", "image": picture})
        self._targets.extend(targets)
        for target in targets:
            self._count(target.object, image.modality)
        if len(self._images) == IMAGES_PER_PART:
            self._flush()

    def drop(self, row: DropRow) -> None:
        """Record that an image or a label was left out."""
        self.n_drops += 1
        self._drops.append(row)

    @property
    def n_images(self) -> int:
        """Number of images added so far."""
        return len(self._ids)

    def finish(
        self,
        *,
        name: str,
        datasets: list[dict[str, str | None]],
        rules: dict[str, str],
        version: str = "1",
    ) -> CorpusInfo:
        """Write what is left and `corpus.json`; raises DataError when no image was added."""
        if not self._ids:
            raise DataError("no image with a usable mask was found; nothing was written.")
        if self._images or self._drops:
            self._flush()
        info = CorpusInfo(
            name=name,
            version=version,
            fingerprint=fingerprint(self._digests),
            n_images=self.n_images,
            n_targets=sum(self.tasks.values()),
            n_drops=self.n_drops,
            tasks=dict(sorted(self.tasks.items())),
            datasets=datasets,
            rules=rules,
        )
        content = (json.dumps(asdict(info), indent=2) + "\n").encode()
        self.store.write("corpus.json", content)
        return info

    def _flush(self) -> None:

        if self._images:
            targets = _table(TargetRow, self._targets)
            self._write("images", self._with_digests(targets.to_pylist()))
            self._write("targets", targets)
        self._write("drops", _table(DropRow, self._drops))
        self.n_parts += 1
        self._images, self._targets, self._drops = [], [], []

    def _with_digests(self, targets: list[dict[str, Any]]) -> "pa.Table":
        """Make the table of images; digests are of values as Parquet gives them back."""
        import pyarrow as pa

        rows = pa.Table.from_pylist(self._images, image_schema().remove_metadata()).to_pylist()
        of_image = _by_image(targets)
        for row in rows:
            row["digest"] = image_digest(row, of_image.get(row["image_id"], []))
            self._digests.append(row["digest"])
        return pa.Table.from_pylist(rows, image_schema())

    def _write(self, kind: str, table: "pa.Table") -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = pa.BufferOutputStream()
        rows = IMAGES_PER_ROW_GROUP if kind == "images" else None
        pq.write_table(table, sink, compression="zstd", row_group_size=rows)
        name = f"{kind}/part-{self.n_parts:05d}.parquet"
        self.store.write(name, sink.getvalue().to_pybytes())


def _by_image(targets: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    grouped: dict[str, list[dict[str, Any]]] = {}
    for target in targets:
        grouped.setdefault(target["image_id"], []).append(target)
    return grouped


def _table(row: type, rows: list[Any]) -> "pa.Table":
    import pyarrow as pa

    return pa.Table.from_pylist([asdict(item) for item in rows], arrow_schema(row))
