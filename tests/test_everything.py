"""Everything keeps what SAM's published generator keeps, and compares it with every target."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import published_sam
import pytest
from golden_litemedsam import picture
from hypothesis import given
from hypothesis import strategies as st
from published_sam import OursOnTiny, generate, nms_in_two_loops
from test_litemedsam import _original

from promptseg import everything
from promptseg.errors import ModelError
from promptseg.everything import (
    Survivors,
    box_nms,
    grid_points_xy,
    overlaps,
    stability_score,
    survivors,
)
from promptseg.mask import from_rle, to_rle
from promptseg.metric import dice
from promptseg.model import Candidates, Canvas, logits_at
from promptseg.models.litemedsam import load
from promptseg.prompt import Everything, Points, Prompt
from promptseg.weights import load_state

SIZES = ((96, 128), (150, 100), (128, 128), (37, 260))
FAINT = 0.01  # an offset for logits that hardly leave 0
UNFILTERED = Everything(6, 0.0, 0.0, 1.0, 1.0)


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Import SAM's published package, or skip where pip cannot fetch it."""
    folder = published_sam.unpacked_wheel(tmp_path_factory.mktemp("published"))
    if folder is None:
        pytest.skip(f"pip cannot fetch {published_sam.REQUIREMENT}")
    return published_sam.imported(folder)


@pytest.fixture(scope="session")
def tiny(published: Any) -> Any:
    """Give a small published Sam with random weights."""
    return published_sam.tiny(published, picture(*SIZES[0]))


_last: dict[str, Any] = {}  # the model and the image that were asked about last


def _found(model: Any, image: np.ndarray, settings: Everything, batch: int = 64) -> Survivors:
    asked = (image.shape, image.tobytes())
    if _last.get("asked") != asked or _last["model"] is not model:  # once for all settings
        (embedding,) = model.embed([image])
        _last.update(model=model, asked=asked, embedding=embedding)
    embedding = _last["embedding"]
    return survivors(model, embedding, image.shape[:2], settings, points_per_batch=batch)


def _gap(values: np.ndarray, lo: float, hi: float) -> float:
    """Middle of the widest gap: a threshold that no last digit decides about."""
    inside = np.sort(values[(values > lo) & (values < hi)])
    widest = int(np.argmax(np.diff(inside)))
    return float(inside[widest] + inside[widest + 1]) / 2


def _settings(of_all: Survivors, points_per_side: int, offset: float = 1.0) -> list[Everything]:
    """Choose thresholds, none to all of them, in the gaps of what they cut."""
    iou = _gap(of_all.predicted_iou, *np.quantile(of_all.predicted_iou, [0.2, 0.5]))
    stable = of_all.stability[of_all.stability > 0]
    stability = _gap(stable, *np.quantile(stable, [0.1, 0.6]))
    return [
        Everything(points_per_side, *rest)
        for rest in (
            (0.0, 0.0, offset, 1.0),
            (iou, 0.0, offset, 1.0),
            (iou, stability, offset, 1.0),
            (iou, stability, offset, 0.7),
            (0.0, stability, offset, 0.9),
            (iou, 0.3, 2.5 * offset, 0.5),
        )
    ]


def _require_same(ours: Survivors, theirs: Sequence[dict[str, Any]]) -> None:
    """Match one to one and in order.

    A mask may differ in one border pixel, and its stability by one pixel at either threshold.
    """
    assert len(ours.masks) == len(theirs) > 0
    for rle, record in zip(ours.masks, theirs, strict=True):
        assert np.count_nonzero(from_rle(rle) != record["segmentation"]) <= 1
    points = [record["point_coords"][0] for record in theirs]
    np.testing.assert_array_equal(points, ours.points_xy)
    iou = [record["predicted_iou"] for record in theirs]
    np.testing.assert_allclose(ours.predicted_iou, iou, atol=1e-4)
    stability = np.array([record["stability_score"] for record in theirs])
    pixel = 1 / np.array([max(record["area"], 1) for record in theirs])
    np.testing.assert_array_equal(np.isnan(stability), np.isnan(ours.stability))
    assert np.nanmax(np.abs(stability - ours.stability) / pixel) <= 2


@pytest.mark.parametrize(("size", "points_per_side"), list(zip(SIZES, (4, 6, 7, 8), strict=True)))
def test_survivors_are_those_of_the_published_generator(
    published: Any, tiny: Any, size: tuple[int, int], points_per_side: int
):
    """Count, order, masks and numbers, for six settings."""
    image = picture(*size)
    ours = OursOnTiny(published, tiny)
    of_all = _found(ours, image, replace(UNFILTERED, points_per_side=points_per_side))
    assert of_all.n_candidates == len(of_all.masks) == 3 * points_per_side**2
    counts = []
    for settings in _settings(of_all, points_per_side):
        found = _found(ours, image, settings)
        counts.append(len(found.masks))

        _require_same(found, generate(published, tiny, settings, image))
    assert counts[0] > counts[1] > counts[2] > counts[3] > 0, "every filter rejects something"
    assert len(set(of_all.predicted_iou.round(4))) > counts[0] / 2, "the answers vary"


@pytest.mark.real
@pytest.mark.parametrize("size", [(240, 196), (33, 700)])
def test_survivors_of_litemedsam_are_those_of_the_published_generator(
    published: Any,
    litemedsam_wheel: Path,
    litemedsam_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
):
    """Over the authors' own modules, whose logits differ from ours in the last digits.

    To one point its untrained tokens answer with logits of at most about 0.2, hence the offset.
    """
    network = _original(litemedsam_wheel, load_state(litemedsam_weights), monkeypatch)
    predictor = published_sam.LiteMedSamPredictor(published, network)
    ours, image = load(weights=litemedsam_weights), picture(*size)
    of_all = _found(ours, image, Everything(4, 0.0, 0.0, FAINT, 1.0))
    for settings in _settings(of_all, 4, FAINT)[1:4]:
        theirs = generate(published, published_sam.sized(256), settings, image, predictor)

        _require_same(_found(ours, image, settings), theirs)


@pytest.mark.real
def test_litemedsam_answers_alike_in_batches_of_any_size(litemedsam_weights: Path):
    """The decoder's own chunks may move a last digit, and hence a border pixel, but no mask."""
    ours, image = load(weights=litemedsam_weights), picture(90, 120)
    settings = Everything(4, 0.15, 0.0, FAINT, 0.8)
    whole, parts = (_found(ours, image, settings, batch) for batch in (64, 5))

    assert len(whole.masks) == len(parts.masks) > 0
    np.testing.assert_array_equal(whole.points_xy, parts.points_xy)
    np.testing.assert_allclose(whole.predicted_iou, parts.predicted_iou, atol=1e-5)
    for one, other in zip(whole.masks, parts.masks, strict=True):
        assert np.count_nonzero(from_rle(one) != from_rle(other)) <= 1


def test_the_stand_ins_are_gone_after_the_import(published: Any):
    """No later import may find a torchvision."""
    assert published.SamAutomaticMaskGenerator
    assert not [name for name in sys.modules if name.split(".")[0] == "torchvision"]


def test_the_grid_is_the_published_one(published: Any):
    """To the last bit, for every number of points that is allowed."""
    grid = sys.modules["segment_anything.utils.amg"].build_point_grid
    for n in range(1, 257):
        np.testing.assert_array_equal(grid(n) * np.array([[130, 77]]), grid_points_xy(n, (77, 130)))


def test_grid_points_lie_in_the_middle_of_their_cells():
    """Row by row, x first: (i + 0.5) / n of width and height."""
    expected = [[25, 10], [75, 10], [25, 30], [75, 30]]

    np.testing.assert_allclose(grid_points_xy(2, (40, 100)), expected)
    for n in (0, 257):
        with pytest.raises(ValueError, match=f"1 to 256 points per side, not {n}"):
            grid_points_xy(n, (40, 100))


@dataclass
class Discs:
    """Answers a point with three discs around it; predicted IoU is a number drawn by the place."""

    change: Callable[[Candidates], Candidates] = lambda answer: answer
    name = "discs"
    weights_hash = "none"
    training = published_sam.POINTS
    asked: int = 0

    def embed(self, images: Sequence[np.ndarray]) -> list[tuple[int, int]]:
        """Keep the size."""
        return [(image.shape[0], image.shape[1]) for image in images]

    def segment(self, embedding: tuple[int, int], prompts: Sequence[Prompt]) -> list[Candidates]:
        """Draw bowls of logits at 24 px on a canvas of 48 px, of which the image fills a part."""
        self.asked = max(self.asked, len(prompts))
        return [self.change(self._answer(embedding, prompt)) for prompt in prompts]

    def _answer(self, size_hw: tuple[int, int], prompt: Prompt) -> Candidates:
        assert isinstance(prompt, Points)
        x, y = prompt.xy[0] * 24 / max(size_hw)
        rows, columns = np.mgrid[:24, :24]
        square = (rows + 0.5 - y) ** 2 + (columns + 0.5 - x) ** 2
        logits = np.stack([radius**2 - square for radius in (9, 0.1, 3, 5)]).astype(np.float32) / 4
        draw = np.random.default_rng([int(x * 1000), int(y * 1000)])
        iou = draw.uniform(0, 1, 4).astype(np.float32)
        height, width = (max(1, side * 48 // max(size_hw)) for side in size_hw)
        return Candidates(logits, iou, 0, (1, 2, 3), Canvas(48, (height, width)))


IMAGE = np.zeros((60, 90, 3), dtype=np.uint8)


@pytest.fixture
def enlarged(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the maps that are enlarged."""
    counts: list[int] = []
    original = everything.logits_at

    def counted(logits: Any, canvas: Any, size_hw: Any) -> Any:
        counts.append(len(logits))
        return original(logits, canvas, size_hw)

    monkeypatch.setattr(everything, "logits_at", counted)
    return counts


def test_nothing_is_enlarged_that_predicted_iou_rejected(enlarged: list[int]):
    """What is enlarged is counted: exactly the candidates above the threshold."""
    of_all = _found(Discs(), IMAGE, UNFILTERED)
    above = int(np.count_nonzero(of_all.predicted_iou > np.float32(0.6)))
    enlarged.clear()
    found = _found(Discs(), IMAGE, replace(UNFILTERED, pred_iou_thresh=0.6))

    assert 0 < above < 3 * 36
    assert sum(enlarged) == above == len(found.masks)


def test_nothing_is_enlarged_that_a_better_box_suppresses_or_bounds_reject(enlarged: list[int]):
    """What is enlarged is what survives, with a filter of stability and without one."""
    by_box = _found(Discs(), IMAGE, replace(UNFILTERED, box_nms_thresh=0.3))
    assert sum(enlarged) == len(by_box.masks) < 3 * 36 * 0.6
    enlarged.clear()
    by_both = _found(Discs(), IMAGE, Everything(6, 0.0, 0.65, 1.0, 0.7))

    assert sum(enlarged) == len(by_both.masks) < 3 * 36 / 2


def test_neither_batches_nor_memory_change_the_result(
    monkeypatch: pytest.MonkeyPatch, enlarged: list[int]
):
    """Memory is bounded by both, and what survives depends on none."""
    settings = Everything(7, 0.2, 0.5, 1.0, 0.6)
    model = Discs()
    expected = _found(model, IMAGE, settings)
    first = sum(enlarged)
    assert model.asked == 49
    for batch in (1, 10, 49):
        model = Discs()
        found = _found(model, IMAGE, settings, batch)
        assert model.asked == batch
        assert found.masks == expected.masks
        np.testing.assert_array_equal(found.predicted_iou, expected.predicted_iou)
        np.testing.assert_array_equal(found.stability, expected.stability)
        monkeypatch.setattr(everything, "HELD_BYTES", 3000)
    assert sum(enlarged) > 4 * first, "what does not fit is enlarged before its turn"


class Scribbles(Discs):
    """Answers with maps of whole numbers and halves: ties, plateaus, empty and full masks."""

    def __init__(self, seed: int, map_hw: tuple[int, int], canvas: Canvas | None) -> None:
        super().__init__()
        self.seed, self.map_hw, self.canvas = seed, map_hw, canvas

    def _answer(self, size_hw: tuple[int, int], prompt: Prompt) -> Candidates:
        assert isinstance(prompt, Points)
        place = (prompt.xy[0] * 1000).astype(int).tolist()
        draw = np.random.default_rng([self.seed, *place])
        iou = draw.choice(np.float32([0.2, 0.4, 0.6, 0.8]), 4)
        return Candidates(scribbled(draw, (4, *self.map_hw)), iou, 0, (1, 2, 3), self.canvas)


def scribbled(draw: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw maps of very different kinds."""
    kind = draw.integers(0, 5, (shape[0], 1, 1))
    rows, columns = (np.arange(n) - draw.uniform(0, n, (shape[0], 1)) for n in shape[1:])
    bowl = draw.uniform(2, 90, (shape[0], 1, 1)) - rows[:, :, None] ** 2 - columns[:, None] ** 2
    whole = draw.integers(-2, 3, shape) / 2
    flat = np.broadcast_to(draw.choice([-1.0, 0.0, 1.0, 2.0], (shape[0], 1, 1)), shape)
    noise = draw.normal(0, 3, shape)
    return np.choose(kind, [bowl, bowl, whole, flat, noise]).astype(np.float32)


def _directly(model: Any, size_hw: tuple[int, int], settings: Everything) -> Survivors:
    """Write the rule down at full resolution: every map enlarged, filtered, then NMS."""
    found = []
    for xy in grid_points_xy(settings.points_per_side, size_hw):
        (answer,) = model.segment(size_hw, [Points(xy[None], np.array([True]))])
        logits = logits_at(answer.logits, answer.canvas, size_hw)
        stability = stability_score(logits, settings.stability_score_offset)
        for token in answer.multimask:
            iou, score, mask = answer.predicted_iou[token], stability[token], logits[token] > 0
            if settings.pred_iou_thresh and not iou > np.float32(settings.pred_iou_thresh):
                continue
            least = settings.stability_score_thresh
            if least and not score >= np.float32(least):
                continue
            y, x = np.nonzero(mask)
            box = (x.min(), y.min(), x.max(), y.max()) if len(x) else (0, 0, 0, 0)
            found.append((to_rle(mask), iou, score, xy, box))
    boxes = np.array([item[4] for item in found], dtype=np.float32).reshape(-1, 4)
    scores = np.array([item[1] for item in found], dtype=np.float32)
    kept = [found[i] for i in nms_in_two_loops(boxes, scores, settings.box_nms_thresh)]
    return Survivors(
        tuple(item[0] for item in kept),
        np.array([item[1] for item in kept], dtype=np.float32),
        np.array([item[2] for item in kept], dtype=np.float32),
        np.array([item[3] for item in kept]).reshape(-1, 2),
        size_hw,
        3 * settings.points_per_side**2,
    )


@st.composite
def geometries(draw: st.DrawFn) -> tuple[tuple[int, int], Canvas | None, tuple[int, int]]:
    """Draw sizes of a map, of its canvas and of an image: larger, smaller, odd, padded."""
    image_hw = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    map_hw = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    if draw(st.booleans()):
        return map_hw, None, image_hw
    side = draw(st.integers(1, 48))
    valid_hw = draw(st.integers(1, side)), draw(st.integers(1, side))
    return (map_hw[0], map_hw[0]), Canvas(side, valid_hw), image_hw


@given(
    st.integers(0, 2**32 - 1),
    geometries(),
    st.sampled_from([0.0, 0.3, 0.4]),
    st.sampled_from([0.0, 0.25, 0.5, 0.8, 1.0]),
    st.sampled_from([0.5, 1.0, 0.1]),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_what_survives_is_what_survives_at_full_resolution(
    seed: int,
    geometry: tuple[tuple[int, int], Canvas | None, tuple[int, int]],
    iou: float,
    stability: float,
    offset: float,
    nms: float,
):
    """Every mask, number and the order, on any geometry, with many ties at the thresholds."""
    map_hw, canvas, size_hw = geometry
    model, settings = Scribbles(seed, map_hw, canvas), Everything(3, iou, stability, offset, nms)
    found = survivors(model, size_hw, size_hw, settings)
    expected = _directly(model, size_hw, settings)

    assert found.masks == expected.masks
    np.testing.assert_array_equal(expected.predicted_iou, found.predicted_iou)
    np.testing.assert_array_equal(expected.stability, found.stability)
    np.testing.assert_array_equal(expected.points_xy, found.points_xy)


def test_a_threshold_itself_is_rejected_by_iou_and_kept_by_stability():
    """Above the one and at least the other, as in the published code."""
    of_all = _found(Discs(), IMAGE, UNFILTERED)
    middle = float(np.sort(of_all.predicted_iou)[50])
    score = float(np.nanmedian(of_all.stability))
    by_iou = _found(Discs(), IMAGE, replace(UNFILTERED, pred_iou_thresh=middle))
    by_score = _found(Discs(), IMAGE, replace(UNFILTERED, stability_score_thresh=score))

    assert len(by_iou.masks) == 3 * 36 - 51
    assert score in by_score.stability


def test_an_image_without_a_survivor_gives_empty_arrays():
    """Nothing that survives is no error."""
    found = _found(Discs(), IMAGE, replace(UNFILTERED, pred_iou_thresh=1.0))

    assert found.masks == ()
    assert found.points_xy.shape == (0, 2)
    assert found.n_candidates == 3 * 36
    assert overlaps(found, [np.ones((60, 90), dtype=bool)]).shape == (0, 1)


def test_stability_is_the_iou_of_two_thresholds():
    """Area above the offset by area above its negative; undefined where both are empty."""
    logits = np.array([[[2, 0.5, -0.5, -2]], [[2, 2, 1, -1]], [[-9, -9, -9, -1]]], dtype=np.float32)

    np.testing.assert_array_equal(stability_score(logits, 1.0), np.float32([1 / 3, 2 / 3, np.nan]))


def _not_finite(answer: Candidates) -> Candidates:
    logits = answer.logits.copy()
    logits[2, 0, 0] = np.nan
    return replace(answer, logits=logits)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda answer: replace(answer, multimask=()), "discs has none"),
        (lambda answer: replace(answer, predicted_iou=None), "discs predicts none"),
        (_not_finite, "not finite"),
        (lambda a: replace(a, predicted_iou=np.full(4, np.inf, np.float32)), "not finite"),
    ],
)
def test_an_answer_that_cannot_be_filtered_is_refused(
    change: Callable[[Candidates], Candidates], reason: str
):
    """The reason says what the model lacks."""
    with pytest.raises((ValueError, ModelError), match=reason):
        _found(Discs(change), IMAGE, UNFILTERED)


def test_a_batch_needs_a_point_and_a_prompt_an_answer():
    """Neither an endless loop nor a silent loss of points."""

    class Forgetful(Discs):
        def segment(self, embedding: Any, prompts: Sequence[Prompt]) -> list[Candidates]:
            return super().segment(embedding, prompts[1:])

    with pytest.raises(ValueError, match="36 prompts were answered with 35"):
        _found(Forgetful(), IMAGE, UNFILTERED)
    with pytest.raises(ValueError, match="at least one point, not 0"):
        _found(Discs(), IMAGE, UNFILTERED, batch=0)


corner = st.integers(0, 12)
thresholds = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 1.0])


@given(
    st.lists(st.tuples(corner, corner, corner, corner, st.sampled_from([0.1, 0.5, 0.9]))),
    thresholds,
)
def test_nms_is_its_definition_in_two_loops(rows: list[tuple[float, ...]], threshold: float):
    """Ties of score, equal boxes, lines and points among them."""
    values = np.array(rows, dtype=np.float32).reshape(-1, 5)
    lo = np.minimum(values[:, :2], values[:, 2:4])
    boxes = np.concatenate([lo, np.maximum(values[:, :2], values[:, 2:4])], axis=1)
    scores = values[:, 4]

    assert box_nms(boxes, scores, threshold).tolist() == nms_in_two_loops(boxes, scores, threshold)


@given(st.integers(0, 2**32 - 1), thresholds)
def test_nms_agrees_on_boxes_that_are_no_whole_numbers(seed: int, threshold: float):
    """Rounding in float32 is that of the definition."""
    draw = np.random.default_rng(seed)
    lo = draw.uniform(0, 900, (30, 2))
    boxes = np.concatenate([lo, lo + draw.uniform(0, 900, (30, 2))], axis=1).astype(np.float32)
    scores = draw.normal(size=30).astype(np.float32)

    assert box_nms(boxes, scores, threshold).tolist() == nms_in_two_loops(boxes, scores, threshold)


def test_nms_keeps_ties_in_order_and_compares_with_the_exact_threshold():
    """A tenth in float32 exceeds a tenth; boxes without area suppress nothing."""
    boxes = np.array([[0, 0, 1, 1], [0, 0, 10, 1], [3, 3, 3, 3], [3, 3, 3, 3]], dtype=np.float32)
    scores = np.array([0.5, 0.5, 0.7, 0.7], dtype=np.float32)

    assert box_nms(boxes, scores, 0.1).tolist() == [2, 3, 0]
    assert box_nms(boxes, scores, 0.11).tolist() == [2, 3, 0, 1]


def _of_masks(masks: Sequence[np.ndarray], image_hw: tuple[int, int]) -> Survivors:
    ones = np.ones(len(masks), dtype=np.float32)
    rles = tuple(to_rle(mask) for mask in masks)
    return Survivors(rles, ones, ones, np.zeros((len(masks), 2)), image_hw, len(masks))


@given(st.integers(0, 2**32 - 1), st.integers(0, 4), st.integers(0, 4))
def test_overlaps_are_the_dice_of_every_pair(seed: int, n_masks: int, n_targets: int):
    """Equal to the metric's to the last bit, with empty survivors and none at all."""
    draw = np.random.default_rng(seed)
    height, width = draw.integers(1, 12, 2)
    density = draw.choice([0.0, 0.2, 0.9], (n_masks, 1, 1))
    masks = draw.random((n_masks, height, width)) < density
    targets = draw.random((n_targets, height, width)) < 0.5
    targets[:, 0, 0] = True
    scores = overlaps(_of_masks(list(masks), (int(height), int(width))), list(targets))

    assert scores.shape == (n_masks, n_targets)
    expected = [[dice(mask, target) for target in targets] for mask in masks]
    np.testing.assert_array_equal(np.reshape(expected, (n_masks, n_targets)), scores)


def test_a_target_that_is_empty_or_of_another_size_is_refused():
    """As the metric refuses it: there is no score with what is not there."""
    found = _of_masks([np.ones((4, 5), dtype=bool)], (4, 5))
    with pytest.raises(ValueError, match="empty"):
        overlaps(found, [np.zeros((4, 5), dtype=bool)])
    with pytest.raises(ValueError, match="one size"):
        overlaps(found, [np.ones((5, 4), dtype=bool)])
