"""One image, one prompt, one mask."""

from pathlib import Path

import fakes
import numpy as np
import pytest
from phantom import phantom
from PIL import Image

from promptseg import cli
from promptseg.errors import DataError, ModelError
from promptseg.everything import Survivors
from promptseg.mask import to_rle
from promptseg.model import Candidates, Training
from promptseg.prompt import Box, BoxPoints, Points
from promptseg.segmentation import (
    label_map,
    parse_box,
    parse_points,
    prompt_from,
    read_image,
    require_inside,
    segment,
    segment_everything,
    write_mask,
)
from promptseg.strategy import tight_box


def _image(index: int = 0) -> np.ndarray:
    return np.repeat(phantom(index)[0][:, :, None], 3, axis=2)


def test_the_object_in_the_box_is_returned():
    """The token that the model was trained for, at the image's size."""
    reference = phantom(0)[1]["disc"]
    result = segment(_image(), fakes.reference(), tight_box(reference))

    np.testing.assert_array_equal(result.mask, reference)
    assert (result.selection, result.off_protocol) == ("single", False)
    assert result.predicted_iou == pytest.approx(0.9)


def test_a_model_without_a_single_mask_token_answers_with_the_best_predicted():
    """Never by `oracle`, which needs to know the answer."""
    model = fakes.reference()
    model.training = Training(frozenset({"box"}), frozenset({"predicted", "oracle"}))

    assert segment(_image(), model, Box(5, 5, 40, 40)).selection == "predicted"


def test_a_prompt_that_the_model_was_not_trained_for_is_marked():
    """It runs, and says so."""
    prompt = BoxPoints(Box(5, 5, 40, 40), Points(np.array([[9.0, 9.0]]), np.array([True])))

    assert segment(_image(), fakes.reference(), prompt).off_protocol


def test_a_model_without_any_choice_is_said():
    """No single token and no predicted IoU: nothing can be chosen without the answer."""

    class Silent(fakes.Fake):
        def segment(self, embedding: fakes.Image, prompts: list[fakes.Prompt]) -> list[Candidates]:
            return [
                Candidates(np.zeros((2, 4, 4), np.float32), None, None, (0, 1)) for _ in prompts
            ]

    with pytest.raises(DataError, match="no candidate that can be chosen"):
        segment(_image(), Silent("silent", fakes.the_reference), Box(5, 5, 40, 40))


@pytest.mark.parametrize("corners", [(-1, 0, 5, 5), (0, 0, 81, 5), (0, -0.5, 5, 5), (0, 0, 5, 65)])
def test_a_box_outside_the_image_is_refused(corners: tuple[float, float, float, float]):
    """80 x 64 px: the line names the size and the rule."""
    with pytest.raises(DataError, match="80 x 64 px"):
        require_inside(Box(*corners), 80, 64)


def test_a_box_and_points_at_the_very_edge_are_inside():
    """Half-open boxes end at the size, points at the last pixel."""
    corner = Points(np.array([[79.0, 63.0], [0.0, 0.0]]), np.array([True, False]))
    require_inside(BoxPoints(Box(0, 0, 80, 64), corner), 80, 64)
    with pytest.raises(DataError, match="point lies outside"):
        require_inside(Points(np.array([[80.0, 3.0]]), np.array([True])), 80, 64)


def test_boxes_and_points_are_read_from_text():
    """Points lie on the object unless they say otherwise."""
    points = parse_points(["3,4", "5,6,-", "7, 8, +"])

    assert parse_box("1,2,3.5,4") == Box(1, 2, 3.5, 4)
    np.testing.assert_array_equal(points.xy, [[3, 4], [5, 6], [7, 8]])
    np.testing.assert_array_equal(points.positive, [True, False, True])
    assert prompt_from("1,2,3,4", []).kind == "box"
    assert prompt_from(None, ["1,2"]).kind == "points"
    assert prompt_from("1,2,3,4", ["1,2"]).kind == "box+points"


@pytest.mark.parametrize("text", ["", "1,2,3", "a,b,c,d", "1,2,3,4,5", "9,9,3,3", "nan,0,4,4"])
def test_a_box_that_is_none_is_refused(text: str):
    """Each in one line."""
    with pytest.raises(DataError):
        parse_box(text)


@pytest.mark.parametrize("texts", [["1"], ["1,2,3"], ["x,y"], [","], ["inf,2"]])
def test_points_that_are_none_are_refused(texts: list[str]):
    """Each in one line."""
    with pytest.raises(DataError):
        parse_points(texts)


def test_nothing_to_prompt_with_is_said():
    """Neither a box nor a point."""
    with pytest.raises(DataError, match="--box"):
        prompt_from(None, [])


def test_an_image_is_read_as_a_model_sees_it_and_a_mask_written(tmp_path: Path):
    """16-bit grey is brought to 0..255; the mask file holds 0 and 255 only."""
    deep = np.arange(1000, 1000 + 12, dtype=np.uint16).reshape(3, 4)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    image = read_image(tmp_path / "deep.png")
    write_mask(tmp_path / "mask.png", image[:, :, 0] > 100)

    assert (image.shape, int(image.min()), int(image.max())) == ((3, 4, 3), 0, 255)
    assert set(np.asarray(Image.open(tmp_path / "mask.png")).ravel()) == {0, 255}
    with pytest.raises(DataError, match="Cannot write"):
        write_mask(tmp_path / "mask.png/below.png", image[:, :, 0] > 100)


def test_everything_of_one_image_is_a_label_map(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Both objects of a phantom, 16 bits; the number 1 is the mask of the highest predicted IoU."""
    image, masks = phantom(3)
    Image.fromarray(image).save(tmp_path / "a.png")
    words = ("segment", tmp_path / "a.png", "--model", "fakes:all_of_it", "--everything")
    with pytest.raises(SystemExit) as raised:
        cli.main([str(w) for w in (*words, "--points-per-side", "12", "--out", tmp_path / "m.png")])
    with Image.open(tmp_path / "m.png") as picture:
        labels = np.asarray(picture)

    assert raised.value.code == 0
    assert set(np.unique(labels)) == {0, 1, 2}
    for mask in masks.values():
        (value,) = np.unique(labels[mask])
        assert value > 0
        assert (labels == value).sum() == mask.sum()
    assert "2 masks of" in capsys.readouterr().out


def test_the_best_mask_lies_over_those_that_follow():
    """Where survivors overlap, the one of the higher predicted IoU is seen."""
    small = np.zeros((6, 6), dtype=bool)
    small[2:4, 2:4] = True
    found = Survivors(
        (to_rle(small), to_rle(np.ones((6, 6), dtype=bool))),
        np.array([0.9, 0.8], dtype=np.float32),
        np.ones(2, dtype=np.float32),
        np.zeros((2, 2)),
        (6, 6),
        2,
    )

    assert (label_map(found) == np.where(small, 1, 2)).all()


def test_everything_by_a_model_that_cannot_is_one_line():
    """A model without multimask tokens has nothing to choose from."""
    model = fakes.planted()
    model.segment = lambda embedding, prompts: [
        Candidates(np.zeros((1, 9, 9), np.float32), None, 0, ()) for _ in prompts
    ]
    with pytest.raises(ModelError, match="needs multimask tokens"):
        segment_everything(np.zeros((9, 9, 3), dtype=np.uint8), model, 2)
