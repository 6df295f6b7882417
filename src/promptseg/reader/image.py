"""Pictures and 2D masks: PNG, JPEG, TIFF and BMP as arrays.

Pixels are taken as they are stored: an orientation tag (EXIF) is not applied, to images and
masks alike. Whatever cannot be read raises `DataError` with a reason fit for a table.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Integer, Shaped, UInt8

from promptseg.errors import DataError
from promptseg.reader.regrid import Regridded

if TYPE_CHECKING:
    from PIL import Image, ImageFile

# what PIL multiplies pixels of few bits with to fill 0..255: right for a picture, not for labels
_SCALE_OF_LABELS = {"L;2": 85, "L;4": 17}
_TIFF_SUBFILE_TYPE = 254


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One picture as a corpus keeps it, and how its source values became 0..255."""

    pixels: Shaped[np.ndarray, "h w *rgb"]  # 8-bit grey or RGB, or 16-bit grey
    rule: str
    lo: float | None
    hi: float | None


@dataclass(frozen=True, slots=True, eq=False)
class RawMask:
    """The values of a mask file; `lossy` ones are only near to what was drawn (JPEG).

    `table` is what the file itself calls its values. Labels on another grid than their image's are
    brought onto it by `fit`.
    """

    values: Shaped[np.ndarray, "*space"]
    lossy: bool = False
    table: Mapping[str, tuple[int, ...]] | None = None
    fit: Callable[[Integer[np.ndarray, "i j k"]], Regridded] | None = None


def read_pixels(path: Path) -> Shaped[np.ndarray, "h w *rgb"]:
    """Read the pixels of a picture, in grey or RGB, as they are stored; alpha is left away."""
    with _opened(path) as (image, raw_mode):
        is_deep = image.mode in ("LA", "RGB", "RGBA") and ";16" in raw_mode
        return _deep_colour(path) if is_deep else _pixels(image)


def read_picture(path: Path) -> Picture:
    """Read a picture. 8 bits stay bit for bit; 16-bit grey stays; anything deeper is scaled.

    16-bit colour, floats and 32-bit integers become 8 bits by their own minimum and maximum,
    which are kept.
    """
    pixels = read_pixels(path)
    if pixels.dtype == np.uint8:
        return Picture(pixels, "none", 0.0, 255.0)
    lo, hi = finite_range(pixels)
    if pixels.dtype == np.uint16 and pixels.ndim == 2:
        return Picture(pixels, "min-max image", lo, hi)
    return Picture(scaled(pixels, lo, hi), "min-max image", lo, hi)


def read_mask(path: Path) -> RawMask:
    """Read the values of a 2D mask; colours must be grey, or one colour on black.

    A palette of greys stands for its greys, one of colours (with black first) for its indices.
    """
    with _opened(path) as (image, raw_mode):
        values = _palette_values(image) if image.mode == "P" else _pixels(image)
        if raw_mode in _SCALE_OF_LABELS:
            values = values // _SCALE_OF_LABELS[raw_mode]
        lossy = image.format == "JPEG"
    if values.ndim == 3:
        values = values.max(axis=2) if lossy else _one_channel(values)
    return RawMask(values, lossy)


def finite_range(values: Shaped[np.ndarray, "*space"]) -> tuple[float, float]:
    """Find the smallest and largest finite value; raises DataError where there is none."""
    if np.issubdtype(values.dtype, np.floating):
        finite = np.isfinite(values)
        if not finite.all():
            values = values[finite]
    if values.size == 0:
        raise DataError("it holds no finite value")
    return float(values.min()), float(values.max())


def scaled(
    values: Shaped[np.ndarray, "*space"], lo: float, hi: float
) -> UInt8[np.ndarray, "*space"]:
    """Map [lo, hi] to 0..255, rounded; infinities go to the ends, and what is not a number to 0."""
    share = (values.astype(np.float64) - lo) / ((hi - lo) or 1.0)
    share = np.nan_to_num(share, nan=0.0, posinf=1.0, neginf=0.0)
    return np.rint(np.clip(share, 0.0, 1.0) * 255.0).astype(np.uint8)


@contextmanager
def _opened(path: Path) -> Iterator[tuple["Image.Image", str]]:
    """Open and decode a picture, and name the layout of its stored pixels in PIL's words.

    All that decoders raise on damaged files becomes DataError.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # complaints about metadata that we do not read
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                _refuse_stacks(image)
                raw_mode = _raw_mode(image)
                image.load()
                yield image, raw_mode
    except DataError:
        raise
    except Exception as error:  # damaged and hostile files make decoders raise anything
        raise unreadable(path, error) from error


def _refuse_stacks(image: "ImageFile.ImageFile") -> None:
    """Refuse files of several pictures; the previews in a TIFF (reduced pages) do not count."""
    for page in range(1, getattr(image, "n_frames", 1)):
        image.seek(page)
        if not getattr(image, "tag_v2", {}).get(_TIFF_SUBFILE_TYPE, 0) & 1:
            raise DataError("it holds several pages; expected is one picture")
    image.seek(0)


def unreadable(path: Path, error: Exception) -> DataError:
    """Say why a file could not be read, without its name, which may tell a person's.

    Too little memory is not the file's fault alone: that is raised again, for whoever set the
    limit.
    """
    if isinstance(error, MemoryError):
        raise error
    if isinstance(error, FileNotFoundError) and not path.exists():
        return DataError("there is no such file")
    message = str(error)
    for name in (str(path), path.name):
        message = message.replace(repr(name), "").replace(name, "")
    told = " ".join(message.split()).rstrip(" :,")
    return DataError(f"it cannot be read: {told or type(error).__name__}")


def _raw_mode(image: "ImageFile.ImageFile") -> str:
    args = image.tile[0].args if image.tile else None
    return str(args[0] if isinstance(args, tuple) else args)


def _deep_colour(path: Path) -> Shaped[np.ndarray, "h w *rgb"]:
    """Read 16-bit pixels of several channels, of which PIL keeps the upper 8 bits only."""
    import cv2

    decoded = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise DataError("it cannot be read: its 16-bit colours are not understood")
    bgr = np.asarray(decoded)[:, :, :3]
    is_grey = (bgr == bgr[:, :, :1]).all()  # also how OpenCV returns grey with alpha
    return np.ascontiguousarray(bgr[:, :, 0] if is_grey else bgr[:, :, ::-1])


def _pixels(image: "Image.Image") -> Shaped[np.ndarray, "h w *rgb"]:
    """Give the pixels in grey or RGB, without alpha and palette."""
    match image.mode:
        case "1":
            return np.asarray(image.convert("L"))
        case "L" | "RGB" | "I;16" | "I" | "F":
            return np.asarray(image)
        case "I;16B" | "I;16L" | "I;16N":
            return np.asarray(image).astype(np.uint16)
        case "LA":
            return np.ascontiguousarray(np.asarray(image)[:, :, 0])
        case "RGBA":
            return np.ascontiguousarray(np.asarray(image)[:, :, :3])
        case "P" | "PA":
            return np.ascontiguousarray(np.asarray(image.convert("RGBA"))[:, :, :3])
    raise DataError(f"pictures with colours of the kind {image.mode} are not read")


def _palette_values(image: "Image.Image") -> Shaped[np.ndarray, "h w *rgb"]:
    """Give the greys of a grey palette, the indices of a coloured one that begins with black."""
    colours = _pixels(image)
    palette = image.getpalette("RGB") or []
    is_grey = (colours == colours[:, :, :1]).all()
    if not is_grey and palette[:3] == [0, 0, 0]:
        return np.asarray(image)
    return colours


def _one_channel(colours: Shaped[np.ndarray, "h w 3"]) -> Shaped[np.ndarray, "h w"]:
    """Give the grey of a mask stored in colours; one colour on black counts as 255."""
    if (colours == colours[:, :, :1]).all():
        return np.ascontiguousarray(colours[:, :, 0])
    drawn = colours.any(axis=2)
    red, green, blue = np.moveaxis(colours[drawn].astype(np.int64), -1, 0)
    kinds = np.unique((red << 32) + (green << 16) + blue)  # rows of three would be sorted: slow
    if len(kinds) > 1:
        raise DataError(
            f"it holds {len(kinds)} colours; expected are greys, or one colour on black"
        )
    return np.where(drawn, np.uint8(255), np.uint8(0))
