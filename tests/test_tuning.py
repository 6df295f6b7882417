"""Fine-tuning on planted images: it gets there, resumes exactly, and refuses its own bugs."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from phantom import write_discs, write_phantoms
from safetensors.torch import load_file
from tiny import (
    Deaf,
    Exploding,
    FrozenByMistake,
    Hungry,
    OtherSize,
    Tiny,
    TrainedByMistake,
    WrongToken,
)

from promptseg.cli.curve import _Bars as CurveBars
from promptseg.contamination import HASH_LETTERS
from promptseg.contract import Check
from promptseg.errors import DataError, ModelError
from promptseg.model import Training
from promptseg.terminal import progress
from promptseg.tuning import step, training
from promptseg.tuning.course import Course
from promptseg.tuning.items import Item
from promptseg.tuning.result import claims
from promptseg.tuning.run import Begun, Job, StoppedEarly, finetune, make_accelerator
from promptseg.tuning.settings import OF_BOXES, PRESETS, Settings, changed
from promptseg.tuning.split import Division
from promptseg.tuning.state import Progressed, load_state, peek, save_state
from promptseg.tuning.step import StepLog, Stepper
from promptseg.tuning.training import Stepped, Validated

BRIGHT, DARK = 170, 50
QUICK = Settings(
    epochs=6,
    learning_rate=5e-3,
    augmentation="flips",
    lora_targets=r"mix\.fc.*",
    lora_rank=4,
)


def job(model: Any, corpus: Any, folder: Path, settings: Settings = QUICK, **division: Any) -> Job:
    """Make a job of one corpus."""
    return Job(
        corpora=(corpus,),
        model=model,
        asked="tiny:make",
        name="taught",
        settings=settings,
        division=Division(**division),
        folder=folder,
    )


def run(task: Job) -> tuple[Any, list[Any]]:
    """Run a job to its end; give the outcome and the events."""
    steps, events = finetune(task, make_accelerator("cpu")), []
    while True:
        try:
            events.append(next(steps))
        except StopIteration as stop:
            return stop.value, events


@pytest.fixture(scope="session")
def bright_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Tiny]:
    """Train a model on bright discs, which is to be taught dark ones."""
    folder = tmp_path_factory.mktemp("bright")
    corpus = write_discs(folder / "bright.corpus", 24, grey=BRIGHT)
    model = Tiny()
    full = replace(QUICK, method="full", cached=False, epochs=10, overfit_steps=0)
    run(job(model, corpus, folder / "out", full))
    state = {name: value.clone() for name, value in model.network.state_dict().items()}

    def make(kind: type[Tiny] = Tiny) -> Tiny:
        made = kind()
        made.network.load_state_dict(state)
        return made

    return make


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep embeddings out of the user's cache."""
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def dark(tmp_path: Path) -> Any:
    """Write dark discs of six subjects."""
    return write_discs(tmp_path / "dark.corpus", 18, grey=DARK)


REACHED = {"decoder": 0.9, "lora": 0.85, "both": 0.9, "full": 0.9}


@pytest.mark.parametrize("method", REACHED)
def test_a_planted_gain_is_reached_by_every_method(bright_model, dark, tmp_path, method):
    """Dark discs score 0 before, and high after, on subjects that are not trained on.

    Adapters of the one stage that has linear layers cannot mend the convolution before it.
    """
    settings = replace(QUICK, method=method, cached=method != "full", epochs=12)

    outcome, events = run(job(bright_model(), dark, tmp_path / "out", settings))

    scores = [event.score.dice for event in events if isinstance(event, Validated)]
    assert scores[0] < 0.1
    assert outcome.best_score > REACHED[method]
    assert [check["outcome"] for check in outcome.checks] == ["passed"] * 5


def test_the_model_ends_with_its_best_weights_and_without_adapters(bright_model, dark, tmp_path):
    """Scored again after the end, it has the score of the best state; the last one had another."""
    model = bright_model()
    settings = replace(QUICK, method="lora", epochs=8, learning_rate=0.03, schedule="constant")
    task = job(model, dark, tmp_path / "out", settings)
    outcome, events = run(task)
    assert not any(p.requires_grad for p in model.network.parameters())
    scores = [event.score.dice for event in events if isinstance(event, Validated)]
    again = replace(task, folder=tmp_path / "again", settings=replace(settings, method="decoder"))
    steps = finetune(again, make_accelerator("cpu"))
    anew = next(event.score.dice for event in steps if isinstance(event, Validated))

    assert outcome.best_score == max(scores) > scores[-1]
    assert abs(anew - outcome.best_score) < 1e-3
    names = set(model.network.state_dict())
    assert names == set(Tiny().network.state_dict())
    assert outcome.n_values < outcome.of_values
    assert len(outcome.images) == outcome.n_images["train"] + outcome.n_images["val"]
    assert {len(name) for name in outcome.images} == {HASH_LETTERS}, "of held-out images none"


BUGS = [
    (WrongToken, "decoder", "tokens"),
    (FrozenByMistake, "full", "gradients"),
    (TrainedByMistake, "decoder", "gradients"),
    (OtherSize, "decoder", "geometry"),
    (Deaf, "decoder", "overfit"),
]


@pytest.mark.parametrize(("broken", "method", "check"), BUGS)
def test_a_classic_bug_is_caught_before_the_first_step(
    bright_model, dark, tmp_path, broken, method, check
):
    """Each bug fails its check, and no step of the training is done."""
    settings = replace(QUICK, method=method, cached=method != "full")
    steps = finetune(
        job(bright_model(broken), dark, tmp_path / "out", settings), make_accelerator("cpu")
    )
    events: list[Any] = []

    with pytest.raises(ModelError, match=f"The check of {check} failed"):
        deque(map(events.append, steps))  # what came before the error is kept

    failed = [event.name for event in events if isinstance(event, Check)][-1]
    assert failed == check
    assert not any(isinstance(event, Stepped) for event in events)
    assert not (tmp_path / "out" / "model").exists()


def test_checks_leave_the_network_as_it_was(bright_model, dark, tmp_path):
    """The first validation scores the model that came in."""
    model, fresh = bright_model(), bright_model()
    steps = finetune(job(model, dark, tmp_path / "out"), make_accelerator("cpu"))
    while not isinstance(next(steps), Validated):
        pass

    for name, value in fresh.network.state_dict().items():
        assert torch.equal(model.network.state_dict()[name], value)


def test_a_subject_in_two_splits_is_a_leak(tmp_path):
    """The corpus's own splits are not trusted."""
    split = ["train", "test"] * 9
    corpus = write_discs(tmp_path / "c", 18, grey=DARK, subjects=3, split=split)

    with pytest.raises(DataError, match="A leak: subject discs50/s"):
        run(job(Tiny(), corpus, tmp_path / "out"))


def test_one_image_under_two_subjects_is_a_leak(tmp_path, dark):
    """The same picture may not be trained on and tested."""
    twice = write_discs(tmp_path / "copy.corpus", 18, grey=DARK, subjects=18)
    task = replace(job(Tiny(), dark, tmp_path / "out"), corpora=(dark, twice))

    with pytest.raises(DataError, match="A leak: image discs50/"):
        run(task)


def test_what_is_tested_beside_may_not_be_trained_on(tmp_path, dark):
    """Neither the corpus itself, nor its pictures under another name."""
    copied = write_discs(tmp_path / "copy.corpus", 18, grey=DARK, subjects=18)

    for other in (dark, copied):
        with pytest.raises(DataError, match=r"A leak: .* of .*--also other data"):
            run(replace(job(Tiny(), dark, tmp_path / "out"), also=(other,)))


def test_black_images_without_a_target_are_no_leak(tmp_path, bright_model, dark):
    """Slices beside the body are alike, of whatever patient, in one corpus and in another."""
    task = job(Tiny(), dark, tmp_path / "o", replace(QUICK, epochs=1, overfit_steps=0))
    blank = write_discs(tmp_path / "blank", 18, grey=51, empty=18, black=True)
    other = write_discs(tmp_path / "other", 18, grey=52, empty=9, black=True)

    outcome, _ = run(replace(task, corpora=(dark, blank), also=(other,)))

    assert len(outcome.images) == 15  # of the dark ones, less those held out: no black one
    assert outcome.left_out == {"it has no target": 18}


def test_a_share_of_nobody_leaves_a_corpus_s_own_split_out(tmp_path):
    """Who says that nobody chooses means it, whatever the data set says."""
    split = (["train"] * 4 + ["val"] * 1 + ["test"] * 1) * 3
    corpus = write_discs(tmp_path / "c", 18, grey=DARK, subjects=6, split=split)
    settings = replace(QUICK, epochs=1, overfit_steps=0)

    outcome, _ = run(job(Tiny(), corpus, tmp_path / "o", settings, val_share=0, test_share=0))

    assert outcome.n_images == {"train": 12, "val": 0, "test": 0}
    assert outcome.split_source == "the corpus's own split, without its val, without its test"


def test_a_training_of_other_settings_is_refused_before_anything_is_encoded(
    dark, tmp_path, bright_model
):
    """Encoding may take hours."""
    settings = replace(QUICK, epochs=1)
    run(job(bright_model(), dark, tmp_path / "out", settings))
    again = job(bright_model(), dark, tmp_path / "out", replace(settings, augmentation="dihedral"))

    with pytest.raises(DataError, match="another --out"):
        next(finetune(again, make_accelerator("cpu")))


@pytest.mark.parametrize("device", ["meta", "meta:1"])
def test_the_device_that_is_asked_for_is_taken(device):
    """And not the first one that is there."""
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        assert str(make_accelerator(device).device) == device
        with pytest.raises(ModelError, match=f"accelerate took {device}, not cuda:1"):
            make_accelerator("cuda:1")
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def test_processes_choose_their_devices_themselves(monkeypatch):
    """One number for all of them would put them on one GPU."""
    monkeypatch.setenv("WORLD_SIZE", "2")

    with pytest.raises(ModelError, match="say cuda, not cuda:1"):
        make_accelerator("cuda:1")


def test_more_processes_than_gpus_are_refused(monkeypatch):
    """Before any of them waits for another."""
    monkeypatch.setenv("WORLD_SIZE", "16")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)

    with pytest.raises(ModelError, match=r"^8 processes .* of which there are 4: start 4, or"):
        make_accelerator("cuda")


def test_adapters_alone_claim_nothing_new(dark, tmp_path):
    """The decoder that reads their embeddings is as it was."""
    made = {
        method: claims(job(Tiny(), dark, tmp_path, replace(QUICK, method=method, prompts="mixed")))
        for method in ("lora", "both")
    }

    assert made["lora"] == Tiny().training
    assert made["both"].prompts == {"box", "points", "box+points"} & made["both"].prompts
    assert made["both"].prompts > {"box"}


def test_a_folder_of_something_else_is_left_alone(tmp_path, dark):
    """Nothing is written into it, and nothing deleted."""
    precious = tmp_path / "out" / "log.txt"
    precious.parent.mkdir()
    precious.write_text("precious")

    with pytest.raises(DataError, match="is not empty, and holds no training"):
        run(job(Tiny(), dark, tmp_path / "out"))

    assert precious.read_text() == "precious"


@pytest.mark.parametrize("below", ["", "deep/er"])
def test_a_file_in_the_way_is_one_line(tmp_path, dark, below):
    """Before anything is encoded."""
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(DataError, match="Give another --out"):
        run(job(Tiny(), dark, tmp_path / "file" / below))


def test_checks_that_were_interrupted_are_done_again(bright_model, dark, tmp_path):
    """A broken trainer cannot slip in by being stopped during its checks."""
    settings = replace(QUICK, epochs=1)
    steps = finetune(job(WrongToken(), dark, tmp_path / "o", settings), make_accelerator("cpu"))
    while not isinstance(next(steps), Check):
        pass
    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt)

    with pytest.raises(ModelError, match="The check of tokens failed"):
        run(job(WrongToken(), dark, tmp_path / "o", settings))


def test_mixed_precision_passes_the_checks_and_learns(bright_model, dark, tmp_path):
    """The loss may be rounded; what is compared with evaluation is not."""
    settings = replace(QUICK, epochs=14, precision="bf16")
    task = job(bright_model(), dark, tmp_path / "out", settings)
    with pytest.raises(ModelError, match="make them agree"):
        next(finetune(task, make_accelerator("cpu")))
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        steps = finetune(task, make_accelerator("cpu", "bf16"))
        scores = [event.score.dice for event in steps if isinstance(event, Validated)]
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)

    assert max(scores) > 0.7


def test_splits_of_the_corpus_are_kept(tmp_path):
    """Train, validation and test stay what the data set says."""
    split = (["train"] * 4 + ["validation"] * 1 + ["testing"] * 1) * 3
    corpus = write_discs(tmp_path / "c", 18, grey=DARK, subjects=6, split=split)

    outcome, _ = run(job(Tiny(), corpus, tmp_path / "out", replace(QUICK, overfit_steps=0)))

    assert outcome.n_images == {"train": 12, "val": 3, "test": 3}


def test_subjects_that_are_named_are_held_out(dark, tmp_path):
    """Named subjects and no others are the test split."""
    task = job(Tiny(), dark, tmp_path / "o", replace(QUICK, epochs=1), test_subjects=("s3",))
    steps = finetune(task, make_accelerator("cpu"))
    begun = next(event for event in steps if isinstance(event, Begun))

    assert begun.split.owners("test") == [("discs50", "s3")]


def test_a_curve_tells_a_doubt_once(dark, tmp_path, capsys):
    """All trainings of a curve hold the same subjects out."""
    task = job(Tiny(), dark, tmp_path / "o", replace(QUICK, epochs=1), test_subjects=("s3",))
    steps = finetune(task, make_accelerator("cpu"))
    begun = next(event for event in steps if isinstance(event, Begun))
    shown = CurveBars(progress(""))

    for _ in range(2):
        shown.show(replace(begun, unlisted=("liver2", "heart")))

    told = capsys.readouterr().err
    assert told.count("WARNING") == 1
    assert "trained on images of liver2, heart, and does not list them" in told


ONE_LINE = [
    ({"subjects": None}, {}, "subject of 12 of 12 images is unknown.*--subject-pattern"),
    ({"subjects": 1}, {}, "split is empty: 1 subject"),
    ({"subjects": 2}, {}, "split is empty: 2 subjects.*within each data set, of which three"),
    ({"subjects": 6}, {"test_subjects": ("nobody",)}, "no subject 'nobody'"),
]


@pytest.mark.parametrize(("how", "division", "line"), ONE_LINE)
def test_a_corpus_that_cannot_be_split_is_one_clear_line(tmp_path, how, division, line):
    """No subjects, too few, or none of that name."""
    corpus = write_phantoms(tmp_path / "c", range(12), **how)

    with pytest.raises(DataError, match=line):
        run(job(Tiny(), corpus, tmp_path / "out", **division))


def test_images_without_a_target_are_left_out_and_counted(tmp_path, bright_model):
    """What cannot be trained on has its reason."""
    corpus = write_discs(tmp_path / "c", 18, grey=DARK, empty=2)

    task = job(bright_model(), corpus, tmp_path / "out", replace(QUICK, epochs=1))
    outcome, _ = run(replace(task, division=Division(test_subjects=("s5",))))

    assert outcome.left_out == {"it has no target": 2}


def test_a_model_that_cannot_be_trained_says_what_it_lacks(dark, tmp_path):
    """A Segmenter is not enough."""
    from fakes import reference

    with pytest.raises(ModelError, match="reference cannot be trained: it has no network, stages"):
        run(job(reference(), dark, tmp_path / "out"))


def test_adapters_in_what_is_trained_whole_are_refused(dark, tmp_path):
    """One weight cannot be trained twice."""
    settings = replace(QUICK, method="both", lora_targets=r"decoder\.0|mix\.fc.*")

    with pytest.raises(ModelError, match="name layers of the encoder only"):
        run(job(Tiny(), dark, tmp_path / "out", settings))


@pytest.mark.parametrize("pattern", ["(", "*"])
def test_a_broken_pattern_is_one_line(dark, tmp_path, pattern):
    """As any other pattern that finds nothing."""
    settings = replace(QUICK, method="lora", lora_targets=pattern)

    with pytest.raises(ModelError, match="No layer has a name like"):
        run(job(Tiny(), dark, tmp_path / "out", settings))


def test_the_full_augmentation_learns_without_a_cache(bright_model, dark, tmp_path):
    """Images and masks are moved together: what is learned holds for images as they are."""
    settings = replace(QUICK, epochs=12, augmentation="full", cached=False)

    outcome, _ = run(job(bright_model(), dark, tmp_path / "out", settings))

    assert outcome.best_score > 0.8
    assert not list((tmp_path / "cache").rglob("*.npy"))


@pytest.mark.parametrize("prompts", ["points", "mixed", "clicks"])
def test_points_are_learned(bright_model, dark, tmp_path, prompts):
    """A model that knew boxes only finds what is clicked on, by its predicted IoU."""
    settings = replace(
        QUICK, epochs=30, prompts=prompts, score="predicted", rounds=1, overfit_steps=0
    )

    outcome, _ = run(job(bright_model(), dark, tmp_path / "out", settings))

    assert outcome.best_score > outcome.epochs[0]["dice"] + 0.4


def test_layers_that_do_not_exist_get_no_adapters(dark, tmp_path):
    """A wrong --lora-targets names what a right one looks like."""
    settings = replace(QUICK, method="lora", lora_targets="transformer")

    with pytest.raises(ModelError, match=r"No layer has a name like.*mix\.fc1"):
        run(job(Tiny(), dark, tmp_path / "out", settings))


def values(folder: Path) -> dict[str, torch.Tensor]:
    """Read the parameters of the last state."""
    return load_file(folder / "state" / "state.safetensors")


SHORT = replace(QUICK, epochs=3, method="both")


@pytest.fixture(scope="module")
def uninterrupted(
    bright_model: Callable[[], Tiny], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Tiny, Path]:
    """Train without a stop: what came of it, the model, and its folder."""
    folder, model = tmp_path_factory.mktemp("whole"), bright_model()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROMPTSEG_CACHE", str(folder / "cache"))
        corpus = write_discs(folder / "dark.corpus", 18, grey=DARK)
        outcome, _ = run(job(model, corpus, folder / "out", SHORT))
    return outcome, model, folder / "out"


@pytest.mark.parametrize("stop", [1, 6, 9, 18])
@pytest.mark.parametrize("how", ["interrupted", "killed", "killed, its states few"])
def test_resumed_equals_uninterrupted_bit_for_bit(
    uninterrupted, bright_model, dark, tmp_path, monkeypatch, stop, how
):
    """Whenever it stops, and whether it can still save, the same command ends the same."""
    monkeypatch.setattr(training, "SAVE_SECONDS", 1e9 if "few" in how else 0)
    monkeypatch.setattr(training, "SAVE_TIMES", 0)
    whole, finished, folder = uninterrupted
    task = job(bright_model(), dark, tmp_path / "parts", SHORT)
    steps = finetune(task, make_accelerator("cpu"))
    for event in steps:
        if isinstance(event, Stepped) and event.step == stop:
            break
    if how == "interrupted":
        with pytest.raises(KeyboardInterrupt):
            steps.throw(KeyboardInterrupt)
    steps.close()
    state = tmp_path / "parts" / "state"
    expected = 1 if "few" in how else stop if how == "killed" else stop + 1
    before = peek(state)
    assert before is not None
    assert before.step == expected - 1
    assert (state / f"best-{before.best_step}.safetensors").is_file()  # a newer one may lie there
    for path in state.glob("best-*"):
        if path.name != f"best-{before.best_step}.safetensors":
            path.write_bytes(b"of the training that was killed")

    again = replace(task, model=bright_model())
    parts, events = run(again)

    again_from = [event.step for event in events if isinstance(event, Stepped)]
    assert again_from[:1] == ([expected] if expected <= len(whole.steps) else [])
    assert (whole.best_step, whole.best_score) == (parts.best_step, parts.best_score)
    assert whole.steps == parts.steps
    assert whole.epochs == parts.epochs
    assert whole.checks == parts.checks
    a, b = values(folder), values(tmp_path / "parts")
    assert all(torch.equal(a[name], b[name]) for name in a)
    ended = finished.network.state_dict()
    for name, value in again.model.network.state_dict().items():
        assert torch.equal(value, ended[name]), name


def test_another_training_is_not_gone_on_with(dark, tmp_path, bright_model):
    """A folder belongs to its settings and data."""
    settings = replace(QUICK, epochs=1)
    run(job(bright_model(), dark, tmp_path / "out", settings))

    with pytest.raises(DataError, match="another --out"):
        run(job(bright_model(), dark, tmp_path / "out", replace(settings, seed=1)))


@pytest.mark.parametrize("kind", ["truncated", "empty", "text"])
def test_a_damaged_state_is_one_clear_line(dark, tmp_path, bright_model, kind):
    """Nothing is guessed from half a file."""
    settings = replace(QUICK, epochs=1)
    run(job(bright_model(), dark, tmp_path / "out", settings))
    path = tmp_path / "out" / "state" / "state.safetensors"
    content = path.read_bytes()
    path.write_bytes({"truncated": content[:2000], "empty": b"", "text": b"hello" * 99}[kind])

    with pytest.raises(DataError, match=r"is damaged.*start again"):
        run(job(bright_model(), dark, tmp_path / "out", settings))


@pytest.mark.parametrize(
    ("broken", "line"), [(Exploding, "NaN or infinite at images"), (Hungry, "memory is too small")]
)
def test_what_stops_a_training_is_one_line_and_keeps_the_best(
    bright_model, dark, tmp_path, broken, line
):
    """The last good state is there after NaN and after a full memory."""
    settings = replace(QUICK, epochs=16, overfit_steps=0)

    model = bright_model(broken)
    with pytest.raises(StoppedEarly, match=line) as stopped:
        run(job(model, dark, tmp_path / "out", settings))

    outcome = stopped.value.outcome
    (best,) = (tmp_path / "out" / "state").glob("best-*.safetensors")
    assert 0 < outcome.best_step <= outcome.n_steps < 60
    assert best.name == f"best-{outcome.best_step}.safetensors"
    kept = load_file(best)
    assert all(torch.equal(model.network.get_parameter(n), kept[n]) for n in kept)
    assert all(torch.isfinite(v).all() for v in values(tmp_path / "out").values())


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 0.0), ("float16", 1e-3)])
def test_cached_steps_equal_uncached_ones(bright_model, dark, tmp_path, dtype, bound):
    """The cache changes nothing but the digits of its type."""
    settings = replace(QUICK, epochs=2, cache_dtype=dtype)
    cached, _ = run(job(bright_model(), dark, tmp_path / "a", settings))
    live, _ = run(job(bright_model(), dark, tmp_path / "b", replace(settings, cached=False)))

    apart = np.abs(np.array(cached.steps)[:, 0] - np.array(live.steps)[:, 0])
    assert apart.max() <= bound


def test_gradients_of_a_batch_are_those_of_its_mean_loss(bright_model, dark, tmp_path, monkeypatch):
    """Whatever memory PyTorch leaves them in: biases of one sum, for one, share theirs."""
    ours, apart = Stepper.backward, []

    def compared(self: Stepper, batch: Sequence[Item], epoch: int) -> StepLog:
        network = self.model.network
        losses = [self.image(item, epoch).total for item in batch]
        torch.stack(losses).mean().backward()
        expected = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
        network.zero_grad(set_to_none=True)
        log = ours(self, batch, epoch)
        for name, gradient in expected.items():
            found = network.get_parameter(name).grad
            scale = float(gradient.abs().max()) + 1e-9
            apart.append(float((found - gradient).abs().max()) / scale)
        return log

    monkeypatch.setattr(Stepper, "backward", compared)
    run(job(bright_model(), dark, tmp_path / "out", replace(QUICK, epochs=2, batch_size=3)))

    assert len(apart) > 20
    assert max(apart) < 1e-4


def test_gradients_are_laid_out_as_their_parameters_are():
    """Fused AdamW reads both as they lie in memory: turned over, each weight gets another's."""
    generator = torch.Generator().manual_seed(2)
    weight = torch.nn.Parameter(torch.randn(3, 5, generator=generator))
    grads = [torch.randn(5, 3, generator=generator).t() for _ in range(2)]
    wanted = weight.detach().clone().requires_grad_()
    step._add([weight], [[grads[0]]])
    step._add([weight], [[grads[1]], [None]])
    wanted.grad = (grads[0] + grads[1]).contiguous()
    torch.optim.AdamW([weight], fused=True).step()
    torch.optim.AdamW([wanted], fused=False).step()

    torch.testing.assert_close(weight, wanted)


def test_a_state_goes_on_where_its_parameters_are(tmp_path):
    """Fused AdamW refuses steps that are counted on another device."""
    here = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(here.parameters(), fused=True)
    here(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    names = [name for name, _ in here.named_parameters()]
    save_state(tmp_path, here, names, optimizer, Progressed(step=1), "this one")
    there = torch.nn.Linear(2, 1, device="meta")
    resumed = torch.optim.AdamW(there.parameters())
    done = load_state(tmp_path, there, names, resumed, "this one")

    assert done is not None
    kept = [value for moments in resumed.state.values() for value in moments.values()]
    assert len(kept) == 6
    assert {value.device.type for value in kept} == {"meta"}


def test_a_state_keeps_more_steps_than_fit_into_a_header(tmp_path):
    """A million images for a few epochs; told are means, and the curve has a point for each."""
    rows = np.random.default_rng(0).random((1_234_567, 5))
    net = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(net.parameters())
    names = [name for name, _ in net.named_parameters()]
    before = Progressed(step=len(rows), course=Course(rows))
    before.course.add([0.5, 0.4, 0.1, 0.9, 2.0])
    save_state(tmp_path, net, names, optimizer, before, "this one")
    found = load_state(tmp_path, net, names, optimizer, "this one")
    peeked = peek(tmp_path)

    assert found is not None
    assert peeked is not None
    assert len(found.course) == len(rows) + 1
    np.testing.assert_array_equal(found.course.rows()[:-1], rows)
    np.testing.assert_array_equal(peeked.course.rows(), found.course.rows())
    told, each = found.course.told()
    assert (len(told), each) == (9957, 124)  # 1,234,568 / 10,000, and what that makes
    np.testing.assert_allclose(told[7], rows[7 * 124 : 8 * 124].mean(0))
    np.testing.assert_allclose(told[-1], found.course.rows()[9956 * 124 :].mean(0))
    with pytest.raises(ValueError, match="5 figures, not 2"):
        found.course.add([1.0, 2.0])


def test_what_a_model_claims_is_what_it_was_taught(bright_model, dark, tmp_path):
    """A base of boxes that learns the multimask tokens from points learns no pair of both."""
    model = bright_model()
    model.training = Training(frozenset({"box"}), frozenset({"single"}))
    settings = replace(QUICK, prompts="points", tokens="multimask", score="predicted")
    claimed = claims(job(model, dark, tmp_path, settings))

    assert claimed.covers("box", "single")
    assert claimed.covers("points", "oracle")
    assert not claimed.covers("box", "oracle")
    assert not claimed.covers("points", "single")
    assert claimed.prompts == {"box", "points"}
    both = job(model, dark, tmp_path, replace(QUICK, prompts="box", tokens="both"))
    assert not claims(both).but


def test_few_steps_are_told_as_they_are():
    """No mean, and no steps at all."""
    rows = np.random.default_rng(0).random((10, 5))
    assert Course(rows).told() == (rows.tolist(), 1)
    assert Course(rows).told(9) == ([*rows.reshape(5, 2, 5).mean(1).tolist()], 2)
    assert Course().told() == ([], 1)
    with pytest.raises(ValueError, match=r"not the shape \(10, 4\)"):
        Course(rows[:, :4])


def test_images_side_by_side_teach_what_they_teach_one_by_one(bright_model, dark, tmp_path):
    """How many threads there are changes the speed, and last digits; every image still counts."""
    before, steps = torch.get_num_threads(), []
    try:
        for n_threads in (1, 2, 5):
            torch.set_num_threads(n_threads)
            settings = replace(QUICK, epochs=2, batch_size=3)
            done, _ = run(job(bright_model(), dark, tmp_path / str(n_threads), settings))
            steps.append(np.array(done.steps))
    finally:
        torch.set_num_threads(before)

    for found in steps[1:]:
        np.testing.assert_allclose(found, steps[0], rtol=1e-3, atol=1e-6)


def test_a_second_training_finds_what_the_first_kept(bright_model, dark, tmp_path):
    """The files of the cache are named by what they are made of, and shared."""
    run(job(bright_model(), dark, tmp_path / "a", replace(QUICK, epochs=1)))
    files = sorted((tmp_path / "cache").rglob("*.npy"))
    before = [file.stat().st_mtime_ns for file in files]
    run(job(bright_model(), dark, tmp_path / "b", replace(QUICK, epochs=1, seed=3)))

    known = {file: time for file, time in zip(files, before, strict=True)}
    after = {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").rglob("*.npy")}
    assert {file: after[file] for file in known} == known


def test_other_weights_have_other_cache_files(bright_model, dark, tmp_path):
    """A changed encoder never meets the embeddings of another."""
    run(job(bright_model(), dark, tmp_path / "a", replace(QUICK, epochs=1)))
    count = len(list((tmp_path / "cache").rglob("*.npy")))
    other = replace(QUICK, epochs=1, overfit_steps=0)
    run(job(Tiny(seed=5), dark, tmp_path / "b", other))

    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 2 * count


def test_two_trainings_do_not_write_one_folder(bright_model, dark, tmp_path):
    """The second is told so, and loses nothing; when the first is gone it goes on."""
    settings = replace(QUICK, epochs=2, overfit_steps=0)
    first = finetune(job(bright_model(), dark, tmp_path / "out", settings), make_accelerator("cpu"))
    next(event for event in first if isinstance(event, Stepped))
    second = job(bright_model(), dark, tmp_path / "out", settings)

    with pytest.raises(DataError, match=r"Another process trains into .*out\. Wait for it"):
        run(second)
    first.close()

    outcome, _ = run(second)
    assert outcome.n_steps == len(outcome.steps) > 1


def test_a_machine_that_does_not_see_the_state_stops_at_once(dark, tmp_path):
    """Machines without a disk in common would fail at the end, hours later."""

    class Elsewhere:
        """The accelerator of a process that writes nothing."""

        is_main_process = False

        def __getattr__(self, name):
            return getattr(own, name)

    own = make_accelerator("cpu")
    task = job(Tiny(), dark, tmp_path / "out", replace(QUICK, overfit_steps=0))

    with pytest.raises(ModelError, match="--out on a disk that all of them share"):
        list(finetune(task, Elsewhere()))


NO_SENSE = [
    ({"epochs": 0}, "at least 1"),
    ({"learning_rate": 2.0}, "learning rate"),
    ({"augmentation": "full"}, "no cache can hold"),
    ({"method": "full"}, "nothing can be cached"),
    ({"score": "oracle"}, "oracle looks at the answer"),
    ({"tokens": "multimask"}, "single score needs"),
    ({"score": "predicted", "iou_weight": 0.0}, "predicted IoU trained"),
    ({"rounds": 3}, "--rounds does nothing without --prompts clicks"),
    ({"lora_rank": 4}, "--lora-rank does nothing without --method lora or both"),
    ({"cached": False, "cache_dtype": "float32"}, "--cache-dtype does nothing"),
    ({"prompts": "points", "jitter": OF_BOXES}, "--jitter does nothing"),
]


@pytest.mark.parametrize(("given", "line"), NO_SENSE)
def test_settings_that_do_not_go_together_are_refused(given, line):
    """A setting that would do nothing, or harm, is an error."""
    with pytest.raises(DataError, match=line):
        changed(PRESETS["promptseg"], **given)


@pytest.mark.parametrize(
    ("per_epoch", "epochs", "val_every"), [(2, 60, 3), (3, 40, 2), (6, 20, 1), (50, 20, 1)]
)
def test_few_images_are_trained_on_for_more_epochs(per_epoch, epochs, val_every):
    """At least 120 steps by the preset, in whole multiples of its epochs."""
    found = PRESETS["promptseg"].stretched(per_epoch)

    assert (found.epochs, found.val_every) == (epochs, val_every)
    assert found.epochs * per_epoch >= 120


def test_epochs_that_are_asked_for_are_not_multiplied():
    """Two epochs are two, unless steps are asked for as well."""
    assert changed(PRESETS["promptseg"], epochs=2).stretched(1).epochs == 2
    assert changed(PRESETS["promptseg"], epochs=2, min_steps=7).stretched(1).epochs == 8


def test_the_steps_asked_for_are_done_and_told(bright_model, dark, tmp_path):
    """The result says how many epochs it became."""
    settings = replace(QUICK, epochs=1, min_steps=9, overfit_steps=0)

    outcome, _ = run(job(bright_model(), dark, tmp_path / "out", settings))

    assert len(outcome.steps) >= 9
    assert outcome.settings["epochs"] * outcome.steps_per_epoch == len(outcome.steps)


def test_clicks_correct_some_answers_and_leave_others(bright_model, dark, tmp_path, monkeypatch):
    """With one correction at most, some images are asked once and some twice."""
    settings = replace(QUICK, prompts="clicks", rounds=1, epochs=2, overfit_steps=0)
    rounds = []
    loss = step.image_loss
    monkeypatch.setattr(
        step, "image_loss", lambda *of, **more: rounds.append(1) or loss(*of, **more)
    )
    outcome, _ = run(job(bright_model(), dark, tmp_path / "out", settings))
    images = 2 * outcome.n_images["train"] + settings.batch_size  # and those of the checks

    assert images < len(rounds) < 2 * images


def test_the_paper_preset_is_the_papers():
    """20 epochs, 1e-4, batch 2, AdamW 0.01, exact boxes, decoder."""
    paper = PRESETS["paper"]

    assert (paper.epochs, paper.learning_rate, paper.batch_size) == (20, 1e-4, 2)
    assert (paper.weight_decay, paper.method, paper.prompts) == (0.01, "decoder", "box")
    assert (paper.jitter, paper.schedule, paper.augmentation) == (None, "constant", "none")
