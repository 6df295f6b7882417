"""The settings of a curation made definite for one folder, and put into words."""

import re
from dataclasses import dataclass
from pathlib import Path

from promptseg.curation.settings import Curation
from promptseg.errors import DataError
from promptseg.reader.folder import Listing, printable
from promptseg.reader.frame import Reading, read_raw
from promptseg.reader.labels import Naming, as_labels, values_in
from promptseg.reader.table import Found, Table, find_table


@dataclass(frozen=True, slots=True)
class Plan:
    """Settings made definite for one folder."""

    settings: Curation
    modality: str | None  # None: every image has its own
    reading: Reading
    subject: re.Pattern[str] | None
    rules: dict[str, str]
    left_out: tuple[tuple[str, str], ...]  # (source, reason)
    guessed_name: str | None  # of an object, when nothing says what nameless masks show


def plan_of(folder: Path, listing: Listing, settings: Curation) -> Plan:
    """Make the settings definite: the table of labels, and what nameless masks show."""
    modality = (settings.modality or "").strip() or None
    if modality is None and any(image.modality is None for image in listing.images):
        raise DataError("The modality is not known. Say it, for example by --modality CT.")
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
    return Naming(
        nameless=printable(settings.object_name or only or dataset),
        table=table,
        instances=settings.instances,
        binary=table is None and not settings.instances and _all_binary(folder, listing, settings),
        threshold=settings.threshold,
    )


def _all_binary(folder: Path, listing: Listing, settings: Curation) -> bool:
    """Look whether all nameless masks together hold one object: one value, or 1 and 255.

    Only all of them can tell: {0, 255} is a binary mask, or a label map in which one is present.
    """
    naming = Naming(nameless="", threshold=settings.threshold)
    seen: set[int] = set()
    for file in (file for image in listing.images for file in image.masks):
        if file.is_one_object or file.dicom is not None:
            continue
        try:
            seen.update(values_in(as_labels(read_raw(folder / file.where), naming)))
        except DataError:
            continue  # reported when its image is read
        if len(seen) > 1 and not seen <= {1, 255}:
            return False
    return True


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
        "masks": _where_masks_are(listing),
        "labels": printable(found.path.name) if found.path else "no table of labels",
        "label_values": _meaning_of_values(naming),
        "nameless_object": naming.nameless,
        "min_area": f"labels of at most {settings.min_area_px} pixels are dropped",
        "keep_empty": str(settings.keep_empty).lower(),
        "threshold": "none" if threshold is None else f"value > {threshold:g}",
        "jpeg_masks": f"value > {127 if threshold is None else threshold:g}",
        "intensity": "8 bits as stored; 16-bit grey kept; else min-max over image or volume",
        "orientation": "pictures as stored (no EXIF); slices in radiological view of RAS+",
        "plane": settings.plane or "across the axis of the largest spacing, else axial",
        "subject": settings.subject_pattern or "one per volume; unknown for pictures",
    }
    if settings.spacing_yx_mm is not None:
        y, x = settings.spacing_yx_mm
        rules["spacing_yx_mm"] = f"{y:g}, {x:g} where the file does not say"
    return rules


def _where_masks_are(listing: Listing) -> str:
    refers = any(mask.dicom for image in listing.images for mask in image.masks)
    where = [f"{listing.mask_folder}/"] if listing.mask_folder else []
    return ", ".join([*where, *(["what DICOM masks refer to"] if refers else [])]) or "none"


def _meaning_of_values(naming: Naming) -> str:
    if naming.instances:
        return "instance numbers of one object"
    if naming.table is not None:
        return "by the table of labels"
    return "binary masks" if naming.binary else 'each value an object, named "label <value>"'


def subject_in(source: str, pattern: re.Pattern[str]) -> str | None:
    """Find the subject in a path: group `subject`, else the first, else all that matches."""
    match = pattern.search(source)
    group = "subject" if "subject" in pattern.groupindex else min(1, pattern.groups)
    return match[group] if match else None
