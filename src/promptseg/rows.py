"""The rows of a corpus: its images, targets and drops, their schemas, and what identifies them."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from promptseg.mask import Rle, bounding_box_xyxy, to_rle
from promptseg.parquet import arrow_schema
from promptseg.sample import Target

if TYPE_CHECKING:
    import pyarrow as pa


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
    intensity_rule: str  # none, or what decides on lo and hi
    intensity_lo: float | None = None  # source values shown as 0 and 255
    intensity_hi: float | None = None
    tile_of: str | None = None  # the image that it is a part of, and where it begins there, in px
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


def image_digest(image: Mapping[str, Any], targets: Iterable[Mapping[str, Any]]) -> str:
    """Hash what can change a record: the picture's hash, its facts, and the masks of its targets.

    Takes rows as Parquet gives them back, so that what was read can be checked against it.
    """
    facts = {field.name: image[field.name] for field in fields(ImageRow)}
    names = [field.name for field in fields(TargetRow)]
    masks = sorted(({n: t[n] for n in names} for t in targets), key=lambda t: str(t["target_id"]))
    return hashlib.sha256(json.dumps([facts, *masks], sort_keys=True).encode()).hexdigest()


def fingerprint(digests: list[str]) -> str:
    """Hash a corpus by its images, whatever their order."""
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()


def image_schema() -> "pa.Schema":
    """Give the schema of `images/`, with which `datasets` opens the column `image` as pictures."""
    import pyarrow as pa

    schema = arrow_schema(ImageRow)
    scalars = {name: _feature(schema.field(name).type) for name in schema.names}
    features = {**scalars, "digest": _feature(pa.string()), "image": {"_type": "Image"}}
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    # nullable, though it never is: `datasets` knows a picture by this exact field
    return (
        schema.append(pa.field("digest", pa.string(), nullable=False))
        .append(pa.field("image", image))
        .with_metadata(metadata)
    )


def _feature(kind: "pa.DataType") -> dict[str, Any]:
    import pyarrow as pa

    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    return {"dtype": {"double": "float64"}.get(str(kind), str(kind)), "_type": "Value"}
