"""The report as a reader gets it: what is said, what is kept out, and that it opens offline."""

import base64
import csv
import dataclasses
import io
import json
import re
import shutil
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from phantom import write_phantoms

from promptseg.corpus import Corpus
from promptseg.mask import from_rle, to_rle
from promptseg.prompt import Box, Points, from_json, to_json
from promptseg.record import MaskRow, PromptRow, Record, Run, RunFolder, start_run
from promptseg.report import flat, summary_rows, table_rows, write_report
from promptseg.report.facts import account, command
from promptseg.report.gallery import MOST_TASKS, samples
from promptseg.report.picture import draw
from promptseg.report.words import distance, percent, plural
from promptseg.sample import Sample

BASE = Run(
    corpus="phantom", corpus_path="/nowhere", corpus_fingerprint="f" * 64, layout="l" * 64,
    models={"m": "a" * 64}, asked={"m": "m"}, trained_for={"m": ["box", "single"]},
    licences={"m": "Apache-2.0"}, custom_weights=[], strategies=["box", "point1"],
    selections=["single", "oracle"], protocol="paper", unit="class", seeds=[0], jitter=[],
    everything={}, subset={}, max_targets=None, nsd_tolerance=2.0,
    save_masks="selected", batch_size=64, device="cpu", dtype="float32", n_images=6, n_targets=12,
    of_images=6, of_targets=12, n_parts=1,
    versions={"promptseg": "0.1.0"}, started="2025-01-01T00:00:00+00:00",
)  # fmt: skip


def record(**known) -> Record:
    """One box record of one target, scored unless said otherwise."""
    fields = {
        "model": "m", "strategy": "box", "selection": "single", "protocol": "paper",
        "unit": "class", "off_protocol": False, "seed": 0, "dataset": "phantom", "subject": "s0",
        "image_id": "i", "target_id": "i#liver", "prompt_id": None, "object": "liver",
        "modality": "CT", "task": "liver (CT)", "outcome": "ok", "mask_index": 0, "dice": 0.5,
        "nsd": 0.7, "hd95": 3.0, "assd": 1.0, "distance_unit": "mm", "image_diagonal": 100.0,
    }  # fmt: skip
    return Record(**(fields | known))


def folder(path: Path, records: Sequence[Record], **settings) -> RunFolder:
    """Write a run of one part without prompts and masks."""
    made = start_run(path, dataclasses.replace(BASE, **settings))
    made.write_part(0, records, [], [])
    return made


def page(tmp_path: Path, *runs: RunFolder, corpora=None, most_cases=0) -> str:
    """Write a report and read it back; cases are in it if asked for (test_report_browser.py)."""
    out = tmp_path / "out" / "report.html"
    return write_report(runs, out, corpora=corpora, most_cases=most_cases).read_text()


def text_of(html: str) -> str:
    """Strip markup, style and attributes: what a reader reads."""
    plain = re.sub(r"<style>.*?</style>|<[^>]+>", " ", html, flags=re.DOTALL)
    return " ".join(plain.replace("\u00a0", " ").split())


class Tags(HTMLParser):
    """Collect the tags of a page with their attributes, and whether they are balanced."""

    VOID = frozenset({"input", "meta", "circle", "line", "path", "rect", "image", "use", "br"})

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


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> tuple[RunFolder, Corpus]:
    """Make a run on six phantoms of two objects with prompts and masks; one answer is a miss."""
    path = tmp_path_factory.mktemp("drawn")
    corpus = write_phantoms(path / "corpus", range(6), spacing_mm=1.5)
    settings = {"corpus_path": str(corpus.path), "corpus_fingerprint": corpus.info.fingerprint}
    made = start_run(path / "run", dataclasses.replace(BASE, **settings))
    records, prompts, masks = [], [], []
    everyone = samples(corpus, {f"phantom/{i:04d}" for i in range(6)})
    for number, (image_id, sample) in enumerate(sorted(everyone.items())):
        for target in sample.targets:
            shared = {
                "image_id": image_id, "target_id": target.target_id, "subject": sample.subject,
                "object": target.object, "task": f"{target.object} (CT)",
            }  # fmt: skip
            for strategy in ("box", "point1"):
                prompt_id = f"{strategy}-{target.target_id}"
                y, x = np.argwhere(target.mask)[0]
                prompt = (
                    Box(float(x), float(y), float(x) + 9, float(y) + 9)
                    if strategy == "box"
                    else Points(np.array([[float(x), float(y)]]), np.array([True]))
                )
                row = PromptRow(prompt_id, image_id, target.target_id, to_json(prompt))
                missed = strategy == "box" and number == 5
                shifted = np.roll(target.mask, number, axis=1) & (not missed)
                prompts.append(row)
                masks.append(
                    MaskRow(prompt_id, image_id, target.target_id, "m", 0, to_rle(shifted))
                )
                records.append(
                    record(
                        **shared,
                        strategy=strategy,
                        off_protocol=strategy != "box",
                        prompt_id=prompt_id,
                        dice=0.0 if missed else 0.9 - number / 10,
                        outcome="miss" if missed else "ok",
                        hd95=None if missed else 1.5,
                        assd=None if missed else 0.5,
                        nsd=0.0 if missed else 0.8,
                    )
                )
    made.write_part(0, records, prompts, masks)
    return made, corpus


def test_the_headline_speaks_of_on_protocol_results_alone(drawn, tmp_path):
    """The off-protocol points do better here (no miss), and are not in the sentence."""
    text = text_of(page(tmp_path, drawn[0]))

    # six subjects, each 0.9 .. 0.5 and one miss, the same for both objects
    assert "On 6 images of 6 subjects, m with box / single reaches a mean DICE of 0.583" in text
    assert "over 2 tasks. Worst task: bar (CT), 0.583; best task: disc (CT), 0.583." in text
    assert "few subjects" in text


def test_off_protocol_cells_are_grey_marked_and_explained(drawn, tmp_path):
    """By colour, by a sign and in words; and never the best of their row."""
    html = page(tmp_path, drawn[0])
    marked = [
        attrs for tag, attrs in Tags(html).found if "off" in (attrs.get("class") or "").split()
    ]

    assert len(marked) >= 4
    assert all("best" not in (attrs.get("class") or "") for attrs in marked)
    assert "the model was not trained for this strategy or selection" in text_of(html)
    assert "point1 / single †" in text_of(html)


def test_a_model_without_on_protocol_results_has_no_headline_number(tmp_path):
    """Nothing else would say that the number is not worth quoting."""
    run = folder(tmp_path / "run", [record(off_protocol=True, dice=0.123)])
    html = page(tmp_path, run)

    (headline,) = re.findall(r'<p class="headline">(.*?)</p>', html)
    assert "No result of m is on-protocol" in headline
    assert "0.123" not in headline


def test_the_file_opens_offline(drawn, tmp_path):
    """Nothing is fetched: scripts are in it, sources are data, and addresses are links to click."""
    html = page(tmp_path, drawn[0], most_cases=None)
    tags = Tags(html).found

    assert not [tag for tag, _ in tags if tag in {"link", "iframe", "object", "embed"}]
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", html, re.DOTALL)
    assert not re.search(
        r"fetch\(|XMLHttpRequest|import\(|https?://(?!www\.w3\.org/)", "".join(scripts)
    )
    for tag, attrs in tags:
        for name in ("src", "href", "xlink:href", "srcset", "data"):
            value = attrs.get(name) or ""
            if value.startswith("http"):
                assert (tag, value.startswith("https://doi.org/")) == ("a", True)
            else:
                assert value == "" or value.startswith(("#", "data:"))
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style
    assert "url(" not in style.group(1)
    assert "@import" not in style.group(1)


def test_tags_are_balanced_and_ids_unique_and_links_lead_somewhere(drawn, tmp_path):
    """Every part of the page that others point at is there once."""
    tags = Tags(page(tmp_path, drawn[0]))
    ids = [attrs["id"] for _, attrs in tags.found if "id" in attrs]
    inside = [
        (attrs.get("href") or "")[1:]
        for _, attrs in tags.found
        if (attrs.get("href") or "").startswith("#")
    ]

    assert tags.open == []
    assert len(ids) == len(set(ids))
    assert set(inside) <= set(ids)


def test_every_drawing_says_what_it_shows(drawn, tmp_path):
    """A screen reader gets a sentence, or is told to pass over what only decorates."""
    tags = Tags(page(tmp_path, drawn[0])).found
    outer = [attrs for tag, attrs in tags if tag == "svg" and "role" in attrs]

    assert outer
    assert all(attrs["role"] == "img" and attrs.get("aria-label") for attrs in outer)


@pytest.mark.parametrize("place", ["object", "reason", "corpus", "image_id"])
def test_names_from_users_are_text_and_not_markup(tmp_path, place):
    """An object may be called <script>; it is shown as it is called."""
    evil = '<script>alert("1")</script>\'"><img src=x onerror=alert(1)>'
    records = [
        record(object=evil, task=f"{evil} (CT)", image_id=evil),
        record(target_id="2", outcome="failed", reason=evil, dice=None),
    ]
    html = page(tmp_path, folder(tmp_path / "run", records, corpus=evil, corpus_path=evil))

    assert "<script" not in html
    assert "<img" not in html
    assert "&lt;script&gt;" in html, place
    assert not [tag for tag, attrs in Tags(html).found if "onerror" in attrs]


def test_the_gallery_shows_worst_median_and_best_with_prompt_and_outlines(drawn, tmp_path):
    """Two tasks of three pictures: reference everywhere, no prediction where there is a miss."""
    html = page(tmp_path, drawn[0])
    captions = [text_of(c) for c in re.findall(r"<figcaption>(.*?)</figcaption>", html, re.DOTALL)]
    gallery = html[html.index('<h2 id="gallery">') :]

    ranks = [caption.partition(" :")[0] for caption in captions]
    assert ranks == ["worst", "median", "best"] * 2
    assert "DICE 0.000, HD95 –. phantom/0005. The model returned no mask." in captions[0]
    assert "DICE 0.600, HD95 1.50 mm. phantom/0003" in captions[1]
    assert "DICE 0.900" in captions[2]
    # each outline is in the enlarged part and in the whole image, and once in the legend
    assert gallery.count('<path class="reference"') == 6 * 2
    assert gallery.count('<path class="prediction"') == 4 * 2
    assert gallery.count('<rect class="box"') == 6 + 1


def test_the_outline_drawn_is_that_of_the_stored_mask(drawn, tmp_path):
    """From the run's masks by prompt and index, not from the reference."""
    run, corpus = drawn
    (mask,) = run.masks().filter(prompt_id="box-phantom/0003#disc")["mask"]
    (prompt,) = run.prompts().filter(prompt_id="box-phantom/0003#disc")["prompt"]
    sample = samples(corpus, {"phantom/0003"})["phantom/0003"]
    assert isinstance(sample, Sample)
    reference = next(target.mask for target in sample.targets if target.object == "disc")
    expected = draw(sample.image, reference, from_rle(mask), from_json(prompt))

    html = page(tmp_path, run)

    assert expected.prediction != expected.reference
    assert f'<path class="prediction" d="{expected.prediction}"/>' in html
    assert f'<path class="reference" d="{expected.reference}"/>' in html


def test_corpora_can_be_handed_in(drawn, tmp_path):
    """A corpus that moved is found where the caller says."""
    run, corpus = drawn
    moved = RunFolder(run.path, dataclasses.replace(run.run, corpus_path="/moved"))

    html = page(tmp_path, moved, corpora={"/moved": corpus})

    assert html.count("<figure>") == 6
    assert html.count("data:image/") == 12


def test_without_its_corpus_a_report_has_no_pictures_and_says_so(drawn, tmp_path):
    """The numbers need no corpus."""
    run = RunFolder(drawn[0].path, dataclasses.replace(drawn[0].run, corpus_path="/secret/gone"))

    html = page(tmp_path, run)

    assert "No pictures of phantom: the corpus gone is not where it was." in text_of(html)
    assert "/secret" not in html
    assert "data:image/" not in html
    assert "0.583" in html


def test_a_corpus_that_changed_gives_no_pictures(drawn, tmp_path):
    """Its references may not be those that were scored against."""
    run = RunFolder(drawn[0].path, dataclasses.replace(drawn[0].run, corpus_fingerprint="0" * 64))

    assert "has changed since the run" in text_of(page(tmp_path, run))


def test_an_image_that_cannot_be_read_any_more_is_said_in_its_place(drawn, tmp_path):
    """A damaged corpus costs pictures, not the report."""
    import pyarrow.parquet as pq

    path = tmp_path / "damaged"
    shutil.copytree(drawn[1].path, path)
    (part,) = (path / "images").glob("*.parquet")
    table = pq.read_table(part)
    names = table.column_names.index("sha256")
    pq.write_table(table.set_column(names, "sha256", [["0" * 64] * len(table)]), part)
    run = RunFolder(drawn[0].path, dataclasses.replace(drawn[0].run, corpus_path=str(path)))

    html = page(tmp_path, run)

    assert text_of(html).count("This image cannot be read") == 6


def test_a_corpus_with_a_broken_part_costs_the_pictures_alone(drawn, tmp_path):
    """Such a file is named in a line of the report."""
    path = tmp_path / "broken"
    shutil.copytree(drawn[1].path, path)
    (part,) = (path / "targets").glob("*.parquet")
    part.write_bytes(b"PAR1 no more")
    run = RunFolder(drawn[0].path, dataclasses.replace(drawn[0].run, corpus_path=str(path)))

    text = text_of(page(tmp_path, run))

    assert re.search(r"No pictures of phantom: broken\S* is damaged", text)
    assert str(tmp_path) not in text
    assert "mean DICE of 0.583" in text


def test_targets_that_the_corpus_lacks_are_said_in_their_place(drawn, tmp_path):
    """An image and an object that were scored once and are not there now."""
    settings = {"corpus_path": str(drawn[1].path)}
    settings["corpus_fingerprint"] = drawn[1].info.fingerprint
    records = [
        record(image_id="nowhere"),
        record(image_id="phantom/0001", target_id="t", task="x (CT)"),
    ]

    text = text_of(page(tmp_path, folder(tmp_path / "run", records, **settings)))

    assert "This image is not in the corpus." in text
    assert "This target is not in the corpus." in text


def test_masks_and_prompts_that_were_not_kept_are_said_in_their_place(drawn, tmp_path):
    """The reference is drawn all the same."""
    settings = {"corpus_path": str(drawn[1].path)}
    settings["corpus_fingerprint"] = drawn[1].info.fingerprint
    records = [record(image_id="phantom/0001", target_id="phantom/0001#disc")]

    html = page(tmp_path, folder(tmp_path / "run", records, **settings))

    assert "The predicted mask was not saved. There is no prompt to draw." in text_of(html)
    assert html.count('<path class="reference"') == 2


def test_an_incomplete_run_is_one_clear_line(tmp_path):
    """Its numbers are of what is there."""
    text = text_of(page(tmp_path, folder(tmp_path / "run", [record()], n_parts=8)))

    assert "Incomplete run: 1 of 8 parts are there" in text


def test_failures_are_counted_with_their_most_frequent_reasons(tmp_path):
    """Six reasons: five are shown, the rest counted; the mean is of what was scored."""
    failed = [
        record(target_id=f"{reason}{i}", outcome="failed", reason=f"why {reason}", dice=None)
        for reason in range(6)
        for i in range(6 - reason)
    ]
    text = text_of(page(tmp_path, folder(tmp_path / "run", [record(), *failed])))

    assert "21 of 22 records failed , on 1 image, and are in no mean: 6 × why 0 (1 image)" in text
    assert "1 × other reasons" in text
    assert "why 5" not in text
    assert "mean DICE of 0.500" in text


@pytest.mark.parametrize("outcome", ["failed", "miss", "nothing"])
def test_a_run_without_a_single_mask_still_gives_a_report(tmp_path, outcome):
    """All failed, all missed, or no record at all."""
    known = {"nsd": None, "hd95": None, "assd": None, "outcome": outcome}
    known |= {"dice": 0.0} if outcome == "miss" else {"dice": None, "reason": "it broke"}
    records = [] if outcome == "nothing" else [record(**known)]

    text = text_of(page(tmp_path, folder(tmp_path / "run", records)))

    assert ("mean DICE of 0.000" in text) == (outcome == "miss")
    assert ("there is no number to report" in text) == (outcome != "miss")


def test_of_two_targets_there_is_no_median_and_one_is_shown_once(tmp_path):
    """No picture is shown twice under two names."""
    two = [record(target_id=f"t{i}", image_id=f"i{i}", dice=i / 4) for i in (1, 2)]
    html = page(tmp_path, folder(tmp_path / "run", [*two, record(task="lung (CT)")]))

    ranks = re.findall(r"<figcaption><b>(\w+)</b>", html)
    assert sorted(ranks) == ["best", "only", "worst"]


def test_many_tasks_are_all_in_the_table_and_the_worst_in_the_gallery(tmp_path):
    """The gallery is bounded, and says so; a long name is there in full."""
    name = "a_long_name_without_a_space_" * 8
    records = [
        record(task=f"{name}{i:03} (CT)", target_id=f"t{i}", dice=i / 200) for i in range(200)
    ]
    html = page(tmp_path, folder(tmp_path / "run", records))

    tasks = re.findall(r"<h3>(.*?)</h3>", html)
    assert tasks == [f"{name}{i:03} (CT)" for i in range(MOST_TASKS)]
    assert "Of 200 tasks the 12 with the lowest mean DICE are shown." in text_of(html)
    assert html.count(f'<th scope="rowgroup" rowspan="1">{name}') == 200


def test_models_of_several_runs_stand_side_by_side(tmp_path):
    """One report, a headline and a mark of each, and the better one in bold."""
    runs = [
        folder(tmp_path / name, [record(model=name, dice=dice)], models={name: name * 64})
        for name, dice in (("a", 0.4), ("b", 0.6))
    ]
    html = page(tmp_path, *runs)

    assert "a with box / single reaches a mean DICE of 0.400" in text_of(html)
    assert "b with box / single reaches a mean DICE of 0.600" in text_of(html)
    best = re.findall(r'class=" best"><span class="number">([\d.]+)', html)
    assert best == ["0.600"]


def test_the_oracle_is_never_marked_as_best(tmp_path):
    """It looks at the reference, so that it always wins."""
    records = [
        record(selection=name, dice=dice)
        for name, dice in (("single", 0.5), ("predicted", 0.6), ("oracle", 0.9))
    ]
    html = page(tmp_path, folder(tmp_path / "run", records))

    assert re.findall(r'class=" best"><span class="number">([\d.]+)', html) == ["0.600"]
    assert "m with box / predicted reaches" in text_of(html)


def test_one_model_name_with_two_weights_is_two_models(tmp_path):
    """A fine-tuned model keeps its name; averaging both would be a number of neither."""
    runs = [
        folder(tmp_path / name, [record(dice=dice)], models={"m": name * 64})
        for name, dice in (("a", 0.4), ("b", 0.6))
    ]

    rows = table_rows(runs)

    assert [(row.group.model, row.dice.value) for row in rows] == [
        ("m (run 1)", 0.4),
        ("m (run 2)", 0.6),
    ]


def test_one_model_with_two_grids_of_everything_is_two_models(tmp_path):
    """Other thresholds are another rule: no mean is over both, whatever the seeds and targets."""
    runs = [
        folder(
            tmp_path / str(side),
            [record(strategy="everything", selection="oracle", dice=dice, seed=side)],
            strategies=["everything"], seeds=[side], everything={"m": {"points_per_side": side}},
        )
        for side, dice in ((4, 0.2), (16, 0.6))
    ]  # fmt: skip

    assert [row.dice.value for row in table_rows(runs)] == [0.2, 0.6]


@pytest.mark.parametrize(
    "other",
    [
        {"jitter_mode": "shift", "jitter_unit": "px", "jitter_lo": 1.0, "jitter_hi": 2.0},
        {"strategy": "everything", "selection": "predicted"},
        {"selection": "oracle"},
    ],
)
def test_no_headline_rests_on_jitter_everything_or_the_oracle(tmp_path, other):
    """However high their DICE: the exact prompt with a rule for users is spoken of."""
    records = [record(dice=0.4), record(dice=0.9, **other)]
    run = folder(
        tmp_path / "run", records, strategies=["box", "everything"], jitter=["shift:px:1-2"],
        selections=["single", "oracle", "predicted"],
    )  # fmt: skip
    html = page(tmp_path, run)

    assert "m with box / single reaches a mean DICE of 0.400" in text_of(html)
    assert "0.900" in html


def test_jittered_prompts_stand_beside_exact_ones(tmp_path):
    """A table of their own: the exact mean first, then the levels in the order of the run."""
    levels = [(20.0, 30.0, 0.3), (0.0, 10.0, 0.7)]
    moved = {"jitter_mode": "shift", "jitter_unit": "px"}
    records = [
        record(dice=0.8),
        *(record(jitter_lo=lo, jitter_hi=hi, dice=dice, **moved) for lo, hi, dice in levels),
    ]
    run = folder(tmp_path / "run", records, jitter=["shift:px:20-30", "shift:px:0-10"])
    html = page(tmp_path, run)
    section = html[html.index('id="jitter"') : html.index('id="table"')]
    told = text_of(section)

    assert re.findall(r'<span class="number">([\d.]+)', section) == ["0.800", "0.300", "0.700"]
    assert told.index("exact") < told.index("shift:px:20-30") < told.index("shift:px:0-10")
    assert 'id="jitter"' not in page(tmp_path, folder(tmp_path / "plain", [record()]))


def test_runs_that_differ_in_the_seed_are_averaged_in_the_target(tmp_path):
    """Same model, same weights, another seed: one row."""
    runs = [
        folder(tmp_path / str(seed), [record(seed=seed, dice=dice)], seeds=[seed])
        for seed, dice in ((0, 0.4), (1, 0.6))
    ]

    (row,) = table_rows(runs)

    assert row.dice.value == pytest.approx(0.5)
    assert row.dice.n_targets == 1


def test_the_table_and_the_csv_say_the_same(drawn, tmp_path):
    """The embedded CSV is read back: every row, at full precision, undefined as empty."""
    html = page(tmp_path, drawn[0])
    uri = re.search(r'href="data:text/csv;charset=utf-8;base64,([^"]+)"', html)
    assert uri
    lines = list(csv.DictReader(io.StringIO(base64.b64decode(uri.group(1)).decode())))
    rows = [*summary_rows([drawn[0]]), *table_rows([drawn[0]])]

    assert len(lines) == len(rows) == 1 + 4
    assert [float(line["dice"]) for line in lines] == [row.dice.value for row in rows]
    assert lines[0]["task"] == ""
    assert lines[0]["hd95_px"] == ""
    assert {line["notes"] for line in lines} == {"few"}


def test_rows_of_both_units_keep_them_apart(tmp_path):
    """A task with and without spacing has two distances and one DICE."""
    records = [
        record(),
        record(target_id="2", image_id="2", subject="s1", distance_unit="px", hd95=30.0),
    ]
    run = folder(tmp_path / "run", records)

    (row,) = table_rows([run])

    assert [(s.unit, s.hd95.value) for s in row.surfaces] == [("mm", 3.0), ("px", 30.0)]
    assert row.dice.n_targets == 2
    assert json.loads(json.dumps(flat(row), allow_nan=False))["hd95_px"] == 30.0
    assert "Millimetres and pixels are never averaged together" in text_of(page(tmp_path, run))


def test_misses_stand_beside_the_mean_distance(drawn, tmp_path):
    """The mean of five HD95 is 1.5; with the miss at the diagonal of 100 it is 17.9."""
    text = text_of(page(tmp_path, drawn[0]))

    assert "1.50 mm 17.9 with 1 miss" in text


def test_what_was_run_is_said_with_the_command_that_repeats_it(drawn, tmp_path):
    """Names, hashes, licence, settings; a path with a space is quoted."""
    text = text_of(page(tmp_path, drawn[0]))

    assert f"m, weights {'a' * 12}, licence Apache-2.0" in text
    assert drawn[1].info.fingerprint[:12] in text
    spaced = dataclasses.replace(BASE, corpus_path="/home/jane doe/my c")
    assert command(spaced).startswith("promptseg evaluate 'my c' --model m --strategy box ")


def test_unknown_subjects_are_said_where_the_interval_is(tmp_path):
    """In the headline, the table and the methods."""
    records = [
        record(subject=None, image_id=f"i{i}", target_id=f"t{i}", dice=i / 10) for i in range(6)
    ]
    text = text_of(page(tmp_path, folder(tmp_path / "run", records)))

    assert "On 6 images of unknown subjects" in text
    assert "by image: too narrow if images share patients" in text


def test_the_licence_and_citation_of_the_data_are_in_the_report(drawn, tmp_path):
    """From the corpus; a licence that nobody knows is said to be unknown."""
    run, corpus = drawn
    datasets = [{"name": "Heart", "licence": "CC-BY-4.0", "citation": "A., 2020"}, {"name": "B"}]
    known = Corpus(corpus.path, dataclasses.replace(corpus.info, datasets=datasets))

    text = text_of(page(tmp_path, run, corpora={run.run.corpus_path: known}))

    assert "Heart, CC-BY-4.0, A., 2020" in text
    assert "B, licence unknown" in text


@pytest.mark.parametrize(
    ("kind", "column", "value"),
    [
        ("prompts", "prompt", "{"),
        ("prompts", "prompt", "[]"),
        ("prompts", "prompt", '{"kind":"box"}'),
        ("masks", "mask", {"size": [9, 9], "counts": "?"}),
    ],
)
def test_a_damaged_prompt_or_mask_costs_the_pictures_alone(
    drawn,
    tmp_path,
    kind,
    column,
    value,
):
    """One line says so, without the way to the folder; the numbers stand."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "copy.run"
    shutil.copytree(drawn[0].path, path)
    (file,) = (path / kind).iterdir()
    table = pq.read_table(file)
    place = table.column_names.index(column)
    bad = pa.array([value] * len(table), table.schema.field(column).type)
    pq.write_table(table.set_column(place, table.schema.field(column), bad), file)

    html = page(tmp_path, RunFolder(path, drawn[0].run))

    (problem,) = re.findall(r'<p class="banner">(No pictures.*?)</p>', html)
    assert "a prompt or a mask in copy.run is damaged" in problem
    assert str(tmp_path) not in html
    assert "0.583" in html


def test_a_mask_of_another_size_is_said_in_its_place(drawn, tmp_path):
    """It cannot be laid over the image."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "copy.run"
    shutil.copytree(drawn[0].path, path)
    (file,) = (path / "masks").iterdir()
    table = pq.read_table(file)
    kind = table.schema.field("mask")
    bad = pa.array([{"size": [2, 2], "counts": "4"}] * len(table), kind.type)
    pq.write_table(table.set_column(table.column_names.index("mask"), kind, bad), file)

    text = text_of(page(tmp_path, RunFolder(path, drawn[0].run)))

    assert "The predicted mask has another size than the image." in text


def test_data_sets_of_all_runs_are_listed(drawn, tmp_path):
    """Each once, with its licence."""
    run, corpus = drawn
    sets = [[{"name": "A", "licence": "CC0"}], [{"name": "A", "licence": "CC0"}, {"name": "B"}]]
    known = [
        Corpus(corpus.path, dataclasses.replace(corpus.info, datasets=datasets))
        for datasets in sets
    ]
    told = account([run.run, run.run], known)

    (data,) = [fact.values for fact in told.shared if fact.name == "Data"]
    assert data == ("A, CC0", "B, licence unknown")


def test_more_than_forty_subjects_are_drawn_as_forty_quantiles(tmp_path):
    """The shape of a thousand dots in few; the page says what they are."""
    records = [
        record(subject=f"s{i}", image_id=f"i{i}", target_id=f"t{i}", dice=i / 50) for i in range(50)
    ]
    html = page(tmp_path, folder(tmp_path / "run", records))

    assert html.count('<circle class="dot"') == 40
    assert "40 quantiles" in html
    assert "percentile bootstrap" in text_of(html)


def test_a_report_needs_a_run(tmp_path):
    """A programmer's error, said at once."""
    with pytest.raises(ValueError, match="at least one run"):
        write_report([], tmp_path / "r.html")


def test_samples_come_from_any_part(tmp_path):
    """Images are found by name across the parts of a corpus; an unknown name is left out."""
    corpus = write_phantoms(tmp_path / "corpus", range(300))

    found = samples(corpus, {"phantom/0003", "phantom/0299", "nobody"})

    assert sorted(found) == ["phantom/0003", "phantom/0299"]
    assert {len(sample.targets) for sample in found.values()} == {2}


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "–"), (0.0, "0 %"), (0.0004, "< 0.1 %"), (0.125, "12.5 %"), (0.9996, "> 99.9 %")],
)
def test_a_rate_reads_zero_or_all_only_when_it_is(value, expected):
    """One miss in ten thousand is a miss."""
    assert percent(value).replace("\u00a0", " ") == expected


def test_numbers_have_the_digits_that_they_deserve():
    """Three significant digits of a distance; a singular where there is one."""
    assert [distance(v) for v in (None, 0.0, 3.14159, 31.4159, 314.159)] == [
        "–", "0.00", "3.14", "31.4", "314",
    ]  # fmt: skip
    assert [plural(1, "image"), plural(2, "image"), plural(2, "miss", "misses")] == [
        "1 image", "2 images", "2 misses",
    ]  # fmt: skip


def test_what_is_equal_or_of_other_targets_is_not_marked_as_best(tmp_path):
    """A mark says that one did better on the same: not where numbers differ, nor in a tie."""
    several = {"selections": ["single", "predicted"]}
    tied = [record(), record(selection="predicted")]
    fewer = [record(dice=0.4), record(dice=0.4, target_id="2"), record(selection="predicted")]
    better = [record(dice=0.4), record(selection="predicted")]
    marks = [
        page(tmp_path, folder(tmp_path / name, records, **several)).count('class=" best"')
        for name, records in (("tied", tied), ("fewer", fewer), ("better", better))
    ]

    assert marks == [0, 0, 1]
