"""Jitter: the law of PROTOCOL decision 10, measured on what comes out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phantom import disc
from scipy import stats

from promptseg.errors import DataError
from promptseg.jitter import MOVES, Jitter, jittered, parse_jitter, stream
from promptseg.prompt import Box, BoxPoints, Points, Prompt, box_of, points_of
from promptseg.record import Record
from promptseg.stats import jitter_label
from promptseg.strategy import STRATEGIES

LARGE = np.zeros((400, 500), dtype=bool)
LARGE[180:230, 200:280] = True
DRAWS = 2000


def _prompt(name: str, mask: np.ndarray = LARGE) -> Prompt:
    make = STRATEGIES[name].make
    assert make is not None
    return make(mask)


def _many(name: str, jitter: Jitter) -> list[Prompt]:
    prompt = _prompt(name)
    return [jittered(prompt, jitter, LARGE, stream(s, "i", "t", name)) for s in range(DRAWS)]


def _corners(prompt: Prompt) -> np.ndarray:
    box = box_of(prompt)
    assert box is not None
    return np.array([box.x0, box.y0, box.x1, box.y1])


def _xy(prompt: Prompt) -> np.ndarray:
    points = points_of(prompt)
    assert points is not None
    return points.xy


def _is_uniform(values: np.ndarray, lo: float, hi: float) -> bool:
    """Test by Kolmogorov and Smirnov; the draws are fixed, so this passes always or never."""
    return bool(stats.kstest(values, "uniform", (lo, hi - lo)).pvalue > 0.001)


def test_shift_moves_both_corners_by_one_vector_of_uniform_length_and_direction():
    """A box that is moved as a whole: its size stays."""
    moves = np.array([_corners(p) for p in _many("box", Jitter("shift", "px", 10, 20))])
    moves = moves - _corners(_prompt("box"))
    length = np.hypot(moves[:, 0], moves[:, 1])

    np.testing.assert_allclose(moves[:, :2], moves[:, 2:])
    assert length.min() >= 10
    assert length.max() < 20
    assert _is_uniform(length, 10, 20)
    assert _is_uniform(np.arctan2(moves[:, 1], moves[:, 0]), -np.pi, np.pi)


def test_edge_moves_every_edge_by_its_own_signed_distance():
    """Four independent draws, in either direction."""
    moves = np.array([_corners(p) for p in _many("box", Jitter("edge", "px", 5, 9))])
    moves = moves - _corners(_prompt("box"))

    assert _is_uniform(np.abs(moves).ravel(), 5, 9)
    assert abs((moves > 0).mean() - 0.5) < 0.02
    assert np.abs(np.corrcoef(moves.T) - np.eye(4)).max() < 0.07


def test_centre_moves_the_first_point_and_all_moves_every_point():
    """The study's pattern comes back only where the centre alone is moved (PROTOCOL section 5)."""
    exact = _xy(_prompt("points5+5"))
    centre = np.array([_xy(p) for p in _many("points5+5", Jitter("centre", "px", 20, 30))]) - exact
    every = np.array([_xy(p) for p in _many("points5+5", Jitter("all", "px", 20, 30))]) - exact

    assert (centre[:, 1:] == 0).all()
    assert _is_uniform(np.hypot(*centre[:, 0].T), 20, 30)
    assert _is_uniform(np.hypot(*every.reshape(-1, 2).T), 20, 30)
    assert np.abs(np.corrcoef(every[:, :, 0].T) - np.eye(10)).max() < 0.08


def test_of_box_and_point_only_what_the_mode_names_is_moved():
    """The other part stays where it was."""
    prompt = _prompt("box+point")
    rng = np.random.default_rng(0)
    shifted = jittered(prompt, Jitter("shift", "px", 5, 10), LARGE, rng)
    clicked = jittered(prompt, Jitter("centre", "px", 5, 10), LARGE, rng)

    assert (_xy(shifted) == _xy(prompt)).all()
    assert (_corners(shifted) != _corners(prompt)).all()
    assert (_xy(clicked) != _xy(prompt)).all()
    assert (_corners(clicked) == _corners(prompt)).all()


def test_a_relative_jitter_is_a_fraction_of_the_square_root_of_the_area():
    """An object four times as large is missed by twice the distance."""
    for radius in (10, 20, 40):
        mask = disc(300, 300, (150, 150), radius)
        jitter = Jitter("shift", "rel", 0.5, 0.501)
        box = _prompt("box", mask)
        moved = _corners(jittered(box, jitter, mask, np.random.default_rng(1))) - _corners(box)

        assert np.hypot(*moved[:2]) == pytest.approx(0.5 * np.sqrt(mask.sum()), rel=3e-3)


jitters = st.builds(
    lambda mode, unit, lo, width: Jitter(mode, unit, lo / 10, (lo + width) / 10),
    st.sampled_from(list(MOVES)),
    st.sampled_from(["px", "rel"]),
    st.integers(0, 600),
    st.integers(5, 600),
)


@given(jitters, st.integers(0, 2**32), st.integers(1, 30), st.integers(1, 30), st.data())
def test_every_prompt_stays_in_the_image_with_at_least_one_pixel(
    jitter: Jitter, seed: int, height: int, width: int, data: st.DataObject
):
    """However far it was thrown, and however small the image."""
    mask = np.zeros((height, width), dtype=bool)
    y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    mask[y:, x:] = True
    for name in ("points5", "box", "box+point"):
        prompt = _prompt(name, mask)
        if not jitter.moves(STRATEGIES[name].prompt_kind):
            continue
        moved = jittered(prompt, jitter, mask, np.random.default_rng(seed))
        assert type(moved) is type(prompt)
        if (points := points_of(moved)) is not None:
            assert (points.xy >= 0).all()
            assert (points.xy <= [width - 1, height - 1]).all()
            assert len(points.xy) == len(_xy(prompt))
        if (box := box_of(moved)) is not None:
            assert 0 <= box.x0 <= box.x1 - 1 <= width - 1
            assert 0 <= box.y0 <= box.y1 - 1 <= height - 1


def test_edges_that_cross_leave_one_pixel_between_them():
    """A box that was turned inside out is no box, and no empty one either."""
    mask = np.zeros((50, 50), dtype=bool)
    mask[24:26, 24:26] = True
    boxes = [
        jittered(Box(24, 24, 26, 26), Jitter("edge", "px", 8, 9), mask, np.random.default_rng(s))
        for s in range(200)
    ]
    sides = np.array([[c[2] - c[0], c[3] - c[1]] for c in map(_corners, boxes)])

    assert sides.min() == 1
    assert (sides == 1).mean() > 0.1


def test_a_stream_belongs_to_what_it_is_of():
    """Seed, image, target and strategy make it; nothing else, so that no order can change it."""
    names = [(0, "i", "t", "box"), (1, "i", "t", "box"), (0, "j", "t", "box"),
             (0, "i", "u", "box"), (0, "i", "t", "box+point")]  # fmt: skip
    drawn = [stream(*name).random() for name in names]

    assert len(set(drawn)) == len(names)
    assert drawn[0] == stream(*names[0]).random()


def test_levels_of_jitter_share_directions_and_quantiles():
    """A response curve compares like with like: the same throw, farther."""
    box = _prompt("box")
    near, far = (
        _corners(jittered(box, Jitter("shift", "px", lo, lo + 10), LARGE, stream(3, "i", "t", "b")))
        - _corners(box)
        for lo in (0, 10)
    )

    assert np.hypot(*far[:2]) == pytest.approx(np.hypot(*near[:2]) + 10)
    assert np.arctan2(*far[:2]) == pytest.approx(np.arctan2(*near[:2]))


@given(st.integers(0, 99_999_999), st.integers(1, 99_999_999))
def test_no_digit_of_a_level_is_lost_in_its_name(lo: int, width: int):
    """Two levels never share a name, and every name can be read: a run is repeated by it."""
    if lo + width < 100_000_000:
        jitter = Jitter("edge", "rel", lo / 1000, (lo + width) / 1000)

        assert parse_jitter(str(jitter)) == jitter
        assert _label(jitter) == str(jitter)


@pytest.mark.parametrize("text", ["shift:px:10-20", "edge:rel:0.05-0.1", "centre:px:0-10"])
def test_the_words_of_the_command_line_are_read_and_written_back(text: str):
    """Run, report and command line call a level the same."""
    jitter = parse_jitter(text)
    frame = Record.__dataclass_fields__.keys() & {"jitter_mode", "jitter_unit"}

    assert str(jitter) == text
    assert len(frame) == 2
    assert _label(jitter) == text


def _label(jitter: Jitter) -> str:
    import polars as pl

    columns = {f"jitter_{name}": [getattr(jitter, name)] for name in ("mode", "unit", "lo", "hi")}
    return str(pl.DataFrame(columns).select(jitter_label()).item())


@pytest.mark.parametrize(
    "text",
    ["shift", "shift:px", "shift:px:10", "shift:mm:1-2", "push:px:1-2", "shift:px:20-10",
     "shift:px:5-5", "shift:px:1.00001-2", "shift:px:1-1000000", "shift:px:-1-2",
     "shift:px:1e3-1e4", "", "shift:px:1-2:3"],
)  # fmt: skip
def test_what_is_no_jitter_is_refused_in_one_line(text: str):
    """The line shows the form, or what is wrong with the range."""
    with pytest.raises(DataError) as caught:
        parse_jitter(text)

    assert "\n" not in str(caught.value)
    assert text in str(caught.value)


def test_a_mode_that_moves_nothing_is_an_error_not_a_copy():
    """A jitter of the box does not pass for one of points."""
    points = Points(np.array([[5.0, 5.0]]), np.array([True]))
    for prompt, mode in ((points, "shift"), (points, "edge"), (Box(1, 1, 4, 4), "centre")):
        with pytest.raises(ValueError, match="moves nothing"):
            jittered(prompt, Jitter(mode, "px", 1, 2), LARGE, np.random.default_rng(0))
    both = BoxPoints(Box(1, 1, 4, 4), points)
    for mode in MOVES:
        jittered(both, Jitter(mode, "px", 1, 2), LARGE, np.random.default_rng(0))
