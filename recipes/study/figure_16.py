"""Figure 16, as far as it goes today: DICE by the number of points.

python recipes/study/figure_16.py RUN... --out DIR

The paper's figure compares SAM with click-based models (FocalClick, SimpleClick) as points are
added. Those models, and clicks that answer to errors, are not in promptseg yet: this shows a
model's DICE with 1 to 20 positive points that the study's rule places beforehand, over the targets
that all numbers were asked for. It is no comparison, and says nothing of interactive correction. A
target of fewer pixels than points gets fewer. Needs: runs of kind `points` (or `prompts`: 1 and 5).
"""

from collections.abc import Sequence

import plot
import polars as pl
import runs
import sheet
from asked import ask, exact, plainly

from promptseg import frame_of
from promptseg.stats import over_tasks


def by_number(records: pl.DataFrame) -> pl.DataFrame:
    """Keep positive points alone, on the targets that have all numbers."""
    number = pl.col("strategy").str.extract(r"^points?(\d+)$").cast(pl.Int64)
    own = exact(records).filter(pl.col("outcome") != "failed").with_columns(n_points=number)
    own = own.drop_nulls("n_points")
    # point1 of one run and points1 of another are the same prompt
    own = own.unique(["corpus", "model", "selection", "target_id", "n_points"], maintain_order=True)
    own = own.with_columns(strategy=pl.format("points{}", "n_points"))
    numbers = pl.col("n_points").n_unique()
    target = ["model", "selection", "corpus", "task", "target_id"]
    return own.filter(numbers.over(target) == numbers.over("model", "selection"))


def table(records: pl.DataFrame) -> pl.DataFrame:
    """Give the mean over tasks for every number of points."""
    found = frame_of(over_tasks(by_number(records), "dice"))
    if found.is_empty():
        return found
    number = pl.col("strategy").str.extract(r"(\d+)$").cast(pl.Int64)
    return found.with_columns(n_points=number).sort("model", "selection", "n_points")


def draw(found: pl.DataFrame) -> plot.Figure:
    """Draw a line per model and selection."""
    figure, (axes,) = plot.panels(1, width=5.4)
    series = found.select("model", "selection").unique(maintain_order=True).rows()
    for place, (model, selection) in enumerate(series):
        own = found.filter(model=model, selection=selection)
        axes.plot(own["n_points"], own["value"], "-", color=plot.COLOURS[place], linewidth=1)
        ends = own.select("lo", "hi").rows()
        style = (place, f"{model}, {selection}")
        plot.marks(axes, own["n_points"], own["value"], ends, style=style)
    axes.set(xlabel="positive points, placed beforehand", ylabel="DICE", ylim=(0, 1))
    axes.legend(loc="lower right")
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table and the figure."""
    asked = ask(__doc__, runs.POINTS, arguments)
    found = table(asked.records())
    shown = ("n_points", "model", "selection", "value", "lo", "hi", "n_tasks", "n_targets",
             "rate_no_overlap")  # fmt: skip
    title = "Figure 16 (in part): mean DICE over tasks by the number of points placed beforehand."
    sheet.write(found, asked.out / "figure_16", title, shown)
    plot.save(draw(found), asked.out / "figure_16")


if __name__ == "__main__":
    plainly(main)
