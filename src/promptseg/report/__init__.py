"""The report of runs: rows of numbers for any table, and one HTML file that opens anywhere.

The page, and SciPy's statistics with it, is imported when it is first asked for: a command that
shows a table only starts a second sooner.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from promptseg.report.table import Row, Surface, flat, summary_rows, table_rows

if TYPE_CHECKING:
    from promptseg.report.page import write_report, write_with_rows

__all__ = [
    "Row",
    "Surface",
    "flat",
    "summary_rows",
    "table_rows",
    "write_report",
    "write_with_rows",
]


def __getattr__(name: str) -> Any:
    """Import what writes the page."""
    if name not in {"write_report", "write_with_rows"}:
        raise AttributeError(f"module 'promptseg.report' has no attribute {name!r}")
    return getattr(import_module("promptseg.report.page"), name)
