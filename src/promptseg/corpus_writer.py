"""Write a corpus, part by part."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.corpus import CorpusInfo, by_image
from promptseg.errors import DataError
from promptseg.likeness import Look
from promptseg.parquet import arrow_schema, facts_of
from promptseg.rows import DropRow, ImageRow, TargetRow, fingerprint, image_digest, image_schema
from promptseg.sample import task_name
from promptseg.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

IMAGES_PER_PART = 256
BYTES_PER_PART = 2**27  # of PNG: a part whose pictures reach it is full as well
IMAGES_PER_ROW_GROUP = 4  # what a killed evaluation has to do again
# what is read of the parts of an interrupted curation: all but pictures and masks
KEPT = {
    "images": [
        *("image_id", "digest", "modality", "dicom_modality", "intensity_rule"),
        *("subject", "subject_source", "volume_id"),
    ],
    "targets": ["image_id", "object"],
    "drops": ["reason"],
}


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
        self._n_bytes = 0  # of their PNG
        self._targets: list[TargetRow] = []
        self._drops: list[DropRow] = []
        self._looks: list[Look] = []
        self._read: tuple[int, dict[str, bytes]] | None = None  # PNG of a part
        self._ids: dict[str, int] = {}  # image_id -> its part, in the order in which they came

    def restore(self, n_parts: int) -> Iterator[dict[str, list[dict[str, Any]]]]:
        """Go on after so many parts, and yield the rows of each by kind; others are deleted.

        Pictures are not among the columns.
        """
        for name in self.store.names():
            kind, _, part = name.partition("/")
            if part.startswith("part-") and int(part[5:10]) >= n_parts:
                self.store.remove(f"{kind}/{part}")
        for self.n_parts in range(1, n_parts + 1):
            rows = {kind: self._part(kind, self.n_parts - 1, names) for kind, names in KEPT.items()}
            self._recall(rows)
            yield rows

    def rows(self, kind: str, columns: list[str]) -> list[dict[str, Any]]:
        """Read columns of what was written; write what was not before."""
        self.flush()
        return [row for part in range(self.n_parts) for row in self._part(kind, part, columns)]

    def picture(self, image_id: str) -> bytes:
        """Read the PNG of an image that was written; those of its part are kept for the next."""
        part = self._ids[image_id]
        if self._read is None or self._read[0] != part:
            rows = self._part("images", part, ["image_id", "image"])
            self._read = part, {row["image_id"]: row["image"]["bytes"] for row in rows}
        return self._read[1][image_id]

    def set_splits(self, split_of: Mapping[str, str]) -> None:
        """Write the parts of images again, each image with its split."""
        self._digests, self._read = [], None
        for part in range(self.n_parts):
            self._images = self._part("images", part)
            targets = self._part("targets", part)
            for row in self._images:
                row["split"] = split_of[row["image_id"]]
            if self._images:
                self._write("images", self._with_digests(targets), part)
        self._images = []

    def _part(self, kind: str, part: int, columns: list[str] | None = None) -> list[dict[str, Any]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        name = f"{kind}/part-{part:05d}.parquet"
        if not self.store.has(name):  # a part may hold nothing but drops
            return []
        with pq.ParquetFile(pa.BufferReader(self.store.read(name))) as file:
            names = columns or file.schema_arrow.names
            rows: list[dict[str, Any]] = file.read(columns=names).to_pylist()
        return rows

    def _recall(self, rows: dict[str, list[dict[str, Any]]]) -> None:
        modality = {}
        for image in rows["images"]:
            self._ids[image["image_id"]] = self.n_parts - 1
            self._digests.append(image["digest"])
            modality[image["image_id"]] = image["modality"]
        for target in rows["targets"]:
            self._count(target["object"], modality[target["image_id"]])
        self.n_drops += len(rows["drops"])

    def _count(self, name: str, modality: str) -> None:
        task = task_name(name, modality)
        self.tasks[task] = self.tasks.get(task, 0) + 1

    def add(
        self,
        image: ImageRow,
        content: bytes,
        targets: list[TargetRow],
        look: Look | None = None,
    ) -> None:
        """Add one image (its facts and its PNG) with its targets, and how it looks.

        Raises ValueError when the image_id is there already.
        """
        if image.image_id in self._ids:
            raise ValueError(f"two images have the image_id {image.image_id!r}")
        self._ids[image.image_id] = self.n_parts
        picture = {"bytes": content, "path": f"{image.image_id}.png"}
        self._images.append({**facts_of(image), "image": picture})
        self._n_bytes += len(content)
        self._targets.extend(targets)
        self._looks.extend([] if look is None else [look])
        for target in targets:
            self._count(target.object, image.modality)
        if len(self._images) == IMAGES_PER_PART or self._n_bytes >= BYTES_PER_PART:
            self.flush()

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
        self.flush()
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

    def flush(self) -> None:
        """Write what was added since the last part, if anything was."""
        if not (self._images or self._drops):
            return
        if self._images:
            targets = _table(TargetRow, self._targets)
            self._write("images", self._with_digests(targets.to_pylist()))
            self._write("targets", targets)
            if len(self._looks) == len(self._images):
                self._write("looks", _table(Look, self._looks))
        self._write("drops", _table(DropRow, self._drops))
        self.n_parts += 1
        self._images, self._targets, self._drops, self._looks = [], [], [], []
        self._n_bytes = 0

    def _with_digests(self, targets: list[dict[str, Any]]) -> "pa.Table":
        """Make the table of images; digests are of values as Parquet gives them back."""
        import pyarrow as pa

        schema, of_image = image_schema(), by_image(targets)
        facts = pa.Table.from_pylist(self._images, arrow_schema(ImageRow))
        digests = [
            image_digest(row, of_image.get(row["image_id"], [])) for row in facts.to_pylist()
        ]
        self._digests += digests
        picture = schema.field("image")
        pictures = pa.array([row["image"] for row in self._images], picture.type)
        table = facts.append_column(schema.field("digest"), pa.array(digests, pa.string()))
        return table.append_column(picture, pictures).replace_schema_metadata(schema.metadata)

    def _write(self, kind: str, table: "pa.Table", part: int | None = None) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = pa.BufferOutputStream()
        rows, packing = None, "zstd"
        if kind == "images":  # PNG are packed already
            rows, packing = IMAGES_PER_ROW_GROUP, "snappy"
        pq.write_table(table, sink, compression=packing, row_group_size=rows)
        name = f"{kind}/part-{self.n_parts if part is None else part:05d}.parquet"
        self.store.write(name, sink.getvalue().to_pybytes())


def _table(row: type, rows: list[Any]) -> "pa.Table":
    import pyarrow as pa

    return pa.Table.from_pylist([facts_of(item) for item in rows], arrow_schema(row))
