"""Our forward over transformers' decoder gives what its own gives, gradients included."""

import pytest
import torch
from torch import Tensor, nn

from promptseg.models.sam_decoder import SamHead

SIDE = 8  # cells of the embedding


@pytest.fixture
def head() -> SamHead:
    """Make a small head whose weights are large enough for outputs to vary."""
    generator = torch.Generator().manual_seed(7)
    made = SamHead(16 * SIDE, SIDE).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * (0.08 if parameter.ndim > 1 else 0.3))
        for module in made.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.add_(1.0)
    return made


def _asked(head: SamHead, kind: str) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    generator = torch.Generator().manual_seed(3)
    n_points = {"point": 1, "points": 10, "box": 0, "box+point": 1}[kind]
    xy = torch.rand((3, n_points, 2), generator=generator) * 16 * SIDE if n_points else None
    labels = torch.arange(3 * n_points).view(3, -1) % 2 if n_points else None
    boxes = torch.tensor([[5.0, 9, 60, 80], [0, 0, 128, 128], [30, 30, 31, 31]])
    return xy, labels, boxes if "box" in kind else None


def _published(head: SamHead, features: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Run transformers' own forward, once for the single mask and once for the others."""
    xy, labels, boxes = _asked(head, kind)
    sparse, dense = head.prompt_encoder(
        None if xy is None else xy[None],
        None if labels is None else labels[None],
        None if boxes is None else boxes[None],
        None,
    )
    both = [
        head.mask_decoder(
            image_embeddings=features,
            image_positional_embeddings=head.image_positions(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
        )[:2]
        for multimask in (False, True)
    ]
    logits, iou = (torch.cat(kind, dim=2)[0] for kind in zip(*both, strict=True))
    return logits, iou


@pytest.mark.parametrize("kind", ["points", "box"])
def test_positions_of_prompts_are_not_rounded_by_mixed_precision(head: SamHead, kind: str):
    """In bfloat16 a corner would lie a quarter of a pixel beside itself."""
    asked = _asked(head, kind)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = head.encoded(*asked)

    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, head.encoded(*asked))


@pytest.mark.parametrize("kind", ["point", "points", "box", "box+point"])
def test_logits_and_predicted_iou_are_those_of_transformers(head: SamHead, kind: str):
    """For every kind of prompt, all four tokens; outputs vary, so that this says something."""
    features = torch.randn((1, 256, SIDE, SIDE), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = _published(head, features, kind)
        found = head(head.prepare(features), *_asked(head, kind))

    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        assert theirs.std() > 0.05
        assert (theirs[0] - theirs[1]).abs().max() > 0.01
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def test_gradients_are_those_of_transformers(head: SamHead):
    """A decoder that is trained through ours learns the same: every weight, and the embedding."""
    gradients = []
    for forward in ("ours", "theirs"):
        features = torch.randn((1, 256, SIDE, SIDE), generator=torch.Generator().manual_seed(1))
        features.requires_grad_()
        head.zero_grad()
        if forward == "ours":
            logits, iou = head(head.prepare(features), *_asked(head, "box+point"))
        else:
            logits, iou = _published(head, features, "box+point")
        (logits.square().mean() + iou.square().sum()).backward()
        named = {n: p.grad for n, p in head.mask_decoder.named_parameters() if p.grad is not None}
        gradients.append({**named, "embedding": features.grad})
    ours, theirs = gradients

    assert len(ours) > 100
    for name, expected in theirs.items():
        found = ours.get(name)
        if name.endswith("k_proj.bias"):  # it moves all scores alike: nothing depends on it
            for gradient in (found, expected):
                assert gradient is None or float(gradient.abs().max()) < 1e-6
            continue
        assert found is not None
        assert expected is not None
        scale = float(expected.abs().max())
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * scale + 1e-9, msg=name)


def test_cells_that_are_not_shown_are_not_enlarged_and_cost_nothing_else(head: SamHead):
    """What is shown has the same logits and, where the loss is of these, the same gradients."""
    features = torch.randn((1, 256, SIDE, SIDE), generator=torch.Generator().manual_seed(1))
    height, width = SIDE - 1, SIDE - 3
    seen = []
    for shown in (None, (height, width)):
        head.zero_grad()
        logits, _ = head(head.prepare(features, shown), *_asked(head, "box+point"))
        inside = logits[..., : 4 * height, : 4 * width]
        inside.square().mean().backward()
        named = {n: p.grad for n, p in head.mask_decoder.named_parameters() if p.grad is not None}
        seen.append((logits.detach(), inside.detach(), named))
    (whole, expected, theirs), (cut, found, ours) = seen

    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert cut.shape == whole.shape
    assert int((cut != 0).sum()) == found.numel()
    assert theirs.keys() == ours.keys()
    for name, gradient in theirs.items():
        # a bias that moves all scores alike has none, but for rounding
        least = 1e-6 if name.endswith("k_proj.bias") else 1e-4 * float(gradient.abs().max()) + 1e-9
        torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=least)


def test_a_token_that_is_asked_alone_is_what_it_is_beside_others(head: SamHead):
    """The single-mask token has the same logits, predicted IoU and gradients."""
    features = torch.randn((1, 256, SIDE, SIDE), generator=torch.Generator().manual_seed(1))
    seen = []
    for n_masks in (4, 1):
        head.zero_grad()
        sparse = head.encoded(*_asked(head, "box+point"))
        logits, iou = head.answer(head.prepare(features), sparse, n_masks)
        assert (logits.shape[1], iou.shape[1]) == (n_masks, n_masks)
        (logits[:, 0].square().mean() + iou[:, 0].square().sum()).backward()
        named = {n: p.grad for n, p in head.mask_decoder.named_parameters() if p.grad is not None}
        seen.append((logits[:, 0].detach(), iou[:, 0].detach(), named))
    (expected, expected_iou, theirs), (found, iou, ours) = seen

    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(iou, expected_iou, rtol=1e-5, atol=1e-5)
    idle = {name for name, gradient in theirs.items() if not gradient.any()}
    assert theirs.keys() - ours.keys() <= idle
    assert all("hypernetworks_mlps" in name for name in theirs.keys() - ours.keys())
    for name, gradient in ours.items():
        least = 1e-6 if name.endswith("k_proj.bias") else 1e-4 * float(gradient.abs().max()) + 1e-9
        torch.testing.assert_close(theirs[name], gradient, rtol=1e-3, atol=least)


def test_mixed_types_learn_as_well(head: SamHead):
    """Under autocast gradients are PyTorch's own: near those of one type, in every weight."""
    features = torch.randn((1, 256, SIDE, SIDE), generator=torch.Generator().manual_seed(1))
    found = []
    for mixed in (False, True):
        head.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            logits, iou = head(head.prepare(features), *_asked(head, "point"))
        (logits.float().square().mean() + iou.float().square().sum()).backward()
        grads = [p.grad for p in head.mask_decoder.parameters() if p.grad is not None]
        found.append(torch.cat([grad.flatten() for grad in grads]))

    assert found[0].shape == found[1].shape
    assert float(torch.cosine_similarity(*found, dim=0)) > 0.99


def test_positions_follow_the_matrix_that_makes_them(head: SamHead):
    """They are kept between images; other weights or another type make others."""
    features = torch.randn((1, 256, SIDE, SIDE), generator=torch.Generator().manual_seed(1))
    matrix = head.prompt_encoder.shared_embedding.positional_embedding
    with torch.inference_mode():
        before = head.prepare(features).positions
        assert head.prepare(features).positions is before
        matrix.mul_(2)
        after = head.prepare(features).positions
    expected = head.image_positions().flatten(2).transpose(1, 2)

    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, expected, rtol=0, atol=0)
    assert head.double().prepare(features.double()).positions.dtype == torch.float64


def test_a_model_that_answered_can_be_trained(head: SamHead):
    """What was kept in inference mode, or with mixed types, serves gradients as well."""
    features = torch.randn((1, 256, SIDE, SIDE), generator=torch.Generator().manual_seed(1))
    fresh = head.prepare(features).positions
    head._placed = None
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        head(head.prepare(features), *_asked(head, "box"))
    prepared = head.prepare(features)
    head(prepared, *_asked(head, "box"))[0].square().mean().backward()

    torch.testing.assert_close(prepared.positions, fresh, rtol=0, atol=0)


def test_prompts_of_one_image_do_not_see_each_other(head: SamHead):
    """Together or alone, in any order: what an image's prompts share is not changed by them."""
    features = torch.randn((1, 256, SIDE, SIDE), generator=torch.Generator().manual_seed(1))
    xy, labels, boxes = _asked(head, "box+point")
    assert xy is not None
    assert labels is not None
    assert boxes is not None
    with torch.inference_mode():
        prepared = head.prepare(features)
        together, _ = head(prepared, xy, labels, boxes)
        alone = [head(prepared, xy[[i]], labels[[i]], boxes[[i]])[0][0] for i in (2, 0, 1)]

    for index, logits in zip((2, 0, 1), alone, strict=True):
        torch.testing.assert_close(logits, together[index], rtol=1e-5, atol=1e-4)
