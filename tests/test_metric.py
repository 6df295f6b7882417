"""Metrics of mask pairs: against medpy, against brute force, and by their properties."""

import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from medpy.metric import binary as medpy
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist

from promptseg.mask import to_rle
from promptseg.metric import (
    BorderDistances,
    Scores,
    border_distances,
    boundary_band_px,
    boundary_iou,
    conformity,
    dice,
    dice_table,
    dices,
    jaccard,
    score,
)

SPACINGS_YX = [(1.0, 1.0), (0.7, 0.7), (0.4, 2.5), (3.0, 0.31), (1.0, 1.3)]
DISTANCES = ["hd", "hd95", "assd", "asd"]
OVERLAPS = ["dice", "jaccard", "nsd", "boundary_iou", "conformity"]
fewer = settings(max_examples=60)


# Masks


def drawn(*rows):
    """Mask from rows of text, where # is the object."""
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def at(shape, *pixels_yx):
    """Mask of single pixels."""
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(np.transpose(pixels_yx))] = True
    return mask


def blob(rng, shape):
    """Smooth shapes, often in pieces and often cut off by the image's edge."""
    field = gaussian_filter(rng.standard_normal(shape), rng.uniform(0.5, 4.0))
    return field > np.quantile(field, rng.uniform(0.3, 0.97))


def noise(rng, shape):
    """Pixels without neighbourhood: as much border as there can be."""
    return rng.random(shape) < rng.uniform(0.02, 0.95)


def one_pixel(rng, shape):
    """Draw the smallest mask."""
    return at(shape, (rng.integers(shape[0]), rng.integers(shape[1])))


def full(_rng, shape):
    """Draw the largest mask: its border is the image's edge."""
    return np.ones(shape, dtype=bool)


def rectangle(rng, shape):
    """Any rectangle of the image, one pixel wide or as large as the image included."""
    (y0, y1), (x0, x1) = (np.sort(rng.integers(0, n, 2)) for n in shape)
    mask = np.zeros(shape, dtype=bool)
    mask[y0 : y1 + 1, x0 : x1 + 1] = True
    return mask


def ring(rng, shape):
    """Draw a mask with a hole: its border is in two parts."""
    y, x = np.indices(shape)
    radius = np.hypot(y - shape[0] // 2, x - shape[1] // 2)
    outer = rng.uniform(1.0, max(shape) / 2)
    return (radius <= outer) & (radius >= outer * rng.uniform(0.1, 0.8))


MAKERS = [blob, blob, blob, noise, one_pixel, full, rectangle, rectangle, ring]


def nested(rng, reference):
    """Part of the reference: no false positives."""
    return reference & noise(rng, reference.shape)


def shifted(rng, reference):
    """Move the reference some pixels, which is what a good prediction looks like."""
    return np.roll(reference, tuple(rng.integers(-3, 4, 2)), axis=(0, 1))


def apart(rng, reference):
    """Anything outside the reference: no overlap at all."""
    return noise(rng, reference.shape) & ~reference


def random_shape(rng, low, high):
    """Height and width, now and then of a single row or column."""
    height, width = (int(n) for n in rng.integers(low, high + 1, 2))
    shapes = [(height, width)] * 8 + [(1, width), (height, 1)]
    return shapes[rng.integers(len(shapes))]


def random_pairs(n, seed, low=8, high=40):
    """Yield n pairs of non-empty masks with a spacing each."""
    rng = np.random.default_rng(seed)
    while n:
        shape = random_shape(rng, low, high)
        reference = MAKERS[rng.integers(len(MAKERS))](rng, shape)
        if rng.random() < 0.5:
            pred = MAKERS[rng.integers(len(MAKERS))](rng, shape)
        else:
            pred = (nested, shifted, apart)[rng.integers(3)](rng, reference)
        if pred.any() and reference.any():
            n -= 1
            yield pred, reference, SPACINGS_YX[rng.integers(len(SPACINGS_YX))]


# Independent implementations, slow and plain on purpose


def brute_border_yx(mask):
    """List border pixels by asking each object pixel for its four neighbours."""
    inside = {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}
    return [
        (y, x)
        for y, x in sorted(inside)
        if not {(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)} <= inside
    ]


def brute_directed(pred, reference, spacing_yx):
    """Nearest distances in both directions, from the table of all distances."""
    borders = [np.array(brute_border_yx(m), dtype=float) * spacing_yx for m in (pred, reference)]
    table = cdist(*borders)
    return table.min(axis=1), table.min(axis=0)


def brute_percentile(values, share):
    """Value at a share of the way along the sorted values, on a straight line between two."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below, above = math.floor(place), math.ceil(place)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def brute_nsd(directed, tolerance):
    """Count border pixels within the tolerance one by one; rounding is no reason to be outside."""
    within = sum(d <= tolerance + 1e-9 for distances in directed for d in distances)
    return within / sum(len(distances) for distances in directed)


def brute_band(mask):
    """Cheng et al.: erode the zero-padded image by 3 x 3, again and again; take what was lost."""
    diagonal = np.sqrt(mask.shape[0] ** 2 + mask.shape[1] ** 2)
    core = np.pad(mask, 1)
    for _ in range(max(1, round(float(0.02 * diagonal)))):
        rows = core[:-2] & core[1:-1] & core[2:]
        core = np.pad(rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:], 1)
    return mask & ~core[1:-1, 1:-1]


def brute_boundary_iou(pred, reference):
    """Intersection over union of the two bands."""
    a, b = brute_band(pred), brute_band(reference)
    return (a & b).sum() / (a | b).sum()


def test_overlaps_and_distances_equal_medpy():
    """The measure of exactness: 1e-6 on thousands of pairs, anisotropic spacing included.

    From 0.5.2, medpy's own assd pools both directions; ours is the mean of its two asd, which is
    what its assd was before.
    """
    worst = dict.fromkeys(["dice", "jaccard", "hd", "asd", "assd"], 0.0)
    for pred, reference, spacing_yx in random_pairs(4000, seed=1):
        there = medpy.asd(pred, reference, spacing_yx)
        back = medpy.asd(reference, pred, spacing_yx)
        expected = {
            "dice": medpy.dc(pred, reference),
            "jaccard": medpy.jc(pred, reference),
            "hd": medpy.hd(pred, reference, spacing_yx),
            "asd": there,
            "assd": (there + back) / 2,
        }
        found = score(pred, reference, spacing_yx)
        for name, value in expected.items():
            worst[name] = max(worst[name], abs(getattr(found, name) - value))

    assert worst == pytest.approx(dict.fromkeys(worst, 0.0), abs=1e-6)


def test_hd95_and_nsd_equal_brute_force():
    """Percentiles per direction and shares of border, from lists of border pixels."""
    worst = {"hd95": 0.0, "nsd": 0.0}
    for pred, reference, spacing_yx in random_pairs(3000, seed=2):
        directed = brute_directed(pred, reference, spacing_yx)
        found = score(pred, reference, spacing_yx, nsd_tolerance=2.0)
        hd95 = max(brute_percentile(distances, 0.95) for distances in directed)
        worst["hd95"] = max(worst["hd95"], abs(hd95 - found.hd95))
        worst["nsd"] = max(worst["nsd"], abs(brute_nsd(directed, 2.0) - found.nsd))

    assert worst == pytest.approx({"hd95": 0.0, "nsd": 0.0}, abs=1e-6)


@pytest.mark.parametrize(("n", "low", "high"), [(2000, 8, 40), (600, 60, 220)])
def test_boundary_iou_equals_the_published_erosion(n, low, high):
    """The band is that of the whole image although only the box around the masks is looked at.

    Large images have bands of several pixels.
    """
    worst = 0.0
    for pred, reference, _ in random_pairs(n, seed=3, low=low, high=high):
        expected = brute_boundary_iou(pred, reference)
        worst = max(
            worst,
            abs(expected - boundary_iou(pred, reference)),
            abs(expected - score(pred, reference, None).boundary_iou),
        )

    assert worst < 1e-6


def test_boundary_iou_of_a_small_object_in_a_large_image_is_its_jaccard_index():
    """A band wider than the object is the whole object, also when wider than the crop."""
    pred, reference = at((800, 900), (0, 5), (0, 6)), at((800, 900), (0, 6), (1, 6))

    assert boundary_iou(pred, reference) == jaccard(pred, reference) == 1 / 3


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(1, 1, 1), (15, 20, 1), (45, 60, 2), (75, 100, 2), (512, 512, 14), (1024, 1024, 29)],
)
def test_band_is_a_fiftieth_of_the_diagonal(height, width, expected):
    """Rounded as in the published code (an exact half to the even number), at least 1 pixel."""
    assert expected == boundary_band_px(height, width)


# The table of edge cases


def differing(found, expected, tolerance=1e-9):
    """Name the scores that are not equal up to the order of summation; None equals None only."""
    pairs = {name: (getattr(found, name), getattr(expected, name)) for name in asdict(expected)}
    return {
        name: (a, b)
        for name, (a, b) in pairs.items()
        if not (
            math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)
            if isinstance(a, float) and isinstance(b, float)
            else a == b
        )
    }


ROOT_2 = math.sqrt(2)
MISS = Scores(0.0, 0.0, None, None, None, None, 0.0, 2.0, 0.0, None, "px")
PERFECT = Scores(1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 1.0, 1.0, "px")
FULL_OVER_PIXEL = Scores(
    dice=0.2,
    jaccard=1 / 9,
    hd=ROOT_2,
    hd95=ROOT_2,
    assd=((1 + ROOT_2) / 2 + 1) / 2,
    asd=(1 + ROOT_2) / 2,
    nsd=1.0,
    nsd_tolerance=2.0,
    boundary_iou=0.0,
    conformity=-7.0,
    distance_unit="px",
)


def apart_by(distance, nsd, unit):
    """Scores of two pixels that do not meet: every distance is the same."""
    return Scores(0.0, 0.0, *[distance] * 4, nsd, 2.0, 0.0, None, unit)


@pytest.mark.parametrize(
    ("pred", "reference", "spacing_yx_mm", "expected"),
    [
        pytest.param(np.zeros((5, 7), bool), at((5, 7), (2, 3)), None, MISS, id="pred empty"),
        pytest.param(at((5, 7), (2, 3)), at((5, 7), (2, 3)), None, PERFECT, id="one pixel"),
        pytest.param(at((1, 1), (0, 0)), at((1, 1), (0, 0)), None, PERFECT, id="1 x 1 image"),
        pytest.param(*[np.ones((5, 7), bool)] * 2, None, PERFECT, id="full image"),
        pytest.param(
            at((5, 7), (0, 0)), at((5, 7), (4, 3)), None, apart_by(5.0, 0.0, "px"), id="no overlap"
        ),
        pytest.param(
            at((5, 7), (0, 0)), at((5, 7), (0, 2)), None, apart_by(2.0, 1.0, "px"), id="near miss"
        ),
        pytest.param(
            at((5, 7), (0, 0)),
            at((5, 7), (4, 3)),
            (1.5, 8 / 3),
            apart_by(10.0, 0.0, "mm"),
            id="anisotropic",
        ),
        pytest.param(
            at((1, 20), (0, 12)),
            at((1, 20), (0, 17)),
            (1.0, 0.4),
            apart_by(2.0, 1.0, "mm"),
            id="distance equal to the tolerance",
        ),
        pytest.param(
            drawn("###", "###", "###"),
            drawn("...", ".#.", "..."),
            None,
            FULL_OVER_PIXEL,
            id="touching the border",
        ),
    ],
)
def test_edge_case_has_its_documented_scores(pred, reference, spacing_yx_mm, expected):
    """Worked out by hand; the image's edge is background, and undefined is not zero."""
    found = score(pred, reference, spacing_yx_mm)

    assert differing(found, expected, 1e-12) == {}


def test_tolerance_of_zero_counts_the_shared_border():
    """No distance is less than 0; equal borders still agree."""
    pair = drawn("##."), drawn(".##")

    assert score(*pair, None, nsd_tolerance=0.0).nsd == 0.5


def test_scores_are_plain_numbers():
    """They are written to files, which know no NumPy scalars."""
    pair = drawn("##.", ".##"), drawn("#..", ".##")
    found = asdict(score(*pair, (1.0, 2.0)))

    assert {type(found[name]) for name in DISTANCES + OVERLAPS} == {float}


def test_hole_in_a_ring_has_a_border():
    """A filled hole is far from the outer contour, and the Hausdorff distance sees it."""
    ring_mask = drawn("#######", "#######", "##...##", "##...##", "##...##", "#######", "#######")
    distances = border_distances(np.ones((7, 7), bool), ring_mask)

    assert distances is not None
    assert (distances.from_pred.max(), distances.from_reference.max()) == (0.0, 1.0)


def test_assd_gives_both_directions_the_same_weight():
    """A long border that fits does not drown a short one that does not."""
    pred = at((3, 40), *[(0, x) for x in range(40)])
    reference = at((3, 40), (2, 0))
    there = np.mean([math.hypot(2, x) for x in range(40)])

    assert score(pred, reference, None).assd == pytest.approx((there + 2.0) / 2)


@pytest.mark.parametrize("metric", [dice, jaccard, conformity, boundary_iou, border_distances])
class TestWrongInput:
    def test_shapes_that_differ_are_refused(self, metric):
        """Broadcasting a row over an image would give a number that means nothing."""
        with pytest.raises(ValueError, match="sizes must agree"):
            metric(np.ones((1, 7), bool), np.ones((5, 7), bool))

    def test_empty_reference_is_refused(self, metric):
        """Whether agreed absence is success is not for a metric to say."""
        with pytest.raises(ValueError, match="reference is empty"):
            metric(np.ones((5, 7), bool), np.zeros((5, 7), bool))


def test_score_refuses_wrong_masks():
    """The same refusals as of each metric, before anything is cropped."""
    with pytest.raises(ValueError, match="sizes must agree"):
        score(np.ones((1, 7), bool), np.ones((5, 7), bool), None)
    with pytest.raises(ValueError, match="reference is empty"):
        score(np.ones((5, 7), bool), np.zeros((5, 7), bool), None)


@pytest.mark.parametrize("spacing_yx_mm", [(0.0, 1.0), (1.0, -1.0), (math.nan, 1.0), (1, math.inf)])
def test_spacing_that_is_no_length_is_refused(spacing_yx_mm):
    """Zero is how some files say "unknown"; that is None here. A miss is no excuse."""
    with pytest.raises(ValueError, match="spacing"):
        score(np.zeros((5, 7), bool), np.ones((5, 7), bool), spacing_yx_mm)


@pytest.mark.parametrize("tolerance", [-1.0, math.nan, math.inf])
def test_tolerance_that_is_no_length_is_refused(tolerance):
    """It is written to files, where NaN and infinity have no place."""
    with pytest.raises(ValueError, match="nsd_tolerance"):
        score(np.ones((5, 7), bool), np.ones((5, 7), bool), None, nsd_tolerance=tolerance)


# Properties


@st.composite
def mask_pairs(draw):
    """Two non-empty masks of one size, 1 x 1 to 9 x 12."""
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 12)))
    masks = draw(npst.arrays(bool, (2, *shape)))
    for mask in masks:
        mask[draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))] = True
    return masks[0], masks[1]


edges = st.floats(0.05, 20.0)
spacings = st.none() | st.tuples(edges, edges)


@fewer
@given(mask_pairs(), spacings)
def test_all_but_the_directed_distance_are_symmetric(pair, spacing):
    """Which mask is the reference matters to asd only."""
    there, back = score(*pair, spacing), score(*pair[::-1], spacing)

    assert differing(back, there).keys() <= {"asd"}


@fewer
@given(mask_pairs(), spacings)
def test_scores_stay_in_their_ranges(pair, spacing):
    """Fractions end at 1, distances at the diagonal of the image and in the order of the means."""
    found = score(*pair, spacing)
    diagonal = math.hypot(*np.multiply(pair[0].shape, spacing or (1.0, 1.0)))

    assert all(0 <= getattr(found, name) <= 1 for name in ("dice", "jaccard", "nsd"))
    assert 0 <= found.boundary_iou <= 1
    assert found.conformity is None or found.conformity <= 1
    assert 0 <= found.assd <= found.hd + 1e-12
    assert 0 <= found.asd <= found.hd + 1e-12
    assert 0 <= found.hd95 <= found.hd <= diagonal


@fewer
@given(mask_pairs())
def test_overlaps_are_functions_of_each_other(pair):
    """D = 2J / (1 + J), and conformity is 1 minus wrong pixels per right one."""
    pred, reference = pair
    iou = jaccard(pred, reference)
    right, wrong = (pred & reference).sum(), (pred ^ reference).sum()

    assert math.isclose(dice(pred, reference), 2 * iou / (1 + iou))
    assert conformity(pred, reference) == (pytest.approx(1 - wrong / right) if right else None)


@fewer
@given(mask_pairs(), spacings)
def test_flips_and_transposition_change_nothing(pair, spacing):
    """Images have no preferred direction; spacing turns with the axes."""
    expected = score(*pair, spacing)
    turned = None if spacing is None else spacing[::-1]

    assert differing(score(*(m[::-1] for m in pair), spacing), expected) == {}
    assert differing(score(*(m[:, ::-1] for m in pair), spacing), expected) == {}
    assert differing(score(*(m.T for m in pair), turned), expected) == {}


@fewer
@given(mask_pairs(), spacings, st.integers(0, 20), st.integers(0, 30))
def test_place_in_the_image_changes_nothing(pair, spacing, top, left):
    """In a corner or amid the image: outside the image is background like any other."""
    margins = [(top, 20 - top), (left, 30 - left)]
    corner = score(*(np.pad(m, [(0, 20), (0, 30)]) for m in pair), spacing)
    moved = score(*(np.pad(m, margins) for m in pair), spacing)

    assert differing(moved, corner) == {}


@fewer
@given(mask_pairs(), spacings)
def test_empty_surroundings_change_the_boundary_iou_only(pair, spacing):
    """Its band grows with the image; all else is of the two masks alone."""
    padded = [np.pad(m, 60) for m in pair]
    tight, wide = score(*pair, spacing), score(*padded, spacing)

    assert differing(wide, tight).keys() <= {"boundary_iou"}
    assert math.isclose(wide.boundary_iou, brute_boundary_iou(*padded))


@fewer
@given(mask_pairs(), st.tuples(edges, edges), st.floats(0.1, 10.0))
def test_distances_scale_with_the_spacing_and_fractions_do_not(pair, spacing, factor):
    """That is what the kind of a metric says."""
    found = score(*pair, spacing)
    scaled = score(*pair, tuple(edge * factor for edge in spacing), nsd_tolerance=2.0 * factor)
    lengths = {name: getattr(found, name) * factor for name in [*DISTANCES, "nsd_tolerance"]}

    assert differing(scaled, replace(found, **lengths)) == {}


@fewer
@given(mask_pairs())
def test_unknown_spacing_measures_in_pixels(pair):
    """Same numbers as for 1 mm pixels, but the unit says that they are no millimetres."""
    pixels, millimetres = score(*pair, None), score(*pair, (1.0, 1.0))

    assert (pixels.distance_unit, millimetres.distance_unit) == ("px", "mm")
    assert replace(pixels, distance_unit="mm") == millimetres


@fewer
@given(mask_pairs(), spacings)
def test_memory_layout_changes_nothing_and_masks_are_left_alone(pair, spacing):
    """Masks from run lengths are column-major and those of a corpus read-only."""
    copies = [np.asfortranarray(m) for m in pair]
    for mask in copies:
        mask.flags.writeable = False

    assert differing(score(*copies, spacing), score(*pair, spacing)) == {}
    assert all(np.array_equal(mask, copy) for mask, copy in zip(pair, copies, strict=True))


@fewer
@given(mask_pairs())
def test_single_metrics_equal_those_of_the_score(pair):
    """One definition each, whichever way it is asked for."""
    found = score(*pair, (0.5, 2.0), nsd_tolerance=3.0)
    distances = border_distances(*pair, (0.5, 2.0))

    assert (found.dice, found.jaccard) == (dice(*pair), jaccard(*pair))
    assert (found.boundary_iou, found.conformity) == (boundary_iou(*pair), conformity(*pair))
    assert (found.hd, found.hd95) == (distances.hd, distances.hd95)
    assert (found.assd, found.asd) == (distances.assd, distances.asd)
    assert (found.nsd, found.nsd_tolerance) == (distances.nsd(3.0), 3.0)


def test_every_score_is_a_metric_that_tables_show():
    """All fields but the two that say how the others were measured."""
    fields = set(asdict(PERFECT)) - {"nsd_tolerance", "distance_unit"}

    assert fields == {*DISTANCES, *OVERLAPS}


@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(0, 5))
def test_the_table_of_dice_is_exact(seed: int, n_references: int, n_preds: int):
    """Every pair in one call, to the last bit what the function of one pair gives."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 30, 2))
    references = [rng.random(shape) < 0.3 for _ in range(n_references)]
    for mask in references:
        mask.flat[rng.integers(mask.size)] = True
    preds = [rng.random(shape) < rng.choice([0.0, 0.5]) for _ in range(n_preds)]
    table = dice_table([to_rle(p) for p in preds], [to_rle(r) for r in references])
    expected = [[dice(p, r) for r in references] for p in preds]

    assert table.shape == (n_preds, n_references)
    assert table.tolist() == expected


def test_dices_of_many_are_the_dice_of_each():
    """To the last bit, of empty masks too, and as strict."""
    for pred, reference, _ in random_pairs(300, seed=11):
        preds = [pred, reference, ~reference, np.zeros_like(pred)]

        assert dices(preds, reference) == [dice(mask, reference) for mask in preds]
    with pytest.raises(ValueError, match="reference is empty"):
        dices([pred], np.zeros_like(pred))
    with pytest.raises(ValueError, match="sizes must agree"):
        dices([pred[:1, :1]], np.ones_like(pred))


@pytest.mark.parametrize(("n_preds", "n_references"), [(600, 2), (2, 300), (256, 255)])
def test_the_table_takes_any_number_of_masks(n_preds: int, n_references: int):
    """More than 255 masks, of everything or of an image full of nuclei."""
    rng = np.random.default_rng(n_preds)
    preds, references = rng.random((2, 600, 6, 7)) < 0.4
    references[:, 0, 0] = True
    chosen = preds[:n_preds], references[:n_references]
    table = dice_table(*([to_rle(mask) for mask in masks] for masks in chosen))

    assert table.shape == (n_preds, n_references)
    assert table[-1, -1] == dice(chosen[0][-1], chosen[1][-1])
    assert table[0, -1] == dice(chosen[0][0], chosen[1][-1])


def test_a_table_refuses_an_empty_reference_and_unequal_sizes():
    """Both would be a number of nothing."""
    full, empty = (to_rle(np.full((4, 4), value)) for value in (True, False))
    with pytest.raises(ValueError, match="a reference is empty"):
        dice_table([full], [full, empty])
    with pytest.raises(ValueError, match="one size"):
        dice_table([full], [to_rle(np.ones((4, 5), dtype=bool))])


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=400))
def test_hd95_is_the_percentile_of_numpy_to_the_last_bit(values: list[float]):
    """Interpolated linearly, whatever the number of border pixels and their order."""
    distances = BorderDistances(np.array(values), np.zeros(1))

    assert distances.hd95 == np.percentile(values, 95, method="linear")
