"""DICOM series as images of a folder, with their masks of any format.

Whatever a file, a folder or a header is called, outputs name series by `pseudonym`.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from promptseg.isolated import Processes
from promptseg.reader.dicom import code
from promptseg.reader.dicom.model import DicomMask, Series
from promptseg.reader.dicom.name import file_name, pseudonym
from promptseg.reader.dicom.series import without_marks
from promptseg.reader.dicom.study import read_study
from promptseg.reader.folder import (
    NO_IMAGE,
    ImageFile,
    Listing,
    MaskFile,
    image_key,
    is_volume,
    mask_files,
    pair,
)
from promptseg.reader.mask_name import ReadName


def with_series(
    folder: Path,
    sources: Sequence[str],
    rest: Listing,
    read_name: ReadName,
    processes: Processes,
) -> Listing:
    """Add the DICOM files of a folder to what else it holds.

    Parameters
    ----------
    sources
        The DICOM files.
    rest
        The images and masks of other formats, and what was left out, the DICOM files too.
    read_name
        From the name of a mask file to its object.
    """
    study = read_study(folder, sources, rest.mask_folder, processes)
    orphans = [source for source, why in rest.left_out if why == NO_IMAGE]
    others = _by_name([series for series, _ in study.series], orphans)
    parts = defaultdict[str, int](int)
    totals = defaultdict[str, int](int)
    for series, _ in study.series:
        totals[series.uid] += 1
    images = []
    for index, (series, masks) in enumerate(study.series):
        parts[series.uid] += 1
        part = f"-{parts[series.uid]}" if totals[series.uid] > 1 else ""
        key = f"series-{pseudonym(series.uid)}{part}"
        images.append(
            ImageFile(
                source=key,
                key=key,
                masks=(*map(_dicom_mask, masks), *_named(key, others.get(index, []), read_name)),
                lost_mask=bool(study.unread),
                modality=code.WORD_OF_MODALITY.get(series.kind.modality or ""),
                series=without_marks(series),
            )
        )
    taken = {*sources, *(source for found in others.values() for source in found)}
    left_out = [(source, why) for source, why in rest.left_out if source not in taken]
    named = sorted((file_name(source), why) for source, why in (*left_out, *study.left_out))
    return replace(rest, images=(*rest.images, *images), left_out=tuple(named))


def _dicom_mask(mask: DicomMask) -> MaskFile:
    return MaskFile(file_name(mask.path), path=mask.path, dicom=mask)


def _named(key: str, sources: Collection[str], read_name: ReadName) -> list[MaskFile]:
    """Read the objects in the names of a series' masks of other formats."""
    as_if = {f"masks/{key}_{_last(source)}": source for source in sources}
    return [
        replace(file, source=file_name(as_if[file.source]), path=as_if[file.source])
        for file in mask_files(key, as_if, read_name)
    ]


def _last(source: str) -> str:
    """Give what of a path can name an object: the file's name, with its suffix."""
    return source.rpartition("/")[2]


def _by_name(series: Sequence[Series], masks: Sequence[str]) -> dict[int, list[str]]:
    """Find masks of other formats: by the name of a series' folder or file; of a lone one, all."""
    if len(series) == 1:
        return {0: [source for source in masks if _can_lie_on(source, series[0])]}
    named: dict[str, list[int]] = defaultdict(list)
    for index, one in enumerate(series):
        for name in _names(one):
            named[name].append(index)
    unique = {name: indices[0] for name, indices in named.items() if len(indices) == 1}
    found, _ = pair(masks, unique)
    of_series: dict[int, list[str]] = defaultdict(list)
    for name, sources in found.items():
        of_series[unique[name]] += sources
    return of_series


def _can_lie_on(source: str, series: Series) -> bool:
    return is_volume(source) is (series.affine is not None)


def _names(series: Series) -> set[str]:
    """List the names that a mask can share with a series: of its only file, of its folders."""
    paths = {one.path for one in series.slices}
    folders = {path.rpartition("/")[0] for path in paths}
    names = {image_key(path) for path in paths} if len(paths) == 1 else set()
    while len(folders) == 1 and (folder := folders.pop()).count("/"):
        names.add(folder.partition("/")[2])
        folders = {folder.rpartition("/")[0]}
    return names
