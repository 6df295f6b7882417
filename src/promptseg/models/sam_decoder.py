"""SAM's prompt encoder and mask decoder from transformers, decoded to every token in one pass.

The forward is ours, over transformers' modules and weights. Theirs keeps either the single-mask
token or the multimask tokens, and we need both of one pass. Ours also computes once per image
what no prompt changes, and never projects the thousands of cells where it can project the few
tokens instead: 1.7 GFLOP a prompt instead of 3.6.
Source: Kirillov et al. 2023, Segment Anything, doi:10.1109/ICCV51070.2023.00371, appendix A.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import SamConfig, SamMaskDecoderConfig, SamPromptEncoderConfig, SamVisionConfig
from transformers.models.sam.modeling_sam import SamMaskDecoder, SamPromptEncoder

from promptseg.models.sam_gradients import (
    filtered,
    grown,
    looked,
    looked_last,
    seen_at,
    taken_over,
    weights_over_tokens,
)

HEADS = 8  # of every attention layer of the decoder
N_MASKS = 4  # tokens: the single-mask one, and three multimask ones
# parts of keys in SAM's original checkpoints -> in transformers; # is a digit, the first that fits
# counts, in either direction
RENAMED = (
    ("prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
     "prompt_encoder.shared_embedding.positional_embedding"),
    (".point_embeddings.", ".point_embed."),
    (".mask_downscaling.0.", ".mask_embed.conv1."),
    (".mask_downscaling.1.", ".mask_embed.layer_norm1."),
    (".mask_downscaling.3.", ".mask_embed.conv2."),
    (".mask_downscaling.4.", ".mask_embed.layer_norm2."),
    (".mask_downscaling.6.", ".mask_embed.conv3."),
    (".output_upscaling.0.", ".upscale_conv1."),
    (".output_upscaling.1.", ".upscale_layer_norm."),
    (".output_upscaling.3.", ".upscale_conv2."),
    (".norm#.", ".layer_norm#."),
    (".norm_final_attn.", ".layer_norm_final_attn."),
    ("iou_prediction_head.layers.0.", "iou_prediction_head.proj_in."),
    ("iou_prediction_head.layers.1.", "iou_prediction_head.layers.0."),
    ("iou_prediction_head.layers.2.", "iou_prediction_head.proj_out."),
    ("output_hypernetworks_mlps.#.layers.0.", "output_hypernetworks_mlps.#.proj_in."),
    ("output_hypernetworks_mlps.#.layers.1.", "output_hypernetworks_mlps.#.layers.0."),
    ("output_hypernetworks_mlps.#.layers.2.", "output_hypernetworks_mlps.#.proj_out."),
)  # fmt: skip


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the keys of an original SAM decoder and prompt encoder the names of transformers."""
    return _translated(state, RENAMED)


def originally_named(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give what has the names of transformers the keys of SAM's checkpoints: undo `renamed`."""
    return _translated(state, [(name, key) for key, name in RENAMED])


def _translated(state: Mapping[str, Tensor], pairs: Iterable[tuple[str, str]]) -> dict[str, Tensor]:
    patterns = [
        (re.compile(re.escape(old).replace(r"\#", r"(\d)")), new.replace("#", r"\1"))
        for old, new in pairs
    ]
    names = {}
    for name, value in state.items():
        fitting = (new for new, n in (p.subn(to, name) for p, to in patterns) if n)
        names[next(fitting, name)] = value
    return names


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What of an image's decoding does not depend on the prompt: once per image, not per prompt.

    Cells are the places of the embedding, row by row; the first attention layers of the decoder
    see them before any prompt has changed them.
    """

    cells: Float[Tensor, "1 n c"]  # the embedding, with SAM's prompt for "no mask"
    positions: Float[Tensor, "1 n c"]  # their position encoding
    key: Float[Tensor, "1 heads n d"]  # of tokens that look at the image
    value: Float[Tensor, "1 heads n d"]
    query: Float[Tensor, "1 heads n d"]  # of the image that looks at tokens
    doubling: tuple[Float[Tensor, "2 c e2"], Float[Tensor, "2 f l2"]]  # upscaling, by row
    shown: tuple[int, int]  # rows and columns of cells that are enlarged: logits are 0 beyond


class SamHead(nn.Module):
    """Prompt encoder and mask decoder for embeddings of one size."""

    def __init__(self, image_px: int, embedding_px: int):
        super().__init__()
        prompt = SamPromptEncoderConfig(image_size=image_px, patch_size=image_px // embedding_px)
        # SAM's published code normalises with PyTorch's default epsilon; transformers' own default
        # is 1e-6, which moves LiteMedSAM's logits by up to 0.03. Built alone, the decoder has no
        # attention implementation: SamModel would have set one.
        decoder = SamMaskDecoderConfig(layer_norm_eps=1e-5)
        decoder._attn_implementation = "sdpa"
        config = SamConfig(
            vision_config=SamVisionConfig().to_dict(),
            prompt_encoder_config=prompt.to_dict(),
            mask_decoder_config=decoder.to_dict(),
        )
        self.embedding_px = embedding_px
        self.prompt_encoder = SamPromptEncoder(config)
        self.mask_decoder = SamMaskDecoder(decoder)
        self._placed: tuple[Tensor, Tensor] | None = None  # a matrix, and positions made by it

    def image_positions(self) -> Float[Tensor, "1 256 s s"]:
        """Encode the position of every cell of the embedding."""
        positions = self.prompt_encoder.shared_embedding
        side = self.embedding_px
        centre = (torch.arange(side, device=positions.positional_embedding.device) + 0.5) / side
        y, x = torch.meshgrid(centre, centre, indexing="ij")
        return cast(Tensor, positions(torch.stack([x, y], dim=-1)).permute(2, 0, 1)[None])

    def _positions_by_cell(self) -> Float[Tensor, "1 n c"]:
        """Give the same, row by row; made once, since the matrix behind them is never trained."""
        matrix = self.prompt_encoder.shared_embedding.positional_embedding
        if self._placed:
            by, positions = self._placed
            alike = (by.device, by.dtype) == (matrix.device, matrix.dtype)
            if alike and torch.equal(by, matrix):
                return positions
        # gradients may be recorded later, and types mixed now
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            torch.autocast(matrix.device.type, enabled=False),
        ):
            positions = self.image_positions().flatten(2).transpose(1, 2).contiguous()
            self._placed = matrix.detach().clone(), positions
        return positions

    def prepare(
        self, embedding: Float[Tensor, "1 256 s s"], shown: tuple[int, int] | None = None
    ) -> Prepared:
        """Compute what all prompts of an image share; only cells that are shown become logits."""
        no_mask = self.prompt_encoder.no_mask_embed.weight[:, :, None, None]
        cells = (embedding + no_mask).flatten(2).transpose(1, 2).contiguous()
        positions = self._positions_by_cell()
        layer: Any = self.mask_decoder.transformer.layers[0]
        seen, by_tokens = cells + positions, layer.cross_attn_token_to_image
        upscaling = (self.mask_decoder.upscale_conv1, self.mask_decoder.upscale_conv2)
        one, two = (up.weight.permute(2, 0, 3, 1).flatten(2) for up in upscaling)
        return Prepared(
            cells,
            positions,
            split(by_tokens.k_proj(seen)).contiguous(),
            split(by_tokens.v_proj(cells)).contiguous(),
            split(layer.cross_attn_image_to_token.q_proj(seen)).contiguous(),
            (one, two),
            shown or (self.embedding_px, self.embedding_px),
        )

    def forward(
        self,
        image: Prepared,
        points_xy: Float[Tensor, "b n 2"] | None,
        labels: Int[Tensor, "b n"] | None,
        boxes: Float[Tensor, "b 4"] | None,
    ) -> tuple[Float[Tensor, "b 4 h w"], Float[Tensor, "b 4"]]:
        """Decode b prompts of one image to logits and predicted IoU of all four mask tokens."""
        return self.answer(image, self.encoded(points_xy, labels, boxes))

    def encoded(
        self,
        points_xy: Float[Tensor, "b n 2"] | None,
        labels: Int[Tensor, "b n"] | None,
        boxes: Float[Tensor, "b 4"] | None,
    ) -> Float[Tensor, "1 b t c"]:
        """Encode b prompts to their tokens."""
        kind = next(self.parameters()).device.type
        with torch.autocast(kind, enabled=False):  # else positions are rounded to 8 bits
            sparse, _ = self.prompt_encoder(
                None if points_xy is None else points_xy[None],
                None if labels is None else labels[None],
                None if boxes is None else boxes[None],
                None,
            )
        return cast(Tensor, sparse)

    def answer(
        self, image: Prepared, sparse: Float[Tensor, "1 b t c"], n_masks: int = N_MASKS
    ) -> tuple[Float[Tensor, "b k h w"], Float[Tensor, "b k"]]:
        """Decode prompts that are encoded; give the first mask tokens, the single-mask one first.

        What is not given is not computed, where it begins to be computed apart.
        """
        decoder: Any = self.mask_decoder
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        asked = torch.cat([own.expand(sparse.shape[1], -1, -1), sparse[0]], dim=1)
        tokens, cells = two_way(decoder.transformer, asked, image, 1 + n_masks)
        networks = list(decoder.output_hypernetworks_mlps)[:n_masks]
        filters = torch.stack([mlp(tokens[:, 1 + i]) for i, mlp in enumerate(networks)], dim=1)
        logits = upscaled(decoder, cells, filters, image)
        return logits, decoder.iou_prediction_head(tokens[:, 0])[:, :n_masks]


def two_way(
    transformer: Any, asked: Float[Tensor, "b t c"], image: Prepared, n_read: int
) -> tuple[Float[Tensor, "b read c"], Float[Tensor, "r c"]]:
    """Let tokens and cells look at each other in turn; give the first tokens, and cells shown."""
    first, second = transformer.layers
    tokens = first.layer_norm1(_among_tokens(first.self_attn, asked, asked))
    look = first.cross_attn_token_to_image
    found = F.scaled_dot_product_attention(
        split(look.q_proj(tokens + asked)), image.key, image.value, scale=look.scaling
    )
    tokens = first.layer_norm2(tokens + look.out_proj(found.transpose(1, 2).flatten(2)))
    tokens = first.layer_norm3(tokens + first.mlp(tokens))
    look = first.cross_attn_image_to_token
    keys = split(look.k_proj(tokens + asked) * look.scaling)
    weights = weights_over_tokens(keys @ image.query.transpose(2, 3)).flatten(1, 2)
    whole, offered = image.cells.expand(len(asked), -1, -1), _offered(look, tokens).flatten(1, 2)
    cells = first.layer_norm4(torch.baddbmm(whole, weights.transpose(1, 2), offered))

    seen, query = seen_at(cells, image.positions), tokens + asked
    tokens = second.layer_norm1(tokens + _among_tokens(second.self_attn, query, tokens))
    look = second.cross_attn_token_to_image
    mean = looked(_wanted(look, tokens + asked, cells.shape[2]), cells, seen)
    tokens = second.layer_norm2(tokens + _found(look, mean))
    tokens = second.layer_norm3(tokens + second.mlp(tokens))
    look = second.cross_attn_image_to_token
    cells = second.layer_norm4(_to_image(look, cells, seen, (tokens + asked, tokens)))

    look, seen = transformer.final_attn_token_to_image, seen_at(cells, image.positions)
    tokens, asked = tokens[:, :n_read], asked[:, :n_read]  # others have done their part
    keys = _wanted(look, tokens + asked, cells.shape[2])
    mean, cells = looked_last(keys, cells, seen, image.shown)
    found = _found(look, mean)
    return cast(Tensor, transformer.layer_norm_final_attn(tokens + found)), cells


def split(rows: Float[Tensor, "b n c"]) -> Float[Tensor, "b heads n d"]:
    """Divide channels among the attention heads."""
    batch, count, _ = rows.shape
    return rows.reshape(batch, count, HEADS, -1).transpose(1, 2)


def _among_tokens(
    attention: Any, query: Float[Tensor, "b t c"], value: Float[Tensor, "b t c"]
) -> Float[Tensor, "b t c"]:
    return cast(Tensor, attention(query=query[None], key=query[None], value=value[None])[0][0])


def _wanted(attention: Any, query: Float[Tensor, "b t c"], channels: int) -> Float[Tensor, "b r c"]:
    """Bring what tokens look for to the channels of cells, so that no cell is projected.

    (W_k x) q = x (W_k' q); the bias of keys moves all scores of a token alike and drops out.
    """
    scaled = split(attention.q_proj(query) * attention.scaling)
    weight = attention.k_proj.weight.view(HEADS, -1, channels)
    return torch.einsum("bhtd,hdc->bhtc", scaled, weight).flatten(1, 2)


def _found(attention: Any, mean: Float[Tensor, "b r c"]) -> Float[Tensor, "b t c"]:
    """Project what tokens found: weights sum to 1, so that it may be done after the mean."""
    batch, rows, channels = mean.shape
    weight = attention.v_proj.weight.view(HEADS, -1, channels)
    mean = mean.view(batch, HEADS, rows // HEADS, channels)
    values = torch.einsum("bhtc,hdc->bthd", mean, weight)
    return cast(Tensor, attention.out_proj(values.flatten(2) + attention.v_proj.bias))


def _to_image(
    attention: Any,
    cells: Float[Tensor, "b n c"],
    seen: Float[Tensor, "b n c"],
    tokens: tuple[Float[Tensor, "b t c"], Float[Tensor, "b t c"]],
) -> Float[Tensor, "b n c"]:
    """Let cells look at tokens (as keys, and as values), and add what they find; as above."""
    keys, values = tokens
    scaled = split(attention.k_proj(keys) * attention.scaling)
    weight = attention.q_proj.weight.view(HEADS, -1, cells.shape[2])
    queries = torch.einsum("bhtd,hdc->bhtc", scaled, weight)
    bias = scaled @ attention.q_proj.bias.view(HEADS, -1, 1)
    return taken_over(cells, seen, queries, bias, _offered(attention, values))


def _offered(attention: Any, tokens: Float[Tensor, "b t c"]) -> Float[Tensor, "b heads t c"]:
    """Project values of tokens to what cells take over, a row per head and token.

    Weights sum to 1 in every head, so that the bias may lie on the rows of one.
    """
    values = split(attention.v_proj(tokens))
    weight = attention.out_proj.weight.view(tokens.shape[2], HEADS, -1)
    rows = torch.einsum("bhtd,chd->bhtc", values, weight)
    once = torch.zeros(HEADS, device=rows.device, dtype=rows.dtype)
    once[0] = 1
    return cast(Tensor, rows + once[:, None, None] * attention.out_proj.bias)


def upscaled(
    decoder: Any,
    cells: Float[Tensor, "r c"],
    filters: Float[Tensor, "b m k"],
    image: Prepared,
) -> Float[Tensor, "b m h w"]:
    """Enlarge cells four times by two transposed convolutions, and apply the filters.

    Of stride and size 2, they are products of matrices: channels stay last. The upper and the lower
    pixels of a cell are computed apart, so that logits come out in whole rows of the image.
    """
    norm = decoder.upscale_layer_norm
    biases = (decoder.upscale_conv1.bias.repeat(2), decoder.upscale_conv2.bias.repeat(2))
    side, channels = math.isqrt(image.cells.shape[1]), norm.weight.shape[0]
    height, width = image.shown
    rows = list[Tensor]()
    for half in grown(cells, image.doubling[0], biases[0]):
        fine = half.view(-1, channels)
        fine = F.gelu(F.layer_norm(fine, norm.normalized_shape, norm.weight, norm.bias, norm.eps))
        for quarter in grown(fine, image.doubling[1], biases[1]):
            finest = F.gelu(quarter).view(len(filters), -1, filters.shape[2])
            rows.append(filtered(filters, finest))
    logits = torch.stack(rows, dim=2).view(len(filters), -1, 4, height, 4 * width)
    logits = logits.transpose(2, 3).reshape(len(filters), -1, 4 * height, 4 * width)
    if image.shown != (side, side):
        logits = F.pad(logits, (0, 4 * (side - width), 0, 4 * (side - height)))
    return logits
