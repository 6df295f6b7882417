"""Smoothed edges are told from labels."""

import numpy as np
import pytest
from scipy import ndimage

from promptseg.errors import DataError
from promptseg.reader.image import RawMask, read_mask
from promptseg.reader.labels import Naming, as_labels, survey
from promptseg.reader.soft import hardened, has_soft_edges, is_plain


def disc(radius, side=60):
    """Draw a disc in the middle."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return np.hypot(y, x) < radius


def smoothed(radius=18.3):
    """Draw a disc four times as fine, and average: the greys of anti-aliasing."""
    fine = disc(4 * radius, 240).reshape(60, 4, 60, 4)
    return np.rint(fine.mean(axis=(1, 3)) * 255).astype(np.uint8)


def rings(*values):
    """Draw nested discs, the innermost last."""
    mask = np.zeros((60, 60), np.uint8)
    for i, value in enumerate(values):
        mask[disc(25 - 7 * i)] = value
    return mask


def walls(*values):
    """Draw lines of one pixel between background and object, one value a line."""
    mask = np.zeros((60, 60), np.uint8)
    for i, value in enumerate(values):
        mask[20 + i] = value
    mask[20 + len(values) : 40] = 255
    return mask


def test_a_smoothed_disc_is_one_object_parted_at_half():
    """What was drawn comes back, up to the pixels that it covers by half."""
    mask = smoothed()
    fine = disc(4 * 18.3, 240).reshape(60, 4, 60, 4).mean(axis=(1, 3))

    assert has_soft_edges(mask)
    assert np.array_equal(hardened(mask) > 0, np.rint(fine * 255) > 127)


@pytest.mark.parametrize(
    "mask",
    [
        rings(255),
        rings(85, 170, 255),
        rings(128, 255),
        rings(254, 255),
        rings(32, 64, 255),
        walls(128),
        walls(85, 170),
        np.where(disc(20), np.arange(60, dtype=np.uint8)[None] * 4, 0).astype(np.uint8),
        (ndimage.gaussian_filter(disc(15) * 255.0, 4)).astype(np.uint8),
        smoothed() // 2,
        smoothed().astype(np.uint16),
        np.zeros((60, 60), np.uint8),
    ],
    ids=[
        *("plain", "three", "nested", "zones", "few", "wall"),
        *("walls", "ramp", "blur", "half", "deep", "empty"),
    ],
)  # fmt: skip
def test_labels_and_shades_are_no_smoothed_edges(mask):
    """Classes fill areas or lines, and a wide ramp has no edge."""
    assert not has_soft_edges(mask)


def test_a_stray_pixel_does_no_harm_but_two_objects_of_greys_do():
    """A mask of 0 and 255 with lone greys is binary; patches of grey are labels."""
    mask = rings(255)
    mask[2, 2], mask[5, 50] = 130, 233
    assert has_soft_edges(mask)

    mask[50:54, 2:6] = 130
    assert not has_soft_edges(mask)


def test_greys_on_edges_are_labels_unless_all_masks_say_otherwise():
    """For masks named as one object the one file decides, under a threshold none."""
    raw = RawMask(np.where(rings(255) > 0, rings(255), 0).astype(np.uint8))
    raw.values[2, 2], raw.values[5, 50] = 130, 233
    naming = Naming(nameless="x")
    table = Naming(nameless="x", table={"a": (130,)})

    assert np.unique(as_labels(raw, naming)).tolist() == [0, 130, 233, 255]
    assert np.unique(as_labels(raw, naming, one_object=True)).tolist() == [0, 255]
    assert np.unique(as_labels(raw, Naming(nameless="x", soft_edges=True))).tolist() == [0, 255]
    assert np.unique(as_labels(raw, table, one_object=True)).tolist() == [0, 130, 233, 255]
    instances = Naming(nameless="x", instances=True, soft_edges=True)
    assert np.unique(as_labels(raw, instances)).tolist() == [0, 130, 233, 255]
    above = as_labels(raw, Naming(nameless="x", threshold=200, soft_edges=True))
    assert np.array_equal(above > 0, raw.values > 200)


def test_more_greys_than_labels_can_be_are_an_object_or_no_labels():
    """A smoothed mask has more values than a file of labels may have."""
    raw = RawMask(smoothed(27.7))
    assert len(np.unique(raw.values)) > 8
    found = survey([raw], Naming(nameless="x", soft_edges=True))

    assert found.has_soft_edges
    assert found.rule()[1] == [255]


@pytest.mark.parametrize(
    ("pattern", "is_soft"),
    [
        ("axon_myelin_sem/masks/*rat2*", True),
        ("vnc_sstem/masks_mitochondria/*", True),
        ("vnc_sstem/masks/*", False),
        ("paper_22_heart_mr/masks/*", False),
        ("wbc_blood_smear/masks/*", False),
        ("prostate_mr/masks/*", False),
        ("kvasir_seg_endoscopy/masks/*", False),
        ("glas_histology/masks/*", False),
    ],
)
def test_real_masks_are_told_apart(sample_set, pattern, is_soft):
    """Smoothed edges of two data sets, labels of five, and JPEG."""
    masks = [read_mask(path).values for path in sorted(sample_set.glob(pattern))]

    assert masks
    assert {has_soft_edges(mask) for mask in masks if not is_plain(mask)} == {is_soft}


def test_labels_stay_a_data_error_where_nothing_makes_them_one():
    """Shades are neither."""
    shades = RawMask(np.arange(3600).reshape(60, 60).astype(np.uint8))
    with pytest.raises(DataError, match="--threshold"):
        as_labels(shades, Naming(nameless="x", soft_edges=True), one_object=True)
