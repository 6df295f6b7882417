"""How figures are drawn: one style, colours that the colour-blind tell apart, SVG that repeats."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# M. Okabe and K. Ito's palette; shapes go with it, so that colour is never alone
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SHAPES = ("o", "s", "^", "D", "v", "P", "X")
STYLE: Mapping[str, object] = {
    "svg.hashsalt": "promptseg",
    "svg.fonttype": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "font.size": 9,
}


def panels(count: int, *, height: float = 3.4, width: float = 4.4) -> tuple[Figure, list[Axes]]:
    """Make a figure of so many panels side by side, at most four in a row."""
    plt.rcParams.update(STYLE)
    across = min(count, 4)
    down = -(-count // across)
    figure, axes = plt.subplots(
        down, across, figsize=(width * across, height * down), squeeze=False, layout="constrained"
    )
    every = list(axes.flat)
    for empty in every[count:]:
        empty.set_axis_off()
    return figure, every[:count]


def marks(
    axes: Axes,
    at: Sequence[float],
    values: Sequence[float],
    ends: Sequence[tuple[float | None, float | None]],
    *,
    style: tuple[int, str],
    hollow: bool = False,
) -> None:
    """Draw values with their intervals, where there are any; `style` is a number and a label."""
    number, label = style
    colour, shape = COLOURS[number % len(COLOURS)], SHAPES[number % len(SHAPES)]
    inside = "white" if hollow else colour
    axes.plot(at, values, shape, color=colour, mfc=inside, label=label, markersize=5, zorder=3)
    for x, (low, high) in zip(at, ends, strict=True):
        if low is not None and high is not None:
            axes.plot([x, x], [low, high], "-", color=colour, linewidth=1.2)


def save(figure: Figure, path: Path) -> None:
    """Write an SVG, alike for alike data."""
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    plt.close(figure)
    print(f"{path}.svg")
