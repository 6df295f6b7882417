"""How targets are asked for while a model is trained: as they will be tested, and less tidily.

Points are drawn half by the rule of the strategies and half at random, boxes half exact and half
jittered. The prompts of one image and step are alike in shape, so that they decode together.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from promptseg.jitter import Jitter, jittered
from promptseg.prompt import BoxPoints, Points, Prompt
from promptseg.strategy import pixels_xy, points, tight_box, window_xyxy
from promptseg.tuning.settings import Settings

MOST_POINTS = 5  # of either sign, as in the study


@dataclass(frozen=True, slots=True)
class Shape:
    """What the prompts of one image hold in one step."""

    box: bool
    positive: int
    negative: int


def draw_shape(settings: Settings, rng: np.random.Generator) -> Shape:
    """Draw what the prompts of an image hold."""
    n_positive = int(rng.integers(1, MOST_POINTS + 1))
    n_negative = int(rng.integers(0, MOST_POINTS + 1)) * int(rng.random() < 0.5)
    kind = rng.random()
    match settings.prompts:
        case "box":
            return Shape(True, 0, 0)
        case "points":
            # a single point is the hardest question, and the most asked one
            return Shape(False, 1, 0) if kind < 0.3 else Shape(False, n_positive, n_negative)
        case "mixed" | "clicks":
            if kind < 0.35:
                return Shape(True, 0, 0)
            if kind < 0.55:
                return Shape(False, 1, 0)
            return Shape(False, n_positive, n_negative) if kind < 0.85 else Shape(True, 1, 0)


def make_prompt(
    shape: Shape, jitter: Jitter | None, mask: Bool[np.ndarray, "h w"], rng: np.random.Generator
) -> Prompt:
    """Ask for a target by box, points or both; raises ValueError on an empty mask.

    Where there is no background for negatives there are none.
    """
    box = tight_box(mask)
    if shape.box and jitter is not None and jitter.moves("box") and rng.random() < 0.5:
        moved = jittered(box, jitter, mask, rng)
        assert moved.kind == "box"
        box = moved
    clicks = _clicks(shape, mask, rng) if shape.positive else None
    if clicks is None:
        return box
    return BoxPoints(box, clicks) if shape.box else clicks


def _clicks(shape: Shape, mask: Bool[np.ndarray, "h w"], rng: np.random.Generator) -> Points:
    if rng.random() < 0.5:
        try:
            return points(shape.positive, shape.negative)(mask)
        except ValueError:  # no background in the window
            return points(shape.positive)(mask)
    on = _some(pixels_xy(mask), shape.positive, rng)
    x0, y0, x1, y1 = window_xyxy(mask)
    off = _some(pixels_xy(~mask[y0:y1, x0:x1]) + np.array([x0, y0]), shape.negative, rng)
    xy = np.concatenate([on, off]).astype(np.float64)
    return Points(xy, np.arange(len(xy)) < len(on))


def _some(pixels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw distinct pixels, as many as there are and no more than asked for."""
    return pixels[rng.permutation(len(pixels))[:count]]


def corrected(
    prompt: Prompt,
    pred: Bool[np.ndarray, "h w"],
    reference: Bool[np.ndarray, "h w"],
    rng: np.random.Generator,
) -> Prompt | None:
    """Add one click where the prediction is wrong, at random; None where it is right everywhere.

    Clicks of training are spread over all errors, unlike those of a simulated user, which aim at
    the middle of the largest.
    """
    wrong = pixels_xy(pred != reference)
    if not len(wrong):
        return None
    x, y = wrong[rng.integers(len(wrong))]
    box = prompt if prompt.kind == "box" else prompt.box if prompt.kind == "box+points" else None
    before = None if prompt.kind == "box" else prompt if prompt.kind == "points" else prompt.points
    xy, positive = np.array([[x, y]], dtype=np.float64), np.array([reference[y, x]])
    if before is not None:
        xy = np.concatenate([before.xy, xy])
        positive = np.concatenate([before.positive, positive])
    clicks = Points(xy, positive)
    return clicks if box is None else BoxPoints(box, clicks)
