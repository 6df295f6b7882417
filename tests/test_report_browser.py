"""The report in a real browser: its cases are filtered, sorted, opened and read by anyone."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fakes
import polars as pl
import pytest
from phantom import write_phantoms
from test_report import folder, record
from test_run import _run

from promptseg.corpus import Corpus
from promptseg.errors import DataError
from promptseg.jitter import parse_jitter
from promptseg.plan import Plan
from promptseg.record import RunFolder
from promptseg.report import case_files, write_report
from promptseg.report.cases import as_json, find_cases
from promptseg.report.table import pool, task_rows
from promptseg.report.view import combinations
from promptseg.strategy import STRATEGIES


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, Corpus]:
    """Evaluate two models on phantoms: one that is right, one that gives the box."""
    path = tmp_path_factory.mktemp("runs")
    corpus = write_phantoms(path / "phantoms.corpus", range(40))
    plan = Plan(
        (STRATEGIES["box"], STRATEGIES["points5+5"]), jitter=(parse_jitter("shift:px:0-10"),)
    )
    return _run(corpus, path / "r.run", fakes.reference(), fakes.box(), plan=plan), corpus


@pytest.fixture(scope="module")
def report(runs: tuple[RunFolder, Corpus], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the report of it."""
    return write_report([runs[0]], tmp_path_factory.mktemp("page") / "r.html")


@pytest.fixture
def opened(chromium: Any, report: Path) -> Iterator[Any]:
    """Open the report from the disk; an error of its scripts fails the test."""
    context = chromium.new_context(offline=True, viewport={"width": 1280, "height": 900})
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(report.as_uri())
    yield page
    context.close()
    assert not errors


def choose(page: Any, name: str, text: str) -> None:
    """Choose an option by the beginning of its text."""
    options = page.locator(f"#case-list select[name={name}] option")
    texts = options.all_text_contents()
    page.select_option(f"#case-list select[name={name}]", index=find(texts, text))


def find(texts: list[str], start: str) -> int:
    """Give the place of the text that starts so."""
    return next(i for i, text in enumerate(texts) if text.startswith(start))


def column(page: Any, title: str) -> list[str]:
    """Read a column of the list."""
    titles = page.locator("table.cases thead th").all_text_contents()
    cells = page.locator(f"table.cases tbody tr > :nth-child({titles.index(title) + 1})")
    return [str(text) for text in cells.all_text_contents()]


def found(page: Any) -> str:
    """Read the line that counts."""
    return str(page.locator("#case-list .found").text_content()).replace("\u00a0", " ")


def test_the_list_counts_targets_and_subjects(opened):
    """All are there, page by page, the worst first."""
    assert found(opened) == "80 of 80 targets, 6 subjects."
    assert len(column(opened, "Image")) == 50
    opened.click("#case-list button[name=on]")
    assert len(column(opened, "Image")) == 30


def test_filters_leave_what_they_say(opened, runs):
    """By task, text, outcome and attribute, as the records have it."""
    choose(opened, "task", "bar")
    assert found(opened) == "40 of 80 targets, 6 subjects."
    opened.fill("#case-list input[name=text]", "phantom/0007")
    assert column(opened, "Image") == ["phantom/0007"]
    assert set(column(opened, "Task")) == {"bar (CT)"}
    opened.fill("#case-list input[name=text]", "nobody")
    assert "0 of 80 targets" in found(opened)
    assert "Nothing passes" in found(opened)
    opened.click("#case-list button[type=reset]")
    assert found(opened) == "80 of 80 targets, 6 subjects."
    choose(opened, "outcome", "miss")
    assert "0 of 80" in found(opened)
    opened.click("#case-list button[type=reset]")

    choose(opened, "attribute", "size")
    opened.fill("#case-list input[name=from]", "300")
    sizes = [float(text) for text in column(opened, "size (pixels)")]
    areas = runs[0].attributes()["area_px"]
    assert min(sizes) >= 300
    assert found(opened).startswith(f"{(areas >= 300).sum()} of 80")


def test_the_list_is_sorted_by_what_is_asked(opened, runs):
    """By DICE, by the difference of two ways of answering, by attributes."""
    choose(opened, "a", "box, box / single")
    choose(opened, "b", "reference, box / single")
    choose(opened, "sort", "difference, furthest behind")
    shown = [float(text.replace("−", "-")) for text in column(opened, "Difference")]
    assert shown == sorted(shown)
    records = (
        runs[0]
        .records()
        .filter(pl.col("jitter_mode").is_null(), strategy="box", selection="single")
    )
    by_model = records.pivot("model", index=["image_id", "target_id"], values="dice")
    worst = float((by_model["box"] - by_model["reference"]).min())
    assert shown[0] == pytest.approx(worst, abs=0.0005)
    choose(opened, "sort", "size (pixels), highest")
    choose(opened, "attribute", "size")
    sizes = [float(text) for text in column(opened, "size (pixels)")]
    assert sizes == sorted(sizes, reverse=True)
    choose(opened, "sort", "DICE, highest")
    shown = [float(text) for text in column(opened, "DICE")]
    assert shown == sorted(shown, reverse=True)


def test_a_case_shows_image_reference_prediction_and_prompt(opened):
    """Every line can be put out, another answer chosen, and all scores of the case are there."""
    choose(opened, "a", "box, box / single")
    choose(opened, "b", "reference, box / single")
    opened.click("table.cases tbody tr >> nth=0")
    dialog = opened.locator("dialog")
    assert dialog.is_visible()
    for kind in ("image", "path.reference", "path.prediction", "path.other", "rect.box"):
        assert dialog.locator(f".view svg > {kind}").count() == 1, kind
    assert opened.evaluate(
        "async () => { const i = new Image(); i.src = document.querySelector('dialog image')"
        ".getAttribute('href'); await i.decode(); return i.naturalWidth; }"
    ) in range(70, 90)
    dialog.locator("input[name=layer-a]").uncheck()
    assert dialog.locator(".view path.prediction").count() == 0
    assert dialog.locator(".view path.reference").count() == 1
    assert dialog.locator(".told tbody tr").count() == 2 * (2 + 1) * 3  # boxes also shifted
    dialog.locator(".told tbody button", has_text="reference, points5+5 / single").click()
    dialog.locator("input[name=layer-a]").check()
    assert dialog.locator(".view .click").count() == 10
    assert dialog.locator(".view rect.box.of-b").count() == 1, "the other answer had a box"
    assert dialog.locator(".told tr.current td").nth(1).text_content() == "1.000"


def test_each_of_two_answers_is_shown_with_its_own_prompt(opened):
    """A shifted box is not the exact one; the same box of two models is drawn once."""
    choose(opened, "a", "box, box / single")
    labels = opened.locator("#case-list select[name=b] option").all_text_contents()
    shifted = next(text for text in labels if text.startswith("box, box (shift:px:0-10)"))
    choose(opened, "b", shifted)
    opened.click("table.cases tbody tr >> nth=0")
    dialog = opened.locator("dialog")
    boxes = dialog.locator(".view rect.box")
    where = [tuple(boxes.nth(i).get_attribute(side) for side in ("x", "y")) for i in range(2)]
    assert boxes.count() == 2
    assert where[0] != where[1]
    assert dialog.locator(".layers").get_by_text(f"prompt of {shifted} (dotted)").count() == 1
    dialog.locator("input[name=layer-prompt-b]").uncheck()
    assert dialog.locator(".view rect.box").count() == 1
    assert dialog.locator(".view rect.box.of-b").count() == 0
    opened.keyboard.press("Escape")

    choose(opened, "b", "reference, box / single")
    opened.click("table.cases tbody tr >> nth=0")
    assert dialog.locator(".view rect.box").count() == 1
    assert dialog.locator(".layers").get_by_text("prompt, the same of both").count() == 1


def test_the_keyboard_alone_is_enough(opened):
    """Tab reaches the list, arrows go through it, Enter opens, arrows go on, Escape returns."""
    opened.focus("#case-list select[name=sort]")
    for _ in range(20):
        opened.keyboard.press("Tab")
        if opened.evaluate("document.activeElement.closest('table.cases') !== null"):
            break
    first, second, third = column(opened, "Image")[:3]
    opened.keyboard.press("j")
    assert opened.evaluate("document.activeElement.textContent") == second
    opened.keyboard.press("k")
    opened.keyboard.press("Enter")
    title = opened.locator("dialog h3")
    assert first in str(title.text_content())
    opened.keyboard.press("ArrowRight")
    opened.keyboard.press("ArrowRight")
    assert third in str(title.text_content())
    opened.keyboard.press("ArrowLeft")
    opened.keyboard.press("Escape")
    assert not opened.locator("dialog").is_visible()
    assert opened.evaluate("document.activeElement.textContent") == second


def test_the_address_leads_back_to_the_case(opened, chromium):
    """Filters, order and the open case are in it."""
    choose(opened, "task", "disc")
    choose(opened, "sort", "DICE, highest")
    opened.click("table.cases tbody tr >> nth=4")
    title = opened.locator("dialog h3").text_content()
    other = chromium.new_page()
    other.goto(opened.url)
    assert other.locator("dialog h3").text_content() == title
    assert other.locator("#case-list select[name=sort]").input_value() == "best"
    assert "40 of 80" in found(other)
    other.close()


def test_many_cases_lie_in_a_folder_beside_the_page(runs, chromium, tmp_path, monkeypatch):
    """The page stays small, opens from the disk, and says when its folder is missing."""
    monkeypatch.setattr(case_files, "MOST_IN_PAGE", 10)
    path = write_report([runs[0]], tmp_path / "r.html")
    beside = tmp_path / "r-cases"
    section = path.read_text().partition('id="cases"')[2].partition("</section>")[0]
    assert "data:image" not in section
    assert {"cases.js", "details-0.js"} < {file.name for file in beside.iterdir()}

    page = chromium.new_page()
    page.goto(path.as_uri())
    page.click("table.cases tbody tr >> nth=2")
    page.wait_for_selector("dialog path.prediction")
    name = page.locator("dialog image").get_attribute("href")
    assert (tmp_path / name).is_file()
    page.close()

    write_report([runs[0]], path, most_cases=12)  # again, over its own folder
    (beside / "thesis.docx").write_text("mine")
    with pytest.raises(DataError, match=r"thesis\.docx"):
        write_report([runs[0]], path)
    assert (beside / "thesis.docx").is_file()

    shutil.move(beside / "cases.js", tmp_path / "cases.js")
    shutil.rmtree(beside)
    beside.mkdir()
    shutil.move(tmp_path / "cases.js", beside / "cases.js")
    page = chromium.new_page()
    page.goto(path.as_uri())
    page.click("table.cases tbody tr >> nth=0")
    page.wait_for_selector("dialog .nothing")
    assert "is not beside this page" in page.locator("dialog .nothing").text_content()
    page.close()


def test_names_of_users_are_text_in_the_list_too(chromium, tmp_path):
    """Neither a closing tag nor quotes nor separators of lines get out of the page's data."""
    hostile = "</script><img src=x onerror=window.hit=1>\u2028'\""
    records = [
        record(image_id=f"{hostile}{i}", target_id=f"{hostile}{i}#t", task=f"{hostile} (CT)",
               object=hostile, subject=hostile, dice=0.5, reason=None)
        for i in range(3)
    ] + [record(image_id="m", target_id="m#t", task=f"{hostile} (CT)", outcome="miss", dice=0.0,
                reason=hostile)]  # fmt: skip
    path = write_report([folder(tmp_path / "h.run", records)], tmp_path / "h.html")
    page = chromium.new_page()
    page.goto(path.as_uri())
    assert "4 of 4 targets" in found(page)
    page.click("table.cases tbody tr >> nth=0")
    page.wait_for_selector("dialog[open]")
    assert page.evaluate("window.hit") is None
    assert page.locator("#case-list img").count() == 0
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_serious(chromium, report, scheme, width):
    """Names, roles, contrast, order: on the whole page, and with a case open."""
    from axe_playwright_python.sync_playwright import Axe

    page = chromium.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    page.goto(report.as_uri())
    for is_open in (False, True):
        if is_open:
            page.click("table.cases tbody tr >> nth=0")
        serious = [
            f"{one['id']}: {one['help']} ({one['nodes'][0]['html'][:120]})"
            for one in Axe().run(page).response["violations"]
            if one["impact"] in ("serious", "critical")
        ]
        assert not serious
    page.close()


@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_the_page_is_as_wide_as_the_screen(chromium, report, width):
    """Wide tables scroll in their own boxes; the page does not."""
    page = chromium.new_page(viewport={"width": width, "height": 900})
    page.goto(report.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_of_too_many_cases_the_worst_of_every_task_and_a_draw_are_shown(runs, tmp_path):
    """Half and half, the same whenever it is asked for, and what is left out is counted."""
    pooled = pool([runs[0]])
    answers = combinations(pooled, task_rows(pooled))
    lead = next(one for one in answers if one.model == "box" and one.selection == "single")

    def shown(most: int | None) -> list[str]:
        found = find_cases(pooled, runs[0].attributes().with_columns(corpus=pl.lit("")), answers,
                           lead=lead, most=most)  # fmt: skip
        assert found is not None
        assert found.n_all == 80
        assert found.n_shown == (most or 80)
        return list(found.targets["target_id"])

    few, every = shown(20), shown(None)
    assert few == shown(20)
    dice = {row["target_id"]: row["dice"] for row in pooled.records.filter(
        pl.col("jitter").is_null(), model="box", strategy="box", selection="single"
    ).iter_rows(named=True)}  # fmt: skip
    for task in ("disc", "bar"):
        own = sorted((name for name in every if name.endswith(task)), key=lambda n: (dice[n], n))
        assert set(own[:5]) <= set(few)
    text = write_report([runs[0]], tmp_path / "few.html", most_cases=20).read_text()
    assert "Of 80 targets 20 can be looked at here" in text
    text = write_report([runs[0]], tmp_path / "none.html", most_cases=0).read_text()
    assert "Look at every case" not in text


def test_data_of_a_page_close_no_script_and_break_no_line():
    """JSON in a script element."""
    text = as_json({"a": "</script>&\u2028"})

    assert not re.search("[<>&\u2028]", text)
    assert json.loads(text) == {"a": "</script>&\u2028"}
