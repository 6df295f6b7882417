"""Prompts: what a model is asked with, as a closed union of values.

Coordinates are pixels in (x, y) order and integer coordinates are pixel centres. Boxes are
half-open, (x0, y0) included and (x1, y1) excluded; adapters translate to what a model expects.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

PromptKind = Literal["points", "box", "box+points"]


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Clicks: where, and whether each lies on the object (positive) or off it."""

    xy: Float[np.ndarray, "n 2"]
    positive: Bool[np.ndarray, "n"]
    kind: Literal["points"] = field(default="points", init=False)

    def __post_init__(self) -> None:
        """Refuse an empty or unequal set of points, at which no model can answer."""
        if len(self.xy) == 0:
            raise ValueError("a point prompt needs at least one point")
        if not np.isfinite(self.xy).all():
            raise ValueError("points have to be finite pixel coordinates")


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open box: x0 <= x < x1 and y0 <= y < y1, at least one pixel."""

    x0: float
    y0: float
    x1: float
    y1: float
    kind: Literal["box"] = field(default="box", init=False)

    def __post_init__(self) -> None:
        """Refuse a box without a pixel in it."""
        if not (self.x1 > self.x0 and self.y1 > self.y0):
            corners = f"{self.x0:g},{self.y0:g},{self.x1:g},{self.y1:g}"
            raise ValueError(f"box {corners} is empty: x1 has to exceed x0, and y1 y0")


@dataclass(frozen=True, slots=True, eq=False)
class BoxPoints:
    """A box and clicks that describe the same object."""

    box: Box
    points: Points
    kind: Literal["box+points"] = field(default="box+points", init=False)


Prompt = Points | Box | BoxPoints


@dataclass(frozen=True, slots=True)
class Everything:
    """Ask for all masks of an image: a grid of points, and what may survive of their answers.

    The names and the defaults are those of SAM's automatic mask generator, which were chosen for
    its ViT-H encoder. A threshold of 0 does not filter by predicted IoU or stability; one of 1 lets
    no box suppress another.

    References
    ----------
    Kirillov et al. 2023, Segment Anything, doi:10.1109/ICCV51070.2023.00371, appendix B.
    """

    points_per_side: int = 32
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0  # of the logit, to either side of 0
    box_nms_thresh: float = 0.7
    kind: Literal["everything"] = field(default="everything", init=False)

    def __post_init__(self) -> None:
        """Refuse a grid without points, and thresholds that are none."""
        if self.points_per_side < 1:
            raise ValueError("a grid needs at least one point per side")
        thresholds = (self.pred_iou_thresh, self.stability_score_thresh, self.box_nms_thresh)
        if not all(0 <= value <= 1 for value in thresholds):
            raise ValueError("thresholds of everything lie between 0 and 1")
        if not 0 < self.stability_score_offset < float("inf"):
            raise ValueError("the offset of the stability score has to be positive")


def points_of(prompt: Prompt) -> Points | None:
    """Return the clicks of a prompt, or None when it has none."""
    match prompt:
        case Points():
            return prompt
        case BoxPoints():
            return prompt.points
        case Box():
            return None


def box_of(prompt: Prompt) -> Box | None:
    """Return the box of a prompt, or None when it has none."""
    match prompt:
        case Box():
            return prompt
        case BoxPoints():
            return prompt.box
        case Points():
            return None


def to_json(prompt: Prompt | Everything) -> str:
    """Write a prompt as JSON, the form in which runs store it; `from_json` reads it back."""
    content: dict[str, Any] = {"kind": prompt.kind}
    if isinstance(prompt, Everything):
        return json.dumps(content | asdict(prompt), separators=(",", ":"))
    box, points = box_of(prompt), points_of(prompt)
    if box is not None:
        content["box_xyxy"] = [box.x0, box.y0, box.x1, box.y1]
    if points is not None:
        content["points_xy"] = points.xy.tolist()
        content["positive"] = points.positive.tolist()
    return json.dumps(content, separators=(",", ":"))


def from_json(text: str) -> Prompt | Everything:
    """Read a prompt written by `to_json`; raises ValueError on anything else."""
    content = json.loads(text)
    match content.get("kind"):
        case "everything":
            return Everything(**{key: value for key, value in content.items() if key != "kind"})
        case "box":
            return _box(content)
        case "points":
            return _points(content)
        case "box+points":
            return BoxPoints(_box(content), _points(content))
        case other:
            raise ValueError(f"unknown kind of prompt {other!r}")


def _box(content: Mapping[str, Any]) -> Box:
    x0, y0, x1, y1 = content["box_xyxy"]
    return Box(x0, y0, x1, y1)


def _points(content: Mapping[str, Any]) -> Points:
    xy = np.asarray(content["points_xy"], dtype=np.float64).reshape(-1, 2)
    return Points(xy, np.asarray(content["positive"], dtype=bool))
