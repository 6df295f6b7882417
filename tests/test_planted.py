"""What was planted comes out: the order of strategies, jitter curves, everything."""

import dataclasses
from pathlib import Path

import fakes
import numpy as np
import polars as pl
import pytest
from phantom import disc, write_phantoms
from PIL import Image

from promptseg.evaluation import evaluate, evaluate_masks
from promptseg.jitter import Jitter
from promptseg.mask import from_rle
from promptseg.plan import Plan, plan_of_masks
from promptseg.predictions import open_predictions
from promptseg.prompt import Everything, Prompt, box_of, from_json
from promptseg.record import Record, start_run
from promptseg.report.table import summary_rows
from promptseg.run import describe_run, evaluate_corpus
from promptseg.sample import Listed, Sample, Target, Unreadable
from promptseg.strategy import EMPTY_REFERENCE, STRATEGIES

SIX = tuple(STRATEGIES.values())
LEVELS = tuple(Jitter("shift", "px", lo, lo + 10) for lo in (0, 10, 20))


def _sample(index: int = 0, size: tuple[int, int] = (200, 260)) -> Sample:
    """Draw one object of grey 150 far from every edge, and one of 151."""
    height, width = size
    masks = {
        "disc": disc(height, width, (100, 75), 14 + index % 7),
        "bar": np.zeros(size, dtype=bool),
    }
    masks["bar"][90 : 105 + index % 5, 150 : 200 + index % 9] = True
    image = np.full((*size, 3), 40, dtype=np.uint8)
    for value, mask in enumerate(masks.values(), start=150):
        image[mask] = value
    targets = tuple(Target(f"p{index}#{name}", name, mask) for name, mask in masks.items())
    return Sample(f"p{index}", image, "phantom", "CT", targets, subject=f"s{index}")


def _frame(records: list[Record]) -> pl.DataFrame:
    return pl.DataFrame(
        [dataclasses.asdict(record) for record in records], infer_schema_length=None
    )


def _evaluated(plan: Plan, samples: int = 1, model: fakes.Planted | None = None) -> pl.DataFrame:
    model = model or fakes.planted()
    images = evaluate([_sample(i) for i in range(samples)], model, plan)
    return _frame([record for one in images for record in one.records])


def test_the_order_of_the_strategies_comes_out_as_planted(tmp_path: Path):
    """S6 > S5 > S4 > S3 > S2, with the planted DICE, through corpus, run and table."""
    corpus = write_phantoms(tmp_path / "c", range(12))
    models = {"fakes:planted": fakes.planted()}
    plan = Plan(tuple(s for s in SIX if s.make is not None))
    folder = start_run(tmp_path / "r", describe_run(corpus, models, plan))
    for _ in evaluate_corpus(corpus, folder, models, plan):
        pass
    single = {
        row.group.strategy: row.dice.value
        for row in summary_rows([folder])
        if row.group.selection == "single"
    }
    planted = {"point1": 0.45, "points5": 0.65, "points5+5": 0.75, "box": 0.90, "box+point": 0.93}

    assert single == {name: pytest.approx(dice, abs=0.004) for name, dice in planted.items()}
    assert single["box"] > single["points5+5"] > single["points5"] > single["point1"]


def test_everything_finds_each_object_and_counts_what_matches_none():
    """The oracle's match has the planted DICE of one point; records count the survivors."""
    plan = Plan((STRATEGIES["everything"],), everything={"planted": Everything(16, 0.2, 0.9)})
    (one,) = evaluate([_sample()], fakes.planted(), plan)
    records = {(r.object, r.selection): r for r in one.records}

    assert set(records) == {(o, s) for o in ("disc", "bar") for s in ("oracle", "predicted")}
    for name in ("disc", "bar"):
        match = records[name, "oracle"]
        assert match.dice == pytest.approx(0.45, abs=0.005)
        assert (match.n_survivors, match.n_unmatched, match.n_matches) == (2, 0, 1)
        assert match.off_protocol is False
    # one mask is offered for both targets, and fits one of them
    assert {records["disc", "predicted"].dice, records["bar", "predicted"].dice} >= {0.0}
    (prompt,) = one.prompts
    assert prompt.target_id is None
    assert from_json(prompt.prompt) == Everything(16, 0.2, 0.9)
    assert {record.prompt_id for record in one.records} == {prompt.prompt_id}


def test_the_saved_masks_of_everything_are_those_that_were_scored():
    """A record leads to its mask by prompt and index; `all` keeps every survivor."""
    settings = {"planted": Everything(16, 0.1, 0.9, box_nms_thresh=1.0)}
    for save, kept in (("none", 0), ("all", None)):
        plan = Plan((STRATEGIES["everything"],), everything=settings, save_masks=save)
        (one,) = evaluate([_sample()], fakes.planted(), plan)
        assert len(one.masks) == (one.records[0].n_survivors if kept is None else kept)
    plan = Plan((STRATEGIES["everything"],), everything=settings)
    sample = _sample()
    (one,) = evaluate([sample], fakes.planted(), plan)
    stored = {(row.prompt_id, row.mask_index): from_rle(row.mask) for row in one.masks}
    references = {target.object: target.mask for target in sample.targets}
    for record in one.records:
        mask, reference = stored[record.prompt_id, record.mask_index], references[record.object]
        assert record.dice == pytest.approx(
            2 * (mask & reference).sum() / (mask.sum() + reference.sum())
        )
    assert len(one.masks) == len({record.mask_index for record in one.records})


def test_one_mask_may_match_several_targets_and_the_count_is_kept():
    """Two annotators outline one object: the same survivor is the match of both."""
    sample = _sample()
    disc_mask = sample.targets[0].mask
    twins = tuple(
        Target(f"p0#disc@{name}", "disc", disc_mask, annotator=name) for name in ("ann", "bob")
    )
    sample = dataclasses.replace(sample, targets=twins)
    plan = Plan((STRATEGIES["everything"],), everything={"planted": Everything(16, 0.2, 0.9)})
    (one,) = evaluate([sample], fakes.planted(), plan)
    matches = [r for r in one.records if r.selection == "oracle"]

    assert len({r.mask_index for r in matches}) == 1
    assert {r.n_matches for r in matches} == {2}
    assert {r.n_unmatched for r in matches} == {1}  # the bar's mask


def test_no_survivor_is_a_miss_of_every_target():
    """PROTOCOL decision 6: overlaps 0, distances null, and the reason."""
    plan = Plan((STRATEGIES["everything"],), everything={"planted": Everything(8, 0.99)})
    records = _evaluated(plan)

    assert records["outcome"].unique().to_list() == ["miss"]
    assert records["reason"].unique().to_list() == ["no mask survived"]
    assert records["dice"].to_list() == [0.0] * 4
    assert records["hd95"].null_count() == 4
    assert records["n_survivors"].to_list() == [0] * 4


def test_a_model_that_was_not_trained_for_points_has_everything_off_protocol():
    """Everything asks with points, and filters by a predicted IoU."""
    for prompts, selections, off in (
        ({"box"}, {"oracle", "predicted"}, True),
        ({"points"}, {"oracle"}, True),
        ({"points"}, {"oracle", "predicted"}, False),
    ):
        training = fakes.Training(frozenset(prompts), frozenset(selections))
        model = fakes.Planted(training=training)
        records = _evaluated(Plan((STRATEGIES["everything"],)), model=model)
        assert records["off_protocol"].unique().to_list() == [off]


def _by_distance(mask: np.ndarray, prompt: Prompt) -> float:
    """Plant a loss of 0.02 per pixel that the box's centre lies off the object's."""
    box = box_of(prompt)
    assert box is not None
    y, x = np.nonzero(mask)
    away = np.hypot(
        (box.x0 + box.x1) / 2 - (x.min() + x.max() + 1) / 2,
        (box.y0 + box.y1) / 2 - (y.min() + y.max() + 1) / 2,
    )
    return 0.9 - 0.02 * float(away)


def test_jitter_curves_come_out_as_planted():
    """A loss of 0.02 per pixel, drawn from 0-10, 10-20 and 20-30: means of 0.8, 0.6 and 0.4."""
    plan = Plan((STRATEGIES["box"],), selections=("single",), seeds=tuple(range(10)), jitter=LEVELS)
    model = fakes.Planted(quality=_by_distance)
    records = _evaluated(plan, samples=12, model=model)
    curve = dict(records.group_by("jitter_lo").agg(pl.col("dice").mean()).iter_rows())
    drawn = records.filter(pl.col("jitter_lo").is_not_null())
    n = 12 * 2 * 10

    assert curve[None] == pytest.approx(0.9, abs=0.005)
    for lo in (0, 10, 20):
        # the mean of n uniform draws of width 10 has a standard error of 10 / sqrt(12 n)
        error = 3.5 * 0.02 * 10 / np.sqrt(12 * n)
        assert curve[lo] == pytest.approx(0.9 - 0.02 * (lo + 5), abs=error + 0.005)
    assert drawn.height == 3 * n
    assert drawn.group_by("jitter_lo", "seed").len().height == 30
    assert records.filter(pl.col("jitter_lo").is_null())["seed"].unique().to_list() == [0]


def test_one_encoder_call_per_image_for_six_strategies_three_levels_and_five_seeds():
    """All is decoded from one embedding: the counter of the model says so."""
    model = fakes.planted()
    plan = Plan(
        SIX,
        seeds=(0, 1, 2, 3, 4),
        jitter=(*LEVELS, *(dataclasses.replace(level, mode="centre") for level in LEVELS)),
        everything={"planted": Everything(8, 0.2, 0.9)},
    )
    done = list(evaluate([_sample(i) for i in range(2)], model, plan))

    assert model.embedded == 2
    # exact: 5 prompted strategies; shift and centre each move 2 of box, box+point and 4 with points
    per_target = 5 + 15 * 2 + 15 * 4
    for one in done:
        assert len(one.prompts) == 1 + 2 * per_target
        assert len(one.records) == 2 * (2 + 3 * per_target)
        assert len({row.prompt_id for row in one.prompts}) == len(one.prompts)


def test_jitter_leaves_what_it_does_not_move_to_the_exact_prompt():
    """No record pretends that a point was shifted like a box."""
    plan = Plan(SIX, seeds=(0, 1), jitter=(Jitter("shift", "px", 1, 2),))
    records = _evaluated(plan)
    moved = records.filter(pl.col("jitter_mode") == "shift")

    assert set(moved["strategy"].unique()) == {"box", "box+point"}
    with pytest.raises(ValueError, match="moves nothing of the strategies"):
        Plan((STRATEGIES["point1"],), jitter=(Jitter("shift", "px", 1, 2),))


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (3, 4), (1000, 2)])
def test_records_are_the_same_for_any_batch_size_and_number_of_workers(
    batch_size: int, workers: int
):
    """Neither how many prompts go together nor who scores them can be seen in a record."""
    plan = Plan(SIX, seeds=(0, 1), jitter=LEVELS[:1], everything={"planted": Everything(8, 0.2)})
    other = dataclasses.replace(plan, batch_size=batch_size, workers=workers)
    by = ["image_id", "target_id", "strategy", "selection", "jitter_lo", "seed"]
    first, second = (
        _evaluated(p, samples=3).drop("embed_ms", "decode_ms").sort(by) for p in (plan, other)
    )

    assert first.equals(second)


@dataclasses.dataclass
class _Shy(fakes.Planted):
    """A model that raises at points, alone or in company."""

    def segment(self, embedding: fakes.Image, prompts: list[Prompt]) -> list[fakes.Candidates]:
        if any(box_of(prompt) is None for prompt in prompts):
            raise RuntimeError("points are too much for me")
        return fakes.Planted.segment(self, embedding, prompts)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_a_prompt_that_fails_does_not_take_its_batch_with_it(batch_size: int):
    """Which prompts fail is a matter of the model, not of the batch."""
    plan = Plan(SIX, batch_size=batch_size)
    records = _evaluated(plan, model=_Shy())
    failed = set(records.filter(pl.col("outcome") == "failed")["strategy"].unique())

    assert failed == {"everything", "point1", "points5", "points5+5"}
    assert set(records.filter(pl.col("outcome") == "ok")["strategy"]) == {"box", "box+point"}
    assert (
        "points are too much for me" in records.filter(pl.col("strategy") == "point1")["reason"][0]
    )


def test_targets_per_image_are_drawn_by_name_and_nested():
    """At most N, the same whatever the order, and those of a smaller N among those of a larger."""
    sample = _sample()
    cells = []
    for i in range(20):
        mask = np.zeros((200, 260), dtype=bool)
        mask[10 * i : 10 * i + 5, 10:20] = True
        cells.append(Target(f"p0#cell/{i}", "cell", mask, i))
    sample = dataclasses.replace(sample, targets=tuple(cells))
    turned = dataclasses.replace(sample, targets=tuple(cells[::-1]))

    def drawn(of: Sample, most: int, seed: int = 0) -> set[str]:
        plan = Plan((STRATEGIES["box"],), unit="instance", max_targets=most, seeds=(seed,))
        (one,) = evaluate([of], fakes.reference(), plan)
        return {record.target_id for record in one.records}

    assert len(drawn(sample, 5)) == 5
    assert drawn(sample, 5) == drawn(turned, 5)
    assert drawn(sample, 4) < drawn(sample, 5) < drawn(sample, 19)
    assert drawn(sample, 5) != drawn(sample, 5, seed=1)
    assert len(drawn(sample, 50)) == 20


def test_which_targets_are_drawn_is_a_matter_of_the_first_seed():
    """Several seeds jitter the same targets."""
    sample = _sample()
    jitter = (Jitter("shift", "px", 1, 2),)
    one_each = Plan((STRATEGIES["box"],), max_targets=1)
    drawn = []
    for seeds in ((5,), (5, 6), (6,)):
        plan = Plan((STRATEGIES["box"],), max_targets=1, seeds=seeds, jitter=jitter)
        (one,) = evaluate(
            [
                sample,
            ],
            fakes.planted(),
            plan,
        )
        drawn.append({record.target_id for record in one.records})
    several = [
        {r.target_id for r in one.records}
        for i in range(8)
        for one in evaluate([_sample(i)], fakes.planted(), one_each)
    ]

    assert drawn[0] == drawn[1]
    assert len({next(iter(ids)).partition("#")[2] for ids in several}) == 2


def test_prompts_that_coincide_are_kept_once():
    """Of a one-pixel object one point is five: masks join to records without doubling them."""
    sample = _sample()
    dot = np.zeros((200, 260), dtype=bool)
    dot[100, 75] = True
    sample = dataclasses.replace(sample, targets=(Target("p0#dot", "dot", dot),))
    plan = Plan((STRATEGIES["point1"], STRATEGIES["points5"]))
    (one,) = evaluate([sample], fakes.planted(), plan)

    assert len(one.records) == 6
    assert len({record.prompt_id for record in one.records}) == len(one.prompts) == 1
    assert len({(row.prompt_id, row.mask_index) for row in one.masks}) == len(one.masks)


def test_an_unreadable_image_fails_the_targets_that_it_would_have_had():
    """By class, annotators apart, and no more than are drawn: ids join to those of other runs."""
    sample = _sample()
    mask = sample.targets[0].mask
    targets = tuple(
        Target(f"p0#{name}", name[0], mask, annotator=annotator)
        for name, annotator in (("a/1@x", "x"), ("a/2@x", "x"), ("a/1@y", "y"), ("b", None))
    )
    listed = tuple(Listed(t.target_id, t.object, t.annotator) for t in targets)
    lost = Unreadable("p0", "phantom", "CT", "s0", listed, "truncated")
    for most in (None, 2, 1):
        for unit in ("class", "instance"):
            plan = Plan(SIX, unit=unit, max_targets=most)
            there, gone = (
                {(r.target_id, r.strategy, r.selection) for one in done for r in one.records}
                for done in (
                    evaluate([dataclasses.replace(sample, targets=targets)], fakes.planted(), plan),
                    evaluate([lost], fakes.planted(), plan),
                )
            )
            assert there == gone


def test_an_empty_or_ill_fitting_reference_fails_alone():
    """Whatever is wrong with one target, the loop goes on, and the others have their scores."""
    sample = _sample()
    empty = Target("p0#empty", "empty", np.zeros((200, 260), dtype=bool))
    plan = Plan(SIX, everything={"planted": Everything(8, 0.2)})
    (one,) = evaluate(
        [dataclasses.replace(sample, targets=(*sample.targets, empty))], fakes.planted(), plan
    )
    failed = [r for r in one.records if r.outcome == "failed"]
    small = Target("p0#small", "small", np.ones((20, 26), dtype=bool))
    (other,) = evaluate([dataclasses.replace(sample, targets=(small,))], fakes.planted(), plan)

    assert {r.object for r in failed} == {"empty"}
    assert {r.reason for r in failed} == {EMPTY_REFERENCE}
    assert {r.strategy for r in failed} == set(STRATEGIES)
    assert {r.outcome for r in other.records} == {"failed"}


def test_an_empty_reference_fails_alone_under_masks_of_other_tools_too(tmp_path: Path):
    """With a prediction of its object and without one: no score, and the others keep theirs."""
    corpus = write_phantoms(tmp_path / "c", range(2))
    (first, _) = corpus.read(corpus.row_groups()[0])
    assert isinstance(first, Sample)
    (tmp_path / "net").mkdir()
    for target in first.targets:
        Image.fromarray(target.mask).save(tmp_path / "net" / f"0000_{target.object}.png")
    nothing = np.zeros_like(first.targets[0].mask)
    empty = [Target(f"{first.image_id}#{name}?", name, nothing) for name in ("disc", "ghost")]
    sample = dataclasses.replace(first, targets=(*first.targets, *empty))
    predictions = open_predictions(tmp_path / "net", corpus)
    for unit in ("class", "instance"):
        kept = (
            sample
            if unit == "instance"
            else dataclasses.replace(sample, targets=(*first.targets, empty[1]))
        )
        plan = plan_of_masks(Plan((STRATEGIES["box"],), unit=unit))
        (one,) = evaluate_masks([kept], predictions, plan)
        failed = {r.target_id: r.reason for r in one.records if r.outcome == "failed"}

        assert set(failed.values()) == {EMPTY_REFERENCE}
        assert len(failed) == len(kept.targets) - 2
        assert [r.dice for r in one.records if r.outcome == "ok"] == [1.0, 1.0]
