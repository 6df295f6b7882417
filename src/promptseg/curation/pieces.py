"""From one file of images to what is kept of it and what is dropped."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

from promptseg.curation.plan import Plan, subject_in
from promptseg.errors import DataError
from promptseg.pixels import encode_image
from promptseg.reader.folder import ImageFile
from promptseg.reader.frame import Frame, targets_in
from promptseg.reader.sequence import read_frames
from promptseg.rows import DropRow, ImageRow, TargetRow, target_row

NO_TARGET = "no target is left in it"


@dataclass(frozen=True, slots=True)
class Kept:
    """An image that comes into the corpus: its facts, its PNG and its masks."""

    row: ImageRow
    content: bytes
    targets: list[TargetRow]


def pieces(image: ImageFile, plan: Plan) -> Iterator[Kept | DropRow]:
    """Turn one file of images into what is kept of it and what is dropped."""
    try:
        for frame in read_frames(image, plan.reading):
            if isinstance(frame, DropRow):
                yield frame
            else:
                yield from _checked(frame, plan)
    except DataError as error:
        yield DropRow(source=image.source, image_id=plan.reading.image_id(image), reason=str(error))


def _checked(frame: Frame, plan: Plan) -> Iterator[Kept | DropRow]:
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
        yield Kept(_image_row(frame, plan, content), content, list(kept.values()))
    else:
        yield DropRow(source=frame.source, image_id=frame.image_id, reason=NO_TARGET)


def _image_row(frame: Frame, plan: Plan, content: bytes) -> ImageRow:
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
    subject = subject_in(frame.source, pattern)
    return (subject, "pattern") if subject else (None, "unknown")
