"""Table 5: everything, by the density of its grid.

python recipes/study/table_5.py RUN... --out DIR

The paper's table gives everything for 8 to 256 points per side. Here: the DICE of the mask that
fits best (an oracle: nobody could choose it without the reference), the masks that survive in an
image, and the time, over the images for which all grids were run. Grids are 8, 16 and 32 unless
`--grid` says otherwise; the time grows with their square. Needs: runs of kind `everything`.
"""

from collections.abc import Sequence

import polars as pl
import runs
import sheet
from asked import ask, plainly

from promptseg import frame_of
from promptseg.errors import DataError
from promptseg.stats import estimate, over_tasks

PLACE = ["corpus", "image_id"]
ALL = "all tasks"


def on_shared_images(records: pl.DataFrame) -> pl.DataFrame:
    """Keep everything on the images that a model answered with all grids."""
    own = records.filter(pl.col("strategy") == "everything", pl.col("outcome") != "failed")
    if own.is_empty():
        raise DataError("No run holds everything: make some with `runs.py --make everything`.")
    return own.filter(
        pl.col("points_per_side").n_unique().over("model", *PLACE)
        == pl.col("points_per_side").n_unique().over("model")
    )


def table(records: pl.DataFrame) -> pl.DataFrame:
    """Give the oracle's DICE per task and over tasks, survivors and time, by grid."""
    rows = []
    for (grid,), own in on_shared_images(records).group_by("points_per_side"):
        oracle = own.filter(pl.col("selection") == "oracle")
        means = frame_of(over_tasks(oracle, "dice")).with_columns(task=pl.lit(ALL))
        found = pl.concat([means, frame_of(estimate(oracle, "dice"))], how="vertical_relaxed")
        costs = pl.concat([_costs(oracle.with_columns(task=pl.lit(ALL))), _costs(oracle)])
        rows.append(
            found.join(costs, on=["model", "task"]).select(
                pl.lit(grid).alias("points_per_side"), "model", "task", "n_tasks", "n_subjects",
                "n_images", "n_targets", "rate_empty", "masks_median", "image_ms_median",
                dice="value", dice_lo="lo", dice_hi="hi",
            )
        )  # fmt: skip
    return pl.concat(rows).sort("model", pl.col("task") != ALL, "task", "points_per_side")


def _costs(own: pl.DataFrame) -> pl.DataFrame:
    """Give the median number of survivors, and time, of the images of a task."""
    images = own.unique(["model", "task", *PLACE])
    return images.group_by("model", "task").agg(
        masks_median=pl.col("n_survivors").median(), image_ms_median=pl.col("decode_ms").median()
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table."""
    asked = ask(__doc__, [runs.EVERYTHING], arguments)
    title = "Table 5: everything by points per side of its grid, the best-fitting mask (oracle)."
    sheet.write(table(asked.records()), asked.out / "table_5", title)


if __name__ == "__main__":
    plainly(main)
