"""Models whose answers are known beforehand. They see the prompt and a phantom, like any model."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8
from phantom import FIRST_OBJECT

from promptseg.model import Candidates, Training
from promptseg.prompt import Box, Prompt, box_of, points_of

Image = UInt8[np.ndarray, "h w 3"]
BOXES = Training(frozenset({"box"}), frozenset({"single", "oracle", "predicted"}))
Answer = Callable[[Image, Prompt], Bool[np.ndarray, "h w"]]


def filled_box(image: Image, prompt: Prompt) -> Bool[np.ndarray, "h w"]:
    """Answer with the box itself; to points alone, with the box around them."""
    box = box_of(prompt)
    if box is None:
        points = points_of(prompt)
        assert points is not None
        (x0, y0), (x1, y1) = points.xy.min(axis=0), points.xy.max(axis=0)
        box = Box(x0, y0, x1 + 1, y1 + 1)
    mask = np.zeros(image.shape[:2], dtype=bool)
    mask[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)] = True
    return mask


def the_reference(image: Image, prompt: Prompt) -> Bool[np.ndarray, "h w"]:
    """Answer with the phantom's object in the box: what is brighter than its background."""
    return filled_box(image, prompt) & (image[:, :, 0] >= FIRST_OBJECT)


def nothing_found(image: Image, prompt: Prompt) -> Bool[np.ndarray, "h w"]:
    """Answer with an empty mask."""
    return np.zeros(image.shape[:2], dtype=bool)


def an_exception(image: Image, prompt: Prompt) -> Bool[np.ndarray, "h w"]:
    """Answer not at all."""
    raise RuntimeError("planted\nfailure")


@dataclass
class Fake:
    """A model with a single-mask token, three multimask tokens and a predicted IoU.

    Token 0 gives the answer with predicted IoU 0.9, token 1 nothing (0.1), token 2 the answer
    (0.5), token 3 the whole box (0.8). So `single` and `oracle` choose the answer, and `predicted`
    the box, wherever the answer is no worse than the box.
    """

    name: str
    answer: Answer
    delay_s: float = 0.0
    weights_hash: str = "0" * 64
    training: Training = BOXES
    embedded: int = 0

    def embed(self, images: Sequence[Image]) -> list[Image]:
        """Hand the images on, and count them."""
        time.sleep(self.delay_s)
        self.embedded += len(images)
        return list(images)

    def segment(self, embedding: Image, prompts: Sequence[Prompt]) -> list[Candidates]:
        """Answer every prompt."""
        return [self._candidates(embedding, prompt) for prompt in prompts]

    def _candidates(self, image: Image, prompt: Prompt) -> Candidates:
        answer = self.answer(image, prompt)
        masks = np.stack([answer, np.zeros_like(answer), answer, filled_box(image, prompt)])
        logits = np.where(masks, 8, -8).astype(np.float32)
        iou = np.array([0.9, 0.1, 0.5, 0.8], dtype=np.float32)
        return Candidates(logits, iou, single=0, multimask=(1, 2, 3))


def reference() -> Fake:
    """Make the model that is always right."""
    return Fake("reference", the_reference)


def nothing() -> Fake:
    """Make the model that never finds anything."""
    return Fake("nothing", nothing_found)


def box() -> Fake:
    """Make the model that returns the box."""
    return Fake("box", filled_box)


def raises() -> Fake:
    """Make the model that always raises."""
    return Fake("raises", an_exception)


def slow() -> Fake:
    """Make the model that is right after a while."""
    return Fake("slow", the_reference, delay_s=0.004)


def broken() -> Fake:
    """Fail to be made at all."""
    raise OSError("no such device")


not_a_model = "a string"


def twin() -> Fake:
    """Make another model of the name `box`."""
    return Fake("box", the_reference)


def an_interruption(image: Image, prompt: Prompt) -> Bool[np.ndarray, "h w"]:
    """Answer as if the user pressed Ctrl-C at the tenth image."""
    if image[0, 0, 0] == 9:
        raise KeyboardInterrupt
    return the_reference(image, prompt)


def interrupted() -> Fake:
    """Make the model during which the user presses Ctrl-C."""
    return Fake("patient", an_interruption)


def patient() -> Fake:
    """Make the model of the same name during which nobody does."""
    return Fake("patient", the_reference)


ALL = Training(
    frozenset({"points", "box", "box+points"}), frozenset({"single", "oracle", "predicted"})
)


def part_of(mask: Bool[np.ndarray, "h w"], dice: float) -> Bool[np.ndarray, "h w"]:
    """Keep so many pixels of a mask, in row-major order, that its DICE with the whole is `dice`."""
    pixels = np.flatnonzero(mask)
    part = np.zeros(mask.size, dtype=bool)
    part[pixels[: round(dice * len(pixels) / (2 - dice))]] = True
    return part.reshape(mask.shape)


def meant(image: Image, prompt: Prompt) -> Bool[np.ndarray, "h w"]:
    """Find the phantom's object that a prompt means: the most frequent grey in or under it."""
    grey = image[:, :, 0]
    box, points = box_of(prompt), points_of(prompt)
    if box is not None:
        seen = grey[int(box.y0) : int(np.ceil(box.y1)), int(box.x0) : int(np.ceil(box.x1))].ravel()
    else:
        assert points is not None
        x, y = np.floor(points.xy[points.positive] + 0.5).astype(int).T
        seen = grey[np.clip(y, 0, len(grey) - 1), np.clip(x, 0, grey.shape[1] - 1)]
    objects = seen[seen >= FIRST_OBJECT]
    if len(objects) == 0:
        return np.zeros(grey.shape, dtype=bool)
    values, counts = np.unique(objects, return_counts=True)
    return np.asarray(grey == values[counts.argmax()])


def by_prompt(mask: Bool[np.ndarray, "h w"], prompt: Prompt) -> float:
    """Plant the order of the study: a box says more than ten points, those more than five."""
    points = points_of(prompt)
    n_positive = 0 if points is None else int(points.positive.sum())
    n_negative = 0 if points is None else len(points.positive) - n_positive
    if box_of(prompt) is not None:
        return 0.90 + 0.03 * (n_positive > 0)
    return 0.40 + 0.05 * n_positive + 0.02 * n_negative


@dataclass
class Planted:
    """A model of a planted DICE: it finds the object that is meant and gives a part of it.

    `quality` says how large a DICE a prompt deserves. The single-mask token and the second
    multimask token have that DICE, the first has nothing and the third half of it. The predicted
    IoU tells the truth, and is 0 off the objects, where there is no mask.
    """

    name: str = "planted"
    quality: Callable[[Bool[np.ndarray, "h w"], Prompt], float] = by_prompt
    weights_hash: str = "1" * 64
    training: Training = ALL
    embedded: int = 0

    def embed(self, images: Sequence[Image]) -> list[Image]:
        """Hand the images on, and count them."""
        self.embedded += len(images)
        return list(images)

    def segment(self, embedding: Image, prompts: Sequence[Prompt]) -> list[Candidates]:
        """Answer every prompt."""
        return [self._candidates(embedding, prompt) for prompt in prompts]

    def _candidates(self, image: Image, prompt: Prompt) -> Candidates:
        mask = meant(image, prompt)
        dice = float(np.clip(self.quality(mask, prompt), 0, 1))
        answer = part_of(mask, dice)
        masks = np.stack([answer, np.zeros_like(answer), answer, part_of(mask, dice / 2)])
        logits = np.where(masks, 8, -8).astype(np.float32)
        iou = dice / (2 - dice) if mask.any() else 0.0
        predicted = np.array([iou, 0.0, iou, iou / 2], dtype=np.float32)
        return Candidates(logits, predicted, single=0, multimask=(1, 2, 3))


def planted() -> Planted:
    """Make the model whose DICE follows from the kind of prompt."""
    return Planted()


def all_of_it() -> Planted:
    """Make the model that finds the whole object at any point on it."""
    return Planted("all_of_it", quality=lambda mask, prompt: 1.0)
