"""Steps of SAM's mask decoder, and gradients of their own: the same, with less memory traffic.

Cells are thousands of rows, tokens a few. What PyTorch derives by itself turns cells over, adds up
what is due to them in every place, and multiplies by weights as they happen to lie. It is used
where types are mixed, since these gradients are of one type.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def _has_own(cells: Tensor) -> bool:
    return torch.is_grad_enabled() and not torch.is_autocast_enabled(cells.device.type)


def _applied(function: type[torch.autograd.Function], *tensors: Tensor) -> Tensor:
    made: Tensor = function.apply(*tensors)  # type: ignore[no-untyped-call]
    return made


def seen_at(
    cells: Float[Tensor, "b n c"], positions: Float[Tensor, "1 n c"]
) -> Float[Tensor, "b n c"]:
    """Add positions to cells, for `looked` and `taken_over` of the same cells.

    Positions are not trained: what is due to cells with positions is due to cells.
    """
    return (cells.detach() if _has_own(cells) else cells) + positions


def looked(
    keys: Float[Tensor, "b t c"], cells: Float[Tensor, "b n c"], seen: Float[Tensor, "b n c"]
) -> Float[Tensor, "b t c"]:
    """Give the mean of cells, weighted by how well they fit the keys where they are seen."""
    if _has_own(cells):
        return _applied(_Look, keys, cells, seen)
    return torch.softmax(_times(keys, seen), dim=-1) @ cells


class _Look(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, keys: Tensor, cells: Tensor, seen: Tensor) -> Tensor:
        weights = torch.softmax(_times(keys, seen), dim=-1)
        ctx.save_for_backward(keys, cells, seen, weights)
        return weights @ cells

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        keys, cells, seen, weights = ctx.saved_tensors
        scores = _through_softmax(_times(grad, cells), weights, -1)
        both = torch.cat([weights, scores], dim=1)
        of_cells = both.transpose(1, 2) @ torch.cat([grad, keys], dim=1)
        return scores @ seen, of_cells, None


def looked_last(
    keys: Float[Tensor, "b t c"],
    cells: Float[Tensor, "b n c"],
    seen: Float[Tensor, "b n c"],
    shown: tuple[int, int],
) -> tuple[Float[Tensor, "b t c"], Float[Tensor, "r c"]]:
    """Look for the last time, and cut out the rows and columns of cells that are shown."""
    if _has_own(cells):
        mean, rows = _LastLook.apply(keys, cells, seen, shown)  # type: ignore[no-untyped-call]
        return mean, rows
    return looked(keys, cells, seen), _cut(cells, shown).flatten(0, 2)


def _cut(cells: Float[Tensor, "b n c"], shown: tuple[int, int]) -> Float[Tensor, "b h w c"]:
    side = math.isqrt(cells.shape[1])
    return cells.view(len(cells), side, side, -1)[:, : shown[0], : shown[1]]


class _LastLook(torch.autograd.Function):
    """What is due to cells that are shown is added in place, not to zeros elsewhere."""

    @staticmethod
    def forward(
        ctx: Any, keys: Tensor, cells: Tensor, seen: Tensor, shown: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        ctx.shown = shown
        return _Look.forward(ctx, keys, cells, seen), _cut(cells, shown).flatten(0, 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, of_rows: Tensor) -> tuple[Tensor, Tensor, None, None]:
        of_keys, of_cells, _ = _Look.backward(ctx, grad)
        cut = _cut(of_cells, ctx.shown)
        cut += of_rows.view_as(cut)
        return of_keys, of_cells, None, None


def taken_over(
    cells: Float[Tensor, "b n c"],
    seen: Float[Tensor, "b n c"],
    queries: Float[Tensor, "b heads t c"],
    bias: Float[Tensor, "b heads t 1"],
    offered: Float[Tensor, "b heads t c"],
) -> Float[Tensor, "b n c"]:
    """Add to cells what tokens offer, weighted in every head by how they fit where it is seen."""
    if _has_own(cells):
        return _applied(_TakeOver, cells, seen, queries, bias, offered)
    weights = weights_over_tokens(_scores(queries, bias, seen))
    return torch.baddbmm(cells, weights.flatten(1, 2).transpose(1, 2), offered.flatten(1, 2))


class _TakeOver(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, cells: Tensor, seen: Tensor, queries: Tensor, bias: Tensor, offered: Tensor
    ) -> Tensor:
        weights = weights_over_tokens(_scores(queries, bias, seen))
        ctx.save_for_backward(seen, queries, offered, weights)
        return torch.baddbmm(cells, weights.flatten(1, 2).transpose(1, 2), offered.flatten(1, 2))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, Tensor, Tensor, Tensor]:
        seen, queries, offered, weights = ctx.saved_tensors
        of_weights = _times(offered.flatten(1, 2), grad).view_as(weights)
        scores = _through_softmax(of_weights, weights, 2)
        rows = scores.flatten(1, 2)
        of_cells = torch.baddbmm(grad, rows.transpose(1, 2), queries.flatten(1, 2))
        of_queries = (rows @ seen).view_as(queries)
        of_offered = (weights.flatten(1, 2) @ grad).view_as(offered)
        return of_cells, None, of_queries, scores.sum(-1, keepdim=True), of_offered


def weights_over_tokens(scores: Float[Tensor, "b heads t n"]) -> Float[Tensor, "b heads t n"]:
    """Turn scores into weights that sum to 1 over the tokens of every head.

    Cells last: the softmax over a handful of tokens then works on whole vectors of cells.
    """
    return torch.softmax(scores, dim=2)


def _scores(
    queries: Float[Tensor, "b heads t c"],
    bias: Float[Tensor, "b heads t 1"],
    seen: Float[Tensor, "b n c"],
) -> Float[Tensor, "b heads t n"]:
    rows = torch.baddbmm(bias.flatten(1, 2), queries.flatten(1, 2), seen.transpose(1, 2))
    return rows.view(*queries.shape[:3], -1)


def grown(
    rows: Float[Tensor, "n c"], weights: Float[Tensor, "2 c e"], bias: Float[Tensor, "e"]
) -> Iterable[Float[Tensor, "n e"]]:
    """Multiply rows by one matrix and by the other, and add a bias."""
    if _has_own(rows):
        made: tuple[Tensor, Tensor] = _Grow.apply(rows, weights, bias)  # type: ignore[no-untyped-call]
        return made
    return (torch.addmm(bias, rows, weight) for weight in weights)


class _Grow(torch.autograd.Function):
    """The weight is laid out anew for the way back, which takes two thirds of the time then."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weights: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(rows, weights)
        return torch.addmm(bias, rows, weights[0]), torch.addmm(bias, rows, weights[1])

    @staticmethod
    def backward(ctx: Any, one: Tensor, two: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows, weights = ctx.saved_tensors
        back = weights.transpose(1, 2).contiguous()
        of_rows = (one @ back[0]).addmm_(two, back[1])
        of_weights = torch.stack([rows.t() @ one, rows.t() @ two])
        return of_rows, of_weights, one.sum(0) + two.sum(0)


def filtered(
    filters: Float[Tensor, "b m c"], pixels: Float[Tensor, "b n c"]
) -> Float[Tensor, "b m n"]:
    """Apply filters to the channels of pixels."""
    if _has_own(pixels):
        return _applied(_Filter, filters, pixels)
    return _times(filters, pixels)


class _Filter(torch.autograd.Function):
    """Gradients of pixels come with their channels last, as pixels are."""

    @staticmethod
    def forward(ctx: Any, filters: Tensor, pixels: Tensor) -> Tensor:
        ctx.save_for_backward(filters, pixels)
        return _times(filters, pixels)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        filters, pixels = ctx.saved_tensors
        return grad @ pixels, grad.transpose(1, 2) @ filters


def _times(few: Float[Tensor, "b m c"], many: Float[Tensor, "b n c"]) -> Float[Tensor, "b m n"]:
    """Multiply a few rows with many, channel by channel."""
    return few @ many.transpose(1, 2)


def _through_softmax(grad: Tensor, weights: Tensor, axis: int) -> Tensor:
    """Bring gradients of weights to the scores that they were made of."""
    found: Tensor = torch.ops.aten._softmax_backward_data(grad, weights, axis, weights.dtype)
    return found
