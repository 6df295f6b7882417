"""Raw data to a corpus: a folder of images and masks is paired, named, checked and written.

Nothing is left out silently: every image and label that does not come into the corpus is a drop
with its reason.
"""

from collections import Counter
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from promptseg.corpus import CorpusInfo, CorpusWriter
from promptseg.croissant import write_croissant
from promptseg.curation.pieces import NO_TARGET, Kept, pieces
from promptseg.curation.plan import plan_of
from promptseg.curation.settings import Curation
from promptseg.curation.tally import Tally, hint, notes_in_words, subjects_in_words
from promptseg.errors import DataError
from promptseg.reader.folder import scan
from promptseg.reader.frame import NO_MASK
from promptseg.rows import DropRow

__all__ = ["Curation", "Progress", "curate"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a curation is: `done` of `total` files of images; the last has all drops."""

    done: int
    total: int
    source: str
    drops: Mapping[str, int] = field(default_factory=dict)  # reason, with N for numbers -> so far


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
    plan = plan_of(folder, listing, settings)
    tally = Tally()
    _store((DropRow(source=source, reason=why) for source, why in plan.left_out), writer, tally)
    for done, image in enumerate(listing.images, start=1):
        _store(pieces(image, plan), writer, tally)
        yield Progress(done, len(listing.images), image.source, dict(tally.drops))
    if not writer.n_images:
        raise _nothing_usable(folder, tally.drops)
    about = {"name": plan.reading.dataset, "licence": settings.licence, "citation": None}
    found = {"subjects": subjects_in_words(tally, settings), **notes_in_words(tally)}
    rules = {**plan.rules, **found, **hint(tally, plan)}
    info = writer.finish(name=plan.reading.dataset, datasets=[about], rules=rules)
    write_croissant(out, info)
    return info


def _store(pieces: Iterable[Kept | DropRow], writer: CorpusWriter, tally: Tally) -> None:
    for piece in pieces:
        if isinstance(piece, Kept):
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
    causes = Counter({why: n for why, n in drops.items() if why not in (NO_TARGET, NO_MASK)})
    listed = (causes or drops).most_common(3)
    counted = "; ".join(f"{reason} ({n} times)" for reason, n in listed)
    return DataError(f"{folder} holds no usable image; no corpus was written. Reasons: {counted}.")
