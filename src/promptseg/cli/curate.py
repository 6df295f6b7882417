"""`promptseg curate`: a folder of images and masks becomes a corpus."""

from pathlib import Path
from typing import Annotated

import typer

from promptseg.cli.option import Json, words
from promptseg.errors import DataError, pick


def curate(
    source: Annotated[Path, typer.Argument(help="Folder with images/ and masks/ (or labels/).")],
    out: Annotated[Path, typer.Option(help="Corpus to write: a new or empty folder.")],
    modality: Annotated[
        str | None, typer.Option(help='Modality, as the study names it: CT, "T1W MRI", X-ray ...')
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Name; else the folder's.")] = None,
    subject_pattern: Annotated[
        str | None,
        typer.Option(
            help="Regular expression that finds the patient in a file's path: '(P[0-9]+)'."
        ),
    ] = None,
    spacing: Annotated[
        str | None, typer.Option(help="Pixel spacing Y,X in mm, where files do not say.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help='JSON of label names: {"1": "liver"}, {"liver": [1, 2]}.')
    ] = None,
    object_name: Annotated[
        str | None, typer.Option("--object", help="What a binary mask shows, if nothing says it.")
    ] = None,
    instances: Annotated[
        bool, typer.Option("--instances", help="Values of a mask number the instances of --object.")
    ] = False,
    threshold: Annotated[
        float | None, typer.Option(help="Make masks of soft ones: value > THRESHOLD.")
    ] = None,
    plane: Annotated[
        str | None, typer.Option(help="Cut volumes axial, coronal, sagittal or all.")
    ] = None,
    every: Annotated[
        int, typer.Option(help="Of stacks and videos, take every N-th frame only.", metavar="N")
    ] = 1,
    first_frame: Annotated[
        int | None,
        typer.Option(
            help="Number of the first frame's mask (VIDEO_0007.png): 0 or 1.", metavar="N"
        ),
    ] = None,
    min_area: Annotated[
        int, typer.Option(help="Leave out labels of at most this many pixels.")
    ] = 50,
    keep_empty: Annotated[
        bool, typer.Option("--keep-empty", help="Keep images without any target.")
    ] = False,
    licence: Annotated[
        str | None, typer.Option(help="Licence of the data, e.g. CC-BY-4.0.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Turn a folder of images and masks into a corpus that evaluate reads.

    Masks pair with images by name: one label map per image, or one file per object
    (IMAGE_liver.png), or a folder of files named like the image. NIfTI volumes are cut along their
    main plane; TIFF stacks, .npy arrays and videos give their frames (masks: a stack, or
    VIDEO_0007.png for a frame). What is left out is listed in the corpus, with the reason.

    promptseg curate heart/ --out heart.corpus --modality Cine-MRI --subject-pattern "_([0-9]+)_"
    """
    from promptseg.curation import Curation, curate
    from promptseg.reader.frame import PlaneChoice
    from promptseg.terminal import follow_curation, show_corpus

    settings = Curation(
        dataset=dataset,
        modality=modality,
        subject_pattern=subject_pattern,
        spacing_yx_mm=None if spacing is None else _spacing(spacing),
        labels=labels,
        licence=licence,
        keep_empty=keep_empty,
        min_area_px=min_area,
        plane=None if plane is None else pick(words(PlaneChoice), plane, "plane"),
        object_name=object_name,
        instances=instances,
        threshold=threshold,
        every=every,
        first_frame=first_frame,
    )
    info, drops = follow_curation(curate(source, out, settings))
    show_corpus(out, info, drops, as_json=as_json)


def _spacing(text: str) -> tuple[float, float]:
    try:
        y, x = (float(part) for part in text.split(","))
    except ValueError as error:
        raise DataError(
            f"Cannot read spacing {text!r}: expected Y,X in mm, as 0.7,0.7 ."
        ) from error
    if not (0 < y < float("inf") and 0 < x < float("inf")):
        raise DataError(f"Spacing {text!r} has to be positive.")
    return y, x
