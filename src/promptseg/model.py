"""The seam to any promptable model: embed an image once, then decode prompts from the embedding."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar, get_args, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from promptseg.prompt import Everything, Prompt, PromptKind
from promptseg.strategy import StrategyKind
from promptseg.weights import WheelFile

if TYPE_CHECKING:
    from torch import Tensor

Selection = Literal["single", "oracle", "predicted"]
SELECTIONS: tuple[Selection, ...] = get_args(Selection)

Precision = Literal["float32", "bfloat16", "float16"]
Backend = Literal["torch", "onnx"]  # what runs a built-in model

PIECE_BYTES = 64_000_000  # of maps at the image's size held at once; a larger map stands alone
E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class Canvas:
    """The square on which a model sees an image: resized into its upper left part, then padded."""

    side: int
    valid_hw: tuple[int, int]  # the part of the square that shows the image


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """A model's answer to one prompt: one logit map per mask token.

    `logits` cover the whole canvas, at any resolution; without a canvas they cover the image.
    A pixel belongs to the mask where its logit, enlarged to the image's size, is above 0.
    """

    logits: Float32[np.ndarray, "n h w"]
    predicted_iou: Float32[np.ndarray, "n"] | None  # None: the model predicts none
    single: int | None  # index of the single-mask token, None: the model has none
    multimask: tuple[int, ...]  # indices of the multimask tokens
    canvas: Canvas | None = None


@dataclass(frozen=True, slots=True)
class Training:
    """What a model was trained for; the rest runs, and is marked off-protocol.

    Every kind of prompt under every selection, `but` those pairs: a model of boxes and the
    single-mask token that learned the multimask tokens from points knows both, and did not learn
    ("box", "predicted").
    """

    prompts: frozenset[PromptKind]
    selections: frozenset[Selection]
    but: frozenset[tuple[PromptKind, Selection]] = frozenset()

    @property
    def pairs(self) -> frozenset[tuple[PromptKind, Selection]]:
        """All pairs of a kind of prompt and a selection that it was trained for."""
        return frozenset(product(self.prompts, self.selections)) - self.but

    def exceptions(self) -> list[str]:
        """List `but` in words."""
        return [f"{selection} of {kind}" for kind, selection in sorted(self.but)]

    def covers(self, kind: StrategyKind, selection: Selection) -> bool:
        """Tell whether the model was trained for a kind of prompt and a choice of candidate.

        Everything asks with points, and filters the answers by their predicted IoU.
        """
        if kind == "everything":
            return self.covers("points", "predicted") and self.covers("points", selection)
        known = kind in self.prompts and selection in self.selections
        return known and (kind, selection) not in self.but


def trained_for(pairs: Iterable[tuple[PromptKind, Selection]]) -> Training:
    """Make a claim of the pairs of a kind of prompt and a selection that were trained."""
    known = frozenset(pairs)
    prompts = frozenset(kind for kind, _ in known)
    selections = frozenset(selection for _, selection in known)
    return Training(prompts, selections, frozenset(product(prompts, selections)) - known)


@runtime_checkable
class Segmenter(Protocol[E]):
    """A promptable model. Anything with these attributes and two methods will do.

    `embed` returns one embedding per image, whatever the model needs to decode from; `segment`
    returns one `Candidates` per prompt, in order. Neither may keep a state between calls.
    A model that embeds several images at once in less time may say how many, as `images_at_once`.

    Examples
    --------
    >>> import numpy as np
    >>> class Everywhere:
    ...     name, weights_hash = "everywhere", "none"
    ...     training = Training(frozenset({"box"}), frozenset({"single"}))
    ...     def embed(self, images):
    ...         return [image.shape[:2] for image in images]
    ...     def segment(self, embedding, prompts):
    ...         logits = np.ones((1, *embedding), np.float32)
    ...         return [Candidates(logits, None, single=0, multimask=()) for _ in prompts]
    """

    name: str
    weights_hash: str
    training: Training

    def embed(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> Sequence[E]:
        """Encode images, once each."""
        ...

    def segment(self, embedding: E, prompts: Sequence[Prompt]) -> Sequence[Candidates]:
        """Decode prompts of one image."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What `promptseg models` tells of a built-in model, known without loading it."""

    name: str
    title: str
    architecture: str
    input_px: int
    parameters: int
    training: Training
    training_data: str
    licence: str
    source: str
    citation: str
    weights: WheelFile
    loader: str  # package.module:function
    everything: Everything  # the thresholds of everything that suit the model ...
    everything_source: str  # ... and how they were chosen


def masks_at(candidates: Candidates, size_hw: tuple[int, int]) -> Bool[np.ndarray, "n h w"]:
    """Bring a model's logits to the size of the image and threshold them at 0.

    Enlarged are at most 64 MB of logits at a time, or one map where that is larger.
    """
    logits, canvas = candidates.logits, candidates.canvas
    masks = np.empty((len(logits), *size_hw), dtype=bool)
    for piece in pieces(len(logits), canvas, size_hw):
        masks[piece] = logits_at(logits[piece], canvas, size_hw) > 0
    return masks


def pieces(count: int, canvas: Canvas | None, size_hw: tuple[int, int]) -> Iterator[slice]:
    """Cut so many maps so that those of a piece take at most `PIECE_BYTES` enlarged, or are one."""
    side = canvas.side if canvas else 0
    most = max(1, PIECE_BYTES // (4 * (size_hw[0] * size_hw[1] + 2 * side * side)))
    for start in range(0, count, most):
        yield slice(start, start + most)


def _resized(
    maps: "Float32[Tensor, '1 n _ _']", size_hw: tuple[int, int]
) -> "Float32[Tensor, '1 n h w']":
    from torch.nn.functional import interpolate

    if maps.shape[-2:] == (1, 1):
        # for several of these PyTorch takes another kernel than for one, whose last digits differ
        return maps.expand(-1, -1, *size_hw).contiguous()
    return maps if maps.shape[-2:] == size_hw else interpolate(maps, size_hw, mode="bilinear")


def logits_at(
    logits: Float32[np.ndarray, "n _ _"], canvas: Canvas | None, size_hw: tuple[int, int]
) -> Float32[np.ndarray, "n h w"]:
    """Bring logits to the size of the image.

    As SAM's and LiteMedSAM's own code does: bilinearly (pixel centres, no corner alignment) to the
    canvas, cut to the part that shows the image, then to the image.
    """
    import torch

    maps = torch.from_numpy(np.ascontiguousarray(logits))[None]
    if canvas is not None:
        maps = _resized(maps, (canvas.side, canvas.side))
        maps = maps[..., : canvas.valid_hw[0], : canvas.valid_hw[1]]
    maps = _resized(maps, size_hw)
    at_size: Float32[np.ndarray, "n h w"] = maps[0].numpy()
    return at_size
