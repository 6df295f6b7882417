"""Arms against the best: planted differences, rankings and costs."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from test_report import folder, page, record, text_of

from promptseg.contrast import (
    Arm,
    _pairs_of_others,
    against_best,
    arms_of,
    contrast,
    oracle_gaps,
    ranking,
)
from promptseg.paired import compare
from promptseg.record import Record, RunFolder
from promptseg.report.compared import compared

BOX = Arm("m", "paper", "box", "single")
POINT = Arm("m", "paper", "point1", "single")
OTHER = Arm("n", "paper", "box", "single")


def planted(
    tmp_path: Path,
    gaps: dict[Arm, float],
    *,
    subjects: int = 12,
    noise: float = 0.02,
    tasks: int = 1,
    costs: dict[Arm, float] | None = None,
    off: frozenset[Arm] = frozenset(),
    seed: int = 1,
) -> RunFolder:
    """Write records in which an arm lies a gap below 0.9, with noise of every subject."""
    rng = np.random.default_rng(seed)
    records: list[Record] = []
    for subject in range(subjects):
        for task in range(tasks):
            hard = 0.1 * rng.normal()
            for arm, gap in gaps.items():
                name = f"i{subject}"
                organ = f"organ{task}"
                records.append(
                    record(
                        model=arm.model, strategy=arm.strategy, selection=arm.selection,
                        off_protocol=arm in off, subject=f"s{subject}", image_id=name,
                        target_id=f"{name}#{organ}", object=organ, task=f"{organ} (CT)",
                        prompt_id=f"{name}{organ}{arm.strategy}",
                        dice=float(np.clip(0.85 + hard - gap + noise * rng.normal(), 0, 1)),
                        embed_ms=1000.0, decode_ms=(costs or {}).get(arm, 50.0),
                    )
                )  # fmt: skip
    models = sorted({arm.model for arm in gaps})
    return folder(
        tmp_path / "r",
        records,
        models={name: name * 64 for name in models},
        asked={name: name for name in models},
        trained_for={name: [] for name in models},
        strategies=sorted({arm.strategy for arm in gaps}),
        selections=sorted({arm.selection for arm in gaps}),
    )


def test_a_planted_difference_of_strategies_is_found_on_the_same_targets(tmp_path):
    """One point lies 0.2 below the box, whatever the subject's difficulty."""
    records = planted(tmp_path, {BOX: 0.0, POINT: 0.2}).records()
    (found,) = against_best(records, arms_of(records), BOX)

    assert found.arm == POINT
    assert found.cell.difference.value == pytest.approx(-0.2, abs=0.02)
    assert found.cell.difference.lo < -0.2 < found.cell.difference.hi
    assert (found.cell.n_units, found.cell.n_pairs) == (12, 12)
    assert found.p_holm == pytest.approx(2 / 2**12)


def test_models_are_compared_as_paired_does(tmp_path):
    """The same numbers as of two models on the same prompts."""
    records = planted(tmp_path, {BOX: 0.05, OTHER: 0.0}, tasks=3).records()
    found = contrast(records, BOX, OTHER)
    ours = found.cell
    theirs = compare(records, "n", "m").means[0]

    assert ours.difference.value == pytest.approx(theirs.difference.value)
    assert ours.difference.lo == pytest.approx(theirs.difference.lo)
    assert found.p == theirs.p


def test_the_p_against_the_best_is_corrected_for_all_pairs(tmp_path):
    """Four arms are six pairs, among which those with the best are, whichever it is."""
    third = Arm("m", "paper", "points5", "single")
    fourth = Arm("m", "paper", "points5+5", "single")
    records = planted(tmp_path, {BOX: 0.0, POINT: 0.2, third: 0.2, fourth: 0.0}).records()
    found = {one.arm: one for one in against_best(records, arms_of(records), BOX)}

    assert found[POINT].p_holm == pytest.approx(6 * found[POINT].p)
    assert found[fourth].p_holm > 0.05


def test_the_p_of_other_pairs_is_that_of_their_contrast(tmp_path):
    """Two tasks, targets that some arms lack, one subject unknown in another run of it."""
    third = Arm("m", "paper", "points5", "single")
    whole = planted(tmp_path, {BOX: 0.0, POINT: 0.02, third: 0.01}, tasks=2, noise=0.05).records()
    draw = pl.int_range(pl.len()).hash(1) % 7
    for records in (whole, whole.filter(draw != 0), whole.with_columns(subject=None)):
        arms = arms_of(records)
        pairs = [(a, b) for n, a in enumerate(arms) for b in arms[n + 1 :]]
        ours = [contrast(records, a, b) for a, b in pairs]

        assert _pairs_of_others(records, arms) == [
            (pytest.approx(one.p), one.cell.n_units) for one in ours
        ]


def test_the_best_of_equal_arms_is_seldom_called_better(tmp_path):
    """Chosen by the scores that test it, among six alike: in at most 5 of 100 draws."""
    alike = [Arm("m", "paper", f"points{n}", "single") for n in range(1, 7)]
    wrong = 0
    for seed in range(40):
        records = planted(tmp_path / str(seed), dict.fromkeys(alike, 0.1), noise=0.05, seed=seed)
        frame = records.records()
        arms = arms_of(frame)
        wrong += any((one.p_holm or 1) < 0.05 for one in against_best(frame, arms, arms[0]))

    assert wrong <= 4  # of 40 tables with 5 % each, five and more come in 5 of 100


def test_arms_that_are_alike_are_not_told_apart(tmp_path):
    """Neither by the test nor by the ranking."""
    records = planted(tmp_path, {BOX: 0.0, POINT: 0.0}, noise=0.05).records()
    first, second = ranking(records, arms_of(records))

    assert 0.02 < first.first < 0.995
    assert (first.rank_lo, first.rank_hi) == (1, 2) == (second.rank_lo, second.rank_hi)
    assert first.first + second.first == pytest.approx(1)


def test_a_clear_winner_comes_first_in_every_resample(tmp_path):
    """And the times decide who lies on the frontier."""
    costs = {BOX: 50.0, POINT: 20.0, OTHER: 60.0}
    records = planted(tmp_path, {BOX: 0.0, POINT: 0.2, OTHER: 0.1}, costs=costs, tasks=2).records()
    places = ranking(records, arms_of(records))

    assert [place.arm for place in places] == [BOX, OTHER, POINT]
    assert [place.first for place in places] == [1, 0, 0]
    assert [place.is_frontier for place in places] == [True, False, True]
    assert (places[0].embed_ms, places[0].decode_ms) == (1000, 50)


def test_few_subjects_are_ranked_and_not_tested(tmp_path):
    """Four have neither stability nor p."""
    records = planted(tmp_path, {BOX: 0.0, POINT: 0.2}, subjects=4).records()
    first, _ = ranking(records, arms_of(records))
    (found,) = against_best(records, arms_of(records), BOX)

    assert first.first is None
    assert found.p_holm is None


def test_off_protocol_arms_take_no_part(tmp_path):
    """What a model was not trained for is no rival."""
    records = planted(tmp_path, {BOX: 0.0, POINT: -0.1}, off=frozenset({POINT})).records()

    assert arms_of(records) == [BOX]


def test_only_common_targets_are_ranked(tmp_path):
    """A target that one arm failed on counts for none."""
    records = planted(tmp_path, {BOX: 0.0, POINT: 0.0}, noise=0).records()
    worst = records.sort("dice")["image_id"][0]
    broken = records.with_columns(
        outcome=pl.when((pl.col("image_id") == worst) & (pl.col("strategy") == "box"))
        .then(pl.lit("failed"))
        .otherwise("outcome")
    )

    places = ranking(broken, arms_of(broken))

    rest = records.filter(pl.col("image_id") != worst)
    assert places[0].dice == pytest.approx(rest["dice"].mean())


def test_the_oracle_gap_is_what_the_choice_loses(tmp_path):
    """Predicted lies 0.1 below the oracle of the same strategy."""
    oracle = Arm("m", "paper", "point1", "oracle")
    predicted = Arm("m", "paper", "point1", "predicted")
    records = planted(tmp_path, {oracle: 0.0, predicted: 0.1, BOX: 0.3}).records()
    (gap,) = oracle_gaps(records, arms_of(records))

    assert (gap.arm, gap.against) == (predicted, oracle)
    assert gap.cell.difference.value == pytest.approx(-0.1, abs=0.02)
    assert (gap.p, gap.p_holm) == (None, None), "it cannot be positive: there is nothing to test"


def test_the_report_says_which_is_best_and_what_is_worse(tmp_path):
    """In words, with what is not told apart."""
    oracle = Arm("m", "paper", "box", "oracle")
    third = Arm("m", "paper", "points5", "single")
    predicted = Arm("m", "paper", "box", "predicted")
    gaps = {BOX: 0.0, POINT: 0.2, third: 0.001, oracle: -0.05, predicted: 0.05}
    made = planted(tmp_path, gaps)
    text = text_of(page(tmp_path, made))

    assert "Which model, which prompt?" in text
    assert "has the highest mean DICE of what a user gets" in text
    worse = text.split("Worse beyond chance: ")[1].split("Not told apart")[0]
    assert "point1 / single (−0." in worse
    assert "Not told apart from it: " in text
    assert "The oracle gap is largest with box / predicted: 0." in text


def test_one_way_of_answering_has_nothing_to_be_compared_with(tmp_path):
    """No section."""
    assert "Which model, which prompt?" not in page(tmp_path, planted(tmp_path, {BOX: 0.0}))


def test_tasks_of_single_subjects_say_nothing_of_stability(tmp_path):
    """Every resample that holds all tasks would be the sample itself; and many hold none."""
    made = planted(tmp_path, {BOX: 0.0, POINT: 0.0}, subjects=15)
    apart = made.records().with_columns(task=pl.col("subject") + " (CT)")
    places = ranking(apart, arms_of(apart))

    assert [place.first for place in places] == [None, None]
    assert [place.rank for place in places] == [1, 2]


def test_an_arm_that_failed_or_has_other_targets_costs_the_others_nothing(tmp_path):
    """Neither is ranked; the rest is."""
    third = Arm("m", "paper", "points5", "single")
    fourth = Arm("m", "paper", "points5+5", "single")
    records = planted(tmp_path, {BOX: 0.0, POINT: 0.2, third: 0.1, fourth: 0.1}).records()
    broken = records.with_columns(
        outcome=pl.when(pl.col("strategy") == "points5")
        .then(pl.lit("failed"))
        .otherwise("outcome"),
        target_id=pl.when(pl.col("strategy") == "points5+5")
        .then(pl.lit("other") + pl.col("target_id"))
        .otherwise("target_id"),
    )
    arms = arms_of(broken)

    assert third not in arms
    assert [place.arm for place in ranking(broken, arms)] == [BOX, POINT]
    assert fourth not in {one.arm for one in against_best(broken, arms, BOX)}
    assert compared(broken).n_left_out == 1


def test_a_contrast_of_the_one_task_that_both_have_is_found(tmp_path):
    """Whatever the other tasks are called."""
    records = planted(tmp_path, {BOX: 0.0, POINT: 0.2}, tasks=2).records()
    part = records.filter((pl.col("strategy") == "box") | (pl.col("object") == "organ1"))

    found = contrast(part, POINT, BOX)

    assert found.cell.group.task == "organ1 (CT)"
    assert found.cell.n_units == 12


def test_a_contrast_is_not_corrected_for_the_rows_behind_it(tmp_path):
    """Seven subjects and four tasks: the one contrast shown can be tested."""
    records = planted(tmp_path, {BOX: 0.0, POINT: 0.4}, subjects=7, tasks=4).records()
    (found,) = against_best(records, arms_of(records), BOX)

    assert found.p_holm == pytest.approx(2 / 2**7)


def test_corpora_whose_targets_are_called_alike_are_kept_apart(tmp_path):
    """Two curations of one data set: nothing is paired across them."""
    records = planted(tmp_path, {BOX: 0.0, POINT: 0.2}).records()
    apart = records.with_columns(corpus=pl.col("strategy"))

    assert contrast(apart, POINT, BOX) is None
    assert len(ranking(apart, arms_of(apart))) == 1
