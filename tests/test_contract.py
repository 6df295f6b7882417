"""The contract: a right model keeps every promise, and each broken promise is found and named."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pytest
import torch

from promptseg.contract import Check, check_model
from promptseg.model import SELECTIONS, Candidates, Canvas, Training
from promptseg.models.litemedsam import load
from promptseg.probe import draw_images, mixed_prompts_in, prompts_in
from promptseg.promise import KINDS
from promptseg.prompt import Box, Points, Prompt, box_of, points_of

ANSWERS = {f"answers to {kind}" for kind in KINDS}
SOUND = ANSWERS | {"extreme prompts"}
REACTIONS = {f"reaction to {kind}" for kind in KINDS}
BATCHES = {"batch invariance of prompts", "batch invariance of images"}
REPEATED = {"determinism", "no state"}


def changed(answer: Any, **fields: object) -> Any:
    """Set fields past the run-time type checks of the tests, as a foreign model can."""
    for name, value in fields.items():
        object.__setattr__(answer, name, value)
    return answer


class Right:
    """A model that keeps every promise: the logit is how far a pixel is inside what was asked."""

    name: Any = "right"
    weights_hash: Any = "0123456789abcdef" * 4
    training: Any = Training(frozenset(KINDS), frozenset(SELECTIONS))

    def embed(self, images: Any) -> Any:
        """Copy the images."""
        return [image.copy() for image in images]

    def segment(self, embedding: Any, prompts: Any) -> Any:
        """Answer each prompt as if it were alone."""
        return [self.answer(embedding, prompt) for prompt in prompts]

    def answer(self, image: np.ndarray, prompt: Prompt) -> Candidates:
        """Make four logit maps, of which three are multimask tokens."""
        height, width = image.shape[:2]
        y, x = np.mgrid[:height, :width]
        inside = 0.1 + image.astype(np.float32).mean(axis=2) / 900  # no logit of a box is near 0
        box, points = box_of(prompt), points_of(prompt)
        if box is not None:
            edges = [x - box.x0 + 0.5, box.x1 - x - 0.5, y - box.y0 + 0.5, box.y1 - y - 0.5]
            inside = inside + np.min(edges, axis=0)
        if points is not None:
            for (px, py), positive in zip(points.xy, points.positive, strict=True):
                inside = inside + (1 if positive else -1) * (9 - np.hypot(x - px, y - py))
        logits = np.stack([inside, inside - 1, inside - 2, inside - 3]).astype(np.float32)
        return Candidates(logits, np.linspace(0.9, 0.6, 4, dtype=np.float32), 0, (1, 2, 3))


def attribute(**values: object) -> Right:
    """Make a model that is right but for what it says of itself."""
    model = Right()
    for name, value in values.items():
        setattr(model, name, value)
    return model


def answering(change: Callable[[Candidates, Prompt], object]) -> Right:
    """Make a model that is right but for what it does to its answers."""

    class Changed(Right):
        def answer(self, image: np.ndarray, prompt: Prompt) -> Any:
            answer = super().answer(image, prompt)
            return change(answer, prompt)

    return Changed()


def embedding(change: Callable[[Any], object]) -> Right:
    """Make a model that is right but for its embed."""

    class Changed(Right):
        def embed(self, images: Any) -> Any:
            return change(images)

    return Changed()


def segmenting(change: Callable[[Right, Any, Any], object]) -> Right:
    """Make a model that is right but for its segment."""

    class Changed(Right):
        def segment(self, embedding: Any, prompts: Any) -> Any:
            return change(Right(), embedding, prompts)

    return Changed()


def refusing(refused: Callable[[Any], bool]) -> Callable[[Any], list[Any]]:
    """Make an embed that raises at some images."""

    def embed(images: Sequence[np.ndarray]) -> list[np.ndarray]:
        if refused(images):
            raise ValueError("cannot\nembed that")
        return [image.copy() for image in images]

    return embed


def words(prompts: object, selections: object = frozenset({"single"})) -> Any:
    """Make a training of any words."""
    training = Training(frozenset({"box"}), frozenset({"single"}))
    return changed(training, prompts=prompts, selections=selections)


def writing(images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Embed images, and invert what was given."""
    embedded = [image.copy() for image in images]
    for image in images:
        image[:] = 255 - image
    return embedded


def writing_past_the_flag(images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Embed images, and blacken those that say they are read-only."""
    embedded = [image.copy() for image in images]
    for image in images:
        if not image.flags.writeable:
            torch.from_numpy(image).zero_()
    return embedded


def normalising_together(images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Embed images by a mean over the batch."""
    mean = sum(image.mean() for image in images) / max(len(images), 1)
    return [image + 20 * mean for image in images]


def moving_points(right: Right, image: Any, prompts: Sequence[Prompt]) -> object:
    """Answer, and scale the clicks in place."""
    answers = right.segment(image, prompts)
    for prompt in prompts:
        if points := points_of(prompt):
            points.xy[:] /= 2
    return answers


def wearing_out(right: Right, image: np.ndarray, prompts: Sequence[Prompt]) -> object:
    """Answer, and change the embedding."""
    answers = right.segment(image, prompts)
    image //= 2
    return answers


def by_the_number(step: float) -> Callable[[Right, Any, Any], object]:
    """Make a segment whose logits grow with the number of prompts."""

    def segment(right: Right, image: Any, prompts: Sequence[Prompt]) -> object:
        answers = right.segment(image, prompts)
        return [
            changed(answer, logits=answer.logits + np.float32(step * (len(prompts) - 1)))
            for answer in answers
        ]

    return segment


def no_extreme(right: Right, image: np.ndarray, prompts: Sequence[Prompt]) -> object:
    """Answer, but for boxes of one pixel."""
    for prompt in prompts:
        box = box_of(prompt)
        if box is not None and (box.x1 - box.x0) * (box.y1 - box.y0) == 1:
            raise ZeroDivisionError("the box has no width")
    return right.segment(image, prompts)


def not_empty(right: Right, image: Any, prompts: Sequence[Prompt]) -> object:
    """Answer, but not without prompts."""
    if not prompts:
        raise ValueError("need at least one array to stack")
    return right.segment(image, prompts)


def boxes_first(right: Right, image: Any, prompts: Sequence[Prompt]) -> object:
    """Answer in another order than was asked."""
    return right.segment(image, sorted(prompts, key=lambda prompt: prompt.kind, reverse=True))


class LastImage(Right):
    """Segments what was embedded last, whatever embedding it is given."""

    def embed(self, images: Any) -> Any:
        """Keep the last image."""
        if images:
            self.last = images[-1].copy()
        return super().embed(images)

    def segment(self, embedding: Any, prompts: Any) -> Any:
        """Answer about the last image."""
        return super().segment(self.last, prompts)


class Dropout(Right):
    """Answers with noise, as a network in training mode does."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def answer(self, image: np.ndarray, prompt: Prompt) -> Candidates:
        """Add the noise."""
        answer = super().answer(image, prompt)
        noise = self.rng.normal(0, 0.1, answer.logits.shape).astype(np.float32)
        return changed(answer, logits=answer.logits + noise)


def float64(answer: Any, prompt: Prompt) -> Any:
    """Give logits of another type."""
    return changed(answer, logits=answer.logits.astype(np.float64))


def one_nan(answer: Any, prompt: Prompt) -> Any:
    """Give one logit that is no number."""
    answer.logits[0, 0, 0] = np.nan
    return answer


def constant(answer: Any, prompt: Prompt) -> Any:
    """Give the same logits to every prompt."""
    return changed(answer, logits=np.full_like(answer.logits, 3))


def turned(answer: Any, prompt: Prompt) -> Any:
    """Give the canvas as (width, height)."""
    height, width = answer.logits.shape[1:]
    return changed(answer, canvas=Canvas(max(height, width), (width, height)))


BROKEN: dict[str, tuple[Right, set[str], str]] = {
    "no name": (attribute(name=" "), {"name"}, "printable str"),
    "a number as name": (attribute(name=5), {"name"}, "5 has to be a printable str"),
    "no hash": (attribute(weights_hash=None), {"weights_hash"}, "SHA-256 of the weights"),
    "training of another type": (attribute(training={"box"}), {"training"}, "Training"),
    "no training": (attribute(training=words(frozenset(), frozenset())), {"training"}, "empty"),
    "an unknown kind": (
        attribute(training=words(frozenset({"box", "scribble"}))),
        {"training"},
        "prompts: unknown scribble; known are points, box, box+points",
    ),
    "an unknown selection": (
        attribute(training=words(frozenset({"box"}), frozenset({"best"}))),
        {"training"},
        "selections: unknown best",
    ),
    "a list of kinds": (attribute(training=words(["box"])), {"training"}, "frozenset"),
    "a strip raises": (
        embedding(refusing(lambda images: any(image.shape[1] == 1 for image in images))),
        {"images of any shape"} | ANSWERS,
        "image 'one pixel wide' of 64 x 1: embed raises ValueError: cannot embed that",
    ),
    "no image raises": (embedding(refusing(lambda images: not images)), {"no image"}, "raises"),
    "float64": (answering(float64), SOUND, "logits: float64 has to be float32"),
    "float64 for boxes": (
        answering(lambda a, p: float64(a, p) if isinstance(p, Box) else a),
        {"answers to box", "extreme prompts"},
        "float64",
    ),
    "not a number": (answering(one_nan), SOUND, "not finite"),
    "a tensor": (
        answering(lambda a, p: changed(a, logits=torch.from_numpy(a.logits))),
        SOUND,
        "x.float().cpu().numpy()",
    ),
    "two axes": (
        answering(lambda a, p: changed(a, predicted_iou=a.predicted_iou[None])),
        SOUND | {"selection predicted"},
        "has to be (n)",
    ),
    "too few predicted IoU": (
        answering(lambda a, p: changed(a, predicted_iou=np.ones(1, np.float32), multimask=(0,))),
        SOUND,
        "predicted_iou has 1 numbers for 4",
    ),
    "single out of range": (
        answering(lambda a, p: changed(a, single=4)),
        SOUND,
        "single: 4 has to be an int from 0 to 3",
    ),
    "multimask is an array": (
        answering(lambda a, p: changed(a, multimask=[1, 2])),
        SOUND,
        "a tuple",
    ),
    "multimask is negative": (answering(lambda a, p: changed(a, multimask=(-1,))), SOUND, "-1"),
    "multimask twice": (answering(lambda a, p: changed(a, multimask=(1, 1))), SOUND, "twice"),
    "the canvas is a number": (answering(lambda a, p: changed(a, canvas=9)), SOUND, "Canvas"),
    "more than the canvas": (
        answering(lambda a, p: changed(a, canvas=Canvas(8, (9, 8)))),
        SOUND,
        "no part of a square of 8",
    ),
    "the canvas is turned": (answering(turned), SOUND, "height comes first"),
    "no reaction": (answering(constant), REACTIONS, "does not depend on the prompt"),
    "no reaction to boxes": (
        answering(lambda a, p: constant(a, p) if isinstance(p, Box) else a),
        {"reaction to box"},
        "does not depend",
    ),
    "no single": (
        answering(lambda a, p: changed(a, single=None)),
        {"selection single"},
        "without a single-mask token",
    ),
    "no multimask": (
        answering(lambda a, p: changed(a, multimask=())),
        {"selection oracle", "selection predicted"},
        "without multimask tokens",
    ),
    "no predicted IoU": (
        answering(lambda a, p: changed(a, predicted_iou=None)),
        {"selection predicted"},
        "with `predicted_iou`",
    ),
    "no prompt raises": (segmenting(not_empty), {"no prompt"}, "need at least one array"),
    "points are moved": (segmenting(moving_points), {"prompts left alone"}, "points.xy.copy()"),
    "one pixel raises": (segmenting(no_extreme), {"extreme prompts"}, "no width"),
    "images are inverted": (embedding(writing), {"images left alone"}, "image.copy()"),
    "read-only images are blackened": (
        embedding(writing_past_the_flag),
        {"images left alone"},
        "writes to a read-only image",
    ),
    "read-only images are refused": (
        embedding(refusing(lambda images: any(not i.flags.writeable for i in images))),
        {"images left alone"},
        "of a read-only image, embed raises",
    ),
    "noise": (Dropout(), REPEATED | BATCHES, "eval mode"),
    "the embedding wears out": (
        segmenting(wearing_out),
        REPEATED | {"batch invariance of prompts"},
        "change no embedding",
    ),
    "the last image counts": (
        LastImage(),
        {"no state", "batch invariance of images"},
        "the number, the shape or the roles",
    ),
    "logits by the number of prompts": (
        segmenting(by_the_number(0.002)),
        {"batch invariance of prompts"},
        "prompts one by one instead of together change logits by up to 0.01",
    ),
    "another order": (segmenting(boxes_first), {"batch invariance of prompts"}, "pixels"),
    "images by their batch": (
        embedding(normalising_together),
        {"batch invariance of images"},
        "images together instead of one by one",
    ),
}


def failed(checks: Sequence[Check]) -> dict[str, str]:
    """Give the details of the failures by their names."""
    return {check.name: check.detail for check in checks if check.outcome == "failed"}


def test_a_right_model_keeps_every_promise():
    """Else no failure below would mean anything."""
    checks = list(check_model(Right()))

    assert {check.outcome for check in checks} == {"passed"}
    assert len({check.name for check in checks}) == len(checks) == 22


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_promise_fails_its_check_and_no_other(case: str):
    """Each model breaks one promise; what follows from it is listed, and the reason is told."""
    model, expected, told = BROKEN[case]
    found = failed(list(check_model(model)))

    assert set(found) == expected
    assert any(told in detail for detail in found.values()), found
    assert not any("\n" in detail for detail in found.values())


@pytest.mark.parametrize("given", [None, 5, {"a": 1}, "text", iter([1]), [], torch.tensor(1)])
def test_what_embed_gives_instead_of_a_list_is_no_crash(given: object):
    """Everything that needs an embedding fails in one line, and what a model says is checked."""
    checks = list(check_model(embedding(lambda images: given)))
    passed = {check.name for check in checks if check.outcome == "passed"}

    assert passed - {"no image"} == {"name", "weights_hash", "training"}


@pytest.mark.parametrize("given", [None, 5, "text", ["text"] * 6, torch.zeros(6, 4, 9, 9), [None]])
def test_what_segment_gives_instead_of_candidates_is_no_crash(given: object):
    """Tensors, numbers and texts are named by their type, wherever answers are needed."""
    found = failed(list(check_model(segmenting(lambda right, image, prompts: given))))

    assert set(found) >= SOUND | REACTIONS | BATCHES | REPEATED
    assert all("give " in detail for detail in found.values())


@pytest.mark.parametrize(
    ("embeds", "told"),
    [(dict.fromkeys, "type dict"), (lambda i: (x for x in i), "generator"), (set, "TypeError")],
)
def test_embeddings_in_no_order_are_refused(embeds: Callable[[Any], object], told: str):
    """A dictionary and a generator are no sequence; arrays in a set raise, which is told."""
    found = failed(list(check_model(embedding(embeds))))

    assert told in " ".join(found.values())


def test_a_tensor_of_embeddings_will_do():
    """Its first axis counts the images, as that of a list does."""
    model = embedding(lambda images: torch.arange(len(images)))
    checks = {check.name: check.outcome for check in check_model(model)}

    assert checks["images of any shape"] == checks["no image"] == "passed"


@pytest.mark.parametrize("name", ["reference", "nothing", "box", "slow"])
def test_the_fakes_keep_the_contract(name: str):
    """They claim boxes only; the rest is tried and told, and skipped."""
    checks = list(check_model(getattr(fakes, name)()))
    skipped = {check.name: check.detail for check in checks if check.outcome == "skipped"}

    assert not failed(checks)
    assert set(skipped) == {"answers to points", "answers to box+points"}
    assert set(skipped.values()) == {"not claimed; runs, off-protocol"}


def test_what_is_not_claimed_never_fails():
    """It may raise, or answer with rubbish; that is told, and the check is skipped."""

    def boxes_only(right: Right, image: Any, prompts: Sequence[Prompt]) -> object:
        if any(isinstance(prompt, Points) for prompt in prompts):
            raise TypeError("boxes only")
        answers = right.segment(image, prompts)
        for answer, prompt in zip(answers, prompts, strict=True):
            changed(answer, predicted_iou=None)
            if not isinstance(prompt, Box):
                float64(answer, prompt)
        return answers

    model = segmenting(boxes_only)
    model.training = Training(frozenset({"box"}), frozenset({"single"}))
    checks = {check.name: check for check in check_model(model)}

    assert not failed(list(checks.values()))
    assert {checks[name].outcome for name in ("answers to points", "answers to box+points")} == {
        "skipped"
    }
    assert "segment raises TypeError: boxes only" in checks["answers to points"].detail
    assert "float64" in checks["answers to box+points"].detail
    assert "has multimask tokens" in checks["selection oracle"].detail
    assert "without multimask tokens" in checks["selection predicted"].detail


def test_a_pair_that_is_not_claimed_is_not_asked_for():
    """Multimask tokens for points only: boxes may be without them, or not, as it says."""

    def boxes_have_one(right: Right, image: Any, prompts: Sequence[Prompt]) -> object:
        answers = right.segment(image, prompts)
        for answer, prompt in zip(answers, prompts, strict=True):
            if isinstance(prompt, Box):
                changed(answer, multimask=())
        return answers

    model = segmenting(boxes_have_one)
    every = frozenset({"box", "points"}), frozenset({"single", "oracle", "predicted"})
    model.training = Training(*every)
    assert "selection oracle" in failed(list(check_model(model)))
    model.training = Training(*every, frozenset({("box", "oracle"), ("box", "predicted")}))
    checks = {check.name: check for check in check_model(model)}

    assert not failed(list(checks.values()))
    assert checks["training"].detail.endswith("; but: oracle of box, predicted of box")


@pytest.mark.parametrize(
    "but", [None, [("box", "single")], frozenset({("points", "single")}), frozenset({"box"})]
)
def test_exceptions_are_pairs_of_what_is_claimed(but: Any):
    """Anything else says nothing."""
    training = changed(Training(frozenset({"box"}), frozenset({"single"})), but=but)
    checks = {c.name: c for c in check_model(attribute(training=training))}

    assert checks["training"].outcome == "failed"
    assert "has to be a frozenset of pairs" in checks["training"].detail


def test_a_model_that_claims_no_prompt_is_off_protocol_not_wrong():
    """Its prompts are skipped, and the reason is said."""
    checks = {c.name: c for c in check_model(attribute(training=words(frozenset())))}

    assert not failed(list(checks.values()))
    assert "all is off-protocol" in checks["training"].detail
    assert checks["determinism"].outcome == checks["selection single"].outcome == "skipped"


def test_a_hash_of_another_form_passes_with_a_word():
    """A model without weights has none, and a run needs a text only."""
    check = next(c for c in check_model(attribute(weights_hash="v2")) if c.name == "weights_hash")

    assert check.outcome == "passed"
    assert "'v2', no SHA-256" in check.detail


def test_rounding_between_batches_passes_with_the_figure():
    """Real networks differ in the last digits: no failure, and no secret."""
    model = segmenting(by_the_number(1e-5))
    checks = {check.name: check for check in check_model(model)}

    assert checks["batch invariance of prompts"].outcome == "passed"
    assert "equal masks; logits differ by up to 5e-05" in (
        checks["batch invariance of prompts"].detail
    )


def test_masks_that_change_between_batches_are_counted_in_pixels():
    """The logits of the last way asked move by 5: every mask grows or shrinks."""
    found = failed(list(check_model(segmenting(by_the_number(1.0)))))

    assert "logits by up to 5" in found["batch invariance of prompts"]
    assert " 0 pixels" not in found["batch invariance of prompts"]


def test_checks_come_as_they_are_done():
    """A slow model shows its first checks before it is asked anything."""
    asked = []
    checks = check_model(embedding(lambda images: asked.append(images)))

    assert isinstance(checks, Iterator)
    assert next(checks).name == "name"
    assert not asked


def test_an_interruption_is_no_check():
    """Ctrl-C ends the checks, whatever the model does."""

    def interrupt(images: object) -> object:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(check_model(embedding(interrupt)))


def test_prompts_lie_in_their_image_and_differ():
    """What the contract asks is within its own rules, on the smallest images too."""
    for image in draw_images().values():
        height, width = image.shape[:2]
        for kind in KINDS:
            for prompt in prompts_in(image, kind):
                box, points = box_of(prompt), points_of(prompt)
                assert box is None or (0 <= box.x0 < box.x1 <= width and box.y1 <= height)
                assert points is None or (points.xy <= (width - 1, height - 1)).all()
        assert {prompt.kind for prompt in mixed_prompts_in(image, KINDS)} == set(KINDS)


@pytest.mark.real
def test_litemedsam_keeps_the_contract(litemedsam_weights: Path):
    """The published weights: boxes and the single mask are claimed, the rest runs off-protocol."""
    checks = list(check_model(load(weights=litemedsam_weights)))
    skipped = {check.name for check in checks if check.outcome == "skipped"}

    assert not failed(checks)
    assert skipped == {
        "answers to points",
        "answers to box+points",
        "selection oracle",
        "selection predicted",
    }
