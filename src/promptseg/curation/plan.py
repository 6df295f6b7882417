"""The settings of a curation made definite for one folder, and put into words."""

import re
from dataclasses import dataclass
from pathlib import Path

from promptseg.curation.settings import Curation
from promptseg.errors import DataError
from promptseg.reader.folder import Listing, printable
from promptseg.reader.frame import Reading
from promptseg.reader.labels import Naming, survey
from promptseg.reader.sequence import masks_as_named, raw_pages
from promptseg.reader.soft import HALF
from promptseg.reader.table import Found, Table, find_table


@dataclass(frozen=True, slots=True)
class Plan:
    """Settings made definite for one folder."""

    settings: Curation
    modality: str
    reading: Reading
    subject: re.Pattern[str] | None
    rules: dict[str, str]
    left_out: tuple[tuple[str, str], ...]  # (source, reason)
    guessed_name: str | None  # of an object, when nothing says what nameless masks show


def plan_of(folder: Path, listing: Listing, settings: Curation) -> Plan:
    """Make the settings definite: the table of labels, and what nameless masks show."""
    modality = (settings.modality or "").strip()
    if not modality:
        raise DataError("The modality is not known. Say it, for example by --modality CT.")
    if settings.every < 1:
        raise DataError(f"--every {settings.every} takes no frame. Say 1 for all of them.")
    if settings.first_frame not in (None, 0, 1):
        raise DataError(f"--first-frame is 0 or 1, not {settings.first_frame}.")
    subject = _subject_pattern(settings.subject_pattern, listing)
    dataset = printable(settings.dataset or folder.resolve().name).replace("#", "_")
    found = find_table(folder, settings.labels)
    naming = _naming(folder, listing, settings, found.table, dataset)
    reading = Reading(
        folder=folder,
        dataset=dataset,
        naming=naming,
        plane=settings.plane,
        spacing_yx_mm=settings.spacing_yx_mm,
        keep_empty=settings.keep_empty,
        every=settings.every,
        first_frame=settings.first_frame,
    )
    rules = _rules(settings, listing, naming, found)
    return Plan(
        settings=settings,
        modality=modality,
        reading=reading,
        subject=subject,
        rules=rules,
        left_out=(*listing.left_out, *found.left_out),
        guessed_name=_guessed_name(listing, settings, found, dataset),
    )


def _guessed_name(listing: Listing, settings: Curation, found: Found, dataset: str) -> str | None:
    """Give the data set's name where it is made that of an object, and no file says so."""
    is_told = settings.object_name is not None or len(found.table or ()) == 1
    named = {file.object for image in listing.images for file in image.masks}
    return None if is_told or dataset in named else dataset


def _naming(
    folder: Path, listing: Listing, settings: Curation, table: Table | None, dataset: str
) -> Naming:
    only = next(iter(table)) if table is not None and len(table) == 1 else None
    is_told = table is not None or settings.instances
    binary, soft_edges = (False, False) if is_told else _nameless(folder, listing, settings)
    return Naming(
        nameless=printable(settings.object_name or only or dataset),
        table=table,
        instances=settings.instances,
        binary=binary,
        threshold=settings.threshold,
        soft_edges=soft_edges,
    )


def _nameless(folder: Path, listing: Listing, settings: Curation) -> tuple[bool, bool]:
    """Look whether all nameless masks are binary, and whether some have smoothed edges.

    Only all of them can tell: {0, 255} is a binary mask, or a label map in which one is present,
    and greys that are thin in one mask may be classes in another.
    """
    naming = Naming(nameless="", threshold=settings.threshold)
    as_stored: set[int] = set()
    hardened: set[int] = set()
    are_plain, is_any_smoothed = True, False
    for file in (file for image in listing.images for file in masks_as_named(folder, image)):
        if file.is_one_object:
            continue
        try:
            found = survey(raw_pages(folder / file.source), naming)
            is_any_smoothed |= found.has_soft_edges
            are_plain &= found.has_soft_edges or found.is_plain
            hardened |= {255} if found.has_soft_edges else set()
            values = set(found.rule()[1])
        except DataError:
            continue  # reported when its image is read
        as_stored |= values
        hardened |= set() if found.has_soft_edges else values
        if not (are_plain or _is_binary(as_stored)):
            return False, False
    has_soft_edges = are_plain and is_any_smoothed
    return _is_binary(hardened if has_soft_edges else as_stored), has_soft_edges


def _is_binary(values: set[int]) -> bool:
    """Tell one object from several: one value, or 1 and 255."""
    return len(values) <= 1 or values <= {1, 255}


def _subject_pattern(pattern: str | None, listing: Listing) -> re.Pattern[str] | None:
    """Compile the pattern, and see that it finds the subject of at least one image."""
    if pattern is None:
        return None
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(
            f"--subject-pattern {pattern!r} is no regular expression: {error}."
        ) from error
    if not any(subject_in(image.source, compiled) for image in listing.images):
        raise DataError(
            f"--subject-pattern {pattern!r} finds a subject in no image's path, such as "
            f"{listing.images[0].source!r}. Change it so that it finds the patient there."
        )
    return compiled


def _rules(settings: Curation, listing: Listing, naming: Naming, found: Found) -> dict[str, str]:
    """Put into words how the corpus comes about."""
    threshold = settings.threshold
    rules = {
        "masks": f"{listing.mask_folder}/" if listing.mask_folder else "none",
        "labels": printable(found.path.name) if found.path else "no table of labels",
        "label_values": _meaning_of_values(naming),
        "nameless_object": naming.nameless,
        "min_area": f"labels of at most {settings.min_area_px} pixels are dropped",
        "keep_empty": str(settings.keep_empty).lower(),
        "threshold": "none" if threshold is None else f"value > {threshold:g}",
        "jpeg_masks": f"value > {127 if threshold is None else threshold:g}",
        "soft_edges": _meaning_of_greys(naming),
        "every": f"frames 0, {settings.every}, {2 * settings.every}, ... of stacks and videos",
        "first_frame": _meaning_of_numbers(settings.first_frame),
        "intensity": "8 bits as stored; 16-bit grey kept; else min-max over image or volume",
        "orientation": "pictures as stored (no EXIF); slices in radiological view of RAS+",
        "plane": settings.plane or "across the axis of the largest spacing, else axial",
        "subject": settings.subject_pattern or "one per volume; unknown for pictures",
    }
    if settings.spacing_yx_mm is not None:
        y, x = settings.spacing_yx_mm
        rules["spacing_yx_mm"] = f"{y:g}, {x:g} where the file does not say"
    return rules


def _meaning_of_values(naming: Naming) -> str:
    if naming.instances:
        return "instance numbers of one object"
    if naming.table is not None:
        return "by the table of labels"
    return "binary masks" if naming.binary else 'each value an object, named "label <value>"'


def _meaning_of_greys(naming: Naming) -> str:
    which = "masks" if naming.soft_edges else "masks whose name is that of one object"
    return f"{which} of 0, 255 and greys on thin edges only: value > {HALF}"


def _meaning_of_numbers(first_frame: int | None) -> str:
    found = "0 for stacks of which a mask has that number, else 1"
    return f"number of the first frame's mask: {found if first_frame is None else first_frame}"


def subject_in(source: str, pattern: re.Pattern[str]) -> str | None:
    """Find the subject in a path: group `subject`, else the first, else all that matches."""
    match = pattern.search(source)
    group = "subject" if "subject" in pattern.groupindex else min(1, pattern.groups)
    return match[group] if match else None
