"""A table of the study as CSV, whole and unrounded, and as Markdown to read."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from promptseg.errors import DataError

DIGITS = 3
SMALLEST_P = 0.001  # that is written out


def write(
    frame: pl.DataFrame,
    path: Path,
    title: str,
    shown: Sequence[str] = (),
    *,
    rows: pl.Expr | None = None,
) -> None:
    """Write `path.csv` and `path.md`, and say so.

    Parameters
    ----------
    shown
        The columns of the Markdown table, all if none are named. Columns that hold lists are in
        neither file.
    rows
        Which rows the Markdown table has, all if it is None; it says how many more the CSV has.

    Raises
    ------
    DataError
        The frame is empty: the runs do not hold what the table needs.
    """
    if frame.is_empty():
        raise DataError(f"{path.name}: the runs hold nothing of it. {title}")
    flat = frame.select(pl.exclude(pl.List))
    flat.write_csv(path.with_suffix(".csv"))
    read = flat if rows is None else flat.filter(rows)
    table = read.select(shown) if shown else read
    if table.height < flat.height:
        title = f"{title} {table.height} of {flat.height} rows; {path.name}.csv has them all."
    cells = [
        table.columns,
        ["---"] * table.width,
        *(map(_said, table.columns, row) for row in table.iter_rows()),
    ]
    lines = "\n".join(f"| {' | '.join(row)} |" for row in cells)
    path.with_suffix(".md").write_text(f"{title}\n\n{lines}\n", encoding="utf-8")
    print(f"{path}.csv, {path.name}.md: {frame.height} rows")


def _said(column: str, value: object) -> str:
    """Write a cell; undefined is a dash, never a zero, and neither is a small p."""
    if value is None:
        return "–"
    is_p = column in {"p", "p_holm"} or column.endswith("_p")
    if is_p and isinstance(value, float) and value < SMALLEST_P:
        return f"<{SMALLEST_P}"
    return f"{value:.{DIGITS}f}" if isinstance(value, float) else str(value)
