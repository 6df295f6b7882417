"""The report of runs: rows of numbers for any table, and one HTML file that opens anywhere."""

from promptseg.report.page import write_report, write_with_rows
from promptseg.report.table import Row, Surface, flat, summary_rows, table_rows

__all__ = [
    "Row",
    "Surface",
    "flat",
    "summary_rows",
    "table_rows",
    "write_report",
    "write_with_rows",
]
