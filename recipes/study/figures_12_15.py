"""Figures 12 to 15: DICE against size, shape, contrast and boundary complexity.

python recipes/study/figures_12_15.py RUN... --out DIR [--model-shown M --strategy S --selection S]

The paper's figures go with its Table 6; which of them shows which attribute is not known here, so
that they are one figure of four panels. A point is a target; the marks are the mean DICE of fifths
of the targets, the other attributes held (a partial effect, with 95 % intervals over subjects). The
arm is the deployable one of highest mean DICE unless one is named. Needs: runs of kind `prompts`.
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
    """Give the partial effect of every attribute, step by step."""
    steps = {name: effect(scored, name) for name in ATTRIBUTES}
    if not any(steps.values()):
        raise DataError("Ten targets that differ are needed to draw on what DICE depends.")
    return pl.concat(
        [
            frame_of(found).select(pl.lit(name).alias("attribute"), pl.all())
            for name, found in steps.items()
            if found
        ],
        how="vertical_relaxed",
    )


def draw(scored: pl.DataFrame, steps: pl.DataFrame) -> plot.Figure:
    """Draw the targets, and the fifths over them."""
    figure, panels = plot.panels(len(ATTRIBUTES), width=3.4)
    for axes, (name, title) in zip(panels, ATTRIBUTES.items(), strict=True):
        axes.plot(scored[name], scored["dice"], ".", color="0.7", markersize=4)
        own = steps.filter(attribute=name)
        ends = own.select("lo", "hi").rows()
        plot.marks(axes, own["middle"], own["dice"], ends, style=(0, "fifths, others held"))
        if name in LOGARITHMIC:
            axes.set_xscale("log")
        axes.set(xlabel=title, ylim=(0, 1))
    panels[0].set_ylabel("DICE")
    panels[0].legend(loc="lower right")
    return figure


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
