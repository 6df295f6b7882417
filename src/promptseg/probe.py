"""Probes: small drawn images, prompts about them, and what a model answers to both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from promptseg.model import Candidates, Segmenter
from promptseg.promise import (
    KINDS,
    BrokenPromiseError,
    Image,
    described,
    embed,
    require_sound,
    segment,
)
from promptseg.prompt import Box, BoxPoints, Points, Prompt, PromptKind, to_json

Click = tuple[float, float, bool]  # x, y, positive

# where prompts ask, in parts of the image: x0, y0, x1, y1; an object lies in OBJECTS of them
PLACES = (
    (0.10, 0.20, 0.45, 0.80),
    (0.30, 0.10, 0.70, 0.90),
    (0.55, 0.25, 0.95, 0.75),
    (0.05, 0.05, 0.95, 0.95),
    (0.15, 0.10, 0.40, 0.50),
    (0.50, 0.50, 0.90, 0.85),
)
OBJECTS = (0, 2)


def draw_images() -> dict[str, Image]:
    """Draw images of several shapes and contents, anew with every call."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    return {
        "square": _picture(96, 96),
        "wide": _picture(60, 160),
        "tall": _picture(120, 44),
        "small": _picture(16, 16),
        "one pixel wide": _picture(64, 1),
        "black": np.zeros((48, 64, 3), dtype=np.uint8),
        "noise": noise,
    }


def _picture(height: int, width: int) -> Image:
    """Draw two bright ellipses on a slope, in unequal channels."""
    y, x = np.mgrid[:height, :width] + 0.5
    y, x = y / height, x / width
    grey = 40 + 40 * x + 10 * np.sin(9 * y)
    for x0, y0, x1, y1 in (PLACES[index] for index in OBJECTS):
        off_x, off_y = (2 * x - x0 - x1) / (x1 - x0), (2 * y - y0 - y1) / (y1 - y0)
        grey = np.where(off_x**2 + off_y**2 < 0.8, 190 + 20 * y, grey)
    picture: Image = (grey[:, :, None] * np.array([1.0, 0.9, 0.8])).astype(np.uint8)
    return picture


def prompts_in(image: Image, kind: PromptKind) -> list[Prompt]:
    """Make six prompts of a kind, one a place; clicks are one positive, or two and two negative."""
    height, width = image.shape[:2]
    prompts = []
    for number, (x0, y0, x1, y1) in enumerate(PLACES):
        left, top = int(x0 * width), int(y0 * height)
        box = Box(left, top, max(left + 1, int(x1 * width)), max(top + 1, int(y1 * height)))
        x, y = (box.x0 + box.x1) // 2, (box.y0 + box.y1) // 2
        off = [(0.0, 0.0, False), (width - 1.0, height - 1.0, False)]
        clicks = [(x, y, True), (x, box.y0, True), *off]
        prompts.append(make_prompt(kind, box, clicks[: 1 if number % 2 == 0 else 4]))
    return prompts


def mixed_prompts_in(image: Image, kinds: Sequence[PromptKind]) -> list[Prompt]:
    """Make six prompts, whose kinds alternate."""
    each = zip(*(prompts_in(image, kind) for kind in kinds), strict=True)
    return [prompt for prompts in each for prompt in prompts][: len(PLACES)]


def extreme_prompts_in(image: Image, kind: PromptKind) -> list[Prompt]:
    """Make prompts at the limits: the first and the last pixel, and the whole image."""
    height, width = image.shape[:2]
    x, y = width - 1, height - 1
    boxes = (Box(0, 0, 1, 1), Box(x, y, width, height), Box(0, 0, width, height))
    clicks = ((0, 0, True), (x, y, True), (x, y, True))
    return [make_prompt(kind, box, [click]) for box, click in zip(boxes, clicks, strict=True)]


def make_prompt(kind: PromptKind, box: Box, clicks: Sequence[Click]) -> Prompt:
    """Make a prompt of a kind from what the kind needs of a box and clicks."""
    if kind == "box":
        return box
    xy = np.array([click[:2] for click in clicks], dtype=np.float64)
    points = Points(xy, np.array([positive for _, _, positive in clicks]))
    return points if kind == "points" else BoxPoints(box, points)


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """What one embedding of every image told, so that a slow encoder runs as seldom as it can."""

    broken: dict[str, str]  # by name of the check, what broke it first
    square: dict[PromptKind, list[Candidates]]  # the answers about the square image

    def told(self, name: str) -> str:
        """Give the detail of a check that is kept; raises BrokenPromiseError of others."""
        if name in self.broken:
            raise BrokenPromiseError(self.broken[name])
        if name == "images of any shape":
            return f"one embedding each: {', '.join(draw_images())}"
        return _KEPT.get(name, f"sound on {len(draw_images())} images")

    def answers(self, kind: PromptKind) -> list[Candidates]:
        """Give the answers about the square image; raises BrokenPromiseError without any."""
        if kind not in self.square:
            raise BrokenPromiseError(self.broken[f"answers to {kind}"])
        return self.square[kind]

    def note(self, name: str, where: str, question: Callable[[], object]) -> None:
        """Ask one question of a check, and note what breaks."""
        try:
            question()
        except BrokenPromiseError as broken:
            self.broken.setdefault(name, f"{where}: {broken}")
        except Exception as error:  # foreign objects can fail in any way
            self.broken.setdefault(name, f"{where}: the answer cannot be used: {described(error)}")


_KEPT = {
    "no prompt": "no answer",
    "prompts left alone": "not written to",
    "extreme prompts": "the first and the last pixel, and the whole image",
}


def make_survey(model: Segmenter[Any], kinds: Sequence[PromptKind]) -> Survey:
    """Ask about every image with the kinds of prompts that a model claims; never raises."""
    survey = Survey({}, {})
    for name, image in draw_images().items():
        where = f"image {name!r} of {image.shape[0]} x {image.shape[1]}"
        questions = _questions(model, kinds, survey, name)
        try:
            (embedding,) = embed(model, [image])
        except BrokenPromiseError as broken:
            for check in ("images of any shape", *questions):
                survey.broken.setdefault(check, f"{where}: {broken}")
            continue
        for check, question in questions.items():
            survey.note(check, where, partial(question, embedding, image))
    return survey


def _questions(
    model: Segmenter[Any], kinds: Sequence[PromptKind], survey: Survey, name: str
) -> dict[str, Callable[[Any, Image], None]]:
    """List what is asked about an image, by name of the check; kinds not claimed, about one."""

    def sound(kind: PromptKind, embedding: Any, image: Image) -> None:
        answers = segment(model, embedding, prompts_in(image, kind))
        if name == "square":
            survey.square[kind] = answers
        for answer in answers:
            require_sound(answer, image)

    def no_prompt(embedding: Any, image: Image) -> None:
        segment(model, embedding, [])

    asked = KINDS if name == "square" else kinds
    questions: dict[str, Callable[[Any, Image], None]] = {
        f"answers to {kind}": partial(sound, kind) for kind in asked
    }
    if name == "square":
        questions["no prompt"] = no_prompt
        questions["prompts left alone"] = partial(_prompts_left, model, kinds)
    if name == "wide":
        questions["extreme prompts"] = partial(_extremes, model, kinds)
    return questions


def _extremes(
    model: Segmenter[Any], kinds: Sequence[PromptKind], embedding: Any, image: Image
) -> None:
    for kind in kinds:
        for prompt in extreme_prompts_in(image, kind):
            shown = to_json(prompt)
            try:
                (answer,) = segment(model, embedding, [prompt])
                require_sound(answer, image)
            except BrokenPromiseError as broken:
                raise BrokenPromiseError(f"{shown}: {broken}") from broken


def _prompts_left(
    model: Segmenter[Any], kinds: Sequence[PromptKind], embedding: Any, image: Image
) -> None:
    for kind in kinds:
        prompts = prompts_in(image, kind)
        before = [to_json(prompt) for prompt in prompts]
        segment(model, embedding, prompts)
        if before != [to_json(prompt) for prompt in prompts]:
            raise BrokenPromiseError("the model writes to its prompts: work on points.xy.copy()")
