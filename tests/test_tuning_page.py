"""The before/after report as a reader gets it: what it claims and admits."""

import base64
import csv
import dataclasses
import io
import re
import subprocess
import sys
from collections.abc import Sequence
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from fakes import Fake, filled_box, the_reference
from phantom import write_phantoms

from promptseg.errors import DataError
from promptseg.model import Training
from promptseg.plan import Plan
from promptseg.record import Record, Run, RunFolder, start_run
from promptseg.run import describe_run, evaluate_corpus
from promptseg.strategy import STRATEGIES
from promptseg.tuning.outcome import Outcome
from promptseg.tuning.page import write_page
from promptseg.tuning.page_facts import duration, size
from promptseg.tuning.page_view import axis, curves, smoothed
from promptseg.tuning.page_words import p_value, signed

BASE = Run(
    corpus="d", corpus_path="/nowhere/private/d.corpus", corpus_fingerprint="f" * 64,
    layout="l" * 64, models={"base": "a" * 64, "tuned": "b" * 64},
    asked={"base": "base", "tuned": "tuned"},
    trained_for={"base": ["box", "single"], "tuned": ["box", "single"]}, licences={},
    custom_weights=[], strategies=["box", "point1"], selections=["single", "predicted", "oracle"],
    protocol="paper", unit="class", seeds=[0], jitter=[], everything={}, subset={},
    max_targets=None, nsd_tolerance=2.0, save_masks="none", batch_size=64, device="cpu",
    dtype="float32", n_images=6, n_targets=12, of_images=6, of_targets=12, n_parts=1,
    versions={"promptseg": "0.1.0"}, started="2025-01-01T00:00:00+00:00",
)  # fmt: skip
OUTCOME = Outcome(
    name="tuned", base="base", asked="/home/someone/base", base_hash="a" * 64,
    settings={"method": "decoder", "prompts": "box", "score": "single", "epochs": 2,
              "learning_rate": 3e-4, "batch_size": 2, "jitter": None, "cached": True},
    split_source="drawn, by subject, seed 0", split_by="subject",
    n_subjects={"train": 12, "val": 3, "test": 40}, n_images={"train": 50, "val": 9, "test": 80},
    n_targets={"train": 50, "val": 9},
    datasets=[{"name": "d", "licence": "CC-BY-4.0", "citation": "Someone 2020"}],
    tasks=["liver (CT)"], n_values=5, of_values=10,
    checks=[{"name": "tokens", "outcome": "passed", "detail": "single is trained and tested"}],
    n_steps=20, steps=[[1.0 / (1 + i), 0.1, 0.1, 0.5, 1.0] for i in range(20)],
    epochs=[{"epoch": i, "step": 10 * i, "dice": d, "tasks": {}}
            for i, d in enumerate((0.5, 0.8, 0.7))],
    steps_per_epoch=10, best_step=10, best_score=0.8, seconds=3725.0, peak_bytes=2_500_000_000,
    cache_bytes=12_000_000,
)  # fmt: skip


def record(**known) -> Record:
    """One box record of one target, scored unless said otherwise; its prompt is its target's."""
    fields = {
        "model": "base", "strategy": "box", "selection": "single", "protocol": "paper",
        "unit": "class", "off_protocol": False, "seed": 0, "dataset": "d", "subject": "a",
        "image_id": "i", "target_id": "t", "prompt_id": None, "object": "liver",
        "modality": "CT", "task": "liver (CT)", "outcome": "ok", "dice": 0.5,
        "distance_unit": "mm", "image_diagonal": 100.0,
    }  # fmt: skip
    whole = fields | known
    asked = f"{whole['image_id']}-{whole['target_id']}-{whole['strategy']}"
    return Record(**(whole | {"prompt_id": whole["prompt_id"] or asked}))


def of_subjects(old: Sequence[float], new: Sequence[float], **known) -> list[Record]:
    """One image with one target per subject, scored by both models."""
    found = []
    for i, (x, y) in enumerate(zip(old, new, strict=True)):
        own = {"subject": f"s{i:03}", "image_id": f"i{i}"} | known
        found += [record(dice=float(x), **own), record(model="tuned", dice=float(y), **own)]
    return found


def folder(path: Path, records: Sequence[Record], **settings) -> RunFolder:
    """Write a run of one part without prompts and masks."""
    made = start_run(path, dataclasses.replace(BASE, **settings))
    made.write_part(0, records, [], [])
    return made


def page(tmp_path: Path, records: Sequence[Record], **changes) -> str:
    """Write a training and a run, and read the report of both."""
    model = tmp_path / "model"
    dataclasses.replace(OUTCOME, **changes).write(model)
    return write_page(model, [folder(tmp_path / "run", records)]).read_text()


def text_of(html: str) -> str:
    """Strip markup, style and attributes: what a reader reads."""
    plain = re.sub(r"<style>.*?</style>|<[^>]+>", " ", html, flags=re.DOTALL)
    return " ".join(unescape(plain).replace("\u00a0", " ").split())


class Tags(HTMLParser):
    """Collect the tags of a page with their attributes, and whether they are balanced."""

    VOID = frozenset({"meta", "circle", "line", "path", "rect", "image", "use", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        """Note a tag and that it is open."""
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        """Note a tag that closes itself."""
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        """Close the innermost tag, which has to be this one."""
        if tag not in self.VOID:
            assert self.open.pop() == tag


def rows_of(html: str) -> list[dict[str, str]]:
    """Decode the CSV that can be downloaded."""
    (uri,) = re.findall(r'href="data:text/csv;charset=utf-8;base64,([^"]+)"', html)
    return list(csv.DictReader(io.StringIO(base64.b64decode(uri).decode())))


def twelve(gain: float, **known) -> list[Record]:
    """Twelve subjects who differ much and gain about the same."""
    rng = np.random.default_rng(3)
    old = rng.uniform(0.5, 0.8, 12)
    return of_subjects(old, old + gain + rng.normal(0, 0.01, 12), **known)


def test_the_first_lines_say_what_was_trained_and_what_it_gained(tmp_path):
    """What from what, on how many; then the difference with interval and corrected p."""
    text = text_of(page(tmp_path, twelve(0.1)))

    assert (
        "tuned is base with its mask decoder trained on 12 subjects (50 images), for 1 task: "
        "liver (CT)." in text
    )
    (gain,) = re.findall(
        r"On 12 subjects it has not seen, with box / single, mean DICE in liver \(CT\) went from "
        r"0\.\d+ to 0\.\d+: \+(0\.\d+) \(95 % interval \+0\.0\d+ to \+0\.1\d+; p < 0\.001 after "
        r"Holm\)\.",
        text,
    )
    assert float(gain) == pytest.approx(0.1, abs=0.01)
    assert "The interval holds zero" not in text


def test_an_interval_that_holds_zero_is_said_in_words(tmp_path):
    """Nobody has to compute that nothing was shown."""
    old = np.linspace(0.5, 0.8, 12)

    text = text_of(page(tmp_path, of_subjects(old, old + np.array([0.02, -0.02] * 6))))

    assert "The interval holds zero: neither a gain nor a loss is shown." in text


def test_what_was_forgotten_is_on_the_first_screen(tmp_path):
    """Another task got worse, and so did prompts that the training was not judged by."""
    records = [
        *twelve(0.1),
        *twelve(-0.2, task="spleen (CT)", target_id="spleen"),
        *twelve(-0.05, strategy="point1"),
    ]

    text = text_of(page(tmp_path, records))
    first = text.partition("All numbers: mean DICE")[0]

    assert re.search(r"not trained on: with box / single, mean DICE in spleen \(CT\) went", first)
    assert "No target of these lost." in text  # of the liver's; those of the spleen did
    assert re.search(r"not judged by: with point1 / single, .*?: −0\.0[45]\d \(95", first)


def test_what_was_not_measured_is_not_called_kept(tmp_path):
    """Without other tasks nobody knows what was forgotten."""
    text = text_of(page(tmp_path, twelve(0.1)))

    assert "worse on tasks it was not trained on was not measured" in text


def test_training_on_none_of_what_was_scored_is_told(tmp_path):
    """All tasks of the run are others: no gain is named, and nothing breaks."""
    html = page(tmp_path, twelve(-0.1), tasks=["kidney (CT)"])
    text = text_of(html)

    assert "What tuned gained was not measured" in text
    assert "No target gained." in text
    assert "Trained on, and not in these runs: kidney (CT)." in text
    assert rows_of(html)[0]["trained_on"] == "False"


def test_failed_and_unpaired_records_are_counted(tmp_path):
    """A page over a run with failures says how many, why, and that they are in no pair."""
    records = [
        *twelve(0.1),
        record(image_id="x", dice=0.9),
        record(model="tuned", image_id="x", outcome="failed", dice=None, reason="planted"),
        record(image_id="y", outcome="failed", dice=None, reason="broken", task=None,
               target_id=None),
    ]  # fmt: skip

    html = page(tmp_path, records)

    assert "2 of 27 records failed , on 2 images, and are in no pair: 1 × broken; 1 × planted" in (
        text_of(html)
    )
    assert "Scored by one model alone, and in no number here: 1 of base." in text_of(html)
    (row,) = rows_of(html)
    assert (row["unpaired_before"], row["failed_after"], row["n_pairs"]) == ("1", "1", "12")


def test_a_base_without_the_strategy_is_no_rival(tmp_path):
    """The base was not trained for points: both numbers are told, and no gain is claimed."""
    records = twelve(0.4, strategy="point1")
    records = [dataclasses.replace(r, off_protocol=r.model == "base") for r in records]
    settings = dict(OUTCOME.settings) | {"prompts": "points"}

    html = page(tmp_path, records, settings=settings)
    text = text_of(html)

    assert "no gain is claimed, since base was not trained for this." in text
    assert "† before" in text
    assert [(row["off_protocol"], row["p"]) for row in rows_of(html)] == [("before", "")]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"best_score": None}, "No subject chose the best state"),
        ({"best_step": 0}, "tuned does as base does"),
        ({"best_step": 20}, "a longer training may gain more"),
        ({"split_by": "image"}, "Images were held out, not subjects"),
        ({"n_subjects": {"train": 9, "test": 5}}, "only 5 were held out"),
        (
            {"checks": [{"name": "overfit", "outcome": "skipped", "detail": "left out"}]},
            "The check of overfit was skipped: left out",
        ),
    ],
)
def test_what_weakens_a_gain_is_listed(tmp_path, changes, said):
    """Each doubt has its sentence, and a sound training has none of them."""
    assert said in text_of(page(tmp_path / "weak", twelve(0.1), **changes))
    assert said not in text_of(page(tmp_path / "sound", twelve(0.1)))


def test_subjects_of_another_corpus_were_not_trained_on(tmp_path):
    """None were held out, and those of `--also` were shown to be others."""
    counts = {"train": 9, "test": 0}
    html = page(tmp_path, twelve(0.1), n_subjects=counts, also=[BASE.corpus_fingerprint])

    assert "were held out: some were seen" not in text_of(html)


def test_a_sound_training_raises_no_doubt(tmp_path):
    """Twelve held-out subjects, one test, a state chosen in time: no banner."""
    assert "Look at this twice" not in text_of(page(tmp_path, twelve(0.1)))


def test_what_the_base_was_trained_on_is_not_called_unseen(tmp_path):
    """A base that names the data set without its images may have seen those held out."""
    OUTCOME.write(tmp_path / "model")
    made = folder(tmp_path / "run", twelve(0.1), trained_on={"base": ["D"], "tuned": ["D"]})
    text = text_of(write_page(tmp_path / "model", [made]).read_text())

    assert "it has not seen" not in text
    assert "On 12 subjects held out here, with box / single" in text
    assert "base was itself trained on images of d, and does not list them" in text


def test_few_subjects_have_no_p_and_the_fewest_no_interval(tmp_path):
    """Four subjects: their differences; six in two rows: an interval marked few."""
    four = text_of(page(tmp_path / "4", of_subjects([0.5] * 4, [0.6, 0.6, 0.7, 0.5])))
    six = [*twelve(0.1)[:12], *twelve(0.1, strategy="point1")[:12]]
    told = text_of(page(tmp_path / "6", six))

    assert "no interval, fewer than 5 subjects: +0.100, +0.100, +0.200, 0.000" in four
    assert "few subjects; too few subjects to test" in told
    assert "Few held-out subjects (6 in the smallest task)" in told


def test_unknown_subjects_are_images_and_it_is_said(tmp_path):
    """Intervals by image are too narrow, if images share patients."""
    text = text_of(page(tmp_path, twelve(0.1, subject=None)))

    assert "On 12 images it has not seen" in text
    assert "They are too narrow if images share patients" in text


def test_the_table_sets_deployable_and_oracle_side_by_side(tmp_path):
    """What chose the best state comes first, the upper bound last; means are by scope."""
    records = [
        *twelve(0.1),
        *twelve(0.2, task="kidney (CT)", target_id="k"),
        *twelve(-0.1, task="spleen (CT)", target_id="s"),
        *twelve(0.1, selection="oracle"),
        *twelve(0.1, selection="predicted"),
    ]

    html = page(tmp_path, records, tasks=["liver (CT)", "kidney (CT)"])
    text = text_of(html)

    told = ("single deployable, chose", "predicted deployable", "oracle upper bound")
    heads = [text.index(head) for head in told]
    assert heads == sorted(heads)
    mean = next(row for row in rows_of(html) if row["mean_over"] == "tasks trained on")
    assert float(mean["difference"]) == pytest.approx(0.15, abs=0.01)
    assert "Mean over tasks trained on" in text
    assert "Mean over other tasks" not in text  # of one task there is no mean


def test_the_csv_has_full_precision(tmp_path):
    """The row of the one task can be computed again from the records."""
    records = twelve(0.1)
    before = [r.dice for r in records if r.model == "base"]
    after = [r.dice for r in records if r.model == "tuned"]

    (row,) = rows_of(page(tmp_path, records))

    change = np.array(after) - np.array(before)
    assert float(row["difference"]) == pytest.approx(change.mean(), abs=1e-12)
    assert float(row["effect_size"]) == pytest.approx(change.mean() / change.std(ddof=1))
    assert float(row["p_holm"]) == 2 / 2**12


def test_the_page_is_whole_and_opens_offline(tmp_path):
    """Balanced tags, no script, nothing fetched, and no path of the machine that wrote it."""
    html = page(tmp_path, twelve(0.1))
    tags = Tags(html)

    assert tags.open == []
    assert "script" not in {tag for tag, _ in tags.found}
    fetched = [a.get("href") or a.get("src") for _, a in tags.found if "href" in a or "src" in a]
    assert all(str(url).startswith(("#", "data:", "https://doi.org/")) for url in fetched)
    assert "/nowhere" not in html
    assert "/home" not in html
    assert str(tmp_path) not in html


def test_names_from_outside_are_escaped(tmp_path):
    """A task or a licence cannot put markup into the page."""
    evil = "<b>liver</b> (CT)"

    html = page(tmp_path, twelve(0.1, task=evil), tasks=[evil],
                datasets=[{"name": "d", "licence": "<i>x</i>", "citation": None}])  # fmt: skip

    assert "<b>liver" not in html
    assert "<i>x" not in html
    assert "&lt;b&gt;liver" in html


def test_the_course_of_the_training_is_drawn(tmp_path):
    """Loss and validation as curves with the best state marked; without steps a sentence."""
    html = page(tmp_path / "a", twelve(0.1))
    bare = page(tmp_path / "b", twelve(0.1), steps=[], epochs=[], best_score=None, checks=[])

    assert "best: 0.800" in text_of(html)
    assert len(re.findall(r'class="point', html)) == 3
    assert "No step was recorded." in text_of(bare)
    for told in ("1 h 2 min", "2.50 GB", "12.0 MB", "CC-BY-4.0", "5 of 10 (50 %)"):
        assert told in text_of(html)


@pytest.fixture(scope="module")
def pictured(tmp_path_factory) -> str:
    """Evaluate a model that fills the box, and one that finds the reference, on six phantoms."""
    path = tmp_path_factory.mktemp("pictured")
    corpus = write_phantoms(path / "corpus", range(6))
    training = Training(frozenset({"box"}), frozenset({"single"}))
    models = {
        "base": Fake("base", filled_box, training=training),
        "tuned": Fake("tuned", the_reference, training=training, weights_hash="1" * 64),
    }
    plan = Plan(strategies=(STRATEGIES["box"], STRATEGIES["point1"]))
    made = start_run(path / "run", describe_run(corpus, models, plan))
    for _ in evaluate_corpus(corpus, made, models, plan):
        pass
    dataclasses.replace(OUTCOME, tasks=["disc (CT)", "bar (CT)"]).write(path / "model")
    return write_page(path / "model", [made]).read_text()


def test_the_targets_that_gained_most_are_drawn_before_and_after(pictured):
    """Discs gain where bars are boxes already: of each shown disc one image and two predictions."""
    figures = re.findall(r"<figure>.*?</figure>", pictured, re.DOTALL)

    assert len(figures) == 4  # one of each subject and task, at most four; nothing lost
    for figure in figures:
        assert "disc (CT)" in figure
        assert len(re.findall(r"<image ", figure)) == 1
        assert len(re.findall(r'class="prediction"', figure)) == 2
        assert len(re.findall(r'class="box"', figure)) == 2
    assert "Of the tasks trained on, by the difference" in text_of(pictured)
    assert "No target of these lost." in text_of(pictured)
    assert Tags(pictured).open == []


def test_without_the_corpus_the_page_says_why_there_are_no_pictures(tmp_path):
    """The records are enough for all numbers."""
    text = text_of(page(tmp_path, twelve(0.1)))

    assert "No pictures of d: the corpus d.corpus is not where it was." in text


def test_the_base_may_have_a_run_of_its_own(tmp_path):
    """Two runs on one corpus with a model each are compared like one with both."""
    records = twelve(0.1)
    OUTCOME.write(tmp_path / "model")
    runs = [
        folder(
            tmp_path / name,
            [r for r in records if r.model == name],
            models={name: BASE.models[name]},
        )
        for name in ("base", "tuned")
    ]

    text = text_of(write_page(tmp_path / "model", runs).read_text())

    assert "On 12 subjects it has not seen" in text


def test_runs_without_one_of_the_models_are_refused(tmp_path):
    """The message says who is there."""
    with pytest.raises(DataError, match="no record of tuned, but of base"):
        page(tmp_path, [record()])
    with pytest.raises(DataError, match=r"training\.json is missing"):
        write_page(tmp_path / "nothing", [])


def test_numbers_read_as_they_should():
    """Signs are shown, a p is never zero, a time has two units, an axis ends at round numbers."""
    assert [signed(v) for v in (0.0123, -0.5, 0.0001, None)] == ["+0.012", "−0.500", "0.000", "–"]
    assert [p_value(p) for p in (0.0312, 0.0001)] == ["p\u00a0=\u00a00.031", "p\u00a0<\u00a00.001"]
    assert [duration(s) for s in (3.21, 75, 3725)] == ["3.2 s", "1 min 15 s", "1 h 2 min"]
    assert [size(n) for n in (0, 12_000_000)] == ["–", "12.0 MB"]
    assert axis(0.63, 0.97) == (0.6, 1.0, (0.6, 0.7, 0.8, 0.9, 1.0))
    lo, hi, ticks = axis(0.9, 0.9)
    assert lo < hi
    assert len(ticks) == 2


def test_the_curve_of_a_long_training_ends_where_it_ended():
    """Rows of it are means of many steps, the last of fewer."""
    rows = OUTCOME.steps[:5]
    long = dataclasses.replace(OUTCOME, n_steps=4321, steps=rows, steps_per_row=1000)
    short = dataclasses.replace(OUTCOME, n_steps=5, steps=rows)
    (loss, _), (alike, _) = curves(long), curves(short)

    assert (loss.end, alike.end) == (432.1, 0.5)
    assert loss.path.split("L")[-1] == alike.path.split("L")[-1]
    places = [point.split()[0] for point in loss.faint.removeprefix("M").split("L")]
    assert places == ["231.4", "462.9", "694.3", "925.7", "1000.0"]


def test_smoothing_keeps_the_mean_of_its_window():
    """A constant stays, and a step becomes a slope between the same ends."""
    assert smoothed(np.full(50, 2.0)) == pytest.approx(np.full(50, 2.0))
    stepped = smoothed(np.array([0.0] * 50 + [1.0] * 50))
    assert (stepped[0], stepped[-1]) == pytest.approx((0.0, 1.0))
    assert (np.diff(stepped) >= 0).all()


def test_the_module_is_imported_without_torch():
    """A report of records needs no network; torch comes in where a page is written."""
    code = "import sys, promptseg.tuning.page; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"


def test_a_mean_over_tasks_with_one_small_task_says_why_it_has_no_interval(tmp_path):
    """Twelve subjects in one task do not make up for four in the other."""
    records = [
        *twelve(0.1),
        *of_subjects([0.5] * 4, [0.6] * 4, task="kidney (CT)", target_id="k"),
    ]

    text = text_of(page(tmp_path, records, tasks=["liver (CT)", "kidney (CT)"]))

    assert "mean DICE over 2 tasks went from" in text
    assert "(no interval, fewer than 5 subjects in at least one task)" in text


def test_a_strategy_that_run_json_does_not_list_is_shown_last(tmp_path):
    """The records decide what there is; run.json decides the order alone."""
    html = page(tmp_path, [*twelve(0.1, strategy="points5"), *twelve(0.1)])

    assert [row["strategy"] for row in rows_of(html)] == ["box", "points5"]
