"""Raw data to a corpus: a folder of images and masks is paired, named, checked and written.

Nothing is left out silently: every image and label that does not come into the corpus is a drop
with its reason.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from promptseg.corpus import CorpusInfo, CorpusWriter
from promptseg.croissant import write_croissant
from promptseg.errors import DataError
from promptseg.pixels import encode_image
from promptseg.reader.folder import ImageFile, Listing, printable, scan
from promptseg.reader.frame import (
    NO_MASK,
    Frame,
    PlaneChoice,
    Reading,
    read_frames,
    read_raw,
    targets_in,
)
from promptseg.reader.labels import Naming, as_labels, values_in
from promptseg.reader.table import Found, Table, find_table
from promptseg.rows import DropRow, ImageRow, TargetRow, target_row

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
    """How far a curation is: `done` of `total` files of images; the last has all drops."""

    done: int
    total: int
    source: str
    drops: Mapping[str, int] = field(default_factory=dict)  # reason, with N for numbers -> so far


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
    left_out: tuple[tuple[str, str], ...]  # (source, reason)
    guessed_name: str | None  # of an object, when nothing says what nameless masks show


@dataclass(slots=True)
class _Tally:
    """What came into a corpus and what did not, counted on the way."""

    drops: Counter[str] = field(default_factory=Counter)  # by reason, with N for numbers
    sources: Counter[str] = field(default_factory=Counter)  # images by what tells their subject
    subjects: set[str] = field(default_factory=set)
    volumes: set[str] = field(default_factory=set)
    objects: set[str] = field(default_factory=set)

    def keep(self, kept: _Kept) -> None:
        """Count an image that was written."""
        self.sources[kept.row.subject_source] += 1
        self.subjects.update(filter(None, [kept.row.subject]))
        self.volumes.update(filter(None, [kept.row.volume_id]))
        self.objects.update(target.object for target in kept.targets)

    def drop(self, reason: str) -> None:
        """Count what was left out; reasons that differ by numbers only are one."""
        self.drops[re.sub(r"\d+", "N", reason)] += 1


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
    tally = _Tally()
    _store((DropRow(source=source, reason=why) for source, why in plan.left_out), writer, tally)
    for done, image in enumerate(listing.images, start=1):
        _store(_pieces(image, plan), writer, tally)
        yield Progress(done, len(listing.images), image.source, dict(tally.drops))
    if not writer.n_images:
        raise _nothing_usable(folder, tally.drops)
    about = {"name": plan.reading.dataset, "licence": settings.licence, "citation": None}
    rules = {**plan.rules, "subjects": _subjects(tally, settings), **_hint(tally, plan)}
    info = writer.finish(name=plan.reading.dataset, datasets=[about], rules=rules)
    write_croissant(out, info)
    return info


def _store(pieces: Iterable[_Kept | DropRow], writer: CorpusWriter, tally: _Tally) -> None:
    for piece in pieces:
        if isinstance(piece, _Kept):
            try:
                writer.add(piece.row, piece.content, piece.targets)
                tally.keep(piece)
                continue
            except ValueError as error:  # its image_id is taken
                row = piece.row
                piece = DropRow(source=row.source, image_id=row.image_id, reason=str(error))
        tally.drop(piece.reason)
        writer.drop(piece)


def _nothing_usable(folder: Path, drops: Counter[str]) -> DataError:
    """Say the most common reasons, without what follows from the others."""
    causes = Counter({why: n for why, n in drops.items() if why not in (_NO_TARGET, NO_MASK)})
    listed = (causes or drops).most_common(3)
    counted = "; ".join(f"{reason} ({n} times)" for reason, n in listed)
    return DataError(f"{folder} holds no usable image; no corpus was written. Reasons: {counted}.")


def _subjects(tally: _Tally, settings: Curation) -> str:
    """Say how many subjects there are, as far as is known."""
    n_unknown = tally.sources["unknown"]
    if settings.subject_pattern is not None:
        without = f", {_counted(n_unknown, 'image')} without" if n_unknown else ""
        return f"{len(tally.subjects)} by pattern{without}"
    if not tally.volumes:
        return "unknown"
    slices, volumes = _counted(tally.sources["file"], "slice"), len(tally.volumes)
    others = f"; unknown for {_counted(n_unknown, 'image')}" if n_unknown else ""
    return (
        f"{slices} of {_counted(volumes, 'volume')}: one subject per volume "
        f"(pass --subject-pattern if volumes share patients){others}"
    )


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _hint(tally: _Tally, plan: _Plan) -> dict[str, str]:
    """Tell the user which names of objects had to be guessed; empty when none had."""
    hints = []
    if plan.guessed_name in tally.objects:
        hints.append("No name was given for what the masks show; --object NAME sets it.")
    if plan.reading.naming.table is None and any(
        re.fullmatch(r"label \d+", name) for name in tally.objects
    ):
        hints.append(
            "Values of masks were named label N; --labels FILE.json names them, "
            "--instances says that they number instances."
        )
    return {"hint": " ".join(hints)} if hints else {}


def _plan(folder: Path, listing: Listing, settings: Curation) -> _Plan:
    """Make the settings definite: the table of labels, and what nameless masks show."""
    modality = (settings.modality or "").strip()
    if not modality:
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
    return _Plan(
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
        if file.is_one_object:
            continue
        try:
            seen.update(values_in(as_labels(read_raw(folder / file.source), naming)))
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
    if not any(_subject_in(image.source, compiled) for image in listing.images):
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
    for source, target in targets_in(frame):
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
    subject = _subject_in(frame.source, pattern)
    return (subject, "pattern") if subject else (None, "unknown")


def _subject_in(source: str, pattern: re.Pattern[str]) -> str | None:
    match = pattern.search(source)
    group = "subject" if "subject" in pattern.groupindex else min(1, pattern.groups)
    return match[group] if match else None
