"""The seam to a model that can be trained: its parameters by name, its encoder stage by stage."""

from collections.abc import Sequence, Set
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from promptseg.model import Canvas, Training
from promptseg.prompt import Prompt, PromptKind

if TYPE_CHECKING:
    from torch import Tensor, nn

Part = Literal["encoder", "prompt_encoder", "decoder"]
Tokens = Literal["single", "multimask", "both"]


@runtime_checkable
class Trainable(Protocol):
    """A Segmenter whose parts can be trained.

    Beside what a Segmenter has, it shows its network; the stages of its encoder, which run one
    after the other, so that what is frozen before the first trained stage is computed once; and a
    decoder that gradients pass through. Normalisation layers keep their statistics: batches are
    too small to learn them.
    """

    name: str
    weights_hash: str
    training: Training
    network: "nn.Module"  # training brings it to its own device
    stages: tuple[str, ...]  # names of the encoder's submodules, in the order in which they run
    tokens: tuple[int, ...]  # the single-mask token first, then the multimask tokens

    def parameters_of(self, part: Part, tokens: Tokens, kinds: Set[PromptKind]) -> list[str]:
        """List the parameters of a part that have an effect on those tokens and prompts."""
        ...

    def canvas(self, image_hw: tuple[int, int]) -> Canvas:
        """Tell where on its canvas the model sees an image of this size."""
        ...

    def pixels(self, image: UInt8[np.ndarray, "h w 3"]) -> "Float[Tensor, '1 c s s']":
        """Bring an image to the input of the first stage, on the model's device."""
        ...

    def encode(self, maps: "Float[Tensor, '1 c h w']", start: int, stop: int) -> Any:
        """Run the stages `start` to `stop` (excluded) on the output of the stage before."""
        ...

    def decode(
        self,
        features: "Float[Tensor, '1 c h w']",
        image_hw: tuple[int, int],
        prompts: Sequence[Sequence[Prompt]],
        tokens: Tokens = "both",
    ) -> "list[tuple[Float[Tensor, 'b k h w'], Float[Tensor, 'b k']]]":
        """Decode groups of prompts of one image, those of a group alike in shape, with gradients.

        Gives logits on the canvas and predicted IoU of all of the model's tokens, in their order;
        where `tokens` asks for the single-mask one only, that is enough.
        """
        ...

    def embedding(self, features: "Float[Tensor, '1 c h w']", image_hw: tuple[int, int]) -> Any:
        """Make what `segment` takes from the output of the last stage."""
        ...

    def embed(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> Sequence[Any]:
        """Encode images, as a Segmenter does."""
        ...

    def segment(self, embedding: Any, prompts: Sequence[Prompt]) -> Sequence[Any]:
        """Decode prompts of one image, as a Segmenter does."""
        ...
