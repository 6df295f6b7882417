"""Factors: against an independent implementation, and on data whose dependence is planted."""

import numpy as np
import pingouin
import polars as pl
import pytest

from promptseg.attributes import NAMES
from promptseg.factors import (
    INSTEAD,
    TOGETHER,
    Factor,
    Factors,
    effect,
    factors,
    scored_targets,
)
from promptseg.ranks import Ranks, partial


def planted(
    rng: np.random.Generator,
    *,
    subjects: int = 20,
    images: int = 6,
    effect: float = 0.0,
    clustered: float = 0.6,
    dataset: str = "d",
    modality: str = "CT",
    shift: float = 0.0,
    base: float = 0.0,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Make records whose DICE depends on contrast by `effect`, and attributes that are clustered.

    Contrast and DICE both have a part that a subject's images share. `shift` moves the contrast of
    the whole data set, `base` its DICE.
    """
    n = subjects * images
    who = np.repeat(np.arange(subjects), images)
    values = {}
    for name in NAMES:
        shared = rng.normal(size=subjects)[who]
        values[name] = clustered * shared + np.sqrt(1 - clustered**2) * rng.normal(size=n)
    values["intensity_difference"] = values["intensity_difference"] + shift
    noise = clustered * rng.normal(size=subjects)[who] + np.sqrt(1 - clustered**2) * rng.normal(
        size=n
    )
    contrast = values["intensity_difference"] - shift
    latent = effect * contrast + np.sqrt(1 - effect**2) * noise + base
    ids = [f"{dataset}/{modality}/{i}" for i in range(n)]
    attributes = pl.DataFrame({"image_id": ids, "target_id": [f"{i}#x" for i in ids], **values})
    records = pl.DataFrame(
        {
            "model": "m", "protocol": "paper", "strategy": "box", "selection": "single",
            "off_protocol": False, "dataset": dataset, "modality": modality,
            "task": f"x ({modality})", "image_id": ids, "target_id": [f"{i}#x" for i in ids],
            "subject": [f"s{i}" for i in who], "outcome": "ok",
            "dice": 1 / (1 + np.exp(-latent)),
        }
    ).with_columns(
        jitter_mode=pl.lit(None, pl.String),
        jitter_unit=pl.lit(None, pl.String),
        jitter_lo=pl.lit(None, pl.Float64),
        jitter_hi=pl.lit(None, pl.Float64),
    )  # fmt: skip
    return records, attributes


def one(found: list[Factors], attribute: str = "intensity_difference") -> Factor:
    """Take a row of the only group."""
    (group,) = found
    return next(row for row in group.rows if row.attribute == attribute)


@pytest.mark.parametrize("seed", range(5))
def test_partial_correlations_equal_pingouins(seed):
    """In one stratum; ties included; every attribute with all others held."""
    records, attributes = planted(np.random.default_rng(seed), effect=0.5)
    attributes = attributes.with_columns(pl.col("n_components").round(), pl.col("n_holes").round())
    table = records.join(attributes.drop("image_id"), on="target_id").to_pandas()
    (group,) = factors(records, attributes)

    for row in group.rows:
        family = INSTEAD.get(row.attribute, row.attribute)
        held = [name for name in TOGETHER if name != family]
        theirs = pingouin.partial_corr(
            table, x=row.attribute, y="dice", covar=held, method="spearman"
        )
        assert row.rho == pytest.approx(theirs["r"].iloc[0], abs=1e-10)


def test_alone_is_spearmans_correlation_and_inflation_that_of_the_ranks():
    """Against pandas, and against R^2 of a regression of ranks on ranks."""
    records, attributes = planted(np.random.default_rng(1), effect=0.4)
    attributes = attributes.with_columns(
        aspect_ratio=pl.col("aspect_ratio") + 2 * pl.col("area_px")
    )
    table = records.join(attributes.drop("image_id"), on="target_id").to_pandas()
    ranks = table[list(TOGETHER)].rank().to_numpy()
    ranks = ranks - ranks.mean(0)
    found = factors(records, attributes)

    for place, name in enumerate(TOGETHER):
        row = one(found, name)
        others = np.delete(ranks, place, axis=1)
        fit = others @ np.linalg.lstsq(others, ranks[:, place], rcond=None)[0]
        unexplained = ((ranks[:, place] - fit) ** 2).sum() / (ranks[:, place] ** 2).sum()
        assert row.alone == pytest.approx(table["dice"].corr(table[name], method="spearman"))
        assert row.inflation == pytest.approx(1 / unexplained)
    assert one(found, "aspect_ratio").inflation > 3


def test_a_planted_effect_is_found_with_sign_and_size_and_no_other():
    """The correlation that was put in, and an interval that excludes zero."""
    for rho in (0.6, -0.6):
        records, attributes = planted(np.random.default_rng(2), subjects=60, effect=rho)
        found = factors(records, attributes)
        row = one(found)

        assert row.rho == pytest.approx(rho, abs=0.1)
        assert row.lo < rho < row.hi
        assert row.lo * row.hi > 0
        assert row.p_holm < 0.01
        others = [r for r in found[0].rows if r.attribute not in (*INSTEAD, row.attribute)]
        assert all(r.p_holm > 0.05 for r in others)


def test_a_difference_between_data_sets_is_no_effect_of_an_attribute():
    """Within each data set DICE rises with contrast; between them it falls: Simpson's paradox."""
    rng = np.random.default_rng(3)
    bright = planted(rng, effect=0.5, dataset="bright", shift=6, base=-6)
    dark = planted(rng, effect=0.5, dataset="dark", shift=-6, base=6)
    records, attributes = pl.concat([bright[0], dark[0]]), pl.concat([bright[1], dark[1]])
    table = records.join(attributes.drop("image_id"), on="target_id").to_pandas()
    pooled = table["dice"].corr(table["intensity_difference"], method="spearman")

    row = one(factors(records, attributes))

    assert pooled < -0.5
    assert row.rho > 0.25
    assert row.lo > 0


def test_modalities_are_categories():
    """The same within one data set of two modalities."""
    rng = np.random.default_rng(4)
    parts = [
        planted(rng, effect=0.5, modality="CT", shift=6, base=-6),
        planted(rng, effect=0.5, modality="MRI", shift=-6, base=6),
    ]
    found = factors(*(pl.concat([part[i] for part in parts]) for i in range(2)))

    assert found[0].n_strata == 2
    assert one(found).rho > 0.35


def test_intervals_cover_and_tests_hold_their_level_where_images_share_patients():
    """Clustered data of 12 subjects without an effect, 200 times: 5 % rejected, 95 % covered."""
    rng, subjects = np.random.default_rng(12), 12
    rows = [one(factors(*planted(rng, subjects=subjects))) for _ in range(200)]
    rejected = np.mean([row.p < 0.05 for row in rows])
    covered = np.mean([row.lo < 0 < row.hi for row in rows])

    assert rejected <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 200)
    assert 0.92 <= covered <= 0.99
    # what the study did: every image its own unit
    by_image = []
    for _ in range(60):
        records, attributes = planted(rng, subjects=subjects, clustered=0.9)
        naive = records.with_columns(subject=pl.col("image_id"))
        by_image.append(one(factors(naive, attributes)).p < 0.05)
    assert np.mean(by_image) > 0.15


def test_few_subjects_have_a_correlation_and_no_interval():
    """Below five nothing is tested."""
    row = one(factors(*planted(np.random.default_rng(5), subjects=4, effect=0.8)))

    assert row.rho is not None
    assert (row.lo, row.hi, row.p, row.p_holm) == (None, None, None, None)


def test_targets_without_an_attribute_are_left_out_and_counted():
    """And an attribute that never varies has no correlation, which costs the others nothing."""
    records, attributes = planted(np.random.default_rng(6), effect=0.6)
    attributes = attributes.with_columns(
        n_holes=pl.lit(0.0),
        fourier_order=pl.when(pl.int_range(pl.len()) % 4 == 0).then("fourier_order").otherwise(1.0),
        intensity_difference=pl.when(pl.int_range(pl.len()) >= 7).then("intensity_difference"),
    )
    found = factors(records, attributes)

    assert found[0].n_left_out == 7
    assert found[0].n_targets == 113
    assert one(found, "n_holes").rho is None
    assert one(found).rho > 0.4


def test_off_protocol_rows_are_shown_and_not_corrected_for():
    """They have a p, and take none from the others."""
    records, attributes = planted(np.random.default_rng(7), effect=0.6)
    off = records.with_columns(strategy=pl.lit("point1"), off_protocol=True)
    alone = factors(records, attributes)
    both = factors(pl.concat([records, off]), attributes)

    assert one([g for g in both if not g.off_protocol]) == one(alone)
    assert all(row.p_holm is None for g in both if g.off_protocol for row in g.rows)


def test_a_product_of_few_columns_is_undefined_where_they_are_one():
    """Twice the same attribute: neither has a correlation of its own."""
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=(2, 50))
    values = np.stack([y, x, x], axis=1)
    values = values - values.mean(0)

    assert np.isnan(partial(values.T @ values)).all()


def test_leaving_units_out_equals_doing_so():
    """The fast sums are those of the rows that stay."""
    records, attributes = planted(np.random.default_rng(9), subjects=6)
    table = records.join(attributes.drop("image_id"), on="target_id").rename({"subject": "unit"})
    ranks = Ranks.of(table, TOGETHER)

    for unit, fast in enumerate(ranks.products().without_each()):
        rest = ranks.values[ranks.unit != unit]
        rest = rest - rest.mean(0)
        assert np.allclose(fast, rest.T @ rest)


def test_a_partial_effect_shows_no_difference_between_data_sets():
    """Large objects of one data set are good, small ones of another bad: size does nothing."""
    rng = np.random.default_rng(10)
    parts = [planted(rng, dataset="a", base=-2), planted(rng, dataset="b", base=2)]
    records = pl.concat([part[0] for part in parts])
    shift = pl.when(pl.col("target_id").str.starts_with("b/")).then(100.0).otherwise(0.0)
    attributes = pl.concat([part[1] for part in parts]).with_columns(
        area_px=pl.col("area_px") + shift
    )

    steps = effect(scored_targets(records, attributes), "area_px")

    assert len(steps) == 5
    assert np.ptp([step.dice for step in steps]) < 0.12
    by_dataset = records.group_by("dataset").agg(pl.col("dice").mean())["dice"]
    assert by_dataset.max() - by_dataset.min() > 0.5


def test_an_attribute_of_one_value_for_nearly_all_has_no_partial_effect():
    """Of 120 targets 109 or 107 have no hole: 91 % are too many, 89 % are not."""
    records, attributes = planted(np.random.default_rng(12))

    def steps(n_without: int):
        holes = pl.Series([0.0] * n_without + [float(i) for i in range(1, 121 - n_without)])
        return effect(scored_targets(records, attributes.with_columns(n_holes=holes)), "n_holes")

    assert steps(109) == ()
    assert sum(step.n_targets for step in steps(107)) == 120


def test_a_partial_effect_is_not_given_to_an_attribute_that_resembles_it():
    """Area drives DICE; the distance to the border follows area, and has no effect of its own."""
    rng = np.random.default_rng(11)
    records, attributes = planted(rng, subjects=40, clustered=0.0)
    size = rng.uniform(size=records.height)
    attributes = attributes.with_columns(
        area_px=pl.Series(size),
        border_distance_px=pl.Series(size + 0.2 * rng.normal(size=len(size))),
    )
    records = records.with_columns(dice=pl.Series(0.2 + 0.6 * size))
    scored = scored_targets(records, attributes)

    own = [step.dice for step in effect(scored, "area_px")]
    other = [step.dice for step in effect(scored, "border_distance_px")]

    assert own[-1] - own[0] > 0.35
    assert np.ptp(other) < 0.1


def test_subjects_whose_only_target_is_alone_in_its_data_set_are_no_evidence():
    """Twenty sets of one target each beside one of six subjects: nothing becomes surer by them."""
    rng = np.random.default_rng(4)
    records, attributes = planted(rng, subjects=6, images=8, effect=0.5)
    singles = [planted(rng, subjects=1, images=1, dataset=f"single{n}") for n in range(20)]
    more = [pl.concat([records, *(one[0] for one in singles)])]
    more += [pl.concat([attributes, *(one[1] for one in singles)])]
    (alone,), (together,) = factors(records, attributes), factors(*more)

    assert (alone.n_units, together.n_units) == (6, 6)
    assert together.n_targets == alone.n_targets + 20
    for before, after in zip(alone.rows, together.rows, strict=True):
        expected = pytest.approx([before.rho, before.lo, before.hi, before.p])
        assert [after.rho, after.lo, after.hi, after.p] == expected


def test_five_subjects_are_not_made_up_of_lone_ones():
    """Two in one set and three alone: two."""
    rng = np.random.default_rng(4)
    parts = [planted(rng, subjects=2, images=10)]
    parts += [planted(rng, subjects=1, images=1, dataset=f"single{n}") for n in range(3)]
    (found,) = factors(pl.concat([one[0] for one in parts]), pl.concat([one[1] for one in parts]))

    assert found.n_units == 2
    assert all(row.p is None and row.lo is None for row in found.rows)
