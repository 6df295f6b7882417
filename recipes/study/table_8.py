"""Table 8: what a sloppy prompt costs.

python recipes/study/table_8.py RUN... --out DIR

The paper's table gives DICE when points and boxes are moved by 0-10, 10-20 and 20-30 pixels; which
points moved, and how often it was repeated, it does not say. Here the centre point alone moves
(`centre`) or the whole box is shifted (`shift`), and others by `--jitter` of `runs.py`. Losses are
paired: the same targets, exact and moved, averaged over seeds, images and subjects, with the
distance at which DICE has lost 0.05. The Markdown table has the means over tasks, or the only task
that there is; the CSV has every task. Needs: runs of kind `prompts`.
"""

from collections.abc import Sequence

import polars as pl
import runs
import sheet
from asked import Asked, ask, plainly

from promptseg import frame_of
from promptseg.response import ALL, responses

SHOWN = (
    "task", "model", "strategy", "selection", "mode", "measure", "at", "exact", "loss", "lo", "hi",
    "n_subjects", "n_targets", "radius", "radius_lo", "radius_hi",
)  # fmt: skip


CURVE = ("model", "protocol", "unit", "strategy", "selection", "mode", "measure")
TO_READ = (pl.col("task") == ALL) | (pl.col("task").n_unique().over(CURVE) == 1)


def table(asked: Asked) -> pl.DataFrame:
    """Give the loss at every level of jitter, per task and over tasks."""
    found = frame_of(responses(asked.records(), asked.attributes()), each="levels")
    return found if found.is_empty() else found.filter(~pl.col("off_protocol"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table."""
    asked = ask(__doc__, [runs.PROMPTS], arguments)
    title = (
        "Table 8: DICE lost (`loss`) to prompts that are moved by `at` (the middle of a level; px, "
        "or relative to the square root of the area), and the tolerance radius."
    )
    sheet.write(table(asked), asked.out / "table_8", title, SHOWN, rows=TO_READ)


if __name__ == "__main__":
    plainly(main)
