"""What is computed, as data frames."""

from dataclasses import dataclass
from pathlib import Path

import fakes
import pytest
from phantom import write_phantoms

from promptseg import Choice, evaluate_into, frame_of, load_attributes, load_run
from promptseg.errors import DataError
from promptseg.plan import Plan
from promptseg.stats import estimate
from promptseg.strategy import STRATEGIES

BOX = Plan(strategies=(STRATEGIES["box"],), selections=("single",))


@dataclass(frozen=True)
class Inner:
    """A value in a value."""

    at: float
    n: int | None


@dataclass(frozen=True)
class Outer:
    """A value with one and with several."""

    name: str
    one: Inner
    rows: tuple[Inner, ...]
    notes: tuple[str, ...] = ()


def test_estimates_are_a_frame_with_the_group_before_the_estimate(tmp_path: Path):
    """One row per estimate, in its order."""
    corpus = write_phantoms(tmp_path / "c", range(6))
    run = evaluate_into(tmp_path / "r", corpus, {"fakes:box": fakes.box()}, BOX)
    found = estimate(run.records(), "dice")
    frame = frame_of(found)

    assert frame["task"].to_list() == [group.task for group in found]
    assert frame["value"].to_list() == [one.value for one in found.values()]
    assert frame.columns[0] == "model"


def test_inner_values_are_columns_and_several_are_rows_when_asked():
    """A prefix for one; each of several beside what it belongs to."""
    value = Outer("x", Inner(1.0, None), (Inner(2.0, 3), Inner(4.0, 5)), ("few",))
    assert frame_of([value]).columns == ["name", "one_at", "one_n", "rows", "notes"]
    assert frame_of([value])["rows"].to_list() == [[{"at": 2.0, "n": 3}, {"at": 4.0, "n": 5}]]
    assert frame_of([value], each="rows").rows(named=True) == [
        {"name": "x", "one_at": 1.0, "one_n": None, "notes": ["few"], "at": 2.0, "n": 3},
        {"name": "x", "one_at": 1.0, "one_n": None, "notes": ["few"], "at": 4.0, "n": 5},
    ]
    assert frame_of([Outer("x", Inner(1.0, 1), ())], each="rows").is_empty()


def test_what_cannot_be_a_frame_is_refused():
    """Columns are not overwritten, and a typo is no empty frame."""
    with pytest.raises(TypeError, match="no dataclass"):
        frame_of([{"a": 1}])
    with pytest.raises(ValueError, match="one column: at"):
        frame_of({Inner(1.0, 2): Inner(3.0, 4)})
    with pytest.raises(ValueError, match="no field 'lines'"):
        frame_of([Inner(1.0, 2)], each="lines")


def test_targets_of_several_runs_are_described_once(tmp_path: Path):
    """Targets of two corpora that are called alike are two."""
    one = write_phantoms(tmp_path / "c", range(4))
    other = write_phantoms(tmp_path / "d", range(5))
    for name, corpus, model in (
        ("a", one, fakes.box()),
        ("b", one, fakes.reference()),
        ("c", other, fakes.box()),
    ):
        evaluate_into(tmp_path / f"{name}.run", corpus, {model.name: model}, BOX)
    looks = load_attributes(*(tmp_path / f"{name}.run" for name in "abc"))
    records = load_run(*(tmp_path / f"{name}.run" for name in "abc"))

    assert looks.height == 2 * (4 + 5)
    assert looks.select("corpus", "target_id").is_unique().all()
    assert records.join(looks, on=["corpus", "target_id"]).height == records.height
    with pytest.raises(ValueError, match="needs the folder"):
        load_attributes()


def test_the_grid_of_everything_is_told(tmp_path: Path):
    """So that two grids are not averaged by mistake; null where there is none."""
    corpus = write_phantoms(tmp_path / "c", range(2))
    model = fakes.Planted()
    plan = Plan(strategies=(STRATEGIES["everything"], STRATEGIES["box"]))
    evaluate_into(tmp_path / "r.run", corpus, {"fakes:Planted": model}, plan)
    frame = load_run(tmp_path / "r.run")

    assert set(frame.filter(strategy="everything")["points_per_side"]) == {32}
    assert frame.filter(strategy="box")["points_per_side"].null_count() == 2 * 2 * 3


def test_a_corpus_is_evaluated_by_one_call_and_gone_on_with(tmp_path: Path):
    """The same run by the same call; another choice is another run."""
    corpus = write_phantoms(tmp_path / "c", range(6))
    model = fakes.box()
    few = Choice(limit=2)
    first = evaluate_into(tmp_path / "r", corpus, {"fakes:box": model}, BOX, choice=few)
    again = evaluate_into(str(tmp_path / "r"), corpus, {"fakes:box": model}, BOX, choice=few)

    assert model.embedded == 2
    assert again.records().equals(first.records())
    assert first.run.subset == {"limit": 2}
    with pytest.raises(DataError, match="subset"):
        evaluate_into(tmp_path / "r", corpus, {"fakes:box": model}, BOX, choice=Choice())
