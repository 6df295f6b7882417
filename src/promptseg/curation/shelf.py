"""A corpus that is being written, what was counted of it, and how far it is."""

from dataclasses import dataclass, replace
from pathlib import Path

from promptseg.corpus_writer import CorpusWriter
from promptseg.curation.journal import NAME as MARK_NAME
from promptseg.curation.journal import Mark, read_mark, write_mark
from promptseg.curation.pieces import Kept
from promptseg.curation.tally import Tally
from promptseg.rows import DropRow
from promptseg.store import Store


@dataclass(slots=True)
class Shelf:
    """A corpus that is being written, what was counted, and how far it is."""

    writer: CorpusWriter
    tally: Tally
    mark: Mark  # the last written
    n_files: int = 0
    n_pieces: int = 0  # of the file after these
    _to_skip: int = 0  # pieces that an interrupted curation has written already

    @classmethod
    def opened(cls, out: Path | str, own: str) -> "Shelf":
        """Begin a corpus, or go on with it."""
        store = Store(out)
        store.sweep()
        mark = read_mark(store, own)
        shelf = cls(CorpusWriter(out, is_begun=mark is not None), Tally(), mark or Mark(own))
        for part in shelf.writer.restore(shelf.mark.n_parts):
            shelf.tally.recall(part)
        shelf.tally.regridded.update(shelf.mark.regridded)
        shelf.tally.notes.update(shelf.mark.notes)
        shelf.n_files, shelf._to_skip = shelf.mark.n_files, shelf.mark.n_pieces
        return shelf

    def put(self, piece: Kept | DropRow) -> None:
        """Write a piece, and where that completes a part, how far it is."""
        self.n_pieces += 1
        if self.n_pieces <= self._to_skip:
            return
        n_parts = self.writer.n_parts
        self._write(piece)
        if self.writer.n_parts > n_parts:
            self._set_mark()

    def turn(self) -> None:
        """Turn to the next file."""
        self.n_files, self.n_pieces, self._to_skip = self.n_files + 1, 0, 0

    def fill_up(self) -> None:
        """Write what is left, so that nothing has to be read again if splits are refused."""
        if self.writer.n_images:
            self.writer.flush()
            self._set_mark()

    def _set_mark(self) -> None:
        self.mark = replace(
            self.mark,
            n_parts=self.writer.n_parts,
            n_files=self.n_files,
            n_pieces=self.n_pieces,
            regridded=tuple(sorted(self.tally.regridded)),
            notes=dict(sorted(self.tally.notes.items())),
        )
        write_mark(self.writer.store, self.mark)

    def close(self) -> None:
        """Forget how far it was: it is done."""
        self.writer.store.remove(MARK_NAME)

    def _write(self, piece: Kept | DropRow) -> None:
        if isinstance(piece, Kept):
            try:
                self.writer.add(piece.row, piece.content, piece.targets, piece.look)
                self.tally.keep(piece)
                return
            except ValueError as error:  # its image_id is taken
                row = piece.row
                piece = DropRow(source=row.source, image_id=row.image_id, reason=str(error))
        self.tally.drop(piece.reason)
        self.writer.drop(piece)
