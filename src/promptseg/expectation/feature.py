"""What expected DICE is told from: features of a target, and of an answer without its reference.

A target is described by its `promptseg.attributes`, relative to the image, so that images of other
sizes are alike. An answer is described by its prompt, its mask, its image and the model's own
predicted IoU: nothing of the reference takes part, so that a user has all of it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8

from promptseg.attributes import Attributes, attributes_of
from promptseg.mask import bounding_box_xyxy
from promptseg.prompt import Prompt, box_of, points_of

Kind = Literal["planning", "deployable"]
Mask = Bool[np.ndarray, "h w"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a mask looks like, relative to its image; the most telling come first.

    None: undefined, as in `promptseg.attributes.Attributes`.
    """

    area_share: float  # of the image
    intensity_difference: float | None  # grey values, 0..255
    fourier_order: float | None
    contrast_to_noise: float | None
    compactness: float | None
    aspect_ratio: float
    border_share: float  # distance of the box to the image's edge over sqrt(pixels of the image)
    n_components: int
    n_holes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an answer and its prompt say without a reference; the most telling come first.

    None: the model or the prompt has no such thing.
    """

    predicted_iou: float | None  # the model's own
    box_fill: float | None  # share of the box that the mask fills
    box_agreement: float | None  # IoU of the mask's bounding box with the prompt's
    points_inside: float | None  # share of the positive points that the mask holds
    agreement: float | None  # mean IoU with the other multimask candidates
    outside_share: float | None  # of the mask, outside of the box
    negatives_inside: float | None  # share of the negative points that the mask holds
    box_share: float | None  # of the image
    box_aspect: float | None  # short by long side
    points_spread: float | None  # bounding box of the positive points, share of the image


@dataclass(frozen=True, slots=True)
class Measure:
    """How a feature is told, and on which scale it is learnt from."""

    words: str
    scale: Literal["plain", "log", "log1p"] = "plain"
    percent: bool = False

    def learnt(self, value: float | None) -> float:
        """Bring a value to the scale of learning; NaN where it is undefined."""
        if value is None:
            return float("nan")
        return float(_SCALES[self.scale](value))

    def told(self, value: float) -> str:
        """Write a value on the scale of learning as a reader knows it."""
        back = float(_BACK[self.scale](value))
        return f"{100 * back:.3g} %" if self.percent else f"{back:.3g}"


_SMALLEST = 1e-9  # a share of zero has no logarithm
_SCALES: Mapping[str, Callable[[float], float]] = {
    "plain": float,
    "log": lambda value: np.log10(max(value, _SMALLEST)),
    "log1p": lambda value: np.log10(1 + value),
}
_BACK: Mapping[str, Callable[[float], float]] = {
    "plain": float,
    "log": lambda value: 10**value,
    "log1p": lambda value: 10**value - 1,
}
MEASURES: Mapping[str, Measure] = {
    "area_share": Measure("size (share of the image)", "log", percent=True),
    "intensity_difference": Measure("intensity difference"),
    "fourier_order": Measure("boundary complexity (Fourier order)", "log"),
    "contrast_to_noise": Measure("contrast to noise", "log1p"),
    "compactness": Measure("compactness"),
    "aspect_ratio": Measure("aspect ratio"),
    "border_share": Measure("distance to the image's edge", percent=True),
    "n_components": Measure("components", "log1p"),
    "n_holes": Measure("holes", "log1p"),
    "predicted_iou": Measure("predicted IoU"),
    "box_fill": Measure("share of the box that is filled", percent=True),
    "box_agreement": Measure("IoU of the mask's box with the prompt's"),
    "points_inside": Measure("share of positive points inside the mask", percent=True),
    "agreement": Measure("agreement with the other candidates"),
    "outside_share": Measure("share of the mask outside of the box", percent=True),
    "negatives_inside": Measure("share of negative points inside the mask", percent=True),
    "box_share": Measure("size of the box (share of the image)", "log", percent=True),
    "box_aspect": Measure("aspect ratio of the box"),
    "points_spread": Measure("spread of the points (share of the image)", "log", percent=True),
}
PLANNING = tuple(field.name for field in fields(Look))
_ASKED = tuple(field.name for field in fields(Answer))
# size, contrast and complexity of the mask go before the finer points of the prompt
DEPLOYABLE = (*_ASKED[:4], *PLANNING[:3], *_ASKED[4:], *PLANNING[3:])
NAMES: Mapping[Kind, tuple[str, ...]] = {"planning": PLANNING, "deployable": DEPLOYABLE}


def look_of(found: Attributes) -> Look:
    """Bring the attributes of a mask to what does not depend on the size of its image."""
    side = float(np.sqrt(found.area_px / found.area_share))
    return Look(
        border_share=found.border_distance_px / side,
        **{name: getattr(found, name) for name in PLANNING if name != "border_share"},
    )


def answer_of(
    mask: Mask,
    prompt: Prompt,
    *,
    predicted_iou: float | None = None,
    others: Sequence[Mask] = (),
) -> Answer:
    """Describe an answer, which is not empty, by what needs no reference.

    Parameters
    ----------
    others
        The other multimask candidates of the same prompt. All of them or none: which candidates a
        run saved by default follows from the reference.
    """
    box, points = box_of(prompt), points_of(prompt)
    asked: dict[str, float | None] = dict.fromkeys(_ASKED)
    asked["predicted_iou"] = predicted_iou
    if others:
        asked["agreement"] = float(np.mean([_iou(mask, other) for other in others]))
    if box is not None:
        asked |= _in_box(mask, (box.x0, box.y0, box.x1, box.y1))
    if points is not None:
        asked |= _at_points(mask, points.xy, points.positive)
    return Answer(**asked)


def _iou(one: Mask, other: Mask) -> float:
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 0.0


def _in_box(mask: Mask, box: tuple[float, float, float, float]) -> dict[str, float | None]:
    x0, y0, x1, y1 = box
    area = int(mask.sum())
    inside = int(mask[_whole(y0) : _whole(y1), _whole(x0) : _whole(x1)].sum())
    own = bounding_box_xyxy(mask)
    assert own is not None  # the mask is not empty
    width = max(0.0, min(x1, own[2]) - max(x0, own[0]))
    height = max(0.0, min(y1, own[3]) - max(y0, own[1]))
    shared, size = width * height, (x1 - x0) * (y1 - y0)
    union = size + (own[2] - own[0]) * (own[3] - own[1]) - shared
    return {
        "box_fill": min(1.0, inside / size),
        "box_agreement": shared / union,
        "outside_share": 1 - inside / area,
        "box_share": size / mask.size,
        "box_aspect": min(x1 - x0, y1 - y0) / max(x1 - x0, y1 - y0),
    }


def _whole(edge: float) -> int:
    return max(0, round(edge))


def _at_points(
    mask: Mask, xy: Float[np.ndarray, "n 2"], positive: Bool[np.ndarray, "n"]
) -> dict[str, float | None]:
    height, width = mask.shape
    x, y = np.floor(xy + 0.5).astype(int).T
    held = mask[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
    on, off = held[positive], held[~positive]
    spread = None
    if len(on) > 1:
        sides = np.ptp(xy[positive], axis=0) + 1
        spread = float(sides[0] * sides[1]) / mask.size
    return {
        "points_inside": float(on.mean()) if len(on) else None,
        "negatives_inside": float(off.mean()) if len(off) else None,
        "points_spread": spread,
    }


def planning_values(look: Look) -> Float[np.ndarray, "k"]:
    """Give the features of a target on the scales of learning, in the order of `PLANNING`."""
    return _values((look,), PLANNING)


def deployable_values(
    image: UInt8[np.ndarray, "h w 3"], mask: Mask, answer: Answer
) -> Float[np.ndarray, "k"]:
    """Give the features of an answer on the scales of learning, in the order of `DEPLOYABLE`.

    Raises ValueError on an empty mask, and on one of another size than the image.
    """
    return _values((answer, look_of(attributes_of(image, mask))), DEPLOYABLE)


def _values(parts: Sequence[Look | Answer], names: Sequence[str]) -> Float[np.ndarray, "k"]:
    owner = {field.name: part for part in parts for field in fields(part)}
    return np.array([MEASURES[name].learnt(getattr(owner[name], name)) for name in names])
