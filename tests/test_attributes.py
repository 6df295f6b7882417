"""Attributes of targets: against shapes whose answer is known, and on hostile masks."""

import math
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from promptseg.attributes import (
    HIGHEST,
    NAMES,
    attributes_of,
    contrast,
    fourier_order,
    fourier_order_paper,
)

POINTS = range(3, 17)
DEPTHS = (0.2, 0.3, 0.4, 0.5)
RADII = (4, 4.5, 5, 6, 7, 8, 10, 12, 16, 20, 32, 50, 75, 100)


def disc(radius: float) -> np.ndarray:
    """Draw a disc whose centre lies on no pixel's."""
    side = math.ceil(2 * radius) + 9
    y, x = np.mgrid[:side, :side] - (side / 2 + 0.2)
    return x**2 + y**2 <= radius**2


def star(points: int, depth: float, radius: float = 40) -> np.ndarray:
    """Draw a polygon of 2 k corners, every second of which is drawn in by a share of the radius."""
    turn = np.arange(2 * points) * np.pi / points + 0.3
    reach = np.where(np.arange(2 * points) % 2 == 0, radius, radius * (1 - depth))
    side = math.ceil(2 * radius) + 20
    corners = side / 2 + np.stack([reach * np.cos(turn), reach * np.sin(turn)], axis=1)
    drawn = np.zeros((side, side), np.uint8)
    cv2.fillPoly(drawn, [np.round(corners * 256).astype(np.int32)], (1,), shift=8)
    return drawn.astype(bool)


def grey(mask: np.ndarray, inside: int, outside: int) -> np.ndarray:
    """Show a mask in two grey values."""
    return np.repeat(np.where(mask, inside, outside).astype(np.uint8)[..., None], 3, axis=2)


def order_rank(rule: Callable[[np.ndarray], float | None], radius: float) -> float:
    """Rank stars by a rule, and compare with the number of their points."""
    found = [rule(star(k, depth, radius)) for depth in DEPTHS for k in POINTS]
    return float(spearmanr([k for _ in DEPTHS for k in POINTS], found)[0])


@pytest.mark.parametrize("radius", [20, 40, 80])
def test_the_corrected_order_ranks_stars_by_their_points(radius):
    """At every size, over a grid of depths and numbers of points."""
    assert order_rank(lambda mask: fourier_order(mask)[0], radius) >= 0.95


@pytest.mark.parametrize("radius", [20, 40, 80])
def test_the_papers_order_does_not_rank_them(radius):
    """It stops on the plateau before a star's points come in: the published rule's failure."""
    assert abs(order_rank(fourier_order_paper, radius)) < 0.5
    assert order_rank(fourier_order_paper, radius) < order_rank(
        lambda mask: fourier_order(mask)[0], radius
    )


def test_a_star_of_k_points_takes_about_k_orders():
    """Its points come in with the order k + 1 where it is smooth, and near it with corners."""
    found = [fourier_order(star(k, 0.3, 60))[0] for k in POINTS]

    assert np.abs(np.array(found) - np.array(POINTS)).max() <= 2


def test_the_corrected_order_of_a_disc_does_not_depend_on_its_size():
    """Discs of radius 4 to 100 have orders within 1 of each other; the paper's have not."""
    own = [fourier_order(disc(radius))[0] for radius in RADII]
    paper = [fourier_order_paper(disc(radius)) for radius in RADII]

    assert np.ptp(own) <= 1
    assert np.ptp(paper) > 3


def test_the_corrected_order_of_a_star_hardly_depends_on_its_size():
    """Three sizes, four shapes."""
    for points, depth in ((5, 0.4), (8, 0.3), (11, 0.3), (14, 0.2)):
        found = [fourier_order(star(points, depth, radius))[0] for radius in (30, 60, 120)]

        assert np.ptp(found) <= 2, (points, depth, found)


def test_orders_of_components_are_averaged_by_area():
    """A large disc and a small star: the disc decides."""
    large, small = disc(40), star(7, 0.4, 12)
    both = np.zeros((160, 160), bool)
    both[2 : 2 + large.shape[0], 2 : 2 + large.shape[1]] |= large
    both[110 : 110 + small.shape[0], 110 : 110 + small.shape[1]] |= small
    areas, orders = (large.sum(), small.sum()), (fourier_order(large)[0], fourier_order(small)[0])

    found, censored = fourier_order(both)

    assert found == pytest.approx(np.average(orders, weights=areas))
    assert not censored


def test_what_needs_more_than_the_highest_order_is_censored():
    """A comb of 40 teeth."""
    comb = np.zeros((120, 420), bool)
    comb[10:30, 10:410] = True
    for tooth in range(40):
        comb[30:110, 10 + 10 * tooth : 13 + 10 * tooth] = True

    assert fourier_order(comb) == (HIGHEST, True)


def test_thin_parts_of_a_large_component_are_not_lost():
    """A comb of teeth of one pixel, 400 pixels long, is no rectangle."""
    comb = np.zeros((460, 500), bool)
    comb[10:50, 10:490] = True
    comb[50:450, 10:490:12] = True

    order, censored = fourier_order(comb)

    assert censored or order > 20


def test_a_component_of_few_pixels_has_no_order():
    """Its contour says more of the grid than of it."""
    few = np.zeros((20, 20), bool)
    few[3:8, 3:8] = True

    assert fourier_order(few) == (None, False)
    assert fourier_order_paper(few) is None


def test_contrast_is_that_to_the_box_a_tenth_larger():
    """100 inside, 40 in the ring, 255 beyond it: only the ring counts."""
    mask = np.zeros((100, 100), bool)
    mask[40:60, 30:60] = True
    image = grey(mask, 100, 255)
    image[38:62, 27:63][~mask[38:62, 27:63]] = 40

    assert contrast(image, mask) == (60, None)  # and no noise to compare it with


def test_contrast_to_noise_is_over_the_pooled_deviation():
    """Against the formula, on noise."""
    rng = np.random.default_rng(3)
    mask = np.zeros((100, 100), bool)
    mask[20:70, 20:70] = True
    values = np.where(mask, rng.normal(150, 12, mask.shape), rng.normal(90, 20, mask.shape))
    image = np.repeat(values.round().astype(np.uint8)[..., None], 3, axis=2)
    near = image[15:75, 15:75, 0].astype(float)
    inside, outside = near[mask[15:75, 15:75]], near[~mask[15:75, 15:75]]

    difference, ratio = contrast(image, mask)

    assert difference == pytest.approx(inside.mean() - outside.mean())
    assert ratio == pytest.approx(difference / np.sqrt((inside.var() + outside.var()) / 2))
    assert ratio == pytest.approx(60 / np.sqrt((12**2 + 20**2) / 2), rel=0.1)


def test_a_target_that_fills_the_image_has_no_contrast():
    """There is nothing around it."""
    mask = np.ones((12, 9), bool)
    found = attributes_of(grey(mask, 9, 0), mask)

    assert (found.intensity_difference, found.contrast_to_noise) == (None, None)
    assert (found.area_share, found.border_distance_px) == (1.0, 0)


def test_components_holes_aspect_and_border():
    """A square with a hole, and a bar beside it, three pixels from the edge."""
    mask = np.zeros((60, 90), bool)
    mask[3:43, 10:50] = True
    mask[20:25, 20:25] = False
    mask[10:20, 60:80] = True

    found = attributes_of(grey(mask, 200, 100), mask)

    assert (found.n_components, found.n_holes) == (2, 1)
    assert found.area_px == 40 * 40 - 25 + 200
    assert found.aspect_ratio == pytest.approx(40 / 70)
    assert found.border_distance_px == 3


def test_pixels_that_meet_at_a_corner_are_one_component_and_enclose_a_hole():
    """Objects are 8-connected, so that their background is 4-connected."""
    ring = np.zeros((5, 5), bool)
    ring[1, 2] = ring[2, 1] = ring[2, 3] = ring[3, 2] = True

    found = attributes_of(grey(ring, 1, 0), ring)

    assert (found.n_components, found.n_holes) == (1, 1)


@pytest.mark.parametrize(("mask", "value"), [(disc(40), 1.0), (star(5, 0.5, 60), None)])
def test_a_disc_is_compact_and_a_star_is_not(mask, value):
    """4 pi A / P^2 of a disc is 1; of the star it follows from its corners."""
    found = attributes_of(grey(mask, 1, 0), mask).compactness
    if value is None:
        turn = np.arange(10) * np.pi / 5
        corners = np.where(np.arange(10) % 2 == 0, 60, 30)[:, None] * np.stack(
            [np.cos(turn), np.sin(turn)], axis=1
        )
        sides = np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1)
        x, y = corners.T
        area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
        value = 4 * np.pi * area / sides.sum() ** 2

    assert found == pytest.approx(value, rel=0.05)


@given(
    st.integers(1, 24),
    st.integers(1, 24),
    st.floats(0, 1),
    st.integers(0, 2**32 - 1),
)
def test_any_mask_that_is_not_empty_has_attributes(height, width, share, seed):
    """Noise of any density, lines of one pixel, single pixels: finite numbers or None."""
    rng = np.random.default_rng(seed)
    mask = rng.random((height, width)) < share
    mask[rng.integers(height), rng.integers(width)] = True
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)

    found = attributes_of(image, mask)

    for name in NAMES:
        value = getattr(found, name)
        assert value is None or np.isfinite(value), name
    assert found.fourier_order is None or 1 <= found.fourier_order <= HIGHEST
    assert found.n_holes >= 0


@pytest.mark.parametrize("across", [1, 2])
def test_a_thin_line_has_an_order(across):
    """One pixel wide, which smoothing must not wash away."""
    mask = np.zeros((70, 70), bool)
    mask[20 : 20 + across, 5:65] = True

    order, censored = fourier_order(mask)

    assert order is not None
    assert order <= 20  # a rectangle is no ellipse
    assert not censored


def test_shape_does_not_depend_on_where_a_target_lies():
    """The same star in two places of two images."""
    own = star(7, 0.4)
    here, there = np.zeros((200, 300), bool), np.zeros((150, 120), bool)
    here[90 : 90 + own.shape[0], 180 : 180 + own.shape[1]] = own
    there[: own.shape[0], : own.shape[1]] = own
    first, second = (attributes_of(grey(m, 9, 4), m) for m in (here, there))

    for name in set(NAMES) - {"area_share", "border_distance_px"}:
        assert getattr(first, name) == getattr(second, name), name


def test_an_empty_mask_and_one_of_another_size_are_refused():
    """Neither has attributes."""
    with pytest.raises(ValueError, match="empty"):
        attributes_of(np.zeros((5, 5, 3), np.uint8), np.zeros((5, 5), bool))
    with pytest.raises(ValueError, match="image"):
        attributes_of(np.zeros((5, 6, 3), np.uint8), np.ones((5, 5), bool))
