"""Segment one image with one prompt: the smallest useful thing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8, UInt16

from promptseg.errors import DataError, ModelError
from promptseg.everything import Survivors, survivors
from promptseg.mask import from_rle
from promptseg.model import SELECTIONS, Segmenter, Selection, masks_at
from promptseg.parquet import write_atomically
from promptseg.pixels import displayed, encode_image
from promptseg.plan import own_everything
from promptseg.prompt import Box, BoxPoints, Points, Prompt, box_of, points_of
from promptseg.reader.image import read_picture
from promptseg.selection import choose


@dataclass(frozen=True, slots=True, eq=False)
class Segmented:
    """A mask at the image's size, and how it was chosen."""

    mask: Bool[np.ndarray, "h w"]
    selection: Selection
    predicted_iou: float | None
    off_protocol: bool  # the model was not trained for this prompt

    def facts(self) -> dict[str, str | float | bool | None]:
        """Give all but the mask, as plain values."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "mask"}


def segment(image: UInt8[np.ndarray, "h w 3"], model: Segmenter[Any], prompt: Prompt) -> Segmented:
    """Segment the object that a prompt points at.

    The candidate is the one the model was trained to give: its single-mask token, or else the
    multimask token of the highest predicted IoU.

    Raises
    ------
    DataError
        The prompt lies outside the image.
    """
    require_inside(prompt, image.shape[1], image.shape[0])
    try:
        (embedding,) = model.embed([image])
        (candidates,) = model.segment(embedding, [prompt])
    except Exception as error:  # whatever a model raises
        raise ModelError(f"{model.name} raised {type(error).__name__}: {error}") from error
    deployable: list[Selection] = [name for name in SELECTIONS if name != "oracle"]
    order = sorted(deployable, key=lambda name: not model.training.covers(prompt.kind, name))
    for selection in order:
        index = choose(candidates, selection, [])
        if index is not None:
            iou = candidates.predicted_iou
            return Segmented(
                masks_at(candidates, (image.shape[0], image.shape[1]))[index],
                selection,
                None if iou is None else float(iou[index]),
                not model.training.covers(prompt.kind, selection),
            )
    raise DataError(f"{model.name} gave no candidate that can be chosen without a reference.")


def segment_everything(
    image: UInt8[np.ndarray, "h w 3"], model: Segmenter[Any], points_per_side: int | None = None
) -> Survivors:
    """Find all masks that survive the model's own thresholds, or SAM's where it has none.

    Raises
    ------
    ModelError
        The model raises, or cannot do everything: it has no multimask tokens or predicted IoU.
    """
    settings = own_everything(model)
    if points_per_side is not None:
        settings = replace(settings, points_per_side=points_per_side)
    try:
        (embedding,) = model.embed([image])
        return survivors(model, embedding, (image.shape[0], image.shape[1]), settings)
    except ModelError:
        raise
    except Exception as error:  # whatever a model raises
        raise ModelError(f"{model.name} raised {type(error).__name__}: {error}") from error


def label_map(found: Survivors) -> UInt16[np.ndarray, "h w"]:
    """Lay masks over each other: 1 is the one of the highest predicted IoU, and the uppermost."""
    labels = np.zeros(found.image_hw, dtype=np.uint16)
    last = min(len(found.masks), np.iinfo(np.uint16).max)
    for number in range(last, 0, -1):
        labels[from_rle(found.masks[number - 1])] = number
    return labels


def write_label_map(path: Path, labels: UInt16[np.ndarray, "h w"]) -> None:
    """Write a label map as 16-bit PNG; 0 is the background."""
    write_atomically(path, encode_image(labels))


def require_inside(prompt: Prompt, width: int, height: int) -> None:
    """Refuse a prompt that reaches outside its image."""
    box, points = box_of(prompt), points_of(prompt)
    if box is not None and not _within(box, width, height):
        raise DataError(
            f"Box {box.x0:g},{box.y0:g},{box.x1:g},{box.y1:g} reaches outside the image of "
            f"{width} x {height} px (x0,y0,x1,y1 with x1 <= {width}, y1 <= {height})."
        )
    last = (width - 1, height - 1)
    if points is not None and ((points.xy < 0).any() or (points.xy > last).any()):
        raise DataError(f"A point lies outside the image of {width} x {height} px.")


def _within(box: Box, width: int, height: int) -> bool:
    return box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height


def prompt_from(box: str | None, points: Sequence[str]) -> Prompt:
    """Read a prompt from the command line's texts; raises DataError, as its parts do."""
    if box is None and not points:
        raise DataError(
            "Nothing to segment: give --box x0,y0,x1,y1, --point x,y, or both; or --everything."
        )
    if box is None:
        return parse_points(points)
    return BoxPoints(parse_box(box), parse_points(points)) if points else parse_box(box)


def parse_box(text: str) -> Box:
    """Read `x0,y0,x1,y1`; raises DataError on anything else, and on an empty box."""
    try:
        x0, y0, x1, y1 = (float(part) for part in text.split(","))
    except ValueError as error:
        raise DataError(f"Cannot read box {text!r}: expected x0,y0,x1,y1 in pixels.") from error
    try:
        return Box(x0, y0, x1, y1)
    except ValueError as error:
        raise DataError(f"Cannot use that: {error}.") from error


def parse_points(texts: Sequence[str]) -> Points:
    """Read points `x,y`, `x,y,+` (on the object) or `x,y,-` (off it)."""
    xy, positive = [], []
    for text in texts:
        parts = [part.strip() for part in text.split(",")]
        sign = parts.pop() if parts[-1] in {"+", "-"} else "+"
        try:
            x, y = (float(part) for part in parts)
        except ValueError as error:
            raise DataError(f"Cannot read point {text!r}: expected x,y or x,y,- .") from error
        xy.append((x, y))
        positive.append(sign == "+")
    try:
        return Points(np.array(xy, dtype=np.float64), np.array(positive))
    except ValueError as error:
        raise DataError(f"Cannot use that: {error}.") from error


def read_image(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """Read a picture as a model sees it: RGB in 0..255; raises DataError if it cannot be read."""
    try:
        picture = read_picture(path)
    except DataError as error:
        raise DataError(f"Cannot use {path}: {error}.") from error
    return displayed(picture.pixels, picture.lo, picture.hi)


def write_mask(path: Path, mask: Bool[np.ndarray, "h w"]) -> None:
    """Write a mask as PNG: 255 on the object, 0 elsewhere."""
    write_atomically(path, encode_image(np.where(mask, 255, 0).astype(np.uint8)))
