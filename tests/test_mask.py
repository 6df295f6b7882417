"""Masks survive their compression, bit by bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco

from promptseg.mask import Rle, bounding_box_xyxy, from_rle, to_rle

any_mask = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40).flatmap(
    lambda shape: arrays(bool, shape)
)


@given(any_mask)
def test_every_bit_survives_run_lengths(mask: np.ndarray):
    """Lossless, for any mask and size."""
    np.testing.assert_array_equal(mask, from_rle(to_rle(mask)))


@given(any_mask)
def test_pycocotools_reads_our_run_lengths_as_they_are(mask: np.ndarray):
    """The stored struct is COCO's own, so that nobody needs our code."""
    rle = to_rle(mask)

    np.testing.assert_array_equal(mask, coco.decode({"size": rle["size"], "counts": rle["counts"]}))


def test_run_lengths_that_do_not_fit_their_size_are_refused():
    """A damaged mask must not be scored as another one."""
    whole = to_rle(np.ones((8, 8), dtype=bool))
    with pytest.raises(ValueError, match="9 x 8"):
        from_rle(Rle(size=[9, 8], counts=whole["counts"]))


@pytest.mark.parametrize("size", [[2_000_000, 2_000_000], [-3, 4], [0, 5]])
def test_a_size_that_no_image_has_is_refused_before_it_takes_all_memory(size: list[int]):
    """Pycocotools ends the whole process on some of these."""
    with pytest.raises(ValueError, match="do not describe"):
        from_rle(Rle(size=size, counts="1"))


@given(any_mask)
def test_the_box_is_tight_around_all_pixels(mask: np.ndarray):
    """Half-open, and None when there is no pixel."""
    y, x = np.nonzero(mask)
    expected = (x.min(), y.min(), x.max() + 1, y.max() + 1) if mask.any() else None

    assert bounding_box_xyxy(mask) == expected
    assert bounding_box_xyxy(np.asfortranarray(mask)) == expected


def test_a_mask_without_pixels_has_no_box():
    """Nor has one of no size."""
    assert bounding_box_xyxy(np.zeros((3, 0), dtype=bool)) is None
