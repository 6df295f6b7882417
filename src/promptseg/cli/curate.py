"""`promptseg curate`: a folder of images and masks becomes a corpus."""

import os
from pathlib import Path
from typing import Annotated

import typer

from promptseg.cli.option import Json, words
from promptseg.errors import DataError, pick

SPLITS, PRIVACY, WORK = "Splits", "What is called what", "How the work is done"


def curate(
    source: Annotated[
        Path, typer.Argument(help="Folder with images/ and masks/ (or labels/), or of DICOM.")
    ],
    out: Annotated[
        str | None,
        typer.Option(
            help="Corpus to write: a new or empty folder, or a URL (s3://bucket/corpus). With "
            "--look, page or folder."
        ),
    ] = None,
    look: Annotated[
        bool,
        typer.Option("--look", help="Look first: draw what is there, and propose a mapping file."),
    ] = False,
    mapping: Annotated[
        Path | None,
        typer.Option(help="TOML file that says which files are images, and which what masks."),
    ] = None,
    modality: Annotated[
        str | None,
        typer.Option(help='Modality, as the study names it: CT, "T1W MRI" ... DICOM may say it.'),
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
    intensity: Annotated[
        str | None,
        typer.Option(
            help="Which values are black and white: min-max, percentile:0.5-99.5, window:lung "
            "(soft-tissue, mediastinum, liver, bone, brain, ...), window:LEVEL/WIDTH, "
            "window:dicom (the header's), released (the study's code), none. Else min-max, and "
            "8-bit pictures as they are."
        ),
    ] = None,
    per: Annotated[
        str | None, typer.Option(help="min-max and percentile: over each volume, or each slice.")
    ] = None,
    tile: Annotated[
        int | None, typer.Option(min=16, help="Cut images of more pixels a side into tiles.")
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
    citation: Annotated[str | None, typer.Option(help="How to cite the data.")] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Divide subjects, each task in these shares: train=0.7,val=0.1,test=0.2. Subjects "
            "with the same image, or nearly so, stay together.",
            rich_help_panel=SPLITS,
        ),
    ] = None,
    split_by: Annotated[
        str,
        typer.Option(help="subject; or image, where no patient has two.", rich_help_panel=SPLITS),
    ] = "subject",
    split_seed: Annotated[
        int, typer.Option(help="Another draw of --split.", min=0, rich_help_panel=SPLITS)
    ] = 0,
    split_pattern: Annotated[
        str | None,
        typer.Option(
            help="Or: regular expression that finds the split in a path: '/(train|test)/'. A "
            "subject or an image in two splits is an error.",
            rich_help_panel=SPLITS,
        ),
    ] = None,
    allow_leak: Annotated[
        list[str] | None,
        typer.Option(
            help="Image or data set that may be in two splits. Repeat for several.",
            rich_help_panel=SPLITS,
        ),
    ] = None,
    names: Annotated[
        str | None,
        typer.Option(
            help="keep the names of files, or hash them and what they tell of subjects under "
            "--key. (default: keep, but hash where there is DICOM)",
            rich_help_panel=PRIVACY,
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            help="File of the secret key, made if it is not there; keep it apart from the corpus. "
            "(default: one in your settings folder)",
            envvar="PROMPTSEG_KEY",
            rich_help_panel=PRIVACY,
        ),
    ] = None,
    names_out: Annotated[
        Path | None,
        typer.Option(
            help="Also write which image is which file (CSV): for your eyes, not for the corpus.",
            rich_help_panel=PRIVACY,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that read; a file that crashes one is left out. 0 reads in this one, "
            "unprotected. (default: one per core)",
            min=0,
            rich_help_panel=WORK,
        ),
    ] = None,
    memory: Annotated[
        float,
        typer.Option(help="GiB that reading one file may take.", min=0.25, rich_help_panel=WORK),
    ] = 2.0,
    as_json: Json = False,
) -> None:
    """Turn a folder of images and masks into a corpus that evaluate reads.

    Masks pair with images by name: one label map per image, or one file per object
    (IMAGE_liver.png), or a folder of files named like the image. DICOM (with SEG and RTSTRUCT)
    pairs by itself. Volumes (also NIfTI, NRRD, MetaImage, Analyze) are cut along their main plane;
    TIFF stacks, .npy arrays and videos give their frames (masks: a stack, or VIDEO_0007.png for a
    frame). Where names do not tell, a mapping file does, which --look proposes. What is left out is
    listed in the corpus, with the reason.

    promptseg curate heart/ --look --out look/

    promptseg curate heart/ --out heart.corpus --modality Cine-MRI --subject-pattern "(P[0-9]+)_"
    """
    from promptseg.curation import Curation, curate
    from promptseg.curation.settings import NamesOf, SplitBy
    from promptseg.isolated import GIB, Limits
    from promptseg.reader.intensity import intensity_rule
    from promptseg.reader.reading import PlaneChoice
    from promptseg.terminal import follow_curation, show_corpus

    if look:
        _look(source, None if out is None else Path(out), mapping, as_json=as_json)
        return
    if out is None:
        raise DataError("Say where the corpus goes by --out, or look first by --look.")
    settings = Curation(
        mapping=mapping,
        dataset=dataset,
        modality=modality,
        subject_pattern=subject_pattern,
        spacing_yx_mm=None if spacing is None else _spacing(spacing),
        labels=labels,
        licence=licence,
        citation=citation,
        keep_empty=keep_empty,
        min_area_px=min_area,
        plane=None if plane is None else pick(words(PlaneChoice), plane, "plane"),
        intensity=intensity_rule(intensity, per),
        tile_px=tile,
        object_name=object_name,
        instances=instances,
        threshold=threshold,
        split=split,
        split_by=pick(words(SplitBy), split_by, "split-by"),
        split_seed=split_seed,
        split_pattern=split_pattern,
        allow_leaks=tuple(allow_leak or ()),
        names=None if names is None else pick(words(NamesOf), names, "names"),
        key=key or Path(typer.get_app_dir("promptseg")) / "key",
        every=every,
        first_frame=first_frame,
    )
    steps = curate(
        source,
        out,
        settings,
        workers=(os.cpu_count() or 1) if workers is None else workers,
        limits=Limits(memory_bytes=int(memory * GIB)),
        names_out=names_out,
    )
    info, drops = follow_curation(steps)
    show_corpus(out, info, drops, as_json=as_json)


def _look(source: Path, out: Path | None, mapping: Path | None, *, as_json: bool) -> None:
    """Write the page of a first look and say where it is."""
    from promptseg.look import look_apart
    from promptseg.terminal import print_json, print_table

    first = look_apart(source, out or Path(f"{source.resolve().name}.look"), mapping)
    if as_json:
        sections = [{"path": s.title, "what": s.what, "masks": s.n_masks} for s in first.sections]
        told = {"page": first.page, "mapping": first.mapping, "images": first.n_images}
        print_json({**told, "masks": sections, "left_out": first.reasons, "error": first.error})
        return
    rows = [[s.title, str(s.n_masks), s.what] for s in first.sections]
    images = "1 image" if first.n_images == 1 else f"{first.n_images} images"
    print_table(f"{first.folder}: {images}", ["masks", "files", "taken for"], rows)
    for reason, count in first.reasons.items():
        print(f"  left out {count}: {reason}")
    if first.error:
        print(f"The proposal cannot be used yet: {first.error}")
    print(f"Look at {first.page}, and change {first.mapping}.")


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
