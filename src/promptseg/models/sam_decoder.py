"""SAM's prompt encoder and mask decoder from transformers, decoded to every token in one pass.

transformers' own forward keeps either the single-mask token or the multimask tokens. We need both
of one pass, so the last steps of the forward stand here, over its modules and weights.
Source: Kirillov et al. 2023, Segment Anything, doi:10.1109/ICCV51070.2023.00371, appendix A.
"""

import re
from collections.abc import Mapping
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import SamConfig, SamMaskDecoderConfig, SamPromptEncoderConfig, SamVisionConfig
from transformers.models.sam.modeling_sam import SamMaskDecoder, SamPromptEncoder

# keys of SAM's original checkpoints -> names in transformers
RENAMED = (
    (r"^prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix$",
     "prompt_encoder.shared_embedding.positional_embedding"),
    (r"\.point_embeddings\.", ".point_embed."),
    (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
    (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
    (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
    (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
    (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
    (r"\.output_upscaling\.0\.", ".upscale_conv1."),
    (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
    (r"\.output_upscaling\.3\.", ".upscale_conv2."),
    (r"\.norm(\d)\.", r".layer_norm\1."),
    (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
    (r"(iou_prediction_head|output_hypernetworks_mlps\.\d)\.layers\.0\.", r"\1.proj_in."),
    (r"(iou_prediction_head|output_hypernetworks_mlps\.\d)\.layers\.1\.", r"\1.layers.0."),
    (r"(iou_prediction_head|output_hypernetworks_mlps\.\d)\.layers\.2\.", r"\1.proj_out."),
)  # fmt: skip


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the keys of an original SAM decoder and prompt encoder the names of transformers."""
    names = {}
    for key, value in state.items():
        name = key
        for pattern, replacement in RENAMED:
            name = re.sub(pattern, replacement, name)
        names[name] = value
    return names


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

    def image_positions(self) -> Float[Tensor, "1 256 s s"]:
        """Encode the position of every cell of the embedding."""
        positions = self.prompt_encoder.shared_embedding
        side = self.embedding_px
        centre = (torch.arange(side, device=positions.positional_embedding.device) + 0.5) / side
        y, x = torch.meshgrid(centre, centre, indexing="ij")
        return cast(Tensor, positions(torch.stack([x, y], dim=-1)).permute(2, 0, 1)[None])

    def forward(
        self,
        embedding: Float[Tensor, "1 256 s s"],
        points_xy: Float[Tensor, "b n 2"] | None,
        labels: Int[Tensor, "b n"] | None,
        boxes: Float[Tensor, "b 4"] | None,
    ) -> tuple[Float[Tensor, "b 4 h w"], Float[Tensor, "b 4"]]:
        """Decode b prompts of one image to logits and predicted IoU of all four mask tokens."""
        sparse, dense = self.prompt_encoder(
            None if points_xy is None else points_xy[None],
            None if labels is None else labels[None],
            None if boxes is None else boxes[None],
            None,
        )
        return self._decode(embedding + dense, sparse)

    def _decode(self, image: Tensor, sparse: Tensor) -> tuple[Tensor, Tensor]:
        decoder: Any = self.mask_decoder
        count = sparse.shape[1]
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = torch.cat([own.expand(1, count, -1, -1), sparse], dim=2)
        tokens, cells = decoder.transformer(
            point_embeddings=tokens,
            image_embeddings=image.expand(count, -1, -1, -1),
            image_positional_embeddings=self.image_positions().expand(count, -1, -1, -1),
            attention_similarity=None,
        )
        side = self.embedding_px
        pixels = cells.transpose(2, 3).reshape(count, -1, side, side)
        pixels = decoder.activation(decoder.upscale_layer_norm(decoder.upscale_conv1(pixels)))
        pixels = decoder.activation(decoder.upscale_conv2(pixels))
        filters = torch.stack(
            [
                mlp(tokens[0, :, 1 + index])
                for index, mlp in enumerate(decoder.output_hypernetworks_mlps)
            ],
            dim=1,
        )
        logits = (filters @ pixels.flatten(2)).unflatten(2, pixels.shape[2:])
        return logits, decoder.iou_prediction_head(tokens[0, :, 0])
