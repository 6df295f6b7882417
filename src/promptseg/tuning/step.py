"""One step of training: prompts made, decoded and compared, the gradients of processes added."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from promptseg.errors import ModelError
from promptseg.model import Canvas
from promptseg.models.cores import side_by_side
from promptseg.prompt import Prompt, box_of, points_of
from promptseg.trainable import Tokens, Trainable
from promptseg.tuning.asking import corrected, draw_shape, make_prompt
from promptseg.tuning.items import Item, Source, distorted, turned
from promptseg.tuning.loss import Loss, image_loss, on_canvas
from promptseg.tuning.network import gradients
from promptseg.tuning.settings import Settings

MOST_IMAGES = 4  # at once on a CPU: what each leaves for its gradients is in memory together


@dataclass(frozen=True, slots=True)
class StepLog:
    """The means of one step over its images, in the order of `course.COLUMNS`."""

    loss: float
    mask_loss: float
    iou_loss: float
    dice: float
    grad_norm: float


@dataclass(frozen=True, slots=True)
class Stepper:
    """What computes gradients: the model, where its images come from, and who shares the work."""

    model: Trainable
    settings: Settings
    source: Source
    names: tuple[str, ...]  # of the chosen parameters
    accelerator: Any

    def backward(self, batch: Sequence[Item], epoch: int) -> StepLog:
        """Leave the gradients of a batch, of which every process does its share, in all of them.

        Every image weighs the same, so that the result does not depend on how many share it.

        Raises
        ------
        ModelError
            The loss or a gradient is not finite.
        """
        here, of = self.accelerator.process_index, self.accelerator.num_processes
        learned = [p for p in self.model.network.parameters() if p.requires_grad]

        def each(item: Item) -> tuple[Tensor, Sequence[Tensor | None]]:
            found = self.image(item, epoch)
            parts = (float(found.total.detach()), found.mask, found.iou, found.dice)
            grads = torch.autograd.grad(found.total / len(batch), learned, allow_unused=True)
            return torch.tensor(parts, dtype=torch.float64) / len(batch), grads

        sums, stopped = torch.zeros(4, dtype=torch.float64), None
        own = batch[here::of]
        try:
            for start in range(0, len(own), at_once := self._at_once()):
                found = side_by_side(each, own[start : start + at_once], at_once)
                sums += sum(parts for parts, _ in found)
                _add(learned, [grads for _, grads in found])
        except (RuntimeError, MemoryError) as error:
            if of == 1:
                raise
            # others wait for the sums, and stop by them; the error holds what filled the memory
            stopped, sums = error.with_traceback(None), sums * float("nan")
        if stopped is not None and self.accelerator.device.type == "cuda":
            torch.cuda.empty_cache()
        sums, norm = self._shared(sums)
        if stopped is not None:
            raise stopped
        if not (torch.isfinite(sums).all() and np.isfinite(norm)):
            shown = ", ".join(item.image_id for item in batch)
            shown += ", or another process stopped" if of > 1 else ""
            raise ModelError(
                f"The loss became NaN or infinite at images {shown}. What was reached before is "
                "kept; try a smaller --learning-rate."
            )
        loss, mask, iou, dice = (float(value) for value in sums)
        return StepLog(loss, mask, iou, dice, norm)

    def _at_once(self) -> int:
        """How many images are worked on at a time: threads that share one wait for each other."""
        is_cpu = self.accelerator.device.type == "cpu"
        return min(torch.get_num_threads(), MOST_IMAGES) if is_cpu else 1

    def _shared(self, sums: Tensor) -> tuple[Tensor, float]:
        """Add sums and gradients over all processes, and measure the gradient's length."""
        found = gradients(self.model.network, self.names)
        if self.accelerator.num_processes > 1:
            flat = torch.cat([grad.flatten() for grad in found])
            flat = self.accelerator.reduce(flat, reduction="sum")
            sums = self.accelerator.reduce(sums.to(flat.device), reduction="sum").cpu()
            for grad, piece in zip(found, flat.split([g.numel() for g in found]), strict=True):
                grad.copy_(piece.view_as(grad))
        lengths = [torch.linalg.vector_norm(grad) for grad in found]
        return sums, float(torch.linalg.vector_norm(torch.stack(lengths)))

    def image(self, item: Item, epoch: int) -> Loss:
        """Give the loss of one image in one epoch; what is random depends on these alone."""
        rng = np.random.default_rng(seed_of(self.settings.seed, epoch, item.image_id))
        variant = int(rng.choice(item.variants))
        order = rng.permutation(len(item.goals))[: self.settings.max_targets]
        masks = [item.goals[index].mask(variant) for index in order]
        features, masks = self._features(item, variant, masks, rng)
        shape = draw_shape(self.settings, rng)
        prompts = [make_prompt(shape, self.settings.jitter, mask, rng) for mask in masks]
        return self._rounds(features, item.hw(variant), prompts, masks, rng)

    def _features(
        self, item: Item, variant: int, masks: list[np.ndarray], rng: np.random.Generator
    ) -> tuple[Tensor, list[np.ndarray]]:
        """Encode a variant of an image: what is frozen from the cache, the rest with gradients."""
        frozen = self.source.frozen
        if self.settings.augmentation == "full":
            image = turned(self.source.image(item), variant)
            image, moved = distorted(image, masks, rng)
            kept = [mask for mask in moved if mask.any()]
            if kept:  # else all objects were moved out of sight: the image stays as it is
                return self._encoded(frozen.make(image)), kept
        return self._encoded(self.source.features(item, variant, self.accelerator.device)), masks

    def _encoded(self, maps: Tensor) -> Tensor:
        cut, stop = self.source.frozen.cut, len(self.model.stages)
        with self.accelerator.autocast():
            return maps if cut == stop else self.model.encode(maps, cut, stop)

    def _rounds(
        self,
        features: Tensor,
        image_hw: tuple[int, int],
        prompts: list[Prompt],
        masks: Sequence[Bool[np.ndarray, "h w"]],
        rng: np.random.Generator,
    ) -> Loss:
        """Ask, correct by clicks and ask again up to as often as set; the rounds weigh the same."""
        canvas = self.model.canvas(image_hw)
        references = torch.from_numpy(np.stack([on_canvas(mask, canvas) for mask in masks]))
        references = references.to(features.device)
        losses: list[Loss] = []
        n_rounds = 1
        if self.settings.prompts == "clicks":  # some are left as they were asked first
            n_rounds += int(rng.integers(0, self.settings.rounds + 1))
        for number in range(n_rounds):
            logits, iou = decoded(
                self.model, features, image_hw, prompts, self.settings.tokens, self.accelerator
            )
            losses.append(
                image_loss(
                    logits,
                    iou,
                    references,
                    tokens=self.settings.tokens,
                    iou_weight=self.settings.iou_weight,
                )
            )
            if number + 1 < n_rounds:
                shown = shown_masks(logits, iou, canvas, image_hw, self.settings)
                clicked = [corrected(*of, rng) for of in zip(prompts, shown, masks, strict=True)]
                prompts = [new or old for new, old in zip(clicked, prompts, strict=True)]
        return _mean(losses)


def _add(parameters: Sequence[Tensor], images: Sequence[Sequence[Tensor | None]]) -> None:
    """Add the gradients of some images to those that are there.

    They are laid out as their parameters are, which a fused optimiser takes for granted; and
    several may lie in one memory.
    """
    for parameter, *grads in zip(parameters, *images, strict=True):
        found = [grad for grad in (parameter.grad, *grads) if grad is not None]
        if not found:
            continue
        total = torch.empty_like(parameter)
        if len(found) == 1:
            total.copy_(found[0])
        else:
            torch.add(found[0], found[1], out=total)
        for grad in found[2:]:
            total.add_(grad)
        parameter.grad = total


def _mean(losses: Sequence[Loss]) -> Loss:
    count = len(losses)
    return Loss(
        torch.stack([loss.total for loss in losses]).mean(),
        sum(loss.mask for loss in losses) / count,
        sum(loss.iou for loss in losses) / count,
        losses[-1].dice,
    )


def decoded(
    model: Trainable,
    features: Tensor,
    image_hw: tuple[int, int],
    prompts: Sequence[Prompt],
    tokens: Tokens,
    accelerator: Any,
) -> tuple[Float[Tensor, "b k h w"], Float[Tensor, "b k"]]:
    """Decode prompts of any shapes, in order."""
    groups: dict[tuple[bool, int], list[int]] = {}
    for index, prompt in enumerate(prompts):
        clicks = points_of(prompt)
        shape = (box_of(prompt) is not None, 0 if clicks is None else len(clicks.xy))
        groups.setdefault(shape, []).append(index)
    with accelerator.autocast():
        answers = model.decode(
            features, image_hw, [[prompts[i] for i in group] for group in groups.values()], tokens
        )
    order = torch.tensor([index for group in groups.values() for index in group])
    back = torch.argsort(order).to(features.device)
    logits = torch.cat([answer for answer, _ in answers])
    iou = torch.cat([answer for _, answer in answers])
    return (logits, iou) if len(groups) == 1 else (logits[back], iou[back])


@torch.no_grad()
def shown_masks(
    logits: Float[Tensor, "b k h w"],
    iou: Float[Tensor, "b k"],
    canvas: Canvas,
    image_hw: tuple[int, int],
    settings: Settings,
) -> list[Bool[np.ndarray, "y x"]]:
    """Give the masks that a user would see, at the size of the image."""
    if settings.score == "single":
        best = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    else:
        best = 1 + iou[:, 1:].argmax(1)
    height, width = canvas.valid_hw
    rows = torch.arange(len(logits), device=logits.device)
    chosen = logits[rows, best, :height, :width].float().cpu().numpy()
    return [cv2.resize(one, (image_hw[1], image_hw[0])) > 0 for one in chosen]


def seed_of(*identity: object) -> int:
    """Derive a seed from what it is for."""
    text = "\n".join(map(str, identity))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16])


def batches(items: Sequence[Item], epoch: int, settings: Settings) -> Iterable[list[Item]]:
    """Divide the items of an epoch, in an order of its own, into batches."""
    rng = np.random.default_rng(seed_of(settings.seed, "order", epoch))
    order = rng.permutation(len(items))
    for start in range(0, len(order), settings.batch_size):
        yield [items[index] for index in order[start : start + settings.batch_size]]
