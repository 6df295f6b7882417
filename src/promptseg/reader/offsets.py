"""Where cropped masks lie in their images: a table (CSV) of the corners of their boxes.

A row belongs to a mask by the mask's file, or by its image and object. What the table names is
compared as text, and never opened.
"""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from promptseg.errors import DataError

MOST_BYTES = 64 * 2**20
MOST_ROWS, _MOST_COLUMNS = 1_000_000, 1000
_COLUMNS = ("file", "image", "object", "top", "left")  # in the words of a mapping file
_INTEGER = re.compile(r"\s*(-?\d{1,9})(?:\.0*)?\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Offsets:
    """The corners of masks as the table has them, by what tells the mask."""

    by: tuple[str, ...]  # of file, image and object
    rows: Mapping[tuple[str, ...], Sequence[tuple[str, str]]]  # (top, left)

    def corner(self, mask: str, image: str, name: str | None) -> tuple[int, int]:
        """Give the row and column at which a mask begins in its image.

        Parameters
        ----------
        mask, image
            Paths below the folder; the table may have paths of its own, so file names count.
        name
            What the mask shows; capitals, and _ for a space, make no difference.

        Raises
        ------
        DataError
            The table has no row for the mask, several, or one without numbers.
        """
        tells = {"file": _base(mask), "image": _base(image), "object": _folded(name or "")}
        rows = self.rows.get(tuple(tells[by] for by in self.by), ())
        if len(set(rows)) != 1:
            found = f"{len(rows)} rows" if rows else "no row"
            raise DataError(f"the table of offsets has {found} for it")
        top, left = (_INTEGER.fullmatch(cell) for cell in rows[0])
        if top is None or left is None:
            raise DataError("the table of offsets has no whole numbers for it")
        return int(top[1]), int(left[1])


def read_offsets(path: Path, columns: Mapping[str, str]) -> Offsets:
    """Read a table of offsets.

    Parameters
    ----------
    columns
        The names of the columns for top and left, and for file, image or object (or several).

    Raises
    ------
    DataError
        There is no such table, or it has no such columns.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"The table {path.name} is too large.")
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            if len(header) > _MOST_COLUMNS:
                raise DataError(f"The table {path.name} has more than {_MOST_COLUMNS} columns.")
            if missing := [name for name in columns.values() if name not in header]:
                shown = ", ".join(map(repr, header[:30]))
                raise DataError(
                    f"{path.name} has no column {missing[0]!r}. It has {shown}.",
                    unnamed=f"The table of offsets has no column {missing[0]!r}.",
                )
            by = tuple(word for word in _COLUMNS[:3] if word in columns)
            at = {word: header.index(name) for word, name in columns.items()}
            rows = _rows(reader, by, at, path.name)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise DataError(
            f"The table {path.name} cannot be read: {why}.",
            unnamed=f"The table of offsets cannot be read ({type(error).__name__}).",
        ) from error
    return Offsets(by, rows)


def _rows(
    table: Iterable[list[str]], by: tuple[str, ...], at: Mapping[str, int], name: str
) -> dict[tuple[str, ...], list[tuple[str, str]]]:
    """Sort the rows of a table by what tells the mask; short rows lack their last cells."""
    rows: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for number, row in enumerate(filter(None, table)):
        if number == MOST_ROWS:
            raise DataError(f"The table {name} has more than {MOST_ROWS} rows.")
        cells = {word: row[n] if n < len(row) else "" for word, n in at.items()}
        key = tuple(_folded(cells[w]) if w == "object" else _base(cells[w]) for w in by)
        rows.setdefault(key, []).append((cells["top"], cells["left"]))
    return rows


def _base(path: str) -> str:
    return PurePosixPath(path.strip().replace("\\", "/")).name


def _folded(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).casefold()
