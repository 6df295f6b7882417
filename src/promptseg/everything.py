"""Everything: all masks that a model gives for a grid of points, and what of them survives.

The rules are those of SAM's automatic mask generator for one crop, the image itself; they run on
an embedding that prompts share. Filters compare float32 with float32, as there.
Source: Kirillov et al. 2023, Segment Anything, doi:10.1109/ICCV51070.2023.00371, appendix B.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from promptseg.bounds import Bounds, enlargement
from promptseg.errors import ModelError
from promptseg.mask import Rle, bounding_box_xyxy, to_rle
from promptseg.metric import dice_table
from promptseg.model import Candidates, Canvas, Segmenter, logits_at
from promptseg.prompt import Everything, Points

MOST_POINTS_PER_SIDE = 256
HELD_BYTES = 256_000_000  # of maps at the model's size, of all candidates of an image


@dataclass(frozen=True, slots=True, eq=False)
class Survivors:
    """The masks of one image that survived, in the order in which NMS keeps them.

    That is by falling predicted IoU. The stability of a mask is NaN, undefined, where no logit
    exceeds minus the offset; with a threshold above 0 such a mask does not survive.
    """

    masks: tuple[Rle, ...]  # at the image's size
    predicted_iou: Float32[np.ndarray, "n"]
    stability: Float32[np.ndarray, "n"]
    points_xy: Float64[np.ndarray, "n 2"]  # the grid point that each came from
    image_hw: tuple[int, int]
    n_candidates: int  # before filtering


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    """A candidate of which only the box is known at the image's size.

    Of its map the part is held that decides about pixels above minus the offset.
    """

    part: Float32[np.ndarray, "h w"]
    place: tuple[slice, slice]  # of the part in the map
    least: float  # of the whole map
    map_hw: tuple[int, int]
    canvas: Canvas | None
    box_xyxy: tuple[int, int, int, int]
    predicted_iou: float
    point_xy: tuple[float, float]


@dataclass(frozen=True, slots=True)
class _Found:
    """A candidate that passed both filters."""

    mask: Rle
    box_xyxy: tuple[int, int, int, int]  # closed; 0, 0, 0, 0 of an empty mask
    predicted_iou: float
    stability: float
    point_xy: tuple[float, float]


def grid_points_xy(points_per_side: int, image_hw: tuple[int, int]) -> Float64[np.ndarray, "n 2"]:
    """Lay SAM's grid over an image: (i + 0.5) / n of its width and height, row by row.

    Raises
    ------
    ValueError
        When there are fewer than 1 or more than 256 points per side.
    """
    if not 1 <= points_per_side <= MOST_POINTS_PER_SIDE:
        raise ValueError(
            f"a grid has 1 to {MOST_POINTS_PER_SIDE} points per side, not {points_per_side}"
        )
    half = 0.5 / points_per_side
    share = np.linspace(half, 1 - half, points_per_side)  # to the last bit what SAM's grid holds
    y, x = np.meshgrid(share, share, indexing="ij")
    height, width = image_hw
    return np.stack([x.ravel() * width, y.ravel() * height], axis=1)


def survivors(
    model: Segmenter[Any],
    embedding: Any,
    image_hw: tuple[int, int],
    settings: Everything,
    *,
    points_per_batch: int = 64,
) -> Survivors:
    """Ask a model at every point of a grid, and keep what SAM's own generator would keep.

    Candidates are the multimask tokens of every point. In turn they are rejected by predicted IoU
    (kept: above the threshold), by stability (kept: at least the threshold) and by
    non-maximum suppression of their boxes (suppressed: IoU above the threshold). A threshold of 0
    skips either of the first two.

    No map is enlarged whose fate is known without: what predicted IoU rejects, what cannot reach
    the threshold of stability by bounds that hold to the last bit, and what a better box
    suppresses. Stability and mask of all others are those at the image's size. Enlarged is one map
    at a time; of maps at the model's size about 256 MB are held, and those of one batch.

    Parameters
    ----------
    embedding
        What the model's `embed` gave for the image of size `image_hw`.
    points_per_batch
        How many points the model is asked at once; it bounds the memory of the answers.

    Raises
    ------
    ModelError
        When the model's answers have no multimask tokens or no predicted IoU.
    ValueError
        When the grid or the batch is none, or answers hold numbers that are not finite.
    """
    if points_per_batch < 1:
        raise ValueError(f"a batch needs at least one point, not {points_per_batch}")
    grid = grid_points_xy(settings.points_per_side, image_hw)
    n_candidates, passed = 0, list[_Held | _Found]()
    for start in range(0, len(grid), points_per_batch):
        points = grid[start : start + points_per_batch]
        for point_xy, answer in zip(points, _answers(model, embedding, points), strict=True):
            n_candidates += len(answer.multimask)
            passed.extend(_passing(answer, point_xy, image_hw, settings))
        passed = _within_memory(passed, image_hw, settings)
    kept = _unsuppressed(passed, image_hw, settings)
    return Survivors(
        masks=tuple(item.mask for item in kept),
        predicted_iou=np.array([item.predicted_iou for item in kept], dtype=np.float32),
        stability=np.array([item.stability for item in kept], dtype=np.float32),
        points_xy=np.array([item.point_xy for item in kept], dtype=np.float64).reshape(-1, 2),
        image_hw=image_hw,
        n_candidates=n_candidates,
    )


def _answers(
    model: Segmenter[Any], embedding: Any, points_xy: Float64[np.ndarray, "n 2"]
) -> Sequence[Candidates]:
    """Ask the model at each point alone, and refuse what cannot be filtered."""
    one = np.array([True])
    answers = model.segment(embedding, [Points(xy[None], one) for xy in points_xy])
    if len(answers) != len(points_xy):
        raise ValueError(f"{len(points_xy)} prompts were answered with {len(answers)} candidates")
    for answer in answers:
        if not answer.multimask:
            raise ModelError(f"everything needs multimask tokens, and {model.name} has none")
        if answer.predicted_iou is None:
            raise ModelError(f"everything ranks by predicted IoU, and {model.name} predicts none")
        tokens = list(answer.multimask)
        iou, logits = answer.predicted_iou[tokens], answer.logits[tokens]
        if not (np.isfinite(iou).all() and np.isfinite(logits).all()):
            raise ValueError(f"an answer of {model.name} holds numbers that are not finite")
    return answers


def _passing(
    answer: Candidates,
    point_xy: Float64[np.ndarray, "2"],
    image_hw: tuple[int, int],
    settings: Everything,
) -> Iterator[_Held | _Found]:
    """Yield the candidates of one point that may pass both filters, in the order of their tokens.

    Where rounding decides about a box, the candidate is enlarged and filtered at once.
    """
    assert answer.predicted_iou is not None, "answers without one have been refused"
    least, stable = settings.pred_iou_thresh, settings.stability_score_thresh
    map_hw = (answer.logits.shape[1], answer.logits.shape[2])
    how = enlargement(map_hw, answer.canvas, image_hw)
    for token in answer.multimask:
        iou, logits = answer.predicted_iou[token], answer.logits[token]
        if least != 0 and not iou > np.float32(least):
            continue
        bounds = Bounds(logits, how)
        offset = settings.stability_score_offset
        if stable != 0 and not bounds.most_stable(offset) >= np.float32(stable):
            continue
        box_xyxy = bounds.box_xyxy()
        place = bounds.part_above(-offset)
        held = _Held(
            part=logits[place].copy(),
            place=place,
            least=float(logits.min()),
            map_hw=map_hw,
            canvas=answer.canvas,
            box_xyxy=box_xyxy or (0, 0, 0, 0),
            predicted_iou=float(iou),
            point_xy=(float(point_xy[0]), float(point_xy[1])),
        )
        if box_xyxy is not None:
            yield held
        elif (found := _enlarged(held, image_hw, settings)) is not None:
            yield found


def _enlarged(held: _Held, image_hw: tuple[int, int], settings: Everything) -> _Found | None:
    """Bring a candidate to the image's size; None: it is not stable enough."""
    whole = np.full(held.map_hw, held.least, dtype=np.float32)
    whole[held.place] = held.part
    least, offset = settings.stability_score_thresh, settings.stability_score_offset
    if least != 0:
        bounds = Bounds(whole, enlargement(held.map_hw, held.canvas, image_hw))
        if not bounds.most_stable_closely(offset) >= np.float32(least):
            return None
    logits = logits_at(whole[None], held.canvas, image_hw)
    (stability,) = stability_score(logits, offset)
    if least != 0 and not stability >= np.float32(least):
        return None
    mask = logits[0] > 0
    return _Found(
        mask=to_rle(mask),
        box_xyxy=_closed_box_xyxy(mask),
        predicted_iou=held.predicted_iou,
        stability=float(stability),
        point_xy=held.point_xy,
    )


def _within_memory(
    passed: list[_Held | _Found], image_hw: tuple[int, int], settings: Everything
) -> list[_Held | _Found]:
    """Enlarge the half of highest predicted IoU, the likeliest to survive, if too much is held."""
    held = [item for item in passed if isinstance(item, _Held)]
    if sum(item.part.nbytes for item in held) <= HELD_BYTES:
        return passed
    best = sorted(held, key=lambda item: -item.predicted_iou)[: (len(held) + 1) // 2]
    chosen = {id(item) for item in best}
    now = [
        _enlarged(item, image_hw, settings)
        if isinstance(item, _Held) and id(item) in chosen
        else item
        for item in passed
    ]
    return [item for item in now if item is not None]


def _unsuppressed(
    passed: Sequence[_Held | _Found], image_hw: tuple[int, int], settings: Everything
) -> list[_Found]:
    """Suppress boxes by better ones; only what no better one suppresses is enlarged."""
    found: dict[int, _Found] = {}

    def stands(index: int) -> bool:
        item = passed[index]
        enlarged = _enlarged(item, image_hw, settings) if isinstance(item, _Held) else item
        if enlarged is not None:
            found[index] = enlarged
        return enlarged is not None

    boxes_xyxy = np.array([item.box_xyxy for item in passed], dtype=np.float32).reshape(-1, 4)
    scores = np.array([item.predicted_iou for item in passed], dtype=np.float32)
    kept = box_nms(boxes_xyxy, scores, settings.box_nms_thresh, stands)
    return [found[index] for index in kept.tolist()]


def stability_score(
    logits: Float32[np.ndarray, "n h w"], offset: float
) -> Float32[np.ndarray, "n"]:
    """IoU of the masks at thresholds `offset` and `-offset`, in [0, 1]; NaN where both are empty.

    The first lies within the second, so that it is the ratio of their areas.
    """
    inner = np.count_nonzero(logits > offset, axis=(1, 2)).astype(np.float32)
    outer = np.count_nonzero(logits > -offset, axis=(1, 2)).astype(np.float32)
    with np.errstate(invalid="ignore"):
        return np.asarray(inner / outer, dtype=np.float32)


def _closed_box_xyxy(mask: Bool[np.ndarray, "h w"]) -> tuple[int, int, int, int]:
    """Box as SAM has it: the last column and row belong to it; 0, 0, 0, 0 of an empty mask."""
    box_xyxy = bounding_box_xyxy(mask)
    if box_xyxy is None:
        return 0, 0, 0, 0
    x0, y0, x1, y1 = box_xyxy
    return x0, y0, x1 - 1, y1 - 1


def box_nms(
    boxes_xyxy: Float32[np.ndarray, "n 4"],
    scores: Float32[np.ndarray, "n"],
    iou_thresh: float,
    stands: Callable[[int], bool] = lambda _: True,
) -> Int64[np.ndarray, "kept"]:
    """Keep the best box, suppress those whose IoU with it exceeds the threshold, and repeat.

    As torchvision's `nms` on a CPU: the area is (x1 - x0) (y1 - y0), so that a box of one column
    has none; ties keep their order; IoU is float32 and the threshold is not rounded to it. Two
    boxes without area have no IoU and do not suppress each other.

    Parameters
    ----------
    stands
        Asked about every box, the best first, that none better suppresses. One that does not stand
        is as if it had not been there: it is not kept, and suppresses nothing.

    Returns
    -------
    indices
        Of the boxes kept, by falling score.
    """
    order = np.argsort(-scores, kind="stable")
    x0, y0, x1, y1 = boxes_xyxy[order].T.copy()
    area = (x1 - x0) * (y1 - y0)
    rest, kept = np.arange(len(order)), list[int]()
    while rest.size:
        best, rest = rest[0], rest[1:]
        if not stands(int(order[best])):
            continue
        kept.append(best)
        width = np.minimum(x1[best], x1[rest]) - np.maximum(x0[best], x0[rest])
        height = np.minimum(y1[best], y1[rest]) - np.maximum(y0[best], y0[rest])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        with np.errstate(invalid="ignore"):
            iou = shared / (area[best] + area[rest] - shared)
        rest = rest[~(iou > np.float64(iou_thresh))]
    return order[np.array(kept, dtype=np.int64)]


def overlaps(
    survivors: Survivors, targets: Sequence[Bool[np.ndarray, "_ _"]]
) -> Float64[np.ndarray, "survivors targets"]:
    """Exact DICE of every survivor with every target, in one call; 0 where a survivor is empty.

    Raises
    ------
    ValueError
        When a target is empty or of another size than the image.
    """
    return dice_table(survivors.masks, [to_rle(target) for target in targets])
