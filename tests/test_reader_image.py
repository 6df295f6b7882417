"""Pictures and 2D masks of all kinds, as arrays."""

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from promptseg.errors import DataError
from promptseg.pixels import displayed
from promptseg.reader.image import finite_range, mask_of, read_mask, read_picture, scaled
from promptseg.reader.stack import open_pages

rng = np.random.default_rng(0)
GREY = rng.integers(0, 256, (7, 5), dtype=np.uint8)
RGB = rng.integers(0, 256, (7, 5, 3), dtype=np.uint8)
DEEP = rng.integers(300, 60000, (7, 5), dtype=np.uint16)


def saved(path, array, **options):
    """Write an array by PIL, and give the path."""
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
@pytest.mark.parametrize("pixels", [GREY, RGB], ids=["grey", "rgb"])
def test_8_bit_pictures_come_back_bit_for_bit(tmp_path, suffix, pixels):
    """Grey stays grey and RGB stays RGB."""
    picture = read_picture(saved(tmp_path / f"a{suffix}", pixels))

    assert np.array_equal(picture.pixels, pixels)
    assert (picture.rule, picture.lo, picture.hi) == ("none", 0, 255)


def test_alpha_is_left_away(tmp_path):
    """Colours under a transparent pixel stay what they are."""
    rgba = np.dstack([RGB, GREY])
    grey_alpha = np.dstack([GREY, GREY[::-1]])

    assert np.array_equal(read_picture(saved(tmp_path / "a.png", rgba)).pixels, RGB)
    assert np.array_equal(read_picture(saved(tmp_path / "b.png", grey_alpha)).pixels, GREY)


def test_palettes_are_expanded(tmp_path):
    """A palette picture shows the colours, not their numbers."""
    picture = Image.fromarray((GREY % 3).astype(np.uint8), mode="P")
    picture.putpalette([10, 20, 30, 200, 0, 0, 0, 99, 0])
    picture.save(tmp_path / "a.png")
    colours = np.array([[10, 20, 30], [200, 0, 0], [0, 99, 0]], dtype=np.uint8)

    assert np.array_equal(read_picture(tmp_path / "a.png").pixels, colours[GREY % 3])


def test_one_bit_becomes_black_and_white(tmp_path):
    """1-bit pictures use the same 0..255 as all others."""
    path = saved(tmp_path / "a.png", GREY > 127)

    assert np.array_equal(read_picture(path).pixels, np.where(GREY > 127, 255, 0))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey_stays_and_its_range_is_kept(tmp_path, suffix):
    """The corpus stores it whole; the range says how to show it."""
    picture = read_picture(saved(tmp_path / f"a{suffix}", DEEP))

    assert picture.pixels.dtype == np.uint16
    assert np.array_equal(picture.pixels, DEEP)
    assert (picture.rule, picture.lo, picture.hi) == ("min-max image", DEEP.min(), DEEP.max())


def test_16_bit_grey_of_either_byte_order_is_the_same(tmp_path):
    """Microscopes still write big-endian TIFF."""
    tifffile.imwrite(tmp_path / "a.tif", DEEP, byteorder=">")
    pixels = read_picture(tmp_path / "a.tif").pixels

    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels, DEEP)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_colour_is_scaled_from_all_its_bits(tmp_path, suffix):
    """PIL would keep the upper bytes only, which is nearly black for 12-bit data."""
    deep_rgb = rng.integers(0, 4096, (7, 5, 3), dtype=np.uint16)
    deep_rgb[0, 0], deep_rgb[0, 1] = 0, 4095
    cv2.imwrite(str(tmp_path / f"a{suffix}"), deep_rgb[:, :, ::-1])
    picture = read_picture(tmp_path / f"a{suffix}")

    assert np.array_equal(picture.pixels, np.rint(deep_rgb / 4095 * 255))
    assert (picture.rule, picture.lo, picture.hi) == ("min-max image", 0, 4095)


def test_floats_are_scaled_by_their_finite_range(tmp_path):
    """A NaN or an infinity does not make the rest black."""
    values = np.array([[-1.0, 0.0, 1.0], [np.nan, np.inf, -np.inf]], dtype=np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values)
    picture = read_picture(tmp_path / "a.tif")

    assert picture.pixels.tolist() == [[0, 128, 255], [0, 255, 0]]
    assert (picture.rule, picture.lo, picture.hi) == ("min-max image", -1, 1)


def test_scaling_a_constant_gives_black():
    """There is no range to divide by."""
    assert scaled(np.full((2, 2), 7.0), 7.0, 7.0).tolist() == [[0, 0], [0, 0]]


def test_values_without_a_finite_one_have_no_range():
    """Neither black nor white would be right."""
    with pytest.raises(DataError, match="no finite value"):
        finite_range(np.full((2, 2), np.nan))


def test_orientation_tags_are_not_applied(tmp_path):
    """Masks have no such tag, so a turned image would no longer fit its mask."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "a.png", GREY, exif=exif)

    assert np.array_equal(read_picture(path).pixels, GREY)


def test_a_stack_is_no_picture_but_a_preview_does_no_harm(tmp_path):
    """A TIFF of several pages is refused; a reduced page beside the picture is its preview."""
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([GREY, GREY]), photometric="minisblack")
    with tifffile.TiffWriter(tmp_path / "preview.tif") as writer:
        writer.write(GREY, photometric="minisblack")
        writer.write(GREY[::2, ::2], photometric="minisblack", subfiletype=1)

    assert np.array_equal(read_picture(tmp_path / "preview.tif").pixels, GREY)
    with pytest.raises(DataError, match="several pages"):
        read_picture(tmp_path / "stack.tif")


def test_damaged_files_are_refused_with_a_reason_that_tells_no_path(tmp_path):
    """Reasons are kept in the corpus, and folders may be named after patients."""
    noise = rng.integers(0, 256, (64, 64), dtype=np.uint8)
    whole = saved(tmp_path / "a.png", noise).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "none.png").write_bytes(b"no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("cut.png", "none.png", "empty.png"):
        with pytest.raises(DataError, match="cannot be read") as caught:
            read_picture(tmp_path / name)

        assert str(tmp_path) not in str(caught.value)


def test_a_file_that_is_not_there_is_called_that(tmp_path):
    """Without the words of the operating system."""
    with pytest.raises(DataError, match=r"^there is no such file$"):
        read_picture(tmp_path / "no.png")


def test_colours_for_print_become_rgb_and_it_is_recorded(tmp_path):
    """Print colours have no exact RGB: what was done is kept with the picture."""
    Image.new("CMYK", (16, 16), (255, 0, 0, 51)).save(tmp_path / "a.tif")
    picture = read_picture(tmp_path / "a.tif")

    assert (picture.pixels == [0, 204, 204]).all()
    assert (picture.rule, picture.lo, picture.hi) == ("cmyk to rgb", 0, 255)


def test_masks_keep_their_values(tmp_path):
    """Label values are numbers, however dark they look; also those above 255."""
    labels = (GREY % 4).astype(np.uint8)
    many = (DEEP % 1000).astype(np.uint16)

    assert np.array_equal(read_mask(saved(tmp_path / "a.png", labels)).values, labels)
    assert np.array_equal(read_mask(saved(tmp_path / "b.png", many)).values, many)


def test_masks_in_colours_are_read_from_the_colours_not_from_alpha(tmp_path):
    """Alpha is opaque everywhere in the RGBA masks of BiomedParse."""
    mask = np.where(GREY > 127, 255, 0).astype(np.uint8)
    opaque = np.full_like(mask, 255)
    rgba = np.dstack([mask, mask, mask, opaque])
    red = np.dstack([mask // 2, 0 * mask, 0 * mask, opaque])

    assert np.array_equal(read_mask(saved(tmp_path / "a.png", rgba)).values, mask)
    assert np.array_equal(read_mask(saved(tmp_path / "b.png", red)).values, mask)


def test_masks_of_several_colours_are_refused(tmp_path):
    """Nothing says which colour is which object."""
    with pytest.raises(DataError, match="colours"):
        read_mask(saved(tmp_path / "a.png", RGB))


@pytest.mark.parametrize(
    ("palette", "expected"),
    [
        ([0, 0, 0, 128, 0, 0, 0, 128, 0], [0, 1, 2]),  # as Pascal VOC: the index is the label
        ([255, 255, 255, 0, 0, 0, 170, 170, 170], [255, 0, 170]),  # greys, in any order
    ],
    ids=["colours", "greys"],
)
def test_palette_masks_mean_their_indices_or_their_greys(tmp_path, palette, expected):
    """A program that saves a grey mask with a palette may number white first."""
    indices = (GREY % 3).astype(np.uint8)
    picture = Image.fromarray(indices, mode="P")
    picture.putpalette(palette)
    picture.save(tmp_path / "a.png")
    values = read_mask(tmp_path / "a.png").values
    values = values if values.ndim == 2 else values[:, :, 0]

    assert np.array_equal(values, np.array(expected)[indices])


def test_masks_of_four_bits_keep_their_values(tmp_path):
    """PIL stretches them to 0..255, which would turn label 2 into 34."""
    four_bits = np.packbits(
        np.unpackbits(np.array([[0, 1, 2, 3]], dtype=np.uint8)[:, :, None], axis=2)[:, :, 4:]
    )
    header = b"\x89PNG\r\n\x1a\n"
    body = _chunk(b"IHDR", (4).to_bytes(4) + (1).to_bytes(4) + bytes([4, 0, 0, 0, 0]))
    body += _chunk(b"IDAT", _compressed(b"\x00" + four_bits.tobytes())) + _chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(header + body)

    assert read_mask(tmp_path / "a.png").values.tolist() == [[0, 1, 2, 3]]


def _chunk(kind, content):
    import zlib

    return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)


def _compressed(content):
    import zlib

    return zlib.compress(content)


def test_jpeg_masks_are_known_to_be_lossy(tmp_path):
    """Their values are near to what was drawn, no more."""
    mask = np.kron(GREY > 127, np.ones((16, 16))).astype(np.uint8) * 255
    assert read_mask(saved(tmp_path / "a.jpg", mask)).lossy
    assert not read_mask(saved(tmp_path / "a.png", mask)).lossy


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (10, 200, 30)])
def test_alpha_is_the_mask_where_the_rest_has_one_colour(tmp_path, colour):
    """Editors draw on nothing: what is not drawn is transparent, whatever colour lies under it."""
    alpha = np.where(GREY > 127, 255, 0).astype(np.uint8)
    one = np.full((*GREY.shape, 3), colour, np.uint8)
    under = np.where(alpha[:, :, None] > 0, one, RGB)
    for colours in (one, under):
        path = saved(tmp_path / "a.png", np.dstack([colours, alpha]))
        assert np.array_equal(read_mask(path).values, alpha)

    grey = saved(tmp_path / "b.png", np.dstack([one[:, :, 0], alpha]))
    assert np.array_equal(read_mask(grey).values, alpha)


def test_alpha_over_several_colours_or_of_one_value_is_no_mask(tmp_path):
    """Greys with a transparent corner stay greys."""
    labels = (GREY % 4).astype(np.uint8)
    alpha = np.where(np.arange(5) > 0, 255, 0).astype(np.uint8) * np.ones_like(GREY)
    for channel in (alpha, np.full_like(alpha, 255), np.zeros_like(alpha)):
        path = saved(tmp_path / "a.png", np.dstack([labels, labels, labels, channel]))
        assert np.array_equal(read_mask(path).values, labels)


def test_a_coloured_palette_without_black_means_its_indices(tmp_path):
    """White paper at index 0, drawn on in colours."""
    indices = (GREY % 3).astype(np.uint8)
    picture = Image.fromarray(indices, mode="P")
    picture.putpalette([255, 255, 255, 200, 0, 0, 0, 99, 0])
    picture.save(tmp_path / "a.png")

    assert np.array_equal(read_mask(tmp_path / "a.png").values, indices)


@pytest.mark.parametrize(
    ("array", "count"),
    [
        (GREY, 1), (RGB, 1), (GREY[:, :, None], 1), (GREY[None], 1), (np.dstack([RGB, GREY]), 1),
        (np.stack([GREY] * 2), 2), (np.stack([RGB] * 2), 2), (np.stack([RGB] * 5)[:, None, 0], 5),
        (np.stack([GREY] * 4)[..., None], 4), (np.stack([GREY] * 3), 3),
    ],
)  # fmt: skip
def test_shapes_of_arrays_mean_one_thing(tmp_path, array, count):
    """A last axis of 3 or 4 is colours, of 1 none; of the others 2 are a picture, 3 a stack."""
    np.save(tmp_path / "a.npy", array)
    assert open_pages(tmp_path / "a.npy").count == count


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(3),
        np.zeros((2, 2, 5, 5)),
        np.zeros((2, 2), complex),
        np.zeros((0, 5, 5)),
        np.zeros(()),
    ],
)
def test_other_arrays_are_refused(tmp_path, array):
    """Channels, points and numbers are no pictures."""
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match=r"shape|kind|no page"):
        open_pages(tmp_path / "a.npy")


KINDS = ("u1", "u2", "i2", "i4", "u4", "i1", "f2", "f4", "f8", "b1")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byteorder": ">"},
        {"compression": "zlib"},
        {"compression": "zlib", "byteorder": ">", "tile": (16, 16)},
        {"planarconfig": "separate"},
        {"planarconfig": "separate", "compression": "zlib", "predictor": True},
        None,
    ],
    ids=["plain", "big", "deflate", "tiles", "planes", "predictor", "npy"],
)
def test_all_kinds_of_pixels_come_back(tmp_path, kind, channels, options):
    """8 bits to the bit, 16-bit grey whole, the rest within half a grey level of the kept map."""
    shape = (37, 53) if channels == 1 else (37, 53, channels)
    pixels = (rng.normal(0, 100, shape) if kind[0] == "f" else rng.integers(0, 100, shape)) * 2
    pixels = (pixels > 90 if kind == "b1" else pixels).astype(kind)
    if options is None or kind == "b1":
        np.save(tmp_path / "a.npy", pixels.astype(pixels.dtype.newbyteorder(">")))
        picture = read_picture(tmp_path / "a.npy")
    else:
        write_tiff(tmp_path / "a.tif", pixels, **options)
        picture = read_picture(tmp_path / "a.tif")
    colours = pixels[:, :, :3] if channels == 4 else pixels
    if kind in ("u1", "b1"):
        assert np.array_equal(picture.pixels, colours * np.uint8(1 if kind == "u1" else 255))
        assert picture.rule == "none"
        return
    lo, hi = float(colours.min()), float(colours.max())
    assert (picture.rule, picture.lo, picture.hi) == ("min-max image", lo, hi)
    if kind == "u2" and channels == 1:
        assert np.array_equal(picture.pixels, pixels)
    else:
        exact = (colours.astype(np.float64) - lo) / (hi - lo) * 255
        assert np.abs(picture.pixels - exact).max() <= 0.5 + 1e-9


def write_tiff(path, pixels, **options):
    """Write a picture by tifffile, which knows more kinds than others."""
    is_colour = pixels.ndim == 3
    if pixels.dtype.kind == "f":
        options.pop("predictor", None)
    if not is_colour:
        options.pop("planarconfig", None)
    elif options.get("planarconfig") == "separate":
        pixels = np.moveaxis(pixels, -1, 0)
    if is_colour and 4 in pixels.shape:
        options["extrasamples"] = ["unassalpha"]
    tifffile.imwrite(path, pixels, photometric="rgb" if is_colour else "minisblack", **options)


@pytest.mark.parametrize("kind", ["u2", "f4", "f8"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("compression", [5, 32773], ids=["lzw", "packbits"])
def test_deep_pixels_are_unpacked_whatever_packed_them(tmp_path, kind, channels, compression):
    """LZW is what many microscopes write; tifffile alone would not read it."""
    shape = (37, 53) if channels == 1 else (37, 53, channels)
    pixels = (rng.random(shape) * 4095).astype(kind)
    bgr = pixels if channels == 1 else pixels[:, :, [2, 1, 0, 3][:channels]]
    cv2.imwrite(str(tmp_path / "a.tif"), bgr, [cv2.IMWRITE_TIFF_COMPRESSION, compression])
    picture = read_picture(tmp_path / "a.tif")
    colours = (pixels[:, :, :3] if channels == 4 else pixels).astype(np.float64)
    shown = displayed(picture.pixels, picture.lo, picture.hi)
    exact = (colours - colours.min()) / (colours.max() - colours.min()) * 255

    assert (picture.lo, picture.hi) == (colours.min(), colours.max())
    assert np.abs(shown - np.atleast_3d(exact)).max() <= 0.5 + 1e-9


def test_jpeg_in_tiff_is_read_and_known_to_be_lossy(tmp_path):
    """As an image it is what the decoder gives; as a mask it needs black and white."""
    mask = np.kron(GREY > 127, np.ones((16, 16))).astype(np.uint8) * 255
    path = saved(tmp_path / "a.tif", mask, compression="jpeg")

    assert np.abs(read_picture(path).pixels.astype(int) - mask).max() < 40
    assert read_mask(path).lossy


def test_white_is_zero_is_shown_as_it_looks(tmp_path):
    """Of 8 and of 16 bits alike."""
    for pixels in (GREY, DEEP):
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="miniswhite")
        assert np.array_equal(
            read_picture(tmp_path / "a.tif").pixels, np.iinfo(pixels.dtype).max - pixels
        )


@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
@pytest.mark.parametrize("values", ["b1", "u1", "u2", "labels"])
def test_a_mask_is_what_is_stored_where_white_is_zero(tmp_path, values, compression):
    """As tifffile writes truths, and ImageJ binary masks: shown, they would be inside out."""
    mask = np.zeros((20, 24), "u1" if values == "labels" else values)
    mask[3:8, 4:15] = 2 if values == "labels" else 1 if values == "b1" else 255
    mask[10:14, 4:15] = 1 if values == "labels" else mask.max()
    tifffile.imwrite(tmp_path / "a.tif", mask, photometric="miniswhite", compression=compression)
    expected = mask * np.uint8(255) if values == "b1" else mask

    assert np.array_equal(read_mask(tmp_path / "a.tif").values, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
@pytest.mark.parametrize("kind", ["u1", "u2", "i2"])
def test_no_orientation_is_applied_to_tiff(tmp_path, kind, compression, orientation):
    """Neither by PIL nor by OpenCV, which turn pictures: a mask beside it may not state it."""
    pixels = rng.integers(0, 100, (20, 24)).astype(kind)
    options = {"photometric": "minisblack", "compression": compression}
    tags = [(274, 3, 1, orientation, True)]
    tifffile.imwrite(tmp_path / "a.tif", pixels, extratags=tags, **options)

    assert np.array_equal(read_mask(tmp_path / "a.tif").values, pixels)


def test_a_fax_is_what_it_looks_like(tmp_path):
    """There black is drawn on white, and 0 is white: who packs a mask so has turned its bits."""
    mask = np.zeros((20, 24), np.uint8)
    mask[3:8, 4:15] = 255
    pages = Image.fromarray(mask).convert("1")
    pages.save(tmp_path / "a.tif", compression="group4", tiffinfo={262: 0})

    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.pages[0].photometric == 0
    assert np.array_equal(read_mask(tmp_path / "a.tif").values, mask)


@pytest.mark.parametrize("compression", ["lzw", "packbits"])
def test_deep_planes_that_no_library_reads_have_a_reason(tmp_path, compression):
    """OpenCV takes planes for pixels, and mixes them."""
    planes = rng.integers(0, 2**16, (3, 20, 24), dtype=np.uint16)
    options = {"photometric": "rgb", "planarconfig": "separate", "compression": compression}
    tifffile.imwrite(tmp_path / "a.tif", planes, **options)
    with pytest.raises(DataError, match="compression"):
        read_picture(tmp_path / "a.tif")


def test_frames_of_a_gif_have_the_same_values_for_one_colour(tmp_path):
    """The first is stored with its palette, the others are not."""
    frames = []
    for number in range(3):
        indices = np.zeros((30, 40), np.uint8)
        indices[3:9, 3 + number : 9 + number] = 5
        frames.append(Image.fromarray(indices))
        frames[-1].putpalette([0] * 15 + [255, 0, 0] + [0] * 750)
    options = {"append_images": frames[1:], "optimize": False}
    frames[0].save(tmp_path / "a.gif", save_all=True, **options)
    read = open_pages(tmp_path / "a.gif").read(True, 1)

    assert [np.unique(mask_of(page).values).tolist() for _, page in read] == [[0, 255]] * 3


def test_the_same_picture_in_14_formats_is_the_same(sample_set):
    """Of 8 and 16 bits, grey and colours, with and without alpha, as PNG and TIFF."""
    paths = sorted((sample_set / "sem_pixel_formats_nomask" / "images").iterdir())
    pictures = {path.name: read_picture(path) for path in paths}
    as_8_bits = {
        name: (p.pixels // 257).astype(np.uint8) if p.pixels.dtype == np.uint16 else p.pixels
        for name, p in pictures.items()
    }
    first = {pixels.shape[:2]: np.atleast_3d(pixels) for pixels in as_8_bits.values()}

    assert len(paths) == 14
    assert len(first) == 2  # two cuts of one photograph
    for pixels in as_8_bits.values():
        known = first[pixels.shape[:2]]
        assert np.array_equal(np.atleast_3d(pixels)[:, :, 0], known[:, :, 0])


def test_masks_of_retinal_vessels_are_read_from_gif(sample_set):
    """And their images from LZW TIFF."""
    for path in sorted((sample_set / "drive_fundus" / "masks").iterdir()):
        image = path.parent.parent / "images" / path.name.replace("manual1.gif", "training.tif")
        mask = read_mask(path).values

        assert np.unique(mask).tolist() == [0, 255]
        assert read_picture(image).pixels.shape == (*mask.shape, 3)
