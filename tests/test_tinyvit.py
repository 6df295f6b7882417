"""The encoder in strips gives what its modules give, and only where it may stand in for them."""

from pathlib import Path

import pytest
import torch
from golden_litemedsam import SHAPES, picture
from torch import Tensor, nn

from promptseg.models import tinyvit_strips
from promptseg.models.cores import own_cores
from promptseg.models.litemedsam import load
from promptseg.models.tinyvit import Neck, PatchEmbed, Stage, TinyViT

TOLERANCE = 1e-5  # of values whose standard deviation is about 1


def _untrained(module: nn.Module) -> nn.Module:
    """Give a module values in which a mistake shows: statistics, biases and offsets too."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2 if parameter.ndim == 1 else 1.0)
        if parameter.ndim > 1:
            with torch.no_grad():
                parameter /= parameter[0].numel() ** 0.5
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean = torch.randn(part.num_features)
            part.running_var = torch.rand(part.num_features) + 0.5
            nn.init.uniform_(part.weight, 0.5, 2)
        if hasattr(part, "attention_biases"):
            nn.init.normal_(part.attention_biases)
    return module.eval()


def _plain(module: nn.Module, x: Tensor) -> Tensor:
    """Run the modules themselves, as training does."""
    with torch.enable_grad():
        answer: Tensor = module(x).detach()
    return answer


def _ran_in_strips(module: nn.Module, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Tell whether any part of a module ran in strips."""
    seen = []
    own = tinyvit_strips.each
    with monkeypatch.context() as patch:
        patch.setattr(tinyvit_strips, "each", lambda *a: (seen.append(1), own(*a))[1])
        module(x)
    return bool(seen)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (PatchEmbed(), (3, 37, 29)),
        (Stage(0), (64, 38, 30)),  # strips that end early; a stride of two
        (Stage(0), (64, 16, 6)),
        (Stage(1), (128, 30, 36)),  # windows that reach beyond the map
        (Stage(1), (128, 14, 14)),
        (Stage(2), (160, 33, 15)),
        (Stage(3), (320, 20, 9)),
        (Neck(), (320, 11, 8)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_strips_equal_the_modules(
    module: nn.Module, shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
):
    """Every stage, at sizes that strips and windows divide and do not divide."""
    module = _untrained(module)
    x = torch.randn(1, *shape)
    expected = _plain(module, x)
    with torch.inference_mode():
        found = module(x)
        assert _ran_in_strips(module, x, monkeypatch)

    assert found.shape == expected.shape
    assert float(expected.std()) > 0.1
    assert float((found - expected).abs().max()) < TOLERANCE * float(expected.abs().max())


def test_an_image_does_not_depend_on_its_companions():
    """Bit for bit, whatever else is in the batch and whatever ran before."""
    module = _untrained(Stage(1))
    x = torch.randn(3, 128, 16, 18)
    with torch.inference_mode():
        together = module(x)
        alone = [module(one[None]) for one in x.flip(0)]

    for row, answer in zip(together.flip(0), alone, strict=True):
        assert torch.equal(row, answer[0])


def test_the_number_of_threads_does_not_count():
    """Bit for bit: a strip is one thread's, however many there are."""
    x, before, found = torch.randn(1, 160, 40, 40), torch.get_num_threads(), []
    module = _untrained(Stage(2))
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            with torch.inference_mode():
                found.append(module(x))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)

    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_an_error_in_a_strip_is_raised():
    """What one of the threads raises does not stay in it."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.no_grad(), own_cores() as share, pytest.raises(ZeroDivisionError):
            share(lambda item: 1 // item, [1, 0, 2])
    finally:
        torch.set_num_threads(before)


def test_weights_that_change_after_the_first_image_count():
    """A fine-tuned model is loaded into its base: nothing of the base may stay."""
    module = _untrained(Stage(0))
    x = torch.randn(1, 64, 8, 8)
    with torch.no_grad():
        before = module(x)
        for value in module.state_dict().values():
            if value.is_floating_point():
                value.mul_(1.1)
        after = module(x)

    assert float((before - after).abs().max()) > 0.01
    assert float((after - _plain(module, x)).abs().max()) < 1e-4


def test_training_takes_the_modules(monkeypatch: pytest.MonkeyPatch):
    """With gradients, and in training mode, nothing runs in strips."""
    module = _untrained(Stage(3))
    x = torch.randn(1, 320, 7, 7)

    assert not _ran_in_strips(module, x, monkeypatch)
    module(x).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    with torch.no_grad():
        assert _ran_in_strips(module, x, monkeypatch)
        assert not _ran_in_strips(module.train(), x, monkeypatch)


@pytest.mark.parametrize("targets", [r".*\.(qkv|fc1)", r".*\.conv1\.c"])
def test_an_adapter_is_not_passed_over(targets: str, monkeypatch: pytest.MonkeyPatch):
    """A stage with adapters runs as its modules, and the adapter counts."""
    from peft import LoraConfig, inject_adapter_in_model

    module = _untrained(Stage(0 if "conv1" in targets else 1))
    x = torch.randn(1, 64 if "conv1" in targets else 128, 8, 8)
    with torch.no_grad():
        before = module(x)
        config = LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
        inject_adapter_in_model(config, module)
        module.eval()
        assert not _ran_in_strips(module, x, monkeypatch)
        assert float((module(x) - before).abs().max()) > 1e-3


def test_the_whole_encoder_equals_its_modules():
    """All stages after one another, in the layout that one hands to the next."""
    encoder = _untrained(TinyViT())
    x = torch.rand(1, 3, 256, 256)
    expected = _plain(encoder, x)
    with torch.inference_mode():
        found = encoder(x)

    assert float(expected.std()) > 0.1
    assert float((found - expected).abs().max()) < 10 * TOLERANCE * float(expected.abs().max())


@pytest.mark.real
def test_the_published_encoder_in_strips_equals_its_modules(litemedsam_weights: Path):
    """With the real weights, of which the embedding reaches about 0.6."""
    model = load(weights=litemedsam_weights)
    x = model.pixels(picture(*SHAPES[0]))
    expected = _plain(model.encoder, x)
    with torch.inference_mode():
        found = model.encoder(x)

    assert float(expected.std()) > 0.05
    assert float((found - expected).abs().max()) < TOLERANCE
