"""Stored images: lossless PNG of 8 or 16 bits, and how models see them."""

import hashlib
import io

import numpy as np
from jaxtyping import Shaped, UInt8, UInt16


def decode_image(content: bytes, sha256: str) -> Shaped[np.ndarray, "h w *rgb"]:
    """Decode a stored PNG after checking its hash: (h, w) or (h, w, 3), 8 or 16 bits."""
    from PIL import Image

    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError("the stored image does not match its sha256: the corpus is damaged")
    with Image.open(io.BytesIO(content)) as picture:
        picture.load()
        return np.asarray(picture)


def displayed(
    image: UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"] | UInt16[np.ndarray, "h w"],
    lo: float | None,
    hi: float | None,
) -> UInt8[np.ndarray, "h w 3"]:
    """Bring a stored image to RGB in 0..255; 16-bit grey is mapped from lo..hi to it."""
    if image.dtype == np.uint16:
        if lo is None or hi is None:
            raise ValueError("a 16-bit image has no intensity range")
        scaled = (image.astype(np.float64) - lo) * (255.0 / max(hi - lo, 1e-12))
        image = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    return np.ascontiguousarray(image)


def encode_image(image: Shaped[np.ndarray, "h w *rgb"]) -> bytes:
    """Encode (h, w) or (h, w, 3) uint8, or (h, w) uint16, as lossless PNG.

    What a prediction from three neighbours leaves of a medical image is noise, in which zlib seeks
    longer matches in vain: run lengths take a fifth of the time, and hardly more bytes. Grey that
    is stored as RGB does repeat itself.
    """
    from imagecodecs import PNG, png_encode

    is_grey = image.ndim == 2 or bool((image[..., :1] == image[..., 1:]).all())
    repeats = image.ndim == 3 and is_grey
    strategy = PNG.STRATEGY.DEFAULT if repeats else PNG.STRATEGY.RLE
    pixels = np.ascontiguousarray(image)
    return bytes(png_encode(pixels, level=1, strategy=strategy, filter=PNG.FILTER.PAETH))
