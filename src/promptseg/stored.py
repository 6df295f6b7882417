"""From the rows of a corpus to a sample, once they are what was curated."""

from collections.abc import Container, Mapping
from dataclasses import fields
from typing import Any

from promptseg.mask import from_rle
from promptseg.pixels import decode_image, displayed
from promptseg.rows import image_digest
from promptseg.sample import Listed, Place, Sample, Target, Unreadable

# what pyarrow raises on files that are not what they should be; its own errors are among them
DAMAGE = (OSError, ValueError, TypeError, KeyError)


def read_sample(
    row: Mapping[str, Any], targets: list[dict[str, Any]], chosen: Container[str] | None = None
) -> Sample | Unreadable:
    """Turn a row of the corpus and its targets into a sample, once they are what was curated.

    Takes all targets of the image, and leaves those out whose ids are not `chosen`.
    """
    kept = [target for target in targets if chosen is None or target["target_id"] in chosen]
    try:
        if image_digest(row, targets) != row["digest"]:
            raise ValueError("its facts or masks were changed after it was curated")
        stored = decode_image(row["image"]["bytes"], row["sha256"])
        image = displayed(stored, row["intensity_lo"], row["intensity_hi"])
        read = tuple(_target(target, (image.shape[0], image.shape[1])) for target in kept)
    except DAMAGE as error:
        listed = tuple(Listed(t["target_id"], t["object"], t["annotator"]) for t in kept)
        volume = None if row["volume_id"] is None else f"{row['volume_id']}/{row['plane']}"
        return Unreadable(
            row["image_id"], row["dataset"], row["modality"], row["subject"], listed, str(error),
            volume=volume,
        )  # fmt: skip
    spacing = (row["spacing_y_mm"], row["spacing_x_mm"])
    return Sample(
        image_id=row["image_id"],
        image=image,
        dataset=row["dataset"],
        modality=row["modality"],
        subject=row["subject"],
        spacing_yx_mm=None if None in spacing else spacing,
        targets=read,
        source=row["source"],
        place=_place(row),
    )


def _place(row: Mapping[str, Any]) -> Place | None:
    if row["volume_id"] is None:
        return None
    affine = row["affine"]
    return Place(
        **{field.name: row[field.name] for field in fields(Place) if field.name != "affine"},
        affine=None if affine is None else tuple(affine),
    )


def _target(row: Mapping[str, Any], image_hw: tuple[int, int]) -> Target:
    # before it is expanded: a hostile size would take all memory
    if tuple(row["mask"]["size"]) != image_hw:
        raise ValueError("a mask has another size than its image")
    mask = from_rle(row["mask"])
    return Target(row["target_id"], row["object"], mask, row["instance"], row["annotator"])
