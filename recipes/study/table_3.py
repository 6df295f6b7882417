"""Table 3: distances, task by task.

python recipes/study/table_3.py RUN... --out DIR

What is known of the paper's table is Hausdorff distances (HD) per object and modality, in pixels.
Here HD and HD95 stand beside DICE, with 95 % intervals over subjects, in millimetres where the
spacing is known. The paper's code counts an empty mask as distance 0; here it has no distance, its
rate is given, and `hd_with_misses` takes the image's diagonal for it. Needs: runs of kind
`prompts`.
"""

from collections.abc import Sequence

import polars as pl
import runs
import sheet
from asked import ask, exact, plainly

from promptseg import frame_of
from promptseg.stats import estimate

KEY = ["model", "protocol", "unit", "strategy", "selection", "off_protocol", "task"]
SHOWN = (
    "task", "model", "strategy", "selection", "n_subjects", "n_targets", "dice", "dice_lo",
    "dice_hi", "hd", "hd_lo", "hd_hi", "hd95", "distance_unit", "rate_empty", "hd_with_misses",
)  # fmt: skip


def table(records: pl.DataFrame) -> pl.DataFrame:
    """Give DICE, HD and HD95 of every task, model, strategy and selection."""
    own = exact(records)
    overlap = frame_of(estimate(own, "dice")).select(
        *KEY, "n_subjects", "n_images", "n_targets", "n_failed", "rate_empty", "rate_no_overlap",
        "notes", dice="value", dice_lo="lo", dice_hi="hi",
    )  # fmt: skip
    for metric in ("hd", "hd95"):
        found = frame_of(estimate(own, metric)).select(
            *KEY,
            "distance_unit",
            pl.col("value").alias(metric),
            *(pl.col(of).alias(f"{metric}_{of}") for of in ("lo", "hi", "n_undefined")),
            pl.col("with_misses").alias(f"{metric}_with_misses"),
        )
        on = [name for name in (*KEY, "distance_unit") if name in overlap.columns]
        overlap = overlap.join(found, on=on, how="left", nulls_equal=True)
    return overlap.sort("task", "model", "strategy", "selection")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table."""
    asked = ask(__doc__, [runs.PROMPTS], arguments)
    sheet.write(
        table(asked.records()).filter(~pl.col("off_protocol")),
        asked.out / "table_3",
        "Table 3: DICE and Hausdorff distances per task, 95 % intervals over subjects.",
        SHOWN,
    )


if __name__ == "__main__":
    plainly(main)
