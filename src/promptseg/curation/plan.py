"""The settings of a curation made definite for one folder, and put into words."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from promptseg.curation.nameless import nameless
from promptseg.curation.secret import read_key
from promptseg.curation.settings import Curation
from promptseg.division import parse_shares
from promptseg.errors import DataError, pick
from promptseg.isolated import Processes
from promptseg.reader.folder import Listing, printable
from promptseg.reader.intensity import Intensity
from promptseg.reader.labels import Naming
from promptseg.reader.mapping import MappingFile
from promptseg.reader.names import Names
from promptseg.reader.reading import PLANE_CHOICES, Reading
from promptseg.reader.soft import HALF
from promptseg.reader.table import KNOWN_NAMES, Found, find_table


@dataclass(frozen=True, slots=True)
class Plan:
    """Settings made definite for one folder."""

    settings: Curation
    modality: str | None  # None: every image has its own
    reading: Reading
    subject: re.Pattern[str] | None
    split: re.Pattern[str] | None
    rules: dict[str, str]
    left_out: tuple[tuple[str, str], ...]  # (source, reason)
    guessed_name: str | None  # of an object, when nothing says what nameless masks show


def with_facts(settings: Curation, mapping: MappingFile | None) -> Curation:
    """Add what a mapping file knows of the data set to settings that do not say it."""
    if mapping is None:
        return settings
    facts = mapping.facts
    plane = facts.get("plane")
    return replace(
        settings,
        dataset=settings.dataset or facts.get("dataset"),
        modality=settings.modality or mapping.modality,
        subject_pattern=settings.subject_pattern or facts.get("subject"),
        spacing_yx_mm=settings.spacing_yx_mm or mapping.spacing_yx_mm,
        licence=settings.licence or facts.get("licence"),
        citation=settings.citation or facts.get("citation"),
        plane=settings.plane or (None if plane is None else pick(PLANE_CHOICES, plane, "plane")),
        object_name=settings.object_name or facts.get("object"),
    )


def plan_of(
    folder: Path,
    listing: Listing,
    settings: Curation,
    mapping: MappingFile | None,
    processes: Processes,
) -> Plan:
    """Make the settings definite: the table of labels, and what nameless masks show.

    `settings` have the facts of the mapping file already.
    """
    names = _names(settings, listing)
    modality = (settings.modality or "").strip() or None
    bare = next((image.source for image in listing.images if image.modality is None), None)
    if modality is None and bare is not None:
        of = f" of {names.source(bare)}" if mapping is not None and mapping.modalities else ""
        raise DataError(f"The modality{of} is not known. Say it, for example by --modality CT.")
    subject = _pattern(settings.subject_pattern, "subject", listing, names.hashes)
    _check(settings)
    dataset = printable(settings.dataset or _folder_name(folder, names)).replace("#", "_")
    found = find_table(folder, settings.labels)
    only = next(iter(found.table)) if found.table is not None and len(found.table) == 1 else None
    binary, soft_edges = False, False
    if found.table is None and not settings.instances:
        binary, soft_edges = nameless(folder, listing.images, settings.threshold, processes)
    naming = Naming(
        nameless=printable(settings.object_name or only or dataset),
        table=found.table,
        instances=settings.instances,
        binary=binary,
        threshold=settings.threshold,
        soft_edges=soft_edges,
    )
    reading = Reading(
        folder=folder,
        dataset=dataset,
        naming=naming,
        plane=settings.plane,
        spacing_yx_mm=settings.spacing_yx_mm,
        keep_empty=settings.keep_empty,
        intensity=settings.intensity,
        names=names,
        every=settings.every,
        first_frame=settings.first_frame,
    )
    rules = {
        **_rules(settings, listing, naming, found, names),
        **_mapped_rules(mapping, names),
        "names": _meaning_of_names(names),
    }
    return Plan(
        settings=settings,
        modality=modality,
        reading=reading,
        subject=subject,
        split=_pattern(settings.split_pattern, "split", listing, names.hashes),
        rules=rules,
        left_out=(*listing.left_out, *found.left_out),
        guessed_name=_guessed_name(listing, settings, found, dataset),
    )


def _check(settings: Curation) -> None:
    """Refuse settings that nothing could come of."""
    if settings.every < 1:
        raise DataError(f"--every {settings.every} takes no frame. Say 1 for all of them.")
    if settings.first_frame not in (None, 0, 1):
        raise DataError(f"--first-frame is 0 or 1, not {settings.first_frame}.")
    if settings.split is not None:
        parse_shares(settings.split)


def _names(settings: Curation, listing: Listing) -> Names:
    """Settle what files are called; a key is read only where something is hashed.

    Names of DICOM files, and what their headers call a patient, are clinical: files are hashed if
    nothing else is said, patients in any case.
    """
    hashes = settings.names == "hash" or (settings.names is None and is_clinical(listing))
    if not (hashes or is_clinical(listing)):
        return Names()
    if settings.key is None:
        raise DataError("Names are hashed under a key. Say in which file it is, or is to be made.")
    return Names(hashes, read_key(settings.key))


def is_clinical(listing: Listing) -> bool:
    """Whether DICOM is among the images: names of its files, and patients, are clinical."""
    return any(image.series is not None for image in listing.images)


def _meaning_of_names(names: Names) -> str:
    if names.hashes:
        return f"hashed under the key {names.key_id}"
    patients = "" if names.key is None else f"; patients hashed under the key {names.key_id}"
    return f"as the files are called{patients}"


def _folder_name(folder: Path, names: Names) -> str:
    name = folder.resolve().name
    return f"data-{names.source(name)}" if names.hashes else name


def _guessed_name(listing: Listing, settings: Curation, found: Found, dataset: str) -> str | None:
    """Give the data set's name where it is made that of an object, and no file says so."""
    is_told = settings.object_name is not None or len(found.table or ()) == 1
    named = {file.object for image in listing.images for file in image.masks}
    return None if is_told or dataset in named else dataset


def _pattern(
    pattern: str | None, what: str, listing: Listing, is_secret: bool
) -> re.Pattern[str] | None:
    """Compile a pattern, and see that it finds the subject, or split, of at least one image."""
    if pattern is None:
        return None
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(
            f"--{what}-pattern {pattern!r} is no regular expression: {error}."
        ) from error
    if not any(found_in(image.where, compiled, what) for image in listing.images):
        example = "" if is_secret else f", such as {listing.images[0].where!r}"
        sought = {"subject": "the patient"}.get(what, f"the {what}")
        raise DataError(
            f"--{what}-pattern {pattern!r} finds a {what} in no image's path{example}. "
            f"Change it so that it finds {sought} there."
        )
    return compiled


def _rules(
    settings: Curation, listing: Listing, naming: Naming, found: Found, names: Names
) -> dict[str, str]:
    """Put into words how the corpus comes about."""
    threshold = settings.threshold
    rules = {
        "masks": _where_masks_are(listing),
        "labels": _table(found, names),
        "label_values": _meaning_of_values(naming),
        "nameless_object": naming.nameless,
        "min_area": f"labels of at most {settings.min_area_px} pixels are dropped",
        "keep_empty": str(settings.keep_empty).lower(),
        "threshold": "none" if threshold is None else f"value > {threshold:g}",
        "jpeg_masks": f"value > {127 if threshold is None else threshold:g}",
        "soft_edges": _meaning_of_greys(naming),
        "every": f"frames 0, {settings.every}, {2 * settings.every}, ... of stacks and videos",
        "first_frame": _meaning_of_numbers(settings.first_frame),
        "intensity": _intensity(settings.intensity),
        "orientation": "pictures as stored (no EXIF); slices in radiological view of RAS+",
        "plane": settings.plane or "across the axis of the largest spacing, else axial",
        "subject": settings.subject_pattern or _whose(listing),
    }
    if settings.tile_px is not None:
        rules["tiles"] = f"images of more than {settings.tile_px} pixels a side, without overlap"
    if settings.spacing_yx_mm is not None:
        y, x = settings.spacing_yx_mm
        rules["spacing_yx_mm"] = f"{y:g}, {x:g} where the file does not say"
    return rules


def _table(found: Found, names: Names) -> str:
    """Name the table of labels: its own name may tell a person's, but for those that we know."""
    if found.path is None:
        return "no table of labels"
    is_known = found.path.name in KNOWN_NAMES
    return printable(found.path.name) if is_known else names.source(printable(found.path.name))


def _mapped_rules(mapping: MappingFile | None, names: Names) -> dict[str, str]:
    """Put a mapping file into words; its patterns are made of names."""
    if mapping is None:
        return {}
    rules = {"mapping": names.source(printable(mapping.name))}
    kinds = [masks.kind for masks in mapping.masks]
    if names.hashes:
        kinds = [replace(kind, path=f"pattern {n}") for n, kind in enumerate(kinds, 1)]
    if mapping.images and not names.hashes:
        rules["images"] = ", ".join(pattern.text for pattern in mapping.images)
    if kinds:
        rules["masks"] = "; ".join(kind.in_words() for kind in kinds)
    if mapping.ignore and not names.hashes:
        rules["ignored"] = ", ".join(pattern.text for pattern in mapping.ignore)
    return rules


def _intensity(rule: Intensity | None) -> str:
    if rule is None:
        return "8 bits as stored; 16-bit grey kept; else min-max over image or volume"
    kept = "; 8-bit pictures as stored" if rule.spares_8_bits else ""
    return f"{rule.in_words}{kept}; 16-bit grey pictures kept with both ends"


def _whose(listing: Listing) -> str:
    header = "what a DICOM header calls the patient, else " if is_clinical(listing) else ""
    return f"{header}one per volume; unknown for pictures"


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


def _meaning_of_greys(naming: Naming) -> str:
    which = "masks" if naming.soft_edges else "masks whose name is that of one object"
    return f"{which} of 0, 255 and greys on thin edges only: value > {HALF}"


def _meaning_of_numbers(first_frame: int | None) -> str:
    found = "0 for stacks of which a mask has that number, else 1"
    return f"number of the first frame's mask: {found if first_frame is None else first_frame}"


def found_in(source: str, pattern: re.Pattern[str], name: str) -> str | None:
    """Find something in a path: the group of that name, else the first, else all that matches."""
    match = pattern.search(source)
    group = name if name in pattern.groupindex else min(1, pattern.groups)
    return match[group] if match else None
