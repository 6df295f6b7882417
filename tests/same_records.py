"""Whether two runs hold the same: everything but the times, to the last bit.

python tests/same_records.py BEFORE.run AFTER.run
"""

import sys
from pathlib import Path

from polars.testing import assert_frame_equal

from promptseg.record import TIMES, RunFolder, open_run

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


if __name__ == "__main__":
    runs = [open_run(Path(path)) for path in sys.argv[1:3]]
    assert_same(*runs)
    print(f"The same {runs[0].records().height} records.")
