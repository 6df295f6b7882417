"""What masks show that say nothing themselves: one object, or a label map each.

Only all of them can tell: {0, 255} is a binary mask, or a label map in which one is present, and
greys that are thin in one mask may be classes in another.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from promptseg.errors import DataError
from promptseg.isolated import Lost, Processes
from promptseg.reader.folder import ImageFile, MaskFile
from promptseg.reader.frame_labels import raw_pages
from promptseg.reader.labels import Naming, naming_of, survey
from promptseg.reader.sequence import masks_as_named

_ENOUGH = 3  # values that no binary mask has together


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one mask holds."""

    has_soft_edges: bool
    is_plain: bool
    values: tuple[int, ...]  # its smallest ones; none where it holds no labels


def nameless(
    folder: Path, images: Sequence[ImageFile], threshold: float | None, processes: Processes
) -> tuple[bool, bool]:
    """Look whether all nameless masks are binary, and whether some have smoothed edges.

    Masks that cannot be looked at do not count: they are reported when their image is read.
    """
    some = [image for image in images if any(map(_may_be_nameless, image.masks))]
    as_stored: set[int] = set()
    hardened: set[int] = set()
    are_plain, is_any_smoothed = True, False
    look = partial(_looked_at, folder=folder, naming=Naming(nameless="", threshold=threshold))
    for _, seen in processes.one_each(look, some, _size):
        for one in () if isinstance(seen, Lost) else seen:
            is_any_smoothed |= one.has_soft_edges
            are_plain &= one.has_soft_edges or one.is_plain
            as_stored.update(one.values)
            hardened.update((255,) if one.has_soft_edges else one.values)
        if not (are_plain or _is_binary(as_stored)):
            return False, False
    has_soft_edges = are_plain and is_any_smoothed
    return _is_binary(hardened if has_soft_edges else as_stored), has_soft_edges


def _looked_at(image: ImageFile, folder: Path, naming: Naming) -> list[_Seen]:
    """Look at the nameless masks of an image."""
    masks: list[_Seen] = []
    for file in masks_as_named(folder, image):
        if file.is_one_object or not _may_be_nameless(file):
            continue
        # a table in the file itself says what it shows
        untold = (raw for raw in raw_pages(folder / file.where) if raw.table is None)
        try:
            found = survey(untold, naming_of(file, naming))
        except DataError:
            continue
        try:
            values = tuple(sorted(found.rule()[1])[:_ENOUGH])
        except DataError:
            values = ()
        masks.append(_Seen(found.has_soft_edges, found.is_plain, values))
    return masks


def _may_be_nameless(file: MaskFile) -> bool:
    """Whether nothing but its name can say what a mask shows; of a frame, a name says less."""
    kind = file.kind
    is_told = kind is not None and bool(kind.labels or kind.channels or kind.instances)
    return file.dicom is None and not is_told


def _is_binary(values: set[int]) -> bool:
    """Tell one object from several: one value, or 1 and 255."""
    return len(values) <= 1 or values <= {1, 255}


def _size(masks: list[_Seen]) -> int:
    """Tell about how many bytes they take."""
    return 100 + 200 * len(masks)
