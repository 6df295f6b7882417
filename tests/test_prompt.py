"""Prompts are values that survive a round trip through JSON."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptseg.prompt import Box, BoxPoints, Points, box_of, from_json, points_of, to_json

coordinate = st.floats(0, 4096, allow_nan=False, width=32)
boxes = st.builds(
    lambda x, y, w, h: Box(x, y, x + w, y + h),
    coordinate,
    coordinate,
    st.floats(1, 512, width=32),
    st.floats(1, 512, width=32),
)
points = st.lists(st.tuples(coordinate, coordinate, st.booleans()), min_size=1, max_size=8).map(
    lambda rows: Points(
        np.array([row[:2] for row in rows], dtype=np.float64), np.array([row[2] for row in rows])
    )
)


@given(boxes | points | st.builds(BoxPoints, boxes, points))
def test_a_prompt_is_the_same_after_a_round_trip_through_json(prompt: Box | Points | BoxPoints):
    """Runs keep prompts as JSON: nothing may be lost, to the last digit."""
    again = from_json(to_json(prompt))

    assert again.kind == prompt.kind
    assert box_of(again) == box_of(prompt)
    ours, theirs = points_of(prompt), points_of(again)
    assert (ours is None) == (theirs is None)
    if ours is not None and theirs is not None:
        np.testing.assert_array_equal(ours.xy, theirs.xy)
        np.testing.assert_array_equal(ours.positive, theirs.positive)


@pytest.mark.parametrize(
    "corners", [(3, 3, 3, 9), (3, 9, 8, 9), (5, 0, 2, 9), (0, 0, float("nan"), 3)]
)
def test_a_box_without_a_pixel_is_refused(corners: tuple[float, float, float, float]):
    """An empty box asks for nothing; a model's answer to it would mean nothing."""
    with pytest.raises(ValueError, match="is empty"):
        Box(*corners)


def test_points_have_to_be_some_and_finite():
    """No point, or one at infinity, is no prompt."""
    with pytest.raises(ValueError, match="at least one"):
        Points(np.empty((0, 2)), np.empty(0, dtype=bool))
    with pytest.raises(ValueError, match="finite"):
        Points(np.array([[np.inf, 1.0]]), np.array([True]))


def test_an_unknown_kind_of_prompt_is_named():
    """A run of a later version must not be misread."""
    with pytest.raises(ValueError, match="'scribble'"):
        from_json('{"kind":"scribble"}')
