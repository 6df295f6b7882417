"""The simulated user clicks by the published rule, checked against another implementation of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.ndimage import distance_transform_edt

from promptseg.clicks import Click, next_click, number_of_clicks, points

pairs = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20).flatmap(
    lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape))
)
Masks = tuple[np.ndarray, np.ndarray]


def by_the_definition(pred: np.ndarray, reference: np.ndarray, before: set) -> Click | None:
    """Look at the whole image, pixel by pixel, without a box and without OpenCV."""
    depths = []
    for wrong in (reference & ~pred, pred & ~reference):
        depth = distance_transform_edt(np.pad(wrong, 1))[1:-1, 1:-1]
        for x, y in before:
            depth[y, x] = 0
        depths.append(depth)
    positive = depths[0].max() > depths[1].max()
    depth = depths[0] if positive else depths[1]
    if depth.max() == 0:
        return None
    y, x = np.argwhere(depth == depth.max())[0]
    return Click(int(x), int(y), bool(positive))


@given(pairs, st.data())
def test_a_click_is_where_the_definition_puts_it(masks: Masks, data: st.DataObject):
    """Whatever the masks and the clicks before."""
    pred, reference = masks
    pixel = st.tuples(
        st.integers(0, pred.shape[1] - 1), st.integers(0, pred.shape[0] - 1), st.booleans()
    )
    before = [Click(*one) for one in data.draw(st.lists(pixel, max_size=5))]

    assert next_click(pred, reference, before) == by_the_definition(
        pred, reference, {(click.x, click.y) for click in before}
    )


@given(pairs)
def test_clicks_go_on_until_every_wrong_pixel_was_clicked(masks: Masks):
    """A model that never changes its mask is clicked on once per wrong pixel, and then left."""
    pred, reference = masks
    given_so_far: list[Click] = []
    while (click := next_click(pred, reference, given_so_far)) is not None:
        assert reference[click.y, click.x] == click.positive
        assert pred[click.y, click.x] != reference[click.y, click.x]
        given_so_far.append(click)

    assert len({(click.x, click.y) for click in given_so_far}) == len(given_so_far)
    assert len(given_so_far) == (pred != reference).sum()


def test_a_large_thin_error_loses_to_a_small_thick_one():
    """It is the depth that counts, not the area; and a tie is a negative click."""
    reference = np.zeros((20, 60), dtype=bool)
    reference[2, :] = True  # 60 pixels missed, one deep
    pred = np.zeros_like(reference)
    pred[10:13, 10:13] = True  # 9 pixels too much, two deep

    assert next_click(pred, reference) == Click(11, 11, positive=False)

    pred[10:13, 10:13] = False
    pred[10, 30] = True

    assert next_click(pred, reference) == Click(30, 10, positive=False)


def test_the_edge_of_the_image_is_an_edge_of_the_object():
    """An object that is cut off is clicked in the middle of what is seen of it."""
    reference = np.zeros((11, 11), dtype=bool)
    reference[:5, :5] = True

    assert next_click(np.zeros_like(reference), reference) == Click(2, 2, positive=True)


def test_masks_of_two_sizes_are_refused():
    """A mask at the model's size is no mask of the image."""
    with pytest.raises(ValueError, match="differ"):
        next_click(np.zeros((4, 4), dtype=bool), np.zeros((5, 4), dtype=bool))


def test_a_prompt_holds_all_clicks_in_their_order():
    """Integer coordinates are pixel centres, as in every prompt."""
    prompt = points([Click(3, 1, positive=True), Click(0, 2, positive=False)])

    assert prompt.xy.tolist() == [[3, 1], [0, 2]]
    assert prompt.positive.tolist() == [True, False]
    with pytest.raises(ValueError, match="at least one"):
        points([])


@pytest.mark.parametrize(
    ("overlaps", "number", "reached"),
    [
        ([0.5, 0.9, 0.2], 2, True),
        ([0.85], 1, True),
        ([0.1, 0.2, 0.3, 0.9], 3, False),
        ([], 3, False),
    ],
)
def test_the_number_of_clicks_is_capped_at_the_most(overlaps, number, reached):
    """A failure counts as the maximum; what comes later is too late."""
    assert number_of_clicks(overlaps, 0.85, 3) == (number, reached)
