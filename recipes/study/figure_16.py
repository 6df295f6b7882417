"""Figure 16: DICE click by click, of any number of promptable models.

python recipes/study/figure_16.py RUN... --out DIR

A simulated user sees the mask and clicks into the middle of its worst error, by the rule of RITM,
FocalClick and SimpleClick (`promptseg.clicks`), which are what the paper compares SAM with. Those
models are not in promptseg; their curves need an adapter of yours (`--model package.module:name`).
Dashed beside it, where runs have it: as many positive points that the study's rule places
beforehand, which correct nothing. `figure_16_noc` is the number of clicks to a Jaccard index of
0.80, 0.85 and 0.90, the field's NoC, and how often it was not reached. Needs: runs of kind
`clicks`, and for the dashed line `points`.
"""

from collections.abc import Sequence

import plot
import polars as pl
import runs
import sheet
from asked import ask, exact, plainly
from matplotlib.ticker import MaxNLocator

from promptseg import frame_of
from promptseg.clicks import number_of_clicks
from promptseg.stats import over_tasks

CLICKED, PLACED = "clicked", "placed"
GOALS = (0.80, 0.85, 0.90)  # of the Jaccard index
TARGET = ("how", "model", "selection", "corpus", "task", "target_id")


def by_number(records: pl.DataFrame) -> pl.DataFrame:
    """Keep clicks, and positive points alone, on the targets that have all their numbers."""
    words = pl.col("strategy").str.extract_groups(r"^(point|clicks)s?(\d+)$")
    own = (
        exact(records)
        .filter(pl.col("outcome") != "failed")
        .with_columns(
            how=words.struct[0].replace_strict({"point": PLACED, "clicks": CLICKED}, default=None),
            n_points=words.struct[1].cast(pl.Int64),
        )
        .drop_nulls("n_points")
    )
    # point1 of one run and points1 of another are the same prompt
    own = own.unique([*TARGET, "n_points"], maintain_order=True)
    own = own.with_columns(strategy=pl.format("{}{}", "how", "n_points"))
    numbers = pl.col("n_points").n_unique()
    return own.filter(numbers.over(TARGET) == numbers.over("how", "model", "selection"))


def table(own: pl.DataFrame) -> pl.DataFrame:
    """Give the mean over tasks for every number of points."""
    found = frame_of(over_tasks(own, "dice"))
    if found.is_empty():
        return found
    words = pl.col("strategy").str.extract_groups(r"^([a-z]+)(\d+)$")
    return found.with_columns(how=words.struct[0], n_points=words.struct[1].cast(pl.Int64)).sort(
        "model", "selection", "how", "n_points"
    )


def clicks_needed(own: pl.DataFrame) -> pl.DataFrame:
    """Give the mean number of clicks to every goal over tasks; a failure counts as the most."""
    clicked = own.filter(how=CLICKED).sort("n_points")
    if clicked.is_empty():
        return clicked
    most = int(clicked["n_points"].max())  # type: ignore[arg-type]
    rest = pl.all().exclude(*TARGET, "jaccard").first()
    each = clicked.group_by(TARGET, maintain_order=True).agg(rest, "jaccard")
    tables = []
    for goal in GOALS:
        counted = [number_of_clicks(overlaps, goal, most) for overlaps in each["jaccard"]]
        asked = each.with_columns(
            strategy=pl.lit(f"NoC@{goal * 100:.0f}"),
            noc=pl.Series([float(number) for number, _ in counted]),
            missed=pl.Series([float(not reached) for _, reached in counted]),
        )
        found = frame_of(over_tasks(asked, "noc"))
        failed = frame_of(over_tasks(asked, "missed"))["value"].rename("share_not_reached")
        tables.append(found.with_columns(failed).with_columns(goal=goal, most=most))
    return pl.concat(tables).sort("model", "selection", "goal")


def draw(found: pl.DataFrame) -> plot.Figure:
    """Draw a line per model and selection: full for clicks, dashed for points placed beforehand."""
    figure, (axes,) = plot.panels(1, width=6.2)
    models = found.select("model", "selection").unique(maintain_order=True).rows()
    for (model, selection, how), own in found.group_by(
        "model", "selection", "how", maintain_order=True
    ):
        place = models.index((model, selection))
        line = "-" if how == CLICKED else "--"
        colour = plot.COLOURS[place % len(plot.COLOURS)]
        axes.plot(own["n_points"], own["value"], line, color=colour, linewidth=1)
        ends = own.select("lo", "hi").rows()
        style = (place, f"{model}, {selection}, {how}")
        plot.marks(axes, own["n_points"], own["value"], ends, style=style, hollow=how == PLACED)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="clicks, or points placed beforehand", ylabel="DICE", ylim=(0, 1))
    axes.legend(loc="lower right")
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the tables and the figure."""
    asked = ask(__doc__, [runs.CLICKS, runs.POINTS], arguments)
    own = by_number(asked.records())
    found = table(own)
    shown = ("how", "n_points", "model", "selection", "value", "lo", "hi", "n_tasks", "n_targets",
             "rate_no_overlap")  # fmt: skip
    title = "Figure 16: mean DICE over tasks by the number of clicks, and of points placed."
    sheet.write(found, asked.out / "figure_16", title, shown)
    plot.save(draw(found), asked.out / "figure_16")
    needed = clicks_needed(own)
    if needed.is_empty():
        print("no run of clicks is there: no number of clicks. runs.py --make clicks makes one")
        return
    shown = ("goal", "model", "selection", "value", "lo", "hi", "most", "share_not_reached",
             "n_tasks", "n_targets")  # fmt: skip
    title = (
        "Number of clicks (NoC) to a Jaccard index, mean over tasks; failures count as the most."
    )
    sheet.write(needed, asked.out / "figure_16_noc", title, shown)


if __name__ == "__main__":
    plainly(main)
