"""Raw data to a corpus: a folder of images and masks is paired, named, checked and written.

Nothing is left out silently: every image and label that does not come into the corpus is a drop
with its reason.
"""

import csv
import io
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from promptseg.corpus import CorpusInfo
from promptseg.croissant import write_croissant
from promptseg.curation.journal import identity
from promptseg.curation.pieces import NO_TARGET, lost, pieces, size_of
from promptseg.curation.plan import Plan, is_clinical, plan_of, with_facts
from promptseg.curation.settings import Curation
from promptseg.curation.shelf import Shelf
from promptseg.curation.splits import split
from promptseg.curation.tally import hint, moved_in_words, notes_in_words, subjects_in_words
from promptseg.errors import DataError
from promptseg.isolated import Limits, Lost, Processes
from promptseg.parquet import write_atomically
from promptseg.reader.companion import companions
from promptseg.reader.folder import Listing, scan
from promptseg.reader.frame_labels import NO_MASK
from promptseg.reader.mapped import scan_by
from promptseg.reader.mapping import MappingFile, read_mapping
from promptseg.rows import DropRow
from promptseg.store import is_url

__all__ = ["Curation", "Progress", "curate"]
_SOURCE = "SOURCE"  # the folder in errors, where its name may tell a person's


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a curation is: `done` of `total` files of images; the last has all drops."""

    done: int
    total: int
    source: str
    drops: Mapping[str, int] = field(default_factory=dict)  # reason, with N for numbers -> so far


def curate(
    folder: Path,
    out: Path | str,
    settings: Curation,
    *,
    workers: int = 0,
    limits: Limits | None = None,
    names_out: Path | None = None,
) -> Generator[Progress, None, CorpusInfo]:
    """Write a folder of images and masks as a corpus, yielding after each file of images.

    Two runs on the same files give the same corpus, whatever the number of workers. An
    interrupted curation goes on where its last part was written, if it is begun again with the
    same files and settings. The generator's return value is also what `open_corpus(out).info`
    gives.

    Parameters
    ----------
    out
        A new or empty folder, or a URL of any file system that fsspec knows.
    workers
        Processes that read. A file that makes one crash, hang, or take more memory than `limits`
        allow is left out with that reason. With 0 this process reads, without that protection.
    names_out
        A CSV file to write outside of the corpus: image, file.

    Raises
    ------
    DataError
        The folder, the mapping file or a setting is not usable, or no image is; then there is no
        `corpus.json`.
    """
    processes = Processes(workers, limits or Limits())
    if any(path is not None and _is_inside(path, out) for path in (settings.key, names_out)):
        raise DataError("The key of names, and names, belong outside of the corpus.")
    listing, plan = _planned(folder, settings, processes)
    settings = plan.settings
    if names_out is not None:
        write_atomically(names_out, _table_of_names(listing, plan))
    shelf = Shelf.opened(out, _identity(folder, listing, plan))
    yield from _fill(shelf, listing, plan, processes)
    shelf.fill_up()
    if not shelf.writer.n_images:
        is_secret = plan.reading.names.hashes or not listing.images  # damaged DICOM, maybe
        where = _SOURCE if is_secret else str(folder)
        raise _nothing_usable(where, shelf.tally.drops)
    about = {
        "name": plan.reading.dataset,
        "licence": settings.licence,
        "citation": settings.citation,
    }
    tally = shelf.tally
    rules = {
        **plan.rules,
        "subjects": subjects_in_words(tally, settings),
        **moved_in_words(tally),
        **notes_in_words(tally),
        **split(shelf.writer, settings),
        **hint(tally, plan),
    }
    info = shelf.writer.finish(name=plan.reading.dataset, datasets=[about], rules=rules)
    write_croissant(shelf.writer.store, info)
    shelf.close()
    return info


def _planned(folder: Path, settings: Curation, processes: Processes) -> tuple[Listing, Plan]:
    """List a folder and make the settings definite; errors tell no names that are to be hashed."""
    is_secret = settings.names == "hash"
    try:
        mapping = None if settings.mapping is None else read_mapping(settings.mapping)
        settings = with_facts(settings, mapping)
        listing = listed(folder, settings, mapping, processes)
        is_secret |= settings.names is None and is_clinical(listing)
        return listing, plan_of(folder, listing, settings, mapping, processes)
    except DataError as error:
        if not is_secret:
            raise
        raise DataError(error.unnamed.replace(str(folder), _SOURCE)) from None


def listed(
    folder: Path, settings: Curation, mapping: MappingFile | None, processes: Processes
) -> Listing:
    """List the images of a folder with their masks; raises DataError."""
    if mapping is not None and mapping.has_patterns():
        return scan_by(folder, mapping)
    one_object = settings.instances and settings.object_name is not None
    listing = scan(folder, one_object=one_object, processes=processes)
    if mapping is None or not mapping.modalities:
        return listing
    images = (replace(i, modality=mapping.modality_of(i.source)) for i in listing.images)
    return replace(listing, images=tuple(images))


def _fill(shelf: Shelf, listing: Listing, plan: Plan, processes: Processes) -> Iterator[Progress]:
    """Read what is not on the shelf yet, and put it there."""
    names = plan.reading.names
    if shelf.mark.n_parts == 0:
        for source, why in plan.left_out:
            shelf.put(DropRow(source=names.source(source), reason=why))
    begun, left = shelf.mark.n_files, listing.images[shelf.mark.n_files :]
    for number, piece in processes.in_order(partial(pieces, plan=plan), left, size_of):
        image = listing.images[begun + number]
        if isinstance(piece, Lost):
            shelf.put(lost(image, plan, piece.reason))
        elif piece is not None:
            shelf.put(piece)
        else:
            shelf.turn()
            done = begun + number + 1
            source = names.source(image.source)
            yield Progress(done, len(listing.images), source, dict(shelf.tally.drops))


def _is_inside(key: Path, out: Path | str) -> bool:
    return not is_url(out) and key.resolve().is_relative_to(Path(out).resolve())


def _table_of_names(listing: Listing, plan: Plan) -> bytes:
    sink = io.StringIO()
    table = csv.writer(sink)
    table.writerow(["image", "file"])
    for image in listing.images:
        others = len(image.paths) - 1
        more = f" and {others} more of its series" if others else ""
        table.writerow([plan.reading.image_id(image), f"{image.where}{more}"])
    return sink.getvalue().encode("utf-8", "surrogateescape")


def _identity(folder: Path, listing: Listing, plan: Plan) -> str:
    files = [file for i in listing.images for file in (*i.paths, *(m.where for m in i.masks))]
    files += sorted(companions(folder, files))
    pieces_hang_on = replace(plan.settings, split=None, split_seed=0, allow_leaks=())
    reading = plan.reading
    facts = (pieces_hang_on, plan.rules, listing, reading.names.key_id, reading.naming)
    told = "\n".join(map(repr, facts))
    return identity(folder, files, told)


def _nothing_usable(folder: str, drops: Counter[str]) -> DataError:
    """Say the most common reasons, without what follows from the others."""
    causes = Counter({why: n for why, n in drops.items() if why not in (NO_TARGET, NO_MASK)})
    listed = (causes or drops).most_common(3)
    counted = "; ".join(f"{reason} ({n} times)" for reason, n in listed)
    return DataError(f"{folder} holds no usable image; no corpus was written. Reasons: {counted}.")
