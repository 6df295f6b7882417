"""How good a state is: the deployable DICE of what will be tested, by the path of evaluation."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from promptseg.errors import ModelError
from promptseg.metric import dice
from promptseg.model import masks_at
from promptseg.selection import choose
from promptseg.strategy import STRATEGIES, Strategy
from promptseg.trainable import Trainable
from promptseg.tuning.items import Item, Source
from promptseg.tuning.settings import Asking, Settings

TESTED: Mapping[Asking, tuple[str, ...]] = {
    "box": ("box",),
    "points": ("point1", "points5", "points5+5"),
    "mixed": ("point1", "points5", "box"),
    "clicks": ("point1", "points5+5", "box"),
}


@dataclass(frozen=True, slots=True)
class Score:
    """The mean over tasks of task means, each over subjects; and the task means."""

    dice: float
    tasks: Mapping[str, float]


Value = tuple[str, tuple[str, str], str, float]  # task, owner, image, DICE


def tested_strategies(settings: Settings) -> list[Strategy]:
    """List the strategies by which a training is judged."""
    return [STRATEGIES[name] for name in TESTED[settings.prompts]]


def validate(
    model: Trainable, items: Sequence[Item], source: Source, settings: Settings, accelerator: Any
) -> Score:
    """Score a model on items, shared among the processes.

    Raises
    ------
    ModelError
        Another process could not score its share. What this one could not is raised as it is.
    """
    from accelerate.utils import gather_object

    here, of = accelerator.process_index, accelerator.num_processes
    found: list[Value] = []
    stopped: Exception | None = None
    try:
        for item in items[here::of]:
            found += _values(model, item, source, settings, accelerator.device)
    except (RuntimeError, MemoryError) as error:
        if of == 1:
            raise
        stopped = error.with_traceback(None)  # others wait for what was found
    if of == 1:
        return averaged(found)
    shares = gather_object([(found, stopped is not None)])
    if stopped is not None:
        raise stopped
    if any(has_stopped for _, has_stopped in shares):
        raise ModelError("Another process stopped while it scored its share of a state.")
    return averaged([value for own, _ in shares for value in own])


def _values(
    model: Trainable, item: Item, source: Source, settings: Settings, device: Any
) -> Iterable[Value]:
    with torch.no_grad():
        maps = source.features(item, 0, device)
        features = model.encode(maps, source.frozen.cut, len(model.stages))
    embedding = model.embedding(features, item.image_hw)
    for strategy in tested_strategies(settings):
        assert strategy.make is not None
        for goal in item.goals:
            mask = goal.mask()
            try:
                prompt = strategy.make(mask)
            except ValueError:  # it has no such prompt: of the evaluation it fails as well
                continue
            (candidates,) = model.segment(embedding, [prompt])
            masks = masks_at(candidates, item.image_hw)
            scores = [dice(one, mask) for one in masks]
            index = choose(candidates, settings.score, scores)
            assert index is not None
            yield goal.task, item.owner, item.image_id, scores[index]


def averaged(values: Iterable[Value]) -> Score:
    """Average target -> image -> subject -> task -> tasks, every arrow a plain mean."""
    nested: dict[str, dict[Any, dict[str, list[float]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for task, owner, image_id, value in values:
        nested[task][owner][image_id].append(value)
    tasks = {
        task: _mean(
            _mean(_mean(values) for values in images.values()) for images in owners.values()
        )
        for task, owners in sorted(nested.items())
    }
    return Score(_mean(tasks.values()), tasks)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
