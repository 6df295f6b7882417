"""Figure 6: mean DICE of every strategy.

python recipes/study/figure_6.py RUN... --out DIR [--with-everything] [--subjects 5]

The paper's figure compares everything, points, and boxes by their mean DICE, with the candidate
that fits best. Here every selection is shown, means are over tasks of subject means, and all arms
are on the same targets: everything only by `--with-everything`, which leaves the targets of the few
images that it was run on. There are intervals where every task has five subjects, which
`--subjects 5` asks for. `figure_6_contrasts` tests every arm against the best, paired by target;
`figure_6_oracle` says what the oracle adds, and tests nothing: that cannot be less than nothing.
Needs: runs of kind `prompts` (and `everything`).
"""

import argparse
from collections.abc import Sequence

import plot
import polars as pl
import runs
import sheet
from asked import ask, exact, plainly

from promptseg import STRATEGIES, frame_of
from promptseg.contrast import against_best, arms_of, oracle_gaps
from promptseg.stats import over_tasks

ARM = ["model", "protocol", "strategy", "selection"]
CONTRASTS = (
    "arm_model", "arm_strategy", "arm_selection", "against_model", "against_strategy",
    "against_selection", "cell_before", "cell_after", "cell_difference_value",
    "cell_difference_lo", "cell_difference_hi", "cell_effect", "p", "p_holm", "cell_n_units",
    "cell_n_pairs",
)  # fmt: skip
TESTED = ("p", "p_holm")  # not of the oracle gap, which cannot be positive


def shared(records: pl.DataFrame, *, with_everything: bool, grid: int = 32) -> pl.DataFrame:
    """Keep the targets that every on-protocol model and strategy has a score of."""
    of_everything = pl.col("strategy") == "everything"
    kept = ~of_everything
    if with_everything:
        kept = ~of_everything | (pl.col("points_per_side") == grid)
    own = exact(records).filter(kept, ~pl.col("off_protocol"), pl.col("outcome") != "failed")
    arms = own.select(ARM).unique().height
    return own.filter(pl.struct(ARM).n_unique().over("corpus", "task", "target_id") == arms)


def of_many(own: pl.DataFrame, subjects: int) -> pl.DataFrame:
    """Keep the tasks of so many subjects: five, and there are intervals."""
    return own.filter(pl.struct("dataset", "subject").n_unique().over("task") >= subjects)


def means(own: pl.DataFrame) -> pl.DataFrame:
    """Give the mean over tasks of every arm."""
    found = frame_of(over_tasks(own, "dice"))
    order = {name: place for place, name in enumerate(STRATEGIES)}
    place = pl.col("strategy").replace_strict(order, default=len(order), return_dtype=pl.Int64)
    return found.sort(place, "model", "selection")


def draw(found: pl.DataFrame) -> tuple[plot.Figure, list[plot.Axes]]:
    """Draw the means, a series per model and selection."""
    figure, (axes,) = plot.panels(1, width=6.4)
    names = found["strategy"].unique(maintain_order=True).to_list()
    series = found.select("model", "selection").unique(maintain_order=True).sort("model").rows()
    for number, (model, selection) in enumerate(series):
        own = found.filter(model=model, selection=selection)
        shift = 0.6 * ((number + 0.5) / len(series) - 0.5)
        at = [names.index(name) + shift for name in own["strategy"]]
        ends = own.select("lo", "hi").rows()
        plot.marks(axes, at, own["value"], ends, style=(number, f"{model}, {selection}"))
    axes.set_xticks(range(len(names)), names)
    axes.set(ylabel="DICE", ylim=(0, 1))
    axes.legend(loc="lower right")
    return figure, [axes]


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--with-everything", action="store_true", help="on the images it has")
    parser.add_argument("--subjects", type=int, default=1, help="tasks of at least so many")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the means with their figure, and the contrasts."""
    asked = ask(__doc__, [runs.PROMPTS], arguments, add=_options)
    every = shared(asked.records(), with_everything=asked.told.with_everything)
    own = of_many(every, asked.told.subjects)
    found = means(own)
    title = "Figure 6: mean DICE over tasks, all arms on the same targets."
    shown = ("strategy", "model", "selection", "value", "lo", "hi", "n_tasks", "n_subjects_known",
             "n_images_unknown", "n_targets", "rate_no_overlap")  # fmt: skip
    sheet.write(found, asked.out / "figure_6", title, shown)
    plot.save(draw(found)[0], asked.out / "figure_6")
    arms = arms_of(own)
    best = next((arm for arm in arms if arm.is_deployable), None)
    if best is not None and (tests := against_best(own, arms, best)):
        title = f"Figure 6: every arm minus {best.model}, {best.strategy}, {best.selection}."
        sheet.write(frame_of(tests), asked.out / "figure_6_contrasts", title, CONTRASTS)
    if gaps := oracle_gaps(own, arms):
        title = "Figure 6: what a user gets (predicted) minus the best candidate (oracle)."
        told = frame_of(gaps).drop(*TESTED)
        shown = [name for name in CONTRASTS if name not in TESTED]
        sheet.write(told, asked.out / "figure_6_oracle", title, shown)


if __name__ == "__main__":
    plainly(main)
