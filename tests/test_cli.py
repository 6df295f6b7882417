"""The command line as a user meets it: tables, exit codes, one line per error."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from phantom import phantom, write_phantoms
from PIL import Image

from promptseg import cli
from promptseg.models import MODELS


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Run a command in this process; return its exit code and what it printed."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as raised:
        cli.main([str(word) for word in words])
    printed = capsys.readouterr()
    code = raised.value.code
    return (code if isinstance(code, int) else 0), printed.out, printed.err


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Write twelve phantoms of six subjects."""
    return write_phantoms(tmp_path / "corpus", range(12), spacing_mm=0.5).path


def _rows(out: str) -> dict[tuple[str, str, str, str], dict[str, float]]:
    return {
        (row["model"], row["task"], row["strategy"], row["selection"]): row
        for row in json.loads(out)["rows"]
    }


def test_fakes_with_known_answers_give_the_expected_table(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The reference scores 1, nothing 0 with every mask empty, the box what geometry says."""
    models = [
        word for name in ("reference", "nothing", "box") for word in ("--model", f"fakes:{name}")
    ]
    code, out, _ = run(
        capsys, "evaluate", corpus, *models, "--strategy", "box", "--out", tmp_path / "r", "--json"
    )
    rows = _rows(out)
    bar = "bar (CT)", "box", "single"
    disc = "disc (CT)", "box", "single"
    boxes = [
        mask.any(0).sum() * mask.any(1).sum() for mask in (phantom(i)[1]["disc"] for i in range(12))
    ]
    areas = [phantom(i)[1]["disc"].sum() for i in range(12)]
    expected = np.mean([2 * a / (a + b) for a, b in zip(areas, boxes, strict=True)])

    assert code == 0
    assert len(rows) == 3 * 2 * 3
    assert {rows["reference", *t]["dice"] for t in (bar, disc)} == {1.0}
    assert {rows["reference", *t]["hd95_mm"] for t in (bar, disc)} == {0.0}
    assert {rows["nothing", *t]["dice"] for t in (bar, disc)} == {0.0}
    assert {rows["nothing", *t]["rate_empty"] for t in (bar, disc)} == {1.0}
    assert {rows["nothing", *t]["hd95_mm"] for t in (bar, disc)} == {None}
    assert rows["box", *bar]["dice"] == 1.0
    assert rows["box", *disc]["dice"] == pytest.approx(expected)
    assert rows["box", *disc]["n_subjects"] == 6


def test_a_model_that_raises_ends_with_exit_code_3_and_the_reason(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Done with failed samples: counted, listed, and in the records."""
    code, out, err = run(
        capsys, "evaluate", corpus, "--model", "fakes:raises", "--out", tmp_path / "r"
    )
    records = pl.read_parquet(tmp_path / "r/records/*.parquet")

    assert code == 3
    assert "failed on 12 images: the model raised RuntimeError: planted failure" in err
    assert records["outcome"].unique().to_list() == ["failed"]
    assert "Traceback" not in err + out


def test_the_whole_way_from_a_folder_to_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """curate, evaluate, report, each by its command, on files as a user has them."""
    for kind in ("images", "masks"):
        (tmp_path / "raw" / kind).mkdir(parents=True)
    for index in range(6):
        image, masks = phantom(index)
        labels = np.zeros(image.shape, dtype=np.uint8)
        for value, mask in enumerate(masks.values(), start=1):
            labels[mask] = value
        Image.fromarray(image).save(tmp_path / f"raw/images/p{index // 2}_{index}.png")
        Image.fromarray(labels).save(tmp_path / f"raw/masks/p{index // 2}_{index}.png")
    (tmp_path / "raw/labels.json").write_text('{"1": "disc", "2": "bar"}')
    corpus, a_run, page = tmp_path / "corpus", tmp_path / "run", tmp_path / "report.html"
    curated = run(
        capsys, "curate", tmp_path / "raw", "--out", corpus, "--modality", "CT",
        "--subject-pattern", "(p[0-9]+)_", "--spacing", "0.5,0.5",
    )  # fmt: skip
    evaluated = run(capsys, "evaluate", corpus, "--model", "fakes:reference", "--out", a_run)
    reported = run(capsys, "report", a_run, "--out", page)
    records = pl.read_parquet(a_run / "records/*.parquet")

    assert (curated[0], evaluated[0], reported[0]) == (0, 0, 0)
    assert "disc (CT)" in curated[1]
    assert "1.000" in evaluated[1]
    assert page.stat().st_size > 10_000
    assert sorted(records["subject"].unique()) == ["p0", "p1", "p2"]
    assert records["distance_unit"].unique().to_list() == ["mm"]


def test_segment_writes_the_mask_of_one_prompt(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The smallest useful thing, from file to file."""
    image, masks = phantom(0)
    Image.fromarray(image).save(tmp_path / "image.png")
    code, out, _ = run(
        capsys, "segment", tmp_path / "image.png", "--model", "fakes:reference",
        "--box", "10,8,40,34", "--out", tmp_path / "mask.png", "--json",
    )  # fmt: skip

    assert code == 0
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "mask.png")) > 0, masks["disc"])
    assert json.loads(out)["area_px"] == masks["disc"].sum()


def test_models_are_listed_and_shown(capsys: pytest.CaptureFixture[str]):
    """As a table, and as JSON for scripts."""
    listed = json.loads(run(capsys, "models", "--json")[1])
    shown = run(capsys, "models", "show", "litemedsam")[1]

    assert [card["name"] for card in listed] == sorted(MODELS)
    assert "Apache-2.0" in shown
    assert "box" in run(capsys, "models")[1]


@pytest.mark.real
def test_pull_prints_where_the_weights_are(
    litemedsam_weights: Path, capsys: pytest.CaptureFixture[str]
):
    """So that a script can pass the path on."""
    assert run(capsys, "models", "pull", "litemedsam")[1].strip() == str(litemedsam_weights)


EVALUATE = "evaluate {corpus} --out {tmp}/r --model fakes:box"
CURATE = "curate {tmp}/raw --out {tmp}/c --modality CT"
OUT = "--out {tmp}/r"
MASKS = "evaluate {corpus} --masks {tmp}"
SEGMENT = "segment {tmp}/ok.png --model fakes:box --out {tmp}/m.png"
ERRORS = [
    ("unknown model", "evaluate {corpus} --model litemedsm --out {tmp}/r", "mean 'litemedsam'"),
    ("unknown strategy", f"{EVALUATE} --strategy bx", "Did you mean 'box'"),
    ("unknown unit", f"{EVALUATE} --unit klass", "Did you mean 'class'"),
    ("unknown dtype", f"{EVALUATE} --dtype float8", "No dtype named"),
    ("unknown device", f"{EVALUATE} --device tpu9", "try --device cpu"),
    ("no corpus", "evaluate {tmp}/none --model fakes:box --out {tmp}/r", "no folder"),
    ("output is a file", "evaluate {corpus} --model fakes:box --out {tmp}/file", "is not a run"),
    ("missing weights", "evaluate {corpus} --weights {tmp}/no.pth --out {tmp}/r", "no weight file"),
    ("broken weights", "evaluate {corpus} --weights {tmp}/file --out {tmp}/r", "refused"),
    ("weights for two", f"{EVALUATE} --model fakes:slow --weights x", "one --model"),
    ("one name twice", f"{EVALUATE} --model fakes:twin", "one name"),
    ("no run", "report {tmp}/none --out {tmp}/r.html", "does not exist"),
    ("report's suffix", "report {tmp}/none --out {tmp}/r.pdf", "has to end in .html"),
    ("no folder", "curate {tmp}/none --out {tmp}/c --modality CT", "none"),
    ("no modality", "curate {tmp}/raw --out {tmp}/c", "--modality"),
    ("no images", "curate {corpus} --out {tmp}/c --modality CT", "images"),
    ("output not empty", "curate {tmp}/raw --out {tmp} --modality CT", "not empty"),
    ("bad spacing", f"{CURATE} --spacing 1mm", "expected Y,X"),
    ("negative spacing", f"{CURATE} --spacing=-1,1", "positive"),
    ("bad plane", f"{CURATE} --plane axal", "Did you mean 'axial'"),
    ("bad pattern", f"{CURATE} --subject-pattern (", "--subject-pattern"),
    ("no image", "segment {tmp}/no.png --box 0,0,9,9 --out {tmp}/m.png", "no.png"),
    ("no picture", "segment {tmp}/file --box 0,0,9,9 --out {tmp}/m.png", "file"),
    ("truncated image", "segment {tmp}/cut.png --box 0,0,9,9 --out {tmp}/m.png", "cut.png"),
    ("box outside", f"{SEGMENT} --box 0,0,999,9", "outside the image"),
    ("empty box", f"{SEGMENT} --box 9,9,9,20", "is empty"),
    ("no prompt", SEGMENT, "--box"),
    ("mask's suffix", "segment {tmp}/ok.png --box 0,0,9,9 --out {tmp}/m.jpg", "end in .png"),
    (
        "mask over image",
        "segment {tmp}/ok.png --box 0,0,9,9 --out {tmp}/ok.png",
        "the image itself",
    ),
    ("own weights", f"{EVALUATE} --weights {{tmp}}/file", "a model of your own"),
    ("own dtype", f"{EVALUATE} --dtype float16", "a model of your own"),
    ("run below a file", "evaluate {corpus} --model fakes:box --out {tmp}/file/r", "Cannot write"),
    ("words for cases", "report {tmp}/none --out {tmp}/r.html --cases -3", "nor all nor none"),
    ("endless cases", "report {tmp}/none --out {tmp}/r.html --cases " + 5000 * "9", "nor none"),
    ("report below a file", "report {tmp}/none --out {tmp}/file/r.html", "does not exist"),
    ("corpus below a file", "curate {tmp}/raw --out {tmp}/file/c --modality CT", "Cannot write"),
    ("device of no use", f"{EVALUATE} --device meta", "try --device cpu"),
    ("unknown protocol", f"{EVALUATE} --protocol papr", "Did you mean 'paper'"),
    ("bad jitter", f"{EVALUATE} --jitter shift:10-20", "expected MODE:UNIT:LO-HI"),
    ("idle jitter", f"{EVALUATE} --jitter centre:px:1-2", "moves nothing"),
    ("bad threshold", f"{EVALUATE} --strategy everything --pred-iou-thresh 88", "between 0 and 1"),
    ("idle threshold", f"{EVALUATE} --box-nms-thresh 0.5", "not asked for"),
    ("no such split", f"{EVALUATE} --split test", "split"),
    ("bad condition", f"{EVALUATE} --where areapx>3", "areapx"),
    ("nothing left", f"{EVALUATE} --where area_px>99999", "leaves nothing"),
    ("masks and model", f"{EVALUATE} --masks {{tmp}}/raw", "cannot go with --masks"),
    (
        "masks and protocol",
        f"evaluate {{corpus}} --masks {{tmp}}/raw --protocol released {OUT}",
        "--protocol",
    ),
    ("masks and grid", f"{MASKS}/raw --pred-iou-thresh 0 {OUT}", "iou"),
    ("model and labels", f"{EVALUATE} --labels {{tmp}}/file", "--labels cannot go with a model"),
    ("no threshold", f"{MASKS}/named --threshold nan {OUT}", "--threshold nan"),
    ("idle seeds", f"{EVALUATE} --seed 1 --seed 2", "need a jitter"),
    ("idle grid", f"{SEGMENT} --box 0,0,9,9 --points-per-side 8", "--everything"),
    ("grid and box", f"{SEGMENT} --box 0,0,9,9 --everything", "leave out --box"),
    ("no masks", "evaluate {corpus} --masks {tmp}/none --out {tmp}/r", "none"),
    ("unknown to check", "models check no.such:model", "Cannot import"),
    ("unknown to show", "models show litemedsan", "Did you mean 'litemedsam'"),
    ("unknown to pull", "models pull sam", "No model named"),
]


@pytest.mark.parametrize(("command", "told"), [e[1:] for e in ERRORS], ids=[e[0] for e in ERRORS])
def test_what_cannot_start_is_one_line_and_exit_code_2(
    command: str, told: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Each line says what was wrong and what to do; none is a traceback."""
    Image.fromarray(phantom(0)[0]).save(tmp_path / "ok.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "ok.png").read_bytes()[:90])
    (tmp_path / "file").write_text("not a picture, not a run, not a weight file")
    (tmp_path / "raw/images").mkdir(parents=True)
    (tmp_path / "raw/images/a.png").write_bytes((tmp_path / "ok.png").read_bytes())
    (tmp_path / "raw/masks").mkdir()
    (tmp_path / "named").mkdir()
    Image.fromarray(phantom(0)[1]["disc"]).save(tmp_path / "named/0000_disc.png")
    Image.fromarray(phantom(0)[1]["disc"]).save(tmp_path / "raw/masks/a.png")
    code, _, err = run(capsys, *command.format(corpus=corpus, tmp=tmp_path).split())
    lines = [line for line in err.splitlines() if line.strip()]

    assert code == 2
    assert lines[-1].startswith("promptseg: ")
    assert told in lines[-1]
    assert "Traceback" not in err


def test_a_folder_of_another_run_is_refused_and_left_alone(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The line names the setting that differs; the old records stay."""
    command = ("evaluate", corpus, "--model", "fakes:box", "--out", tmp_path / "r")
    assert run(capsys, *command)[0] == 0
    before = (tmp_path / "r/records/part-00000.parquet").read_bytes()
    code, _, err = run(capsys, *command, "--seed", 5)

    assert code == 2
    assert "seeds was [0] and is [5]" in err
    assert (tmp_path / "r/records/part-00000.parquet").read_bytes() == before


def test_a_profile_is_told_kept_and_in_the_json(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Where the time went, on standard error; without the option there is none of it."""
    command = ("evaluate", corpus, "--model", "fakes:reference", "--json", "--out")
    code, out, err = run(capsys, *command, tmp_path / "r", "--profile")
    told = json.loads(out)["profile"]
    stages = {line["stage"]: line for line in told["stages"]}

    assert code == 0
    assert {"loading", "reading", "embedding", "decoding", "scoring", "writing"} <= set(stages)
    assert stages["embedding"]["calls"] == told["images"] > 0
    assert "ms/prompt" in err
    assert "cores busy" in err
    assert json.loads((tmp_path / "r/profile.json").read_bytes()) == told

    code, out, err = run(capsys, *command, tmp_path / "plain")
    assert (code, "profile" in json.loads(out), "cores busy" in err) == (0, False, False)
    assert not (tmp_path / "plain/profile.json").exists()


def test_help_loads_nothing_heavy():
    """`--help` has to be quick: it may import neither torch nor arrays nor readers."""
    code = (
        "import sys; sys.argv = ['promptseg', '--help']\n"
        "from promptseg.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'transformers', 'pyarrow', 'polars', 'scipy', 'PIL'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    environment = {**os.environ, "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )

    assert "promptseg demo" in done.stdout
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    "verb", ["", "demo", "models", "models show", "curate", "evaluate", "report", "segment"]
)
def test_every_verb_has_help_that_teaches(verb: str, capsys: pytest.CaptureFixture[str]):
    """A page each, with its exit code 0."""
    code, out, _ = run(capsys, *verb.split(), "--help")

    assert code == 0
    assert len(out.splitlines()) > 6


def test_an_interruption_says_that_the_same_command_goes_on(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Ctrl-C is no accident: one line, no traceback, and the next run finishes the work."""
    command = ("evaluate", corpus, "--out", tmp_path / "r", "--model")
    code, _, err = run(capsys, *command, "fakes:interrupted")
    assert (code, "Traceback" in err) == (130, False)
    assert "The same command goes on" in err
    assert len(list((tmp_path / "r/records").iterdir())) == 2

    assert run(capsys, *command, "fakes:patient")[0] == 0
