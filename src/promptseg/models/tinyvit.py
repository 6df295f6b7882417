"""TinyViT as MedSAM's light encoder uses it: 256 px in, a 64 x 64 map of 256 channels out.

Re-implemented from Wu et al. 2022 (TinyViT, doi:10.1007/978-3-031-19803-8_5) with the changes of
LiteMedSAM: a patch embedding without stride, and no stride before the last stage. Module names
follow the published checkpoint, so that its keys load as they are.

Axes: B batch, C channel, H rows, W columns, N tokens of a window.
"""

from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from promptseg.models import tinyvit_strips as strips

DIMS = (64, 128, 160, 320)
DEPTHS = (2, 2, 6, 2)
HEADS = (2, 4, 5, 10)  # the first stage is convolutional and has none
WINDOWS = (7, 7, 14, 7)
STRIDES = (2, 2, 1)  # of the merging after stages 0, 1 and 2
NECK_DIM = 256


class ConvNorm(nn.Module):
    """A convolution without bias and its batch normalisation."""

    def __init__(self, dims: tuple[int, int], kernel: int = 1, *, stride: int = 1, groups: int = 1):
        super().__init__()
        self.c = nn.Conv2d(*dims, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(dims[1])

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H / stride, W / stride)."""
        return cast(Tensor, self.bn(self.c(x)))


class MBConv(nn.Module):
    """An inverted residual block that expands the channels fourfold."""

    def __init__(self, dim: int):
        super().__init__()
        wide = 4 * dim
        self.conv1 = ConvNorm((dim, wide))
        self.conv2 = ConvNorm((wide, wide), 3, groups=wide)
        self.conv3 = ConvNorm((wide, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        wide = F.gelu(self.conv2(F.gelu(self.conv1(x))))
        return F.gelu(self.conv3(wide) + x)


class PatchMerging(nn.Module):
    """Change the channels, and halve the resolution where the stride is 2."""

    def __init__(self, dims: tuple[int, int], stride: int):
        super().__init__()
        out = dims[1]
        self.conv1 = ConvNorm(dims)
        self.conv2 = ConvNorm((out, out), 3, stride=stride, groups=out)
        self.conv3 = ConvNorm((out, out))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H / stride, W / stride)."""
        return cast(Tensor, self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x))))))


class Attention(nn.Module):
    """Attention within a window, with a learned bias per absolute offset of two tokens."""

    def __init__(self, dim: int, heads: int, window: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        offset = (torch.arange(window)[:, None] - torch.arange(window)).abs()
        # offsets count row by row: (dy, dx) has the index dy * window + dx
        index = offset[:, None, :, None] * window + offset[None, :, None, :]
        self.offset_index: Tensor
        self.register_buffer("offset_index", index.reshape(window**2, window**2), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map windows of tokens (B, N, C) to the same shape."""
        count, tokens, dim = x.shape
        # each head holds its query, key and value side by side
        qkv = self.qkv(self.norm(x)).view(count, tokens, self.heads, 3, dim // self.heads)
        query, key, value = qkv.permute(3, 0, 2, 1, 4)
        bias = self.attention_biases[:, self.offset_index]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return cast(Tensor, self.proj(mixed.transpose(1, 2).reshape(count, tokens, dim)))


class Mlp(nn.Module):
    """Two linear layers after a normalisation."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to the same shape."""
        return cast(Tensor, self.fc2(F.gelu(self.fc1(self.norm(x)))))


class TinyViTBlock(nn.Module):
    """Window attention, a depth-wise convolution, then an MLP, each with its residual path."""

    def __init__(self, dim: int, heads: int, window: int):
        super().__init__()
        self.window = window
        self.attn = Attention(dim, heads, window)
        self.local_conv = ConvNorm((dim, dim), 3, groups=dim)
        self.mlp = Mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        x = x + self._attend(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = self.local_conv(x)
        mixed: Tensor = self.mlp(x.permute(0, 2, 3, 1))
        return x + mixed.permute(0, 3, 1, 2)

    def _attend(self, x: Tensor) -> Tensor:
        """Attend within windows of (B, H, W, C), padded at the right and bottom to whole ones."""
        batch, height, width, dim = x.shape
        size = self.window
        x = F.pad(x, (0, 0, 0, -width % size, 0, -height % size))
        rows, columns = x.shape[1] // size, x.shape[2] // size
        windows = x.view(batch, rows, size, columns, size, dim).transpose(2, 3)
        mixed = self.attn(windows.reshape(-1, size * size, dim))
        mixed = mixed.view(batch, rows, columns, size, size, dim).transpose(2, 3)
        whole: Tensor = mixed.reshape(batch, rows * size, columns * size, dim)
        return whole[:, :height, :width]


class Stage(nn.Module):
    """Blocks at one resolution, and the merging that leads to the next."""

    def __init__(self, index: int):
        super().__init__()
        dim = DIMS[index]
        self.blocks = nn.ModuleList(
            MBConv(dim) if index == 0 else TinyViTBlock(dim, HEADS[index], WINDOWS[index])
            for _ in range(DEPTHS[index])
        )
        self.downsample = (
            PatchMerging((dim, DIMS[index + 1]), STRIDES[index]) if index < len(STRIDES) else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the input of the next stage."""
        if strips.in_strips(self, x):
            return strips.each(strips.stage, self, x)
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class PatchEmbed(nn.Module):
    """Lift RGB pixels to channels, at full resolution."""

    def __init__(self) -> None:
        super().__init__()
        half = DIMS[0] // 2
        self.seq = nn.Sequential(ConvNorm((3, half)), nn.GELU(), ConvNorm((half, DIMS[0])))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, C, H, W)."""
        if strips.in_strips(self, x):
            return strips.each(strips.patch_embed, self, x)
        return cast(Tensor, self.seq(x))


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of (B, C, H, W)."""

    def __init__(self, dim: int):
        super().__init__(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each pixel; keep the shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Neck(nn.Sequential):
    """What brings the last stage's map to the embedding."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(DIMS[-1], NECK_DIM, 1, bias=False),
            ChannelNorm(NECK_DIM),
            nn.Conv2d(NECK_DIM, NECK_DIM, 3, padding=1, bias=False),
            ChannelNorm(NECK_DIM),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, 256, H, W)."""
        if strips.in_strips(self, x):
            return strips.each(strips.neck, self, x)
        for part in self:
            x = part(x)
        return x


class TinyViT(nn.Module):
    """The image encoder of LiteMedSAM."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed()
        self.layers = nn.ModuleList(Stage(index) for index in range(len(DIMS)))
        self.neck = Neck()

    def forward(self, x: Float[Tensor, "b 3 256 256"]) -> Float[Tensor, "b 256 64 64"]:
        """Encode normalised images."""
        x = self.patch_embed(x)
        for stage in self.layers:
            x = stage(x)
        return cast(Tensor, self.neck(x))
