"""TinyViT's stages for inference on a CPU: the same sums, in strips that stay in the cache.

The modules of `promptseg.models.tinyvit` write every map to memory several times, up to 64 MB of
it. Here channels lie last, so that all but two convolutions are products of matrices; batch norms
are folded into the convolution before them; and what follows another works on a strip of rows, in
one thread per strip.
Weights are read anew at every call, so that a network that was trained or loaded into meanwhile
is the network that answers. Equal to the modules up to rounding.

Axes: H rows, W columns, C channels of one image's map.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from promptseg.models.cores import Each, own_cores

ROWS = 16  # of a map of 256 channels and columns: 4 MB; also of what is mixed
ATTENDED = 512  # tokens of the windows that attend together, about
MIXED = 1024  # tokens of an MLP at a time: 2 to 5 MB
# what the stages are made of; an adapter that was put in is none of these
KNOWN = (nn.Conv2d, nn.BatchNorm2d, nn.LayerNorm, nn.Linear, nn.GELU, nn.Sequential, nn.ModuleList)
OURS = "promptseg.models.tinyvit"

Map = Float[Tensor, "h w c"]
Made = Float[Tensor, "y x k"]  # another map
Folded = tuple[Tensor, Tensor]  # weight and bias


def in_strips(module: nn.Module, x: Tensor) -> bool:
    """Tell whether a stage can run here: on a CPU in float32, without gradients, as it was built.

    Training and exporting take the modules, with gradients enabled.
    """
    return (
        not torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not module.training
        and all(type(m) in KNOWN or type(m).__module__ == OURS for m in module.modules())
    )


def each(
    run: Callable[[Any, Map, Each], Made], module: nn.Module, x: Float[Tensor, "b c h w"]
) -> Float[Tensor, "b k y x"]:
    """Run images one by one: none has an effect on the last digits of another."""
    with own_cores() as share:
        maps = [run(module, one.permute(1, 2, 0).contiguous(), share) for one in x]
    return torch.stack(maps).permute(0, 3, 1, 2)


def stage(module: Any, x: Map, share: Each) -> Made:
    """Run the blocks of a stage and its merging."""
    for block in module.blocks:
        if hasattr(block, "attn"):
            x = _mixed(block, _attended(block, x, share), share)
        else:
            x = _inverted(block, x, share)
    return x if module.downsample is None else _merged(module.downsample, x, share)


def patch_embed(module: Any, x: Map, share: Each) -> Made:
    """Lift pixels to channels."""
    first, second = _folded(module.seq[0]), _folded(module.seq[2])
    made = x.new_empty(*x.shape[:2], len(second[1]))

    def lift(top: int) -> None:
        rows = slice(top, top + ROWS)
        made[rows] = F.linear(_gelu(F.linear(x[rows], *first)), *second)

    share(lift, range(0, len(x), ROWS))
    return made


def neck(module: Any, x: Map, share: Each) -> Made:
    """Bring the last stage's map to the embedding."""
    first, norm, second, last = module
    narrow = _normed(norm, F.linear(x, first.weight.flatten(1)))
    return _normed(last, _convolved(narrow, second.weight, None))


def _normed(norm: nn.LayerNorm, x: Float[Tensor, "... c"]) -> Float[Tensor, "... c"]:
    return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def _gelu(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Apply GELU in place, which saves a pass through memory."""
    return cast(Tensor, torch.ops.aten.gelu_(x))


def _folded(module: Any) -> Folded:
    """Fold a batch norm into the convolution before it; a 1 x 1 one is a matrix."""
    norm = module.bn
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    weight = module.c.weight * scale[:, None, None, None]
    bias = norm.bias - norm.running_mean * scale
    return (weight.flatten(1) if weight.shape[2] == 1 else weight), bias


def _convolved(
    x: Map, weight: Float[Tensor, "k d 3 3"], bias: Float[Tensor, "k"] | None, stride: int = 1
) -> Made:
    """Convolve by 3 x 3, zeros around; weights of one input channel are depth-wise."""
    groups = x.shape[2] // weight.shape[1]
    # the batch axis comes first: only then is the layout known as channels last
    whole = F.conv2d(x[None].permute(0, 3, 1, 2), weight, bias, stride, 1, groups=groups)
    return whole[0].permute(1, 2, 0)


def _wide_strip(x: Map, top: int, first: Folded, second: Folded, *, stride: int = 1) -> Made:
    """Give what the last convolution of an inverted block takes, of a strip of its rows.

    It is made from the strip and a halo of rows beside it; what is wrong for want of more halo is
    left out.
    """
    start, stop = max(top - stride, 0), min(top + ROWS + 1, len(x))
    wide = _gelu(F.linear(x[start:stop], *first))
    made = _convolved(wide, second[0], second[1], stride)
    skipped = (top - start) // stride
    wanted = -(-(min(top + ROWS, len(x)) - top) // stride)
    return _gelu(made[skipped : skipped + wanted])


def _inverted(block: Any, x: Map, share: Each) -> Map:
    first, second, third = (_folded(one) for one in (block.conv1, block.conv2, block.conv3))
    made = torch.empty_like(x)

    def invert(top: int) -> None:
        rows = slice(top, top + ROWS)
        narrow = F.linear(_wide_strip(x, top, first, second), *third)
        made[rows] = _gelu(narrow.add_(x[rows]))

    share(invert, range(0, len(x), ROWS))
    return made


def _merged(merging: Any, x: Map, share: Each) -> Made:
    first, second, third = (_folded(one) for one in (merging.conv1, merging.conv2, merging.conv3))
    stride = merging.conv2.c.stride[0]
    made = x.new_empty(*(-(-side // stride) for side in x.shape[:2]), len(third[1]))

    def merge(top: int) -> None:
        narrow = F.linear(_wide_strip(x, top, first, second, stride=stride), *third)
        made[top // stride : top // stride + len(narrow)] = narrow

    share(merge, range(0, len(x), ROWS))
    return made


def _attended(block: Any, x: Map, share: Each) -> Map:
    """Attend within windows, some of a row of windows at a time; add, and convolve by channel."""
    attention, size = block.attn, block.window
    heads, (height, width, dim) = attention.heads, x.shape
    bias = attention.attention_biases.index_select(1, attention.offset_index.flatten())
    bias = bias.view(1, heads, size**2, size**2)
    # a place without pixels is a token too: that of a zero, normalised
    nowhere = attention.qkv(_normed(attention.norm, x.new_zeros(dim)))
    made = torch.empty_like(x)

    def attend(corner: tuple[int, int]) -> None:
        rows, columns = slice(corner[0], corner[0] + size), slice(corner[1], corner[1] + step)
        some = x[rows, columns].contiguous()
        into, back = _places(some.shape[0], some.shape[1], size)
        pixels = _normed(attention.norm, some).flatten(0, 1)
        # with a last row for places without pixels
        tokens = x.new_empty(len(pixels) + 1, 3 * dim)
        torch.addmm(attention.qkv.bias, pixels, attention.qkv.weight.T, out=tokens[:-1])
        tokens[-1] = nowhere
        tokens = tokens.index_select(0, into)
        # each head holds its query, key and value side by side
        parts = tokens.view(-1, size**2, heads, 3, dim // heads).permute(3, 0, 2, 1, 4)
        query, key, value = parts.unbind()
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        mixed = mixed.transpose(1, 2).reshape(-1, dim).index_select(0, back)
        made[rows, columns] = some.add_(attention.proj(mixed).view(some.shape))

    step = max(ATTENDED // size**2, 1) * size
    share(attend, itertools.product(range(0, height, size), range(0, width, step)))
    return made


@functools.lru_cache(maxsize=64)
def _places(height: int, width: int, size: int) -> tuple[Int64[Tensor, "n"], Int64[Tensor, "m"]]:
    """Tell which row of pixels each token of a row of windows is, and where each pixel went.

    A token beyond the pixels has the row after the last.
    """
    columns = -(-width // size)
    window, y, x = torch.meshgrid(
        torch.arange(columns), torch.arange(size), torch.arange(size), indexing="ij"
    )
    column = window * size + x
    into = torch.where((y < height) & (column < width), y * width + column, height * width)
    back = torch.empty(height * width + 1, dtype=torch.int64)
    back[into.flatten()] = torch.arange(into.numel())
    return into.flatten(), back[:-1]


def _mixed(block: Any, x: Map, share: Each) -> Map:
    """Convolve by channel, and add what the MLP makes of every pixel."""
    mlp, folded = block.mlp, _folded(block.local_conv)
    made = torch.empty_like(x)

    def mix(top: int) -> None:
        # a strip and the rows beside it, whose own sums want more of them and are left out
        start = max(top - 1, 0)
        near = _convolved(x[start : top + ROWS + 1], *folded)[top - start :][:ROWS]
        pixels, out = near.flatten(0, 1), made[top : top + ROWS].flatten(0, 1)
        for first in range(0, len(pixels), MIXED):
            some = pixels[first : first + MIXED]
            wide = _gelu(mlp.fc1(_normed(mlp.norm, some)))
            torch.add(some, mlp.fc2(wide), out=out[first : first + MIXED])

    share(mix, range(0, len(x), ROWS))
    return made
