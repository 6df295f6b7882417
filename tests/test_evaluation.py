"""The loop: every image embedded once, every answer scored, nothing lost."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path

import fakes
import numpy as np
import pytest
from phantom import phantom, write_phantoms

from promptseg.evaluation import evaluate
from promptseg.jitter import Jitter
from promptseg.mask import from_rle
from promptseg.model import Candidates
from promptseg.plan import Plan
from promptseg.prompt import box_of, from_json, points_of
from promptseg.record import Record
from promptseg.sample import Listed, Sample, Target, Unreadable, regroup
from promptseg.strategy import STRATEGIES, Strategy

BOTH = Plan((STRATEGIES["box"], STRATEGIES["box+point"]))


def _sample(index: int = 0, **changes: object) -> Sample:
    image, masks = phantom(index)
    targets = tuple(Target(f"p#{name}", name, mask) for name, mask in masks.items())
    sample = Sample(f"p{index}", np.repeat(image[:, :, None], 3, axis=2), "phantom", "CT", targets)
    return dataclasses.replace(sample, **changes)


def _records(
    samples: Sequence[Sample | Unreadable], model: fakes.Fake, plan: Plan = BOTH
) -> list[Record]:
    return [record for one in evaluate(samples, model, plan) for record in one.records]


def test_each_image_is_embedded_once_for_all_prompts():
    """The point of the loop: encoders cost, prompts are cheap."""
    model = fakes.reference()
    records = _records([_sample(0), _sample(1)], model)

    assert model.embedded == 2
    assert len(records) == 2 * 2 * 2 * 3  # images, targets, strategies, selections


@dataclasses.dataclass
class _Together(fakes.Fake):
    """A model that takes three images at once, and none that is all dark."""

    images_at_once: int = 3
    groups: list[int] = dataclasses.field(default_factory=list)

    def embed(self, images: Sequence[fakes.Image]) -> list[fakes.Image]:
        self.groups.append(len(images))
        if not all(image.any() for image in images):
            raise ValueError("too dark")
        return fakes.Fake.embed(self, images)


def test_images_that_are_embedded_together_give_the_same_records():
    """In the same order; those of which nothing is asked are not embedded."""
    samples = [_sample(number) for number in range(5)]
    samples[1] = dataclasses.replace(samples[1], targets=())
    model = _Together("fake", fakes.filled_box)
    plain = _records(samples, fakes.Fake("fake", fakes.filled_box))

    assert _timeless(_records(samples, model)) == _timeless(plain)
    assert model.groups == [2, 2]


def test_an_image_that_cannot_be_embedded_costs_itself_alone():
    """The others of its group are embedded one by one."""
    samples = [_sample(number) for number in range(3)]
    samples[1] = dataclasses.replace(samples[1], image=np.zeros_like(samples[1].image))
    model = _Together("fake", fakes.filled_box)
    records = _records(samples, model)

    assert model.groups == [3, 1, 1, 1]
    failed = {record.image_id for record in records if record.outcome == "failed"}
    assert failed == {samples[1].image_id}
    assert {record.image_id for record in records} == {sample.image_id for sample in samples}


def _timeless(records: list[Record]) -> list[Record]:
    return [dataclasses.replace(record, embed_ms=None, decode_ms=None) for record in records]


def test_the_right_answer_scores_one_under_single_and_oracle():
    """A planted answer comes out as planted, and `predicted` takes what the model prefers."""
    records = _records([_sample()], fakes.reference())
    disc = [r for r in records if r.object == "disc" and r.strategy == "box"]
    by_selection = {record.selection: record for record in disc}

    assert {r.dice for r in records if r.selection != "predicted"} == {1.0}
    assert {r.hd for r in records if r.selection == "oracle"} == {0.0}
    assert by_selection["single"].mask_index == 0
    assert by_selection["oracle"].mask_index == 2
    assert by_selection["predicted"].mask_index == 3
    assert by_selection["predicted"].predicted_iou == pytest.approx(0.8)
    assert 0.8 < (by_selection["predicted"].dice or 0) < 1  # the box around a disc


def test_off_protocol_is_what_the_model_was_not_trained_for():
    """The fake knows boxes only: box and point together is beyond it."""
    records = _records([_sample()], fakes.reference())

    assert {(r.strategy, r.off_protocol) for r in records} == {("box", False), ("box+point", True)}


def test_an_empty_mask_is_a_miss_with_zero_overlap_and_no_distance():
    """PROTOCOL decision 7: of a miss, overlap 0 and distances null."""
    records = [r for r in _records([_sample()], fakes.nothing()) if r.selection == "single"]

    assert {r.outcome for r in records} == {"miss"}
    assert {r.dice for r in records} == {0.0}
    assert {r.hd95 for r in records} == {None}
    assert all(r.image_diagonal == pytest.approx(np.hypot(64, 80)) for r in records)


def test_a_model_that_raises_fails_its_image_and_the_loop_goes_on():
    """The reason is kept, in one line, and the prompts too."""
    done = list(evaluate([_sample(0), _sample(1)], fakes.raises(), BOTH))
    records = [record for one in done for record in one.records]

    assert len(records) == 24
    assert {r.outcome for r in records} == {"failed"}
    assert {r.reason for r in records} == {"the model raised RuntimeError: planted failure"}
    assert all(r.prompt_id is not None and r.dice is None for r in records)
    assert len(done[0].prompts) == 4


def test_a_sample_that_cannot_be_read_keeps_its_place():
    """Every target that should have been scored has its failed records."""
    lost = Unreadable("p9", "phantom", "CT", "s1", (Listed("p9#disc", "disc"),), "truncated file")
    records = _records([lost, _sample()], fakes.reference())
    failed = [r for r in records if r.image_id == "p9"]

    assert len(failed) == 2 * 3
    assert {(r.outcome, r.reason, r.task) for r in failed} == {
        ("failed", "truncated file", "disc (CT)")
    }
    assert sum(r.outcome == "ok" for r in records) == 12


def test_a_strategy_that_cannot_prompt_is_a_failed_record():
    """No prompt, no mask: the reason is the strategy's own."""

    def refuse(mask: np.ndarray) -> fakes.Prompt:
        raise ValueError("no background in the window")

    plan = Plan((STRATEGIES["box"], Strategy("never", "points", refuse)))
    records = [r for r in _records([_sample()], fakes.reference(), plan) if r.strategy == "never"]

    assert {(r.outcome, r.reason, r.prompt_id) for r in records} == {
        ("failed", "no background in the window", None)
    }
    assert len(records) == 2 * 3


def test_distances_are_in_millimetres_where_the_spacing_is_known():
    """The same masks, half a millimetre per pixel: half the number."""
    in_px = _records([_sample()], fakes.box())
    in_mm = _records([_sample(spacing_yx_mm=(0.5, 0.5))], fakes.box())

    assert {r.distance_unit for r in in_px} == {"px"}
    assert {r.distance_unit for r in in_mm} == {"mm"}
    for px, mm in zip(in_px, in_mm, strict=True):
        if px.hd is not None:
            assert mm.hd == pytest.approx(px.hd / 2)


def test_stored_masks_and_prompts_say_what_was_scored():
    """A new metric needs no model: every record leads to its mask and its prompt."""
    (one,) = evaluate([_sample()], fakes.reference(), BOTH)
    masks = {(row.prompt_id, row.mask_index): from_rle(row.mask) for row in one.masks}
    prompts = {row.prompt_id: from_json(row.prompt) for row in one.prompts}
    references = phantom(0)[1]
    for record in one.records:
        assert record.prompt_id is not None
        mask = masks[record.prompt_id, record.mask_index or 0]
        reference = references[record.object or ""]
        overlap = 2 * (mask & reference).sum() / (mask.sum() + reference.sum())

        assert record.dice == pytest.approx(overlap)
        assert prompts[record.prompt_id].kind == STRATEGIES[record.strategy].prompt_kind


@pytest.mark.parametrize(("kept", "per_prompt"), [("none", 0), ("selected", 3), ("all", 4)])
def test_as_many_masks_are_kept_as_were_asked_for(kept: str, per_prompt: int):
    """None, those that some selection chose, or every candidate."""
    plan = dataclasses.replace(BOTH, save_masks=kept)
    (one,) = evaluate([_sample()], fakes.reference(), plan)

    assert len(one.masks) == 4 * per_prompt


def test_the_order_of_targets_changes_nothing():
    """Batches are made up in the order of names, so a corpus may list targets as it likes."""
    sample = _sample()
    turned = dataclasses.replace(sample, targets=sample.targets[::-1])
    records = [
        [dataclasses.replace(r, embed_ms=None, decode_ms=None) for r in _records([s], fakes.box())]
        for s in (sample, turned)
    ]

    assert records[0] == records[1]


def test_the_unit_decides_what_a_target_is(tmp_path: Path):
    """Two instances of one object are one target by class, two by instance."""
    corpus = write_phantoms(tmp_path / "c", range(1))
    (sample,) = corpus.read(corpus.row_groups()[0])
    assert isinstance(sample, Sample)
    twins = [dataclasses.replace(t, object="thing") for t in sample.targets]
    sample = dataclasses.replace(sample, targets=tuple(twins))
    boxes = (STRATEGIES["box"],)
    by_class = _records([sample], fakes.reference(), Plan(boxes, unit="class"))
    by_instance = _records([sample], fakes.reference(), Plan(boxes, unit="instance"))

    assert (len(by_class), len(by_instance)) == (3, 6)
    assert {r.unit for r in by_class} == {"class"}


@dataclasses.dataclass
class _Strange(fakes.Fake):
    """A model whose candidates are changed on their way out."""

    change: Callable[[Candidates], object] = lambda candidates: candidates

    def segment(self, embedding: fakes.Image, prompts: Sequence[fakes.Prompt]) -> list[object]:
        return [self.change(answer) for answer in fakes.Fake.segment(self, embedding, prompts)]


@pytest.mark.parametrize(
    "change",
    [
        lambda c: dataclasses.replace(c, logits=c.logits * np.float32("nan")),
        lambda c: dataclasses.replace(c, predicted_iou=c.predicted_iou * np.float32("nan")),
        lambda c: dataclasses.replace(c, single=7),
        lambda c: None,
    ],
    ids=["logits that are no numbers", "an IoU that is none", "a token that is not there", "None"],
)
def test_an_answer_that_cannot_be_scored_is_failed_not_missed(change: Callable[..., object]):
    """A broken model is no bad model: nothing of it becomes a DICE of 0."""
    model = _Strange("strange", fakes.the_reference, change=change)
    records = _records([_sample()], model)

    assert len(records) == 12
    assert {r.outcome for r in records} == {"failed"}
    assert {r.dice for r in records} == {None}


def test_a_hundred_instances_or_one_have_the_same_target_id_by_class():
    """Ids of class targets do not tell how many instances there were: runs can be joined."""
    one = Target("i#cell/3", "cell", np.ones((4, 4), dtype=bool), 3)
    two = Target("i#cell/4", "cell", np.ones((4, 4), dtype=bool), 4)

    assert [t.target_id for t in regroup([one], "class")] == ["i#cell"]
    assert [t.target_id for t in regroup([one, two], "class")] == ["i#cell"]


def test_points_are_counted_and_a_full_window_is_a_failed_record():
    """S2 to S4 run like the others; an object that fills its window has no negative point."""
    names = ("point1", "points5", "points5+5")
    plan = Plan(tuple(STRATEGIES[name] for name in names))
    whole = Target("p#whole", "whole", np.ones((64, 80), dtype=bool))
    sample = _sample()
    sample = dataclasses.replace(sample, targets=(*sample.targets, whole))
    records = _records([sample], fakes.reference(), plan)
    counted = {(r.strategy, r.n_positive, r.n_negative) for r in records if r.outcome != "failed"}
    failed = [r for r in records if r.outcome == "failed"]

    assert counted == {("point1", 1, 0), ("points5", 5, 0), ("points5+5", 5, 5)}
    assert {(r.object, r.strategy) for r in failed} == {("whole", "points5+5")}
    assert all("no background in the window" in (r.reason or "") for r in failed)
    assert all(r.off_protocol for r in records)


def test_a_selection_that_a_model_neither_claims_nor_has_has_no_records():
    """A model with one mask and no more is no failure under the default selections."""

    def one_mask(candidates: Candidates) -> Candidates:
        return dataclasses.replace(candidates, predicted_iou=None, multimask=())

    single = dataclasses.replace(fakes.BOXES, selections=frozenset({"single"}))
    records = _records(
        [_sample()], _Strange("plain", fakes.the_reference, change=one_mask, training=single)
    )
    claiming = _records([_sample()], _Strange("bold", fakes.the_reference, change=one_mask))

    assert {(r.selection, r.outcome) for r in records} == {("single", "ok")}
    assert {(r.selection, r.outcome) for r in claiming} == {
        ("single", "ok"), ("oracle", "failed"), ("predicted", "failed")
    }  # fmt: skip


POINTS_AND_BOX = tuple(STRATEGIES[name] for name in ("point1", "points5", "points5+5", "box"))


@dataclasses.dataclass
class _Timed(fakes.Fake):
    """A model for which a clock of its own goes on: 1 ms a click, 50 ms a box, 7 ms an image."""

    now: float = 0.0
    batches: list[int] = dataclasses.field(default_factory=list)

    def embed(self, images: Sequence[fakes.Image]) -> list[fakes.Image]:
        self.now += 7e-3
        return fakes.Fake.embed(self, images)

    def segment(self, embedding: fakes.Image, prompts: Sequence[fakes.Prompt]) -> list[Candidates]:
        self.batches.append(len(prompts))
        for prompt in prompts:
            clicks = points_of(prompt)
            boxed = 50 * (box_of(prompt) is not None)
            self.now += 1e-3 * (boxed + (0 if clicks is None else len(clicks.xy)))
        return fakes.Fake.segment(self, embedding, prompts)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_time_of_a_prompt_is_that_of_its_strategy(
    batch_size: int, monkeypatch: pytest.MonkeyPatch
):
    """Whatever is asked beside it; a jittered prompt goes with its strategy."""
    model = _Timed("timed", fakes.filled_box)
    monkeypatch.setattr(time, "perf_counter", lambda: model.now)
    jitter = (Jitter("shift", "px", 1, 2), Jitter("centre", "px", 1, 2))
    plan = Plan(POINTS_AND_BOX, jitter=jitter, batch_size=batch_size)
    records = _records([_sample(0), _sample(1)], model, plan)
    told = {(r.strategy, round(r.embed_ms or 0, 6), round(r.decode_ms or 0, 6)) for r in records}

    assert told == {
        ("point1", 7, 1), ("points5", 7, 5), ("points5+5", 7, 10), ("box", 7, 50)
    }  # fmt: skip
    assert {r.strategy for r in records if r.jitter_mode} == {
        "points5",
        "points5+5",
        "point1",
        "box",
    }
    assert max(model.batches) == min(batch_size, 4), "two targets, exact and jittered"


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_records_and_prompts_come_in_the_order_in_which_was_asked(batch_size: int):
    """By target, then strategy, then jitter: however they were grouped to be decoded."""
    jitter = (Jitter("shift", "px", 1, 2), Jitter("shift", "px", 4, 5))
    plan = Plan(POINTS_AND_BOX, jitter=jitter, batch_size=batch_size, workers=2)
    (one,) = evaluate([_sample()], fakes.reference(), plan)
    asked = [
        (target, strategy.name, question.jitter.lo if question.jitter else None, selection)
        for target in sorted(target.target_id for target in regroup(_sample().targets, "class"))
        for strategy in POINTS_AND_BOX
        for question in plan.questions(strategy)
        for selection in plan.selections
    ]

    assert [(r.target_id, r.strategy, r.jitter_lo, r.selection) for r in one.records] == asked
    assert [row.prompt_id for row in one.prompts] == list(
        dict.fromkeys(r.prompt_id for r in one.records)
    )


class _Lazy(Executor):
    """Workers that score nothing until they are waited for."""

    def __init__(self, *_: object, **__: object) -> None:
        self.left = 0

    def submit(self, work: Callable[..., object], *of: object) -> Future[object]:
        pool = self

        class _Later(Future[object]):
            def result(self, timeout: float | None = None) -> object:
                if not self.done():
                    pool.left -= size
                    self.set_result(work(*of))
                return super().result(timeout)

        size = len(of[-1]) if work.__name__ == "_score_all" else 0  # type: ignore[arg-type]
        self.left += size
        return _Later()


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (2, 1), (2, 3)])
def test_the_model_waits_for_those_that_score(
    batch_size: int, workers: int, monkeypatch: pytest.MonkeyPatch
):
    """Answers in memory are bounded: a batch per worker, and the one that is being decoded."""
    pools: list[_Lazy] = []
    waiting: list[int] = []

    def pool(*_: object, **__: object) -> _Lazy:
        pools.append(_Lazy())
        return pools[-1]

    class _Watching(fakes.Fake):
        def segment(
            self, embedding: fakes.Image, prompts: Sequence[fakes.Prompt]
        ) -> list[Candidates]:
            waiting.append(pools[0].left)
            return fakes.Fake.segment(self, embedding, prompts)

    monkeypatch.setattr("promptseg.evaluation.ThreadPoolExecutor", pool)
    plan = Plan(POINTS_AND_BOX, batch_size=batch_size, workers=workers)
    (one,) = evaluate([_sample()], _Watching("watching", fakes.the_reference), plan)

    assert max(waiting) == batch_size * workers
    assert len(one.records) == 2 * 4 * 3
    assert {r.outcome for r in one.records} == {"ok"}


def test_an_image_comes_as_soon_as_it_is_scored(monkeypatch: pytest.MonkeyPatch):
    """While the model is at the next one: its records are kept before that is done."""
    submitted: list[Future[object]] = []
    asked: list[int] = []

    class _Kept(_Lazy):
        def submit(self, work: Callable[..., object], *of: object) -> Future[object]:
            submitted.append(_Lazy.submit(self, work, *of))
            return submitted[-1]

    class _Watching(fakes.Fake):
        def segment(
            self, embedding: fakes.Image, prompts: Sequence[fakes.Prompt]
        ) -> list[Candidates]:
            asked.append(self.embedded)
            if asked == [1, 1, 2]:  # now the first image is scored
                for future in submitted:
                    future.result()
            return fakes.Fake.segment(self, embedding, prompts)

    monkeypatch.setattr("promptseg.evaluation.ThreadPoolExecutor", _Kept)
    plan = Plan(POINTS_AND_BOX[:2])
    coming = evaluate([_sample(0), _sample(1)], _Watching("watching", fakes.filled_box), plan)

    assert (next(coming).image_id, asked) == ("p0", [1, 1, 2])
    assert (next(coming).image_id, asked) == ("p1", [1, 1, 2, 2])
