"""Human correction effort: counts known by hand, and what holds for all masks.

Beside these, 400 pairs of random blobs were compared with the published code: all four counts are
the same in each where its one reversed join is put right.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from promptseg.effort import Effort, correction_effort

pairs = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40).flatmap(
    lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape))
)


def square(y: int, x: int, side: int, shape: tuple[int, int] = (100, 100)) -> np.ndarray:
    """Draw a filled square."""
    mask = np.zeros(shape, dtype=bool)
    mask[y : y + side, x : x + side] = True
    return mask


@given(pairs)
@settings(max_examples=200)
def test_effort_is_nothing_for_the_reference_and_never_negative(masks):
    """Whatever the masks: of one pixel, of the whole image, empty."""
    pred, reference = masks
    found = correction_effort(pred, reference)

    assert correction_effort(reference, reference) == Effort(0, 0, 0, 0)
    assert min(getattr(found, name) for name in found.__slots__) >= 0


@given(pairs, st.integers(1, 3))
@settings(max_examples=100)
def test_effort_does_not_depend_on_where_the_object_lies(masks, by: int):
    """Background around both masks changes nothing (an object at the edge loses that edge)."""
    pred, reference = (np.pad(mask, 8) for mask in masks)
    moved = [np.pad(mask, ((by, 0), (0, by))) for mask in (pred, reference)]

    assert correction_effort(*moved) == correction_effort(pred, reference)


def test_a_missed_square_is_an_octagon():
    """It touches the outside all round, so that its border is drawn; growing back cuts corners.

    Eight vertices, and the last of them where the line began.
    """
    reference = square(30, 30, 40)

    assert correction_effort(np.zeros_like(reference), reference) == Effort(0, 0, 9, 0)


def test_an_island_too_much_is_one_click():
    """It touches nothing that is right: away with it as a whole."""
    reference = square(10, 10, 20)
    pred = reference | square(60, 60, 25)

    assert correction_effort(pred, reference) == Effort(0, 1, 0, 0)


def test_a_hole_in_the_answer_is_one_click():
    """A missed part that touches no outside is filled, not drawn."""
    reference = square(10, 10, 70)
    pred = reference & ~square(30, 30, 25)

    assert correction_effort(pred, reference) == Effort(0, 0, 0, 1)


def test_errors_as_thin_as_a_hair_are_let_go():
    """A square one pixel too large costs nothing; twelve too large costs its drawing."""
    reference = square(30, 30, 30)

    assert correction_effort(square(29, 29, 32), reference).total == 0
    assert correction_effort(square(18, 18, 54), reference).false_positive_points >= 4


def test_a_thin_branch_is_missed_by_its_skeleton():
    """Two pixels wide and lost: it would be let go but for the skeleton that it breaks."""
    reference = square(20, 20, 30)
    whole = reference.copy()
    whole[34:36, 50:90] = True

    assert correction_effort(reference, whole).total > 0


def test_more_corners_are_more_effort():
    """A missed star takes more vertices than a missed square."""
    y, x = np.mgrid[:120, :120] - 60
    angle, radius = np.arctan2(y, x), np.hypot(y, x)
    star = radius < 30 + 15 * np.cos(7 * angle)
    nothing = np.zeros_like(star)

    assert (
        correction_effort(nothing, star).total
        > 2 * correction_effort(nothing, square(30, 30, 60, star.shape)).total
    )


def test_masks_of_two_sizes_are_refused():
    """The effort of another image is no answer."""
    with pytest.raises(ValueError, match="differ"):
        correction_effort(square(0, 0, 2), square(0, 0, 2, (50, 50)))
