"""The splits of a curation: drawn by subject, or read off paths; leaks are errors."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from jaxtyping import Shaped

from promptseg.corpus_writer import CorpusWriter
from promptseg.curation.settings import Curation
from promptseg.division import divide, parse_shares
from promptseg.duplicates import Pair, Seen, pairs, refuse, seen_in, together
from promptseg.errors import DataError
from promptseg.likeness import Look
from promptseg.pixels import decode_image

_COLUMNS = ["image_id", "dataset", "subject", "volume_id", "split", "sha256"]


def split(writer: CorpusWriter, settings: Curation) -> dict[str, str]:
    """Give the images of a corpus their splits, or check those that they have; say how.

    Subjects that have an image in common, or nearly so, stay together.

    Raises
    ------
    DataError
        Subjects are unknown or too few; or an image, or a subject, is in two splits.
    """
    if settings.split is None and settings.split_pattern is None:
        return {}
    images = writer.rows("images", _COLUMNS)
    given = any(image["split"] for image in images)
    if settings.split is None and not given:
        return {}
    if settings.split is not None and given:
        raise DataError("The paths tell a split. Give either --split or --split-pattern.")
    looks = [Look(**row) for row in writer.rows("looks", [field.name for field in fields(Look)])]
    seen = [seen_in("", image, look) for image, look in zip(images, looks, strict=True)]
    hashes = {image["image_id"]: image["sha256"] for image in images}

    def pixels(of: Seen) -> Shaped[np.ndarray, "h w *rgb"]:
        name = of.look.image_id
        return decode_image(writer.picture(name), hashes[name])

    if settings.split is not None:
        shares = parse_shares(settings.split)
        owners = {i["image_id"]: _owner(i, settings.split_by == "image") for i in images}
        found = list(pairs(seen, pixels, lambda of: owners[of.look.image_id]))
        return _drawn(writer, owners, found, shares, settings.split_seed)
    found = list(pairs(seen, pixels))
    _one_split_each(images)
    refuse(found, settings.allow_leaks)
    return {"split": f"by the pattern {settings.split_pattern} of paths"}


def _drawn(
    writer: CorpusWriter,
    owners: Mapping[str, str],
    found: Sequence[Pair],
    shares: Mapping[str, float],
    seed: int,
) -> dict[str, str]:
    linked = [(owners[p.one.look.image_id], owners[p.other.look.image_id]) for p in found]
    group_of = together(set(owners.values()), linked)
    tasks: dict[str, set[str]] = {group: set() for group in group_of.values()}
    for target in writer.rows("targets", ["image_id", "object"]):
        tasks[group_of[owners[target["image_id"]]]].add(target["object"])
    split_of = divide(tasks, shares, seed=seed)
    writer.set_splits({image_id: split_of[group_of[own]] for image_id, own in owners.items()})
    told = ", ".join(f"{name} {share:g}" for name, share in shares.items())
    n_joined = len(group_of) - len(tasks)
    joined = f"; {n_joined} kept with another that has the same image" if n_joined else ""
    return {"split": f"{told} of {len(group_of)} by subject and task, seed {seed}{joined}"}


def _owner(image: Mapping[str, Any], by_image: bool) -> str:
    if by_image:
        return str(image["image_id"])
    if image["subject"] is None:
        raise DataError(
            "The subject of an image is unknown, so that a split cannot keep patients apart. Give "
            "--subject-pattern; or --split-by image if no patient has two images."
        )
    return f"{image['dataset']}\n{image['subject']}"


def _one_split_each(images: Collection[Mapping[str, Any]]) -> None:
    """Refuse a subject in two splits."""
    splits: dict[tuple[str, str], str | None] = {}
    for image in images:
        if image["subject"] is not None:
            own = (image["dataset"], image["subject"])
            if splits.setdefault(own, image["split"]) != image["split"]:
                raise DataError(
                    f"A leak: subject {own[1]} is in split {splits[own]} and in {image['split']}. "
                    "Mend --split-pattern or --subject-pattern; or have the split drawn by --split."
                )
