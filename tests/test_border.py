"""Distances between borders: to the last bit those of the plain rule, however they are found."""

import cv2
import numpy as np
import pytest
from scipy.spatial import KDTree
from test_metric import SPACINGS_YX, at, random_pairs

from promptseg import border
from promptseg.border import between, rims, side_by_side
from promptseg.mask import bounding_box_xyxy
from promptseg.metric import border_distances, boundary_band_px, boundary_iou

CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=np.uint8)
# what pixels of real scans measure, and more extreme shapes than any has
SPACINGS = [*SPACINGS_YX, (0.8105469942092896,) * 2, (0.05, 20.0), (17.0, 0.06)]


@pytest.fixture(params=["table", "trees"])
def measured_by(request, monkeypatch):
    """Have all masks measured in one of the two ways, whatever the length of their borders."""
    monkeypatch.setattr(border, "_MOST_PAIRS", {"table": 10**9, "trees": 0}[request.param])


def plainly(mask, neighbours, steps):
    """Take from a mask what is left of it when it is eroded by OpenCV."""
    core = cv2.erode(
        np.ascontiguousarray(mask, dtype=np.uint8),
        neighbours,
        iterations=steps,
        borderType=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    return mask & (core == 0)


def by_trees(pred, reference, spacing_yx):
    """Distances as they were measured first: by a tree over each border, on the cropped masks."""
    x0, y0, x1, y1 = bounding_box_xyxy(pred | reference)
    places = [
        np.argwhere(plainly(mask[y0:y1, x0:x1], CROSS, 1)) * np.array(spacing_yx)
        for mask in (pred, reference)
    ]
    return KDTree(places[1]).query(places[0])[0], KDTree(places[0]).query(places[1])[0]


def by_all_pairs(pred, reference, spacing_yx):
    """Distances of every border pixel to every other, and the least of them."""
    there, back = (np.argwhere(rim) * np.array(spacing_yx) for rim in (pred, reference))
    squares = np.sum((there[:, None] - back[None]) ** 2, axis=2)
    return np.sqrt(squares.min(axis=1)), np.sqrt(squares.min(axis=0))


def same(found, expected):
    """Tell whether both directions are equal to the last bit."""
    return all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(("n", "low", "high"), [(1500, 3, 9), (600, 8, 40), (60, 100, 220)])
def test_distances_equal_those_of_trees_to_the_last_bit(measured_by, n, low, high):
    """Records of a run do not depend on the release that wrote them.

    Single rows, single pixels, noise, and masks that are cut off by the image are among the pairs.
    """
    rng = np.random.default_rng(4)
    unequal = 0
    for pred, reference, _ in random_pairs(n, 6, low, high):
        spacing_yx = SPACINGS[rng.integers(len(SPACINGS))]
        found = border_distances(pred, reference, spacing_yx)
        assert found is not None
        expected = by_trees(pred, reference, spacing_yx)
        unequal += not same((found.from_pred, found.from_reference), expected)

    assert unequal == 0


def test_distances_equal_the_least_of_all_pairs_to_the_last_bit(measured_by):
    """Of equally near pixels, rounding makes one the nearest: it is that one's distance."""
    rng = np.random.default_rng(5)
    for pred, reference, _ in random_pairs(400, 8, 4, 24):
        spacing_yx = SPACINGS[rng.integers(len(SPACINGS))]
        canvas = side_by_side(pred, reference)
        assert canvas is not None
        rim = rims(canvas)
        expected = by_all_pairs(rim[1:, 0], rim[1:, 1], spacing_yx)

        assert same(between(rim, spacing_yx), expected)


def test_far_apart_and_of_one_pixel(measured_by):
    """The corners of a large image, where columns and rows between are empty."""
    pred, reference = at((700, 900), (0, 0)), at((700, 900), (699, 899))
    found = border_distances(pred, reference, (0.3, 0.4))

    assert found is not None
    assert found.hd == np.hypot(699 * 0.3, 899 * 0.4)


def test_long_borders_are_measured_by_trees(monkeypatch):
    """A table of all pairs would take memory by the square of their length."""
    called = []
    trees = border._by_tree
    monkeypatch.setattr(border, "_by_tree", lambda *yx: called.append(1) or trees(*yx))
    small, large = np.zeros((2, 400, 400), dtype=bool)
    small[50:90, 60:120] = large[50:350, 60:360] = True

    border_distances(small, small)
    assert called == []
    border_distances(large, large)
    assert called == [1, 1]


@pytest.mark.parametrize(("low", "high"), [(3, 9), (8, 40), (60, 220)])
def test_bands_equal_those_of_opencv(low, high):
    """Wider than the mask, wider than the crop, and of several pixels."""
    for pred, reference, _ in random_pairs(150, 9, low, high):
        steps = boundary_band_px(*pred.shape)
        a, b = (plainly(mask, np.ones((3, 3), np.uint8), steps) for mask in (pred, reference))

        assert boundary_iou(pred, reference) == np.sum(a & b) / np.sum(a | b)


def test_masks_that_are_views_are_measured_as_their_copies():
    """A mask may be a part of another, turned, or from a file that cannot be written."""
    rng = np.random.default_rng(3)
    whole = rng.random((40, 60)) < 0.3
    views = whole[5:30, 7:40], whole[30:5:-1, 40:7:-1]
    copies = [np.ascontiguousarray(view) for view in views]
    found, expected = border_distances(*views, (0.7, 1.1)), border_distances(*copies, (0.7, 1.1))

    assert found is not None
    assert expected is not None
    assert np.array_equal(found.from_pred, expected.from_pred)
    assert np.array_equal(found.from_reference, expected.from_reference)
