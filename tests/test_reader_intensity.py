"""Intensity rules: what is shown as black and white, and that it can be undone."""

import numpy as np
import polars as pl
import pytest
import volume_phantom as phantom
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from typer.testing import CliRunner

from promptseg.cli import app
from promptseg.corpus import open_corpus
from promptseg.curation import Curation, curate
from promptseg.errors import DataError, UnknownName
from promptseg.pixels import decode_image, displayed
from promptseg.reader.files import read_volume
from promptseg.reader.intensity import (
    WINDOWS,
    intensity_rule,
    shaded,
    shades_of_slice,
    shades_of_volume,
    value_at,
)
from promptseg.reader.pages import Page
from promptseg.reader.volume import Volume

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SCAN = phantom.scan()
RULES = [
    (None, None), ("min-max", None), ("min-max", "slice"), ("percentile:0.5-99.5", None),
    ("percentile:2-97.5", "slice"), ("window:lung", None), ("window:-50/350.5", None),
    ("window:soft-tissue", None), ("released", None),
]  # fmt: skip
rng = np.random.default_rng(11)


def folder(path, voxels=SCAN.voxels, suffix=".nrrd"):
    """Write a volume with its labels."""
    phantom.write_itk(path / f"images/s{suffix}", voxels, SCAN.affine)
    phantom.write_itk(path / f"masks/s{suffix}", SCAN.labels, SCAN.affine)
    return path


def curated(path, out, modality="CT", **settings):
    """Curate, and give the corpus' info and its images."""
    run = curate(path, out, Curation(modality=modality, dataset="d", **settings))
    for _ in run:
        pass
    return open_corpus(out).info, pl.read_parquet(out / "images/*.parquet").to_dicts()


def undone(row, source):
    """Give by how many grey levels an image differs from what its recorded map makes of source."""
    stored = decode_image(row["image"]["bytes"], row["sha256"])
    shown = displayed(stored, row["intensity_lo"], row["intensity_hi"]).astype(np.float64)
    lo, hi = row["intensity_lo"], row["intensity_hi"]
    exact = np.clip((source.astype(np.float64) - lo) / (hi - lo), 0, 1) * 255
    if exact.ndim == 2:
        exact = exact[:, :, None]
    return np.abs(shown - exact).max()


@pytest.mark.parametrize(("text", "per"), RULES)
@pytest.mark.parametrize("dtype", ["i2", "u2", "i4", "f4"])
def test_slices_equal_the_recorded_map_within_half_a_grey_level(tmp_path, text, per, dtype):
    """By every rule, for every type of voxel."""
    voxels = (SCAN.voxels + (1000 if dtype == "u2" else 0)).astype(dtype)
    _, images = curated(
        folder(tmp_path / "in", voxels), tmp_path / "out", intensity=intensity_rule(text, per)
    )
    assert len(images) > 3
    for row in images:
        source = voxels[::-1, ::-1, row["slice_index"]].T

        assert undone(row, source) <= 0.5 + 1e-9


@pytest.mark.parametrize(("text", "per"), RULES)
@pytest.mark.parametrize(
    "pixels",
    [
        rng.integers(0, 60000, (40, 50)).astype(np.uint16),
        rng.normal(0, 300, (40, 50)).astype(np.float32),
        rng.integers(-9000, 9000, (40, 50)).astype(np.int32),
    ],
    ids=["16-bit", "float", "32-bit"],
)
def test_deep_pictures_equal_the_recorded_map_within_half_a_grey_level(tmp_path, pixels, text, per):
    """And 16-bit grey is stored whole by every rule."""
    for name, array in (("images", pixels), ("masks", np.ones((40, 50), np.uint8))):
        (tmp_path / "in" / name).mkdir(parents=True)
        Image.fromarray(array).save(tmp_path / f"in/{name}/a.tif")
    _, (row,) = curated(tmp_path / "in", tmp_path / "out", intensity=intensity_rule(text, per))
    stored = decode_image(row["image"]["bytes"], row["sha256"])

    assert undone(row, pixels) <= 0.5 + 1e-9
    assert stored.dtype == (np.uint16 if pixels.dtype == np.uint16 else np.uint8)


@pytest.mark.parametrize("text", [None, "none", "window:lung", "window:100/50"])
def test_8_bit_pictures_stay_bit_for_bit(text):
    """Without a rule, with none, and by windows, whose units they have not."""
    pixels = rng.integers(20, 200, (30, 40, 3), dtype=np.uint8)
    picture = shaded(Page(pixels), intensity_rule(text))

    assert np.array_equal(picture.pixels, pixels)
    assert (picture.rule, picture.lo, picture.hi) == ("none", 0, 255)


@pytest.mark.parametrize("text", ["min-max", "percentile:1-99"])
def test_8_bit_pictures_follow_a_rule_that_was_asked_for(text):
    """And tell it."""
    pixels = rng.integers(20, 200, (30, 40), dtype=np.uint8)
    picture = shaded(Page(pixels), intensity_rule(text))

    assert (picture.pixels.min(), picture.pixels.max()) == (0, 255)
    assert picture.rule == f"{text.replace(':', ' ')} image"
    assert 20 <= picture.lo < picture.hi <= 199


def released(image):
    """Repeat the released steps on an 8-bit picture: clip, stretch, zeros stay, truncate."""
    lo, hi = np.percentile(image, 0.95), np.percentile(image, 99.5)
    stretched = (np.clip(image, lo, hi) - lo) / (hi - lo) * 255
    stretched[image == 0] = 0
    return stretched.astype(np.uint8)


def test_the_released_rule_is_that_of_the_released_code():
    """To a grey level, since that truncates; its zeros stay zero by themselves."""
    pixels = rng.gamma(2, 30, (60, 70, 3)).clip(0, 255).astype(np.uint8)
    pixels[:20] = 0
    ours = shaded(Page(pixels), intensity_rule("released"))
    gap = ours.pixels.astype(int) - released(pixels)

    assert set(np.unique(gap)) <= {0, 1}
    assert not ours.pixels[:20].any()
    assert ours.rule == "released (percentile 0.95-99.5) image"


@given(
    arrays(
        st.sampled_from([np.int16, np.uint8, np.int8, np.uint16, np.int32, np.float32]),
        st.tuples(*[st.integers(1, 5)] * 3),
        elements=st.integers(0, 100),
    ),
    st.floats(0, 100),
)
def test_percentiles_are_those_of_numpy(values, percentile):
    """Also where they are counted."""
    assert value_at(values, percentile) == pytest.approx(np.percentile(values, percentile))


def test_percentiles_are_of_finite_values():
    """NaN outside the field of view does not count; nothing finite is an error."""
    values = np.arange(101, dtype=np.float32).reshape(1, 1, 101)
    spoilt = np.concatenate([values, np.full((1, 1, 50), np.nan), np.full((1, 1, 50), np.inf)], 2)

    assert value_at(spoilt, 10) == 10
    assert (value_at(spoilt, 0.0), value_at(spoilt, 100.0)) == (0, 100)
    with pytest.raises(DataError, match="no finite value"):
        value_at(np.full((2, 2), np.nan), 50)


def test_a_slope_is_part_of_the_values():
    """Also a negative one: the lowest stored is then the highest."""
    stored = np.arange(101, dtype=np.int16).reshape(1, 1, 101)
    volume = Volume(stored, np.eye(4), True, slope=-2.0, intercept=5.0)
    whole = shades_of_volume(volume, intensity_rule("min-max"))
    part = shades_of_volume(volume, intensity_rule("percentile:10-80"))

    assert whole is not None
    assert part is not None
    assert (whole.lo, whole.hi) == (-195, 5)
    assert (part.lo, part.hi) == (-175, -35)


def test_a_slice_has_its_own_ends_and_one_without_a_finite_value_is_a_drop(tmp_path):
    """The rest of the volume goes on."""
    voxels = SCAN.voxels.astype(np.float32)
    voxels[:, :, 4] = np.nan
    _, images = curated(
        folder(tmp_path / "in", voxels), tmp_path / "out", intensity=intensity_rule(None, "slice")
    )
    drops = pl.read_parquet(tmp_path / "out/drops/*.parquet").to_dicts()
    ends = {row["slice_index"]: (row["intensity_lo"], row["intensity_hi"]) for row in images}

    assert 4 not in ends
    assert ends[5] == (voxels[..., 5].min(), voxels[..., 5].max())
    assert {row["intensity_rule"] for row in images} == {"min-max slice"}
    assert ("d/s/axial/0004", "it holds no finite value") in {
        (d["image_id"], d["reason"]) for d in drops
    }


def test_a_window_shows_level_and_width():
    """The lung: -1350 is black, 150 white, -600 between."""
    shades = shades_of_volume(
        read_like(np.array([[[-1350, -600, 150]]])), intensity_rule("window:lung")
    )
    assert shades is not None
    picture = shades.picture(np.array([[-2000, -1350, -600, 150, 3000]]))

    assert WINDOWS["lung"] == (-600, 1500)
    assert picture.pixels.tolist() == [[0, 0, 128, 255, 255]]
    assert picture.rule == "window lung (-600/1500)"


def read_like(voxels, **more):
    """Make a volume of some voxels."""
    return Volume(voxels.astype(np.int16), np.eye(4), True, **more)


def test_the_window_of_the_header_is_taken_or_missed():
    """Nothing stands in for it."""
    voxels = np.array([[[0, 100]]])
    shades = shades_of_volume(
        read_like(voxels, window=(-10.0, 90.0)), intensity_rule("window:dicom")
    )

    assert shades is not None
    assert (shades.lo, shades.hi) == (-10, 90)
    with pytest.raises(DataError, match="its header states no window"):
        shades_of_volume(read_like(voxels), intensity_rule("window:dicom"))


def test_none_keeps_what_is_8_bits_and_refuses_the_rest(tmp_path):
    """Values from 0 to 255 need no rule, in whatever type."""
    voxels = np.clip(SCAN.voxels // 12 + 90, 0, 255).astype(np.int16)
    _, images = curated(
        folder(tmp_path / "in", voxels), tmp_path / "out", intensity=intensity_rule("none")
    )
    row = images[0]
    stored = decode_image(row["image"]["bytes"], row["sha256"])

    assert row["intensity_rule"] == "none"
    assert np.array_equal(stored, voxels[::-1, ::-1, row["slice_index"]].T)
    with pytest.raises(DataError, match="not 8 bits, so that they need an intensity rule"):
        shades_of_volume(read_like(SCAN.voxels), intensity_rule("none"))


@pytest.mark.parametrize(
    ("text", "per", "message"),
    [
        ("minmax", None, "no intensity rule 'minmax'"),
        ("percentile:99-1", None, "two from 0 to 100"),
        ("percentile:0-101", None, "two from 0 to 100"),
        ("percentile:", None, "no intensity rule"),
        ("window:40/0", None, "has to be above 0"),
        ("window:lungs", None, "Did you mean 'lung'"),
        ("released", "volume", "goes by slice"),
        ("window:lung", "slice", "--per goes with min-max and percentile"),
        ("min-max", "image", "No unit of a rule named 'image'"),
        ("none:1", None, "no intensity rule"),
    ],
)
def test_rules_that_are_none_are_told_at_once(text, per, message):
    """With what is known."""
    with pytest.raises((DataError, UnknownName), match=message):
        intensity_rule(text, per)


@pytest.mark.parametrize(
    ("text", "modality", "hinted"),
    [
        (None, "CT", True),
        ("window:liver", "CT", False),
        ("min-max", "CT", False),
        (None, "MR", False),
    ],
)
def test_a_ct_by_plain_min_max_gets_a_hint(tmp_path, text, modality, hinted):
    """It names the option; who chose is not told again."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/labels.json").write_text('{"liver": 1, "kidney": 2}')
    info, _ = curated(
        folder(tmp_path / "in"), tmp_path / "out", modality, intensity=intensity_rule(text)
    )

    assert ("--intensity window:" in info.rules.get("hint", "")) is hinted


def test_the_command_line_says_what_was_done(tmp_path):
    """Rules go into corpus.json; every image has its own."""
    options = [
        "--modality",
        "CT",
        "--intensity",
        "percentile:1-99",
        "--per",
        "slice",
        "--tile",
        "24",
    ]
    args = ["curate", str(folder(tmp_path / "in")), "--out", str(tmp_path / "out"), *options]
    result = CliRunner().invoke(app, args)
    info = open_corpus(tmp_path / "out").info
    rules = pl.read_parquet(tmp_path / "out/images/*.parquet")["intensity_rule"]

    assert result.exit_code == 0
    assert info.rules["intensity"].startswith("percentile 1-99 over each slice, or picture")
    assert info.rules["tiles"] == "images of more than 24 pixels a side, without overlap"
    assert set(rules) == {"percentile 1-99 slice"}


def test_the_scan_is_read_by_the_helper(tmp_path):
    """The phantom's own values, so that the tests above mean something."""
    volume = read_volume(folder(tmp_path) / "images/s.nrrd")

    assert np.array_equal(volume.voxels, SCAN.voxels)
    assert shades_of_slice(SCAN.voxels[..., 0], intensity_rule("min-max")).lo == -1000
