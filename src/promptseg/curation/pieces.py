"""From one file of images to what is kept of it and what is dropped."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from promptseg.curation.plan import Plan, found_in
from promptseg.errors import DataError
from promptseg.likeness import Look, look_of
from promptseg.parquet import facts_of
from promptseg.pixels import encode_image
from promptseg.reader.dicom.patient import PLACEHOLDER
from promptseg.reader.folder import ImageFile
from promptseg.reader.frame import Frame, targets_in
from promptseg.reader.frames import read_frames
from promptseg.reader.tile import tiles
from promptseg.rows import DropRow, ImageRow, TargetRow, target_row

NO_TARGET = "no target is left in it"


@dataclass(frozen=True, slots=True)
class Kept:
    """An image that comes into the corpus: its facts, its PNG and its masks."""

    row: ImageRow
    content: bytes
    targets: list[TargetRow]
    look: Look
    regridded: frozenset[str] = frozenset()  # the mask files that came from another grid
    notes: tuple[str, ...] = ()  # what the reader of the corpus should know of it


def pieces(image: ImageFile, plan: Plan) -> Iterator[Kept | DropRow]:
    """Turn one file of images into what is kept of it and what is dropped."""
    names = plan.reading.names
    try:
        for frame in read_frames(image, plan.reading):
            if isinstance(frame, DropRow):
                yield replace(frame, source=names.source(frame.source))
                continue
            for tile in tiles(frame, plan.settings.tile_px):
                for piece in _checked(tile, image, plan):
                    if isinstance(piece, DropRow):
                        piece = replace(piece, source=names.source(piece.source))
                    yield piece
    except DataError as error:
        yield lost(image, plan, str(error))


def lost(image: ImageFile, plan: Plan, reason: str) -> DropRow:
    """Leave out a file of images, or what is left of it."""
    source = plan.reading.names.source(image.source)
    return DropRow(source=source, image_id=plan.reading.image_id(image), reason=reason)


def size_of(piece: Kept | DropRow) -> int:
    """Tell about how many bytes a piece takes."""
    if isinstance(piece, DropRow):
        return 200
    return len(piece.content) + sum(200 + len(target.mask["counts"]) for target in piece.targets)


def _checked(frame: Frame, image: ImageFile, plan: Plan) -> Iterator[Kept | DropRow]:
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
        look = look_of(frame.image_id, frame.picture.pixels)
        row = _image_row(frame, image, plan, content)
        names = plan.reading.names
        moved = frozenset(names.source(item.source) for item in frame.labels if item.regridded)
        is_header = row.subject_source == "header"
        notes = tuple(note for note in frame.notes if is_header or note != PLACEHOLDER)
        yield Kept(row, content, list(kept.values()), look, moved, notes)
    else:
        yield DropRow(source=frame.source, image_id=frame.image_id, reason=NO_TARGET)


def _image_row(frame: Frame, image: ImageFile, plan: Plan, content: bytes) -> ImageRow:
    height, width = frame.picture.pixels.shape[:2]
    y_mm, x_mm = frame.spacing_yx_mm or (None, None)
    subject, subject_source = _subject(frame, image, plan)
    return ImageRow(
        image_id=frame.image_id,
        dataset=plan.reading.dataset,
        subject=subject,
        subject_source=subject_source,
        modality=plan.modality or image.modality or "",
        dicom_modality=frame.dicom_modality,
        width=width,
        height=height,
        spacing_y_mm=y_mm,
        spacing_x_mm=x_mm,
        split=None if plan.split is None else found_in(image.where, plan.split, "split"),
        intensity_rule=frame.picture.rule,
        intensity_lo=frame.picture.lo,
        intensity_hi=frame.picture.hi,
        source=plan.reading.names.source(frame.source),
        licence=plan.settings.licence,
        sha256=hashlib.sha256(content).hexdigest(),
        **(facts_of(frame.place) if frame.place else {}),
        **(facts_of(frame.tile) if frame.tile else {}),
    )


def _subject(frame: Frame, image: ImageFile, plan: Plan) -> tuple[str | None, str]:
    """Find the subject in the source's path, or in its header.

    The slices of a volume share one in any case.
    """
    names = plan.reading.names
    if plan.subject is not None:
        subject = found_in(image.where, plan.subject, "subject")
        return (names.subject(subject), "pattern") if subject else (None, "unknown")
    if image.subject is not None:
        return names.subject(image.subject), "pattern"
    if frame.patient is not None:
        return names.patient(frame.patient), "header"
    return (frame.place.volume_id, "file") if frame.place else (None, "unknown")
