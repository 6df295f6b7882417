"""A report of several runs: what is pooled, what is refused, and what is said of each."""

import dataclasses
import re
from pathlib import Path

import polars as pl
import pytest
from test_report import BASE, folder, page, record, text_of

from promptseg.errors import DataError
from promptseg.record import Run, RunFolder
from promptseg.report import summary_rows, table_rows
from promptseg.report.facts import account, command

BEST = r'class=" best"><span class="number">([\d.]+)'


def section(html: str, name: str) -> str:
    """Cut one section out of a page, as text."""
    found = re.search(rf'<section aria-labelledby="{name}".*?</section>', html, re.DOTALL)
    assert found
    return text_of(found.group())


def part(path: Path, task: str, dice: float = 0.5, **known) -> RunFolder:
    """Write a run of one record on a corpus of its own, named after the task."""
    settings = {name: known.pop(name) for name in ("models", "nsd_tolerance") if name in known}
    unit = known.get("unit", "class")
    model = next(iter(settings.get("models", {"m": ""})))
    own = record(task=task, dice=dice, dataset=task, image_id=task, model=model, **known)
    return folder(path / f"{task}-{unit}-{model}.run", [own], corpus=task, unit=unit, **settings)


@pytest.fixture
def mixed(tmp_path) -> list[RunFolder]:
    """Three runs of one model on three corpora, each by another unit of evaluation."""
    units = {"liver (CT)": "class", "nucleus (Microscopy)": "instance", "lung (CT)": "component"}
    return [
        part(tmp_path, task, 0.3 + i / 5, unit=unit) for i, (task, unit) in enumerate(units.items())
    ]


def test_runs_of_different_tolerances_are_refused(tmp_path):
    """Within 1 mm and within 3 mm are two measures."""
    runs = [part(tmp_path, f"t{n:g}", nsd_tolerance=n) for n in (1.0, 3.0)]

    with pytest.raises(DataError, match=r"\(t1-class-m\.run: 1, t3-class-m\.run: 3\).*separately"):
        page(tmp_path, *runs)


def test_a_run_given_twice_is_refused_by_its_name(tmp_path):
    """By whatever way to it; doubled records would look like two models."""
    run = part(tmp_path, "liver (CT)")
    again = RunFolder(run.path.parent / "." / ".." / tmp_path.name / run.path.name, run.run)

    with pytest.raises(DataError, match=r"liver \(CT\)-class-m\.run is given twice"):
        table_rows([run, again])


def test_records_with_other_columns_are_one_clear_line(tmp_path):
    """Not a traceback of the table library."""
    run = part(tmp_path, "liver (CT)")
    (path,) = (run.path / "records").iterdir()
    pl.DataFrame({"model": ["m"]}).write_parquet(path)

    with pytest.raises(DataError) as refused:
        page(tmp_path, run)
    assert "\n" not in str(refused.value)
    assert str(run.path) in str(refused.value)


def test_tasks_by_different_units_share_headline_figure_table_and_gallery(mixed, tmp_path):
    """Nothing is left out because it was evaluated by another unit, and the unit is said."""
    html = page(tmp_path, *mixed)
    names = ("liver (CT)", "nucleus (Microscopy), by instance", "lung (CT), by component")

    assert re.findall(r'<p class="headline">.*? over 3 tasks\. ', html)
    for part_of_page in ("dice", "table", "gallery"):
        assert all(name in section(html, part_of_page) for name in names)
    (mean,) = summary_rows(mixed)
    assert mean.dice.value == pytest.approx(0.5)
    assert mean.group.unit == "class; component; instance"
    assert len(table_rows(mixed)) == 3
    assert "without a value" not in text_of(html)


def test_the_methods_say_which_unit_applies_where(mixed, tmp_path):
    """Named tasks for the unusual units, all others by class."""
    text = section(page(tmp_path, *mixed), "methods")

    assert "nucleus (Microscopy): every instance is a target of its own." in text
    assert "All other tasks: all instances of an object in an image are one target." in text


def test_one_unit_for_all_is_in_no_label(tmp_path):
    """It is in the methods once."""
    runs = [part(tmp_path, name, unit="instance") for name in ("a (CT)", "b (CT)")]
    html = page(tmp_path, *runs)

    assert ", by instance" not in html
    assert "Every instance is a target of its own." in text_of(html)


def test_one_task_by_two_units_is_two_rows(tmp_path):
    """And the distances of each are found again under its label."""
    runs = [part(tmp_path, "liver (CT)", unit=unit) for unit in ("class", "instance")]

    rows = table_rows(runs)

    assert [row.group.task for row in rows] == ["liver (CT)", "liver (CT), by instance"]
    assert [row.surfaces[0].hd95.value for row in rows] == [3.0, 3.0]


def test_means_over_different_tasks_are_not_compared(tmp_path):
    """Model b has the easy task alone: its mean is higher, and not marked as best."""
    a, b = {"models": {"a": "a" * 64}}, {"models": {"b": "b" * 64}}
    runs = [
        part(tmp_path, "hard (CT)", 0.2, **a),
        part(tmp_path, "easy (CT)", 0.9, **a),
        part(tmp_path, "easy (CT)", 0.8, **b),
    ]
    html = page(tmp_path, *runs)

    assert re.findall(BEST, html) == ["0.900"]
    assert "Means over different tasks are not compared." in text_of(html)
    assert "2 tasks" in section(html, "compare")
    assert "in the one task it has, easy (CT)." in text_of(html)


def test_means_over_the_same_tasks_are_compared(tmp_path):
    """The highest is in bold, as in every row."""
    runs = [
        part(tmp_path, task, dice, models={model: model * 64})
        for model, dice in (("a", 0.4), ("b", 0.6))
        for task in ("x (CT)", "y (CT)")
    ]
    html = page(tmp_path, *runs)

    assert re.findall(BEST, html) == ["0.600"] * 3
    assert "not compared" not in html


def test_what_was_run_on_more_tasks_leads(tmp_path):
    """One lucky task by points is no rival of two tasks by box; what is left out is said."""
    records = [
        record(task="a (CT)", dice=0.4),
        record(task="b (CT)", dice=0.5, target_id="b"),
        record(task="a (CT)", strategy="point1", dice=0.9),
    ]
    run = folder(tmp_path / "run", records)
    text = text_of(page(tmp_path, run))

    assert "m with box / single reaches a mean DICE of 0.450" in text
    assert "over 2 tasks." in text


def test_tasks_without_a_value_of_what_is_shown_are_counted(tmp_path):
    """A task by points alone is in the table, and the figure and gallery say that it is missing."""
    records = [record(task="a (CT)"), record(task="b (CT)", target_id="b")]
    records += [record(task="c (CT)", strategy="point1", target_id="c")]
    html = page(tmp_path, folder(tmp_path / "run", records))

    assert "1 task without a value of what is drawn here" in section(html, "dice")
    assert "1 task of the report has no value of it." in section(html, "gallery")
    assert "over 2 of 3 tasks." in text_of(html)


def test_subjects_known_in_some_data_sets_are_counted(tmp_path):
    """One of two is known: at least one, unknown for one image."""
    runs = [part(tmp_path, "a (CT)"), part(tmp_path, "b (CT)", subject=None)]
    html = page(tmp_path, *runs)

    assert "On 2 images of at least 1 subject (unknown for 1 image), m with" in text_of(html)
    assert "≥ 1" in section(html, "table")
    assert "Subjects ≥: at least so many" in section(html, "table")
    assert "unknown" in section(html, "table")


def test_nsd_of_both_units_reads_as_a_fraction(tmp_path):
    """It has no unit: the data have."""
    both = [record(), record(target_id="2", image_id="2", distance_unit="px", nsd=0.63)]
    text = section(page(tmp_path, folder(tmp_path / "run", both)), "table")

    assert "0.700 (mm data)" in text
    assert "0.630 (px data)" in text
    assert "0.630 px" not in text


@pytest.mark.parametrize("outcome", ["ok", "failed"])
def test_the_column_of_failures_is_there_when_something_failed(tmp_path, outcome):
    """A column of zeros takes room from the others."""
    more = record(target_id="2", outcome=outcome, dice=None if outcome == "failed" else 0.5)
    html = page(tmp_path, folder(tmp_path / "run", [record(), more]))

    assert ('<th scope="col">Failed</th>' in html) == (outcome == "failed")


def test_results_come_before_what_was_run(mixed, tmp_path):
    """A reader wants results first."""
    html = page(tmp_path, *mixed)
    places = [html.index(f'<h2 id="{name}">') for name in ("dice", "table", "gallery", "run")]

    assert html.index('class="headline"') < places[0]
    assert places == sorted(places)


def test_a_short_figure_is_printed_on_one_page(tmp_path):
    """A long one has to break."""
    for n_tasks, expected in ((10, True), (11, False)):
        records = [record(task=f"t{i}", target_id=f"t{i}") for i in range(n_tasks)]
        html = page(tmp_path, folder(tmp_path / f"run{n_tasks}", records))

        assert ('<section aria-labelledby="dice" class="short">' in html) == expected


def test_shared_settings_are_told_once_and_the_rest_run_by_run(mixed):
    """Seven runs would otherwise be seven times the same list."""
    told = account([folder.run for folder in mixed], [None] * 3)

    assert told.columns == ("Corpus", "Images", "Fingerprint", "Unit of evaluation")
    assert told.lines[1] == ("nucleus (Microscopy)", "6", "f" * 12, "instance")
    shared = {fact.name: fact.values for fact in told.shared}
    assert shared["Seed"] == ("0",)
    assert len(shared["To repeat"]) == 3


def test_one_run_is_a_plain_list():
    """There is nothing to compare it with."""
    told = account([BASE], [None])

    assert (told.columns, told.lines) == ((), ((),))
    assert len(told.shared) == len({fact.name for fact in told.shared})


def test_the_command_asks_for_models_as_they_were_asked_for():
    """The name of a model of one's own is not what loads it, and its weights were a file."""
    models = {"box": "a" * 64, "litemedsam": "b" * 64}
    run: Run = dataclasses.replace(
        BASE, models=models, asked={"box": "fakes:box"}, custom_weights=["litemedsam"]
    )

    words = command(run)

    assert "--model fakes:box --model litemedsam --weights FILE --strategy" in words
    assert "--weights" not in command(BASE)


def test_the_command_says_again_what_all_models_were_trained_on():
    """What one model alone declares comes from its card, or its class, when it is asked again."""
    told = {"a": ["heart", "liver"], "b": ["own", "heart"]}
    run: Run = dataclasses.replace(BASE, models={"a": "1", "b": "2"}, trained_on=told)
    alone: Run = dataclasses.replace(run, trained_on={"a": ["heart"]})

    assert command(run).count("--trained-on") == 1
    assert " --trained-on heart " in command(run)
    assert "--trained-on" not in command(alone)
