"""All DICOM files of a folder: their series, and the masks that refer to them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from promptseg.errors import DataError
from promptseg.isolated import Lost, Processes
from promptseg.reader.dicom.facts import ImageFacts, MaskFacts, NoMaskError, read_facts
from promptseg.reader.dicom.model import DicomMask, Series
from promptseg.reader.dicom.series import joined

NO_MASK = "a DICOM picture is not read as a mask; expected are SEG and RTSTRUCT"
LOST = "the series that it refers to is not here"


@dataclass(frozen=True, slots=True)
class Study:
    """Series with their masks of DICOM; `left_out` are (path, reason)."""

    series: tuple[tuple[Series, tuple[DicomMask, ...]], ...]
    left_out: tuple[tuple[str, str], ...]
    unread: frozenset[str]  # paths of files that are damaged: they may be masks


@dataclass(frozen=True, slots=True)
class _Unread:
    """Why a header is of no use."""

    reason: str
    may_be_mask: bool


def read_study(
    folder: Path,
    sources: Sequence[str],
    mask_folder: str | None = None,
    processes: Processes | None = None,
) -> Study:
    """Read the headers of DICOM files, and sort them into series.

    Pictures in the folder of masks are left out: they are no images to segment.
    """
    images, masks = [], list[tuple[str, MaskFacts]]()
    left_out: list[tuple[str, str]] = []
    unread: set[str] = set()
    read = (processes or Processes()).one_each(partial(_read, folder=folder), sources, _size)
    for number, facts in sorted(read, key=lambda pair: pair[0]):
        source = sources[number]
        if isinstance(facts, Lost | _Unread):
            left_out.append((source, facts.reason))
            if isinstance(facts, Lost) or facts.may_be_mask:
                unread.add(source)
        elif isinstance(facts, MaskFacts):
            masks.append((source, facts))
        elif mask_folder is not None and source.startswith(f"{mask_folder}/"):
            left_out.append((source, NO_MASK))
        else:
            images.append(facts)
    series, dropped = joined(images)
    of_series, lost = _of_series(masks, series)
    pairs = tuple((one, tuple(of_series[index])) for index, one in enumerate(series))
    return Study(pairs, tuple(sorted([*left_out, *dropped, *lost])), frozenset(unread))


def _read(source: str, folder: Path) -> ImageFacts | MaskFacts | _Unread:
    try:
        return read_facts(folder, source)
    except DataError as error:
        return _Unread(str(error), not isinstance(error, NoMaskError))


def _size(facts: ImageFacts | MaskFacts | _Unread) -> int:
    """Tell about how many bytes a result takes."""
    if isinstance(facts, ImageFacts):
        return 1000 * len(facts.slices)
    return 200 + (100 * len(facts.sop_uids) if isinstance(facts, MaskFacts) else 0)


def _of_series(
    masks: Iterable[tuple[str, MaskFacts]], series: list[Series]
) -> tuple[dict[int, list[DicomMask]], list[tuple[str, str]]]:
    """Give the masks of each series, and those whose series is not here."""
    of_series: dict[int, list[DicomMask]] = defaultdict(list)
    lost = []
    for source, facts in masks:
        found = _series_of(facts, series)
        if not found:
            lost.append((source, LOST))
        for index in found:
            of_series[index].append(DicomMask(source, facts.form, is_shared=len(found) > 1))
    return of_series, lost


def _series_of(facts: MaskFacts, series: list[Series]) -> list[int]:
    """Find what a mask refers to; of several patients under the same UIDs, its own."""
    found = _referred(facts, series)
    own = [index for index in found if series[index].patient == facts.patient]
    return own or found


def _referred(facts: MaskFacts, series: list[Series]) -> list[int]:
    """Go by images, else by series, else by the frame of reference."""
    by_image = [
        index
        for index, one in enumerate(series)
        if facts.sop_uids & {item.sop_uid for item in one.slices}
    ]
    if by_image:
        return by_image
    by_series = [index for index, one in enumerate(series) if one.uid in facts.series_uids]
    if by_series or facts.series_uids or facts.frame_of_reference is None:
        return by_series
    in_space = [
        index
        for index, one in enumerate(series)
        if one.frame_of_reference == facts.frame_of_reference and one.affine is not None
    ]
    return in_space if len(in_space) == 1 else []
