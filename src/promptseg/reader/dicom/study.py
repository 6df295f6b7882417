"""All DICOM files of a folder: their series, and the masks that refer to them."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from promptseg.errors import DataError
from promptseg.reader.dicom.facts import MaskFacts, NoMaskError, read_facts
from promptseg.reader.dicom.model import DicomMask, Series
from promptseg.reader.dicom.series import joined

LOST = "the series that it refers to is not here"


@dataclass(frozen=True, slots=True)
class Study:
    """Series with their masks of DICOM; `left_out` are (path, reason)."""

    series: tuple[tuple[Series, tuple[DicomMask, ...]], ...]
    left_out: tuple[tuple[str, str], ...]
    unread: frozenset[str]  # paths of files that are damaged: they may be masks


def read_study(folder: Path, sources: Iterable[str]) -> Study:
    """Read the headers of DICOM files, and sort them into series."""
    images, masks = [], list[tuple[str, MaskFacts]]()
    left_out: list[tuple[str, str]] = []
    unread: set[str] = set()
    for source in sources:
        try:
            facts = read_facts(folder, source)
        except DataError as error:
            left_out.append((source, str(error)))
            if not isinstance(error, NoMaskError):
                unread.add(source)
            continue
        if isinstance(facts, MaskFacts):
            masks.append((source, facts))
        else:
            images.append(facts)
    series, dropped = joined(images)
    of_series: dict[int, list[DicomMask]] = defaultdict(list)
    for source, facts in masks:
        found = _series_of(facts, series)
        if not found:
            left_out.append((source, LOST))
        for index in found:
            of_series[index].append(DicomMask(source, facts.form, is_shared=len(found) > 1))
    pairs = tuple((one, tuple(of_series[index])) for index, one in enumerate(series))
    return Study(pairs, tuple(sorted([*left_out, *dropped])), frozenset(unread))


def _series_of(facts: MaskFacts, series: list[Series]) -> list[int]:
    """Find what a mask refers to: by images, else by series, else by the frame of reference."""
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
