"""Whether two runs hold the same: everything but the times, to the last bit.

python tests/same_records.py BEFORE.run AFTER.run
python tests/same_records.py BEFORE.run AFTER.run --columns
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import polars as pl
from polars.testing import assert_frame_equal

from promptseg.record import IDENTITY, TIMES, RunFolder, open_run

KEYS = ("prompt_id", "mask_index", "target_id")


def assert_same(left: RunFolder, right: RunFolder) -> None:
    """Compare records, prompts, masks and attributes; floats have to be equal, not close."""
    pairs = [
        (left.records().drop(TIMES), right.records().drop(TIMES)),
        (left.prompts(), right.prompts()),
        (left.masks(), right.masks()),
        (left.attributes(), right.attributes()),
    ]
    for number, (ours, theirs) in enumerate(pairs):
        by = [name for name in KEYS if name in ours.columns] if number else []
        if by:
            ours, theirs = ours.sort(by), theirs.sort(by)
        assert_frame_equal(ours, theirs, check_exact=True)


def differences(left: RunFolder, right: RunFolder) -> Iterator[tuple[str, int, int, float | None]]:
    """Tell of every column of the records: values, values that differ, and by how much at most."""
    ours, theirs = (run.records().drop(TIMES) for run in (left, right))
    both = ours.join(theirs, on=IDENTITY, how="full", nulls_equal=True, suffix=" there")
    for name, dtype in ours.schema.items():
        here, there = both[name], both[f"{name} there"]
        differ = both.filter(here.ne_missing(there))
        gap = (differ[name] - differ[f"{name} there"]).abs().max() if dtype.is_numeric() else None
        yield name, both.height, differ.height, gap


def main() -> None:
    """Compare two runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs=2, type=Path)
    parser.add_argument("--columns", action="store_true", help="Tell how many values differ.")
    given = parser.parse_args()
    left, right = (open_run(path) for path in given.runs)
    if not given.columns:
        assert_same(left, right)
        print(f"The same {left.records().height} records.")
        return
    pl.Config.set_tbl_rows(-1)
    found = [row for row in differences(left, right) if row[2]]
    print(f"{left.records().height} and {right.records().height} records; columns that differ:")
    names = ["column", "values", "differ", "by at most"]
    print(pl.DataFrame(found, schema=names, orient="row") if found else "none")


if __name__ == "__main__":
    main()
