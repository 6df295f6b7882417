"""Where cropped masks lie in their images: a table (CSV) of the corners of their boxes.

A row belongs to a mask by the mask's file, or by its image and object. What the table names is
compared as text, and never opened.
"""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from promptseg.errors import DataError

MOST_BYTES = 64 * 2**20
_COLUMNS = ("file", "image", "object", "top", "left")  # in the words of a mapping file
_INTEGER = re.compile(r"\s*(-?\d{1,9})(?:\.0*)?\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Offsets:
    """The corners of masks as the table has them, by what tells the mask."""

    by: tuple[str, ...]  # of file, image and object
    rows: Mapping[tuple[str, ...], tuple[tuple[str, str], ...]]  # (top, left)

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
            reader = csv.DictReader(file)
            header = list(reader.fieldnames or [])
            if missing := [name for name in columns.values() if name not in header]:
                shown = ", ".join(map(repr, header[:30]))
                raise DataError(f"{path.name} has no column {missing[0]!r}. It has {shown}.")
            table = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"The table {path.name} cannot be read: {why}.") from error
    by = tuple(word for word in _COLUMNS[:3] if word in columns)
    rows: dict[tuple[str, ...], tuple[tuple[str, str], ...]] = {}
    for row in table:
        cells = {word: row[name] or "" for word, name in columns.items()}
        key = tuple(_folded(cells[w]) if w == "object" else _base(cells[w]) for w in by)
        rows[key] = (*rows.get(key, ()), (cells["top"], cells["left"]))
    return Offsets(by, rows)


def _base(path: str) -> str:
    return PurePosixPath(path.strip().replace("\\", "/")).name


def _folded(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).casefold()
