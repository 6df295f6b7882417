"""What has to hold before a training may start: the classic silent mistakes, each with its check.

A split that leaks, a reference of another size than the model's canvas, a token trained and another
tested, a part that was to be trained and is not (or the reverse), and a trainer that cannot even
learn two images by heart.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from promptseg.contract import Check
from promptseg.metric import dice
from promptseg.model import Candidates, Canvas, logits_at
from promptseg.tuning.items import Item, Items
from promptseg.tuning.loss import on_canvas
from promptseg.tuning.network import set_values, trained_values
from promptseg.tuning.settings import Settings
from promptseg.tuning.step import Stepper, batches
from promptseg.tuning.validation import tested_strategies, validate

Mask = Bool[np.ndarray, "h w"]
LOOKED_AT = 8  # images
WORSE = 0.05  # in DICE: of a reference brought to the canvas and back, against the right canvas
SAME = 1e-3  # between logits of one prompt on two ways
FEWEST_STEPS, MOST_DRAWS = 2, 64
RATE = 1e-3  # of the overfitting, or that of the training if it is higher
LEARNED = 0.3  # share of what is missing to the best DICE that one batch by heart has to gain
NEAR = 0.03  # or how near to the best DICE it has to come


def checked(stepper: Stepper, items: Items, settings: Settings) -> Iterator[Check]:
    """Yield the checks one by one; the network is left as it was."""
    train_items = items.of_role["train"]
    yield _subjects(items)
    yield _geometry(stepper, train_items)
    yield _tokens(stepper, train_items[0])
    yield from _learning(stepper, train_items, settings)


def _subjects(items: Items) -> Check:
    owners = {role: {item.owner for item in found} for role, found in items.of_role.items()}
    both = sorted(owners["train"] & owners["val"])
    if both:
        return Check(
            "subjects", "failed", f"{'/'.join(both[0])} is trained on and chooses as well."
        )
    counts = " and ".join(f"{len(owners[role])} in {role}" for role in ("train", "val"))
    return Check("subjects", "passed", f"{counts}, none in both")


def _asked(stepper: Stepper, item: Item) -> tuple[Candidates, Tensor]:
    """Ask about the first goal of an item as evaluation does, and as training does."""
    model = stepper.model
    strategy = tested_strategies(stepper.settings)[0]  # a box or one point: every mask has these
    assert strategy.make is not None
    prompt = strategy.make(item.goals[0].mask())
    with torch.no_grad():
        maps = stepper.source.features(item, 0, stepper.accelerator.device)
        features = model.encode(maps, stepper.source.frozen.cut, len(model.stages))
        ((logits, _),) = model.decode(features, item.image_hw, [[prompt]], stepper.settings.tokens)
    (candidates,) = model.segment(model.embedding(features, item.image_hw), [prompt])
    return candidates, logits[0].float().cpu()


def _brought_back(mask: Mask, canvas: Canvas, candidates: Candidates, item: Item) -> float:
    """Bring a reference to a canvas as training does, and back as evaluation does: its DICE then.

    It is below 1 for what is finer than the canvas.
    """
    small = on_canvas(mask, canvas)
    logits = np.full((1, *candidates.logits.shape[1:]), -1.0, dtype=np.float32)
    logits[0, : small.shape[0], : small.shape[1]] = 2 * small - 1
    return dice(logits_at(logits, candidates.canvas, item.image_hw)[0] > 0, mask)


def _canvas_of(candidates: Candidates) -> Canvas:
    """Tell where evaluation sees an image in the logits."""
    height, width = candidates.logits.shape[1:]
    return candidates.canvas or Canvas(max(height, width), (height, width))


def _geometry(stepper: Stepper, items: Sequence[Item]) -> Check:
    """Compare where training puts references with where evaluation looks for them."""
    found: list[float] = []
    for item in items[:LOOKED_AT]:
        candidates, _ = _asked(stepper, item)
        ours, theirs = stepper.model.canvas(item.image_hw), _canvas_of(candidates)
        for goal in item.goals[: stepper.settings.max_targets]:
            mask = goal.mask()
            found.append(_brought_back(mask, ours, candidates, item))
            best = _brought_back(mask, theirs, candidates, item)
            if found[-1] < best - WORSE:
                return Check(
                    "geometry",
                    "failed",
                    f"{goal.target_id} brought to the model's canvas and back has DICE "
                    f"{found[-1]:.2f} with itself, and could have {best:.2f}: what is trained lies "
                    "elsewhere than what is scored. Does the model's canvas() say where its "
                    "preprocessing puts the image?",
                )
    worst, middle = min(found), float(np.median(found))
    told = f"{len(found)} references brought to the canvas and back: DICE {middle:.3f} (median)"
    return Check("geometry", "passed", f"{told}, {worst:.3f} at worst")


def _tokens(stepper: Stepper, item: Item) -> Check:
    """Compare the tokens that are trained with those that the selections take."""
    candidates, logits = _asked(stepper, item)
    tested: list[int] = []
    if stepper.settings.tokens != "multimask":
        tested.append(-1 if candidates.single is None else candidates.single)
    if stepper.settings.tokens != "single":
        tested += candidates.multimask or [-1]
    if -1 in tested:
        told = f"the model has no {stepper.settings.tokens} token to test"
        return Check("tokens", "failed", told)
    first = 1 if stepper.settings.tokens == "multimask" else 0
    trained = logits[first : first + len(tested)].numpy()
    shown = candidates.logits[tested]
    if trained.shape != shown.shape:
        told = f"training sees logits of {trained.shape}, evaluation of {shown.shape}"
        return Check("tokens", "failed", told)
    height, width = _canvas_of(candidates).valid_hw  # beyond the image there may be anything
    trained, shown = trained[:, :height, :width], shown[:, :height, :width]
    apart = float(np.abs(trained - shown).max()) / max(1.0, float(np.abs(shown).max()))
    if apart > SAME:
        told = "the tokens trained are not those that are tested: their logits of one prompt differ"
        return Check("tokens", "failed", f"{told} by {apart:.2g} of their size.")
    return Check("tokens", "passed", f"tokens {tested} are trained and tested")


def _learning(stepper: Stepper, items: Sequence[Item], settings: Settings) -> Iterator[Check]:
    """Learn one batch by heart, and see what got gradients, what moved, and whether it helped."""
    network = stepper.model.network
    before = {name: value.detach().clone() for name, value in network.state_dict().items()}
    own = trained_values(network, stepper.names)
    batch = [_still(item) for item in next(iter(batches(items, 0, settings)))]
    calm = replace(stepper, settings=replace(settings, jitter=None, augmentation="none"))
    try:
        best = _ceiling(calm, batch) if settings.overfit_steps else 1.0
        scores, reached, steps = _overfit(calm, batch, best)
        yield _gradients(stepper, _of_all(stepper, reached), before)
        yield _by_heart(scores, steps, best, settings)
    finally:
        set_values(network, own)


def _still(item: Item) -> Item:
    return replace(item, variants=(0,), keys=item.keys[:1])


def _ceiling(stepper: Stepper, batch: Sequence[Item]) -> float:
    """Give the mean DICE that the canvas allows the references of a batch."""
    found = []
    for item in batch:
        candidates, _ = _asked(stepper, item)
        canvas = _canvas_of(candidates)
        found += [_brought_back(g.mask(), canvas, candidates, item) for g in item.goals]
    return float(np.mean(found))


def _of_all(stepper: Stepper, reached: set[str]) -> set[str]:
    """Gather what any process saw: all of them have to come to one verdict."""
    if stepper.accelerator.num_processes == 1:
        return reached
    from accelerate.utils import gather_object

    return set(gather_object(sorted(reached)))


def _overfit(
    stepper: Stepper, batch: Sequence[Item], best: float
) -> tuple[list[float], set[str], int]:
    """Train on one batch; give its scores, the parameters with gradients, and the steps taken."""
    network, settings = stepper.model.network, stepper.settings
    parameters = [network.get_parameter(name) for name in stepper.names]
    rate = max(RATE, settings.learning_rate)
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    scores = [_score(stepper, batch)] if settings.overfit_steps else []
    reached: set[str] = set()
    number = 0
    while number < max(settings.overfit_steps, FEWEST_STEPS) or (
        number < MOST_DRAWS and not reached >= set(stepper.names)
    ):
        stepper.backward(batch, -1 - number)  # epochs that no training has
        for name, parameter in network.named_parameters():
            if parameter.grad is not None and bool(parameter.grad.abs().max() > 0):
                reached.add(name)
        optimizer.step()
        network.zero_grad(set_to_none=True)
        number += 1
        if scores and number % 10 == 0:
            scores.append(_score(stepper, batch))
            if _enough(scores, best) and reached >= set(stepper.names):
                break
    return scores, reached, number


def _score(stepper: Stepper, batch: Sequence[Item]) -> float:
    return validate(
        stepper.model, batch, stepper.source, stepper.settings, stepper.accelerator
    ).dice


def _enough(scores: Sequence[float], best: float) -> bool:
    return max(scores) >= min(scores[0] + LEARNED * (best - scores[0]), best - NEAR)


def _gradients(stepper: Stepper, reached: set[str], before: dict[str, Tensor]) -> Check:
    chosen, state = set(stepper.names), stepper.model.network.state_dict()
    moved = {name for name, value in state.items() if not torch.equal(value, before[name])}
    for found, what in (
        (chosen - reached, "is to be trained, and gets no gradient"),
        (reached - chosen, "is not to be trained, and gets a gradient"),
        (chosen - moved, "is to be trained, and does not move"),
        (moved - chosen, "is not to be trained, and moves"),
    ):
        if found:
            first, more = sorted(found)[0], len(found) - 1
            others = f" (and {more} more)" if more else ""
            return Check("gradients", "failed", f"{first}{others} {what}.")
    counts = f"{len(chosen)} parameters get gradients and move, {len(state) - len(chosen)} do not"
    return Check("gradients", "passed", counts)


def _by_heart(scores: Sequence[float], steps: int, best: float, settings: Settings) -> Check:
    if not scores:
        return Check("overfit", "skipped", "left out by --overfit-steps 0")
    gained = f"DICE {scores[0]:.3f} -> {max(scores):.3f} on one batch in {steps} steps"
    told = f"{gained} (the canvas allows {best:.3f})"
    if _enough(scores, best):
        return Check("overfit", "passed", told)
    return Check(
        "overfit",
        "failed",
        f"{told}: not even one batch can be learned by heart. Are the masks right, and is "
        f"--method {settings.method} strong enough? More steps: --overfit-steps; 0 leaves it out.",
    )
