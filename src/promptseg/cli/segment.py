"""`promptseg segment`: one image, one prompt, one mask."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptseg.cli.option import BackendName, Device, Json, Weights, load_models, usable_device
from promptseg.errors import DataError

if TYPE_CHECKING:
    from promptseg.expectation import Expected
    from promptseg.model import Segmenter
    from promptseg.prompt import Prompt
    from promptseg.segmentation import Segmented


def segment(
    image: Annotated[Path, typer.Argument(help="Image file: PNG, JPEG, TIFF, BMP.")],
    out: Annotated[Path, typer.Option(help="Mask to write: PNG, 0 and 255, of the image's size.")],
    model: Annotated[
        str, typer.Option(help="Model name, folder of a fine-tuned model, or package.module:name.")
    ] = "litemedsam",
    box: Annotated[
        str | None, typer.Option(help="x0,y0,x1,y1 in pixels; x1 and y1 are excluded.")
    ] = None,
    point: Annotated[
        list[str] | None, typer.Option(help="x,y on the object, or x,y,- off it. Repeat.")
    ] = None,
    everything: Annotated[
        bool,
        typer.Option(
            "--everything", help="All masks that a grid of points finds, instead of one object."
        ),
    ] = False,
    points_per_side: Annotated[
        int | None, typer.Option(help="Grid of --everything; else 32.", min=1, max=256)
    ] = None,
    expect: Annotated[
        Path | None,
        typer.Option(
            help="Also say what DICE to expect, by this file of report --predictor, or why not."
        ),
    ] = None,
    modality: Annotated[
        str | None, typer.Option(help="The image's, where --expect knows several: CT, X-ray ...")
    ] = None,
    weights: Weights = None,
    device: Device = "auto",
    backend: BackendName = "torch",
    as_json: Json = False,
) -> None:
    """Segment one object in one image with a box, points, or both; or everything in it.

    --everything writes the masks as a 16-bit label map: 1 is the mask of the highest predicted IoU,
    which lies over those that follow.

    promptseg segment slice.png --model litemedsam --box 120,80,210,190 --out mask.png
    """
    from promptseg.segmentation import prompt_from, read_image, require_inside

    if points_per_side is not None and not everything:
        raise DataError("--points-per-side is the grid of --everything, which is not asked for.")
    if everything and (box or point):
        raise DataError("--everything asks for all masks: leave out --box and --point.")
    _check_expect(expect, modality, everything=everything)
    prompt = None if everything else prompt_from(box, point or [])
    pixels = read_image(image)
    if prompt is not None:
        require_inside(prompt, pixels.shape[1], pixels.shape[0])
    if out.suffix.lower() != ".png":
        raise DataError(f"--out {out} has to end in .png.")
    if out.resolve() == image.resolve():
        raise DataError(f"--out {out} is the image itself. Choose another file.")
    where = usable_device(device, backend)
    (segmenter,) = load_models([model], weights, where, backend=backend).values()
    if prompt is None:
        _everything(segmenter, pixels, out, points_per_side, as_json=as_json)
    else:
        _one(segmenter, pixels, out, prompt, _asking(segmenter, expect, modality), as_json=as_json)


def _check_expect(expect: Path | None, modality: str | None, *, everything: bool) -> None:
    if modality is not None and expect is None:
        raise DataError("--modality is for --expect, which is not asked for.")
    if everything and expect is not None:
        raise DataError("--expect is of one object: leave out --everything.")


def _asking(
    model: "Segmenter[Any]", path: Path | None, modality: str | None
) -> "Callable[[Any, Prompt, Segmented], Expected] | None":
    """Read what DICE to expect of a model's answers; None where that is not asked for."""
    if path is None:
        return None
    from promptseg.expectation import Answered, read_predictor

    predictor = read_predictor(path)
    predictor.require_model(model.name, model.weights_hash)

    def ask(pixels: Any, prompt: "Prompt", found: "Segmented") -> "Expected":
        answer = Answered(
            model=model.name,
            weights_hash=model.weights_hash,
            selection=found.selection,
            image=pixels,
            prompt=prompt,
            mask=found.mask,
            predicted_iou=found.predicted_iou,
        )
        return predictor.after(answer, modality)

    return ask


def _one(
    model: "Segmenter[Any]",
    pixels: Any,
    out: Path,
    prompt: "Prompt",
    ask: "Callable[[Any, Prompt, Segmented], Expected] | None",
    *,
    as_json: bool,
) -> None:
    from promptseg.segmentation import segment, write_mask
    from promptseg.terminal import err, print_json

    result = segment(pixels, model, prompt)
    write_mask(out, result.mask)
    if result.off_protocol:
        err.print(f"{model.name} was not trained for {prompt.kind} prompts: do not trust this.")
    area = int(result.mask.sum())
    if area == 0:
        err.print("The mask is empty: the model found nothing at this prompt.")
    expected = None if ask is None else ask(pixels, prompt, result)
    if as_json:
        more = {} if expected is None else {"expected_dice": asdict(expected)}
        print_json({"mask": str(out), "area_px": area, **result.facts(), **more})
    else:
        print(f"{out}: {area} px of {pixels.shape[1]} x {pixels.shape[0]}")
        if expected is not None:
            print(expected.sentence())


def _everything(
    model: "Segmenter[Any]", pixels: Any, out: Path, points_per_side: int | None, *, as_json: bool
) -> None:
    from promptseg.segmentation import label_map, segment_everything, write_label_map
    from promptseg.terminal import err, print_json

    found = segment_everything(pixels, model, points_per_side)
    labels = label_map(found)
    write_label_map(out, labels)
    n_visible = len(set(labels.ravel().tolist()) - {0})
    if not model.training.covers("everything", "predicted"):
        err.print(f"{model.name} was not trained for everything: do not trust this.")
    if not found.masks:
        err.print("No mask survived: the model's thresholds reject all it found.")
    if as_json:
        scores = [round(float(iou), 4) for iou in found.predicted_iou]
        counts = {"n_masks": len(found.masks), "n_visible": n_visible}
        print_json({"labels": str(out), **counts, "predicted_iou": scores})
    else:
        hidden = len(found.masks) - n_visible
        covered = f", {hidden} of them hidden by better ones" if hidden else ""
        print(f"{out}: {len(found.masks)} masks of {found.n_candidates} candidates{covered}")
