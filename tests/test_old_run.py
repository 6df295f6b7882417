"""A run that an older promptseg wrote: it opens and can be reported; what is too new is refused.

`golden/run-schema-1` was written by the last version of run schema 1 (6964273), `run-schema-2` by
that of schema 2 (e22d172): two phantoms, the fake `reference`, strategies box and point1.
"""

import json
import shutil
from pathlib import Path

import fakes
import pytest
from phantom import write_phantoms

from promptseg.errors import DataError
from promptseg.plan import Plan
from promptseg.record import SCHEMA_VERSION, Record, open_run, start_run
from promptseg.report import flat, table_rows, write_report
from promptseg.run import describe_run
from promptseg.strategy import STRATEGIES

GOLDEN = Path(__file__).with_name("golden")
OLD = GOLDEN / "run-schema-1"


def test_a_run_of_schema_1_opens_with_all_it_knew():
    """Its records have the columns of today; what it did not know is null."""
    folder = open_run(OLD)
    records = folder.records()

    assert records.columns == list(Record.__dataclass_fields__)
    assert records.height == 2 * 2 * 2 * 3
    assert records["schema_version"].unique().to_list() == [1]
    assert records.filter(strategy="box", selection="single")["dice"].to_list() == [1.0] * 4
    assert records["n_survivors"].null_count() == records.height
    assert (folder.run.seeds, folder.run.jitter, folder.run.subset) == ([0], [], {})
    assert folder.run.n_targets is None


def test_a_run_of_schema_2_opens_with_all_it_knew():
    """It did not know volumes and areas, nor what its models were trained on."""
    folder = open_run(GOLDEN / "run-schema-2")
    records = folder.records()

    assert records.columns == list(Record.__dataclass_fields__)
    assert records["schema_version"].unique().to_list() == [2]
    assert records.filter(strategy="box", selection="single")["dice"].to_list() == [1.0] * 4
    for name in ("volume", "predicted_px", "reference_px"):
        assert records[name].null_count() == records.height
    assert folder.attributes().height == 4
    assert (folder.run.datasets, folder.run.trained_on, folder.run.held_out) == ([], {}, {})


@pytest.mark.parametrize("schema", [1, 2])
def test_a_run_of_an_old_schema_is_reported(tmp_path: Path, schema: int):
    """Tables and page are made of it as of any other."""
    folder = open_run(GOLDEN / f"run-schema-{schema}")
    (bar,) = (
        flat(row)
        for row in table_rows([folder])
        if (row.group.task, row.group.strategy, row.group.selection)
        == ("bar (CT)", "box", "single")
    )
    page = write_report([folder], tmp_path / "old.html").read_text()

    assert bar["dice"] == 1.0
    assert "reference" in page


@pytest.mark.parametrize("schema", [1, 2])
def test_a_run_of_an_old_schema_is_not_gone_on_with(tmp_path: Path, schema: int):
    """Records of two versions never mix in one folder; the line says what can be done."""
    shutil.copytree(GOLDEN / f"run-schema-{schema}", tmp_path / "old")
    corpus = write_phantoms(tmp_path / "c", range(2))
    plan = Plan((STRATEGIES["box"], STRATEGIES["point1"]))
    run = describe_run(corpus, {"fakes:reference": fakes.reference()}, plan)
    with pytest.raises(DataError, match="can be reported, but not gone on with") as caught:
        start_run(tmp_path / "old", run)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, 0, "2", None])
def test_a_run_of_another_schema_is_refused_in_one_line(tmp_path: Path, version: object):
    """What a later promptseg wrote cannot be read by this one, and it says so."""
    shutil.copytree(OLD, tmp_path / "new")
    file = tmp_path / "new" / "run.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema_version": version}))
    with pytest.raises(DataError, match=f"run schema {version}, this promptseg reads") as caught:
        open_run(tmp_path / "new")

    assert "\n" not in str(caught.value)


def test_an_old_run_that_was_damaged_is_refused_in_one_line(tmp_path: Path):
    """A setting that schema 1 had is missing: no default takes its place."""
    shutil.copytree(OLD, tmp_path / "bad")
    file = tmp_path / "bad" / "run.json"
    content = json.loads(file.read_text())
    del content["seed"]
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match="is damaged"):
        open_run(tmp_path / "bad")
