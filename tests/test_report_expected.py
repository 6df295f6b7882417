"""What the report and the command line say of what to expect, on runs whose answer is planted."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from phantom import write_phantoms
from test_cli import run
from test_expectation import MODEL, run_of
from test_report import Tags, page, text_of
from test_report_studies import studied

from promptseg.expectation import fit
from promptseg.pixels import encode_image
from promptseg.report import write_report
from promptseg.report.expected import _end


def section(text: str) -> str:
    """Take what the section says."""
    return text.split("What to expect", 2)[2].split("All numbers by task")[0]


def test_what_to_expect_is_said_with_an_interval_and_its_error(tmp_path):
    """DICE rises by 0.4 with contrast: kinds of low and of high contrast are told apart."""
    html = page(tmp_path, studied(tmp_path / "r", effect=0.4, subjects=16))
    told = section(text_of(html))

    assert "For objects like these" in told
    assert "low contrast" in told
    assert "high contrast" in told
    assert "(90 % of such targets 0." in told
    assert "better than the mean" in told
    assert "Calibration on held-out subjects" in told
    assert "doi:10.1214/20-AOS1965" in text_of(html)


def test_the_better_prompt_is_advised_where_it_is_clearly_better(tmp_path):
    """A box whose DICE is higher by 0.2 than a point's."""
    box = studied(tmp_path / "box", effect=0.4, subjects=12)
    point = studied(tmp_path / "point", effect=0.4, subjects=12, strategy="point1")
    worse = point.records().with_columns(dice=point.records()["dice"] - 0.2)
    worse.write_parquet(point.path / "records" / "part-00000.parquet")
    told = section(text_of(page(tmp_path, box, point)))
    same = studied(tmp_path / "same", effect=0.4, subjects=12, strategy="points5")
    even = section(text_of(page(tmp_path, box, same)))

    assert "less from point1 / single (0." in told
    assert " Use box / single." in told
    assert "No prompt is better by 0.05." in even
    assert "about as much from" in even
    assert " Use " not in even


def test_where_attributes_do_not_tell_it_says_that(tmp_path):
    """DICE that depends on nothing."""
    told = section(text_of(page(tmp_path, studied(tmp_path / "r"))))

    assert "does not tell DICE better than the mean of other subjects" in told
    assert "for box / single (0.70)." in told or "for box / single (0.69)." in told
    assert "For objects like these" not in told


def test_few_subjects_have_the_reason_in_its_place(tmp_path):
    """Four of them."""
    told = section(text_of(page(tmp_path, studied(tmp_path / "r", effect=0.4, subjects=4))))

    assert (
        "Nothing is expected of box / single: 4 subjects are too few to learn from: at least 5."
        in told
    )


@pytest.mark.parametrize("settings", [{"off_protocol": True}, {"described": False}])
def test_off_protocol_runs_and_runs_without_attributes_have_no_such_section(tmp_path, settings):
    """Nobody should use them, or nothing is known."""
    html = page(tmp_path, studied(tmp_path / "r", effect=0.4, **settings))

    assert 'id="expect"' not in html


def test_the_page_stays_whole(tmp_path):
    """Tags are balanced, ids come once."""
    tags = Tags(page(tmp_path, studied(tmp_path / "r", effect=0.4)))
    ids = [attributes["id"] for _, attributes in tags.found if "id" in attributes]

    assert len(ids) == len(set(ids))
    assert not tags.open


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> Path:
    """Evaluate a model on phantoms of 24 images and 12 subjects, with boxes and points."""
    path = tmp_path_factory.mktemp("evaluated")
    return run_of(write_phantoms(path / "corpus", range(24), subjects=12), path / "r").path


def test_a_predictor_is_written_beside_the_report_and_asked_by_segment(
    evaluated: Path, tmp_path, capsys: pytest.CaptureFixture[str]
):
    """The file of `report --predictor` goes to `segment --expect`."""
    file, picture, mask = (tmp_path / name for name in ("p.json", "i.png", "m.png"))
    code, _, _ = run(capsys, "report", evaluated, "--out", tmp_path / "r.html", "--predictor", file)
    image = np.full((64, 80), 40, np.uint8)
    image[11:30, 15:34] = 150
    picture.write_bytes(encode_image(image))
    asked = ("segment", picture, "--model", "test_report_expected:sized", "--expect", file)
    _, out, _ = run(capsys, *asked, "--box", "15,11,34,30", "--out", mask)
    _, as_json, _ = run(capsys, *asked, "--box", "0,0,80,64", "--out", mask, "--json")
    told = json.loads(as_json)["expected_dice"]

    assert code == 0
    assert "DICE" in out
    assert told["value"] is None
    assert told["reason"]
    assert "After the answer" in text_of((tmp_path / "r.html").read_text()) or (
        "Answers do not tell" in text_of((tmp_path / "r.html").read_text())
    )


def sized():
    """Make the model of the run."""
    return MODEL


def other():
    """Make a model of its name with other weights."""
    return dataclasses.replace(MODEL, weights_hash="9" * 64)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--model", "test_report_expected:other"), "not of sized with these weights"),
        (("--modality", "CT"), None),
    ],
)
def test_other_weights_are_one_clear_line(
    evaluated: Path, tmp_path, capsys: pytest.CaptureFixture[str], words, message
):
    """Exit code 2, before anything is segmented; the modality is taken as said."""
    from promptseg.expectation import write_predictor
    from promptseg.record import open_run

    write_predictor(tmp_path / "p.json", fit([open_run(evaluated)], kinds=("planning",)))
    picture = tmp_path / "i.png"
    picture.write_bytes(encode_image(np.full((64, 80), 40, np.uint8)))
    model = () if "--model" in words else ("--model", "test_report_expected:sized")
    code, out, err = run(
        capsys, "segment", picture, "--box", "15,11,34,30", "--out", tmp_path / "m.png",
        "--expect", tmp_path / "p.json", *model, *words,
    )  # fmt: skip

    if message:
        assert (code, out) == (2, "")
        assert message in err
        assert not (tmp_path / "m.png").exists()
    else:
        assert code == 0
        assert "is not among the prompts that were learnt from" in out


@pytest.mark.parametrize(
    "words",
    [
        ("segment", "i.png", "--out", "m.png", "--box", "0,0,1,1", "--modality", "CT"),
        ("segment", "i.png", "--out", "m.png", "--everything", "--expect", "p.json"),
        ("report", "r", "--out", "r.html", "--predictor", "p.txt"),
    ],
)
def test_options_that_do_not_go_together_are_refused(words, capsys):
    """One line each."""
    code, _, err = run(capsys, *words)

    assert code == 2
    assert "Traceback" not in err


def test_a_report_tells_of_answers_only_with_a_predictor(evaluated: Path, tmp_path):
    """Without one no image is described."""
    from promptseg.record import open_run

    folder = open_run(evaluated)
    plain = write_report([folder], tmp_path / "a.html").read_text()
    whole = write_report([folder], tmp_path / "b.html", predictor=fit([folder])).read_text()

    assert "<small>after the answer</small>" not in plain
    assert "<small>after the answer</small>" in whole


def test_importing_the_package_loads_no_expectation():
    """It is loaded where it is used."""
    code = "import promptseg, sys; print([n for n in sys.modules if 'expectation' in n])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("near", "some_are_worse", "says"),
    [
        (("box+point", "points5"), True, " Use box, box+point or points5."),
        ((), True, " Use box."),
        (("points5",), False, " No prompt is better by "),
        ((), False, ""),
    ],
)
def test_advice_names_the_prompts_to_use(near, some_are_worse, says):
    """Not by their place in a list that the reader has to count."""
    assert _end("box", near, some_are_worse).startswith(says)
