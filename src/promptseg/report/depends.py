"""What DICE depends on, as the report tells and draws it."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from promptseg.factors import (
    TOGETHER,
    Factor,
    Factors,
    Step,
    effect,
    factors,
    is_mostly_one,
    scored_targets,
)
from promptseg.report.words import count, plural
from promptseg.stats import FEWEST, Group

SURE = 0.05
METHOD = (
    "Attributes are of the reference mask and the image alone. Intensity difference: of the means "
    "inside the target and around it, in its box enlarged by a tenth of its side at each edge "
    "(grey values, 0 to 255); contrast to noise: that over the pooled standard deviation. Boundary "
    "complexity: the order of elliptic Fourier descriptors (Kuhl and Giardina, "
    "doi:10.1016/0146-664X(82)90034-X) that describes the contour, brought to a fixed area, with a "
    "DICE of 0.97, at most 60; the study's own rule stops on plateaus and grows with pixel steps, "
    "and is there for comparison alone. Correlations are partial Spearman correlations: ranks are "
    "taken within data set and modality, and the other attributes of the table's first seven rows "
    "are held; the last three each take the place of the one they resemble. Intervals and p leave "
    "out one subject at a time (jackknife on Fisher's scale, Student's t; R. G. Miller, Biometrika "
    "61 (1974), doi:10.1093/biomet/61.1.1), Holm over all on-protocol cells. A correlation is no "
    "proof that changing the attribute changes DICE."
)
MOST_COLUMNS = 8
MOST_EFFECTS = 6
FIFTHS = ("lowest", "second", "middle", "fourth", "highest")
NAMES = {
    "area_px": "size (pixels)",
    "aspect_ratio": "aspect ratio of the box",
    "intensity_difference": "intensity difference",
    "contrast_to_noise": "contrast to noise",
    "fourier_order": "boundary complexity (Fourier order)",
    "fourier_order_paper": "boundary complexity (the study's rule)",
    "compactness": "compactness",
    "n_components": "components",
    "n_holes": "holes",
    "border_distance_px": "distance to the image's edge (pixels)",
}
INTEGERS = frozenset({"area_px", "n_components", "n_holes", "border_distance_px"})


@dataclass(frozen=True, slots=True)
class Bar:
    """One fifth of an effect, in percent of its chart."""

    x: float
    y: float
    low: float | None
    high: float | None
    label: str
    base: str  # n
    said: str


@dataclass(frozen=True, slots=True)
class Effect:
    """A partial effect, drawn from DICE 0 to 1."""

    title: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """One attribute of the table: its row of every column."""

    name: str
    cells: tuple[Factor, ...]


@dataclass(frozen=True, slots=True)
class Depends:
    """All of the section."""

    lines: tuple[str, ...]
    columns: tuple[Factors, ...]
    table: tuple[Line, ...]
    inflation: tuple[Factor, ...]  # of the leading column
    effects: tuple[Effect, ...]
    steps: tuple[tuple[str, tuple[Step, ...]], ...]  # of the leading column, by attribute
    flat: tuple[str, ...]  # attributes that are not drawn: one value holds for nearly all
    leading: str
    n_left_out: int  # columns
    found: tuple[Factors, ...]  # of all columns, left out or not


def depends(
    records: pl.DataFrame, attributes: pl.DataFrame, leading: Group | None
) -> Depends | None:
    """Tell what DICE depends on; None where no target has attributes, as in older runs."""
    if not attributes.height or leading is None:
        return None
    found = factors(records, attributes)
    own = next((one for one in found if _is(one, leading)), None)
    if own is None:
        return None
    rest = [one for one in found if one is not own]
    columns = tuple([own, *rest][:MOST_COLUMNS])
    scored = scored_targets(records, attributes).filter(
        pl.col("model") == own.model,
        pl.col("protocol") == own.protocol,
        pl.col("strategy") == own.strategy,
        pl.col("selection") == own.selection,
    )
    shown = sorted(
        (row for row in own.rows if row.rho is not None and row.attribute in TOGETHER),
        key=lambda row: -abs(row.rho or 0),
    )
    steps = [(row.attribute, effect(scored, row.attribute)) for row in shown]
    drawn = [(name, found) for name, found in steps if found]
    who = "image" if own.by_image else "subject"
    return Depends(
        lines=tuple(sentences(own)),
        columns=columns,
        table=lines_of(columns),
        found=tuple(found),
        inflation=own.rows,
        effects=tuple(
            Effect(NAMES[name], _bars(found, name, who)) for name, found in drawn[:MOST_EFFECTS]
        ),
        steps=tuple(drawn),
        flat=tuple(NAMES[row.attribute] for row in shown if is_mostly_one(scored[row.attribute])),
        leading=f"{own.model}, {own.strategy} / {own.selection}",
        n_left_out=len(found) - len(columns),
    )


def lines_of(columns: Sequence[Factors]) -> tuple[Line, ...]:
    """Set the rows of several columns side by side."""
    return tuple(
        Line(NAMES[row.attribute], tuple(_row(one, row.attribute) for one in columns))
        for row in (columns[0].rows if columns else ())
    )


def _is(one: Factors, group: Group) -> bool:
    names = ("model", "protocol", "strategy", "selection", "off_protocol")
    return all(getattr(one, name) == getattr(group, name) for name in names)


def _row(one: Factors, attribute: str) -> Factor:
    return next(row for row in one.rows if row.attribute == attribute)


def sentences(own: Factors) -> Sequence[str]:
    """Say whose DICE it is, what `body` says, and what the table below it lacks."""
    told = f"{own.model} with {own.strategy} / {own.selection}: {body(own)}"
    known = [row for row in own.rows if row.rho is not None]
    lacking = known and all(row.lo is None for row in known)
    return [f"{told} The correlations below have no interval." if lacking else told]


def body(own: Factors) -> str:
    """Say which attributes DICE goes with, and how sure that is."""
    return relations(own, "DICE")


def relations(own: Factors, what: str) -> str:
    """Say which attributes a quantity goes with, and how sure that is."""
    unit = "image" if own.by_image else "subject"
    base = f"{plural(own.n_targets, 'target')} of {plural(own.n_units, unit)}"
    if own.n_units < FEWEST:
        return f"{base} are too few to test what {what} depends on."
    if all(row.p_holm is None for row in own.rows):
        return f"on {base}, what {what} depends on cannot be tested: {_why_not(own, what)}."
    sure = [row for row in own.rows if row.p_holm is not None and row.p_holm < SURE]
    if not sure:
        return (
            f"on {base}, no attribute goes with {what} beyond chance (partial Spearman "
            "correlations, all p above 0.05 after Holm)."
        )
    ordered = sorted(sure, key=lambda row: -abs(row.rho or 0))
    rising = [_told(row) for row in ordered if (row.rho or 0) > 0]
    falling = [_told(row) for row in ordered if (row.rho or 0) < 0]
    told = [f"rises with {', '.join(rising)}"] if rising else []
    told += [f"falls with {', '.join(falling)}"] if falling else []
    return (
        f"on {base}, {what} {' and '.join(told)} (partial Spearman correlation, 95\u00a0% "
        "interval; p below 0.05 after Holm)."
    )


def _why_not(own: Factors, what: str) -> str:
    """Say why no correlation has a p, although there are subjects enough."""
    free = own.n_targets - own.n_strata - len(TOGETHER)
    if free < 1:
        within = f" in {plural(own.n_strata, 'data set')}" if own.n_strata > 1 else ""
        return f"the targets{within} are too few for {len(TOGETHER)} attributes at once"
    if all(row.rho is None for row in own.rows):
        return (
            f"{what} or all attributes are the same for all targets, or an attribute follows from "
            "the others"
        )
    return "it hangs on single subjects, without whom there is no correlation"


def _told(row: Factor) -> str:
    return f"{NAMES[row.attribute]} ({correlation(row.rho)}, {span(row)})"


def correlation(value: float | None) -> str:
    """Write a correlation with its sign: two decimals."""
    return "–" if value is None else f"{value:+.2f}".replace("-", "−")


def span(row: Factor) -> str:
    """Write the interval of a correlation; nothing where there is none."""
    if row.lo is None or row.hi is None:
        return ""
    return f"{correlation(row.lo)} to {correlation(row.hi)}"


def is_sure(row: Factor) -> bool:
    """Tell whether a correlation is more than chance after correction."""
    return row.p_holm is not None and row.p_holm < SURE


def fifths(n_steps: int) -> tuple[str, ...]:
    """Name the steps of a partial effect by their ranks; fewer than five are of ties."""
    if n_steps == len(FIFTHS):
        return FIFTHS
    return ("lowest", *("between",) * (n_steps - 2), "highest") if n_steps > 1 else ("all",)


def _bars(steps: Sequence[Step], attribute: str, who: str) -> tuple[Bar, ...]:
    return tuple(
        Bar(
            x=100 * (place + 0.5) / len(steps),
            y=100 * (1 - min(1.0, max(0.0, step.dice))),
            low=None if step.lo is None else 100 * (1 - max(0.0, step.lo)),
            high=None if step.hi is None else 100 * (1 - min(1.0, step.hi)),
            label=label,
            base=f"n {count(step.n_targets)}",
            said=f"{label} (values {_value(step.low, attribute)} to "
            f"{_value(step.high, attribute)}): DICE {step.dice:.3f}, "
            f"{plural(step.n_targets, 'target')} of {plural(step.n_units, who)}",
        )
        for place, (label, step) in enumerate(zip(fifths(len(steps)), steps, strict=True))
    )


def _value(value: float, attribute: str) -> str:
    return f"{value:.0f}" if attribute in INTEGERS or value >= 100 else f"{value:.2g}"
