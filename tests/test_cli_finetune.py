"""`promptseg finetune` as a user meets it: one command, a model that loads, clear errors."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from phantom import write_discs, write_phantoms
from test_cli import run
from tiny import Tiny

from promptseg.contamination import declared
from promptseg.models import MODELS, published_hash
from promptseg.prompt import Everything
from promptseg.record import open_run
from promptseg.tuned import load_tuned, read_card
from promptseg.tuned.card import stages_of
from promptseg.tuning.outcome import read_outcome
from promptseg.tuning.result import unknown_weights
from promptseg.tuning.run import Job
from promptseg.tuning.settings import PRESETS
from promptseg.tuning.split import Division

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


def test_a_model_of_a_model_keeps_what_both_saw(dark, tmp_path, capsys, monkeypatch):
    """Who was trained on by the first is never held out as unseen by the second."""
    other, first = tmp_path / "other.corpus", tmp_path / "litemedsam-points"
    write_discs(other, 12, grey=170)
    run(capsys, "finetune", dark, "--out", first, *QUICK)
    told = json.loads((first / "model" / "model.json").read_text())
    told |= {"everything": {"points_per_side": 8}, "everything_source": "chosen here"}
    (first / "model" / "model.json").write_text(json.dumps(told))
    (tmp_path / "again.py").write_text(
        "from pathlib import Path\nfrom promptseg.tuned import load_tuned\n\ndef make():\n"
        f"    return load_tuned(Path({str(first / 'model')!r}), trust_base=True)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    seen = set(read_outcome(first).images)
    named = tmp_path / "out" / "litemedsam-points-tuned"
    second = ["--out", named, *QUICK, "--model", "again:make"]

    refused, _, err = run(
        capsys, "finetune", dark, *second, "--test-subject", "s0", "--test-subject", "s1"
    )
    code, _, text = run(capsys, "finetune", other, *second)

    assert refused == 2
    assert "A leak: litemedsam-points-tuned was itself fine-tuned on" in err
    assert code == 0, text
    folder = named / "model"
    card = read_card(folder)
    assert card.name == "litemedsam-points-tuned-tuned"
    assert [stage["name"] for stage in stages_of(card)] == ["litemedsam-points-tuned", card.name]
    assert declared("again:make", load_tuned(folder, trust_base=True)).images > seen
    assert card.everything == Everything(points_per_side=8)
    assert card.everything_source == "of litemedsam-points-tuned: chosen here"
    assert "## Data of models before" in (folder / "README.md").read_text()
    assert "before, as litemedsam-points-tuned: " in card.training_data


def by_torchrun(*command: object) -> subprocess.CompletedProcess[str]:
    """Start two processes as the help says."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [*start, "-m", "promptseg", *map(str, command)]
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, env=environment, capture_output=True, text=True)


def test_two_processes_of_torchrun_train_as_one(dark, tmp_path, capsys):
    """As the help says it: one model, one page, the losses and the best state of one process.

    Batches of three images, of which one process has two.
    """
    alone, together = tmp_path / "alone", tmp_path / "together"
    choosing = [*QUICK, "--val-share", "0.2", "--batch-size", "3"]
    choosing += ["--method", "both", "--lora-targets", r"mix\.fc.*"]
    run(capsys, "finetune", dark, "--out", alone, *choosing)

    done = by_torchrun("finetune", dark, "--out", together, *choosing)

    assert done.returncode == 0, done.stderr
    one, two = read_outcome(alone), read_outcome(together)
    assert (one.processes, two.processes) == (1, 2)
    assert two.steps == [pytest.approx(step, abs=1e-5) for step in one.steps]
    assert two.best_score == pytest.approx(one.best_score, abs=1e-4)
    assert (one.best_step, len(one.epochs)) == (two.best_step, len(two.epochs))
    scores = [[line["dice"] for line in side.epochs] for side in (one, two)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)
    assert done.stderr.count("passed  gradients") == 1
    assert (together / "report.html").is_file()


def test_one_process_without_memory_stops_both_and_leaves_a_model(dark, tmp_path):
    """The other one does not wait for it, and writes what was reached."""
    out = tmp_path / "taught"

    done = by_torchrun(
        "finetune", dark, "--out", out, *QUICK, "--model", "tiny:HungryAlone", "--epochs", "30"
    )

    assert done.returncode != 0
    assert "The memory is too small" in done.stderr
    assert f"is written to {out / 'model'}" in done.stderr
    assert load_tuned(out / "model", trust_base=True).name == "taught"


def test_weights_of_unknown_origin_are_said_to_be(tmp_path):
    """A checkpoint that was exported and loaded again has no card."""
    model = Tiny()
    made = Job(
        corpora=(), model=model, asked="litemedsam", name="t", settings=PRESETS["paper"],
        division=Division(), folder=tmp_path,
    )  # fmt: skip

    assert unknown_weights(made)[0]["data"] == [{"name": "not known", "licence": None}]
    model.weights_hash = published_hash(MODELS["litemedsam"])
    assert unknown_weights(made) == []


def test_a_training_that_stops_leaves_a_model(dark, tmp_path, capsys):
    """Hours of work are not lost to one NaN."""
    out = tmp_path / "taught"

    code, _, err = run(
        capsys, "finetune", dark, "--out", out, *QUICK, "--model", "tiny:Exploding",
        "--epochs", "30",
    )  # fmt: skip

    assert code == 2
    assert "NaN or infinite at images" in err
    assert "is written to" in err
    assert load_tuned(out / "model", trust_base=True).name == "taught"


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
