"""The recipes of the study's tables and figures, on phantoms whose answers are planted."""

from pathlib import Path
from typing import Any

import asked
import clicked
import fakes
import figure_6
import figure_16
import figures_12_15
import figures_17_18
import polars as pl
import pyarrow.parquet as pq
import pytest
import runs
import sheet
import table_3
import table_4
import table_5
import table_6
import table_8
from phantom import write_phantoms

from promptseg import Choice, evaluate_into, load_attributes, load_run
from promptseg.errors import DataError
from promptseg.factors import factors
from promptseg.model import Training
from promptseg.plan import Plan
from promptseg.response import responses
from promptseg.stats import estimate
from promptseg.strategy import STRATEGIES

IMAGES, SUBJECTS = 12, 6
MODEL = "fakes:Planted"
FAST = ["--model", MODEL, "--seed", "0", "--grid", "4", "8", "--grid-limit", "3",
        "--points", "1", "3", "10", "--max-clicks", "10"]  # fmt: skip
SCRIPTS = (table_3, table_4, table_5, table_6, table_8, figure_6, figures_12_15, figure_16)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run every script on a corpus, as a user does."""
    out = tmp_path_factory.mktemp("study")
    write_phantoms(out / "phantom.corpus", range(IMAGES), subjects=SUBJECTS, spacing_mm=2.0)
    for script in SCRIPTS:
        script.main([str(out / "phantom.corpus"), "--out", str(out), *FAST])
    return out


def of(study: Path, name: str, **wanted: Any) -> pl.DataFrame:
    """Read some rows of a table."""
    return pl.read_csv(study / f"{name}.csv").filter(**wanted)


def runs_of(study: Path, kind: str) -> Path:
    """Find one run of the study."""
    return study / "runs" / f"phantom-planted{kind}.run"


def test_all_runs_are_made_once_and_only_read_afterwards(study: Path, capsys):
    """Prompts, points, clicks and two grids, however many scripts; no part is written again."""
    made = sorted((study / "runs").iterdir())
    before = {path: path.stat().st_mtime_ns for run in made for path in run.rglob("*.parquet")}
    table_3.main([str(study / "phantom.corpus"), "--out", str(study), *FAST])
    after = {path: path.stat().st_mtime_ns for run in made for path in run.rglob("*.parquet")}

    assert [path.name for path in made] == [
        "phantom-planted-clicks.run",
        "phantom-planted-everything-4.run",
        "phantom-planted-everything-8.run",
        "phantom-planted-points.run",
        "phantom-planted.run",
    ]
    assert before == after
    assert f"{IMAGES * 2} targets" in capsys.readouterr().out


def test_a_model_is_asked_only_what_it_was_trained_for(tmp_path: Path):
    """Boxes alone, the single mask alone, and no jitter of points."""
    model = fakes.Fake("b", fakes.filled_box)
    model.training = Training(frozenset({"box"}), frozenset({"single"}))
    jitter = [runs.parse_jitter(text) for text in runs.JITTER]
    plan = runs.trained_plan(model, jitter, (0, 1))

    assert [strategy.name for strategy in plan.strategies] == ["box"]
    assert plan.selections == ("single",)
    assert [str(one) for one in plan.jitter] == [f"shift:px:{level}" for level in runs.LEVELS]
    assert plan.seeds == (0, 1)
    assert runs.trained_plan(model, (), (0, 1)).seeds == (0,)


def test_table_3_gives_dice_and_distances_as_the_estimates_do(study: Path):
    """A box gives the planted 0.90; HD is that of `estimate`, in mm."""
    row = of(study, "table_3", strategy="box", selection="single", task="disc (CT)")
    records = load_run(runs_of(study, "")).filter(pl.col("jitter_mode").is_null())
    found = {
        group.task: one
        for group, one in estimate(records, "hd").items()
        if (group.strategy, group.selection) == ("box", "single")
    }

    assert row["dice"].item() == pytest.approx(0.90, abs=0.01)
    assert row["hd"].item() == pytest.approx(found["disc (CT)"].value)
    assert row["hd_lo"].item() == pytest.approx(found["disc (CT)"].lo)
    assert row["distance_unit"].item() == "mm"
    assert row["n_subjects"].item() == SUBJECTS
    assert of(study, "table_3").height == 2 * 5 * 3  # tasks, strategies, selections
    assert "| disc (CT) | planted | box | single |" in (study / "table_3.md").read_text()


def test_table_4_counts_every_image_and_prompt_once(study: Path):
    """Not once per selection; jittered prompts are prompts."""
    steps = dict(of(study, "table_4").select("step", "n").iter_rows())
    prompts = load_run(runs_of(study, ""))["prompt_id"].n_unique()

    assert steps == {"encoder, per image": IMAGES, "decoder, per prompt": prompts}
    grids = table_4.table(
        load_run(runs_of(study, "-everything-4")),
        pl.DataFrame({"run": ["phantom-planted-everything-4.run"], "device": ["cpu"]}).with_columns(
            torch=pl.lit("2")
        ),
    )
    assert "everything, 4 x 4, per image" in grids["step"].to_list()


def test_table_5_compares_grids_on_the_images_of_all(study: Path):
    """Three images each; a grid of other images does not count."""
    rows = of(study, "table_5", task="all tasks")
    paths = (runs_of(study, "-everything-4"), runs_of(study, "-everything-8"))
    records = load_run(*paths)
    one = records.filter(pl.col("points_per_side") == 4)["image_id"].unique().sort()[0]
    fewer = records.filter((pl.col("points_per_side") == 8) | (pl.col("image_id") == one))

    assert rows["points_per_side"].to_list() == [4, 8]
    assert rows["n_images"].to_list() == [3, 3]
    assert (rows["dice"] >= 0).all()
    survivors = records.filter(pl.col("points_per_side") == 8).unique("image_id")["n_survivors"]
    assert rows["masks_median"].to_list()[1] == survivors.median()
    assert of(study, "table_5", task="bar (CT)")["n_images"].to_list() == [3, 3]
    assert table_5.on_shared_images(fewer)["image_id"].unique().to_list() == [one]
    assert (rows["dice"].to_list()[1], 6) == (
        pytest.approx(
            records.filter(pl.col("points_per_side") == 8, pl.col("selection") == "oracle")
            .group_by("task").agg(pl.col("dice").mean())["dice"].mean()
        ),
        rows["n_targets"].to_list()[1],
    )  # fmt: skip


def test_tables_6_and_8_are_those_of_the_library(study: Path):
    """Correlations and losses, row by row."""
    run = runs_of(study, "")
    records, looks = load_run(run), load_attributes(run)
    rho = {
        (one.strategy, one.selection, row.attribute): row.rho
        for one in factors(records, looks)
        for row in one.rows
    }
    loss = {
        (one.task, one.strategy, one.selection, one.mode, one.measure, level.at): level.loss
        for one in responses(records, looks)
        for level in one.levels
    }
    sixth = of(study, "table_6").select("strategy", "selection", "attribute", "rho")
    eighth = of(study, "table_8").select(
        "task", "strategy", "selection", "mode", "measure", "at", "loss"
    )

    assert {tuple(key): value for *key, value in sixth.iter_rows()} == pytest.approx(rho)
    assert {tuple(key): value for *key, value in eighth.iter_rows()} == pytest.approx(loss)
    assert {"px", "px as rel"} == set(eighth["measure"])


def test_table_8_is_read_over_tasks_and_kept_by_task(study: Path):
    """Hundreds of rows are no table to read."""
    every = of(study, "table_8")
    over_tasks = every.filter(pl.col("task") == "all tasks").height
    said = (study / "table_8.md").read_text()

    assert 0 < over_tasks < every.height
    assert said.count("| all tasks |") == over_tasks
    assert "disc (CT)" not in said
    assert f"{over_tasks} of {every.height} rows; table_8.csv has them all." in said


def test_table_8_of_one_task_is_that_task():
    """There is no mean over tasks then."""
    curve = dict.fromkeys(table_8.CURVE, "x")
    rows = [{**curve, "task": "a"}, {**curve, "task": "a"}]
    several = [{**curve, "mode": "y", "task": task} for task in ("a", "b", "all tasks")]
    read = pl.DataFrame([*rows, *several]).filter(table_8.TO_READ)

    assert read.select("mode", "task").rows() == [("x", "a"), ("x", "a"), ("y", "all tasks")]


@pytest.mark.parametrize("most", [2, 3, 10])
def test_no_tick_of_figure_16_lies_between_two_clicks(most: int):
    """Half a click is none."""
    rows = [
        {"model": "m", "selection": "single", "how": "clicked", "n_points": n, "value": 0.5,
         "lo": None, "hi": None}
        for n in range(1, most + 1)
    ]  # fmt: skip
    ticks = figure_16.draw(pl.DataFrame(rows)).axes[0].get_xticks()

    assert all(float(tick).is_integer() for tick in ticks)


def test_figure_6_shows_the_planted_order_of_the_strategies(study: Path):
    """One point, five, ten, a box and a box with a point, on the same targets; boxes tested."""
    rows = of(study, "figure_6", selection="single")
    tests = of(study, "figure_6_contrasts", arm_strategy="point1", arm_selection="single")
    drawn = (study / "figure_6.svg").read_text()

    planted = [0.45, 0.65, 0.75, 0.90, 0.93]
    assert rows["strategy"].to_list() == ["point1", "points5", "points5+5", "box", "box+point"]
    assert rows["value"].to_list() == pytest.approx(planted, abs=0.02)
    assert set(rows["n_targets"]) == {2 * IMAGES}
    assert tests["against_strategy"].item() == "box+point"
    assert tests["cell_difference_value"].item() == pytest.approx(-0.48, abs=0.02)
    assert "planted, single" in drawn
    assert "points5+5" in drawn


def test_the_oracle_gap_is_told_without_a_test(study: Path):
    """It cannot be positive; the contrasts beside it are tested."""
    gaps, tests = of(study, "figure_6_oracle"), of(study, "figure_6_contrasts")

    assert {"p", "p_holm"} <= set(tests.columns)
    assert not {"p", "p_holm"} & set(gaps.columns)
    assert " p |" not in (study / "figure_6_oracle.md").read_text()
    assert gaps["cell_difference_value"].max() <= 0


def test_figure_6_compares_everything_on_its_own_images_alone(study: Path):
    """No mean of few images stands beside one of many; a grid that is not asked for stays out."""
    records = load_run(runs_of(study, ""), runs_of(study, "-everything-8"))
    without = figure_6.shared(records, with_everything=False)
    beside = figure_6.shared(records, with_everything=True, grid=8)
    of_strategy = beside.group_by("strategy").agg(pl.col("target_id").n_unique())

    assert figure_6.of_many(without, SUBJECTS).height == without.height
    assert figure_6.of_many(without, SUBJECTS + 1).is_empty()
    assert "everything" not in without["strategy"].unique().to_list()
    assert without["target_id"].n_unique() == 2 * IMAGES
    assert set(of_strategy["target_id"]) == {6}
    assert figure_6.shared(records, with_everything=True)["strategy"].n_unique() == 5


def test_figures_12_to_15_draw_the_best_arm_that_a_user_could_have(study: Path):
    """Box with a point, not the oracle; every attribute that varies has its steps."""
    text = (study / "figures_12_15.md").read_text()
    steps = of(study, "figures_12_15")

    assert "planted, box+point, single" in text or "planted, box+point, predicted" in text
    assert {"area_px", "intensity_difference"} <= set(steps["attribute"])
    assert of(study, "figures_12_15", attribute="area_px")["n_targets"].sum() == 2 * IMAGES
    assert "boundary complexity" in (study / "figures_12_15.svg").read_text()


def test_figure_16_follows_a_user_who_clicks(study: Path):
    """0.40 and 0.05 for every click on what is missing; 0.8 of Jaccard takes ten, 0.85 more."""
    rows = of(study, "figure_16", how="clicked")
    noc = of(study, "figure_16_noc")
    records = load_run(runs_of(study, "-clicks"))

    assert rows["n_points"].to_list() == list(range(1, 11))
    assert rows["selection"].unique().to_list() == ["predicted"]
    expected = [0.40 + 0.05 * n for n in range(1, 11)]
    assert rows["value"].to_list() == pytest.approx(expected, abs=0.02)
    assert noc["value"].to_list() == [10, 10, 10]
    assert noc["share_not_reached"].to_list() == [0, 1, 1]
    assert records.height == 2 * IMAGES * 10
    assert (records["clicks"] == records["strategy"].str.extract(r"(\d+)").cast(pl.Int64)).all()
    assert records["clicks"].equals(records["n_positive"])
    assert "clicked |" in (study / "figure_16.md").read_text()


def test_a_mask_without_error_is_clicked_no_more(tmp_path: Path):
    """It stays as it is, and counts as reached from there on."""
    corpus = write_phantoms(tmp_path / "c", range(2))
    model = fakes.all_of_it()
    folder = clicked.click_into(
        tmp_path / "r.run", corpus, {"m": model}, clicked.plan_of(model, 4), choice=Choice()
    )
    records = folder.records()

    assert records["dice"].unique().to_list() == [1]
    assert records.height == 4 * 4  # targets, numbers
    assert records["clicks"].unique().to_list() == [1]
    assert folder.prompts().height == 4


def test_a_model_that_fails_at_a_click_has_failed_from_there_on(tmp_path: Path):
    """What it answered before stays; the reason is its own; nothing is asked after that."""

    class Tires(fakes.Planted):
        def segment(self, embedding, prompts):
            if len(prompts[0].xy) > 2:
                raise RuntimeError("too many clicks")
            return super().segment(embedding, prompts)

    corpus = write_phantoms(tmp_path / "c", range(1))
    model = Tires()
    folder = clicked.click_into(
        tmp_path / "r.run", corpus, {"m": model}, clicked.plan_of(model, 5), choice=Choice()
    )
    found = folder.records().sort("target_id", "strategy")

    assert found["outcome"].to_list() == (["ok"] * 2 + ["failed"] * 3) * 2
    assert found["reason"].drop_nulls().unique().to_list() == [
        "the model raised RuntimeError: too many clicks"
    ]
    assert folder.prompts()["prompt"].str.count_matches("true").max() == 3


def test_an_unreadable_image_is_recorded_and_clicking_goes_on(tmp_path: Path):
    """Of two images the one that is damaged gives failed records, the other its ten."""
    corpus = write_phantoms(tmp_path / "c", range(2))
    (part,) = (corpus.path / "images").glob("*.parquet")
    table = pq.read_table(part)
    rows = table.to_pylist()
    rows[0]["image"]["bytes"] = rows[0]["image"]["bytes"][:-20]
    pq.write_table(type(table).from_pylist(rows, table.schema), part)
    model = fakes.Planted()
    plan = clicked.plan_of(model, 3)
    folder = clicked.click_into(tmp_path / "r.run", corpus, {"m": model}, plan, choice=Choice())
    outcomes = folder.records().group_by("image_id").agg(pl.col("outcome").unique().first())

    assert sorted(outcomes["outcome"].to_list()) == ["failed", "ok"]


def test_figure_16_gives_dice_by_points_placed_beforehand(study: Path):
    """0.40 and 0.05 for every point; one point of two runs is one prompt."""
    rows = of(study, "figure_16", selection="single", how="placed")
    both = figure_16.by_number(load_run(runs_of(study, "-points"), runs_of(study, "")))
    once = both.filter(n_points=1, selection="single")

    assert rows["n_points"].to_list() == [1, 3, 10]
    assert rows["value"].to_list() == pytest.approx([0.45, 0.55, 0.90], abs=0.02)
    assert once["target_id"].is_unique().all()
    assert set(both["n_points"]) == {1, 3, 5, 10}


def test_figures_17_and_18_pair_before_with_after(tmp_path: Path):
    """A model that is always right after one that fills the box."""
    corpus = write_phantoms(tmp_path / "c", range(IMAGES), subjects=SUBJECTS)
    models = {"fakes:box": fakes.box(), "fakes:reference": fakes.reference()}
    plan = Plan(strategies=(STRATEGIES["box"],), selections=("single",))
    folder = evaluate_into(tmp_path / "r.run", corpus, models, plan)
    told = ["--before", "box", "--after", "reference", "--out", str(tmp_path / "o")]
    figures_17_18.main([str(folder.path), *told])

    rows = of(tmp_path / "o", "figures_17_18")
    disc = rows.filter(task="disc (CT)")
    own = load_run(folder.path).filter(model="box", task="disc (CT)")
    mean = own.group_by("subject").agg(pl.col("dice").mean())["dice"].mean()
    assert disc["before"].item() == pytest.approx(mean)
    assert disc["after"].item() == 1
    assert disc["n_subjects"].item() == SUBJECTS
    assert rows["task"].to_list()[0] == "all tasks"
    assert "disc (CT)" in (tmp_path / "o" / "figures_17_18.svg").read_text()


def test_what_a_run_does_not_hold_is_said(study: Path, tmp_path: Path):
    """No empty table, no empty figure, no traceback."""
    run = str(runs_of(study, ""))
    with pytest.raises(DataError, match="No run holds everything"):
        table_5.main([run, "--out", str(tmp_path)])
    with pytest.raises(DataError, match="No on-protocol run"):
        figures_12_15.main([run, "--out", str(tmp_path), "--strategy", "scribble"])
    with pytest.raises(SystemExit, match="is a corpus: this script reads runs"):
        figures_17_18.main([str(study / "phantom.corpus"), "--after", "x", "--out", str(tmp_path)])
    with pytest.raises(DataError, match="hold nothing"):
        sheet.write(pl.DataFrame({"a": []}), tmp_path / "t", "Nothing.")
    with pytest.raises(SystemExit, match="No run holds everything"):
        asked.plainly(lambda: table_5.main([run, "--out", str(tmp_path)]))


def test_two_corpora_of_one_name_are_refused(study: Path, tmp_path: Path):
    """Their runs would lie in one folder."""
    write_phantoms(tmp_path / "phantom.corpus", range(2))
    paths = [str(study / "phantom.corpus"), str(tmp_path / "phantom.corpus")]
    with pytest.raises(SystemExit, match="one name"):
        runs.main([*paths, "--out", str(tmp_path / "o"), *FAST])


def test_undefined_is_a_dash_in_a_table(tmp_path: Path):
    """Not a zero, and not an empty word; lists stay out of both files."""
    frame = pl.DataFrame({"a": [0.12345, None], "b": ["x", "y"], "c": [[1], [2]]})
    sheet.write(frame, tmp_path / "t", "T.")

    assert (tmp_path / "t.md").read_text().endswith("| 0.123 | x |\n| – | y |\n")
    assert pl.read_csv(tmp_path / "t.csv").columns == ["a", "b"]


def test_a_small_p_is_no_zero_and_the_oracle_gap_has_none(study: Path, tmp_path: Path):
    """Of p, three digits or less than the smallest; of what is not tested, nothing."""
    frame = pl.DataFrame({"p_holm": [0.0002, 0.0213, None], "dice": [0.0002, 0.5, 1.0]})
    sheet.write(frame, tmp_path / "t", "A table.")
    rows = (tmp_path / "t.md").read_text().splitlines()[-3:]

    assert rows == ["| <0.001 | 0.000 |", "| 0.021 | 0.500 |", "| – | 1.000 |"]
    assert not {"p", "p_holm"} & set(pl.read_csv(study / "figure_6_oracle.csv").columns)
    assert {"p", "p_holm"} <= set(pl.read_csv(study / "figure_6_contrasts.csv").columns)
