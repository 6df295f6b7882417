"""Stacks, arrays and videos become frames of a corpus, with the masks that lie on each."""

import cv2
import numpy as np
import polars as pl
import pytest
import tifffile
from PIL import Image

from promptseg.corpus import open_corpus
from promptseg.curation import Curation, curate
from promptseg.errors import DataError

# pycocotools has not followed NumPy 2 in one place; what it decodes is right
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

rng = np.random.default_rng(5)
N, H, W = 4, 24, 40
GREY = rng.integers(0, 256, (N, H, W), dtype=np.uint8)
RGB = rng.integers(0, 256, (N, H, W, 3), dtype=np.uint8)
MASKS = np.zeros((N, H, W), dtype=np.uint8)
for _i in range(N):
    MASKS[_i, 4:20, 3 + _i : 20 + _i] = 255


def put(path, array, **options):
    """Write an array as the suffix says; TIFF as a stack."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez_compressed(path, array)
    elif path.suffix == ".tif":
        kind = "rgb" if array.shape[-1] == 3 else "minisblack"
        tifffile.imwrite(path, array, photometric=kind, **options)
    elif path.suffix in (".gif", ".png") and array.ndim > 2 and array.shape[-1] != 3:
        first, *others = [Image.fromarray(page) for page in array]
        first.save(path, save_all=True, append_images=others)
    elif path.suffix in (".avi", ".mp4", ".mkv", ".mov"):
        put_video(path, array, **options)
    else:
        Image.fromarray(array).save(path)


def put_video(path, frames, code="FFV1"):
    """Write a video by OpenCV."""
    height, width = frames.shape[1:3]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 10, (width, height))
    for frame in frames:
        bgr = np.repeat(frame[:, :, None], 3, axis=2) if frame.ndim == 2 else frame[:, :, ::-1]
        writer.write(np.ascontiguousarray(bgr))
    writer.release()


class Curated:
    """What came into a corpus, and what did not."""

    def __init__(self, folder, out, **settings):
        settings = {"modality": "US", "object_name": "heart", **settings}
        for _ in curate(folder, out, Curation(**settings)):
            pass
        corpus = open_corpus(out)
        samples = (s for group in corpus.row_groups() for s in corpus.read(group))
        self.samples = {s.image_id.removeprefix("data/"): s for s in samples}
        self.rows = pl.read_parquet(out / "images" / "*.parquet").to_dicts()
        self.drops = {
            (row["image_id"] or row["source"]).removeprefix("data/"): row["reason"]
            for row in pl.read_parquet(out / "drops" / "*.parquet").to_dicts()
        }
        self.rules = corpus.info.rules

    def image(self, name):
        """Give the image of a sample."""
        return self.samples[name].image

    def mask(self, name):
        """Give the only mask of a sample."""
        (target,) = self.samples[name].targets
        return target.mask


@pytest.fixture
def data(tmp_path):
    """Give the folder that `curated` reads."""
    return tmp_path / "data"


@pytest.fixture
def curated(tmp_path):
    """Curate the folder `data` below tmp_path, once or several times."""
    runs = []

    def run(**settings):
        runs.append(None)
        return Curated(tmp_path / "data", tmp_path / f"corpus{len(runs)}", **settings)

    return run


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("a.tif", GREY),
        ("a.tif", RGB),
        ("a.npy", GREY),
        ("a.npy", RGB),
        ("a.npz", RGB),
        ("a.gif", GREY),
        ("a.png", GREY),
        ("a.avi", None),
        ("a.mkv", None),
    ],
)
@pytest.mark.parametrize("masks", ["a.tif", "a.npy"])
def test_a_stack_gives_its_frames_and_a_mask_stack_their_masks(data, curated, name, pixels, masks):
    """Every bit of the frames and of the masks, and where a frame lies in its stack."""
    if pixels is None:  # a codec without loss keeps grey values to the bit
        pixels = np.repeat(
            np.kron(GREY[:, ::8, ::8], np.ones((1, 8, 8), np.uint8))[..., None], 3, 3
        )
        pixels = np.where(pixels > 127, np.uint8(255), np.uint8(0))
    put(data / "images" / name, pixels)
    put(data / "masks" / masks, MASKS)
    corpus = curated()

    assert corpus.drops == {}
    assert sorted(corpus.samples) == [f"a/frame/{i:04d}" for i in range(N)]
    for i in range(N):
        image = corpus.image(f"a/frame/{i:04d}")
        assert np.array_equal(image, np.broadcast_to(np.atleast_3d(pixels[i]), image.shape))
        assert np.array_equal(corpus.mask(f"a/frame/{i:04d}"), MASKS[i] > 0)
    place = corpus.samples["a/frame/0002"].place
    assert (place.volume_id, place.slice_index, place.n_slices) == ("data/a", 2, N)
    assert (place.plane, place.spacing_slice_mm, place.affine) == ("frame", None, None)
    assert {(row["subject"], row["subject_source"]) for row in corpus.rows} == {("data/a", "file")}


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.int16])
def test_deep_frames_share_the_range_of_their_stack(data, curated, dtype):
    """A frame that is darker than the others stays so."""
    pixels = (rng.integers(0, 1000, (N, H, W)) * np.arange(1, N + 1)[:, None, None]).astype(dtype)
    put(data / "images" / "a.tif", pixels)
    put(data / "masks" / "a.tif", MASKS)
    corpus = curated()
    lo, hi = float(pixels.min()), float(pixels.max())
    expected = (pixels.astype(np.float64) - lo) / (hi - lo) * 255

    assert {row["intensity_rule"] for row in corpus.rows} == {"min-max volume"}
    assert {(row["intensity_lo"], row["intensity_hi"]) for row in corpus.rows} == {(lo, hi)}
    for i in range(N):
        found = corpus.image(f"a/frame/{i:04d}")[:, :, 0].astype(np.float64)
        assert np.abs(found - expected[i]).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("form", ["a_{:04d}", "a/{:03d}", "a/frame_{}", "a_{:02d}_mask"])
def test_masks_of_frames_are_numbered_from_0_or_1(data, curated, form, first):
    """A 0 says that numbers count from 0; without one they count from 1."""
    put(data / "images" / "a.tif", GREY)
    for i in range(N - 1):
        put(data / "masks" / f"{form.format(i + first)}.png", MASKS[i])
    corpus = curated()

    assert corpus.drops == {f"a/frame/{N - 1:04d}": "no target is left in it"}
    for i in range(N - 1):
        assert np.array_equal(corpus.mask(f"a/frame/{i:04d}"), MASKS[i] > 0)


def test_the_number_of_the_first_frame_may_be_said(data, curated):
    """Of a video only frames 1 and 3 may have been drawn, and none tells the first."""
    put(data / "images" / "a.tif", GREY)
    for i in (1, 3):
        put(data / "masks" / f"a_{i}.png", MASKS[i])
    corpus = curated(first_frame=0)

    assert sorted(corpus.samples) == ["a/frame/0001", "a/frame/0003"]
    assert np.array_equal(corpus.mask("a/frame/0003"), MASKS[3] > 0)
    assert corpus.rules["first_frame"] == "number of the first frame's mask: 0"


@pytest.mark.parametrize(
    ("numbers", "settings", "is_guess"),
    [
        ((1, 3), {}, True),
        ((1, 4), {}, False),
        ((0, 3), {}, False),
        ((1, 3), {"first_frame": 1}, False),
    ],
)
def test_a_guess_from_where_frames_count_is_told(data, curated, numbers, settings, is_guess):
    """Four frames: 4 tells that they count from 1, and 0 that they count from 0."""
    put(data / "images" / "a.tif", GREY)
    for number in numbers:
        put(data / "masks" / f"a_{number}.png", MASKS[0])

    assert ("say --first-frame" in str(curated(**settings).rules.get("notes"))) is is_guess


def test_numbers_that_are_no_frames_are_dropped(data, curated):
    """Whatever they show, it is not on this stack."""
    put(data / "images" / "a.tif", GREY)
    for i in (1, N, N + 1):
        put(data / "masks" / f"a_{i}.png", MASKS[0])
    corpus = curated()

    assert sorted(corpus.samples) == ["a/frame/0000", f"a/frame/{N - 1:04d}"]
    assert corpus.drops["a"] == f"its number {N + 1} is no frame: they count from 1 to {N}"


def test_masks_of_frames_may_name_objects_and_hold_label_maps(data, curated):
    """A number is the frame, and what stands beside it the object."""
    put(data / "images" / "a.tif", GREY)
    put(data / "masks" / "a_liver_0001.png", MASKS[0])
    put(data / "masks" / "a" / "0001_spleen.png", MASKS[1])
    put(data / "masks" / "a_0002.png", MASKS[2] // 255 + (MASKS[0] > 0))
    corpus = curated(object_name=None)
    objects = {name: [t.object for t in s.targets] for name, s in corpus.samples.items()}

    assert objects == {
        "a/frame/0000": ["spleen", "liver"],
        "a/frame/0001": ["label 1", "label 2"],
    }


def test_label_maps_per_frame_are_not_taken_for_binary(data, curated):
    """Values 1 in one frame and 2 in another are two objects, as in masks of pictures."""
    put(data / "images" / "a.npy", GREY)
    for i in range(N):
        put(data / "masks" / "a" / f"{i:04d}.png", (MASKS[i] > 0) * np.uint8(1 + i % 2))
    corpus = curated(object_name=None)

    assert [t.object for s in corpus.samples.values() for t in s.targets] == [
        *("label 1", "label 2", "label 1", "label 2")
    ]


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (MASKS[:-1], f"it has {N - 1} pages, and its image {N} frames"),
        (MASKS[0], f"it is one picture, and its image has {N} frames"),
        (MASKS[:, :-1], f"its size {W} x {H - 1} is not its image's, {W} x {H}"),
    ],
)
def test_masks_that_do_not_fit_a_stack_are_dropped(data, curated, mask, reason):
    """With the reason; what fits stays."""
    put(data / "images" / "a.tif", GREY)
    put(data / "masks" / "a_liver.tif", mask)
    put(data / "masks" / "a_spleen.tif", MASKS)
    corpus = curated()

    assert corpus.drops["a"].startswith(reason)
    assert len(corpus.samples) == N


def test_a_mask_of_several_pages_does_not_fit_a_picture(data, curated):
    """And a mask that is there but lost does not make the picture an empty one."""
    put(data / "images" / "a.png", GREY[0])
    put(data / "masks" / "a.tif", MASKS)
    put(data / "images" / "b.png", GREY[0])
    put(data / "masks" / "b.png", MASKS[0])
    corpus = curated(keep_empty=True)

    assert list(corpus.samples) == ["b"]


@pytest.mark.parametrize("name", ["a.avi", "a.npy", "a.gif"])
def test_every_nth_frame_may_be_taken(data, curated, name):
    """Frames keep their own numbers, and their own masks."""
    put(data / "images" / name, GREY)
    put(data / "masks" / "a.tif", MASKS)
    corpus = curated(every=2)

    assert sorted(corpus.samples) == ["a/frame/0000", "a/frame/0002"]
    assert np.array_equal(corpus.mask("a/frame/0002"), MASKS[2] > 0)
    assert corpus.samples["a/frame/0002"].place.n_slices == N


def test_a_mask_video_needs_a_threshold(data, curated):
    """Its coding changes values."""
    put(data / "images" / "a.npy", GREY)
    put(data / "masks" / "a.avi", MASKS, code="MJPG")
    with pytest.raises(DataError, match="a video cannot hold labels"):
        curated()
    corpus = curated(threshold=127)

    for i in range(N):
        differs = corpus.mask(f"a/frame/{i:04d}") != (MASKS[i] > 0)
        assert differs.mean() < 0.02


@pytest.mark.parametrize("form", ["a.avi", "a.mkv"])
def test_a_video_that_ends_early_gives_what_there_is_and_one_drop(data, curated, form):
    """Its masks are as many as there should be frames."""
    frames = rng.integers(0, 256, (20, H, W, 3), dtype=np.uint8)
    put(data / "images" / form, frames)
    put(data / "masks" / "a.npy", np.repeat(MASKS[:1], 20, axis=0))
    whole = (data / "images" / form).read_bytes()
    (data / "images" / form).write_bytes(whole[: len(whole) // 2])
    corpus = curated()

    assert 5 <= len(corpus.samples) < 15
    assert corpus.drops == {
        "a": f"from frame {len(corpus.samples)} on it cannot be decoded; "
        "its header promises 20 frames"
    }


def test_a_stack_with_a_damaged_page_gives_those_before_it(data, curated):
    """And one drop, since the rest is unknown."""
    put(data / "images" / "a.tif", GREY, compression="zlib")
    put(data / "masks" / "a.npy", MASKS)
    path = data / "images" / "a.tif"
    with tifffile.TiffFile(path) as file:
        start = file.pages[2].dataoffsets[0]
    content = bytearray(path.read_bytes())
    content[start : start + 50] = bytes(50)
    path.write_bytes(content)
    corpus = curated()

    assert sorted(corpus.samples) == ["a/frame/0000", "a/frame/0001"]
    assert corpus.drops["a"].startswith("it cannot be read")


def test_soft_stacks_need_a_threshold(data, curated):
    """One rule for all pages: also for those that happen to hold 0 and 1 only."""
    soft = (MASKS / 255).astype(np.float32)
    soft[1][soft[1] > 0] = 0.7
    put(data / "images" / "a.tif", GREY)
    put(data / "masks" / "a.npy", soft)
    with pytest.raises(DataError, match="--threshold"):
        curated()

    assert len(curated(threshold=0.5).samples) == N


def test_hyperstacks_are_read_but_not_their_channels(data, curated):
    """Time and depth are frames; channels are no colours."""
    volume = GREY.reshape(2, 2, 1, H, W)
    for name, axes, channels in (
        ("good", "TZCYX", volume),
        ("bad", "TCYX", GREY.reshape(2, 2, H, W)),
    ):
        path = data / "images" / f"{name}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, channels, imagej=True, metadata={"axes": axes})
        put(data / "masks" / f"{name}.tif", MASKS)
    corpus = curated()

    assert sorted(corpus.samples) == [f"good/frame/{i:04d}" for i in range(N)]
    assert corpus.drops["bad"].startswith("its pages are 2 channels")


def test_ome_channels_are_refused(data, curated):
    """Microscopes write them as pages."""
    put(data / "images" / "a.tif", GREY, ome=True, metadata={"axes": "CYX"})
    put(data / "masks" / "a.tif", MASKS)
    with pytest.raises(DataError, match="channels"):
        curated()


def test_empty_frames_are_kept_when_asked_but_lost_ones_are_not(data, curated):
    """A frame without a mask shows nothing; one whose mask is damaged may show anything."""
    put(data / "images" / "a.tif", GREY)
    put(data / "masks" / "a_0.png", MASKS[0])
    put(data / "masks" / "a_1.png", MASKS[0] * 0)
    put(data / "masks" / "a_2.png", MASKS[0][:, 1:])
    corpus = curated(keep_empty=True)

    assert {name: len(s.targets) for name, s in corpus.samples.items()} == {
        "a/frame/0000": 1,
        "a/frame/0001": 0,
        "a/frame/0003": 0,
    }
    assert "a/frame/0002" in corpus.drops


@pytest.mark.parametrize("settings", [{"every": 0}, {"first_frame": 2}])
def test_settings_of_stacks_are_checked(data, curated, settings):
    """With the words of the command line."""
    put(data / "images" / "a.tif", GREY)
    put(data / "masks" / "a.tif", MASKS)
    with pytest.raises(DataError, match=r"--every 0|--first-frame is 0 or 1"):
        curated(**settings)
