"""The standard corpus: Parquet shards of images, targets and drops that open without our code.

`corpus.json` describes it; `images/`, `targets/` and `drops/` hold parts. The target part with the
number of an image part holds the targets of its images. A row group of an image part is the unit
of work of an evaluation.
"""

import hashlib
import json
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.errors import DataError
from promptseg.rows import ImageRow, TargetRow, fingerprint
from promptseg.sample import Sample, Unreadable
from promptseg.stored import DAMAGE, read_sample

if TYPE_CHECKING:
    pass

FORMAT_VERSION = 1


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
            of_image = by_image(table.to_pylist())
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


def by_image(targets: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Group rows of targets by their image."""
    grouped: dict[str, list[dict[str, Any]]] = {}
    for target in targets:
        grouped.setdefault(target["image_id"], []).append(target)
    return grouped
