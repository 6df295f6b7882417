"""The loss of one image: per object and mask token that will be tested, and of predicted IoU."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from promptseg.model import Canvas
from promptseg.trainable import Tokens

RELAXED = 0.1  # share of the multimask tokens that are not the best: none of them starves
SMOOTH = 1.0  # pixel: keeps the DICE of an object that vanishes on the canvas defined


@dataclass(frozen=True, slots=True)
class Loss:
    """The loss of some objects, each term a mean over them; `total` has gradients."""

    total: Float[Tensor, ""]
    mask: float  # BCE and soft DICE of the tokens trained
    iou: float  # squared error of the predicted IoU
    dice: float  # hard DICE on the canvas of the token tested: what a user would see


def on_canvas(mask: Bool[np.ndarray, "h w"], canvas: Canvas) -> Float[np.ndarray, "y x"]:
    """Bring a reference to the part of the canvas that shows the image: shares of pixels, 0..1.

    By area where it shrinks; bilinearly where it grows, as logits are brought back.
    """
    height, width = canvas.valid_hw
    shrinks = mask.shape[0] >= height and mask.shape[1] >= width
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    small = cv2.resize(mask.astype(np.float32), (width, height), interpolation=how)
    found: Float[np.ndarray, "y x"] = np.clip(small, 0, 1)
    return found


def image_loss(
    logits: Float[Tensor, "b k h w"],
    iou: Float[Tensor, "b k"],
    references: Float[Tensor, "b y x"],
    *,
    tokens: Tokens,
    iou_weight: float,
) -> Loss:
    """Compare the tokens (the single-mask one first) with references on the same canvas.

    Every object counts the same, however large. Of the multimask tokens the best carries the loss,
    and the others a little of it (Kirillov et al. 2023, doi:10.1109/ICCV51070.2023.00371, appendix
    A; relaxed as by Rupprecht et al. 2017, doi:10.1109/ICCV.2017.388).
    """
    trained = {"single": slice(0, 1), "multimask": slice(1, None), "both": slice(None)}[tokens]
    logits, iou = logits[:, trained], iou[:, trained]
    seen = logits[..., : references.shape[1], : references.shape[2]].float()
    target = references[:, None].expand_as(seen)
    bce = F.binary_cross_entropy_with_logits(seen, target, reduction="none").mean((2, 3))
    p = torch.sigmoid(seen)
    both, total = (p * target).sum((2, 3)), (p + target).sum((2, 3))
    per_token = bce + 1 - (2 * both + SMOOTH) / (total + SMOOTH)
    parts: list[Tensor] = []
    if tokens != "multimask":
        parts.append(per_token[:, 0])
    if tokens != "single":
        many = per_token if tokens == "multimask" else per_token[:, 1:]
        parts.append((1 - RELAXED) * many.amin(1) + RELAXED * many.mean(1))
    mask = torch.stack(parts).sum(0).mean()
    with torch.no_grad():
        hard, wanted = seen > 0, target > 0.5
        overlap = (hard & wanted).sum((2, 3)).float()
        union = (hard | wanted).sum((2, 3)).float()
        actual = overlap / union.clamp(min=1)
    error = (iou.float() - actual).square().mean()
    dice = 2 * overlap / (union + overlap).clamp(min=1)
    shown = dice[:, 0] if tokens != "multimask" else dice.gather(1, iou.argmax(1, keepdim=True))
    weighted = mask + iou_weight * error if iou_weight else mask
    return Loss(weighted, float(mask.detach()), float(error.detach()), float(shown.mean()))
