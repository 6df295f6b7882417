"""Tables as CSV: what is downloaded is what the page shows, and views by data set and volume."""

import base64
import csv
import io
import json
from pathlib import Path

import pytest
from test_report import Tags, folder, page, record, text_of
from test_report_answers import run_of
from test_report_studies import studied
from test_volume import of_slice
from typer.testing import CliRunner

from promptseg.cli import app
from promptseg.report import flat, summary_rows, table, table_rows, write_report


def sheets_of(html: str) -> dict[str, list[dict[str, str]]]:
    """Read the tables back that a page offers: name of the file -> lines."""
    found = {}
    for tag, attributes in Tags(html).found:
        if tag == "a" and "download" in attributes:
            content = base64.b64decode(str(attributes["href"]).partition("base64,")[2]).decode()
            found[str(attributes["download"])] = list(csv.DictReader(io.StringIO(content)))
    return found


def read(path: Path) -> list[dict[str, str]]:
    """Read a CSV."""
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_every_section_offers_its_table(tmp_path):
    """Jitter, attributes and a ranking: every table is there under its name, none is empty."""
    runs = [
        studied(tmp_path / "a", effect=0.4, slope=0.004),
        studied(tmp_path / "b", effect=0.2, strategy="point1"),
    ]
    found = sheets_of(page(tmp_path, *runs))

    assert set(found) == {
        "promptseg-report.csv", "promptseg-ranking.csv", "promptseg-comparisons.csv",
        "promptseg-jitter.csv", "promptseg-tolerance.csv", "promptseg-factors.csv",
        "promptseg-partial-effects.csv", "promptseg-expected.csv",
        "promptseg-expected-errors.csv",
    }  # fmt: skip
    assert all(found.values())
    assert {row["attribute"] for row in found["promptseg-factors.csv"]} >= {"area_px", "n_holes"}
    radius = next(row for row in found["promptseg-tolerance.csv"] if row["measure"] == "px")
    assert float(radius["radius"]) == pytest.approx(12.5)


def test_the_ranking_s_csv_has_the_table_s_numbers(tmp_path):
    """To the digits that the page shows."""
    means = {("m", "box", "liver"): 0.9, ("m", "point1", "liver"): 0.6}
    html = page(tmp_path, run_of(tmp_path / "r", means, subjects=12))
    found = sheets_of(html)
    ranks = found["promptseg-ranking.csv"]
    (against,) = found["promptseg-comparisons.csv"]

    assert [(row["rank"], row["strategy"]) for row in ranks] == [("1", "box"), ("2", "point1")]
    for row in ranks:
        assert f"{float(row['dice']):.3f}" in text_of(html)
    assert f"−{-float(against['difference']):.3f}" in text_of(html)
    assert float(against["difference"]) == pytest.approx(
        float(against["dice"]) - float(against["against_dice"]), abs=1e-12
    )


def test_data_sets_are_averaged_by_themselves(tmp_path):
    """Two subjects of one, six of the other: each has its own mean, whatever their numbers."""
    records = [
        record(dataset=name, subject=f"{name}{i}", image_id=f"{name}{i}",
               target_id=f"{name}{i}#liver", dice=dice)
        for name, n, dice in (("few", 2, 0.4), ("many", 6, 0.8)) for i in range(n)
    ]  # fmt: skip
    made = folder(tmp_path / "r", records)
    html = page(tmp_path, made)
    lines = {row["dataset"]: row for row in sheets_of(html)["promptseg-datasets.csv"]}
    (whole,) = summary_rows([made])

    assert float(lines["few"]["value"]) == pytest.approx(0.4)
    assert float(lines["many"]["value"]) == pytest.approx(0.8)
    assert (lines["few"]["n_subjects"], lines["many"]["n_subjects"]) == ("2", "6")
    assert whole.dice.value == pytest.approx(0.7), "subjects weigh the same in the mean of both"
    assert 'id="datasets"' in html


def test_one_data_set_is_no_view(tmp_path):
    """There is nothing to set apart."""
    html = page(tmp_path, folder(tmp_path / "r", [record()]))

    assert 'id="datasets"' not in html
    assert 'id="volumes"' not in html


def test_volumes_stand_beside_slices_and_incomplete_ones_are_said(tmp_path):
    """80 / 140 of the whole volume, 0.55 of its slices; another has a failed slice."""
    failed = {"dice": None, "predicted_px": None, "reference_px": None, "outcome": "failed",
              "reason": "no"}  # fmt: skip
    other = {"volume": "w/axial", "subject": "s1"}
    records = [
        of_slice(0, 10, 20, 20),
        of_slice(1, 30, 40, 60),
        of_slice(0, 10, 20, 20, **other, image_id="w0", target_id="w0#liver"),
        of_slice(1, 1, 1, 1, **(other | failed), image_id="w1", target_id="w1#liver"),
    ]
    html = page(tmp_path, folder(tmp_path / "r", records))
    text = text_of(html)
    (line,) = sheets_of(html)["promptseg-volumes-by-task.csv"]

    assert "DICE of 2 volumes" in text
    assert "Incomplete: 1 result of volumes with a failed slice, in no mean." in text
    assert float(line["value"]) == pytest.approx(80 / 140)
    assert (line["n_volumes"], line["n_slices"], line["n_failed"]) == ("1", "2", "1")
    assert "0.571" in text


def test_all_tables_come_as_files(tmp_path):
    """The same as the page's, by `write_report` and by the command line."""
    made = studied(tmp_path / "r", effect=0.4, slope=0.004)
    html = write_report([made], tmp_path / "p.html", tables=tmp_path / "tables").read_text()
    paths = list((tmp_path / "tables").iterdir())
    result = CliRunner().invoke(
        app,
        ["report", str(made.path), "--out", str(tmp_path / "o.html"),
         "--tables", str(tmp_path / "cli")],
    )  # fmt: skip

    assert result.exit_code == 0, result.output
    assert {path.name for path in paths} == {
        "numbers.csv", "jitter.csv", "tolerance.csv", "factors.csv", "partial_effects.csv",
        "expected.csv", "expected_errors.csv",
    }  # fmt: skip
    steps = read(tmp_path / "tables" / "partial_effects.csv")
    assert {row["fifth_by_rank"] for row in steps} == {"1", "2", "3", "4", "5"}
    errors = read(tmp_path / "tables" / "expected_errors.csv")
    assert all(0 < float(row["mae"]) < 0.5 for row in errors)
    assert {row["held_out"] for row in errors} == {"subjects"}
    kinds = read(tmp_path / "tables" / "expected.csv")
    assert all(float(row["lo"]) <= float(row["dice"]) <= float(row["hi"]) for row in kinds)
    assert read(tmp_path / "tables" / "factors.csv") == sheets_of(html)["promptseg-factors.csv"]
    for path in paths:
        assert (tmp_path / "cli" / path.name).read_text() == path.read_text()


def test_the_methods_tell_what_was_done_and_nothing_else(tmp_path):
    """One way of answering is compared with nothing; two are; jitter is named where there is."""
    alone = text_of(page(tmp_path, run_of(tmp_path / "r", {("m", "box", "liver"): 0.9})))
    means = {("m", "box", "liver"): 0.9, ("m", "point1", "liver"): 0.6}
    two = text_of(page(tmp_path, run_of(tmp_path / "s", means, subjects=12)))
    moved = text_of(page(tmp_path, studied(tmp_path / "t", effect=0.4, slope=0.004)))

    assert "flipping the signs" not in alone.partition("In one paragraph")[2]
    assert "were also moved" not in alone
    assert "Differences from the best were tested by flipping the signs" in two
    assert "partial Spearman correlations within data set" not in two
    assert "Prompts were also moved (shift:px:" in moved
    assert "DICE was related to attributes of the targets by partial Spearman" in moved


def test_the_numbers_as_json_are_those_of_the_page_computed_once(tmp_path, monkeypatch):
    """One pass for the tasks and one for their means; the rows are those of `table_rows`."""
    made = run_of(tmp_path / "r", {("m", "box", "liver"): 0.9, ("m", "point1", "liver"): 0.4})
    expected = [flat(row) for row in table_rows([made])]
    measured = []
    rows_of = table._rows
    monkeypatch.setattr(
        table, "_rows", lambda records, by: (measured.append(by.__name__), rows_of(records, by))[1]
    )
    asked = ["report", str(made.path), "--out", str(tmp_path / "o.html"), "--json"]
    result = CliRunner().invoke(app, asked)

    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["rows"] == expected
    assert sorted(measured) == ["estimate", "over_tasks"]
