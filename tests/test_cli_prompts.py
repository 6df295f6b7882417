"""Everything, jitter, protocols, subsets and masks of other tools, as a user meets them."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from medpy.metric import binary as medpy
from phantom import phantom
from PIL import Image
from test_cli import corpus, run

from promptseg.record import open_run
from promptseg.strategy import STRATEGIES

__all__ = ["corpus"]  # a fixture


def test_all_six_strategies_with_jitter_seeds_and_a_subset_through_the_command_line(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """One command, every kind of record, and the report tells what was chosen."""
    out = tmp_path / "r"
    command = [
        "evaluate", corpus, "--model", "fakes:planted", "--strategy", "all",
        "--jitter", "shift:px:1-3", "--jitter", "centre:rel:0.1-0.2", "--seed", "0", "--seed", "1",
        "--points-per-side", "8", "--pred-iou-thresh", "0.2", "--where", "area_px > 300",
        "--per-task", "3", "--out", out,
    ]  # fmt: skip
    code, _, err = run(capsys, *command)
    records = open_run(out).records()

    assert code == 0
    assert "Subset: " in err
    assert set(records["strategy"].unique()) == set(STRATEGIES)
    assert records.group_by("task").agg(pl.col("target_id").n_unique())["target_id"].max() <= 3
    levels = records.group_by("strategy", "jitter_mode").agg(pl.col("seed").n_unique())
    seeds = {(strategy, mode): n for strategy, mode, n in levels.iter_rows()}
    assert seeds["box", "shift"] == seeds["box+point", "centre"] == 2
    assert seeds["box", None] == seeds["everything", None] == 1
    assert ("point1", "shift") not in seeds
    code, _, _ = run(capsys, "report", out, "--out", tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert code == 0
    for told in ("Under jitter", "Subset (where area_px &gt; 300; per task 3; seed 0)", "survived"):
        assert told in page
    code, _, err = run(capsys, *command)
    assert code == 0
    assert "are there already" in err


def test_the_released_protocol_fails_where_the_released_code_stops(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Same strategies, other rule; it stands in the records, and a comparison tells them apart."""
    for protocol in ("paper", "released"):
        code, _, _ = run(
            capsys, "evaluate", corpus, "--model", "fakes:planted", "--strategy", "points5+5",
            "--protocol", protocol, "--out", tmp_path / protocol,
        )  # fmt: skip
        assert code == 0
    records = [open_run(tmp_path / name).records() for name in ("paper", "released")]
    wrong = records[1].filter(selection="single")

    assert [set(r["protocol"].unique()) for r in records] == [{"paper"}, {"released"}]
    assert set(wrong["n_positive"]) == {5}
    assert records[0]["prompt_id"].is_in(records[1]["prompt_id"].implode()).sum() == 0
    run(capsys, "report", tmp_path / "paper", tmp_path / "released", "--out", tmp_path / "r.html")
    assert "released protocol" in (tmp_path / "r.html").read_text()


def _label_maps(folder: Path, count: int) -> None:
    folder.mkdir()
    for index in range(count):
        _, masks = phantom(index)
        values = masks["disc"] * 1 + masks["bar"] * 2
        Image.fromarray(values.astype(np.uint8)).save(folder / f"{index:04d}.png")
    (folder / "labels.json").write_text('{"1": "disc", "2": "bar"}')


def test_masks_of_another_tool_are_scored_and_a_lost_file_is_a_miss(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """A reference fed back has DICE 1 everywhere; of twelve images eleven have a file."""
    _label_maps(tmp_path / "network", 11)
    out = tmp_path / "r"
    code, _, err = run(capsys, "evaluate", corpus, "--masks", tmp_path / "network", "--out", out)
    records = open_run(out).records()
    missed = records.filter(outcome="miss")

    assert code == 0
    assert set(records["model"]) == {"network"}
    assert set(records["strategy"]) == {"masks"}
    assert set(records["selection"]) == {"single"}
    assert records.filter(outcome="ok")["dice"].to_list() == [1.0] * 22
    assert missed["reason"].to_list() == ["no prediction file"] * 2
    assert missed["dice"].to_list() == [0.0] * 2
    told = "network has no mask for 2 of 24 targets, which count as DICE 0: 2 × no prediction file."
    assert told in " ".join(err.split())
    code, _, _ = run(capsys, "evaluate", corpus, "--model", "fakes:box", "--out", tmp_path / "b")
    run(capsys, "report", out, tmp_path / "b", "--out", tmp_path / "r.html")
    assert "Masks of other tools" in (tmp_path / "r.html").read_text()


def test_everything_without_a_survivor_says_so_in_one_line(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Thresholds that do not suit the model: a miss, and a hint."""
    code, _, err = run(
        capsys, "evaluate", corpus, "--model", "fakes:planted", "--strategy", "everything",
        "--points-per-side", "4", "--pred-iou-thresh", "0.99", "--out", tmp_path / "r",
    )  # fmt: skip
    told = [line for line in " ".join(err.split()).split(". ") if "no mask survived" in line]

    assert code == 0
    assert len(told) == 1
    assert "12 of 12 images" in told[0]


def test_models_check_says_what_fails_and_exits_with_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The box fake keeps the contract; one whose answer no box can move does not."""
    code, printed, _ = run(capsys, "models", "check", "fakes:box")
    assert code == 0
    assert "keeps the contract" in printed
    code, printed, _ = run(capsys, "models", "check", "fakes:planted", "--json")
    checks = {check["name"]: check["outcome"] for check in json.loads(printed)["checks"]}
    assert code == 3
    assert [name for name, outcome in checks.items() if outcome == "failed"] == [
        "reaction to box",
        "reaction to box+points",
    ]


def test_shifted_predictions_get_the_numbers_of_medpy(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The same masks and spacing through medpy: DICE, Jaccard, Hausdorff, directed distances."""
    folder = tmp_path / "shifted"
    folder.mkdir()
    for index in range(12):
        _, masks = phantom(index)
        for name, mask in masks.items():
            moved = np.roll(mask, (index % 4, -3), axis=(0, 1))
            Image.fromarray(moved).save(folder / f"{index:04d}_{name}.png")
    code, _, _ = run(capsys, "evaluate", corpus, "--masks", folder, "--out", tmp_path / "r")
    records = open_run(tmp_path / "r").records()

    assert code == 0
    assert records.height == 24
    for record in records.iter_rows(named=True):
        index = int(record["image_id"].rpartition("/")[2])
        reference = phantom(index)[1][record["object"]]
        pred = np.roll(reference, (index % 4, -3), axis=(0, 1))
        there = medpy.asd(pred, reference, voxelspacing=0.5)
        back = medpy.asd(reference, pred, voxelspacing=0.5)

        assert record["dice"] == pytest.approx(medpy.dc(pred, reference))
        assert record["jaccard"] == pytest.approx(medpy.jc(pred, reference))
        assert record["hd"] == pytest.approx(medpy.hd(pred, reference, voxelspacing=0.5))
        assert record["asd"] == pytest.approx(there)
        assert record["assd"] == pytest.approx((there + back) / 2)
        assert record["distance_unit"] == "mm"


def test_instances_of_another_tool_are_matched_by_dice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """By instance the best prediction of the object counts: `oracle`; numbers need not agree."""
    (tmp_path / "raw/images").mkdir(parents=True)
    (tmp_path / "raw/masks").mkdir()
    (tmp_path / "net").mkdir()
    cells = np.zeros((60, 60), dtype=np.uint8)
    for number in range(4):
        cells[4 + 12 * number : 14 + 12 * number, 5:25] = number + 1
    Image.fromarray(np.full((60, 60), 90, dtype=np.uint8)).save(tmp_path / "raw/images/a.png")
    Image.fromarray(cells).save(tmp_path / "raw/masks/a.png")
    turned = np.where((cells > 0) & (cells < 4), 4 - cells, 0).astype(np.uint8)
    Image.fromarray(turned).save(tmp_path / "net/a.png")
    words = ("--modality", "Microscopy", "--object", "cell", "--instances")
    run(capsys, "curate", tmp_path / "raw", "--out", tmp_path / "c", *words)
    code, _, _ = run(
        capsys, "evaluate", tmp_path / "c", "--masks", tmp_path / "net", "--instances",
        "--unit", "instance", "--out", tmp_path / "r",
    )  # fmt: skip
    records = open_run(tmp_path / "r").records().sort("target_id")

    assert code == 0
    assert set(records["selection"]) == {"oracle"}
    assert records["dice"].to_list() == [1.0, 1.0, 1.0, 0.0]
    assert set(records["outcome"]) == {"ok"}


def test_a_prediction_that_cannot_be_read_is_failed_and_not_a_miss(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Exit code 3 with the reason; the object whose file is whole keeps its score."""
    folder = tmp_path / "net"
    folder.mkdir()
    for index in range(12):
        for name, mask in phantom(index)[1].items():
            Image.fromarray(mask).save(folder / f"{index:04d}_{name}.png")
    (folder / "0003_disc.png").write_bytes(b"\x89PNG")
    code, _, err = run(capsys, "evaluate", corpus, "--masks", folder, "--out", tmp_path / "r")
    failed = open_run(tmp_path / "r").records().filter(outcome="failed")
    told = " ".join(err.split())

    assert code == 3
    assert failed["target_id"].to_list() == ["phantom/0003#disc"]
    assert "0003_disc.png: it cannot be read" in failed["reason"][0]
    assert "evaluate them into another --out" in told
    assert "--retry-failed" not in told
