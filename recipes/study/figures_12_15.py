"""Figures 12 to 15: DICE against size, shape, contrast and boundary complexity.

python recipes/study/figures_12_15.py RUN... --out DIR [--model-shown M --strategy S --selection S]

The paper's figures go with its Table 6; which of them shows which attribute is not known here, so
that they are one figure of four pairs of panels. Above, a point is a target. Below are the mean
DICE of fifths of the targets, the other attributes held (a partial effect, with 95 % intervals over
subjects). Fifths are of ranks within data set and modality, and have no place among the values
above. An attribute of which more than 90 % of the targets have one value has none. The arm is the
deployable one of highest mean DICE unless one is named. Needs: runs of kind `prompts`.
"""

import argparse
from collections.abc import Sequence

import plot
import polars as pl
import runs
import sheet
from asked import Asked, ask, exact, plainly

from promptseg import frame_of
from promptseg.contrast import Arm, arms_of
from promptseg.errors import DataError
from promptseg.factors import effect, scored_targets

ATTRIBUTES = {
    "area_px": "size (px)",
    "aspect_ratio": "aspect ratio of the box",
    "intensity_difference": "intensity difference (0 to 255)",
    "fourier_order": "boundary complexity (Fourier order)",
}
LOGARITHMIC = frozenset({"area_px", "fourier_order"})


def chosen(records: pl.DataFrame, told: argparse.Namespace) -> Arm:
    """Find the arm that is asked for, or the best one that a user could have."""
    wanted = {
        name: value
        for name, value in (
            ("model", told.model_shown),
            ("strategy", told.strategy),
            ("selection", told.selection),
        )
        if value is not None
    }
    for arm in arms_of(records):
        if arm.is_deployable and all(getattr(arm, name) == want for name, want in wanted.items()):
            return arm
    raise DataError(f"No on-protocol run without jitter is of {wanted or 'any model'}.")


def of_arm(asked: Asked, arm: Arm) -> pl.DataFrame:
    """Give the targets that an arm was scored on, with what they look like."""
    scored = scored_targets(exact(asked.records()), asked.attributes())
    return scored.filter(
        pl.all_horizontal(
            pl.col(name) == getattr(arm, name)
            for name in ("model", "protocol", "strategy", "selection")
        )
    )


def table(scored: pl.DataFrame) -> pl.DataFrame:
    """Give the partial effect of every attribute, step by step, the lowest ranks first."""
    steps = {name: effect(scored, name) for name in ATTRIBUTES}
    if not any(steps.values()):
        raise DataError("Ten targets that differ are needed to draw on what DICE depends.")
    return pl.concat(
        [
            frame_of(found).select(
                pl.lit(name).alias("attribute"),
                pl.int_range(1, len(found) + 1).alias("step"),
                pl.all(),
            )
            for name, found in steps.items()
            if found
        ],
        how="vertical_relaxed",
    )


def draw(scored: pl.DataFrame, steps: pl.DataFrame) -> plot.Figure:
    """Draw the targets, and under them the fifths by rank."""
    figure, panels = plot.panels(2 * len(ATTRIBUTES), width=3.4)
    above, below = panels[: len(ATTRIBUTES)], panels[len(ATTRIBUTES) :]
    for scatter, ranked, (name, title) in zip(above, below, ATTRIBUTES.items(), strict=True):
        scatter.plot(scored[name], scored["dice"], ".", color="0.5", markersize=4)
        if name in LOGARITHMIC:
            scatter.set_xscale("log")
        scatter.set(xlabel=title, ylim=(0, 1))
        own = steps.filter(attribute=name)
        _draw_steps(ranked, own, title.partition(" (")[0])
    above[0].set_ylabel("DICE of a target")
    below[0].set_ylabel("mean DICE, others held")
    return figure


def _draw_steps(axes: plot.Axes, own: pl.DataFrame, title: str) -> None:
    """Draw the steps of one attribute side by side, in the order of their ranks."""
    if own.is_empty():
        axes.text(0.5, 0.5, "one value for nearly all", ha="center", transform=axes.transAxes)
    ends = own.select("lo", "hi").rows()
    plot.marks(axes, own["step"], own["dice"], ends, style=(0, "others held"))
    names = [f"{step}\nn {n}" for step, n in own.select("step", "n_targets").rows()]
    axes.set_xticks(own["step"].to_list(), names)
    axes.set(xlabel=f"{title}: from the lowest ranks", ylim=(0, 1))


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model-shown")
    parser.add_argument("--strategy")
    parser.add_argument("--selection")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the steps and the figure."""
    asked = ask(__doc__, [runs.PROMPTS], arguments, add=_options)
    arm = chosen(asked.records(), asked.told)
    scored = of_arm(asked, arm)
    if scored.is_empty():
        raise DataError("These runs do not tell what their targets look like: they are older.")
    steps = table(scored)
    title = f"Figures 12 to 15: DICE of {arm.model}, {arm.strategy}, {arm.selection}, by fifths."
    sheet.write(steps, asked.out / "figures_12_15", title)
    plot.save(draw(scored, steps), asked.out / "figures_12_15")


if __name__ == "__main__":
    plainly(main)
