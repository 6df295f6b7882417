"""Paired comparisons against hand computation, SciPy, and what they promise about error rates."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from scipy import stats as scipy_stats

from promptseg.errors import DataError
from promptseg.paired import ALL, Cell, Comparison, compare, gather
from promptseg.parquet import arrow_schema
from promptseg.record import Record, Run, RunFolder, start_run
from promptseg.significance import can_pass, effect_size, holm, sign_flip_p, smallest_p

BASE = Run(
    corpus="phantom", corpus_path="/nowhere", corpus_fingerprint="f" * 64, layout="l" * 64,
    models={"old": "a" * 64, "new": "b" * 64}, asked={}, trained_for={}, licences={},
    custom_weights=[], strategies=["box"], selections=["single"], protocol="paper", unit="class",
    seeds=[0], jitter=[], everything={}, subset={}, max_targets=None, nsd_tolerance=2.0,
    save_masks="none", batch_size=64, device="cpu", dtype="float32", n_images=6, n_targets=12,
    of_images=6, of_targets=12, n_parts=1, versions={}, started="2025-01-01T00:00:00+00:00",
)  # fmt: skip


def record(**known) -> Record:
    """One box record of one target, scored unless said otherwise; its prompt is its target's."""
    fields = {
        "model": "old", "strategy": "box", "selection": "single", "protocol": "paper",
        "unit": "class", "off_protocol": False, "seed": 0, "dataset": "d", "subject": "a",
        "image_id": "i", "target_id": "t", "prompt_id": None, "object": "liver",
        "modality": "CT", "task": "liver (CT)", "outcome": "ok", "dice": 0.5,
        "distance_unit": "mm", "image_diagonal": 100.0,
    }  # fmt: skip
    whole = fields | known
    asked = f"{whole['image_id']}-{whole['target_id']}-{whole['strategy']}"
    return Record(**(whole | {"prompt_id": whole["prompt_id"] or asked}))


def frame(records: Sequence[Record]) -> pl.DataFrame:
    """Bring records to the form in which a run gives them."""
    import pyarrow as pa

    rows = [dataclasses.asdict(item) for item in records]
    found = pl.from_arrow(pa.Table.from_pylist(rows, arrow_schema(Record)))
    assert isinstance(found, pl.DataFrame)
    return found


def both(old: float | None, new: float | None, **known) -> list[Record]:
    """One prompt to both models."""
    return [record(dice=old, **known), record(**({"model": "new", "dice": new} | known))]


def of_subjects(old: Sequence[float], new: Sequence[float], **known) -> list[Record]:
    """One image with one target per subject, scored by both models."""
    return [
        item
        for i, (x, y) in enumerate(zip(old, new, strict=True))
        for item in both(
            float(x), float(y), **({"subject": f"s{i:03}", "image_id": f"i{i}"} | known)
        )
    ]


def compared(records: Sequence[Record], **options) -> Comparison:
    """Compare the two models of these tests."""
    return compare(frame(records), "old", "new", **options)


def only(found: Comparison) -> Cell:
    """Take the cell of a comparison that has one."""
    (cell,) = found.cells
    return cell


def test_differences_are_averaged_target_image_subject():
    """By hand: a = mean(mean(.2, 0), .3) = .2, b = -.1, so .05; over all four pairs it is .1."""
    records = [
        *both(0.5, 0.7, subject="a", image_id="a1", target_id="1"),
        *both(0.5, 0.5, subject="a", image_id="a1", target_id="2"),
        *both(0.5, 0.8, subject="a", image_id="a2", target_id="3"),
        *both(0.5, 0.4, subject="b", image_id="b1", target_id="4"),
    ]

    cell = only(compared(records))

    assert cell.difference.value == pytest.approx(0.05)
    assert (cell.before, cell.after) == pytest.approx((0.5, 0.55))
    assert cell.difference.subject_values == pytest.approx((0.2, -0.1))
    assert [u.after - u.before for u in cell.units] == pytest.approx([0.2, -0.1])
    assert (cell.difference.lo, cell.n_units, cell.n_pairs) == (None, 2, 4)


@pytest.mark.parametrize("n", [5, 11, 29])
def test_below_thirty_subjects_the_interval_is_that_of_the_paired_t_test(n):
    """Against scipy.stats.ttest_rel, from the scores and not from their differences."""
    rng = np.random.default_rng(n)
    old, new = rng.uniform(0.4, 0.6, n), rng.uniform(0.4, 0.7, n)

    cell = only(compared(of_subjects(old, new)))

    expected = scipy_stats.ttest_rel(new, old).confidence_interval(0.95)
    assert (cell.difference.lo, cell.difference.hi) == pytest.approx(tuple(expected))
    assert cell.difference.notes == (("few",) if n < 12 else ())


def test_from_thirty_subjects_the_interval_is_a_percentile_bootstrap():
    """Its ends are near those of scipy.stats.bootstrap, whose draws are others."""
    rng = np.random.default_rng(2)
    old = rng.uniform(0.4, 0.6, 40)
    new = old + rng.exponential(0.05, 40)

    cell = only(compared(of_subjects(old, new)))

    expected = scipy_stats.bootstrap((new - old,), np.mean, method="percentile", rng=rng)
    assert cell.difference.method == "bootstrap"
    assert cell.difference.lo == pytest.approx(expected.confidence_interval.low, abs=0.002)
    assert cell.difference.hi == pytest.approx(expected.confidence_interval.high, abs=0.002)


def test_a_gain_may_be_negative_and_its_interval_below_zero():
    """The bounds of DICE cut no difference."""
    rng = np.random.default_rng(0)

    cell = only(compared(of_subjects(rng.uniform(0.7, 0.8, 12), rng.uniform(0.3, 0.4, 12))))

    assert cell.difference.value == pytest.approx(-0.4, abs=0.05)
    assert cell.difference.hi < -0.3
    assert (cell.verdict, cell.p) == ("tested", 2 / 2**12)


@pytest.mark.parametrize("n", [6, 9, 12])
def test_few_units_are_tested_by_all_their_sign_flips(n):
    """Against scipy.stats.permutation_test, which enumerates them as well."""
    values = np.random.default_rng(n).normal(0.05, 0.1, n)

    expected = scipy_stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf
    )

    assert sign_flip_p(values) == pytest.approx(expected.pvalue)


def test_many_units_are_tested_by_drawn_sign_flips_and_the_added_one():
    """Near SciPy's of as many draws; where no flip reaches the observed it is 1/20,001."""
    values = np.random.default_rng(5).normal(0.03, 0.08, 25)

    expected = scipy_stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=20_000, rng=1
    )

    assert sign_flip_p(values) == pytest.approx(expected.pvalue, abs=0.01)
    assert sign_flip_p(np.full(60, 0.1)) == 1 / 20_001 == smallest_p(60)
    assert sign_flip_p(values, seed=1) == sign_flip_p(values, seed=1)


def test_no_difference_at_all_is_no_evidence():
    """All flips of zeros are equal to the observed sum."""
    assert sign_flip_p(np.zeros(8)) == 1.0
    with pytest.raises(ValueError, match="nothing to flip"):
        sign_flip_p(np.zeros(0))


def test_without_an_effect_one_in_twenty_is_found():
    """Of 2,000 comparisons of 20 skewed but symmetric differences 4 to 6 % have p <= 0.05."""
    rng = np.random.default_rng(7)
    nulls = rng.laplace(0, 0.1, (2000, 20)) * rng.uniform(0.2, 2, 20)

    found = np.mean([sign_flip_p(values, seed=i) <= 0.05 for i, values in enumerate(nulls)])

    assert 0.04 <= found <= 0.06


def test_holm_is_the_correction_of_the_textbook():
    """By hand: 3 x 0.01, then 2 x 0.02 (not below the first), then 0.03 raised to 0.04."""
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.9, 0.6]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_with_too_few_subjects_there_is_no_p():
    """Five subjects give at best 2/32; six pass alone, and not beside a second row of six."""
    assert can_pass([5]) == [False]
    assert can_pass([6]) == [True]
    assert can_pass([6, 6]) == [False, False]
    assert can_pass([7, 7, 7]) == [True, True, True]
    # rows of few subjects cost those of many nothing
    assert can_pass([20, *[5] * 30]) == [True, *[False] * 30]


def test_a_row_that_cannot_pass_says_so():
    """Five subjects, all better by as much as can be."""
    cell = only(compared(of_subjects([0.1] * 5, [0.5, 0.6, 0.7, 0.8, 0.9])))

    assert (cell.verdict, cell.p, cell.p_holm) == ("too few subjects to test", None, None)
    assert cell.difference.lo is not None


def test_holm_is_over_all_rows_that_are_tested():
    """Two tasks and their mean are three rows: the smallest p counts three times."""
    rng = np.random.default_rng(1)
    records = []
    for task, gain in (("a (CT)", 0.2), ("b (CT)", 0.0)):
        old = rng.uniform(0.4, 0.5, 10)
        new = old + gain + rng.normal(0, 0.05, 10)
        records += of_subjects(old, new, task=task, target_id=task)

    found = compared(records)

    a, b = found.cells
    (mean,) = found.means
    assert found.n_tested == 3
    assert a.p == 2 / 2**10
    assert [a.p_holm, mean.p_holm, b.p_holm] == pytest.approx(
        sorted(holm([a.p or 0, mean.p or 0, b.p or 0]))
    )


def test_a_planted_difference_is_found_with_its_sign():
    """Thirteen subjects lose 0.1 each: the interval, the p and the effect all say so."""
    rng = np.random.default_rng(4)
    old = rng.uniform(0.3, 0.9, 13)  # subjects differ by far more than the models do
    new = old - 0.1 + rng.normal(0, 0.03, 13)

    cell = only(compared(of_subjects(old, new)))

    assert cell.difference.lo < -0.1 < cell.difference.hi < -0.05
    assert cell.p_holm < 0.01
    assert cell.effect == pytest.approx((new - old).mean() / (new - old).std(ddof=1))
    assert cell.effect < -2


def test_what_only_one_model_answered_moves_no_mean():
    """The new model alone met the hard images: unpaired means would show a loss."""
    pairs = of_subjects([0.5] * 6, [0.6] * 6)
    hard = [record(model="new", subject=f"s{i}", image_id=f"hard{i}", dice=0.0) for i in range(6)]

    cell = only(compared([*pairs, *hard]))

    assert cell.difference.value == pytest.approx(0.1)
    assert (cell.before, cell.after) == pytest.approx((0.5, 0.6))
    assert cell.counts.unpaired_after == 6


def test_a_subject_with_many_images_does_not_decide():
    """One subject of 50 images gains 0.3, six of one image lose 0.1: that is a loss."""
    many = [item for i in range(50) for item in both(0.4, 0.7, subject="many", image_id=f"m{i}")]

    cell = only(compared([*many, *of_subjects([0.6] * 6, [0.5] * 6)]))

    assert cell.difference.value == pytest.approx((0.3 - 6 * 0.1) / 7)


def test_a_task_with_many_subjects_does_not_decide_the_mean():
    """Within each task the new model is worse; pooled over tasks of unlike size it looks better."""
    records = [
        *of_subjects([0.9] * 20, [0.8] * 20, task="easy (CT)", target_id="e"),
        *of_subjects([0.3] * 5, [0.2] * 5, task="hard (CT)", target_id="h"),
        # what the old model was asked beside: hard targets alone, which would pull its mean down
        *(record(dice=0.3, task="hard (CT)", target_id="h", image_id=f"x{i}") for i in range(40)),
    ]

    found = compared(records)

    assert [cell.difference.value for cell in found.cells] == pytest.approx([-0.1, -0.1])
    assert found.means[0].difference.value == pytest.approx(-0.1)
    assert found.counts.unpaired_before == 40


def test_failed_records_are_counted_and_not_paired():
    """A target that one model failed on is no pair, and no zero."""
    records = [
        *of_subjects([0.5] * 5, [0.6] * 5),
        record(image_id="f1", subject="s1", dice=0.9),
        record(model="new", image_id="f1", subject="s1", outcome="failed", dice=None),
        record(image_id="f2", outcome="failed", dice=None, task=None, target_id=None),
    ]

    found = compared(records)

    assert only(found).difference.value == pytest.approx(0.1)
    assert dataclasses.astuple(only(found).counts) == (1, 0, 0, 1)
    assert dataclasses.astuple(found.counts) == (1, 0, 1, 1)
    assert found.n_pairs == 5


def test_other_prompts_to_one_target_are_no_pair():
    """The prompt's identity counts, not the target's: another box is another question."""
    records = [record(prompt_id="p1"), record(model="new", prompt_id="p2", dice=0.9)]

    cell = only(compared(records))

    assert (cell.difference.value, cell.n_pairs, cell.verdict) == (None, 0, "nothing to test")
    assert (cell.counts.unpaired_before, cell.counts.unpaired_after) == (1, 1)


def test_masks_of_other_tools_pair_by_target():
    """A target without a mask has no prompt_id, and is a miss all the same."""
    missed = dataclasses.replace(
        record(model="new", strategy="masks", outcome="miss", dice=0.0), prompt_id=None
    )

    cell = only(compared([record(strategy="masks", dice=0.5), missed]))

    assert cell.difference.value == pytest.approx(-0.5)


def test_seeds_and_jitter_levels_pair_each_with_itself():
    """Two seeds of one target are averaged; another jitter is another row."""
    jitter = {"jitter_mode": "edge", "jitter_unit": "px", "jitter_lo": 0.0, "jitter_hi": 5.0}
    records = [
        *both(0.5, 0.6),
        *both(0.5, 0.6, **jitter, prompt_id="x", seed=0),
        *both(0.4, 0.7, **jitter, prompt_id="y", seed=1),
    ]

    exact, moved = compared(records).cells

    assert exact.difference.value == pytest.approx(0.1)
    assert moved.difference.value == pytest.approx(0.2)
    assert moved.group.jitter == "edge:px:0-5"


def test_off_protocol_of_either_model_is_marked_and_in_no_mean():
    """The old model was not trained for points: its row is kept out, untested."""
    records = [
        *of_subjects([0.5] * 8, [0.6] * 8),
        *of_subjects([0.5] * 8, [0.6] * 8, task="b (CT)", target_id="b"),
    ]
    for i, task in enumerate(("liver (CT)", "b (CT)")):
        points = {"strategy": "point1", "task": task, "target_id": f"p{i}"}
        records += [record(**points, off_protocol=True), record(**points, model="new", dice=0.9)]

    found = compared(records)

    off = [cell for cell in found.cells if cell.group.strategy == "point1"]
    assert [(cell.off, cell.verdict, cell.group.off_protocol) for cell in off] == [
        ("before", "off-protocol", True)
    ] * 2
    assert off[0].difference.value == pytest.approx(0.4)
    assert [mean.group.strategy for mean in found.means] == ["box"]


def test_means_are_over_the_tasks_of_their_scope():
    """What was trained on, and what was not, each has its mean."""
    gains = {"a (CT)": 0.3, "b (CT)": 0.1, "c (CT)": -0.1, "d (CT)": -0.3}
    records = [
        item
        for task, gain in gains.items()
        for item in of_subjects([0.5] * 5, [0.5 + gain] * 5, task=task, target_id=task)
    ]

    found = compared(
        records,
        scopes={"trained": frozenset({"a (CT)", "b (CT)"}), "new": frozenset({"c (CT)", "d (CT)"})},
    )

    assert {mean.scope: mean.difference.value for mean in found.means} == pytest.approx(
        {"trained": 0.2, "new": -0.2}
    )
    assert compared(records).means[0].scope == ALL


def test_a_subject_of_several_tasks_is_one_in_the_mean():
    """Eight subjects in two tasks flip as eight: the smallest p is 2/2^8, not 2/2^16."""
    records = [
        item
        for task in ("a (CT)", "b (CT)")
        for item in of_subjects([0.5] * 8, np.linspace(0.6, 0.7, 8), task=task, target_id=task)
    ]

    (mean,) = compared(records).means

    assert (mean.n_units, mean.p) == (8, 2 / 2**8)


def test_unknown_subjects_are_compared_by_image_and_it_is_said():
    """Images stand in for subjects, which the note tells."""
    records = [item for i in range(6) for item in both(0.5, 0.6, subject=None, image_id=f"i{i}")]

    cell = only(compared(records))

    assert cell.n_units == 6
    assert "by image" in cell.difference.notes
    assert cell.difference.n_subjects is None


def test_a_distance_undefined_for_one_is_undefined_for_the_pair():
    """A miss has no HD95: the pair is left out of all three means, and counted."""
    records = [
        record(hd95=4.0),
        record(model="new", hd95=2.0),
        record(image_id="j", hd95=50.0),
        record(model="new", image_id="j", outcome="miss", dice=0.0, hd95=None),
        record(image_id="k", hd95=5.0, distance_unit="px"),
        record(model="new", image_id="k", hd95=6.0, distance_unit="px"),
    ]

    mm, px = compared(records, metric="hd95").cells

    assert (mm.before, mm.after, mm.difference.value) == pytest.approx((4.0, 2.0, -2.0))
    assert mm.difference.n_undefined == 1
    assert (mm.group.distance_unit, px.group.distance_unit) == ("mm", "px")
    assert px.difference.value == pytest.approx(1.0)


def test_effect_sizes_need_five_units_that_differ():
    """Of fewer the standard deviation says little; of equal ones it is zero."""
    assert effect_size(np.array([0.1, 0.2, 0.3, 0.4])) is None
    assert effect_size(np.full(9, 0.1)) is None
    assert effect_size(np.array([1.0, 2, 3, 4, 5])) == pytest.approx(3 / np.sqrt(2.5))


def test_models_that_cannot_be_compared_are_refused():
    """Each message says what is there, or what to do."""
    records = both(0.5, 0.6)
    with pytest.raises(DataError, match="no record of other, but of new, old"):
        compare(frame(records), "old", "other")
    with pytest.raises(DataError, match="with itself"):
        compare(frame(records), "old", "old")
    with pytest.raises(DataError, match="old was scored twice on one prompt"):
        compared([*records, records[0]])


def folder(path, records: Sequence[Record], **settings) -> RunFolder:
    """Write a run of one part."""
    made = start_run(path, dataclasses.replace(BASE, **settings))
    made.write_part(0, records, [], [])
    return made


def test_two_runs_of_one_model_each_are_compared(tmp_path):
    """The base may have been scored long ago; on another corpus it was asked something else."""
    old = folder(tmp_path / "old", [record()], models={"old": "a"})
    new = folder(tmp_path / "new", [record(model="new", dice=0.7)], models={"new": "b"})
    other = folder(
        tmp_path / "x", [record(model="new")], models={"new": "b"}, corpus_fingerprint="e" * 64
    )

    assert only(compare(gather([old, new]), "old", "new")).difference.value == pytest.approx(0.2)
    assert compare(gather([old, other]), "old", "new").n_pairs == 0


def test_runs_that_do_not_belong_together_are_refused(tmp_path):
    """One run twice, or one name for two sets of weights."""
    one = folder(tmp_path / "one", both(0.5, 0.6))
    two = folder(tmp_path / "two", both(0.5, 0.6), models={"old": "a" * 64, "new": "c" * 64})

    with pytest.raises(DataError, match="given twice"):
        gather([one, one])
    with pytest.raises(DataError, match="new has other weights"):
        gather([one, two])
    with pytest.raises(ValueError, match="at least one run"):
        gather([])
