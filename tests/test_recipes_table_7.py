"""The annotation study, on logs whose answer is planted."""

import csv
from pathlib import Path

import cv2
import fakes
import numpy as np
import polars as pl
import pytest
import runs
import table_7
import table_7_effort
from phantom import phantom, write_phantoms

from promptseg import evaluate_into, open_run
from promptseg.effort import correction_effort
from promptseg.errors import DataError
from promptseg.mask import from_rle
from promptseg.plan import Plan
from promptseg.strategy import STRATEGIES

IMAGES, SUBJECTS = 12, 12


def write_log(folder: Path, **changes: str) -> Path:
    """Write a crossover: two annotators; drawn from scratch a tenth is missing, and 40 s go."""
    rows = []
    for index in range(IMAGES):
        for place, (name, mask) in enumerate(phantom(index)[1].items()):
            for arm, quality in (("scratch", 0.9), ("assisted", 1.0)):
                drawn = fakes.part_of(mask, quality).astype(np.uint8) * 255
                file = f"{index}-{name}-{arm}.png"
                cv2.imwrite(str(folder / file), drawn)
                seconds = (40 if arm == "scratch" else 30) + index % 3
                who = "AB"[(index + place + (arm == "scratch")) % 2]
                rows.append((f"phantom/{index:04d}#{name}", who, arm, seconds, file))
    rows[0] = tuple(
        changes.get(name, value) for name, value in zip(table_7.COLUMNS, rows[0], strict=True)
    )
    with (folder / "log.csv").open("w", newline="") as file:
        csv.writer(file).writerows([table_7.COLUMNS, *rows])
    return folder / "log.csv"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Write the images that were annotated."""
    write_phantoms(tmp_path / "c", range(IMAGES), subjects=SUBJECTS)
    return tmp_path / "c"


def test_table_7_finds_the_planted_gain(corpus: Path, tmp_path: Path):
    """DICE .9 to 1, 41 s to 31, less to correct; each surely, over twelve subjects."""
    log = write_log(tmp_path)
    table_7.main([str(corpus), "--log", str(log), "--out", str(tmp_path / "o")])
    found = pl.read_csv(tmp_path / "o" / "table_7.csv")
    row = {one["measure"]: one for one in found.iter_rows(named=True)}

    assert row["dice"]["before"] == pytest.approx(0.9, abs=0.01)
    assert row["dice"]["after"] == 1
    assert (row["seconds"]["before"], row["seconds"]["after"]) == (41, 31)
    assert row["seconds"]["relative"] == pytest.approx(-10 / 41)
    assert row["effort"]["after"] == 0
    assert row["effort"]["before"] > 0
    assert found["n_targets"].to_list() == [2 * IMAGES] * 3
    assert found["n_subjects"].to_list() == [SUBJECTS] * 3
    assert found["n_annotators"].to_list() == [2] * 3
    assert (found["p_holm"] < 0.05).all()
    assert (found["p_holm"] >= found["p"]).all()


def test_targets_of_one_arm_alone_are_counted_and_enter_nothing(corpus: Path, tmp_path: Path):
    """The first target has lost its `scratch`."""
    log = write_log(tmp_path, arm="other")
    table_7.main([str(corpus), "--log", str(log), "--out", str(tmp_path / "o")])
    found = pl.read_csv(tmp_path / "o" / "table_7.csv")

    assert found["n_targets"].to_list() == [2 * IMAGES - 1] * 3
    assert found["n_alone"].to_list() == [1] * 3


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"target_id": "phantom/0000#liver"}, "line 2: .* has no target 'phantom/0000#liver'"),
        ({"mask": "gone.png"}, r"line 2: .*gone.png cannot be read"),
        ({"mask": "log.csv"}, "line 2: .* is no image"),
        ({"mask": "4-disc-scratch.png"}, "line 2: .* pixels; the target's is"),
        ({"seconds": "soon"}, "line 2: 'soon' are no seconds"),
        ({"seconds": "-1"}, "line 2: '-1' are no seconds"),
        ({"annotator": ""}, "line 2: a value is missing"),
    ],
)
def test_a_wrong_line_of_a_log_is_named(corpus: Path, tmp_path: Path, changes, says):
    """Nothing of such a log is counted."""
    log = write_log(tmp_path, **changes)
    with pytest.raises(DataError, match=says):
        table_7.main([str(corpus), "--log", str(log), "--out", str(tmp_path / "o")])


@pytest.mark.parametrize("text", ["", "target_id,arm\n", "target_id,annotator,arm,seconds,mask\n"])
def test_a_log_without_rows_or_columns_says_what_it_needs(corpus: Path, tmp_path: Path, text):
    """And a folder is no log."""
    log = tmp_path / "log.csv"
    log.write_text(text)
    with pytest.raises(DataError, match="Columns: target_id,annotator"):
        table_7.main([str(corpus), "--log", str(log), "--out", str(tmp_path)])
    with pytest.raises(DataError, match="cannot be read as CSV"):
        table_7.main([str(corpus), "--log", str(tmp_path), "--out", str(tmp_path)])


def test_arms_without_a_common_target_cannot_be_compared(corpus: Path, tmp_path: Path):
    """An arm that nobody drew is named, with those that were."""
    log = write_log(tmp_path)
    with pytest.raises(DataError, match="no record of nobody"):
        table_7.main([str(corpus), "--log", str(log), "--after", "nobody", "--out", str(tmp_path)])


def test_effort_is_of_the_masks_that_a_run_selected(corpus: Path, tmp_path: Path):
    """The mean over subjects of what each saved mask leaves; a miss leaves the whole object."""
    told = ["--out", str(tmp_path), "--model", "fakes:Planted", "--jitter", "--limit", "6"]
    table_7_effort.main([str(corpus), *told])
    found = pl.read_csv(tmp_path / "table_7_effort.csv")
    row = found.filter(strategy="point1", selection="single", task="disc (CT)")
    folder = open_run(tmp_path / "runs" / "c-planted.run")
    records = folder.records().filter(strategy="point1", selection="single", object="disc")
    masks = folder.masks().filter(mask_index=0)
    joined = records.join(masks, on="prompt_id")
    by_hand = [
        correction_effort(
            from_rle(one["mask"]), phantom(int(one["image_id"].split("/")[1]))[1]["disc"]
        ).total
        for one in joined.iter_rows(named=True)
    ]

    assert len(by_hand) == 6
    assert row["value"].item() == pytest.approx(np.mean(by_hand))
    assert row["dice"].item() == pytest.approx(records["dice"].mean())
    assert found["task"].to_list()[0] == "all tasks"


def test_effort_without_masks_says_how_to_get_them(corpus: Path, tmp_path: Path):
    """A run that saved none."""
    plan = Plan(strategies=(STRATEGIES["box"],), selections=("single",), save_masks="none")
    opened = runs.open_corpus(corpus)
    folder = evaluate_into(tmp_path / "r.run", opened, {"fakes:box": fakes.box()}, plan)
    with pytest.raises(DataError, match="--save-masks selected"):
        table_7_effort.effort_of(folder.path)
