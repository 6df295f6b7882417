"""A fine-tuned model on disk: what is written is what is loaded, and nothing else is believed."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from golden_litemedsam import SHAPES, picture
from PIL import Image
from safetensors.torch import load_file, save_file
from test_cli import run
from test_litemedsam import _difference, _original
from torch import Tensor

from promptseg.errors import DataError, ModelError, UnknownName
from promptseg.model import Segmenter, Training
from promptseg.models import MODELS, folder_of, licence_of, load_model, packaged, published_hash
from promptseg.models.litemedsam import LiteMedSam
from promptseg.models.sam_decoder import originally_named, renamed
from promptseg.prompt import Box, BoxPoints, Everything, Points
from promptseg.tuned import TunedCard, export_original, load_tuned, read_card, write_tuned
from promptseg.weights import load_state

TINY = """
import torch
from promptseg.model import Training

class Tiny:
    name, weights_hash = "tiny", "tiny-1"
    training = Training(frozenset({"box"}), frozenset({"single"}))

    def __init__(self):
        self.network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
        with torch.no_grad():
            for parameter in self.network.parameters():
                parameter.fill_(0.5)

    def embed(self, images):
        return [None for _ in images]

    def segment(self, embedding, prompts):
        return []

class Fixed(Tiny):
    weights_hash = property(lambda self: "tiny-1")

the_one = Tiny()
"""
CARD = TunedCard(
    name="heart",
    base="litemedsam",
    training=Training(
        frozenset({"box", "points"}),
        frozenset({"single", "predicted"}),
        frozenset({("box", "predicted")}),
    ),
    licence="Apache-2.0",
    training_data="nine drawn images",
    everything=Everything(pred_iou_thresh=0.5),
    everything_source="SAM's, but for the IoU",
    finetuned={
        "settings": {"method": "decoder", "jitter": None, "learning_rate": 0.0003},
        "data": [{"name": "drawn", "licence": "CC0-1.0"}],
        "splits": {"source": "drawn, seed 0", "train": {"subjects": 9, "targets": None}},
        "scores": [{"task": "disc (CT)", "before": 0.5, "after": 0.75}],
    },
)
CHANGED = (
    "image_encoder.neck.1.weight",
    "head.mask_decoder.iou_token.weight",
    "head.mask_decoder.output_hypernetworks_mlps.2.layers.0.weight",
    "head.prompt_encoder.point_embed.1.weight",
)
ONE = Points(np.array([[30.0, 20.0]]), np.array([True]))
PROMPTS = (Box(8, 10, 40, 50), ONE, BoxPoints(Box(8, 10, 40, 50), ONE))


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a module with a small model of one's own, and give its name."""
    name = f"tiny_{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}"
    (tmp_path / f"{name}.py").write_text(TINY)
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.fixture
def tuned(tiny: str, tmp_path: Path) -> Path:
    """Write the small model as if it had been trained."""
    return written(tmp_path / "tuned", f"{tiny}:Tiny", "0.weight", "1.bias")


def written(folder: Path, base: str, *names: str, **options: Any) -> Path:
    """Load a model, change some tensors, and write it."""
    model = load_model(base)
    perturb(model, *names)
    card = replace(CARD, base=base)
    return write_tuned(folder, model.network.state_dict(), model, card, **options)


def perturb(model: Segmenter[Any], *names: str) -> None:
    """Change tensors by a few per cent of their size."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name in names:
            value = model.network.get_parameter(name)
            value.add_(0.05 * value.abs().mean() * torch.randn(value.shape, generator=generator))


def answers(model: Segmenter[Any]) -> list[np.ndarray]:
    """Let a model answer every kind of prompt: logits and predicted IoU."""
    (embedding,) = model.embed([picture(60, 80)])
    return [
        part
        for answer in model.segment(embedding, PROMPTS)
        for part in (answer.logits, answer.predicted_iou)
    ]


@pytest.mark.real
@pytest.mark.usefixtures("litemedsam_weights")
def test_a_loaded_model_answers_bit_for_bit_as_the_trained_one(tmp_path: Path):
    """Encoder, prompt encoder, single and multimask tokens are all among what was changed."""
    model = load_model("litemedsam")
    untrained = answers(model)
    perturb(model, *CHANGED)
    folder = write_tuned(tmp_path / "m", model.network.state_dict(), model, CARD)
    loaded = load_model(str(folder))
    expected = answers(model)

    for ours, theirs in zip(answers(loaded), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert all(not np.array_equal(*pair) for pair in zip(expected, untrained, strict=True))
    assert loaded.name == "heart"
    assert loaded.training == CARD.training
    assert loaded.everything == CARD.everything
    assert (
        loaded.weights_hash
        == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    )
    assert sorted(load_file(folder / "model.safetensors")) == sorted(CHANGED)
    assert (folder / "model.safetensors").stat().st_size < 270_000


@pytest.mark.real
@pytest.mark.usefixtures("litemedsam_weights")
def test_half_precision_on_disk_is_close_and_half_the_size(tmp_path: Path):
    """Logits of some tens move by less than 0.05, and the network stays float32."""
    whole = written(tmp_path / "whole", "litemedsam", *CHANGED)
    half = written(tmp_path / "half", "litemedsam", *CHANGED, dtype="float16")
    loaded, size = (
        load_model(str(half)),
        [f.stat().st_size for f in (whole / "model.safetensors", half / "model.safetensors")],
    )
    pairs = list(zip(answers(loaded), answers(load_model(str(whole))), strict=True))

    assert max(float(np.abs(a - b).max()) for a, b in pairs) < 0.05
    assert any(not np.array_equal(a, b) for a, b in pairs)
    assert size[1] < 0.52 * size[0]
    assert {v.dtype for v in load_file(half / "model.safetensors").values()} == {torch.float16}
    assert {p.dtype for p in loaded.network.parameters()} == {torch.float32}


@pytest.mark.real
@pytest.mark.usefixtures("litemedsam_weights")
def test_tensors_take_the_type_that_the_network_runs_in(tmp_path: Path):
    """`--dtype bfloat16` gives the encoder in bfloat16, rounded once, and the head as it was."""
    folder = written(tmp_path / "m", "litemedsam", *CHANGED)
    state = load_model(str(folder), dtype="bfloat16").network.state_dict()
    stored = load_file(folder / "model.safetensors")

    assert torch.equal(state[CHANGED[0]], stored[CHANGED[0]].bfloat16())
    assert torch.equal(state[CHANGED[1]], stored[CHANGED[1]])


@pytest.mark.real
@pytest.mark.usefixtures("litemedsam_weights")
def test_a_fine_tuning_of_a_fine_tuned_model_is_one_of_its_base(tmp_path: Path):
    """The second folder stands alone: the first may go."""
    first = written(tmp_path / "first", "litemedsam", CHANGED[0])
    second = written(tmp_path / "second", str(first), CHANGED[1])
    expected = load_model(str(first))
    perturb(expected, CHANGED[1])
    (first / "model.json").unlink()

    assert read_card(second).base == "litemedsam"
    assert sorted(load_file(second / "model.safetensors")) == sorted(CHANGED[:2])
    for ours, theirs in zip(answers(load_model(str(second))), answers(expected), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.real
def test_an_untrained_model_is_exported_as_the_published_checkpoint(
    litemedsam_weights: Path, tmp_path: Path
):
    """The same keys and the same bits, in a file that PyTorch reads without running code."""
    path = export_original(load_model("litemedsam"), tmp_path / "out.pth")
    ours, theirs = torch.load(path, weights_only=True), load_state(litemedsam_weights)

    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert {key: ours[key].dtype for key in ours} == {key: theirs[key].dtype for key in theirs}


@pytest.mark.real
@pytest.mark.usefixtures("litemedsam_weights")
def test_the_authors_own_code_runs_an_exported_fine_tuned_model(
    litemedsam_wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Their modules with our file give our logits, which are not the published ones."""
    names = (CHANGED[0], "head.mask_decoder.output_hypernetworks_mlps.0.proj_in.weight")
    ours = load_model(str(written(tmp_path / "m", "litemedsam", *names)))
    path = export_original(ours, tmp_path / "out.pth")
    original = _original(litemedsam_wheel, torch.load(path, weights_only=True), monkeypatch)
    differences = [_difference(original, ours, picture(*shape)) for shape in SHAPES[:3]]
    published = _difference(original, load_model("litemedsam"), picture(*SHAPES[0]))
    again = load_model("litemedsam", weights=path)

    assert max(differences) < 1e-3
    assert published > 0.1
    for one, other in zip(answers(again), answers(ours), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_names_of_a_checkpoint_are_given_back():
    """Every name of the network goes to a key of its own, and back."""
    state = LiteMedSam().state_dict()
    plain = {name.removeprefix("head."): value for name, value in state.items()}
    keys = originally_named(plain)

    assert len(keys) == len(plain)
    assert list(renamed(keys)) == list(plain)
    assert "mask_decoder.output_hypernetworks_mlps.3.layers.1.weight" in keys
    assert "prompt_encoder.mask_downscaling.4.bias" in keys
    assert "mask_decoder.transformer.layers.1.norm4.weight" in keys
    assert not any("layer_norm" in key or "proj_in" in key for key in keys)


@pytest.mark.real
@pytest.mark.usefixtures("litemedsam_weights")
def test_the_command_line_knows_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """segment, show and export take it like a name; weights beside it are refused."""
    folder, out = written(tmp_path / "m", "litemedsam", *CHANGED), tmp_path / "out.pth"
    Image.fromarray(picture(60, 80)).save(tmp_path / "image.png")
    segment = ("segment", tmp_path / "image.png", "--model", folder, "--box", "8,10,40,50")
    asked = run(capsys, *segment, "--out", tmp_path / "mask.png", "--json")
    refused = run(capsys, *segment, "--out", tmp_path / "no.png", "--weights", out)
    shown = json.loads(run(capsys, "models", "show", folder, "--json")[1])
    exported = run(capsys, "models", "export", folder, "--out", out)
    content = out.read_bytes()
    again = run(capsys, "models", "export", folder, "--out", out)

    assert asked[0] == 0
    assert refused[0] == 2
    assert "leave --weights out" in refused[2]
    assert shown["fine-tuned from"] == "litemedsam"
    assert shown["trained for prompts"] == "box, points"
    assert json.loads(shown["finetuned settings"])["method"] == "decoder"
    assert "heart" in run(capsys, "models", "show", folder)[1]
    assert exported[0] == 0
    assert exported[1].strip() == str(out)
    assert again[0] == 2
    assert "is there already" in again[2]
    assert out.read_bytes() == content


def test_an_export_needs_a_layout_and_the_name_of_a_new_file(tuned: Path, tmp_path: Path):
    """Nothing is guessed, and nothing overwritten."""
    model = load_tuned(tuned, trust_base=True)
    for told, path in (("original layout", "a.pth"), ("end in .pth", "a.safetensors")):
        with pytest.raises(ModelError, match=told):
            export_original(model, tmp_path / path)

    assert not (tmp_path / "a.pth").exists()


@pytest.mark.real
@pytest.mark.usefixtures("litemedsam_weights")
def test_a_folder_in_the_package_is_a_built_in_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """It is listed by its card, loaded by its name, and its published weights are known."""
    folder = written(tmp_path / "m", "litemedsam", *CHANGED)
    card = packaged(folder, of=MODELS["litemedsam"], title="LiteMedSAM for hearts")
    monkeypatch.setitem(MODELS, "heart", card)
    model = load_model("heart")
    shown = json.loads(run(capsys, "models", "show", "heart", "--json")[1])

    assert model.weights_hash == published_hash(card) == shown["weights sha256"]
    assert licence_of("heart", model.weights_hash) == "Apache-2.0"
    assert licence_of("heart", "other") is None
    assert shown["fine-tuned from"] == "litemedsam"
    assert "heart" in [one["name"] for one in json.loads(run(capsys, "models", "--json")[1])]
    assert load_model(str(folder)).name == "heart", "a copy of it is no impostor"
    with pytest.raises(ModelError, match="leave --weights out"):
        load_model("heart", weights=tmp_path / "x.pth")


def test_a_built_in_name_comes_before_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where one stands does not change what a name means."""
    (tmp_path / "litemedsam").mkdir()
    monkeypatch.chdir(tmp_path)

    assert folder_of("litemedsam") is None
    assert folder_of(str(tmp_path / "litemedsam.py:make")) is None


def test_a_path_without_a_model_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A folder of a training under way, a file, and a slip of the finger."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "model.safetensors").write_bytes(b"x")
    for word in ("empty", "model.safetensors", "no/such/folder"):
        with pytest.raises(ModelError, match=r"holds (no )?model\.json"):
            load_model(word)
    with pytest.raises(UnknownName):
        load_model("empt")


def test_a_folder_that_calls_itself_like_a_built_in_model_is_refused(tuned: Path):
    """Its scores would stand in tables as those of another."""
    _change(tuned, name="litemedsam")
    with pytest.raises(ModelError, match="calls itself litemedsam"):
        load_model(str(tuned))


def test_licences_are_those_of_the_card(tuned: Path, tiny: str):
    """Of one's own models none is known, nor of other weights than the published ones."""
    assert licence_of(str(tuned), "any") == "Apache-2.0"
    assert licence_of(f"{tiny}:Tiny", "tiny-1") is None
    assert licence_of("litemedsam", "another") is None
    assert licence_of("litemedsam", MODELS["litemedsam"].weights.sha256) == "Apache-2.0"


def test_code_is_imported_only_where_it_is_trusted(tuned: Path, tiny: str):
    """Whoever made a folder does not choose what runs here; whoever loads it may."""
    for load in (load_tuned, lambda folder: load_model(str(folder))):
        with pytest.raises(ModelError, match="code that would run"):
            load(tuned)
    model = load_tuned(tuned, trust_base=True)

    assert model.name == "heart"
    assert not torch.equal(model.network[0].weight, load_model(f"{tiny}:Tiny").network[0].weight)


def test_an_object_that_others_use_is_not_changed(tiny: str, tmp_path: Path):
    """A word may stand for one object: it is copied before it gets trained weights."""
    one = load_model(f"{tiny}:the_one")
    trained = load_model(f"{tiny}:Tiny")
    perturb(trained, "0.weight")
    card = replace(CARD, base=f"{tiny}:the_one")
    folder = write_tuned(tmp_path / "m", trained.network.state_dict(), trained, card)
    loaded = load_tuned(folder, trust_base=True)

    assert loaded is not one
    assert one.name == "tiny"
    assert torch.equal(one.network[0].weight, torch.full((3, 2), 0.5))
    assert torch.equal(loaded.network[0].weight, trained.network[0].weight)


def test_a_model_is_not_compared_with_itself(tiny: str, tmp_path: Path):
    """The one object that was trained would show no difference; its copy from before does."""
    model, before = load_model(f"{tiny}:the_one"), load_model(f"{tiny}:Tiny")
    perturb(model, "0.weight")
    state, card = model.network.state_dict(), replace(CARD, base=f"{tiny}:the_one")
    with pytest.raises(ModelError, match="the one object that was trained"):
        write_tuned(tmp_path / "m", state, model, card)
    write_tuned(tmp_path / "m", state, model, card, base=before)

    assert list(load_file(tmp_path / "m" / "model.safetensors")) == ["0.weight"]


def test_an_untrained_model_is_a_folder_without_tensors(tiny: str, tmp_path: Path):
    """Where the best state is the first, that is what is kept."""
    folder = written(tmp_path / "m", f"{tiny}:Tiny")

    assert load_file(folder / "model.safetensors") == {}
    assert load_tuned(folder, trust_base=True).weights_hash == read_card(folder).sha256


def _spoiled(state: dict[str, Tensor], **values: Tensor | None) -> dict[str, Tensor]:
    changed = state | {name.replace("_", ".", 1): value for name, value in values.items()}
    return {name: value for name, value in changed.items() if value is not None}


@pytest.mark.parametrize(
    ("values", "dtype", "told"),
    [
        ({"0_weight": None}, "float32", "lacks 0.weight"),
        ({"9_weight": torch.ones(1)}, "float32", "9.weight, which its base lacks"),
        ({"0_weight": torch.ones(4, 4)}, "float32", r"\[4, 4\], its base as .*\[3, 2\]"),
        ({"0_weight": torch.ones(3, 2).double()}, "float32", "as torch.float64"),
        ({"0_weight": torch.full((3, 2), float("nan"))}, "float32", "not finite"),
        ({"0_weight": torch.full((3, 2), 1e5)}, "float16", "too large for float16"),
    ],
)
def test_a_state_that_does_not_fit_its_base_is_not_written(
    tiny: str, tmp_path: Path, values: dict[str, Tensor | None], dtype: Any, told: str
):
    """A folder that could not be loaded is worth nothing."""
    model = load_model(f"{tiny}:Tiny")
    state = _spoiled(model.network.state_dict(), **values)
    with pytest.raises(ModelError, match=told):
        write_tuned(tmp_path / "m", state, model, replace(CARD, base=f"{tiny}:Tiny"), dtype=dtype)

    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"name": "two words"}, "name 'two words'"),
        ({"training_data": "two\nlines"}, "training_data is no line"),
        ({"training": Training(frozenset(), frozenset({"single"}))}, "prompts is no list"),
        (
            {
                "training": Training(
                    frozenset({"box"}), frozenset({"single"}), frozenset({("points", "single")})
                )
            },
            "but is no list of pairs",
        ),
        ({"finetuned": {"loss": float("nan")}}, "cannot be written"),
        ({"finetuned": {"path": Path("x")}}, "cannot be written"),
        ({"finetuned": {"splits": {"train": ["anna", "berta"]}}}, "train is no JSON object"),
        ({"finetuned": {"splits": {"train": {"subjects": ["anna"]}}}}, "data of patients"),
        ({"finetuned": {"splits": {"train": {"anna": 3}}}}, "data of patients"),
        ({"finetuned": {"scores": {"disc": 1.0}}}, "scores is no list"),
    ],
)
def test_a_card_that_cannot_be_read_again_is_not_written(
    tiny: str, tmp_path: Path, said: dict[str, Any], told: str
):
    """What the reader refuses, the writer refuses too: among it names of subjects."""
    model = load_model(f"{tiny}:Tiny")
    card = replace(replace(CARD, base=f"{tiny}:Tiny"), **said)
    with pytest.raises(ModelError, match=told):
        write_tuned(tmp_path / "m", model.network.state_dict(), model, card)

    assert not (tmp_path / "m").exists()


def test_a_folder_that_cannot_be_written_is_one_line(tiny: str, tmp_path: Path):
    """As everywhere."""
    (tmp_path / "m").write_text("a file")
    with pytest.raises(DataError, match="Cannot write"):
        written(tmp_path / "m", f"{tiny}:Tiny", "0.weight")


def _change(folder: Path, **said: Any) -> None:
    """Edit model.json as anyone can; None takes an entry out."""
    told = json.loads((folder / "model.json").read_text()) | said
    told = {key: value for key, value in told.items() if value is not None}
    (folder / "model.json").write_text(json.dumps(told))


def _replace(folder: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Put another file of tensors into a folder, and its hash into the card."""
    path = folder / "model.safetensors"
    save_file(tensors, path, metadata)
    _change(folder, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


OURS = {"format": "promptseg-tuned-1"}
DAMAGES: list[tuple[str, Callable[[Path], object], str]] = [
    ("no tensors", lambda f: (f / "model.safetensors").unlink(), "safetensors is missing"),
    (
        "a byte flipped",
        lambda f: (f / "model.safetensors").write_bytes(
            (f / "model.safetensors").read_bytes()[:-1] + b"\x01"
        ),
        "damaged or of another model",
    ),
    ("cut short", lambda f: (f / "model.safetensors").write_bytes(b"12"), "damaged or of another"),
    (
        "not safetensors",
        lambda f: (
            (f / "model.safetensors").write_bytes(b"PK"),
            _change(f, sha256=hashlib.sha256(b"PK").hexdigest()),
        ),
        "no intact safetensors file",
    ),
    ("foreign", lambda f: _replace(f, {"0.weight": torch.ones(3, 2)}, {}), "promptseg-tuned-1"),
    ("name", lambda f: _replace(f, {"0.wait": torch.ones(3, 2)}, OURS), "0.wait, which its base"),
    ("shape", lambda f: _replace(f, {"0.weight": torch.ones(2, 3)}, OURS), r"its base as .*3, 2"),
    (
        "type",
        lambda f: _replace(f, {"0.weight": torch.ones(3, 2).bfloat16()}, OURS),
        "not float32 or float16",
    ),
    (
        "kind",
        lambda f: _replace(f, {"0.weight": torch.ones(3, 2, dtype=torch.int64)}, OURS),
        "as torch.int64",
    ),
    (
        "infinite",
        lambda f: _replace(f, {"0.weight": torch.full((3, 2), float("inf"))}, OURS),
        "not finite",
    ),
    ("another base", lambda f: _change(f, base_hash="0" * 64), "use its version that was trained"),
    ("unknown base", lambda f: _change(f, base="litemedsam-9"), "is no model of this promptseg"),
    ("a path as base", lambda f: _change(f, base="../other"), "base '../other' is not"),
    ("no such module", lambda f: _change(f, base="no_such_module:x"), "Cannot import no_such"),
    ("not JSON", lambda f: (f / "model.json").write_text("{"), "model.json is damaged or foreign"),
    ("binary", lambda f: (f / "model.json").write_bytes(b"\xff\xfe\x00"), "damaged or foreign"),
    ("deep", lambda f: (f / "model.json").write_text("[" * 200_000), "damaged or foreign"),
    ("a list", lambda f: (f / "model.json").write_text("[]"), "the file is no JSON object"),
    ("NaN", lambda f: _change(f, finetuned={"loss": float("nan")}), "NaN is no number"),
    ("of a hub", lambda f: (f / "model.json").write_text('{"a": 1}'), "no format_version 1"),
    ("newer", lambda f: _change(f, format_version=2), "of a newer promptseg"),
    ("true as version", lambda f: _change(f, format_version="1"), "no format_version 1"),
    ("missing", lambda f: _change(f, licence=None), "'licence' is missing"),
    ("unknown", lambda f: _change(f, loader="os:system"), "'loader' is unknown"),
    ("number as name", lambda f: _change(f, name=3), "name is no line"),
    ("escape", lambda f: _change(f, licence="\x1b[2J"), "licence is no line"),
    ("endless", lambda f: _change(f, licence="x" * 10_000), "licence is no line"),
    ("training", lambda f: _change(f, training=["box"]), "training is no JSON object"),
    (
        "prompts",
        lambda f: _change(f, training={"prompts": ["text"], "selections": ["single"]}),
        "prompts is no list of points, box",
    ),
    (
        "nested prompts",
        lambda f: _change(f, training={"prompts": [["box"]], "selections": ["single"]}),
        "prompts is no list of points, box",
    ),
    ("threshold", lambda f: _change(f, everything={"box_nms_thresh": "a"}), "everything has no"),
    ("large", lambda f: _change(f, everything={"box_nms_thresh": 7}), "between 0 and 1"),
    ("setting", lambda f: _change(f, everything={"__class__": 1}), "everything has no __class__"),
    ("grid", lambda f: _change(f, everything={"points_per_side": True}), "everything has no"),
    ("splits", lambda f: _change(f, finetuned={"splits": {"test": ["anna"]}}), "no JSON object"),
]


@pytest.mark.parametrize(
    ("damage", "told"), [case[1:] for case in DAMAGES], ids=[case[0] for case in DAMAGES]
)
def test_a_damaged_or_foreign_folder_is_said_in_one_line(
    tuned: Path, damage: Callable[[Path], object], told: str
):
    """A partly loaded model would score something; what went wrong is a ModelError of one line."""
    damage(tuned)
    with pytest.raises(ModelError, match=told) as raised:
        load_tuned(tuned, trust_base=True)

    assert "\n" not in str(raised.value)


def test_a_model_without_a_network_is_no_base(tmp_path: Path, tiny: str):
    """Said when it is written, and not when somebody loads it."""
    model = load_model(f"{tiny}:Tiny")
    with pytest.raises(ModelError, match="shows no `network`"):
        write_tuned(
            tmp_path / "m", model.network.state_dict(), model, replace(CARD, base="fakes:reference")
        )


def test_a_base_that_cannot_become_another_is_said_in_one_line(tiny: str, tmp_path: Path):
    """A name or a hash that is computed would go on telling of the base."""
    folder = written(tmp_path / "m", f"{tiny}:Fixed", "0.weight")
    with pytest.raises(ModelError, match="set its attributes"):
        load_tuned(folder, trust_base=True)


def test_what_was_written_is_what_is_read(tuned: Path, tiny: str):
    """Every entry of a card comes back."""
    card = read_card(tuned)

    assert replace(card, base=CARD.base, base_hash="", sha256="") == CARD
    assert card.base == f"{tiny}:Tiny"
    assert card.base_hash == "tiny-1"


def test_a_model_can_be_written_over_and_is_then_the_new_one(tuned: Path, tiny: str):
    """A training that went on writes again; the same state gives the same bytes."""
    before = {path.name: path.read_bytes() for path in tuned.iterdir()}
    written(tuned, f"{tiny}:Tiny", "0.weight", "1.bias")
    same = {path.name: path.read_bytes() for path in tuned.iterdir()}
    written(tuned, f"{tiny}:Tiny", "0.bias")

    assert sorted(before) == ["README.md", "model.json", "model.safetensors"]
    assert same == before
    assert sorted(load_file(tuned / "model.safetensors")) == ["0.bias"]


def test_the_readme_is_a_model_card(tmp_path: Path, tiny: str):
    """Hubs read its YAML; people read data, licences, counts, settings, scores and limits."""
    model = load_model(f"{tiny}:Tiny")
    card = replace(
        CARD, base=f"{tiny}:Tiny", training_data="a | b <script> *c*", licence="My own: 1"
    )
    folder = write_tuned(tmp_path / "m", model.network.state_dict(), model, card)
    _, matter, text = (folder / "README.md").read_text().split("---\n", 2)
    head = yaml.safe_load(matter)

    assert head["license"] == "other"
    assert head["license_name"] == "My own: 1"
    assert head["library_name"] == "promptseg"
    assert head["base_model"] == f"{tiny}:Tiny"
    assert r"a \| b \<script\> \*c\*" in text
    assert "| drawn | CC0-1.0 |" in text
    assert "| train | 9 | – | – |" in text
    assert "| learning\\_rate | 0.0003 |" in text
    assert "| disc (CT) | 0.5 | 0.75 |" in text
    assert "trust_base=True" in text
    assert "research only" in text
