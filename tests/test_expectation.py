"""Expected DICE: planted relations are found, nothing is found where there is nothing."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from fakes import ALL, Planted, part_of
from phantom import write_phantoms

from promptseg.attributes import attributes_of
from promptseg.corpus import Corpus
from promptseg.errors import DataError
from promptseg.expectation import (
    Answered,
    Examples,
    Fitted,
    Lack,
    Predictor,
    Way,
    by_dataset,
    by_subject,
    fit,
    fit_way,
    learn,
    read_predictor,
    write_predictor,
)
from promptseg.expectation.feature import (
    DEPLOYABLE,
    PLANNING,
    answer_of,
    deployable_values,
    look_of,
    planning_values,
)
from promptseg.expectation.interval import LEVEL, Residuals
from promptseg.expectation.learning import folds_of
from promptseg.expectation.spline import bend
from promptseg.expectation.table import deployable_examples
from promptseg.plan import Plan
from promptseg.prompt import Box, BoxPoints, Points
from promptseg.record import RunFolder, start_run
from promptseg.run import describe_run, evaluate_corpus
from promptseg.strategy import STRATEGIES

WAY = Way("m", "paper", "class", "box", "single", False)
SUBJECT, NOISE = 0.05, 0.05


def simulated(
    rng: np.random.Generator,
    *,
    subjects: int = 40,
    each: int = 5,
    effect: float = 0.2,
    dataset: str = "d",
    modality: str = "CT",
) -> Examples:
    """Make targets whose DICE is a bent function of contrast, with a subject's part and noise."""
    n = subjects * each
    values = rng.normal(size=(n, len(PLANNING)))
    who = np.repeat(np.arange(subjects), each)
    own = SUBJECT * rng.normal(size=subjects)[who]
    dice = 0.6 + effect * np.tanh(values[:, 1]) + own + NOISE * rng.normal(size=n)
    return Examples(
        names=PLANNING,
        values=values,
        dice=np.clip(dice, 0, 1),
        unit=tuple(f"{dataset}/{i}" for i in who),
        dataset=(dataset,) * n,
        modality=(modality,) * n,
        task=(f"x ({modality})",) * n,
        predicted_iou=np.full(n, np.nan),
    )


def test_a_planted_relation_is_found_near_the_noise_floor_and_calibrated():
    """The error of knowing the function itself is 0.056; that of the mean is twice as large."""
    floor = np.hypot(SUBJECT, NOISE) * np.sqrt(2 / np.pi)
    errors = [by_subject(simulated(np.random.default_rng(seed))) for seed in range(4)]

    assert all(error.beats_mean for error in errors)
    assert np.mean([error.own.mae for error in errors]) < 1.15 * floor
    assert np.mean([error.mean.mae for error in errors]) > 1.7 * floor
    assert np.mean([error.slope for error in errors]) == pytest.approx(1, abs=0.07)
    assert np.mean([error.intercept for error in errors]) == pytest.approx(0, abs=0.05)
    assert all(len(error.bins) == 5 for error in errors)


def test_intervals_cover_targets_of_new_subjects():
    """Learnt from 20 subjects, asked of 200 new ones: not less than nine in ten, nor all."""
    covered, expected = [], []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        learnt, new = learn(simulated(rng, subjects=20)), simulated(rng, subjects=200, each=1)
        low, high = learnt.interval(new.values, new.modality)
        covered.append(np.mean((low <= new.dice) & (new.dice <= high)))
        expected.append(np.mean(high - low))

    # standard error of the mean of ten, of which each varies with its 20 subjects
    assert LEVEL - 0.03 < np.mean(covered) < 0.97
    assert max(expected) < 0.5


def test_where_nothing_depends_on_anything_it_says_so():
    """Sixteen times: the mean is beaten by chance no oftener than a test at 5 % may."""
    errors = [
        by_subject(simulated(np.random.default_rng(seed), subjects=12, each=3, effect=0))
        for seed in range(16)
    ]
    useless = fit_way(WAY, "planning", simulated(np.random.default_rng(0), effect=0))

    assert sum(error.beats_mean for error in errors) <= 2
    assert np.mean([error.r2 for error in errors]) < 0.02
    assert isinstance(useless, Fitted)
    told = useless.expected_of(np.zeros(len(PLANNING)), "CT")
    assert told.value is None
    assert f"did not tell DICE better than its mean, {useless.learnt.mean:.2f}" in told.reason


def test_what_identifies_a_subject_does_not_help_on_other_subjects():
    """A feature that names the subject explains its DICE wherever folds share subjects."""
    rng = np.random.default_rng(1)
    plain = simulated(rng, subjects=30, each=6, effect=0)
    own = rng.normal(size=30)[plain.numbers()]
    values = np.stack([own + 1e-3 * rng.normal(size=180), *plain.values[:, 1:].T], axis=1)
    named = dataclasses.replace(plain, values=values, dice=np.clip(0.6 + 0.15 * own, 0, 1))
    shuffled = rng.permutation(30)[plain.numbers()]
    secret = dataclasses.replace(
        named, dice=np.clip(0.6 + 0.15 * rng.normal(size=30)[shuffled], 0, 1)
    )
    by_target = dataclasses.replace(secret, unit=tuple(f"t{i}" for i in range(180)))

    assert by_subject(named).r2 > 0.9  # the feature is usable where it means something
    assert by_subject(secret).r2 < 0.05
    assert by_subject(by_target).r2 > by_subject(secret).r2 + 0.05  # what a leak would look like


def test_all_targets_of_a_subject_share_a_fold_whatever_the_order_of_rows():
    """And the subjects of each data set are spread over the folds."""
    unit = [f"s{i % 23}" for i in range(92)]
    dataset = ["a" if i % 23 < 11 else "b" for i in range(92)]
    fold = folds_of(unit, dataset)
    backwards = folds_of(unit[::-1], dataset[::-1])[::-1]

    assert (fold == backwards).all()
    assert all(len(set(fold[np.array(unit) == one])) == 1 for one in set(unit))
    assert (
        np.ptp([len({u for u, f in zip(unit, fold, strict=True) if f == k}) for k in range(10)])
        <= 1
    )
    assert len({f for d, f in zip(dataset, fold, strict=True) if d == "a"}) == 10


def test_few_subjects_have_no_predictor_and_no_interval_below_nine():
    """Four: the reason. Eight: a value, and nothing that bounds it."""
    four = fit_way(WAY, "planning", simulated(np.random.default_rng(2), subjects=4, each=20))
    eight = learn(simulated(np.random.default_rng(2), subjects=8))
    low, high = eight.interval(np.zeros((1, len(PLANNING))), ["CT"])

    assert four == Lack(WAY, "planning", "4 subjects are too few to learn from: at least 5")
    assert by_subject(simulated(np.random.default_rng(2), subjects=4)) is None
    assert not eight.has_interval
    assert (low, high) == (0, 1)
    assert learn(simulated(np.random.default_rng(2), subjects=9)).has_interval


def test_an_interval_is_that_of_the_jackknife_where_subjects_have_one_target():
    """CV+ by hand: the ceil(0.9 (n + 1))-th of n sums, and its mirror."""
    rng = np.random.default_rng(3)
    n = 19
    size, centre, spread = rng.uniform(size=n), rng.uniform(0.4, 0.6, size=n), np.full(n, 0.1)
    kept = Residuals(tuple(range(n)), tuple(size), (1 / (n + 1),) * n)
    low, high = kept.interval(centre[None], spread[None])

    assert high[0] == np.sort(centre + 0.1 * size)[int(np.ceil(0.9 * (n + 1))) - 1]
    assert low[0] == np.sort(centre - 0.1 * size)[int(np.floor(0.1 * (n + 1))) - 1]


def test_outside_its_range_there_is_a_reason_and_no_value():
    """A feature, a modality, a combination, and what was never undefined."""
    rng = np.random.default_rng(4)
    examples = simulated(rng, subjects=60)
    linked = examples.values.copy()
    linked[:, 0] = linked[:, 1] + 0.1 * rng.normal(size=len(linked))
    fitted = fit_way(WAY, "planning", dataclasses.replace(examples, values=linked))
    assert isinstance(fitted, Fitted)
    middle = np.zeros(len(PLANNING))

    def with_(place: int, value: float) -> np.ndarray:
        return np.array([value if i == place else one for i, one in enumerate(middle)])

    assert fitted.expected_of(middle, "CT").value is not None
    below = fitted.expected_of(with_(0, linked[:, 0].min() - 1e-6), "CT")
    assert (below.value, below.lo) == (None, None)
    assert "size (share of the image)" in below.reason
    assert "is below all of training" in below.reason
    above = fitted.expected_of(with_(1, linked[:, 1].max() + 1e-6), "CT")
    assert "is above all of training" in above.reason
    assert (
        "the modality MRI is not in training, which has CT"
        in fitted.expected_of(middle, "MRI").reason
    )
    undefined = fitted.expected_of(with_(2, np.nan), "CT")
    assert "is undefined here, and never was in training" in undefined.reason
    apart = middle.copy()
    apart[:2] = linked[:, 0].min() * 0.9, linked[:, 1].max() * 0.9
    assert "their combination is unlike all of it" in fitted.expected_of(apart, "CT").reason


def test_a_new_data_set_is_told_apart_from_new_subjects():
    """One of three data sets has another level, which its targets do not show."""
    rng = np.random.default_rng(5)
    parts = [simulated(rng, subjects=15, dataset=name) for name in "abc"]
    shifted = dataclasses.replace(parts[2], dice=parts[2].dice - 0.3)
    whole = fit_way(
        WAY,
        "planning",
        Examples(
            names=PLANNING,
            values=np.concatenate([p.values for p in parts]),
            dice=np.concatenate([parts[0].dice, parts[1].dice, shifted.dice]),
            unit=tuple(u for p in parts for u in p.unit),
            dataset=tuple(u for p in parts for u in p.dataset),
            modality=tuple(u for p in parts for u in p.modality),
            task=tuple(u for p in parts for u in p.task),
            predicted_iou=np.full(225, np.nan),
        ),
    )

    assert isinstance(whole, Fitted)
    assert whole.new_dataset.own.mae > whole.error.own.mae + 0.02
    assert by_dataset(parts[0]) is None


def test_a_spline_is_straight_beyond_its_outer_knots():
    """And bends between them."""
    x = np.linspace(-3, 3, 61)
    terms = bend(x, (-1.0, 0.0, 0.5, 1.0))
    outside = np.diff(terms[x > 1.05], n=2, axis=0)

    assert terms.shape == (61, 3)
    assert np.allclose(outside, 0, atol=1e-9)
    assert np.allclose(np.diff(terms[x < -1], n=2, axis=0), 0, atol=1e-9)
    assert np.abs(np.diff(terms[:, 1:], n=2, axis=0)).max() > 1e-3


# from pixels: a model whose DICE follows from contrast, on phantoms of many subjects


def by_size(mask: np.ndarray, prompt: object) -> float:
    """Plant a DICE that rises with the size of the object."""
    return float(np.clip(0.2 + 0.4 * np.log10(max(1, mask.sum())) / 2, 0, 0.97))


MODEL = Planted("sized", quality=by_size, training=ALL)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    """Make phantoms of 24 images; every image is its own subject."""
    return write_phantoms(tmp_path_factory.mktemp("phantoms") / "corpus", range(24))


def run_of(corpus: Corpus, path: Path, save_masks: str = "selected") -> RunFolder:
    """Evaluate the model with boxes and points."""
    plan = Plan(tuple(STRATEGIES[name] for name in ("box", "point1")), save_masks=save_masks)
    models = {"sized": MODEL}
    folder = start_run(path, describe_run(corpus, models, plan, device="cpu", dtype="float32"))
    list(evaluate_corpus(corpus, folder, models, plan))
    return folder


@pytest.fixture(scope="module")
def folder(corpus: Corpus, tmp_path_factory) -> RunFolder:
    """Give a run with its masks."""
    return run_of(corpus, tmp_path_factory.mktemp("run") / "r")


@pytest.fixture(scope="module")
def predictor(folder: RunFolder) -> Predictor:
    """Fit a predictor on the run."""
    return fit([folder])


def test_a_predictor_is_fitted_on_a_run_before_and_after_the_answer(predictor: Predictor):
    """Every selection before; after it what looks at no reference, with the reason."""
    before = {(one.way.strategy, one.way.selection) for one in predictor.of("planning")}
    after = {(one.way.strategy, one.way.selection) for one in predictor.of("deployable")}

    assert {("box", "oracle"), ("box", "single"), ("point1", "predicted")} <= before
    assert after == {(s, c) for s in ("box", "point1") for c in ("single", "predicted")}
    lacks = {(one.kind, one.way.selection): one.reason for one in predictor.lacks}
    assert lacks == {("deployable", "oracle"): "its choice of the mask looks at the reference"}


def test_the_reference_takes_no_part_in_what_is_known_after_an_answer(
    folder: RunFolder, corpus: Corpus, tmp_path
):
    """Scores of other targets, no attributes: the same features, and another DICE."""
    way = Way("sized", "paper", "class", "box", "single", False)
    (known,) = deployable_examples(folder, corpus, [way]).values()
    blind = start_run(tmp_path / "blind", folder.run)
    for kind in ("records", "prompts", "masks"):
        (blind.path / kind).mkdir()
        for part in (folder.path / kind).iterdir():
            frame = pl.read_parquet(part)
            if kind == "records":
                worse = [pl.col("dice").reverse(), pl.col("jaccard").reverse()]
                frame = frame.with_columns(*worse, hd=pl.lit(None, pl.Float64))
            frame.write_parquet(blind.path / kind / part.name)
    found = deployable_examples(blind, corpus, [way])[way]

    assert known.names == DEPLOYABLE
    assert np.array_equal(known.values, found.values, equal_nan=True)
    assert not np.array_equal(known.dice, found.dice)


def test_agreement_of_candidates_is_known_only_where_all_were_saved(
    corpus: Corpus, folder: RunFolder, tmp_path
):
    """Which masks are saved by default follows from the oracle's choice."""
    way = Way("sized", "paper", "class", "box", "predicted", False)
    place = DEPLOYABLE.index("agreement")
    whole = run_of(corpus, tmp_path / "all", save_masks="all")

    assert np.isnan(deployable_examples(folder, corpus, [way])[way].values[:, place]).all()
    assert not np.isnan(deployable_examples(whole, corpus, [way])[way].values[:, place]).any()


def test_without_masks_or_corpus_only_planning_is_left_and_the_reason_is_said(
    corpus: Corpus, folder: RunFolder, tmp_path
):
    """Runs that saved no masks, and a corpus that has moved."""
    none = fit([run_of(corpus, tmp_path / "none", save_masks="none")])
    moved = start_run(
        tmp_path / "moved", dataclasses.replace(folder.run, corpus_path="/nowhere/gone.corpus")
    )
    for kind in ("records", "prompts", "masks", "attributes"):
        (moved.path / kind).symlink_to(folder.path / kind)
    lost = fit([moved])

    for made, reason in (
        (none, "no masks were saved in none"),
        (lost, "the corpus gone.corpus is not where it was"),
    ):
        assert made.of("planning")
        assert not made.of("deployable")
        assert reason in {one.reason for one in made.lacks}


def test_a_predictor_survives_its_file_exactly(predictor: Predictor, tmp_path):
    """Equal, and with equal answers."""
    write_predictor(tmp_path / "p.json", predictor)
    back = read_predictor(tmp_path / "p.json")
    one, other = predictor.of("planning")[0].learnt, back.of("planning")[0].learnt
    values = np.tile(np.array([[-1.5, 50, 0.3, 1, 0.8, 0.9, 0.1, 0.3, 0]]), (3, 1))

    assert back == predictor
    assert (one.expected(values, ["CT"] * 3) == other.expected(values, ["CT"] * 3)).all()
    assert (one.interval(values, ["CT"] * 3)[0] == other.interval(values, ["CT"] * 3)[0]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(schema_version=99), "has predictor schema 99, this promptseg reads 1"),
        (lambda c: c.update(what="else"), "holds no predictor"),
        (lambda c: c["fitted"][0]["learnt"].update(coefficients=[0.5]), "do not fit together"),
        (lambda c: c["fitted"][0].update(kind="magic"), "is damaged"),
        (lambda c: c.pop("models"), "is damaged"),
        (lambda c: c["fitted"][0]["learnt"].update(mean="0.5"), "is damaged"),
    ],
)
def test_a_file_that_is_none_is_refused(predictor: Predictor, tmp_path, change, message):
    """Another schema, another file, an edited one."""
    write_predictor(tmp_path / "p.json", predictor)
    content = json.loads((tmp_path / "p.json").read_text())
    change(content)
    (tmp_path / "p.json").write_text(json.dumps(content))

    with pytest.raises(DataError, match=message):
        read_predictor(tmp_path / "p.json")


def answered(**known) -> Answered:
    """Give an answer to a box on an image of noise."""
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    mask = np.zeros((64, 64), bool)
    mask[20:40, 20:40] = True
    fields = {
        "model": "sized", "weights_hash": MODEL.weights_hash, "selection": "single",
        "image": image, "prompt": Box(20, 20, 40, 40), "mask": mask, "predicted_iou": 0.9,
    }  # fmt: skip
    return Answered(**(fields | known))


def test_other_weights_are_refused_and_other_prompts_have_a_reason(predictor: Predictor):
    """What was not learnt from is not told of."""
    two = Points(np.array([[21.0, 21], [30, 30]]), np.array([True, True]))

    with pytest.raises(DataError, match="not of sized with these weights"):
        predictor.after(answered(weights_hash="other"))
    reason = predictor.after(answered(prompt=two)).reason
    assert reason == (
        "2 positive and 0 negative points / single is not among the prompts that were learnt from"
    )
    empty = predictor.after(answered(mask=np.zeros((64, 64), bool)))
    assert "the mask is empty" in empty.reason
    assert predictor.after(answered(selection="oracle")).reason == (
        "its choice of the mask looks at the reference"
    )


def test_features_of_an_answer_are_what_they_say():
    """Half of the box filled, a fifth of the mask outside, one of two points inside."""
    mask = np.zeros((50, 100), bool)
    mask[10:20, 10:20] = True
    mask[10:20, 30:40] = True
    prompt = BoxPoints(
        Box(10, 10, 30, 20),
        Points(np.array([[12.0, 12], [25, 12], [45, 45]]), np.array([True, True, False])),
    )
    found = answer_of(mask, prompt, predicted_iou=0.7, others=[mask, np.zeros_like(mask)])

    assert found.box_fill == 0.5
    assert found.outside_share == 0.5
    assert found.box_agreement == pytest.approx(200 / 300)
    assert found.points_inside == 0.5
    assert found.negatives_inside == 0
    assert found.agreement == 0.5
    assert found.box_share == pytest.approx(200 / 5000)
    assert found.box_aspect == 0.5
    assert found.points_spread == pytest.approx(14 / 5000)


def test_a_larger_picture_of_the_same_is_the_same_object():
    """Twice the pixels: size and distance to the edge are relative."""
    image = np.zeros((60, 60, 3), np.uint8)
    image[20:40, 20:40] = 200
    mask = image[:, :, 0] > 0
    twice_image, twice = (np.repeat(np.repeat(a, 2, 0), 2, 1) for a in (image, mask))
    small, large = (
        planning_values(look_of(attributes_of(i, m)))
        for i, m in ((image, mask), (twice_image, twice))
    )
    names = ("area_share", "border_share", "aspect_ratio", "n_holes")
    places = [PLANNING.index(name) for name in names]

    assert small[places] == pytest.approx(large[places])
    assert len(
        deployable_values(image, part_of(mask, 0.9), answer_of(mask, Box(20, 20, 40, 40)))
    ) == (len(DEPLOYABLE))


def test_runs_of_models_of_one_name_and_other_weights_are_refused(folder: RunFolder, tmp_path):
    """They would be averaged."""
    other = start_run(tmp_path / "o", dataclasses.replace(folder.run, models={"sized": "2" * 64}))

    with pytest.raises(DataError, match="two models called sized"):
        fit([folder, other])
    with pytest.raises(ValueError, match="one run or several"):
        fit([])
