"""Pictures of the gallery: outlines on pixel edges, windows that show the target, small files."""

import base64
import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from promptseg.prompt import Box, BoxPoints, Points
from promptseg.report.picture import data_uri, draw, outline, window_of

masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))


def corners(path: str) -> np.ndarray:
    """Read the corners of an SVG path."""
    return np.array([[float(n) for n in xy] for xy in re.findall(r"([\d.]+) ([\d.]+)", path)])


def square(size: int, y: int, x: int, side: int) -> np.ndarray:
    """Draw a square of `side` pixels on an empty mask."""
    mask = np.zeros((size, size), dtype=bool)
    mask[y : y + side, x : x + side] = True
    return mask


def test_one_pixel_has_a_square_outline():
    """Pixel (5, 3) is the square from (5, 3) to (6, 4), which OpenCV alone draws as a dot."""
    xy = corners(outline(square(9, 3, 5, 1), 0.05))

    assert len(xy) == 4
    assert xy.min(axis=0) == pytest.approx((5, 3), abs=0.1)
    assert xy.max(axis=0) == pytest.approx((6, 4), abs=0.1)


def test_a_hole_has_an_outline_of_its_own():
    """A ring is two closed paths."""
    ring = square(20, 2, 2, 14) & ~square(20, 6, 6, 5)

    assert outline(ring, 0.05).count("Z") == 2


def test_an_empty_mask_has_no_outline():
    """There is nothing to draw of a miss."""
    assert outline(np.zeros((4, 4), dtype=bool), 0.05) == ""


@given(masks)
def test_an_outline_encloses_its_mask(mask):
    """Its extent is the mask's, to an eighth of a pixel."""
    rows, columns = np.nonzero(mask)
    path = outline(mask, 0.0)
    if rows.size:
        xy = corners(path)

        assert xy.min(axis=0) == pytest.approx((columns.min(), rows.min()), abs=0.13)
        assert xy.max(axis=0) == pytest.approx((columns.max() + 1, rows.max() + 1), abs=0.13)


@given(masks, masks, st.booleans())
def test_a_window_lies_in_the_image_and_shows_the_reference(reference, other, asked):
    """Whatever the masks, of one pixel or of none."""
    prediction = other if other.shape == reference.shape else None
    prompt = Points(np.array([[0.0, 0.0]]), np.array([True])) if asked else None
    window = window_of(reference, prediction, prompt)
    height, width = reference.shape

    assert 0 <= window.x0 < window.x1 <= width
    assert 0 <= window.y0 < window.y1 <= height
    assert reference.sum() == reference[window.y0 : window.y1, window.x0 : window.x1].sum()


def test_a_small_target_stays_visible_under_a_prediction_of_the_whole_image():
    """The prediction is cut; a 4-pixel target in a window of 512 could not be seen."""
    reference = square(512, 250, 250, 4)

    assert window_of(reference, np.ones((512, 512), dtype=bool), None).side <= 32


def test_a_window_holds_the_prompt():
    """A jittered box far from the target is still drawn whole."""
    window = window_of(square(200, 20, 20, 10), None, Box(120.0, 130.0, 150.0, 160.0))

    assert (window.x0, window.y0) <= (20, 20)
    assert window.x1 >= 150
    assert window.y1 >= 160


def test_boxes_are_drawn_on_pixel_edges_and_points_in_the_middle_of_pixels():
    """A half-open box needs no correction; the centre of pixel (3, 4) is at (3.5, 4.5)."""
    points = Points(np.array([[3.0, 4.0], [8.0, 8.0]]), np.array([True, False]))
    prompt = BoxPoints(Box(2.0, 3.0, 7.0, 8.0), points)
    image = np.zeros((10, 10, 3), dtype=np.uint8)

    drawing = draw(image, square(10, 3, 2, 5), None, prompt)

    assert drawing.box == (2.0, 3.0, 7.0, 8.0)
    assert [(c.x, c.y, c.positive) for c in drawing.clicks] == [(3.5, 4.5, True), (8.5, 8.5, False)]
    assert drawing.prediction is None


def decoded(uri: str) -> Image.Image:
    """Open the image of a data URI."""
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_a_small_grey_image_is_kept_without_loss():
    """What a reader enlarges should be the pixels of the image."""
    image = np.random.default_rng(0).integers(0, 255, (30, 40, 1), np.uint8).repeat(3, axis=2)

    uri = data_uri(image, side=400, most_bytes=22_000)

    assert uri.startswith("data:image/png;base64,")
    assert np.array_equal(np.asarray(decoded(uri)), image[:, :, 0])


def test_a_picture_that_does_not_compress_keeps_its_budget():
    """Noise in colour is the worst case: it becomes coarser, then smaller."""
    image = np.random.default_rng(0).integers(0, 255, (900, 700, 3), np.uint8)

    for budget, side in ((22_000, 100), (3_000, 32)):
        uri = data_uri(image, side=400, most_bytes=budget)

        assert uri.startswith("data:image/jpeg;base64,")
        assert len(base64.b64decode(uri.partition(",")[2])) <= budget
        assert max(decoded(uri).size) > side
