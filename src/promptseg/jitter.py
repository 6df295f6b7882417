"""Jitter: prompts that miss by a known amount (PROTOCOL decision 10).

The study moved centre points and boxes by 0-10, 10-20 and 20-30 pixels (Huang et al. 2024,
doi:10.1016/j.media.2023.103061, section 4.10).
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float

from promptseg.errors import DataError
from promptseg.prompt import Box, BoxPoints, Points, Prompt
from promptseg.strategy import StrategyKind

Mode = Literal["centre", "all", "shift", "edge"]
JitterUnit = Literal["px", "rel"]
MOVES: Mapping[Mode, frozenset[StrategyKind]] = {
    "centre": frozenset({"points", "box+points"}),
    "all": frozenset({"points", "box+points"}),
    "shift": frozenset({"box", "box+points"}),
    "edge": frozenset({"box", "box+points"}),
}
LARGEST, DECIMALS = 100_000, 3  # so that every table writes a distance alike, without exponent
_FORM = re.compile(r"(?P<mode>\w+):(?P<unit>\w+):(?P<lo>\d+(?:\.\d+)?)-(?P<hi>\d+(?:\.\d+)?)")


@dataclass(frozen=True, slots=True)
class Jitter:
    """What is moved, and by how much: a distance drawn uniformly from [lo, hi).

    `centre` moves the first point (the centre of mass, where it lies on the object), `all` every
    point by a vector of its own, `shift` both corners of the box by one vector, `edge` every edge
    by a signed distance of its own. Directions and signs are uniform. The unit is the pixel (`px`)
    or the square root of the object's area in pixels (`rel`).
    """

    mode: Mode
    unit: JitterUnit
    lo: float
    hi: float

    def __post_init__(self) -> None:
        """Refuse an empty range, and digits that its name would not show."""
        if not 0 <= self.lo < self.hi < LARGEST:
            raise ValueError(f"a jitter from {self.lo:g} to {self.hi:g} is no range of distances")
        if any(round(edge, DECIMALS) != edge for edge in (self.lo, self.hi)):
            raise ValueError(f"distances have at most {DECIMALS} decimals")

    def __str__(self) -> str:
        """Write it as the command line does: shift:px:10-20."""
        lo, hi = (f"{edge:.{DECIMALS}f}".rstrip("0").rstrip(".") for edge in (self.lo, self.hi))
        return f"{self.mode}:{self.unit}:{lo}-{hi}"

    def moves(self, kind: StrategyKind) -> bool:
        """Tell whether a kind of prompt has anything that this moves."""
        return kind in MOVES[self.mode]


def parse_jitter(text: str) -> Jitter:
    """Read `MODE:UNIT:LO-HI`; raises DataError on anything else."""
    match = _FORM.fullmatch(text)
    if match is None or match["mode"] not in MOVES or match["unit"] not in get_args(JitterUnit):
        raise DataError(
            f"Cannot read jitter {text!r}: expected MODE:UNIT:LO-HI, as shift:px:10-20; modes are "
            f"{', '.join(MOVES)}, units px (pixels) and rel (of the square root of the area)."
        )
    modes: Mapping[str, Mode] = {mode: mode for mode in MOVES}
    unit: JitterUnit = "px" if match["unit"] == "px" else "rel"
    try:
        return Jitter(modes[match["mode"]], unit, float(match["lo"]), float(match["hi"]))
    except ValueError as error:
        raise DataError(f"Cannot use jitter {text!r}: {error}.") from error


def stream(seed: int, image_id: str, target_id: str, strategy: str) -> np.random.Generator:
    """Open the random numbers of one target under one strategy.

    The jitter is no part of the identity: its levels share directions and quantiles, so that a
    response curve compares like with like.
    """
    identity = f"{seed}\n{image_id}\n{target_id}\n{strategy}"
    return np.random.default_rng(int.from_bytes(hashlib.sha256(identity.encode()).digest()[:16]))


def jittered(
    prompt: Prompt, jitter: Jitter, mask: Bool[np.ndarray, "h w"], rng: np.random.Generator
) -> Prompt:
    """Move a prompt of a target with this mask, and clip it to the image.

    A point stays within the outermost pixel centres; a box keeps at least one pixel a side, about
    the middle of what is left of it. Raises ValueError when the jitter moves no such prompt.
    """
    match prompt:
        case Points() if jitter.mode in ("centre", "all"):
            return _moved_points(prompt, jitter, mask, rng)
        case Box() if jitter.mode in ("shift", "edge"):
            return _moved_box(prompt, jitter, mask, rng)
        case BoxPoints(box, points) if jitter.mode in ("centre", "all"):
            return BoxPoints(box, _moved_points(points, jitter, mask, rng))
        case BoxPoints(box, points):
            return BoxPoints(_moved_box(box, jitter, mask, rng), points)
        case _:
            raise ValueError(f"jitter {jitter} moves nothing of a {prompt.kind} prompt")


def _moved_points(
    points: Points, jitter: Jitter, mask: Bool[np.ndarray, "h w"], rng: np.random.Generator
) -> Points:
    count = 1 if jitter.mode == "centre" else len(points.xy)
    xy = points.xy.copy()
    xy[:count] += _vectors(jitter, mask, rng, count)
    last = np.array([mask.shape[1] - 1, mask.shape[0] - 1])
    return Points(np.clip(xy, 0, last), points.positive)


def _moved_box(
    box: Box, jitter: Jitter, mask: Bool[np.ndarray, "h w"], rng: np.random.Generator
) -> Box:
    if jitter.mode == "shift":
        move = np.tile(_vectors(jitter, mask, rng, 1)[0], 2)
    else:
        move = _distances(jitter, mask, rng, 4) * rng.choice([-1.0, 1.0], 4)
    x0, y0, x1, y1 = np.array([box.x0, box.y0, box.x1, box.y1]) + move
    (x0, x1), (y0, y1) = _within(x0, x1, mask.shape[1]), _within(y0, y1, mask.shape[0])
    return Box(x0, y0, x1, y1)


def _within(lo: float, hi: float, size: int) -> tuple[float, float]:
    """Clip one side of a box; edges that met or crossed leave one pixel between them."""
    lo, hi = (float(np.clip(edge, 0, size)) for edge in (lo, hi))
    if hi - lo >= 1:
        return lo, hi
    centre = float(np.clip((lo + hi) / 2, 0.5, size - 0.5))
    return centre - 0.5, centre + 0.5


def _vectors(
    jitter: Jitter, mask: Bool[np.ndarray, "h w"], rng: np.random.Generator, count: int
) -> Float[np.ndarray, "n 2"]:
    length = _distances(jitter, mask, rng, count)
    angle = rng.uniform(0, 2 * np.pi, count)
    vectors: np.ndarray = length[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return vectors


def _distances(
    jitter: Jitter, mask: Bool[np.ndarray, "h w"], rng: np.random.Generator, count: int
) -> Float[np.ndarray, "n"]:
    scale = 1.0 if jitter.unit == "px" else float(np.sqrt(np.count_nonzero(mask)))
    return rng.uniform(jitter.lo, jitter.hi, count) * scale
