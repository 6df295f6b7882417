"""The plan of an evaluation: what is asked of every model, and how its answers are scored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from promptseg.errors import ModelError
from promptseg.jitter import Jitter
from promptseg.model import SELECTIONS, Segmenter, Selection
from promptseg.prompt import Everything
from promptseg.sample import Unit
from promptseg.strategy import MASKS, Strategy

SaveMasks = Literal["none", "selected", "all"]
# Everything has no single-mask token, and no rule that a user could apply: PROTOCOL decision 5
OF_EVERYTHING: tuple[Selection, ...] = ("oracle", "predicted")


@dataclass(frozen=True, slots=True)
class Question:
    """One way in which every target is asked for."""

    strategy: Strategy
    jitter: Jitter | None
    seed: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of every model, and how its answers are scored.

    `workers` and, on a CPU, `batch_size` are matters of speed and memory alone. Raises ValueError
    where the parts do not go together.
    """

    strategies: tuple[Strategy, ...]
    selections: tuple[Selection, ...] = SELECTIONS
    unit: Unit = "class"
    seeds: tuple[int, ...] = (0,)  # of all that is random; without jitter the first alone counts
    jitter: tuple[Jitter, ...] = ()  # in addition to the prompts as they are
    everything: Mapping[str, Everything] = field(default_factory=dict)  # model -> its settings
    max_targets: int | None = None  # per image, drawn by the first seed
    nsd_tolerance: float = 2.0
    save_masks: SaveMasks = "selected"
    batch_size: int = 64  # prompts of one strategy that are decoded, and scored, at a time at most
    workers: int = 1  # threads that score while the model goes on

    def __post_init__(self) -> None:
        """Refuse what would give a record twice, or never."""
        if len({strategy.protocol for strategy in self.strategies}) != 1:
            raise ValueError("a plan needs strategies, all of one protocol")
        for name in ("strategies", "seeds", "jitter"):
            values: Sequence[Any] = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"one of the {name} is there twice")
        if not self.seeds or self.batch_size < 1 or self.workers < 1:
            raise ValueError("a plan needs a seed, a batch size and a worker")
        if len(self.seeds) > 1 and not self.jitter:
            raise ValueError("several seeds need a jitter: without it nothing is drawn anew")
        for jitter in self.jitter:
            if not any(jitter.moves(strategy.prompt_kind) for strategy in self.strategies):
                raise ValueError(
                    f"jitter {jitter} moves nothing of the strategies asked for: centre and all "
                    "move points, shift and edge boxes"
                )

    @property
    def protocol(self) -> str:
        """Name the protocol of the strategies."""
        return self.strategies[0].protocol

    def questions(self, strategy: Strategy) -> list[Question]:
        """List the ways in which a strategy asks: as it is, then with every jitter and seed."""
        moved = [jitter for jitter in self.jitter if jitter.moves(strategy.prompt_kind)]
        return [
            Question(strategy, None, self.seeds[0]),
            *(Question(strategy, jitter, seed) for jitter in moved for seed in self.seeds),
        ]

    def selections_of(self, strategy: Strategy) -> tuple[Selection, ...]:
        """List the selections under which a strategy is scored."""
        if strategy.prompt_kind != "everything":
            return self.selections
        return tuple(name for name in self.selections if name in OF_EVERYTHING)

    def everything_of(self, model: Segmenter[Any]) -> Everything:
        """Give the settings of everything for a model: the plan's, the model's own, or SAM's.

        Raises ModelError when the model's own are none.
        """
        if model.name in self.everything:
            return self.everything[model.name]
        return own_everything(model)


def own_everything(model: Segmenter[Any]) -> Everything:
    """Give a model's own settings of everything, or SAM's; raises ModelError when they are none."""
    own = getattr(model, "everything", Everything())
    if not isinstance(own, Everything):
        raise ModelError(
            f"{model.name} has an attribute `everything` that is no promptseg.Everything: give it "
            "one with its thresholds, or another name to the attribute."
        )
    return own


def plan_of_masks(plan: Plan) -> Plan:
    """Change a plan so that it scores masks that are there, without prompts and candidates.

    By class an object has one predicted mask: `single`. By instance or component the one of the
    best DICE counts, which is `oracle`.
    """
    selection: Selection = "single" if plan.unit == "class" else "oracle"
    return replace(
        plan,
        strategies=(MASKS,),
        selections=(selection,),
        seeds=plan.seeds[:1],
        jitter=(),
        everything={},
    )
