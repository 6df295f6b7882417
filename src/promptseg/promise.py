"""Promises: what a model's attributes and answers have to be, and how far answers differ."""

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import product
from typing import Any, get_args

import numpy as np
from jaxtyping import UInt8

from promptseg.model import SELECTIONS, Candidates, Canvas, Segmenter, Training, masks_at
from promptseg.prompt import Everything, Prompt, PromptKind

Image = UInt8[np.ndarray, "h w 3"]
KINDS: tuple[PromptKind, ...] = get_args(PromptKind)


class BrokenPromiseError(Exception):
    """A model breaks its contract: what is wrong, and what to do."""


def sound_name(name: object) -> str:
    """Tell a model's name; raises BrokenPromiseError where it cannot stand in a table."""
    if not (isinstance(name, str) and name.strip() and name.isprintable()):
        raise BrokenPromiseError(f"{name!r} has to be a printable str that is not empty")
    return name


def sound_weights_hash(found: object) -> str:
    """Tell whether the hash is a SHA-256; raises BrokenPromiseError where it is no text."""
    if not isinstance(found, str):
        raise BrokenPromiseError(f"{found!r} has to be a str: the SHA-256 of the weights' file")
    if re.fullmatch("[0-9a-f]{64}", found):
        return f"{found[:12]}..."
    return f"{found!r}, no SHA-256: change it with every version, which a run tells apart by it"


def sound_everything(everything: object) -> str:
    """Tell a model's thresholds of everything; raises BrokenPromiseError where they are none."""
    if not isinstance(everything, Everything):
        raise BrokenPromiseError(f"{everything!r} has to be a promptseg.Everything")
    return f"grid {everything.points_per_side}, predicted IoU > {everything.pred_iou_thresh:g}"


def sound_training(training: object) -> str:
    """Tell what a model claims; raises BrokenPromiseError where it cannot be understood."""
    if not isinstance(training, Training):
        raise BrokenPromiseError(f"{training!r} has to be a promptseg.model.Training")
    said = []
    for field, known in (("prompts", KINDS), ("selections", SELECTIONS)):
        words = getattr(training, field)
        if not isinstance(words, Set):
            raise BrokenPromiseError(f"{field} {words!r} has to be a frozenset of words")
        if unknown := sorted(str(word) for word in words if word not in known):
            raise BrokenPromiseError(
                f"{field}: unknown {', '.join(unknown)}; known are {', '.join(known)}"
            )
        said.append(f"{field}: {', '.join(sorted(words)) or 'none, so all is off-protocol'}")
    if exceptions := _sound_exceptions(training):
        said.append(f"but: {', '.join(exceptions)}")
    if not training.prompts and not training.selections:
        raise BrokenPromiseError("it is empty: say what prompts and selections it was trained for")
    return "; ".join(said)


def _sound_exceptions(training: Training) -> list[str]:
    """List the pairs that a model does not claim; raises BrokenPromiseError."""
    whole = set(product(training.prompts, training.selections))
    if not isinstance(training.but, Set) or not training.but <= whole:
        raise BrokenPromiseError(
            f"but {training.but!r} has to be a frozenset of pairs (prompt, selection) of those "
            "it was trained for"
        )
    return training.exceptions()


def embed(model: Segmenter[Any], images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[Any]:
    """Embed images; raises BrokenPromiseError where the model raises or miscounts."""
    try:
        given = model.embed(images)
    except Exception as error:  # whatever a model raises
        raise BrokenPromiseError(f"embed raises {described(error)}") from error
    return _listed(given, len(images), "embed", "image")


def segment(model: Segmenter[Any], embedding: Any, prompts: Sequence[Prompt]) -> list[Candidates]:
    """Segment prompts; raises BrokenPromiseError where the model raises, or gives no candidates."""
    try:
        given = model.segment(embedding, prompts)
    except Exception as error:  # whatever a model raises
        raise BrokenPromiseError(f"segment raises {described(error)}") from error
    answers = _listed(given, len(prompts), "segment", "prompt")
    for answer in answers:
        if not isinstance(answer, Candidates):
            raise BrokenPromiseError(
                f"segment answers a prompt with {_type(answer)}: give promptseg.model.Candidates"
            )
    return answers


def ask(model: Segmenter[Any], image: Image, prompts: Sequence[Prompt]) -> list[Candidates]:
    """Embed one image and segment prompts of it; raises BrokenPromiseError as these do."""
    (embedding,) = embed(model, [image])
    return segment(model, embedding, prompts)


def _listed(given: Any, count: int, method: str, noun: str) -> list[Any]:
    # a tensor whose first axis counts the images is a list too; a generator or a dict is none
    try:
        length = -1 if isinstance(given, Mapping | Set | str | bytes) else len(given)
    except TypeError:
        length = -1
    if length < 0:
        raise BrokenPromiseError(f"{method} gives {_type(given)}: give a list, one item per {noun}")
    if length != count:
        raise BrokenPromiseError(
            f"{method} gives {length} items for {count} {noun}s: give one per {noun}, in order"
        )
    return list(given)


def require_sound(answer: Candidates, image: Image) -> None:
    """Refuse candidates that cannot be scored.

    Raises
    ------
    BrokenPromiseError
        Says what is wrong with the logits, the predicted IoU, the tokens or the canvas.
    """
    _require_float32("logits", answer.logits, "n h w")
    count = len(answer.logits)
    if answer.logits.size == 0:
        raise BrokenPromiseError(f"logits are empty, of shape {answer.logits.shape}")
    if answer.predicted_iou is not None:
        _require_float32("predicted_iou", answer.predicted_iou, "n")
        if len(answer.predicted_iou) != count:
            raise BrokenPromiseError(
                f"predicted_iou has {len(answer.predicted_iou)} numbers for {count} logit maps"
            )
    if answer.single is not None:
        _require_index("single", answer.single, count)
    _require_multimask(answer.multimask, count)
    if answer.canvas is not None:
        _require_canvas(answer.canvas, image)
    masks, expected = masks_at(answer, image.shape[:2]), (count, *image.shape[:2])
    if masks.shape != expected:
        raise BrokenPromiseError(f"the masks are of shape {masks.shape} instead of {expected}")


def _require_float32(name: str, array: object, axes: str) -> None:
    if not isinstance(array, np.ndarray):
        raise BrokenPromiseError(
            f"{name}: {_type(array)} is no numpy array (a tensor: x.float().cpu().numpy())"
        )
    if array.dtype != np.float32:
        raise BrokenPromiseError(f"{name}: {array.dtype} has to be float32")
    if array.ndim != len(axes.split()):
        wanted = ", ".join(axes.split())
        raise BrokenPromiseError(f"{name}: shape {array.shape} has to be ({wanted})")
    if not np.isfinite(array).all():
        raise BrokenPromiseError(f"{name}: some numbers are not finite")


def _require_multimask(multimask: object, count: int) -> None:
    if not isinstance(multimask, tuple):
        raise BrokenPromiseError(f"multimask: {_type(multimask)} has to be a tuple of indices")
    for index in multimask:
        _require_index("multimask", index, count)
    if len(set(multimask)) < len(multimask):
        raise BrokenPromiseError(f"multimask: {multimask} holds an index twice")


def _require_index(name: str, index: object, count: int) -> None:
    if type(index) is not int or not 0 <= index < count:
        raise BrokenPromiseError(f"{name}: {index!r} has to be an int from 0 to {count - 1}")


def _require_canvas(canvas: object, image: Image) -> None:
    if not isinstance(canvas, Canvas):
        raise BrokenPromiseError(f"canvas: {_type(canvas)} has to be promptseg.model.Canvas")
    height, width = canvas.valid_hw
    part = f"canvas: valid_hw {height} x {width}"
    if not (0 < height <= canvas.side and 0 < width <= canvas.side):
        raise BrokenPromiseError(f"{part} is no part of a square of {canvas.side}")
    if (height - width) * (image.shape[0] - image.shape[1]) < 0:
        raise BrokenPromiseError(
            f"{part} shows an image of {image.shape[0]} x {image.shape[1]}: height comes first"
        )


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two answers to the same question are apart."""

    numbers: float = 0.0  # the largest difference of logits, or of predicted IoU
    pixels: int = 0  # of the masks

    def within(self, tolerance: float) -> bool:
        """Tell whether no pixel differs, and numbers by no more than a tolerance."""
        return self.pixels == 0 and self.numbers <= tolerance

    def __str__(self) -> str:
        """Say it in words: `logits by up to 0.5, and 12 pixels of the masks`."""
        return f"logits by up to {self.numbers:.2g}, and {self.pixels} pixels of the masks"


NONE = Difference()


def difference(
    ours: Sequence[Candidates], theirs: Sequence[Candidates], image: Image
) -> Difference:
    """Compare two lists of answers to the same prompts.

    Raises
    ------
    BrokenPromiseError
        They have not the same candidates in the same roles.
    """
    return largest(_difference(a, b, image) for a, b in zip(ours, theirs, strict=True))


def largest(found: Iterable[Difference]) -> Difference:
    """Join differences: the largest number, which is NaN if one is, and all pixels."""
    listed = [NONE, *found]
    numbers = float(np.max([each.numbers for each in listed]))
    return Difference(numbers, sum(each.pixels for each in listed))


def _difference(ours: Candidates, theirs: Candidates, image: Image) -> Difference:
    pairs = [(np.asarray(ours.logits), np.asarray(theirs.logits))]
    if ours.predicted_iou is not None and theirs.predicted_iou is not None:
        pairs.append((np.asarray(ours.predicted_iou), np.asarray(theirs.predicted_iou)))
    if _roles(ours) != _roles(theirs) or any(a.shape != b.shape for a, b in pairs):
        raise BrokenPromiseError("the number, the shape or the roles of the candidates change")
    if all(a.tobytes() == b.tobytes() for a, b in pairs):
        return NONE
    numbers = max(float(np.abs(a.astype(float) - b.astype(float)).max()) for a, b in pairs)
    masks = (masks_at(answer, image.shape[:2]) for answer in (ours, theirs))
    return Difference(numbers, int(np.count_nonzero(np.not_equal(*masks))))


def _roles(answer: Candidates) -> tuple[object, ...]:
    return answer.single, answer.multimask, answer.predicted_iou is None, answer.canvas


def described(error: Exception) -> str:
    """Name an exception and give its message."""
    return f"{type(error).__name__}: {error}"


def _type(value: object) -> str:
    return f"an object of type {type(value).__name__}"
