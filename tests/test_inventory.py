"""What is in a corpus, and what is in it twice: counted, told, and drawn."""

import json

import numpy as np
import polars as pl
import pytest
from phantom import write_phantoms
from test_curation import put
from test_curation_splits import curated, write
from test_likeness import CHANGES, scene
from typer.testing import CliRunner

from promptseg.cli import app
from promptseg.corpus import open_corpus
from promptseg.inventory import duplicates, take
from promptseg.report.contact import size_in_words, write_contact_sheet

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
EVIL = "<script>alert(1)</script>"


def run(*words):
    """Run the verb, and give its result."""
    return CliRunner().invoke(app, ["corpus", *map(str, words)])


@pytest.fixture
def corpus(tmp_path):
    """Eight subjects, split; one small label and one image without a mask are left out."""
    data = tmp_path / "data"
    for number in range(8):
        write(
            data, f"s{number}_0", scene(number), ("liver", "spleen") if number < 3 else ("liver",)
        )
    tiny = np.zeros((180, 220), np.uint8)
    tiny[:2, :2] = 255
    put(data / "masks" / "s0_0_tumour.png", tiny)
    put(data / "images" / "s9_0.png", scene(9))
    curated(data, tmp_path / "c.corpus", split="train=0.5,test=0.5", licence="CC0-1.0")
    return open_corpus(tmp_path / "c.corpus")


def test_everything_is_counted(corpus):
    """Tasks, subjects, splits, licences and drops, as the tables have them."""
    found = take(corpus)
    counts = ("targets", "images", "subjects", "area_px")

    assert {row["task"]: tuple(row[name] for name in counts) for row in found.tasks} == {
        "liver (CT)": (8, 8, 8, 1200.0),
        "spleen (CT)": (3, 3, 3, 1200.0),
    }
    assert [(row["split"], row["images"]) for row in found.splits] == [("test", 4), ("train", 4)]
    assert sum(row["targets"] for row in found.splits) == found.n_targets == 11
    assert found.datasets == [{"dataset": "data", "licence": "CC0-1.0", "images": 8, "subjects": 8}]
    assert {row["reason"]: row["number"] for row in found.drops} == {
        "its area is at most N pixels": 1,
        "no mask belongs to it by its name": 1,
    }
    assert (found.n_images, found.n_subjects, found.n_volumes) == (8, 8, 0)
    assert found.smallest_hw == found.largest_hw == (180, 220)


def test_unknown_subjects_are_unknown_not_none(tmp_path):
    """Of a corpus, its tasks and its data sets."""
    found = take(write_phantoms(tmp_path / "p.corpus", range(5), subjects=None))

    assert found.n_subjects is None
    assert {row["subjects"] for row in (*found.tasks, *found.datasets)} == {None}
    assert found.splits == []


def test_the_verb_tells_what_there_is(corpus):
    """In words, and as JSON for scripts."""
    told = run(corpus.path)
    parsed = json.loads(run(corpus.path, "--json").stdout)

    assert told.exit_code == 0
    for words in ("liver (CT)", "8 images of 8 subjects", "CC0-1.0", "its area is at most N"):
        assert words in told.stdout
    assert parsed["corpora"][0]["n_targets"] == 11
    assert "pairs" not in parsed


def test_copies_across_corpora_are_leaks(corpus, tmp_path):
    """Resized, and with looks or without; the exit code says it, a name allows it."""
    other = tmp_path / "other"
    write(other, "x1_0", CHANGES["half"](scene(4)))
    write(other, "x2_0", scene(31))
    curated(other, tmp_path / "o.corpus", subject_pattern=r"(x\d)")
    both = (corpus.path, tmp_path / "o.corpus", "--duplicates")
    told = run(*both)
    parsed = json.loads(run(*both, "--json").stdout)

    assert told.exit_code == 3
    assert "LEAK: data/s4_0 is nearly the same as other/x1_0" in told.stdout
    assert [pair["is_leak"] for pair in parsed["pairs"]] == [True]
    assert run(*both, "--allow-leak", "other").exit_code == 0
    for path in (corpus.path / "looks").iterdir():
        path.unlink()
    assert "1 pairs of images" in run(*both).stdout


def test_a_clean_corpus_has_no_pairs(corpus):
    """Different images of different subjects."""
    seen = []

    assert list(duplicates([corpus], seen.append)) == []
    assert seen == list(range(1, 9))


def test_what_cannot_be_shown_is_refused(corpus, tmp_path):
    """One line each, and exit code 2."""
    for words in (
        (corpus.path, "--sheet", "x.png"),
        (corpus.path, corpus.path, "--sheet", tmp_path / "x.html"),
        (tmp_path / "nothing",),
    ):
        assert run(*words).exit_code != 0


def test_the_contact_sheet_shows_every_task_and_escapes_names(tmp_path):
    """File names may be anything."""
    data = tmp_path / "data"
    for number in range(4):
        write(data, f"s{number}_0", scene(number), ("liver & <b>",))
    curated(data, tmp_path / "c.corpus", dataset=EVIL)
    corpus = open_corpus(tmp_path / "c.corpus")
    page = write_contact_sheet(corpus, take(corpus), tmp_path / "c.html", per_task=3).read_text()

    assert EVIL not in page
    assert page.count("<figure>") == 3
    assert "3 of 4 targets" in page
    assert "liver &amp; &lt;b&gt; (CT)" in page


def test_an_image_that_cannot_be_read_is_said_on_the_sheet(corpus, tmp_path):
    """The others are shown."""
    path = corpus.path / "images" / "part-00000.parquet"
    rows = pl.read_parquet(path).with_columns(
        sha256=pl.when(pl.col("image_id") == "data/s0_0").then(pl.lit("x")).otherwise("sha256")
    )
    rows.write_parquet(path)
    page = write_contact_sheet(corpus, take(corpus), tmp_path / "c.html").read_text()

    assert "This image cannot be read" in page
    assert page.count("<svg viewBox") == 9


@pytest.mark.parametrize("width", [390, 1280])
def test_the_sheet_can_be_read_by_anyone(corpus, tmp_path, chromium, width):
    """No overflow, and nothing serious by axe."""
    from axe_playwright_python.sync_playwright import Axe

    out = write_contact_sheet(corpus, take(corpus), tmp_path / "c.html")
    page = chromium.new_page(viewport={"width": width, "height": 900})
    page.goto(out.as_uri())
    wide = page.evaluate("document.documentElement.scrollWidth")
    found = Axe().run(page).response["violations"]
    page.close()

    assert wide <= width
    assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []


def test_sizes_are_told_in_words():
    """Three digits."""
    assert [size_in_words(n) for n in (0, 999, 1000, 48_400, 2_000_000_000)] == [
        "0 B", "999 B", "1 kB", "48.4 kB", "2 GB",
    ]  # fmt: skip
