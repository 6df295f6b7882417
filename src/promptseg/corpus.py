"""The standard corpus: Parquet shards of images, targets and drops that open without our code.

`corpus.json` describes it; `images/`, `targets/` and `drops/` hold parts. The target part with the
number of an image part holds the targets of its images. A row group of an image part is the unit
of work of an evaluation.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped, UInt8, UInt16

from promptseg.errors import DataError
from promptseg.mask import Rle, bounding_box_xyxy, from_rle, to_rle
from promptseg.parquet import arrow_schema, write_atomically
from promptseg.sample import Sample, Target, Unreadable, task_name

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT_VERSION = 1
IMAGES_PER_PART = 256
IMAGES_PER_ROW_GROUP = 4  # what a killed evaluation has to do again


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRow:
    """What is known of one image: the columns of `images/`. None means unknown, never a default."""

    image_id: str
    dataset: str
    subject: str | None = None
    subject_source: str = "unknown"  # file, pattern, header or unknown
    volume_id: str | None = None
    slice_index: int | None = None
    n_slices: int | None = None
    plane: str | None = None
    modality: str
    dicom_modality: str | None = None
    width: int
    height: int
    spacing_y_mm: float | None = None
    spacing_x_mm: float | None = None
    spacing_slice_mm: float | None = None
    affine: tuple[float, ...] | None = None  # 4 x 4, row-major, voxel (i, j, k) to RAS+ mm
    intensity_rule: str  # none, or min-max over the image or the volume
    intensity_lo: float | None = None  # source values shown as 0 and 255
    intensity_hi: float | None = None
    tile_of: str | None = None
    tile_x: int | None = None
    tile_y: int | None = None
    split: str | None = None
    source: str  # path below the curated folder
    licence: str | None = None
    sha256: str  # of the stored image file


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRow:
    """One reference mask: the columns of `targets/`."""

    image_id: str
    target_id: str
    object: str
    instance: int | None = None
    annotator: str | None = None
    area_px: int
    box: tuple[int, ...]  # x0, y0, x1, y1, half-open
    mask: Rle
    attributes: str | None = None  # JSON object; unknown until computed


@dataclass(frozen=True, slots=True, kw_only=True)
class DropRow:
    """An image or label that was left out, and why: the columns of `drops/`."""

    source: str
    image_id: str | None = None
    object: str | None = None
    instance: int | None = None
    area_px: int | None = None
    reason: str


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


def target_row(image_id: str, target: Target) -> TargetRow:
    """Describe a target for the corpus; raises ValueError on an empty mask."""
    box = bounding_box_xyxy(target.mask)
    if box is None:
        raise ValueError(f"target {target.target_id} is empty")
    return TargetRow(
        image_id=image_id,
        target_id=target.target_id,
        object=target.object,
        instance=target.instance,
        annotator=target.annotator,
        area_px=int(np.count_nonzero(target.mask)),
        box=box,
        mask=to_rle(target.mask),
    )


def image_digest(image: ImageRow, targets: list[TargetRow]) -> str:
    """Hash what can change a record: the picture, its facts, and the masks of its targets."""
    rows = [asdict(image), *sorted((asdict(t) for t in targets), key=lambda row: row["target_id"])]
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def fingerprint(digests: list[str]) -> str:
    """Hash a corpus by its images, whatever their order."""
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()


def image_schema() -> "pa.Schema":
    """Give the schema of `images/`, with which `datasets` opens the column `image` as pictures."""
    import pyarrow as pa

    schema = arrow_schema(ImageRow)
    scalars = {name: _feature(schema.field(name).type) for name in schema.names}
    features = {**scalars, "image": {"_type": "Image"}}
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    # nullable, though it never is: `datasets` knows a picture by this exact field
    return schema.append(pa.field("image", image)).with_metadata(metadata)


def _feature(kind: "pa.DataType") -> dict[str, Any]:
    import pyarrow as pa

    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    return {"dtype": {"double": "float64"}.get(str(kind), str(kind)), "_type": "Value"}


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
        import pyarrow.parquet as pq

        try:
            parts = [pq.read_metadata(path) for path in part_paths(self.path, "images")]
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path} is damaged: {error}") from error
        return [
            RowGroup(part, index, metadata.row_group(index).num_rows)
            for part, metadata in enumerate(parts)
            for index in range(metadata.num_row_groups)
        ]

    def read(self, group: RowGroup) -> Iterator[Sample | Unreadable]:
        """Yield the samples of a row group; one that cannot be read comes as `Unreadable`."""
        import pyarrow.parquet as pq

        images = pq.ParquetFile(part_paths(self.path, "images")[group.part])
        rows = images.read_row_group(group.index).to_pylist()
        wanted = {row["image_id"] for row in rows}
        targets: dict[str, list[dict[str, Any]]] = {image_id: [] for image_id in wanted}
        table = pq.read_table(
            part_paths(self.path, "targets")[group.part], filters=[("image_id", "in", wanted)]
        )
        for target in table.to_pylist():
            targets[target["image_id"]].append(target)
        for row in rows:
            yield read_sample(row, targets[row["image_id"]])


def open_corpus(path: Path) -> Corpus:
    """Open a corpus folder.

    Raises
    ------
    DataError
        There is no corpus, it is damaged, or its format is unknown.
    """
    file = path / "corpus.json"
    if not file.is_file():
        raise DataError(
            f"{path} is not a corpus: it has no corpus.json. Make one with "
            f"`promptseg curate FOLDER --out {path}`."
        )
    try:
        content = json.loads(file.read_text())
        version = content["format_version"]
        known = {f.name for f in fields(CorpusInfo)}
        info = CorpusInfo(**{key: value for key, value in content.items() if key in known})
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise DataError(f"{file} is damaged ({error}).") from error
    if version != FORMAT_VERSION:
        known_version = f"this promptseg reads {FORMAT_VERSION}"
        raise DataError(f"{path} has corpus format {version}, {known_version}.")
    if not part_paths(path, "images"):
        raise DataError(f"{path} is damaged: its images/ has no parts.")
    return Corpus(path, info)


def part_paths(path: Path, kind: str) -> list[Path]:
    """List the parts of `images`, `targets` or `drops`, in order."""
    return sorted((path / kind).glob("part-*.parquet"))


def read_sample(row: Mapping[str, Any], targets: list[dict[str, Any]]) -> Sample | Unreadable:
    """Turn a row of the corpus and its targets into a sample."""
    try:
        stored = decode_image(row["image"]["bytes"], row["sha256"])
        image = displayed(stored, row["intensity_lo"], row["intensity_hi"])
        masks = [from_rle(target["mask"]) for target in targets]
        if any(mask.shape != image.shape[:2] for mask in masks):
            raise ValueError("a mask has another size than its image")
    except (ValueError, OSError) as error:
        listed = tuple((target["target_id"], target["object"]) for target in targets)
        return Unreadable(
            row["image_id"], row["dataset"], row["modality"], row["subject"], listed, str(error)
        )
    spacing = (row["spacing_y_mm"], row["spacing_x_mm"])
    return Sample(
        image_id=row["image_id"],
        image=image,
        dataset=row["dataset"],
        modality=row["modality"],
        subject=row["subject"],
        spacing_yx_mm=None if None in spacing else spacing,
        targets=tuple(
            Target(t["target_id"], t["object"], mask, t["instance"], t["annotator"])
            for t, mask in zip(targets, masks, strict=True)
        ),
    )


def decode_image(content: bytes, sha256: str) -> Shaped[np.ndarray, "h w *rgb"]:
    """Decode a stored PNG after checking its hash: (h, w) or (h, w, 3), 8 or 16 bits."""
    from PIL import Image

    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError("the stored image does not match its sha256: the corpus is damaged")
    with Image.open(io.BytesIO(content)) as picture:
        picture.load()
        return np.asarray(picture)


def displayed(
    image: UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"] | UInt16[np.ndarray, "h w"],
    lo: float | None,
    hi: float | None,
) -> UInt8[np.ndarray, "h w 3"]:
    """Bring a stored image to RGB in 0..255; 16-bit grey is mapped from lo..hi to it."""
    if image.dtype == np.uint16:
        if lo is None or hi is None:
            raise ValueError("a 16-bit image has no intensity range")
        scaled = (image.astype(np.float64) - lo) * (255.0 / max(hi - lo, 1e-12))
        image = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    return np.ascontiguousarray(image)


def encode_image(image: Shaped[np.ndarray, "h w *rgb"]) -> bytes:
    """Encode (h, w) or (h, w, 3) uint8, or (h, w) uint16, as lossless PNG."""
    from PIL import Image

    sink = io.BytesIO()
    Image.fromarray(image).save(sink, format="PNG")
    return sink.getvalue()


class CorpusWriter:
    """Write a corpus image by image; memory does not grow with it.

    Call `add` and `drop` for each image and label, then `finish`, without which there is no
    `corpus.json` and the folder is no corpus.
    """

    def __init__(self, path: Path) -> None:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise DataError(f"{path} exists and is not empty. Choose another --out, or delete it.")
        self.path = path
        self.tasks: dict[str, int] = {}
        self.n_drops = 0
        self._digests: list[str] = []
        self._images: list[dict[str, Any]] = []
        self._targets: list[TargetRow] = []
        self._drops: list[DropRow] = []
        self._parts = 0
        self._ids: set[str] = set()

    def add(self, image: ImageRow, content: bytes, targets: list[TargetRow]) -> None:
        """Add one image (its facts and its PNG) with its targets.

        Raises ValueError when the image_id is there already.
        """
        if image.image_id in self._ids:
            raise ValueError(f"two images have the image_id {image.image_id!r}")
        self._ids.add(image.image_id)
        picture = {"bytes": content, "path": f"{image.image_id}.png"}
        self._images.append({**asdict(image), "image": picture})
        self._targets.extend(targets)
        self._digests.append(image_digest(image, targets))
        for target in targets:
            task = task_name(target.object, image.modality)
            self.tasks[task] = self.tasks.get(task, 0) + 1
        if len(self._images) == IMAGES_PER_PART:
            self._flush()

    def drop(self, row: DropRow) -> None:
        """Record that an image or a label was left out."""
        self.n_drops += 1
        self._drops.append(row)

    @property
    def n_images(self) -> int:
        """Number of images added so far."""
        return len(self._digests)

    def finish(
        self,
        *,
        name: str,
        datasets: list[dict[str, str | None]],
        rules: dict[str, str],
        version: str = "1",
    ) -> CorpusInfo:
        """Write what is left and `corpus.json`; raises DataError when no image was added."""
        if not self._digests:
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
        write_atomically(self.path / "corpus.json", content)
        return info

    def _flush(self) -> None:
        import pyarrow as pa

        if self._images:
            self._write("images", pa.Table.from_pylist(self._images, image_schema()))
            self._write("targets", _table(TargetRow, self._targets))
        self._write("drops", _table(DropRow, self._drops))
        self._parts += 1
        self._images, self._targets, self._drops = [], [], []

    def _write(self, kind: str, table: "pa.Table") -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", row_group_size=IMAGES_PER_ROW_GROUP)
        path = self.path / kind / f"part-{self._parts:05d}.parquet"
        write_atomically(path, sink.getvalue().to_pybytes())


def _table(row: type, rows: list[Any]) -> "pa.Table":
    import pyarrow as pa

    return pa.Table.from_pylist([asdict(item) for item in rows], arrow_schema(row))
