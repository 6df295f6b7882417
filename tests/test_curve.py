"""A learning curve finds what was planted, claims what it knows, and can be gone on with."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from phantom import write_discs
from test_cli import run

from promptseg.corpus import open_corpus
from promptseg.errors import DataError, ModelError
from promptseg.record import open_run
from promptseg.tuning.curve import Learned, parse_sizes, sizes_of
from promptseg.tuning.curve_fit import Scores, curve_of, fit, fitted
from promptseg.tuning.curve_page import answer, doubts, render
from promptseg.tuning.settings import Settings
from promptseg.tuning.split import Division, split_corpora

SIZES = (2, 4, 8, 16, 32)
LAW = (0.9, 0.4, 0.6)
FAST = {"replicates": 200}


def truth(n: float, law: tuple[float, float, float] = LAW) -> float:
    """Give the planted DICE."""
    a, b, c = law
    return a - b * n**-c


def planted(
    seed: int,
    *,
    law: tuple[float, float, float] = LAW,
    sizes: tuple[int, ...] = SIZES,
    n: int = 20,
    noise: float = 0.02,
    draws: int = 3,
    datasets: int = 1,
) -> Scores:
    """Plant a curve: subjects differ, and so do draws, and every score has noise of its own."""
    rng = np.random.default_rng(seed)
    means = np.array([truth(size, law) for size in sizes])
    subjects = rng.normal(0, 0.08, (1, n))
    by_draw = rng.normal(0, noise / 2, (len(sizes), draws, 1, 1))
    own = rng.normal(0, noise, (len(sizes), draws, 1, n))
    values = means[:, None, None, None] + subjects + by_draw + own
    units = tuple((f"d{i % datasets}", f"s{i}") for i in range(n))
    return Scores(sizes, ("disc (CT)",), units, values, 0.4 + subjects)


def told(scores: Scores, **given: Any) -> Learned:
    """Wrap a curve as the page takes it."""
    plain = Learned(
        curve=curve_of(scores, **FAST),
        tasks=scores.tasks,
        settings=Settings().told(),
        base="tiny",
        name="taught",
        strategies=("box",),
        selection="single",
        off_protocol=False,
        unit="subject",
        n_choosing=2,
        split_source="drawn",
        n_left_out=0,
    )
    return replace(plain, **given)


def test_a_curve_without_noise_is_found_exactly():
    """Least squares end at the planted law, by both ways of fitting."""
    means = np.array([truth(n) for n in SIZES])

    law = fit(SIZES, means)
    on_grid = fitted(SIZES, means[None])[0]

    assert (law.a, law.b, law.c) == pytest.approx(LAW, abs=1e-4)
    assert on_grid == pytest.approx(LAW, abs=0.03)


@pytest.mark.parametrize(
    "means", [[0.5, 0.9, 1.4], [0.9, 0.8, 0.7], [0.5, 0.5, 0.9], [0.2, 0.9, 0.9]]
)
def test_a_law_keeps_its_bounds_whatever_it_is_fitted_to(means):
    """No DICE above 1 is foretold, and nothing falls; both fits agree on how good they are."""
    law = fit((2, 4, 8), np.array(means))
    a, b, c = fitted((2, 4, 8), np.array([means]))[0]

    def error(a: float, b: float, c: float) -> float:
        return sum((a - b * n**-c - y) ** 2 for n, y in zip((2, 4, 8), means, strict=True))

    for one in ((law.a, law.b, law.c), (a, b, c)):
        assert one[0] <= 1
        assert one[1] >= 0
        assert 0 < one[2] <= 2
    assert error(law.a, law.b, law.c) <= error(a, b, c) + 1e-6
    assert error(a, b, c) <= error(law.a, law.b, law.c) + 1e-3


def test_what_was_planted_is_recovered_and_covered_in_most_simulations():
    """Of 200 noisy curves: a and c near the truth, and its value ahead within the bands."""
    found = [curve_of(planted(seed), seed=seed, replicates=100) for seed in range(200)]

    laws = np.array([[one.law.a, one.law.c] for one in found if one.law])
    ahead = truth(2 * SIZES[-1])
    gain = ahead - truth(SIZES[-1])
    covers = [one.ahead[0].dice.lo <= ahead <= one.ahead[0].dice.hi for one in found]
    foretold = [one.ahead[0].gain.lo <= gain <= one.ahead[0].gain.hi for one in found]
    assert np.abs(np.median(laws, axis=0) - [0.9, 0.6]).max() < 0.05
    assert (np.abs(laws - [0.9, 0.6]) < [0.1, 0.3]).all(axis=1).mean() > 0.9
    assert np.mean(covers) > 0.9
    assert np.mean(foretold) > 0.9


def test_a_flat_curve_is_said_to_be_flat_and_is_not_extended():
    """Of 40 curves without a gain hardly one is taken for a rising one."""
    flat = [curve_of(planted(seed, law=(0.8, 0.0, 1.0)), seed=seed, **FAST) for seed in range(40)]

    assert np.mean([one.verdict == "flat" for one in flat]) > 0.9
    page = told(planted(0, law=(0.8, 0.0, 1.0)))
    assert page.curve.reach == 1
    assert "flat as far as these 20 subjects held out can tell" in answer(page)
    assert "extrapolated" not in render(page)


def test_a_curve_that_falls_is_said_to_fall():
    """More cases that make it worse point to the training."""
    page = told(planted(1, law=(0.6, -0.5, 0.6)))

    assert page.curve.verdict == "falls"
    assert "DICE fell" in answer(page)


def test_a_rising_curve_says_what_twice_as_many_would_give():
    """In the first sentence, with intervals, and a DICE to reach by a number of subjects."""
    page = told(planted(0))

    line, html = answer(page), render(page)
    assert page.curve.reach == 4
    assert line.startswith("With 32 subjects DICE is 0.8")
    assert "twice as many would give 0.85" in line
    assert "reaching 0.85 would take about " in line
    assert page.curve.goal is not None
    assert 32 < page.curve.goal.n <= 128
    assert page.curve.law is not None
    assert page.curve.law.at(page.curve.goal.n) >= 0.85 - 1e-6
    assert "128, extrapolated" in html
    assert 'class="beyond" d="M' in html


def test_a_page_needs_nothing_else():
    """No file and no address is loaded by it."""
    html = render(told(planted(0)))

    assert "<link" not in html
    assert "src=" not in html
    assert "@import" not in html


def test_two_sizes_are_not_extended():
    """They have a gain, but no law."""
    page = told(planted(0, sizes=(4, 16)))

    assert page.curve.law is None
    assert page.curve.ahead == ()
    assert "2 sizes were trained on, and a fitted curve needs three" in answer(page)


def test_a_gain_that_could_be_anything_is_not_extended():
    """Noise that leaves the exponent open is said to."""
    page = told(planted(40, law=(0.95, 0.3, 0.2), sizes=(2, 3, 4), noise=0.04, n=12))

    gain = page.curve.ahead[0].gain
    assert page.curve.verdict == "wide"
    assert page.curve.reach == 1
    assert gain.hi is not None
    assert gain.lo is not None
    assert gain.hi - gain.lo > page.curve.seen.value
    assert "wider than the gain of +0.0" in answer(page)


def test_below_five_subjects_values_stand_in_place_of_intervals():
    """Decision 9: no interval of four, nor a fit."""
    page = told(planted(0, n=4))

    assert page.curve.base.lo is None
    assert page.curve.law is None
    assert len(page.curve.points[0].subject_values) == 4
    assert "five for every task are the fewest" in answer(page)
    assert any("Fewer than five subjects" in line for line in doubts(page))
    assert "Held-out subjects" in render(page)


def test_one_draw_is_a_doubt():
    """Its interval knows of held-out subjects only."""
    page = told(planted(0, draws=1))

    assert page.curve.points[0].dice.lo is not None
    assert any("One draw per size" in line for line in doubts(page))


def test_every_task_weighs_the_same():
    """Two tasks of different numbers of subjects: the mean of their means."""
    values = np.full((2, 1, 2, 10), np.nan)
    values[:, :, 0, :], values[:, :, 1, :5] = 0.9, 0.5
    scores = Scores(
        (1, 2), ("a", "b"), tuple(("d", f"{i}") for i in range(10)), values, values[0, 0]
    )

    curve = curve_of(scores, **FAST)

    assert curve.points[0].dice.value == pytest.approx(0.7)
    assert curve.points[1].tasks == pytest.approx({"a": 0.9, "b": 0.5})
    assert curve.points[0].dice.lo == pytest.approx(0.7)


def test_datasets_of_few_subjects_are_not_a_false_certainty():
    """Resampled within itself, a data set of one subject would never vary."""
    alone = curve_of(planted(0, n=6, datasets=6), **FAST).points[0].dice
    together = curve_of(planted(0, n=6), **FAST).points[0].dice

    assert alone.lo == together.lo
    assert alone.lo is not None
    assert alone.lo < alone.value - 0.03


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep embeddings out of the user's cache."""
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path / "cache"))


def test_subjects_of_a_smaller_size_are_among_those_of_a_larger_one(tmp_path):
    """Nested within a draw, spread over the data sets; validation and test untouched."""
    corpora = [
        write_discs(tmp_path / f"{grey}", count, grey=grey, subjects=count)
        for grey, count in ((50, 20), (170, 10))
    ]
    whole = split_corpora(corpora, Division())
    every = len(whole.owners("train"))
    for draw in range(3):
        before: set[Any] = set()
        for size in range(1, every + 1):
            split = split_corpora(corpora, Division(train_subjects=size, draw=draw))
            now = set(split.owners("train"))
            assert before < now <= set(whole.owners("train"))
            assert len(now) == size
            assert split.owners("val") == whole.owners("val")
            assert split.owners("test") == whole.owners("test")
            if size >= 3:
                assert len({dataset for dataset, _ in now}) == 2
            before = now
        assert before == set(whole.owners("train"))
    first = [
        split_corpora(corpora, Division(train_subjects=4, draw=draw)).owners("train")
        for draw in (0, 1)
    ]
    assert first[0] != first[1]


@pytest.mark.parametrize(
    ("size", "line"), [(0, "Cannot train on 0 subjects"), (9, "there are 4 to train on")]
)
def test_as_many_subjects_as_there_are_can_be_asked_for(tmp_path, size, line):
    """Neither none nor more."""
    corpus = write_discs(tmp_path / "c", 6, grey=50)

    with pytest.raises(DataError, match=line):
        split_corpora([corpus], Division(train_subjects=size))


def test_sizes_are_numbers_shares_or_all():
    """In order, each once."""
    assert sizes_of(parse_sizes("8,2,ALL, 4"), 12) == (2, 4, 8, 12)
    assert sizes_of(parse_sizes("25%,50%,100%,all"), 10) == (2, 5, 10)
    assert sizes_of(parse_sizes("1%,all"), 10) == (1, 10)


QUICK = (
    "--model", "tiny:make", "--epochs", "2", "--learning-rate", "0.01", "--augment", "none",
    "--overfit-steps", "0", "--device", "cpu",
)  # fmt: skip


@pytest.fixture
def dark(tmp_path: Path) -> Path:
    """Write dark discs of twelve subjects."""
    write_discs(tmp_path / "dark.corpus", 12, grey=50, subjects=12)
    return tmp_path / "dark.corpus"


LINES = [
    (["--curve", "2,99"], "Cannot train on 99 subjects"),
    (["--curve", "0,2"], "The size 0 cannot be trained on"),
    (["--curve", "2"], "A curve needs two sizes"),
    (["--curve", "2,many"], "Cannot read the size 'many'"),
    (["--curve", "50%,120%"], "The size 120% cannot be trained on"),
    (["--curve", "2,4", "--test-share", "0"], "No subject is held out"),
    (["--repeats", "2"], "--repeats is of a curve"),
    (["--curve", "2,4", "--also", "dark.corpus"], "leave --also out"),
]


@pytest.mark.parametrize(("options", "line"), LINES)
def test_a_curve_that_cannot_be_is_one_line_and_exit_2(dark, tmp_path, capsys, options, line):
    """Nothing is trained."""
    out = tmp_path / "out"
    options = [str(dark) if word == "dark.corpus" else word for word in options]

    code, _, err = run(capsys, "finetune", dark, "--out", out, *QUICK, *options)

    assert code == 2
    assert line in err
    assert err.strip().count("\n") == 0
    assert not out.exists()


def test_one_command_gives_a_curve_and_the_next_one_goes_on(dark, tmp_path, capsys):
    """Every size is scored on the same subjects; what is done is not done again, nor kept."""
    out = tmp_path / "taught"
    command = ["finetune", dark, "--out", out, "--curve", "2,4,all", "--test-share", "0.5", *QUICK]

    code, text, err = run(capsys, *command, "--repeats", "1")

    assert code == 0, err
    assert "With 5 subjects DICE is" in " ".join(text.split())
    folders = sorted(path.name for path in (out / "curve").iterdir())
    assert folders == ["base", "size-02-draw-0", "size-04-draw-0", "size-05-draw-0"]
    first = out / "curve" / "size-02-draw-0"
    assert not (first / "model").exists()
    assert not (first / "state").exists()
    seen = [
        open_run(next((out / "curve" / name / "scored").glob("*.run"))).records()
        for name in folders
    ]
    assert {frame["subject"].n_unique() for frame in seen} == {6}
    assert len({tuple(sorted(frame["prompt_id"])) for frame in seen}) == 1
    epochs = {
        name: json.loads((out / "curve" / name / "training.json").read_text())["settings"]["epochs"]
        for name in folders[1:]
    }
    assert epochs == {"size-02-draw-0": 6, "size-04-draw-0": 3, "size-05-draw-0": 2}

    stamp = (first / "training.json").stat().st_mtime_ns
    (out / "curve" / "size-04-draw-0" / "done.json").unlink()  # as if stopped before its end
    code, text, err = run(capsys, *command, "--repeats", "2", "--json")

    assert code == 0, err
    assert "size 2, draw 1, is there already" in err
    assert "size 4, draw 1, is there already" not in err
    assert (first / "training.json").stat().st_mtime_ns == stamp
    told = json.loads(text)
    assert told == json.loads((out / "curve.json").read_text())
    assert [point["size"] for point in told["curve"]["points"]] == [2, 4, 5]
    assert [len(point["draws"]) for point in told["curve"]["points"]] == [2, 2, 2]
    assert told["n_choosing"] == 1
    html = (out / "curve.html").read_text()
    assert "promptseg learning curve" in html
    assert html.count('class="dot draw"') == 7  # two draws of three sizes, and the legend

    code, _, err = run(capsys, *command, "--epochs", "3")

    assert code == 2
    assert "holds a training of other settings" in err


def test_an_image_that_cannot_be_scored_is_said_and_is_exit_3(dark, tmp_path, capsys):
    """The curve is drawn without it, and nobody has to look into its runs to know."""
    part = next((dark / "images").glob("*.parquet"))
    rows = pq.read_table(part).to_pylist()
    held_out = split_corpora([open_corpus(dark)], Division(test_share=0.5)).images["test"][0]
    for row in rows:
        if row["image_id"] == held_out.image_id:
            row["image"]["bytes"] = b"no picture"
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(part)), part, row_group_size=4)
    out = tmp_path / "taught"
    sizes = ("--curve", "2,4", "--repeats", "1", "--test-share", "0.5")

    code, _, err = run(capsys, "finetune", dark, "--out", out, *sizes, *QUICK)

    assert code == 3
    assert "base/scored/00-dark.run: failed on 1 image:" in " ".join(err.split())
    assert (out / "curve.html").is_file()


def test_a_curve_of_several_processes_is_refused(dark, tmp_path):
    """It would score with one while others wait."""
    from promptseg.tuning.curve import learn, study_of
    from promptseg.tuning.run import Job

    class Two:
        num_processes = 2

    job = Job(
        corpora=(open_corpus(dark),),
        model=None,
        asked="tiny:make",
        name="x",
        settings=Settings(),
        division=Division(),
        folder=tmp_path / "o",
    )

    with pytest.raises(ModelError, match="one process"):
        next(learn(study_of(job, ("2", "4")), Two()))
