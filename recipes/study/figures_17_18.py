"""Figures 17 and 18: before and after fine-tuning.

python recipes/study/figures_17_18.py RUN... --before litemedsam --after tuned --out DIR

The paper's figures go with its section 4.12: a decoder fine-tuned with boxes; what each of the two
shows is not known here. This draws every task's DICE before and after, paired by prompt, with the
difference's interval over subjects. Needs: runs in which both models answered subjects that the
second was not trained on, as `promptseg finetune` (`before-after/*.run`) and
`recipes/leave_one_out.py` (one seed: `DIR/*-seed0/before-after/*.run`) write them.
"""

import argparse
from collections.abc import Sequence

import plot
import polars as pl
import sheet
from asked import ask, exact, plainly

from promptseg import frame_of
from promptseg.paired import compare

SHOWN = (
    "task", "strategy", "selection", "before", "after", "difference", "difference_lo",
    "difference_hi", "n_subjects", "n_pairs", "p_holm",
)  # fmt: skip


def table(records: pl.DataFrame, before: str, after: str) -> pl.DataFrame:
    """Compare two models by task and over tasks, on-protocol."""
    found = compare(exact(records), before, after)
    cells = frame_of((*found.means, *found.cells))
    return cells.filter(pl.col("off").is_null(), pl.col("after").is_not_null()).select(
        pl.coalesce("group_task", "scope").alias("task"),
        pl.col("group_strategy").alias("strategy"),
        pl.col("group_selection").alias("selection"),
        "before",
        "after",
        pl.col("difference_value").alias("difference"),
        "difference_lo",
        "difference_hi",
        pl.col("n_units").alias("n_subjects"),
        "n_pairs",
        "effect",
        "verdict",
        "p",
        "p_holm",
        pl.col("scope").is_not_null().alias("is_mean"),
    )


def draw(found: pl.DataFrame, names: tuple[str, str]) -> plot.Figure:
    """Draw a line from before to after for every task of the first strategy and selection."""
    first = found.row(0, named=True)
    own = found.filter(strategy=first["strategy"], selection=first["selection"])
    figure, (axes,) = plot.panels(1, width=6.4, height=1.2 + 0.25 * own.height)
    for y, row in enumerate(own.reverse().iter_rows(named=True)):
        axes.plot([row["before"], row["after"]], [y, y], "-", color="0.6", linewidth=1.5)
    at = list(range(own.height))[::-1]
    for number, side in enumerate(("before", "after")):
        axes.plot(
            own[side], at, plot.SHAPES[number], color=plot.COLOURS[number], label=names[number]
        )
    axes.set_yticks(at, own["task"].to_list())
    axes.set(xlabel=f"DICE, {first['strategy']}, {first['selection']}", xlim=(0, 1))
    axes.legend(loc="lower left")
    return figure


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--before", default="litemedsam")
    parser.add_argument("--after", required=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table and the figure."""
    asked = ask(__doc__, [], arguments, add=_options)
    names = (asked.told.before, asked.told.after)
    found = table(asked.records(), *names)
    title = f"Figures 17 and 18: DICE of {names[0]} and of {names[1]}, paired by prompt."
    sheet.write(found, asked.out / "figures_17_18", title, SHOWN)
    plot.save(draw(found, names), asked.out / "figures_17_18")


if __name__ == "__main__":
    plainly(main)
