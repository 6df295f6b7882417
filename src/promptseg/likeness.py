"""Which images are the same, or nearly: resized, compressed again, brightened, or drawn over.

An image's look is a perceptual hash and a thumbnail. Two that agree in both are candidates; what
counts is then decided on the images. Crops by more than a few percent, flips and turns are not
found.
Source of the hash: Zauner 2010, Implementation and Benchmarking of Perceptual Image Hash Functions
(the hash by discrete cosine transform).
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Shaped, UInt8, UInt64

THUMB_SIDE, FINE_SIDE = 16, 64
MOST_BITS = 8  # of 63 that differ
LEAST_THUMBS, LEAST_FINE = 0.95, 0.97  # correlation of thumbnails, and of 64 x 64 pixels
_BLOCK = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How an image looks: the columns of `looks/`."""

    image_id: str
    content: str  # sha256 of its pixels
    phash: str  # 63 bits, as 16 hexadecimal digits
    thumb: str  # 16 x 16 greys, as hexadecimal digits


def look_of(image_id: str, pixels: Shaped[np.ndarray, "h w *rgb"]) -> Look:
    """Look at an image as it is stored: 8 or 16 bits, grey or RGB."""
    import cv2

    facts = f"{pixels.shape}{pixels.dtype}".encode()
    content = hashlib.sha256(facts + np.ascontiguousarray(pixels).tobytes()).hexdigest()
    small = _small(pixels, 32)
    low = cv2.dct(small)[:8, :8].ravel()[1:]
    bits = np.concatenate([[False], low > np.median(low)])
    thumb = np.rint(_small(pixels, THUMB_SIDE)).astype(np.uint8)
    return Look(
        image_id=image_id,
        content=content,
        phash=np.packbits(bits).tobytes().hex(),
        thumb=thumb.tobytes().hex(),
    )


def _small(pixels: Shaped[np.ndarray, "h w *rgb"], side: int) -> Float32[np.ndarray, "s s"]:
    """Shrink to a square of greys in 0..255, whatever the range was."""
    import cv2

    small = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    grey = small if small.ndim == 2 else small.mean(axis=2)
    lo, hi = (0.0, 255.0) if pixels.dtype == np.uint8 else (float(grey.min()), float(grey.max()))
    scaled: Float32[np.ndarray, "s s"] = (grey - lo) * np.float32(255.0 / ((hi - lo) or 1.0))
    return scaled


def candidates(looks: Sequence[Look]) -> Iterator[tuple[int, int]]:
    """Yield pairs (i, j), i < j, of looks that agree, in order.

    All pairs are compared, a hundred million in a second or so: 100,000 images take a minute.
    Images of one grey look like nothing, and are never yielded.
    """
    hashes = np.array([int(look.phash, 16) for look in looks], np.uint64)
    thumbs = _unit(np.array([_greys(look) for look in looks], np.float32).reshape(len(looks), -1))
    for start in range(0, len(looks), _BLOCK):
        alike = (_alike(hashes, start, other) for other in range(start, len(looks), _BLOCK))
        for i, j in sorted(pair for pairs in alike for pair in pairs):
            if i < j and float(thumbs[i] @ thumbs[j]) >= LEAST_THUMBS:
                yield i, j


def _alike(hashes: UInt64[np.ndarray, "n"], start: int, other: int) -> list[tuple[int, int]]:
    """List the pairs of two blocks whose hashes agree: all at once would be gigabytes."""
    apart = np.bitwise_count(
        hashes[start : start + _BLOCK, None] ^ hashes[None, other : other + _BLOCK]
    )
    rows, columns = np.nonzero(apart <= MOST_BITS)
    return list(zip((rows + start).tolist(), (columns + other).tolist(), strict=True))


def fine_of(pixels: Shaped[np.ndarray, "h w *rgb"]) -> Float32[np.ndarray, "4096"]:
    """Shrink an image to 64 x 64 pixels of mean 0 and length 1, to be compared with others."""
    unit: Float32[np.ndarray, 4096] = _unit(_small(pixels, FINE_SIDE).reshape(1, -1))[0]
    return unit


def are_alike(one: Float32[np.ndarray, "4096"], other: Float32[np.ndarray, "4096"]) -> bool:
    """Decide on a candidate pair of images by the correlation of what `fine_of` gives."""
    return float(one @ other) >= LEAST_FINE


def _greys(look: Look) -> UInt8[np.ndarray, "256"]:
    return np.frombuffer(bytes.fromhex(look.thumb), np.uint8)


def _unit(rows: Float32[np.ndarray, "n k"]) -> Float32[np.ndarray, "n k"]:
    """Bring rows to mean 0 and length 1, so that products are correlations; flat ones to 0."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    is_flat: Bool[np.ndarray, "n 1"] = length < 1e-3
    unit: Float32[np.ndarray, "n k"] = np.where(is_flat, 0, centred / np.where(is_flat, 1, length))
    return unit
