"""Estimates against hand computation, SciPy, and what they promise about coverage."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from scipy import stats as scipy_stats

from promptseg.parquet import arrow_schema
from promptseg.record import Record
from promptseg.stats import (
    Estimate,
    Group,
    bootstrap_interval,
    estimate,
    over_tasks,
    t_interval,
    unit_means,
)


def record(**known) -> Record:
    """One box record of one target, scored unless said otherwise."""
    fields = {
        "model": "m", "strategy": "box", "selection": "single", "protocol": "paper",
        "unit": "class", "off_protocol": False, "seed": 0, "dataset": "d", "subject": "a",
        "image_id": "i", "target_id": "t", "prompt_id": "p", "object": "liver",
        "modality": "CT", "task": "liver (CT)", "outcome": "ok", "dice": 0.5,
        "distance_unit": "mm", "image_diagonal": 100.0,
    }  # fmt: skip
    return Record(**(fields | known))


def frame(records: Sequence[Record]) -> pl.DataFrame:
    """Bring records to the form in which a run gives them."""
    import pyarrow as pa

    rows = [dataclasses.asdict(item) for item in records]
    found = pl.from_arrow(pa.Table.from_pylist(rows, arrow_schema(Record)))
    assert isinstance(found, pl.DataFrame)
    return found


def only(estimates: dict[Group, Estimate]) -> Estimate:
    """Take the estimate of a frame that has one group."""
    (found,) = estimates.values()
    return found


def of_subjects(values: Sequence[float], **known) -> list[Record]:
    """One image with one target per subject."""
    return [
        record(subject=f"s{i:03}", image_id=f"i{i}", target_id=f"t{i}", dice=float(v), **known)
        for i, v in enumerate(values)
    ]


def test_targets_are_averaged_in_images_and_images_in_subjects():
    """By hand: a = mean(mean(0, 1), 0.8) = 0.65 and b = 0.25, so 0.45; a plain mean is 0.5125."""
    records = [
        record(subject="a", image_id="a1", target_id="1", dice=0.0),
        record(subject="a", image_id="a1", target_id="2", dice=1.0),
        record(subject="a", image_id="a2", target_id="3", dice=0.8),
        record(subject="b", image_id="b1", target_id="4", dice=0.25),
    ]

    found = only(estimate(frame(records), "dice"))

    assert found.value == pytest.approx(0.45)
    assert (found.n_subjects, found.n_images, found.n_targets) == (2, 3, 4)
    assert found.subject_values == pytest.approx((0.65, 0.25))
    assert found.notes == ("subject values",)
    assert (found.method, found.lo, found.hi) == (None, None, None)


def test_seeds_of_one_target_are_averaged_first():
    """Three seeds of one target do not outweigh one seed of another."""
    seeds = [record(seed=seed, dice=value) for seed, value in enumerate((0.0, 0.5, 1.0))]
    records = [*seeds, record(target_id="other", dice=0.9)]

    found = only(estimate(frame(records), "dice"))

    assert found.value == pytest.approx((0.5 + 0.9) / 2)
    assert found.n_targets == 2


def test_subjects_of_one_name_in_two_datasets_are_two():
    """A subject is known by its dataset and its pseudonym together."""
    records = [
        record(dataset="d", image_id="i1", target_id="1"),
        record(dataset="e", image_id="i2", target_id="2"),
    ]

    assert only(estimate(frame(records), "dice")).n_subjects == 2


@pytest.mark.parametrize("n", [5, 11, 12, 29])
def test_below_thirty_subjects_the_interval_is_students(n):
    """Against scipy.stats.t, which computes it from the standard error."""
    values = np.random.default_rng(n).uniform(0.4, 0.6, n)

    found = only(estimate(frame(of_subjects(values)), "dice"))

    expected = scipy_stats.t.interval(0.95, n - 1, values.mean(), scipy_stats.sem(values))
    assert (found.lo, found.hi) == pytest.approx(expected)
    assert found.method == "t"
    assert found.notes == (("few",) if n < 12 else ())


def test_an_interval_is_cut_at_the_bounds_of_its_measure():
    """A DICE above 1 cannot be; the t interval of 0, 1, 1, 1, 1 would reach 1.36."""
    found = only(estimate(frame(of_subjects([0, 1, 1, 1, 1])), "dice"))

    assert found.hi == 1.0
    assert 0 < found.lo < 0.8


def test_from_thirty_subjects_the_interval_is_a_percentile_bootstrap():
    """Against SciPy's own bootstrap, within the noise of 2,000 draws."""
    values = np.random.default_rng(3).beta(4, 2, 40)

    found = only(estimate(frame(of_subjects(values)), "dice"))

    peer = scipy_stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=9999, rng=np.random.default_rng(1)
    ).confidence_interval
    assert found.method == "bootstrap"
    assert found.notes == ()
    assert (found.lo, found.hi) == pytest.approx((peer.low, peer.high), abs=0.01)


def test_a_dataset_of_one_subject_is_not_redrawn_within_itself():
    """Forty data sets of one subject each: every draw would be the same, the interval a point."""
    records = [
        record(dataset=f"d{i}", image_id=f"i{i}", target_id=f"t{i}", dice=i / 40) for i in range(40)
    ]

    found = only(estimate(frame(records), "dice"))

    assert found.method == "t"
    assert found.hi - found.lo > 0.1


def test_subjects_are_drawn_alike_for_all_models():
    """Model n is m minus 0.1 on every subject, so its bootstrap interval is too."""
    values = np.random.default_rng(4).uniform(0.3, 0.9, 35)
    records = [*of_subjects(values), *of_subjects(values - 0.1, model="n")]

    m, n = estimate(frame(records), "dice").values()

    assert (n.lo, n.hi) == pytest.approx((m.lo - 0.1, m.hi - 0.1))


def test_subjects_are_resampled_within_their_dataset():
    """Two data sets that differ much and hardly vary within: strata remove that difference."""
    rng = np.random.default_rng(5)
    low = of_subjects(rng.uniform(0.10, 0.11, 20))
    high = of_subjects(rng.uniform(0.90, 0.91, 20))
    high = [
        dataclasses.replace(r, dataset="e", image_id=f"e{r.image_id}", target_id=f"e{r.target_id}")
        for r in high
    ]

    found = only(estimate(frame([*low, *high]), "dice"))

    assert found.method == "bootstrap"
    assert found.hi - found.lo < 0.01


def test_an_unknown_subject_makes_images_the_units():
    """One null subject is enough: nobody knows whose images the others' patients share."""
    records = of_subjects([0.2, 0.4, 0.6, 0.8, 0.5])
    records[0] = dataclasses.replace(records[0], subject=None)
    records.append(dataclasses.replace(records[1], image_id="more", target_id="more", dice=1.0))

    found = only(estimate(frame(records), "dice"))

    assert found.n_subjects is None
    assert "by image" in found.notes
    assert found.value == pytest.approx(np.mean([0.2, 0.4, 0.6, 0.8, 0.5, 1.0]))
    assert found.method == "t"


def test_an_undefined_distance_is_not_zero():
    """The miss has no HD95: the mean is of the other target, and the miss is counted."""
    records = [
        record(target_id="1", image_id="1", dice=0.8, hd95=6.0),
        record(target_id="2", image_id="2", dice=0.0, outcome="miss"),
    ]

    found = only(estimate(frame(records), "hd95"))

    assert found.value == 6.0
    assert (found.n_targets, found.n_images, found.n_undefined) == (1, 1, 1)
    assert found.with_misses == (6.0 + 100.0) / 2
    assert (found.rate_empty, found.rate_no_overlap) == (0.5, 0.5)


def test_where_every_target_was_missed_the_distance_is_undefined_and_the_worst_is_known():
    """No mean can be had, but the mean with misses at the diagonal can."""
    found = only(estimate(frame([record(dice=0.0, outcome="miss")]), "hd95"))

    assert found.value is None
    assert found.with_misses == 100.0
    assert found.n_undefined == 1


def test_a_miss_counts_as_dice_zero_and_failures_not_at_all():
    """The three outcomes: 0.8, 0 and no score, which is counted."""
    records = [
        record(target_id="1", dice=0.8),
        record(target_id="2", dice=0.0, outcome="miss"),
        record(target_id="3", dice=None, outcome="failed", distance_unit=None),
    ]

    found = only(estimate(frame(records), "dice"))

    assert found.value == pytest.approx(0.4)
    assert (found.n_targets, found.n_failed) == (2, 1)
    assert found.rate_empty == 0.5


def test_no_overlap_includes_masks_that_lie_elsewhere():
    """A mask beside the target is not empty and has DICE 0."""
    found = only(estimate(frame([record(dice=0.0), record(target_id="2", dice=1.0)]), "dice"))

    assert (found.rate_empty, found.rate_no_overlap) == (0.0, 0.5)


@pytest.mark.parametrize("metric", ["dice", "hd95"])
def test_a_group_that_only_failed_has_no_value(metric):
    """It is in the table with its failures, and has no place in a mean."""
    failed = record(dice=None, outcome="failed", distance_unit=None)

    found = only(estimate(frame([failed]), metric))

    assert found == Estimate(value=None, n_subjects=0, n_failed=1)


def test_failures_are_counted_beside_every_unit_of_length():
    """A failed record has no unit; the count belongs to the millimetres all the same."""
    failed = record(target_id="2", dice=None, outcome="failed", distance_unit=None)

    found = estimate(frame([record(hd95=1.0), failed]), "hd95")

    assert [(group.distance_unit, item.n_failed) for group, item in found.items()] == [("mm", 1)]


def test_a_record_without_task_belongs_to_no_group():
    """An unreadable image whose targets nobody knows."""
    lost = record(task=None, object=None, target_id=None, dice=None, outcome="failed")

    assert estimate(frame([lost]), "dice") == {}


def test_millimetres_and_pixels_are_never_averaged_together():
    """HD95 gives a group each, DICE one for both."""
    records = frame([
        record(hd95=4.0),
        record(target_id="2", image_id="2", distance_unit="px", hd95=8.0),
    ])  # fmt: skip

    distances = estimate(records, "hd95")

    assert {group.distance_unit: item.value for group, item in distances.items()} == {
        "mm": 4.0,
        "px": 8.0,
    }
    assert only(estimate(records, "dice")).n_targets == 2


def test_jitter_protocol_and_selection_are_groups_of_their_own():
    """Nothing that changes the question is averaged away."""
    jitter = {"jitter_mode": "shift", "jitter_unit": "px", "jitter_lo": 10.0, "jitter_hi": 20.5}
    records = [record(), record(**jitter), record(selection="oracle"), record(protocol="released")]

    found = estimate(frame(records), "dice")

    assert len(found) == 4
    assert {group.jitter for group in found} == {None, "shift:px:10-20.5"}


def test_the_order_of_records_changes_nothing():
    """To the last bit, bootstrap included."""
    rng = np.random.default_rng(6)
    records = frame([*of_subjects(rng.random(33)), *of_subjects(rng.random(8), task="spleen (CT)")])
    shuffled = records.sample(fraction=1.0, shuffle=True, seed=1)

    assert estimate(shuffled, "dice") == estimate(records, "dice")
    assert over_tasks(shuffled, "dice") == over_tasks(records, "dice")


def test_no_records_give_no_estimates():
    """An empty run is a run."""
    assert estimate(frame([]), "dice") == {}
    assert over_tasks(frame([]), "hd95") == {}


def test_every_task_weighs_the_same_in_the_mean_over_tasks():
    """Two subjects of one task, one of the other: (mean(0, 1) + 0.8) / 2."""
    records = [*of_subjects([0.0, 1.0]), record(task="spleen (CT)", dice=0.8)]

    found = only(over_tasks(frame(records), "dice"))

    assert found.value == pytest.approx(0.65)
    assert found.n_tasks == 2
    assert found.lo is None


def test_off_protocol_results_are_in_no_mean_over_tasks():
    """What a model was not trained for is shown, not averaged."""
    records = [record(), record(selection="oracle", off_protocol=True)]

    assert [group.selection for group in over_tasks(frame(records), "dice")] == ["single"]


def test_a_subject_with_all_tasks_counts_once():
    """Equal values in three tasks: the interval is that of one task, not narrower by √3."""
    values = [0.2, 0.4, 0.6, 0.7, 0.9]
    records = [r for k in range(3) for r in of_subjects(values, task=f"t{k}", object=f"o{k}")]

    one = only(estimate(frame(of_subjects(values)), "dice"))
    three = only(over_tasks(frame(records), "dice"))

    assert (three.lo, three.hi) == pytest.approx((one.lo, one.hi))


def test_tasks_of_different_subjects_add_their_variances():
    """By hand: the variance of a mean of two independent means, with 4 degrees of freedom."""
    rng = np.random.default_rng(7)
    values = np.full((2, 10), np.nan)
    values[0, :5], values[1, 5:] = rng.random(5), rng.random(5)

    lo, hi = t_interval(values)

    variance = (values[0, :5].var(ddof=1) / 5 + values[1, 5:].var(ddof=1) / 5) / 4
    assert (hi - lo) / 2 == pytest.approx(scipy_stats.t.ppf(0.975, 4) * math.sqrt(variance))


def test_a_draw_without_any_subject_of_a_task_is_left_out():
    """It has no mean of that task; the other draws carry the interval."""
    values = np.array([[0.2, np.nan], [0.4, 0.6]])
    weights = np.array([[2.0, 0.0], [1.0, 1.0], [0.0, 2.0]])

    assert bootstrap_interval(values, weights) == pytest.approx((0.30125, 0.34875), abs=0.002)


def test_unit_means_are_the_dots_behind_an_estimate():
    """Their mean is the estimate."""
    records = frame(of_subjects([0.1, 0.2, 0.6]))

    ((group, values),) = unit_means(records, "dice").items()

    assert np.mean(values) == pytest.approx(estimate(records, "dice")[group].value)


def test_a_mean_over_tasks_is_over_tasks_by_whatever_unit():
    """Nuclei by instance, livers by class: one mean of both, which names both units."""
    records = [record(dice=0.9), record(task="nucleus", unit="instance", dice=0.5)]

    ((group, found),) = over_tasks(frame(records), "dice").items()

    assert found.value == pytest.approx(0.7)
    assert (found.n_tasks, group.unit) == (2, "class; instance")


def test_a_task_by_two_units_is_two_tasks_of_the_mean():
    """Three targets by instance do not outweigh one by class: (0.9 + 0.3) / 2."""
    parts = [record(unit="instance", target_id=f"p{i}", dice=0.3) for i in range(3)]

    found = only(over_tasks(frame([record(dice=0.9), *parts]), "dice"))

    assert found.value == pytest.approx(0.6)
    assert found.n_tasks == 2


def test_known_subjects_are_counted_where_others_are_unknown():
    """Two known subjects and two images of nobody knows whom."""
    records = of_subjects([0.2, 0.4, 0.6, 0.8])
    records[2:] = [dataclasses.replace(item, subject=None) for item in records[2:]]

    found = only(estimate(frame(records), "dice"))

    assert found.n_subjects is None
    assert (found.n_subjects_known, found.n_images_unknown, found.n_images) == (2, 2, 4)


@pytest.mark.parametrize(("n", "method"), [(8, "t"), (40, "bootstrap")])
def test_intervals_cover_the_truth_about_as_often_as_they_say(n, method):
    """400 samples of a skewed DICE distribution; 95 % are asked, 90 % must be reached.

    Small samples of a skewed law are known to fall short by a few percent.
    """
    rng = np.random.default_rng(8)
    truth = 6 / (6 + 2)
    weights = np.stack([np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(500)])
    hits = 0
    for _ in range(400):
        values = rng.beta(6, 2, (1, n))
        lo, hi = (
            t_interval(values)
            if method == "t"
            else bootstrap_interval(values, weights.astype(np.float64))
        )
        hits += lo <= truth <= hi

    assert 0.90 <= hits / 400 <= 0.99
