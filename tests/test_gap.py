"""The oracle gap by task, and what it depends on, on planted data."""

import numpy as np
import polars as pl
import pytest
from test_report import record
from test_volume import frame

from promptseg.factors import TOGETHER
from promptseg.gap import SELECTION, gap_factors, gap_records, gaps


def pairs(gap, *, subjects: int = 8, images: int = 6, strategy: str = "point1", **known):
    """Make records under oracle and predicted, `gap(subject, image)` apart."""
    records = []
    for s in range(subjects):
        for i in range(images):
            name = f"i{s}-{i}"
            own = {"subject": f"s{s}", "image_id": name, "target_id": f"{name}#liver",
                   "strategy": strategy, **known}  # fmt: skip
            records += [
                record(**own, selection="oracle", dice=0.8),
                record(**own, selection="predicted", dice=0.8 - gap(s, i)),
            ]
    return records


def test_the_gap_is_that_of_subjects_and_says_how_often_the_best_was_chosen():
    """Subject means 0, 0.01, ... 0.07; the first alone always chose the best: an eighth."""
    found = gaps(frame(pairs(lambda s, _: s / 100)))
    (item,) = (one for group, one in found.items() if group.task == "liver (CT)")

    assert item.value == pytest.approx(0.035)
    assert item.rate_no_overlap == pytest.approx(1 / 8)
    assert (item.n_subjects, item.n_targets) == (8, 48)
    assert item.lo is not None
    assert item.lo > 0


def test_what_was_scored_in_one_way_only_has_no_gap():
    """Nor have jittered prompts, failed records, and everything, which nobody can choose from."""
    whole = frame(pairs(lambda *_: 0.1))
    one_way = whole.filter(selection="oracle")
    jittered = whole.with_columns(jitter_mode=pl.lit("shift"))
    failed = whole.with_columns(outcome=pl.lit("failed"))
    everything = whole.with_columns(strategy=pl.lit("everything"))

    for frame_of in (one_way, jittered, failed, everything):
        assert gaps(frame_of) == {}
        assert gap_factors(frame_of, pl.DataFrame({"target_id": []})) == []


def test_a_gap_is_off_protocol_if_one_of_both_is():
    """And then it is in no mean over tasks."""
    whole = frame(pairs(lambda *_: 0.1)).with_columns(
        off_protocol=pl.col("selection") == "predicted"
    )

    assert gap_records(whole)["off_protocol"].all()
    assert {group.task for group in gaps(whole)} == {"liver (CT)"}
    assert {group.selection for group in gaps(whole)} == {SELECTION}


def test_a_planted_dependence_is_found_with_its_sign():
    """The gap grows as the intensity difference falls; nothing else matters."""
    rng = np.random.default_rng(0)
    contrast = rng.uniform(0, 100, (12, 10))
    whole = frame(
        pairs(lambda s, i: 0.3 - contrast[s, i] / 400 + 0.01 * rng.random(), subjects=12, images=10)
    )
    rows = [
        {"image_id": f"i{s}-{i}", "target_id": f"i{s}-{i}#liver",
         **{name: float(rng.integers(1, 50)) for name in TOGETHER},
         "intensity_difference": float(contrast[s, i]), "contrast_to_noise": float(contrast[s, i]),
         "fourier_order_paper": float(rng.random()), "compactness": float(rng.random())}
        for s in range(12) for i in range(10)
    ]  # fmt: skip
    (found,) = gap_factors(whole, pl.DataFrame(rows))
    by_name = {row.attribute: row for row in found.rows}

    assert by_name["intensity_difference"].rho == pytest.approx(-1, abs=0.05)
    assert (by_name["intensity_difference"].p_holm or 1) < 0.05
    sure = {row.attribute for row in found.rows if row.p_holm is not None and row.p_holm < 0.05}
    assert sure == {"intensity_difference", "contrast_to_noise"}
