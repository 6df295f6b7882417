"""`promptseg finetune` as a user meets it: one command, a model that loads, clear errors."""

import json
from pathlib import Path

import pytest
from phantom import write_discs, write_phantoms
from test_cli import run

from promptseg.record import open_run
from promptseg.tuned import load_tuned
from promptseg.tuning.outcome import read_outcome

QUICK = (
    "--model", "tiny:make", "--epochs", "2", "--learning-rate", "0.01", "--augment", "none",
    "--overfit-steps", "0", "--val-share", "0", "--device", "cpu",
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep embeddings out of the user's cache."""
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def dark(tmp_path: Path) -> Path:
    """Write dark discs of six subjects."""
    write_discs(tmp_path / "dark.corpus", 12, grey=50)
    return tmp_path / "dark.corpus"


def test_one_command_trains_scores_and_reports(dark, tmp_path, capsys):
    """The model loads, both are scored on held-out subjects, the page and curves are there."""
    other = tmp_path / "other.corpus"
    write_phantoms(other, range(4))
    out = tmp_path / "taught"

    code, _, err = run(capsys, "finetune", dark, "--out", out, "--also", other, *QUICK)

    assert code == 0, err
    outcome = read_outcome(out)
    assert outcome.tasks == ["disc (CT)"]
    assert [len(outcome.steps), len(outcome.epochs)] == [10, 0]
    assert (out / "model" / "model.safetensors").stat().st_size > 4000
    model = load_tuned(out / "model", trust_base=True)
    assert (model.name, model.training.prompts) == ("taught", {"box"})
    runs = sorted((out / "before-after").glob("*.run"))
    assert [path.name for path in runs] == ["00-dark.run", "01-other.run"]
    held_out = open_run(runs[0]).records()
    assert set(held_out["model"]) == {"tiny", "taught"}
    assert held_out["subject"].n_unique() == outcome.n_subjects["test"] == 1
    assert set(open_run(runs[1]).records()["object"]) == {"disc", "bar"}
    assert "taught" in (out / "report.html").read_text()
    assert list((out / "log").glob("events.out.tfevents.*"))
    assert "passed  gradients" in err


def test_the_same_command_again_trains_nothing_anew(dark, tmp_path, capsys):
    """What is done is found, and the model comes out the same."""
    out = tmp_path / "taught"
    run(capsys, "finetune", dark, "--out", out, *QUICK)
    first = (out / "model" / "model.safetensors").read_bytes()

    code, _, err = run(capsys, "finetune", dark, "--out", out, *QUICK)

    assert code == 0
    assert "10 steps are there already" in err
    assert (out / "model" / "model.safetensors").read_bytes() == first


def test_json_tells_the_outcome(dark, tmp_path, capsys):
    """For scripts."""
    code, text, _ = run(capsys, "finetune", dark, "--out", tmp_path / "o", "--json", *QUICK)

    assert code == 0
    told = json.loads(text)
    assert told["settings"]["learning_rate"] == 0.01
    assert told["n_subjects"] == {"train": 5, "val": 0, "test": 1}


LINES = [
    (["--method", "full", "--cache"], "nothing can be cached"),
    (["--preset", "papers"], "No preset named 'papers'. Did you mean 'paper'"),
    (["--prompts", "boxes"], "No prompts named 'boxes'. Did you mean 'box'"),
    (["--test-subject", "nobody"], "no subject 'nobody'"),
    (["--where", "object = 'liver'"], "--where"),
    (["--split-by", "volume"], "subject or image"),
    (["--jitter", "far"], "Cannot read jitter"),
]


@pytest.mark.parametrize(("options", "line"), LINES)
def test_what_cannot_be_trained_is_one_line_and_exit_2(dark, tmp_path, capsys, options, line):
    """Nothing is written but what says why."""
    out = tmp_path / "out"

    code, _, err = run(capsys, "finetune", dark, "--out", out, *QUICK, *options)

    assert code == 2
    assert line in err
    assert err.strip().count("\n") == 0
    assert not (out / "model").exists()


def test_a_model_that_cannot_be_trained_is_one_line(dark, tmp_path, capsys):
    """A Segmenter without a network."""
    command = ["finetune", dark, "--out", tmp_path / "o", "--model", "fakes:reference"]

    code, _, err = run(capsys, *command)

    assert code == 2
    assert "reference cannot be trained: it has no network" in err


def test_a_corpus_without_subjects_is_one_line(tmp_path, capsys):
    """And says the two ways out."""
    write_phantoms(tmp_path / "c", range(6), subjects=None)

    code, _, err = run(capsys, "finetune", tmp_path / "c", "--out", tmp_path / "o", *QUICK)

    assert code == 2
    assert "--subject-pattern" in err
    assert "--split-by image" in err
