"""Prompts made from a reference follow PROTOCOL decision 3, for every mask there can be."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from promptseg.mask import bounding_box_xyxy
from promptseg.prompt import Points
from promptseg.strategy import (
    STRATEGIES,
    box_and_point,
    centre_pixel_xy,
    negative_points_xy,
    positive_points_xy,
    tight_box,
    window_xyxy,
)

masks = (
    array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24)
    .flatmap(lambda shape: arrays(bool, shape))
    .filter(lambda mask: mask.any())
)


@given(masks)
def test_the_box_holds_the_object_and_no_side_can_move_in(mask: np.ndarray):
    """A tight half-open box: all pixels are inside, and each of its sides touches one."""
    box = tight_box(mask)
    x0, y0, x1, y1 = (int(side) for side in (box.x0, box.y0, box.x1, box.y1))
    inside = mask[y0:y1, x0:x1]

    assert inside.sum() == mask.sum()
    assert inside[0].any()
    assert inside[-1].any()
    assert inside[:, 0].any()
    assert inside[:, -1].any()


@given(masks, st.integers(1, 12))
def test_positive_points_are_distinct_and_on_the_object(mask: np.ndarray, count: int):
    """min(n, area) different pixels of the object, whatever its form."""
    xy = positive_points_xy(mask, count).astype(int)

    assert len(xy) == min(count, mask.sum())
    assert len({tuple(point) for point in xy}) == len(xy)
    assert mask[xy[:, 1], xy[:, 0]].all()


@given(masks, st.integers(1, 12))
def test_positive_points_follow_the_stated_rule(mask: np.ndarray, count: int):
    """The rule once more, pixel by pixel: centre if on the object, then evenly spaced others."""
    pixels = [(x, y) for y in range(mask.shape[0]) for x in range(mask.shape[1]) if mask[y, x]]
    expected = []
    centre = centre_pixel_xy(mask)
    wanted = min(count, len(pixels))
    if centre in pixels:
        expected.append(centre)
        pixels.remove(centre)
    k = wanted - len(expected)
    expected += [pixels[int((i + 0.5) * len(pixels) / k)] for i in range(k)]

    assert [tuple(point) for point in positive_points_xy(mask, count).astype(int)] == expected


@given(masks, st.integers(1, 12))
def test_negative_points_are_distinct_off_the_object_and_in_the_window(
    mask: np.ndarray, count: int
):
    """min(n, available) different pixels near the object; without background there is no prompt."""
    x0, y0, x1, y1 = window_xyxy(mask)
    available = int((~mask[y0:y1, x0:x1]).sum())
    if available == 0:
        with pytest.raises(ValueError, match="no background in the window"):
            negative_points_xy(mask, count)
        return
    xy = negative_points_xy(mask, count).astype(int)

    assert len(xy) == min(count, available)
    assert len({tuple(point) for point in xy}) == len(xy)
    assert not mask[xy[:, 1], xy[:, 0]].any()
    assert ((xy >= (x0, y0)) & (xy < (x1, y1))).all()


@given(masks, st.integers(1, 12))
def test_negative_points_follow_the_stated_rule(mask: np.ndarray, count: int):
    """The rule once more, pixel by pixel."""
    x0, y0, x1, y1 = window_xyxy(mask)
    pixels = [(x, y) for y in range(y0, y1) for x in range(x0, x1) if not mask[y, x]]
    assume(pixels)
    k = min(count, len(pixels))
    expected = [pixels[int((i + 0.5) * len(pixels) / k)] for i in range(k)]

    assert [tuple(point) for point in negative_points_xy(mask, count).astype(int)] == expected


@given(masks)
def test_the_window_is_the_box_enlarged_twice_within_the_image(mask: np.ndarray):
    """Twice the box's sides about its centre, but for rounding and for what lies outside."""
    box = tight_box(mask)
    window = window_xyxy(mask)
    for lo, hi, size, low, high in (
        (box.x0, box.x1, mask.shape[1], window[0], window[2]),
        (box.y0, box.y1, mask.shape[0], window[1], window[3]),
    ):
        centre, reach = (lo + hi) / 2, hi - lo

        assert low == max(0, math.floor(centre - reach))
        assert high == min(size, math.ceil(centre + reach))


def test_points_say_which_of_them_lie_on_the_object():
    """Positive ones come first; their number and the others' is what the record counts."""
    mask = np.zeros((20, 20), dtype=bool)
    mask[6:12, 6:12] = True
    prompt = STRATEGIES["points5+5"].make(mask)
    assert isinstance(prompt, Points)
    on = mask[prompt.xy[:, 1].astype(int), prompt.xy[:, 0].astype(int)]

    assert prompt.positive.tolist() == [True] * 5 + [False] * 5
    np.testing.assert_array_equal(on, prompt.positive)


def test_an_object_of_two_pixels_has_two_positive_points():
    """Fewer than asked for, counted, and never one twice."""
    mask = np.zeros((5, 5), dtype=bool)
    mask[2, 2:4] = True
    prompt = STRATEGIES["points5"].make(mask)
    assert isinstance(prompt, Points)

    assert prompt.positive.tolist() == [True, True]


def test_the_centre_of_a_ring_is_not_prompted():
    """The centre of mass of a ring lies in its hole: another pixel of the ring is taken."""
    ring = np.ones((9, 9), dtype=bool)
    ring[2:7, 2:7] = False
    (point,) = positive_points_xy(ring, 1).astype(int)

    assert centre_pixel_xy(ring) == (4, 4)
    assert ring[point[1], point[0]]


def test_a_single_pixel_gives_a_box_of_one_pixel_and_that_point():
    """The smallest object there is can be prompted."""
    mask = np.zeros((5, 7), dtype=bool)
    mask[3, 6] = True
    prompt = box_and_point(mask)

    assert (prompt.box.x0, prompt.box.y0, prompt.box.x1, prompt.box.y1) == (6, 3, 7, 4)
    np.testing.assert_array_equal(prompt.points.xy, [[6, 3]])
    assert prompt.points.positive.all()


@pytest.mark.parametrize("name", sorted(STRATEGIES.keys() - {"everything"}))
def test_every_strategy_makes_the_kind_of_prompt_it_declares(name: str):
    """`off_protocol` is decided by the declared kind: it has to be true."""
    mask = np.pad(np.ones((4, 4), dtype=bool), 2)

    assert STRATEGIES[name].make(mask).kind == STRATEGIES[name].prompt_kind
    assert STRATEGIES[name].name == name


def test_an_empty_mask_gives_no_box():
    """Nothing to prompt for is said, not guessed."""
    assert bounding_box_xyxy(np.zeros((3, 3), dtype=bool)) is None
    with pytest.raises(ValueError, match="empty"):
        tight_box(np.zeros((3, 3), dtype=bool))
