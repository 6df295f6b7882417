"""What a fine-tuning is: its method, prompts, optimiser and splits, as one value."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from promptseg.errors import DataError
from promptseg.jitter import Jitter, parse_jitter
from promptseg.model import Selection
from promptseg.prompt import PromptKind
from promptseg.sample import Unit
from promptseg.trainable import Part, Tokens

Method = Literal["decoder", "lora", "both", "full"]
Asking = Literal["box", "points", "mixed", "clicks"]
Augmentation = Literal["none", "flips", "dihedral", "full"]
Precision = Literal["no", "bf16"]
CacheType = Literal["float16", "float32"]

# names of linear layers, as LiteMedSAM has them; of its last two stages, which cost least
LORA_TARGETS = r"image_encoder\.layers\.[23]\..*\.(qkv|proj|fc1|fc2)"
OF_BOXES = parse_jitter("edge:rel:0-0.1")
KINDS: Mapping[Asking, frozenset[PromptKind]] = {
    "box": frozenset({"box"}),
    "points": frozenset({"points"}),
    "mixed": frozenset({"box", "points", "box+points"}),
    "clicks": frozenset({"box", "points", "box+points"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a model is fine-tuned. The defaults are, but for `min_steps`, the preset `promptseg`.

    A step takes `batch_size` images, each with at most `max_targets` targets, and every target with
    one prompt; `clicks` corrects some of them, up to `rounds` times. An image weighs the same
    whatever the number of its targets, so that the sum over several processes is that of one.

    Raises ValueError on settings that do not go together.
    """

    method: Method = "decoder"
    prompts: Asking = "box"
    jitter: Jitter | None = OF_BOXES  # half of the boxes are moved by it
    tokens: Tokens = "both"
    score: Selection = "single"  # the deployable selection by which the best state is chosen
    prompt_encoder: bool = False  # train the embeddings of points and corners as well
    lora_rank: int = 8
    lora_alpha: float = 16.0
    lora_targets: str = LORA_TARGETS
    epochs: int = 20
    min_steps: int = 0  # few images are trained on for more epochs, until there are so many steps
    val_every: int = 1  # epochs between two validations; the last one is always validated
    learning_rate: float = 3e-4
    schedule: Literal["constant", "cosine"] = "cosine"
    weight_decay: float = 0.01
    clip_norm: float | None = 1.0
    batch_size: int = 2
    max_targets: int = 8
    rounds: int = 2
    iou_weight: float = 1.0
    augmentation: Augmentation = "dihedral"
    cached: bool = True  # keep what the frozen stages give
    cache_dtype: CacheType = "float16"
    unit: Unit = "class"
    where: str | None = None  # what is trained on; the held-out subjects are scored on all
    precision: Precision = "no"
    overfit_steps: int = 30  # of the check that one batch can be overfitted; 0 leaves it out
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that do not go together."""
        counts = (
            self.epochs,
            self.val_every,
            self.batch_size,
            self.max_targets,
            self.rounds,
            self.lora_rank,
        )
        if min(counts) < 1 or min(self.overfit_steps, self.min_steps) < 0:
            raise ValueError("epochs, batch size, targets, rounds and rank are at least 1")
        if not 0 < self.learning_rate < 1:
            raise ValueError("a learning rate lies between 0 and 1")
        if self.cached and self.augmentation == "full":
            raise ValueError(
                "the full augmentation changes pixels anew at every step, which no cache can hold: "
                "leave the cache out, or augment by flips or dihedral"
            )
        if self.cached and self.method == "full":
            raise ValueError("a full fine-tuning trains all stages: nothing can be cached")
        if self.score == "oracle":
            raise ValueError("the oracle looks at the answer: choose by single or predicted")
        needed: Tokens = "single" if self.score == "single" else "multimask"
        if self.tokens not in (needed, "both"):
            raise ValueError(f"the {self.score} score needs the {needed} tokens trained")
        if self.score == "predicted" and self.iou_weight <= 0:
            raise ValueError("the predicted selection needs the predicted IoU trained")

    @property
    def parts(self) -> tuple[Part, ...]:
        """List the parts of the network of which parameters are trained as they are."""
        parts: list[Part] = []
        if self.method == "full":
            parts.append("encoder")
        if self.method != "lora":
            parts.append("decoder")
        if self.prompt_encoder:
            parts.append("prompt_encoder")
        return tuple(parts)

    @property
    def uses_lora(self) -> bool:
        """Tell whether adapters are put into the encoder."""
        return self.method in ("lora", "both")

    @property
    def kinds(self) -> frozenset[PromptKind]:
        """List the kinds of prompts that are trained."""
        return KINDS[self.prompts]

    @property
    def selections(self) -> frozenset[Selection]:
        """List the selections that a trained model may claim."""
        found: set[Selection] = set()
        if self.tokens != "multimask":
            found.add("single")
        if self.tokens != "single":
            found.add("oracle")
            if self.iou_weight > 0:
                found.add("predicted")
        return frozenset(found)

    def stretched(self, per_epoch: int) -> "Settings":
        """Multiply the epochs, and those between validations, until the steps are enough."""
        factor = max(1, -(-self.min_steps // (self.epochs * per_epoch)))
        return replace(self, epochs=factor * self.epochs, val_every=factor * self.val_every)

    def told(self) -> dict[str, Any]:
        """Give all settings as JSON has them."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return values | {"jitter": None if self.jitter is None else str(self.jitter)}


PRESETS: Mapping[str, Settings] = {
    # chosen on other data sets than those that its gain is told of (benchmarks/RESULTS.md)
    "promptseg": Settings(min_steps=120),
    # Huang et al. 2024, section 4.12; the optimiser is that of the released trainer, which trains
    # the single-mask token, neither jitters nor augments, and leaves the predicted IoU alone
    "paper": Settings(
        jitter=None,
        tokens="single",
        learning_rate=1e-4,
        schedule="constant",
        clip_norm=None,
        iou_weight=0.0,
        augmentation="none",
    ),
}


# what a setting needs to have any effect
NEEDED: Mapping[str, tuple[str, Callable[[Settings], bool]]] = {
    "rounds": ("--prompts clicks", lambda s: s.prompts == "clicks"),
    "jitter": ("prompts with boxes", lambda s: "box" in s.kinds),
    "lora_rank": ("--method lora or both", lambda s: s.uses_lora),
    "lora_alpha": ("--method lora or both", lambda s: s.uses_lora),
    "lora_targets": ("--method lora or both", lambda s: s.uses_lora),
    "cache_dtype": ("a cache", lambda s: s.cached),
}


def changed(settings: Settings, **given: Any) -> Settings:
    """Replace what was given (not None); epochs that are given are not multiplied.

    Raises DataError where settings do not go together, or one that was given has no effect.
    """
    asked = {name: value for name, value in given.items() if value is not None}
    if "epochs" in asked:
        asked.setdefault("min_steps", 0)
    try:
        found = replace(settings, **asked)
    except ValueError as error:
        raise DataError(f"These settings do not go together: {error}.") from error
    for name, (needs, holds) in NEEDED.items():
        if name in asked and not holds(found):
            raise DataError(f"--{name.replace('_', '-')} does nothing without {needs}.")
    return found
