"""A trainable model of a few thousand parameters that learns a phantom in seconds; its bugs."""

import os
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from promptseg.model import Candidates, Canvas, Training
from promptseg.prompt import Prompt, box_of, points_of

SIDE = 48


class Mix(nn.Module):
    """Linear layers over the channels of every pixel, with their residual path."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (1, 16, h, w) to the same shape."""
        rows = x.permute(0, 2, 3, 1)
        mixed = rows + self.fc2(nn.functional.gelu(self.fc1(rows)))
        return mixed.permute(0, 3, 1, 2)


class Network(nn.Module):
    """A convolution, a mixing stage, and a decoder that looks at pixels and where the prompt is."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.GELU())
        self.mix = Mix()
        self.decoder = nn.Sequential(nn.Linear(16 + 7, 32), nn.GELU(), nn.Linear(32, 4))
        self.quality = nn.Linear(16, 4)


class Tiny:
    """A Segmenter that shows its network, as promptseg.trainable.Trainable says."""

    def __init__(self, seed: int = 0, name: str = "tiny") -> None:
        self.name, self.weights_hash = name, f"{seed:064d}"
        self.training = Training(frozenset({"box"}), frozenset({"single"}))
        self.stages: tuple[str, ...] = ("stem", "mix")
        self.tokens = (0, 1, 2, 3)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = Network()

    @property
    def device(self) -> torch.device:
        """Tell where the network is."""
        return self.network.quality.weight.device

    def parameters_of(self, part: str, tokens: str, kinds: Any) -> list[str]:
        """List the parameters of a part; each has a prefix of its own."""
        prefixes = {"encoder": ("stem.", "mix."), "decoder": ("decoder.", "quality.")}
        names = [name for name, _ in self.network.named_parameters()]
        return [name for name in names if name.startswith(prefixes.get(part, ("none",)))]

    def canvas(self, image_hw: tuple[int, int]) -> Canvas:
        """Scale the longest side to the canvas."""
        scale = SIDE / max(image_hw)
        return Canvas(SIDE, (round(image_hw[0] * scale), round(image_hw[1] * scale)))

    def pixels(self, image: np.ndarray) -> torch.Tensor:
        """Put an image into the upper left part of the canvas."""
        height, width = Tiny.canvas(self, image.shape[:2]).valid_hw
        padded = np.zeros((SIDE, SIDE, 3), dtype=np.float32)
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        padded[:height, :width] = small / 255
        return torch.from_numpy(padded.transpose(2, 0, 1).copy())[None].to(self.device)

    def encode(self, maps: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """Run the stages."""
        for name in self.stages[start:stop]:
            maps = self.network.get_submodule(name)(maps)
        return maps

    def decode(
        self, features: Any, image_hw: tuple[int, int], prompts: Any, tokens: str = "both"
    ) -> list[Any]:
        """Decode pixel by pixel, from its features and where it lies to the prompt."""
        return [self._group(features, image_hw, group) for group in prompts]

    def _group(self, features: Any, image_hw: tuple[int, int], prompts: Any) -> Any:
        places = torch.stack([self._places(prompt, image_hw) for prompt in prompts])
        rows = features.permute(0, 2, 3, 1).expand(len(prompts), -1, -1, -1)
        logits = self.network.decoder(torch.cat([rows, places], dim=3)).permute(0, 3, 1, 2)
        inside = places[..., :1]
        pooled = (rows * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
        return logits, torch.sigmoid(self.network.quality(pooled))

    def _places(self, prompt: Prompt, image_hw: tuple[int, int]) -> torch.Tensor:
        scale = SIDE / max(image_hw)
        y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
        box, points = box_of(prompt), points_of(prompt)
        maps = [np.zeros_like(x)] * 7
        if box is not None:
            edges = [x - box.x0 * scale, box.x1 * scale - x, y - box.y0 * scale, box.y1 * scale - y]
            maps[0] = (np.min(edges, axis=0) >= -0.5).astype(np.float32)
            maps[1:5] = [np.clip(edge / 8, -1, 1) for edge in edges]
        if points is not None:
            for sign, number in ((True, 5), (False, 6)):
                for px, py in points.xy[points.positive == sign] * scale:
                    near = np.exp(-((x - px) ** 2 + (y - py) ** 2) / 32)
                    maps[number] = np.maximum(maps[number], near)
            maps[0] = np.maximum(maps[0], maps[5] > 0.3)
        return torch.from_numpy(np.stack(maps, axis=2).astype(np.float32)).to(self.device)

    @torch.no_grad()
    def embedding(self, features: Any, image_hw: tuple[int, int]) -> Any:
        """Keep the features and the size."""
        return features.clone(), image_hw

    @torch.no_grad()
    def embed(self, images: Sequence[np.ndarray]) -> list[Any]:
        """Run all stages."""
        return [
            self.embedding(self.encode(self.pixels(image), 0, 2), image.shape[:2])
            for image in images
        ]

    @torch.no_grad()
    def segment(self, embedding: Any, prompts: Sequence[Prompt]) -> list[Candidates]:
        """Decode prompts one by one."""
        features, image_hw = embedding
        answers = []
        for prompt in prompts:
            logits, iou = self._group(features, image_hw, [prompt])
            canvas = Tiny.canvas(self, image_hw)
            found = logits[0].cpu().numpy(), iou[0].cpu().numpy()
            answers.append(Candidates(*found, 0, (1, 2, 3), canvas))
        return answers


class WrongToken(Tiny):
    """Train the last token as if it were the single-mask one."""

    def decode(
        self, features: Any, image_hw: tuple[int, int], prompts: Any, tokens: str = "both"
    ) -> list[Any]:
        """Give the tokens in another order than `segment`."""
        return [
            (logits.flip(1), iou)
            for logits, iou in super().decode(features, image_hw, prompts, tokens)
        ]


class FrozenByMistake(Tiny):
    """Let no gradient into the encoder."""

    def encode(self, maps: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """Cut the graph."""
        with torch.no_grad():
            return super().encode(maps, start, stop)


class TrainedByMistake(Tiny):
    """Let gradients into what is to be frozen."""

    def decode(
        self, features: Any, image_hw: tuple[int, int], prompts: Any, tokens: str = "both"
    ) -> list[Any]:
        """Thaw the mixing stage."""
        answers = super().decode(features, image_hw, prompts, tokens)
        bias = self.network.mix.fc1.bias.requires_grad_(True)
        return [(logits + bias.sum() - bias.sum().detach(), iou) for logits, iou in answers]


class OtherSize(Tiny):
    """Say that the image fills the canvas, whatever its shape."""

    def canvas(self, image_hw: tuple[int, int]) -> Canvas:
        """Forget the padding."""
        return Canvas(SIDE, (SIDE, SIDE))


class Deaf(Tiny):
    """Give gradients, but too small to learn by."""

    def decode(
        self, features: Any, image_hw: tuple[int, int], prompts: Any, tokens: str = "both"
    ) -> list[Any]:
        """Answer alike, with gradients of the wrong sign."""
        return [
            (2 * logits.detach() - logits, iou)
            for logits, iou in super().decode(features, image_hw, prompts, tokens)
        ]


class Exploding(Tiny):
    """Give NaN after some answers."""

    answers, most = 0, 90

    def decode(
        self, features: Any, image_hw: tuple[int, int], prompts: Any, tokens: str = "both"
    ) -> list[Any]:
        """Count, then fail."""
        self.answers += 1
        factor = float("nan") if self.answers > self.most else 1.0
        return [
            (logits * factor, iou)
            for logits, iou in super().decode(features, image_hw, prompts, tokens)
        ]


class Hungry(Tiny):
    """Run out of memory after some answers."""

    answers, most = 0, 90

    def decode(
        self, features: Any, image_hw: tuple[int, int], prompts: Any, tokens: str = "both"
    ) -> list[Any]:
        """Count, then fail as a GPU does."""
        self.answers += 1
        if self.answers > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return super().decode(features, image_hw, prompts, tokens)


class HungryAlone(Hungry):
    """Run out of memory in the second of several processes only."""

    def __init__(self) -> None:
        super().__init__()
        if os.environ.get("RANK") != "1":
            self.most = 10**9


def make() -> Tiny:
    """Make a model."""
    return Tiny()
