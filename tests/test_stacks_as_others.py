"""Stacks with what other files have: mapping files, intensity rules, tiles."""

import numpy as np
import polars as pl
import pytest
from test_stacks import GREY, MASKS, H, N, W, put

from promptseg.corpus import open_corpus
from promptseg.curation import Curation, curate
from promptseg.reader.intensity import intensity_rule

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
DEEP = np.random.default_rng(2).integers(0, 4000, (N, H, W)).astype(np.int16)
LABELS = np.zeros((N, H, W), np.uint8)
LABELS[:, 2:14, 3:20], LABELS[:3, 15:23, 6:30] = 1, 2


def curated(tmp_path, mapping=None, **settings):
    """Curate `data`; give images, masks by (frame, object), drops and rules."""
    if mapping is not None:
        (tmp_path / "mapping.toml").write_text(mapping)
        settings["mapping"] = tmp_path / "mapping.toml"
    out = tmp_path / "corpus"
    for _ in curate(tmp_path / "data", out, Curation(**{"modality": "US", **settings})):
        pass
    corpus = open_corpus(out)
    samples = [sample for group in corpus.row_groups() for sample in corpus.read(group)]
    masks = {(s.place.slice_index, t.object): t.mask for s in samples for t in s.targets}
    drops = pl.read_parquet(out / "drops/*.parquet") if list(out.glob("drops/*")) else None
    rows = pl.read_parquet(out / "images/*.parquet").drop("image")
    return samples, masks, rows, [] if drops is None else drops["reason"].to_list(), corpus.info


def test_a_mapping_file_names_the_values_of_a_stack_of_masks(tmp_path):
    """Also 0, in every frame."""
    put(tmp_path / "data/scans/a.tif", GREY)
    put(tmp_path / "data/m/a_seg.tif", LABELS)
    _, masks, *_ = curated(
        tmp_path,
        """
        images = "scans/{key}.tif"
        [[masks]]
        path = "m/{key}_seg.tif"
        labels = { rest = [0], heart = [1], lung = [2] }
        """,
    )

    assert set(masks) == {
        *((k, name) for k in range(N) for name in ("rest", "heart")),
        *((k, "lung") for k in range(3)),
    }
    for (k, name), mask in masks.items():
        assert np.array_equal(mask, LABELS[k] == ("rest", "heart", "lung").index(name))


def test_a_mapping_file_says_what_the_mask_of_a_frame_shows(tmp_path):
    """The number in the name is the frame's, and the object is the mapping's."""
    put(tmp_path / "data/scans/a.tif", GREY)
    for number in (1, 3):
        put(tmp_path / f"data/m/a_{number:04d}.png", MASKS[number - 1])
    _, masks, *_ = curated(
        tmp_path,
        """
        images = "scans/{key}.tif"
        [[masks]]
        path = "m/{key}_{instance}.png"
        object = "heart"
        """,
    )

    assert set(masks) == {(0, "heart"), (2, "heart")}
    assert np.array_equal(masks[2, "heart"], MASKS[2] > 0)


def test_a_frame_can_have_a_stack_of_channels(tmp_path):
    """One file a frame, with a channel for each object."""
    put(tmp_path / "data/scans/a.tif", GREY)
    channels = np.stack([LABELS[1] == 1, LABELS[1] == 2])
    put(tmp_path / "data/m/a_0002.npy", channels)
    _, masks, *_ = curated(
        tmp_path,
        """
        images = "scans/{key}.tif"
        [[masks]]
        path = "m/{key}_{instance}.npy"
        channels = ["heart", "lung"]
        """,
    )

    assert set(masks) == {(1, "heart"), (1, "lung")}
    assert np.array_equal(masks[1, "lung"], channels[1])


@pytest.mark.parametrize(
    ("rule", "per", "ends"),
    [
        (None, None, lambda frames, k: (frames.min(), frames.max())),
        ("min-max", "slice", lambda frames, k: (frames[k].min(), frames[k].max())),
        ("percentile:1-99", None, lambda frames, k: np.percentile(frames, (1, 99))),
        ("percentile:1-99", "slice", lambda frames, k: np.percentile(frames[k], (1, 99))),
        ("window:2000/1000", None, lambda frames, k: (1500, 2500)),
    ],
)
def test_intensity_rules_hold_for_stacks(tmp_path, rule, per, ends):
    """Over all frames, or over each; the ends are kept."""
    put(tmp_path / "data/images/a.tif", DEEP)
    put(tmp_path / "data/masks/a.tif", MASKS)
    samples, _, rows, *_ = curated(tmp_path, intensity=intensity_rule(rule, per))

    assert len(samples) == N
    for sample, row in zip(samples, rows.to_dicts(), strict=True):
        k = sample.place.slice_index
        lo, hi = ends(DEEP, k)
        assert (row["intensity_lo"], row["intensity_hi"]) == pytest.approx((lo, hi))
        expected = np.clip((DEEP[k] - lo) / (hi - lo), 0, 1) * 255
        assert np.abs(sample.image[..., 0] - expected).max() <= 0.5 + 1e-9


def test_frames_of_8_bits_follow_a_rule_that_is_asked_for(tmp_path):
    """Percentiles are those of all frames; a window does not concern them."""
    put(tmp_path / "data/images/a.tif", GREY // 2 + 20)
    put(tmp_path / "data/masks/a.tif", MASKS)
    _, _, rows, *_ = curated(tmp_path, intensity=intensity_rule("percentile:2-98"))
    lo, hi = np.percentile(GREY // 2 + 20, (2, 98))

    assert set(rows["intensity_lo"]) == {lo}
    assert set(rows["intensity_hi"]) == {hi}
    assert set(rows["intensity_rule"]) == {"percentile 2-98 volume"}


def test_what_has_no_percentiles_over_all_frames_says_so(tmp_path):
    """Fractions cannot be counted; each frame has its own."""
    put(tmp_path / "data/images/a.tif", DEEP.astype(np.float32) / 7)
    put(tmp_path / "data/images/b.tif", DEEP)
    for name in "ab":
        put(tmp_path / f"data/masks/{name}.tif", MASKS)
    _, _, rows, reasons, _ = curated(tmp_path, intensity=intensity_rule("percentile:2-98"))

    assert rows.height == N
    assert reasons == [
        "percentiles over a stack need whole numbers of 8 or 16 bits. --per slice finds those of "
        "each frame"
    ]


def test_tiles_are_cut_of_frames(tmp_path):
    """With their masks."""
    put(tmp_path / "data/images/a.tif", GREY)
    put(tmp_path / "data/masks/a.tif", MASKS)
    samples, *_ = curated(tmp_path, tile_px=20, min_area_px=0)
    tiles = {s.image_id.partition("frame/")[2]: s for s in samples}

    assert np.array_equal(tiles["0001/tile_0_0"].image[..., 0], GREY[1, :12, :20])
    assert np.array_equal(tiles["0001/tile_12_0"].targets[0].mask, MASKS[1, 12:, :20] > 0)


def test_soft_stacks_are_thresholded_by_a_mapping_file(tmp_path):
    """As other masks are."""
    put(tmp_path / "data/scans/a.tif", GREY)
    soft = np.random.default_rng(4).random((N, H, W)).astype(np.float32)
    put(tmp_path / "data/soft/a.tif", soft)
    _, masks, *_ = curated(
        tmp_path,
        """
        images = "scans/{key}.tif"
        [[masks]]
        path = "soft/{key}.tif"
        object = "heart"
        threshold = 0.5
        """,
    )

    assert np.array_equal(masks[1, "heart"], soft[1] > 0.5)
