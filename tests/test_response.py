"""Responses to jitter: curves and tolerance radii whose answer is planted."""

import numpy as np
import polars as pl
import pytest

from promptseg.jitter import Jitter, parse_jitter
from promptseg.response import ALL, Response, responses
from promptseg.tolerance import LOST, tolerance_radius

LEVELS = tuple(parse_jitter(f"shift:px:{lo}-{lo + 10}") for lo in (0, 10, 20, 30))


def planted(
    slope: float,
    *,
    subjects: int = 8,
    images: int = 2,
    task: str = "a (CT)",
    spread: float = 0.0,
    levels: tuple[Jitter, ...] = LEVELS,
    seeds: int = 2,
    seed: int = 0,
) -> pl.DataFrame:
    """Make records whose DICE falls by `slope` per pixel, a subject's own by up to `spread`."""
    rng = np.random.default_rng(seed)
    rows = []
    for subject in range(subjects):
        own = slope + spread * rng.normal()
        for image in range(images):
            exact = 0.9 - 0.01 * image
            for jitter in (None, *levels):
                for number in range(1 if jitter is None else seeds):
                    at = 0.0 if jitter is None else (jitter.lo + jitter.hi) / 2
                    noise = 0.0 if jitter is None else 0.01 * (2 * number - 1)
                    rows.append(
                        {
                            "model": "m", "protocol": "paper", "unit": "class", "strategy": "box",
                            "selection": "single", "off_protocol": False, "dataset": "d",
                            "subject": f"s{subject}", "task": task,
                            "image_id": f"{task}/{subject}/{image}",
                            "target_id": f"{task}/{subject}/{image}#a", "outcome": "ok",
                            "jitter_mode": None if jitter is None else jitter.mode,
                            "jitter_unit": None if jitter is None else jitter.unit,
                            "jitter_lo": None if jitter is None else jitter.lo,
                            "jitter_hi": None if jitter is None else jitter.hi,
                            "seed": number, "dice": exact - own * at + noise,
                        }
                    )  # fmt: skip
    return pl.DataFrame(rows, infer_schema_length=None)


def of(found: list[Response], task: str, measure: str = "px") -> Response:
    """Take one curve."""
    (one,) = [r for r in found if (r.task, r.measure) == (task, measure)]
    return one


def test_a_straight_loss_is_found_level_by_level():
    """0.002 DICE per pixel: 0.01, 0.03, 0.05, 0.07 at the middles of the levels; radius 25."""
    found = of(responses(planted(0.002)), "a (CT)")

    assert [level.at for level in found.levels] == [5, 15, 25, 35]
    assert [level.loss for level in found.levels] == pytest.approx([0.01, 0.03, 0.05, 0.07])
    assert found.exact == pytest.approx(0.895)
    assert found.radius == pytest.approx(25)
    assert all((level.n_subjects, level.n_targets) == (8, 16) for level in found.levels)


def test_a_radius_beyond_the_levels_is_none():
    """A model that hardly minds: nobody knows where it gives in."""
    found = of(responses(planted(0.0005)), "a (CT)")

    assert (found.radius, found.radius_hi) == (None, None)


def test_intervals_widen_with_the_subjects_differences_and_cover_the_truth():
    """Subjects' slopes differ: the interval of loss and of radius holds the planted ones."""
    hits = 0
    for seed in range(40):
        found = of(responses(planted(0.003, spread=0.001, subjects=12, seed=seed)), "a (CT)")
        last = found.levels[-1]
        assert last.lo < last.loss < last.hi
        hits += found.radius_lo <= LOST / 0.003 <= (found.radius_hi or np.inf)

    assert hits >= 36


def test_few_subjects_have_a_curve_and_no_interval():
    """Four are too few to say how sure."""
    found = of(responses(planted(0.002, subjects=4)), "a (CT)")

    assert found.radius is not None
    assert (found.radius_lo, found.levels[0].lo) == (None, None)


def test_tasks_weigh_the_same_in_the_mean():
    """One task of 8 subjects, one of 24: the mean loss is that of the two slopes."""
    records = pl.concat(
        [
            planted(0.001),
            planted(0.005, subjects=24, task="b (MRI)").with_columns(dataset=pl.lit("e")),
        ]
    )
    found = of(responses(records), ALL)

    assert [level.loss for level in found.levels] == pytest.approx([0.015, 0.045, 0.075, 0.105])
    assert found.radius == pytest.approx(15 + 10 * (0.05 - 0.045) / 0.03)


def test_only_targets_with_an_exact_score_are_compared():
    """A target that failed without jitter has no loss, whatever it scored with it."""
    records = planted(0.002)
    broken = records.with_columns(
        outcome=pl.when((pl.col("subject") == "s0") & pl.col("jitter_mode").is_null())
        .then(pl.lit("failed"))
        .otherwise("outcome")
    )
    found = of(responses(broken), "a (CT)")

    assert all(level.n_subjects == 7 for level in found.levels)


def test_pixels_are_told_relative_to_the_size_of_each_target():
    """All targets 100 x 100: 5, 15, 25, 35 px are 0.05 to 0.35 of the side; between, a line."""
    records = planted(0.002)
    attributes = records.select("target_id").unique().with_columns(area_px=pl.lit(10_000))
    found = of(responses(records, attributes), "a (CT)", "px as rel")

    shares = [0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3]
    assert [level.at for level in found.levels] == pytest.approx(shares)
    assert [level.loss for level in found.levels] == pytest.approx([0.2 * one for one in shares])
    assert found.radius == pytest.approx(0.25)


def test_tasks_of_other_sizes_have_relative_levels_in_common():
    """Sides of 100 and of 20 px: 35 px are 0.35 of the one and beyond the levels of the other."""
    large, small = planted(0.002), planted(0.004, subjects=9, task="b (MRI)")
    small = small.with_columns(target_id=pl.format("small-{}", "target_id"))
    sizes = pl.concat(
        [
            one.select("target_id").unique().with_columns(area_px=pl.lit(area))
            for one, area in ((large, 10_000), (small, 400))
        ]
    )
    records = pl.concat([large, small])
    own = {task: of(responses(records, sizes), task, "px as rel") for task in ("a (CT)", "b (MRI)")}
    together = of(responses(records, sizes), ALL, "px as rel")

    assert own["a (CT)"].levels[-1].at == 0.3
    assert own["b (MRI)"].levels[-1].at == 1.0
    assert [level.at for level in together.levels] == [level.at for level in own["a (CT)"].levels]
    for level in together.levels:  # 100 and 20 px, 0.002 and 0.004 a px
        assert level.loss == pytest.approx(level.at * (100 * 0.002 + 20 * 0.004) / 2)
        assert level.n_subjects == 9


def test_targets_of_one_task_leave_the_levels_that_they_do_not_reach():
    """Half of them are 100 px wide and end at 0.35, half 20 and end beyond 1."""
    records = planted(0.002)
    sizes = (
        records.select("target_id")
        .unique(maintain_order=True)
        .with_row_index()
        .with_columns(area_px=pl.when(pl.col("index") % 2 == 0).then(400).otherwise(10_000))
    )
    found = of(responses(records, sizes), "a (CT)", "px as rel")
    counts = {level.at: level.n_targets for level in found.levels}

    assert counts[0.3] == 2 * counts[0.45]
    assert found.levels[-1].at == 1.0


def test_without_jitter_there_is_no_response():
    """A run of exact prompts."""
    assert responses(planted(0.1, levels=())) == []


@pytest.mark.parametrize(
    ("at", "losses", "radius"),
    [
        ((5.0,), [0.1], 2.5),
        ((5.0, 15.0), [0.0, 0.1], 10.0),
        ((5.0, 15.0, 25.0), [-0.02, 0.03, 0.04], None),
        ((5.0, 15.0), [0.05, 0.04], 5.0),
        ((), [], None),
    ],
)
def test_the_radius_is_where_the_line_first_crosses(at, losses, radius):
    """By straight lines from no loss at no jitter; the first crossing counts."""
    assert tolerance_radius(at, np.array(losses)) == pytest.approx(radius)


def test_the_exact_dice_is_averaged_as_the_loss_is():
    """A subject of many targets weighs as one of few, so that exact minus loss is a DICE."""
    many = planted(0.0, subjects=1, images=50)
    few = planted(0.0, subjects=1, images=1).with_columns(
        pl.col("dice") - 0.8, subject=pl.lit("t"), image_id=pl.lit("t"), target_id=pl.lit("t#a")
    )
    found = of(responses(pl.concat([many, few])), "a (CT)")

    expected = (many.filter(pl.col("jitter_mode").is_null())["dice"].mean() + 0.1) / 2
    assert found.exact == pytest.approx(expected)


def test_levels_of_one_middle_stay_two():
    """0-10 and 3-7 pixels are no level of 5."""
    levels = (parse_jitter("shift:px:0-10"), parse_jitter("shift:px:3-7"))
    records = planted(0.0, levels=levels).with_columns(
        dice=pl.when(pl.col("jitter_lo") == 0).then(pl.col("dice") - 0.4).otherwise("dice")
    )
    found = of(responses(records), "a (CT)")

    assert [level.at for level in found.levels] == [5, 5]
    assert sorted(level.loss for level in found.levels) == pytest.approx([0.0, 0.4])


def test_a_radius_has_an_interval_where_enough_subjects_are_there_up_to_it():
    """Three of eight subjects alone reach the last shares: the radius lies well before them."""
    records = planted(0.003, spread=0.0002)
    small = pl.col("subject").is_in(["s0", "s1", "s2"])
    sizes = (
        records.unique("target_id")
        .select("target_id", "subject")
        .with_columns(area_px=pl.when(small).then(2_500).otherwise(10_000))
    )
    found = of(responses(records, sizes.drop("subject")), "a (CT)", "px as rel")
    few = sizes.with_columns(area_px=pl.when(small).then(10_000).otherwise(4_000_000))
    beyond = of(responses(records, few.drop("subject")), "a (CT)", "px as rel")

    assert found.levels[-1].n_subjects == 3
    assert found.radius_lo is not None
    assert found.radius_lo < found.radius < found.radius_hi
    assert beyond.radius is not None
    assert (beyond.radius_lo, beyond.radius_hi) == (None, None)
