"""What is told of an enlarged map without enlarging it is true of it, to the last bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_everything import geometries, scribbled

from promptseg.bounds import Bounds, enlargement
from promptseg.everything import stability_score
from promptseg.mask import bounding_box_xyxy
from promptseg.model import Canvas, logits_at

Geometry = tuple[tuple[int, int], Canvas | None, tuple[int, int]]


def _both(seed: int, geometry: Geometry, scale: float = 1.0) -> tuple[Bounds, np.ndarray]:
    """Draw a map; give its bounds, and itself enlarged."""
    map_hw, canvas, image_hw = geometry
    logits = scribbled(np.random.default_rng(seed), (1, *map_hw)) * np.float32(scale)
    how = enlargement(map_hw, canvas, image_hw)
    return Bounds(logits[0], how), logits_at(logits, canvas, image_hw)[0]


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    box = bounding_box_xyxy(mask)
    return (0, 0, 0, 0) if box is None else (box[0], box[1], box[2] - 1, box[3] - 1)


scales = st.sampled_from([1.0, 1e-3, 1e4, 1e-41])
seeds = st.integers(0, 2**32 - 1)


@given(seeds, geometries(), st.sampled_from([0.0, 0.5, -0.5, 1.0, -1.0, 0.1, 3.0]), scales)
def test_an_area_lies_between_its_bounds(
    seed: int, geometry: Geometry, threshold: float, scale: float
):
    """Thresholds that samples hit exactly, and maps of tiny and of huge numbers, among them."""
    bounds, whole = _both(seed, geometry, scale)
    lo, hi = bounds.area(threshold)

    assert lo <= np.count_nonzero(whole > threshold) <= hi


@given(seeds, geometries(), st.sampled_from([0.1, 0.5, 1.0, 2.0]), scales)
def test_no_map_is_more_stable_than_its_bound(
    seed: int, geometry: Geometry, offset: float, scale: float
):
    """Undefined only where it is; else at least the score, in float32 as both are compared."""
    bounds, whole = _both(seed, geometry, scale)
    (score,) = stability_score(whole[None], offset)

    for most in (bounds.most_stable(offset), bounds.most_stable_closely(offset)):
        assert np.isnan(score) if np.isnan(most) else (np.isnan(score) or most >= score)


@given(seeds, geometries(), scales)
def test_a_box_is_the_box_of_the_mask_or_left_open(seed: int, geometry: Geometry, scale: float):
    """Closed, as SAM's; of an empty mask four zeros."""
    bounds, whole = _both(seed, geometry, scale)
    box = bounds.box_xyxy()

    assert box is None or box == _box(whole > 0)


@given(seeds, geometries(), st.sampled_from([0.5, 1.0, 0.1]))
def test_the_part_that_decides_is_enough(seed: int, geometry: Geometry, offset: float):
    """With the map's least elsewhere, the same pixels exceed every threshold from there on."""
    map_hw, canvas, image_hw = geometry
    bounds, whole = _both(seed, geometry)
    place = bounds.part_above(-offset)
    rest = np.full(map_hw, bounds.logits.min(), dtype=np.float32)
    rest[place] = bounds.logits[place]
    again = logits_at(rest[None], canvas, image_hw)[0]

    for threshold in (-offset, 0, offset):
        np.testing.assert_array_equal(whole > threshold, again > threshold)


SAM = ((256, 256), Canvas(1024, (768, 1024)), (375, 500))
LITEMEDSAM = ((256, 256), Canvas(256, (192, 256)), (1500, 2000))
SMALL = ((256, 256), Canvas(256, (192, 256)), (75, 100))


@pytest.mark.parametrize("geometry", [SAM, LITEMEDSAM, SMALL])
def test_bounds_are_near_and_boxes_known_for_maps_as_models_give_them(geometry: Geometry):
    """Smooth discs: hardly a box is left open, areas are known to what lies along the border."""
    (_, canvas, image_hw), how, n_open = geometry, enlargement(*geometry), 0
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:256, :256]
    for _ in range(20):
        cy, cx, radius = rng.uniform(60, 130), rng.uniform(60, 190), rng.uniform(20, 60)
        logits = (radius - np.hypot(y - cy, x - cx)).astype(np.float32) / 2
        whole = logits_at(logits[None], canvas, image_hw)[0]
        bounds = Bounds(logits, how)
        lo, hi = bounds.area(0.0)
        area = np.count_nonzero(whole > 0)

        n_open += bounds.box_xyxy() is None
        assert bounds.box_xyxy() in (None, _box(whole > 0))
        assert lo <= area <= hi
        assert hi - lo < 0.35 * area
        assert bounds.most_stable(8.0) < 0.9
        (score,) = stability_score(whole[None], 1.0)
        assert score <= bounds.most_stable_closely(1.0) < score + 100 / area
        part = bounds.part_above(-1.0)
        assert bounds.logits[part].size < 4.5 * (radius + 6) ** 2
    assert n_open <= 1


def test_every_pixel_belongs_to_one_window_of_samples():
    """Counts add up to the image, for enlarging, for shrinking and for both in turn."""
    for geometry, reach in ((SAM, (4, 4)), (LITEMEDSAM, (2, 2)), (SMALL, (2, 2))):
        how = enlargement(*geometry)

        assert (how.rows.pixels.sum(), how.columns.pixels.sum()) == geometry[2]
        assert how.rows.reach <= reach[0]
        assert how.columns.reach <= reach[1]
        np.testing.assert_allclose(how.rows.weights.sum(axis=1), 1, rtol=1e-6)
