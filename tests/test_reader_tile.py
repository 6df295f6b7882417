"""Tiles of large images, and the targets cut with them."""

import numpy as np
import polars as pl
import pytest
import volume_phantom as phantom
from PIL import Image

from promptseg.corpus import open_corpus
from promptseg.curation import Curation, curate

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

rng = np.random.default_rng(7)
PIXELS = rng.integers(0, 256, (100, 70, 3), dtype=np.uint8)
MASK = np.zeros((100, 70), np.uint8)
MASK[20:60, 10:40] = 1  # over four tiles of 50 x 35, in the last by 10 x 5
MASK[90:97, 50:60] = 2


@pytest.fixture
def folder(tmp_path):
    """Write one picture of 70 x 100 pixels, and one of 50 x 50."""
    for name, array in (("images", PIXELS), ("masks", MASK)):
        (tmp_path / "in" / name).mkdir(parents=True)
        Image.fromarray(array).save(tmp_path / f"in/{name}/a.png")
        Image.fromarray(array[:50, :50]).save(tmp_path / f"in/{name}/b.png")
    return tmp_path


def curated(folder, **settings):
    """Curate, and give images and targets by their ids, and the drops."""
    for _ in curate(folder / "in", folder / "out", Curation(modality="X-ray", **settings)):
        pass
    images = pl.read_parquet(folder / "out/images/*.parquet").to_dicts()
    return {row["image_id"]: row for row in images}


def test_tiles_are_an_even_grid_that_covers_the_image(folder):
    """Every pixel and mask bit once; where each begins is kept, and small images stay whole."""
    images = curated(folder, tile_px=50, dataset="d", min_area_px=0, keep_empty=True)
    samples = {s.image_id: s for g in open_corpus(folder / "out").row_groups()
               for s in open_corpus(folder / "out").read(g)}  # fmt: skip
    whole, masks = np.zeros_like(PIXELS), np.zeros_like(MASK)
    for image_id, row in images.items():
        if row["tile_of"] is None:
            continue
        y, x, h, w = (row[name] for name in ("tile_y", "tile_x", "height", "width"))
        whole[y : y + h, x : x + w] += samples[image_id].image
        for target in samples[image_id].targets:
            value = int(target.object.removeprefix("label "))
            masks[y : y + h, x : x + w] += np.uint8(value) * target.mask

    assert set(images) == {
        *("d/a/tile_0_0", "d/a/tile_0_35", "d/a/tile_50_0", "d/a/tile_50_35"),
        "d/b",
    }
    assert {row["tile_of"] for row in images.values()} == {"d/a", None}
    assert np.array_equal(whole, PIXELS)
    assert np.array_equal(masks, MASK)


def test_the_area_rule_holds_for_each_tile(folder):
    """A target of 1200 pixels of which 50 lie in the last tile is a drop there."""
    images = curated(folder, tile_px=50, dataset="d")
    drops = pl.read_parquet(folder / "out/drops/*.parquet").to_dicts()
    small = [(d["image_id"], d["object"], d["area_px"]) for d in drops if d["object"]]

    assert ("d/a/tile_50_35", "label 1", 50) in small
    assert "d/a/tile_50_35" in images  # label 2 is there


def test_sides_of_tiles_differ_by_a_pixel_at_most(folder):
    """No slivers: 100 pixels in tiles of at most 30 are four of 25; 70 are 23, 23 and 24."""
    images = curated(folder, tile_px=30, min_area_px=0, keep_empty=True, dataset="d")
    tiles = [row for row in images.values() if row["tile_of"] == "d/a"]

    assert len(tiles) == 12
    assert {row["height"] for row in tiles} == {25}
    assert {row["width"] for row in tiles} == {23, 24}


def test_slices_are_cut_too_and_keep_their_place(tmp_path):
    """Volume, slice and affine are those of the volume; grey levels are those of the whole."""
    scan = phantom.scan()
    phantom.write_itk(tmp_path / "in/images/s.mha", scan.voxels, scan.affine)
    phantom.write_itk(tmp_path / "in/masks/s.mha", scan.labels, scan.affine)
    images = curated(tmp_path, tile_px=24, dataset="d", keep_empty=True)
    row = images["d/s/axial/0004/tile_0_0"]

    assert (row["tile_of"], row["tile_y"], row["tile_x"]) == ("d/s/axial/0004", 0, 0)
    assert (row["volume_id"], row["slice_index"], row["n_slices"]) == ("d/s", 4, 9)
    assert (row["intensity_lo"], row["intensity_hi"]) == (-1000, 1500)
    assert (row["height"], row["width"]) == (16, 20)
