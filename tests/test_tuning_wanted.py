"""What is trained on where only some targets are wanted, and what several processes tell."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from phantom import write_discs, write_phantoms
from test_cli import run as command
from test_tuning import QUICK, job, run
from tiny import Tiny

from promptseg.cli.training import show_training
from promptseg.errors import DataError, ModelError
from promptseg.tuning import judge, validation
from promptseg.tuning import run as running
from promptseg.tuning.frozen import frozen_stages
from promptseg.tuning.items import Source
from promptseg.tuning.run import Job, make_accelerator, split_of
from promptseg.tuning.settings import Settings
from promptseg.tuning.split import Division
from promptseg.tuning.state import alone
from promptseg.tuning.training import identity_of

ONCE = replace(QUICK, epochs=1, overfit_steps=0)
OPTIONS = (
    "--model", "tiny:make", "--epochs", "2", "--learning-rate", "0.01", "--augment", "none",
    "--overfit-steps", "0", "--device", "cpu",
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep embeddings out of the user's cache."""
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path / "cache"))


def kept_bytes(tmp_path: Path) -> int:
    """Measure what lies in the cache, without the heads of its files."""
    files = (tmp_path / "cache" / "embeddings").glob("*/*.npy")
    return sum(np.load(file).nbytes for file in files)


def two_corpora(tmp_path: Path, where: str | None, **division: Any) -> Job:
    """Make a job of dark and of bright discs, of which a condition may want one kind only."""
    corpora = tuple(write_discs(tmp_path / f"{g}.corpus", 12, grey=g) for g in (50, 170))
    task = job(Tiny(), corpora[0], tmp_path / "out", replace(ONCE, where=where), **division)
    return replace(task, corpora=corpora)


def test_a_corpus_without_a_wanted_target_is_tested_only(tmp_path):
    """It is no error, it is not said to be trained on, and its subjects are held out as others."""
    outcome, _ = run(two_corpora(tmp_path, "dataset = 'discs50'"))

    # of six subjects each: one held out, one chooses, of the wanted ones only
    assert outcome.n_subjects == {"train": 4, "val": 1, "test": 2}
    assert outcome.n_images == {"train": 8, "val": 2, "test": 4}
    assert outcome.n_targets == {"train": 8, "val": 2}
    assert outcome.left_out == {"it has no target that --where leaves": 10}
    assert len(outcome.images) == 10
    assert outcome.cache_bytes == kept_bytes(tmp_path) > 0


def test_a_condition_that_nothing_fulfils_is_one_line(tmp_path):
    """In no corpus; and a condition that is none."""
    with pytest.raises(DataError, match=r"leaves no target\. Loosen it"):
        run(two_corpora(tmp_path, "object = 'liver'"))
    with pytest.raises(DataError, match="is no condition"):
        run(replace(two_corpora(tmp_path / "b", "organ = 'liver'"), folder=tmp_path / "o"))


def test_a_named_split_without_a_wanted_target_is_one_line(tmp_path):
    """The corpus's own training split has none of what is asked for."""
    split = (["train"] * 4 + ["val"] + ["test"]) * 2
    corpus = write_discs(tmp_path / "c", 12, grey=50, split=split)
    names = "', '".join(f"discs50/{i:04d}" for i in range(12) if split[i] != "train")
    settings = replace(ONCE, where=f"image_id IN ('{names}')")

    with pytest.raises(DataError, match="None of the 8 images of the train split can be used"):
        run(job(Tiny(), corpus, tmp_path / "out", settings))


def test_those_who_choose_have_a_wanted_target(tmp_path):
    """Whoever is drawn: a third of the subjects has one."""
    corpus = write_discs(tmp_path / "c", 18, grey=50, subjects=18)
    names = "', '".join(f"s{i}" for i in range(0, 18, 3))
    settings = replace(ONCE, where=f"subject IN ('{names}')")

    for seed in range(8):
        split = split_of(job(Tiny(), corpus, tmp_path / "o", settings, seed=seed))
        wanted = set(names.split("', '"))
        assert {owner for _, owner in split.owners("val")} < wanted
        assert {owner for _, owner in split.owners("train")} < wanted
        assert len(split.owners("test")) == 4


def test_subjects_without_any_target_are_in_no_role(tmp_path):
    """Where images are divided each is one: a black slice would be held out for nothing."""
    corpus = write_discs(tmp_path / "c", 12, grey=50, subjects=12, empty=6)

    split = split_of(job(Tiny(), corpus, tmp_path / "o", ONCE))

    assert sum(len(split.owners(role)) for role in ("train", "val", "test")) == 6
    assert split.left_out == {"it has no target": 6}


def test_a_curve_is_scored_in_what_is_trained_on(tmp_path, capsys):
    """The bar is in every image, and no training knows it."""
    write_phantoms(tmp_path / "c.corpus", range(12), subjects=12)
    out = tmp_path / "out"

    code, text, err = command(
        capsys, "finetune", tmp_path / "c.corpus", "--out", out, "--where", "object = 'disc'",
        "--curve", "2,all", "--repeats", "1", "--json", *OPTIONS,
    )  # fmt: skip

    assert code == 0, err
    told = json.loads(text)
    assert (told["tasks"], told["others"]) == (["disc (CT)"], ["bar (CT)"])
    html = (out / "curve.html").read_text()
    assert "Not trained on, and in no number here: bar (CT)." in html


def test_a_curve_that_another_process_trains_is_left_alone(tmp_path, capsys):
    """Its models would be deleted under it."""
    write_discs(tmp_path / "c.corpus", 12, grey=50, subjects=12)
    out = tmp_path / "out"

    with alone(out / "curve" / "base", writes=True):
        code, _, err = command(
            capsys, "finetune", tmp_path / "c.corpus", "--out", out, "--curve", "2,all", *OPTIONS
        )

    assert code == 2
    assert "Another process trains into" in err


def test_nobody_else_writes_while_a_training_is_scored(tmp_path, monkeypatch):
    """A job that is queued again would write the same runs."""
    corpus = write_discs(tmp_path / "c.corpus", 12, grey=50)
    task = replace(job(Tiny(), corpus, tmp_path / "out", ONCE))
    outcome, _ = run(task)

    def judged(*_: Any, **__: Any) -> SimpleNamespace:
        with pytest.raises(DataError, match="Another process trains into"), state():
            pass
        return SimpleNamespace(trials=[], models={}, plan=None)

    def state() -> Any:
        return alone(task.folder / "state", writes=True)

    monkeypatch.setattr(judge, "judged", judged)
    assert show_training(task, outcome, weights=None, as_json=False) == 0
    with state():  # free again
        pass


def test_a_package_that_is_missing_is_named_at_the_start(monkeypatch):
    """And not after the training."""
    monkeypatch.setattr(running, "find_spec", lambda name: None if name == "peft" else object())

    with pytest.raises(ModelError, match=r"and peft is not installed: pip install"):
        make_accelerator("cpu")


def test_a_check_that_was_left_out_makes_no_other_training(tmp_path):
    """A curve's first size has it, and may become the second."""
    corpus = write_discs(tmp_path / "c", 6, grey=50)
    names = set()
    for settings in (ONCE, replace(ONCE, overfit_steps=30), replace(ONCE, epochs=2)):
        task = job(Tiny(), corpus, tmp_path / "o", settings)
        split = split_of(task)
        names.add(identity_of(task.model, settings, split, task.corpora, "cpu"))

    assert len(names) == 2


def test_features_are_told_apart_by_what_ran_them():
    """Last digits of another PyTorch or of a GPU are others."""
    frozen = frozen_stages(Tiny(), 1, "float32", cached=True)
    image = np.zeros((20, 20, 3), np.uint8)

    assert frozen.ran_by == f"torch {torch.__version__.partition('+')[0]} on cpu"
    assert replace(frozen, ran_by="torch 9 on cuda").key(image) != frozen.key(image)


class Several:
    """The accelerator of the first of two processes, which answers for the other as well."""

    process_index, num_processes, device = 0, 2, torch.device("cpu")


@pytest.fixture
def scored(tmp_path: Path) -> tuple[Any, ...]:
    """Give what validates a model: itself, its items, where they come from, its settings."""
    corpus = write_discs(tmp_path / "c", 6, grey=50)
    model, settings = Tiny(), Settings(overfit_steps=0)
    frozen = frozen_stages(model, 1, "float32", cached=False)
    task = job(model, corpus, tmp_path / "o", settings, val_share=0.5)
    gathering = running._gather(
        task, (split_of(task), [None]), frozen, SimpleNamespace(process_index=0, num_processes=1)
    )
    while True:
        try:
            next(gathering)
        except StopIteration as stop:
            items, _ = stop.value
            break
    return model, items.of_role["val"], Source((corpus,), frozen), settings


def test_a_process_that_cannot_score_stops_the_others(scored, monkeypatch):
    """They would wait for each other until they are killed."""
    shares: list[list[Any]] = []

    def gathered(own: list[Any]) -> list[Any]:
        shares.append(own)
        return [*own, ([], True)]

    monkeypatch.setattr("accelerate.utils.gather_object", gathered)
    with pytest.raises(ModelError, match="Another process stopped while it scored"):
        validation.validate(*scored, Several())

    def full(*_: Any) -> Any:
        raise MemoryError("out of memory")

    monkeypatch.setattr(validation, "_values", full)
    with pytest.raises(MemoryError, match="out of memory"):
        validation.validate(*scored, Several())
    assert [own[0][1] for own in shares] == [False, True]  # the others were told of both


def test_a_division_by_image_is_told_as_it_is_used(tmp_path):
    """Counts of owners are of images then."""
    corpus = write_discs(tmp_path / "c", 12, grey=50, subjects=3, empty=2)
    task = job(Tiny(), corpus, tmp_path / "out", ONCE)

    outcome, _ = run(replace(task, division=Division(by="image")))

    assert outcome.n_subjects == outcome.n_images == {"train": 7, "val": 1, "test": 2}
