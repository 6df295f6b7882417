"""One picture of the gallery: where to look, the outlines, and the image as a small data URI.

Lines are drawn on pixel edges: pixel (x, y) is the square from (x, y) to (x + 1, y + 1), so a mask
of one pixel is a square, and a half-open box needs no correction.
"""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Num, UInt8
from PIL import Image

from promptseg.mask import bounding_box_xyxy
from promptseg.prompt import Prompt, box_of, points_of

Rectangle = tuple[float, float, float, float]  # x0, y0, x1, y1

SMALLEST_SIDE = 24  # pixels: context around a tiny target
CROP_SIDE, CROP_BYTES = 400, 22_000
WHOLE_SIDE, WHOLE_BYTES = 160, 5_000
FINE = 1024  # outlines are traced on about this many cells a side


@dataclass(frozen=True, slots=True)
class Window:
    """The part of an image that is shown, in whole pixels, half-open."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def side(self) -> int:
        """Length of the longer side."""
        return max(self.x1 - self.x0, self.y1 - self.y0)


@dataclass(frozen=True, slots=True)
class Click:
    """A point prompt, at the middle of its pixel."""

    x: float
    y: float
    positive: bool


@dataclass(frozen=True, slots=True)
class Drawing:
    """What the template draws: two images and the lines over them, in pixels of the image."""

    width: int
    height: int
    window: Window
    crop_uri: str
    whole_uri: str
    reference: str  # SVG path
    prediction: str | None
    box: Rectangle | None
    clicks: tuple[Click, ...]


def draw(
    image: UInt8[np.ndarray, "h w 3"],
    reference: Bool[np.ndarray, "h w"],
    prediction: Bool[np.ndarray, "h w"] | None,
    prompt: Prompt | None,
) -> Drawing:
    """Prepare a picture of one target: crop, outlines and prompt."""
    height, width = reference.shape
    window = window_of(reference, prediction, prompt)
    fine = window.side / 800
    box = None if prompt is None else box_of(prompt)
    crop = image[window.y0 : window.y1, window.x0 : window.x1]
    return Drawing(
        width=width,
        height=height,
        window=window,
        crop_uri=data_uri(crop, side=CROP_SIDE, most_bytes=CROP_BYTES),
        whole_uri=data_uri(image, side=WHOLE_SIDE, most_bytes=WHOLE_BYTES),
        reference=outline(reference, fine),
        prediction=None if prediction is None else outline(prediction, fine),
        box=None if box is None else (box.x0, box.y0, box.x1, box.y1),
        clicks=tuple(_clicks(prompt)),
    )


def _clicks(prompt: Prompt | None) -> Iterator[Click]:
    points = None if prompt is None else points_of(prompt)
    if points is not None:
        for (x, y), positive in zip(points.xy, points.positive, strict=True):
            yield Click(float(x) + 0.5, float(y) + 0.5, bool(positive))


def window_of(
    reference: Bool[np.ndarray, "h w"],
    prediction: Bool[np.ndarray, "h w"] | None,
    prompt: Prompt | None,
) -> Window:
    """Choose a square around target and prompt, with context, within the image.

    A prediction that runs far beyond them is cut, or a small target could not be seen.
    """
    height, width = reference.shape
    asked = _union([_extent(reference), _prompt_extent(prompt)]) or (0.0, 0.0, width, height)
    answered = _union([asked, None if prediction is None else _extent(prediction)]) or asked
    side = max(
        1.5 * _longest(asked), min(1.15 * _longest(answered), 2.5 * _longest(asked)), SMALLEST_SIDE
    )
    x0, x1 = _span((asked[0] + asked[2]) / 2, side, width)
    y0, y1 = _span((asked[1] + asked[3]) / 2, side, height)
    return Window(x0, y0, x1, y1)


def _span(centre: float, side: float, size: int) -> tuple[int, int]:
    length = min(int(np.ceil(side)), size)
    start = int(np.clip(round(centre - length / 2), 0, size - length))
    return start, start + length


def _longest(box: Rectangle) -> float:
    return max(box[2] - box[0], box[3] - box[1])


def _extent(mask: Bool[np.ndarray, "h w"]) -> Rectangle | None:
    return bounding_box_xyxy(mask)


def _prompt_extent(prompt: Prompt | None) -> Rectangle | None:
    if prompt is None:
        return None
    box = box_of(prompt)
    clicks = [
        (click.x - 0.5, click.y - 0.5, click.x + 0.5, click.y + 0.5) for click in _clicks(prompt)
    ]
    return _union([*clicks, None if box is None else (box.x0, box.y0, box.x1, box.y1)])


def _union(boxes: list[Rectangle | None]) -> Rectangle | None:
    known = [box for box in boxes if box is not None]
    if not known:
        return None
    x0, y0, x1, y1 = zip(*known, strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def outline(mask: Bool[np.ndarray, "h w"], tolerance: float) -> str:
    """Trace the outline of a mask, holes included, as an SVG path along its pixel edges.

    The path may leave the edge by `tolerance` pixels, which keeps large outlines short. Empty for
    an empty mask.
    """
    import cv2

    box = bounding_box_xyxy(mask)
    if box is None:
        return ""
    x0, y0, x1, y1 = box
    factor = int(np.clip(FINE // max(x1 - x0, y1 - y0), 1, 8))
    part = mask[y0:y1, x0:x1].astype(np.uint8)
    # OpenCV runs through the centres of border pixels: on a finer grid that is the pixel's edge
    fine = part.repeat(factor, axis=0).repeat(factor, axis=1)
    contours, _ = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    shortened = (cv2.approxPolyDP(c, tolerance * factor, closed=True)[:, 0] for c in contours)
    return "".join(_path((c + 0.5) / factor + (x0, y0)) for c in shortened)


def _path(xy: Num[np.ndarray, "n 2"]) -> str:
    return "M" + "L".join(f"{x:.7g} {y:.7g}" for x, y in xy.round(2)) + "Z"


def data_uri(image: UInt8[np.ndarray, "h w 3"], *, side: int, most_bytes: int) -> str:
    """Encode an image within a budget, as an address that needs no file."""
    return as_uri(*encoded_within(image, side=side, most_bytes=most_bytes))


def as_uri(kind: str, content: bytes) -> str:
    """Write an encoded image as an address that needs no file."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def encoded_within(
    image: UInt8[np.ndarray, "h w 3"], *, side: int, most_bytes: int
) -> tuple[str, bytes]:
    """Encode an image within a budget: lossless where it fits, else JPEG, coarser and smaller.

    Gives the kind, png or jpeg, and the content.
    """
    encoding = ("png", b"")
    for encoding in _encodings(image, side):
        if len(encoding[1]) <= most_bytes:
            break
    return encoding


def _encodings(image: UInt8[np.ndarray, "h w 3"], side: int) -> Iterator[tuple[str, bytes]]:
    grey = bool((image == image[:, :, :1]).all())
    picture = Image.fromarray(np.ascontiguousarray(image[:, :, 0] if grey else image))
    picture.thumbnail((side, side))  # never enlarges: the browser does that
    yield "png", _encoded(picture, "PNG", optimize=True)
    for quality in (90, 75, 60, 45):
        yield "jpeg", _encoded(picture, "JPEG", quality=quality)
    while max(picture.size) > 32:
        picture.thumbnail((max(picture.size) * 2 // 3, max(picture.size) * 2 // 3))
        yield "jpeg", _encoded(picture, "JPEG", quality=45)


def _encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    sink = io.BytesIO()
    picture.save(sink, kind, **options)
    return sink.getvalue()
