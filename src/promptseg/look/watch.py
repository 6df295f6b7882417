"""Which file a look is at, so that one that ends its process is known, and left out by the next."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from promptseg.errors import DataError
from promptseg.reader.folder import printable

# to guess what masks are; to draw an image with its masks; to try one of these files by itself
Step = Literal["guess", "draw", "alone"]
At = tuple[Step, str]  # the source of a file


@dataclass(frozen=True, slots=True)
class Watch:
    """The files that ended a process before, and where it is noted which one is read."""

    lost: Mapping[At, str] = field(default_factory=dict)  # why
    suspects: frozenset[str] = frozenset()  # images that did, or one of their masks
    note: Path | None = None  # None: nobody asks

    def why(self, step: Step, source: str) -> str | None:
        """Give why a file is not to be read.

        What is lost while it is drawn changes nothing of what was guessed, and proposed, before.
        """
        steps: tuple[Step, ...] = ("guess",) if step == "guess" else ("guess", "alone", "draw")
        return next((self.lost[at] for s in steps if (at := (s, source)) in self.lost), None)

    @contextmanager
    def reading(self, step: Step, source: str) -> Iterator[None]:
        """Note that a file is read; what is raised but DataError leaves the note there.

        Raises
        ------
        DataError
            It ended a process before.
        """
        if (why := self.why(step, source)) is not None:
            raise DataError(why)
        self._write(f"{step}\n{source}")
        try:
            yield
        except DataError:
            self._write("")
            raise
        self._write("")

    def _write(self, text: str) -> None:
        if self.note is not None:
            self.note.write_bytes(text.encode("utf-8", "surrogateescape"))

    def at(self) -> At | None:
        """Read which file was noted last."""
        if self.note is None or not self.note.exists():
            return None
        told, _, source = self.note.read_bytes().decode("utf-8", "surrogateescape").partition("\n")
        return next(((step, source) for step in get_args(Step) if step == told), None)

    def after(self, reason: str) -> "Watch":
        """Give what the next process is to know.

        An image that ended one while it was drawn is a suspect first: it may be a mask of it.
        """
        at = self.at()
        if at is None:
            return self
        self._write("")
        step, source = at
        if step == "draw" and source not in self.suspects:
            return Watch(self.lost, self.suspects | {source}, self.note)
        return Watch({**self.lost, at: reason}, self.suspects, self.note)

    def told(self) -> tuple[tuple[str, str], ...]:
        """List what is lost, with the reason."""
        found = {source: why for (_, source), why in self.lost.items()}
        return tuple((printable(source), why) for source, why in sorted(found.items()))
