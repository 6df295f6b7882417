"""How jitter is drawn: whose lines, on which axes, and of how many subjects."""

import pytest
from test_report import page, text_of
from test_report_studies import studied

from promptseg.report.sloppy import HEIGHT, TOP, Sloppy, sloppy
from promptseg.response import ALL, Level, Response


def response(**known) -> Response:
    """Make a response of two levels; the second loses 0.1 (0.02 to 0.34)."""
    levels = (
        Level(at=5.0, loss=-0.006, lo=-0.03, hi=0.01, n_subjects=7, n_targets=40),
        Level(at=25.0, loss=0.1, lo=0.02, hi=0.34, n_subjects=6, n_targets=38),
    )
    fields = {
        "model": "m", "protocol": "paper", "unit": "class", "strategy": "box",
        "selection": "single", "off_protocol": False, "task": ALL, "mode": "shift",
        "measure": "px", "exact": 0.8, "levels": levels, "radius": 15.0,
    }  # fmt: skip
    return Response(**(fields | known))


def drawn(*found: Response) -> Sloppy:
    """Draw, and have something to draw."""
    made = sloppy(found, several_models=False)
    assert made is not None
    return made


def labels(made: Sloppy) -> list[list[str]]:
    """Give the lines of every chart."""
    return [[trace.label for trace in chart.traces] for chart in made.charts]


def test_every_strategy_has_one_line_and_a_user_s_selection():
    """Three selections of one strategy are one line; where nothing is predicted it is single."""
    three = [response(selection=one) for one in ("oracle", "predicted", "single")]
    other = response(strategy="point1")
    made = drawn(*three, other)

    assert labels(made) == [["box / predicted", "point1 / single"]]
    assert [line.split(":")[0] for line in made.lines] == [
        "m with box / predicted", "m with point1 / single",
    ]  # fmt: skip
    assert len(made.radii) == 4, "the table has all"


def test_more_lines_than_fit_are_several_charts_on_the_same_axes():
    """Six strategies: four, and two."""
    made = drawn(*(response(strategy=f"point{n}") for n in range(6)))
    first, second = made.charts

    assert [len(chart) for chart in labels(made)] == [4, 2]
    assert first.y_ticks == second.y_ticks
    assert first.title.endswith("(pixels), 1 of 2")
    assert (first.n_left_out, second.n_left_out) == (0, 0)


def test_axes_have_round_ticks_and_hold_intervals_whole():
    """Losses of -0.006 to 0.1 with intervals from -0.03 to 0.34: from -0.1 to 0.4."""
    (chart,) = drawn(response()).charts

    assert [text for _, text in chart.y_ticks] == ["−0.1", "0", "0.1", "0.2", "0.3", "0.4"]
    assert [text for _, text in chart.x_ticks] == ["0", "5", "10", "15", "20", "25"]
    zero = next(y for y, text in chart.y_ticks if text == "0")
    tenth = next(y for y, text in chart.y_ticks if text == "0.1")
    last = chart.traces[0].marks[-1]
    assert last.y == pytest.approx(tenth)
    assert last.high == pytest.approx(zero + 3.4 * (tenth - zero))
    assert last.high > TOP
    assert chart.traces[0].marks[0].low == pytest.approx(zero - 0.3 * (tenth - zero))
    assert chart.traces[0].marks[0].low < HEIGHT


def test_titles_tell_units_apart_and_captions_count():
    """Pixels and shares of the size; the levels are of different numbers."""
    pixels, shares = drawn(response(), response(measure="px as rel")).charts

    assert pixels.title == "When the box is shifted (pixels)"
    assert shares.title == "When the box is shifted (share of size, from pixels)"
    assert pixels.base == "6 to 7 subjects, 38 to 40 targets"


def test_one_seed_is_no_average(tmp_path):
    """And the caption counts subjects and targets on the page."""
    text = text_of(page(tmp_path, studied(tmp_path / "r", slope=0.004)))

    assert "Every target is jittered once a level: one seed." in text
    caption = text.split("Under jitter: mean DICE of every task")[1].split("Task")[0]
    assert "averaged over" not in caption
    assert "When the box is shifted (pixels) 12 subjects, 48 targets" in text
