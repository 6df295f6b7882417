"""Raw data to a corpus: a folder of images and masks is paired, named, checked and written.

Nothing is left out silently: every image and label that does not come into the corpus is a drop
with its reason.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from promptseg.corpus import (
    CorpusInfo,
    CorpusWriter,
    DropRow,
    ImageRow,
    TargetRow,
    encode_image,
    target_row,
)
from promptseg.croissant import write_croissant
from promptseg.errors import DataError
from promptseg.reader.folder import ImageFile, Listing, scan
from promptseg.reader.frame import Frame, PlaneChoice, Reading, read_frames, read_raw
from promptseg.reader.labels import Entry, Naming, Table, as_labels, find_table, values_in
from promptseg.sample import Target

_NO_TARGET = "no target is left in it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Curation:
    """The settings of one curation. None means: not known, or found by the stated rule."""

    dataset: str | None = None  # else the folder's name
    modality: str | None = None  # required
    subject_pattern: str | None = None  # regex; group `subject`, else group 1, else all of it
    spacing_yx_mm: tuple[float, float] | None = None  # where the file does not say
    labels: Path | None = None  # table of labels; else the only one in the folder
    licence: str | None = None
    keep_empty: bool = False  # keep images without a target
    min_area_px: int = 50  # labels of at most this many pixels are dropped
    plane: PlaneChoice | None = None  # else that of the finest pixels
    object_name: str | None = None  # what a mask shows that says nothing itself
    instances: bool = False  # values of masks are instance numbers of one object
    threshold: float | None = None  # makes masks of probabilities and soft edges: value > threshold


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a curation is: `done` of `total` files of images."""

    done: int
    total: int
    source: str


@dataclass(frozen=True, slots=True)
class _Kept:
    row: ImageRow
    content: bytes
    targets: list[TargetRow]


@dataclass(frozen=True, slots=True)
class _Plan:
    """Settings made definite for one folder."""

    settings: Curation
    modality: str
    reading: Reading
    subject: re.Pattern[str] | None
    rules: dict[str, str]


def curate(folder: Path, out: Path, settings: Curation) -> Generator[Progress, None, CorpusInfo]:
    """Write a folder of images and masks as a corpus, yielding after each file of images.

    Two runs on the same files give the same corpus. The generator's return value is also what
    `open_corpus(out).info` gives.

    Raises
    ------
    DataError
        The folder or a setting is not usable, or no image is; then there is no `corpus.json`.
    """
    listing = scan(folder, one_object=settings.instances and settings.object_name is not None)
    writer = CorpusWriter(out)
    plan = _plan(folder, listing, settings)
    reasons: Counter[str] = Counter()
    _store(
        (DropRow(source=source, reason=why) for source, why in listing.left_out), writer, reasons
    )
    for done, image in enumerate(listing.images, start=1):
        _store(_pieces(image, plan), writer, reasons)
        yield Progress(done, len(listing.images), image.source)
    if not writer.n_images:
        raise _nothing_usable(folder, reasons)
    about = {"name": plan.reading.dataset, "licence": settings.licence, "citation": None}
    info = writer.finish(name=plan.reading.dataset, datasets=[about], rules=plan.rules)
    write_croissant(out, info)
    return info


def _store(pieces: Iterable[_Kept | DropRow], writer: CorpusWriter, reasons: Counter[str]) -> None:
    for piece in pieces:
        if isinstance(piece, _Kept):
            try:
                writer.add(piece.row, piece.content, piece.targets)
                continue
            except ValueError as error:  # its image_id is taken
                row = piece.row
                piece = DropRow(source=row.source, image_id=row.image_id, reason=str(error))
        reasons[piece.reason] += 1
        writer.drop(piece)


def _nothing_usable(folder: Path, reasons: Counter[str]) -> DataError:
    """Say the most common reasons, with those that differ by numbers only taken together."""
    grouped: Counter[str] = Counter()
    for reason, n in reasons.items():
        grouped[re.sub(r"\d+", "N", reason)] += n
    if len(grouped) > 1:
        del grouped[_NO_TARGET]  # what follows from the others
    counted = "; ".join(f"{reason} ({n} times)" for reason, n in grouped.most_common(3))
    return DataError(f"{folder} holds no usable image; no corpus was written. Reasons: {counted}.")


def _plan(folder: Path, listing: Listing, settings: Curation) -> _Plan:
    """Make the settings definite: the table of labels, and what nameless masks show."""
    modality = (settings.modality or "").strip()
    if not modality:
        raise DataError("The modality is not known. Say it, for example by --modality CT.")
    dataset = (settings.dataset or folder.resolve().name).replace("#", "_")
    path, table = find_table(folder, settings.labels)
    naming = _naming(folder, listing, settings, table, dataset)
    reading = Reading(
        folder=folder,
        dataset=dataset,
        naming=naming,
        plane=settings.plane,
        spacing_yx_mm=settings.spacing_yx_mm,
        keep_empty=settings.keep_empty,
    )
    rules = _rules(settings, listing, naming, path)
    return _Plan(settings, modality, reading, _subject_pattern(settings.subject_pattern), rules)


def _naming(
    folder: Path, listing: Listing, settings: Curation, table: Table | None, dataset: str
) -> Naming:
    only = next(iter(table)) if table is not None and len(table) == 1 else None
    return Naming(
        nameless=settings.object_name or only or dataset,
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
        if file.is_one_object:
            continue
        try:
            seen.update(values_in(as_labels(read_raw(folder / file.source), naming)))
        except DataError:
            continue  # reported when its image is read
        if len(seen) > 1 and not seen <= {1, 255}:
            return False
    return True


def _subject_pattern(pattern: str | None) -> re.Pattern[str] | None:
    try:
        return None if pattern is None else re.compile(pattern)
    except re.error as error:
        raise DataError(
            f"--subject-pattern {pattern!r} is no regular expression: {error}."
        ) from error


def _rules(
    settings: Curation, listing: Listing, naming: Naming, table: Path | None
) -> dict[str, str]:
    """Put into words how the corpus comes about."""
    threshold = settings.threshold
    rules = {
        "masks": f"{listing.mask_folder}/" if listing.mask_folder else "none",
        "labels": table.name if table is not None else "no table of labels",
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


def _meaning_of_values(naming: Naming) -> str:
    if naming.instances:
        return "instance numbers of one object"
    if naming.table is not None:
        return "by the table of labels"
    return "binary masks" if naming.binary else 'each value an object, named "label <value>"'


def _pieces(image: ImageFile, plan: _Plan) -> Iterator[_Kept | DropRow]:
    """Turn one file of images into what is kept of it and what is dropped."""
    try:
        for frame in read_frames(image, plan.reading):
            if isinstance(frame, DropRow):
                yield frame
            else:
                yield from _checked(frame, plan)
    except DataError as error:
        yield DropRow(source=image.source, image_id=plan.reading.image_id(image), reason=str(error))


def _checked(frame: Frame, plan: _Plan) -> Iterator[_Kept | DropRow]:
    """Apply the rules to one frame: what is too small or there already is dropped."""
    kept: dict[str, TargetRow] = {}
    for source, target in _targets(frame):
        area = int(np.count_nonzero(target.mask))
        reason = None
        if area <= plan.settings.min_area_px:
            reason = f"its area is at most {plan.settings.min_area_px} pixels"
        elif target.target_id in kept:
            reason = "another mask of this image has the same object and instance"
        if reason is None:
            kept[target.target_id] = target_row(frame.image_id, target)
        else:
            yield DropRow(
                source=source,
                image_id=frame.image_id,
                object=target.object,
                instance=target.instance,
                area_px=area,
                reason=reason,
            )
    if kept or plan.settings.keep_empty:
        content = encode_image(frame.picture.pixels)
        yield _Kept(_image_row(frame, plan, content), content, list(kept.values()))
    else:
        yield DropRow(source=frame.source, image_id=frame.image_id, reason=_NO_TARGET)


def _targets(frame: Frame) -> Iterator[tuple[str, Target]]:
    """Make a target of every object that is present in a frame; give the mask's source too."""
    for labels in frame.labels:
        present = set(values_in(labels.values))
        for entry in labels.entries:
            values = sorted(present.intersection(entry.values))
            if values:
                mask = np.isin(labels.values, values)
                target_id = f"{frame.image_id}#{_name(entry)}"
                yield labels.source, Target(target_id, entry.object, mask, entry.instance)


def _name(entry: Entry) -> str:
    name = entry.object.replace("#", "_")
    return name if entry.instance is None else f"{name}/{entry.instance}"


def _image_row(frame: Frame, plan: _Plan, content: bytes) -> ImageRow:
    height, width = frame.picture.pixels.shape[:2]
    y_mm, x_mm = frame.spacing_yx_mm or (None, None)
    subject, subject_source = _subject(frame, plan.subject)
    return ImageRow(
        image_id=frame.image_id,
        dataset=plan.reading.dataset,
        subject=subject,
        subject_source=subject_source,
        modality=plan.modality,
        width=width,
        height=height,
        spacing_y_mm=y_mm,
        spacing_x_mm=x_mm,
        intensity_rule=frame.picture.rule,
        intensity_lo=frame.picture.lo,
        intensity_hi=frame.picture.hi,
        source=frame.source,
        licence=plan.settings.licence,
        sha256=hashlib.sha256(content).hexdigest(),
        **(asdict(frame.place) if frame.place else {}),
    )


def _subject(frame: Frame, pattern: re.Pattern[str] | None) -> tuple[str | None, str]:
    """Find the subject in the source's path; the slices of a volume share one in any case."""
    if pattern is None:
        return (frame.place.volume_id, "file") if frame.place else (None, "unknown")
    match = pattern.search(frame.source)
    group = "subject" if "subject" in pattern.groupindex else min(1, pattern.groups)
    subject = match[group] if match else None
    return (subject, "pattern") if subject else (None, "unknown")
