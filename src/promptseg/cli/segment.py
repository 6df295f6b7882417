"""`promptseg segment`: one image, one prompt, one mask."""

from pathlib import Path
from typing import Annotated

import typer

from promptseg.cli.option import Device, Json, Weights, load_models, usable_device
from promptseg.errors import DataError


def segment(
    image: Annotated[Path, typer.Argument(help="Image file: PNG, JPEG, TIFF, BMP.")],
    out: Annotated[Path, typer.Option(help="Mask to write: PNG, 0 and 255, of the image's size.")],
    model: Annotated[str, typer.Option(help="Model name, or package.module:name.")] = "litemedsam",
    box: Annotated[
        str | None, typer.Option(help="x0,y0,x1,y1 in pixels; x1 and y1 are excluded.")
    ] = None,
    point: Annotated[
        list[str] | None, typer.Option(help="x,y on the object, or x,y,- off it. Repeat.")
    ] = None,
    weights: Weights = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Segment one object in one image with a box, points, or both.

    promptseg segment slice.png --model litemedsam --box 120,80,210,190 --out mask.png
    """
    from promptseg.segmentation import prompt_from, read_image, require_inside, segment, write_mask
    from promptseg.terminal import err, print_json

    prompt = prompt_from(box, point or [])
    pixels = read_image(image)
    require_inside(prompt, pixels.shape[1], pixels.shape[0])
    if out.suffix.lower() != ".png":
        raise DataError(f"--out {out} has to end in .png.")
    if out.resolve() == image.resolve():
        raise DataError(f"--out {out} is the image itself. Choose another file.")
    (segmenter,) = load_models([model], weights, usable_device(device), "float32").values()
    result = segment(pixels, segmenter, prompt)
    write_mask(out, result.mask)
    if result.off_protocol:
        err.print(f"{segmenter.name} was not trained for {prompt.kind} prompts: do not trust this.")
    area = int(result.mask.sum())
    if area == 0:
        err.print("The mask is empty: the model found nothing at this prompt.")
    if as_json:
        print_json({"mask": str(out), "area_px": area, **result.facts()})
    else:
        print(f"{out}: {area} px of {pixels.shape[1]} x {pixels.shape[0]}")
