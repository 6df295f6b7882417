"""Images that are drawn, with masks that are known: what few images with free terms hold.

Rings (as a myocardium in a short axis is), many small bodies that are one target (as nuclei are by
the tool's default unit), glands with walls, curved bands, and organs that touch. Group M:
nobody's images, and the same for the same seed.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float
from prepare import Piece, write
from source import CC0, EACH_IMAGE, Source

from promptseg.curation import Curation

SIDE = 256
OF_EACH = 10  # images of a kind
SEED = 20261126
LEAST_PX = 60

Plane = Float[np.ndarray, "y x"]
Mask = Bool[np.ndarray, "y x"]
Drawn = tuple[Plane, dict[str, Mask]]  # grey values of about 0 to 1, and masks

_Y, _X = np.mgrid[:SIDE, :SIDE].astype(np.float64)


def noise(rng: np.random.Generator, size: float) -> Plane:
    """Draw a smooth field of mean 0 and deviation 1, whose spots have about the size in pixels."""
    field = cv2.GaussianBlur(rng.normal(size=(SIDE, SIDE)), (0, 0), size)
    found: Plane = (field - field.mean()) / field.std()
    return found


def blob(
    rng: np.random.Generator, xy: tuple[float, float], radius: float, rough: float = 0.2
) -> Plane:
    """Draw how far each pixel lies from the middle of a lobed ellipse: below 1 it is inside."""
    dx, dy = _X - xy[0], _Y - xy[1]
    turn, aspect = rng.uniform(0, np.pi), np.exp(rng.uniform(-0.35, 0.35))
    u = (dx * np.cos(turn) + dy * np.sin(turn)) * aspect
    v = (-dx * np.sin(turn) + dy * np.cos(turn)) / aspect
    angle, edge = np.arctan2(v, u), np.full((SIDE, SIDE), radius)
    for k in range(2, 6):
        edge *= 1 + rough / k * rng.normal() * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    found: Plane = np.hypot(u, v) / np.maximum(edge, 1)
    return found


def _place(rng: np.random.Generator, margin: float) -> tuple[float, float]:
    x, y = rng.uniform(margin, SIDE - margin, 2)
    return float(x), float(y)


def _ground(rng: np.random.Generator) -> Plane:
    """Draw what lies around the objects: a texture, often with a large body in it."""
    grey = rng.uniform(0.15, 0.85) + 0.08 * noise(rng, rng.uniform(3, 25))
    if rng.random() < 0.6:
        inside = blob(rng, _place(rng, 100), rng.uniform(80, 150)) < 1
        grey = np.where(inside, grey, rng.uniform(0, 1))
    for _ in range(int(rng.integers(0, 6))):  # what is not asked for
        inside = blob(rng, _place(rng, 0), rng.uniform(6, 40)) < 1
        grey = np.where(inside, rng.uniform(0, 1) + 0.05 * noise(rng, 4), grey)
    return grey


def _unlike(rng: np.random.Generator, others: float, least: float = 0.18) -> float:
    """Draw a grey value that differs from another by so much at least."""
    while True:
        value = float(rng.uniform(0, 1))
        if abs(value - others) >= least:
            return value


def ring(rng: np.random.Generator) -> Drawn:
    """Draw a wall around a cavity, both asked for; the wall may be open at one side."""
    grey, radius = _ground(rng), rng.uniform(22, 75)
    xy = _place(rng, radius * 1.2)
    far = blob(rng, xy, radius, 0.15)
    outer, inner = far < 1, far < rng.uniform(0.45, 0.82)
    around = float(np.median(grey[outer]))
    wall = _unlike(rng, around)
    lumen = _unlike(rng, wall)
    wall_mask = outer & ~inner
    if rng.random() < 0.25:
        angle, gap = np.arctan2(_Y - xy[1], _X - xy[0]), rng.uniform(-np.pi, np.pi)
        wall_mask &= np.abs(np.angle(np.exp(1j * (angle - gap)))) > rng.uniform(0.3, 0.9)
    grey = np.where(inner, lumen + 0.04 * noise(rng, 5), grey)
    grey = np.where(wall_mask, wall + 0.05 * noise(rng, 4), grey)
    return grey, {"wall": wall_mask, "cavity": inner}


def scatter(rng: np.random.Generator) -> Drawn:
    """Draw many small bodies that look alike: all of them are one target."""
    grey, size = _ground(rng), rng.uniform(4, 11)
    if rng.random() < 0.5:
        grey = rng.uniform(0.2, 0.8) + 0.07 * noise(rng, rng.uniform(3, 12))
    shade = _unlike(rng, float(np.median(grey)), 0.22)
    window = blob(rng, _place(rng, 60), rng.uniform(60, 220)) < 1
    bodies = np.zeros((SIDE, SIDE), dtype=np.bool_)
    for _ in range(int(rng.integers(15, 140))):
        x, y = _place(rng, 0)
        if window[int(y), int(x)]:
            body = blob(rng, (x, y), size * rng.uniform(0.6, 1.4)) < 1
            grey = np.where(body, shade + rng.normal(0, 0.05) + 0.04 * noise(rng, 2), grey)
            bodies |= body
    return grey, {"bodies": bodies}


def glands(rng: np.random.Generator) -> Drawn:
    """Draw bodies with a wall of another shade, wall and inside being one object each."""
    grey = rng.uniform(0.3, 0.8) + 0.08 * noise(rng, rng.uniform(2, 8))
    masks: dict[str, Mask] = {}
    wall = _unlike(rng, float(np.median(grey)), 0.15)
    lumen, taken = _unlike(rng, wall, 0.15), np.zeros((SIDE, SIDE), dtype=np.bool_)
    for _ in range(40):
        radius = rng.uniform(16, 48)
        far = blob(rng, _place(rng, 5), radius, 0.25)
        body = far < 1
        if not (taken & (far < 1.15)).any() and len(masks) < 6:
            inner = far < rng.uniform(0.4, 0.8)
            grey = np.where(body, wall + 0.08 * noise(rng, 2), grey)
            grey = np.where(inner, lumen + 0.05 * noise(rng, 3), grey)
            masks[f"gland {'abcdef'[len(masks)]}"] = body
            taken |= body
    return grey, masks


def band(rng: np.random.Generator) -> Drawn:
    """Draw a curved band, as a jaw or a bowel is."""
    grey = _ground(rng)
    start, stop = rng.uniform(-np.pi, 0), rng.uniform(0.8, 2.6)
    at = np.linspace(start, start + stop, 80)
    radii = rng.uniform(45, 110, 2)
    centre = np.array(_place(rng, 100))
    wave = 1 + 0.15 * np.cos(at * rng.uniform(1, 4) + rng.uniform(0, 6))
    line = centre + np.stack([radii[0] * np.cos(at), radii[1] * np.sin(at)], axis=1) * wave[:, None]
    drawn = np.zeros((SIDE, SIDE), dtype=np.uint8)
    for x, y in line:
        width = rng.uniform(0.85, 1.15) * (8 + 14 * abs(np.sin(radii[0])))
        cv2.circle(drawn, (round(x), round(y)), round(width), 1, -1)
    mask = drawn > 0
    shade = _unlike(rng, float(np.median(grey[mask])) if mask.any() else 0.5)
    return np.where(mask, shade + 0.06 * noise(rng, 4), grey), {"band": mask}


def organs(rng: np.random.Generator) -> Drawn:
    """Draw parts of a body that touch, of shades that hardly differ at times."""
    count = int(rng.integers(6, 14))
    seeds = rng.uniform(20, SIDE - 20, (count, 2))
    bend = 14 * np.stack([noise(rng, 18), noise(rng, 18)])
    far = np.hypot(
        _X + bend[0] - seeds[:, 0, None, None], _Y + bend[1] - seeds[:, 1, None, None]
    ) * rng.uniform(0.7, 1.4, (count, 1, 1))
    part = far.argmin(0)
    body = blob(rng, (SIDE / 2, SIDE / 2), rng.uniform(95, 125), 0.1) < 1
    shades = rng.uniform(0.2, 0.9, count)
    grey = np.where(body, shades[part], rng.uniform(0, 0.15)) + 0.04 * noise(rng, 3)
    names = "abcdefghijklmn"
    return grey, {f"organ {names[n]}": body & (part == n) for n in range(0, count, 2)}


KINDS: dict[str, Callable[[np.random.Generator], Drawn]] = {
    "ring": ring,
    "scatter": scatter,
    "glands": glands,
    "band": band,
    "organs": organs,
}


def _seen(grey: Plane, rng: np.random.Generator) -> np.ndarray:
    """Show a drawing as a device would: blurred, noisy, and at times in two colours."""
    grey = cv2.GaussianBlur(grey, (0, 0), rng.uniform(0.6, 2.2))
    grey = np.clip(grey, 0, 1) ** np.exp(rng.uniform(-0.4, 0.4))
    if rng.random() < 0.25:  # speckle
        grey = grey * (1 + 0.25 * noise(rng, 1.2))
    grey = grey + rng.uniform(0, 0.06) * rng.normal(size=grey.shape)
    shown = np.clip(grey, 0, 1)
    if rng.random() < 0.4:
        dark, light = rng.uniform(0, 160, 3), rng.uniform(120, 255, 3)
        shown = dark + shown[..., None] * (light - dark)
        return np.rint(shown).astype(np.uint8)
    return np.rint(255 * shown).astype(np.uint8)


def pieces(name: str) -> Iterator[Piece]:
    """Draw the images of one kind."""
    for number in range(OF_EACH):
        rng = np.random.default_rng([SEED, sorted(KINDS).index(name), number])
        grey, masks = KINDS[name](rng)
        kept = {of: mask for of, mask in masks.items() if mask.sum() >= LEAST_PX}
        yield Piece(f"{name}{number:02d}", _seen(grey, rng), kept)


def generated() -> Iterator[Source]:
    """List what is drawn."""
    for name in KINDS:
        yield Source(
            name=f"generated_{name}",
            groups="M",
            folder="",
            settings=Curation(modality="drawn", subject_pattern=EACH_IMAGE, licence=CC0),
            prepare=partial(_draw, name=name),
        )


def _draw(_: Path, raw: Path, *, name: str) -> None:
    write(pieces(name), raw)
