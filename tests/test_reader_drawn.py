"""Outlines become what they enclose, and cropped masks come to their place."""

import numpy as np
import pytest
from skimage.draw import ellipse_perimeter

from promptseg.errors import DataError
from promptseg.reader.drawn import filled, placed
from promptseg.reader.image import RawMask


def outline_of(*centres, size=(80, 120), radii=(18, 22)):
    """Draw thin ellipses."""
    lines = np.zeros(size, np.uint8)
    for y, x in centres:
        lines[ellipse_perimeter(y, x, *radii)] = 255
    return lines


def test_what_an_outline_encloses_is_the_object_with_the_line():
    """As large as the ellipse, in the value of the line."""
    lines = outline_of((40, 50))
    (labels,) = filled(lines)
    y, x = np.mgrid[:80, :120]
    inside = ((y - 40) / 18.5) ** 2 + ((x - 50) / 22.5) ** 2 <= 1

    assert set(np.unique(labels)) == {0, 255}
    assert (labels[lines > 0] == 255).all()
    assert np.count_nonzero((labels > 0) ^ inside) <= 0.02 * np.count_nonzero(inside)


def test_two_outlines_are_one_object_or_two_instances():
    """Instances are numbered as lines come."""
    lines = outline_of((30, 30), (40, 90))

    assert [sorted(set(np.unique(a))) for a in filled(lines)] == [[0, 255]]
    assert [sorted(set(np.unique(a))) for a in filled(lines, instances=True)] == [[0, 1, 2]]


def test_outlines_within_outlines_keep_all_their_pixels():
    """A nucleus in its cell: two arrays, since one cannot hold both."""
    lines = outline_of((40, 60), radii=(30, 40)) | outline_of((40, 60), radii=(8, 8))
    outer, inner = filled(lines, instances=True)

    assert (outer[40, 60], inner[40, 60]) == (1, 2)
    assert np.count_nonzero(outer == 1) > 3000
    assert 150 < np.count_nonzero(inner == 2) < 300


def test_lines_of_several_values_keep_their_value():
    """Two objects in one file, each in its grey."""
    lines = np.maximum(outline_of((30, 30)) // 3, outline_of((40, 90)))
    (labels,) = filled(lines)

    assert (labels[30, 30], labels[40, 90]) == (85, 255)


@pytest.mark.parametrize("thick", [1, 2])
def test_a_line_with_a_gap_has_a_reason(thick):
    """Nobody can say what it encloses; a hole in the line itself is not it."""
    lines = outline_of((40, 50))
    if thick == 2:
        lines |= np.roll(lines, 2, axis=1)
    lines[35:46, 60:] = 0

    with pytest.raises(DataError, match="no closed outline"):
        filled(lines)


def test_a_filled_mask_is_no_outline():
    """Taking a mask for an outline is a mistake in the mapping file, which shows."""
    with pytest.raises(DataError, match="no closed outline"):
        filled((np.indices((40, 40)).sum(axis=0) > 40).astype(np.uint8))


def test_no_line_is_no_object():
    """An empty mask stays one."""
    (labels,) = filled(np.zeros((5, 5), np.uint8))

    assert not labels.any()


def test_a_cropped_mask_lies_where_its_corner_is():
    """Rows from the top, columns from the left, half-open."""
    raw = placed(RawMask(np.full((2, 3), 7, np.uint8)), (1, 4), (5, 7))

    assert raw.values.shape == (5, 7)
    assert (raw.values[1:3, 4:7] == 7).all()
    assert raw.values.sum() == 6 * 7


@pytest.mark.parametrize("corner", [(-1, 0), (0, -1), (4, 0), (0, 5), (10**9, 0), (-(10**9), 0)])
def test_a_corner_that_puts_a_mask_outside_its_image_has_a_reason(corner):
    """Nothing is cut off silently, and a negative index must not count from the end."""
    with pytest.raises(DataError, match="is not within its image, 7 x 5"):
        placed(RawMask(np.ones((2, 3), np.uint8)), corner, (5, 7))
