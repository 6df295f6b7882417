"""`promptseg evaluate`: models, or masks made elsewhere, on a corpus."""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptseg.cli.option import (
    BackendName,
    Device,
    Json,
    Weights,
    load_models,
    usable_device,
    words,
)
from promptseg.errors import DataError, pick

if TYPE_CHECKING:
    from promptseg.corpus import Corpus
    from promptseg.plan import Plan
    from promptseg.predictions import Predictions
    from promptseg.prompt import Everything

ASKED, PROMPTS, SUBSET, SCORES, WORK = (
    "Who answers", "How targets are asked for", "What of the corpus", "How answers are scored",
    "How the work is done",
)  # fmt: skip


def evaluate(
    corpus: Annotated[Path, typer.Argument(help="Corpus made by curate.")],
    out: Annotated[Path, typer.Option(help="Run to write, or to go on with.")],
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Model name, folder of a fine-tuned model, or package.module:name. Repeat for "
            "several. (default: litemedsam)",
            rich_help_panel=ASKED,
        ),
    ] = None,
    weights: Weights = None,
    masks: Annotated[
        list[Path] | None,
        typer.Option(
            help="Instead of a model: folder of the masks that another tool predicted (label maps, "
            "a file per object, or NIfTI on the volume's grid), named like the images.",
            rich_help_panel=ASKED,
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help='Of --masks: JSON of label names, {"1": "liver"}.', rich_help_panel=ASKED
        ),
    ] = None,
    instances: Annotated[
        bool,
        typer.Option(
            "--instances", help="Of --masks: values number instances.", rich_help_panel=ASKED
        ),
    ] = False,
    threshold: Annotated[
        float | None,
        typer.Option(help="Of --masks: make masks of soft ones.", rich_help_panel=ASKED),
    ] = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            help="everything, point1, points5, points5+5, box, box+point; all means these six. "
            "(default: box)",
            rich_help_panel=PROMPTS,
        ),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            help="paper: the study's prompt rule done right; released: its code, bug for bug.",
            rich_help_panel=PROMPTS,
        ),
    ] = "paper",
    jitter: Annotated[
        list[str] | None,
        typer.Option(
            help="Ask also with prompts that miss: MODE:UNIT:LO-HI, as shift:px:10-20. Modes: "
            "centre (first point), all (points), shift (box), edge (each edge). Units: px, rel "
            "(of the square root of the area). Repeat for several levels.",
            rich_help_panel=PROMPTS,
        ),
    ] = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(
            help="Seed of everything random; repeat to jitter several times. (default: 0)",
            min=0,
            max=2**63 - 1,
            rich_help_panel=PROMPTS,
        ),
    ] = None,
    points_per_side: Annotated[
        int | None,
        typer.Option(help="Grid of everything; else 32.", min=1, max=256, rich_help_panel=PROMPTS),
    ] = None,
    pred_iou_thresh: Annotated[
        float | None,
        typer.Option(
            help="Everything keeps masks of a higher predicted IoU; else the model's own threshold "
            "(`promptseg models show`). SAM's: 0.88.",
            rich_help_panel=PROMPTS,
        ),
    ] = None,
    stability_score_thresh: Annotated[
        float | None,
        typer.Option(help="... of at least this stability. SAM's: 0.95.", rich_help_panel=PROMPTS),
    ] = None,
    stability_score_offset: Annotated[
        float | None,
        typer.Option(
            help="Stability compares the areas at logits this far above and below 0. SAM's: 1.",
            rich_help_panel=PROMPTS,
        ),
    ] = None,
    box_nms_thresh: Annotated[
        float | None,
        typer.Option(
            help="... whose box overlaps no better one's by more. SAM's: 0.7.",
            rich_help_panel=PROMPTS,
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Only images of this split.", rich_help_panel=SUBSET)
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            help="Only targets for which this holds: \"modality = 'CT' AND area_px > 100\".",
            rich_help_panel=SUBSET,
        ),
    ] = None,
    per_task: Annotated[
        int | None,
        typer.Option(
            help="At most N targets per task, spread over subjects and through volumes.",
            min=1,
            rich_help_panel=SUBSET,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(help="At most N images, spread likewise.", min=1, rich_help_panel=SUBSET),
    ] = None,
    max_targets_per_image: Annotated[
        int | None,
        typer.Option(
            help="At most N targets of an image, drawn by the seed.", min=1, rich_help_panel=SUBSET
        ),
    ] = None,
    unit: Annotated[
        str,
        typer.Option(
            help="Score class (all instances of an object), instance or component.",
            rich_help_panel=SCORES,
        ),
    ] = "class",
    nsd_tolerance: Annotated[
        float,
        typer.Option(
            help="Tolerance of NSD, in mm (px without spacing).",
            min=0.0,
            max=1e6,
            rich_help_panel=SCORES,
        ),
    ] = 2.0,
    save_masks: Annotated[
        str,
        typer.Option(
            help="Keep none, the selected, or all predicted masks.", rich_help_panel=SCORES
        ),
    ] = "selected",
    trained_on: Annotated[
        list[str] | None,
        typer.Option(
            help="A data set of the corpus that the models, or the tool, were trained on: its "
            "results are marked and kept out of headlines and rankings. Repeat for several.",
            rich_help_panel=SCORES,
        ),
    ] = None,
    device: Device = "auto",
    dtype: Annotated[
        str,
        typer.Option(help="float32, bfloat16 or float16, of the encoder.", rich_help_panel=WORK),
    ] = "float32",
    backend: BackendName = "torch",
    batch_size: Annotated[
        int,
        typer.Option(
            help="Prompts of one strategy decoded at a time: bounds the memory.",
            min=1,
            rich_help_panel=WORK,
        ),
    ] = 64,
    workers: Annotated[
        int,
        typer.Option(
            help="Threads that score while the model goes on.", min=1, rich_help_panel=WORK
        ),
    ] = 1,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed", help="Try again what failed in this run.", rich_help_panel=WORK
        ),
    ] = False,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile",
            help="Tell where the time went, stage by stage; kept in the run as profile.json.",
            rich_help_panel=WORK,
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Prompt models on every target of a corpus, score every mask, and write a run.

    Each image is read and embedded once for all prompts. An interrupted run goes on by the same
    command.

    promptseg evaluate heart.corpus --model litemedsam-points --strategy all --out heart.run

    promptseg evaluate heart.corpus --strategy box --jitter shift:px:0-10 --jitter shift:px:10-20
    --seed 0 --seed 1 --seed 2 --out jitter.run

    promptseg evaluate heart.corpus --masks my_network/ --out network.run
    """
    from promptseg.stages import Stopwatch

    stopwatch = Stopwatch()  # before what is heavy is imported
    from promptseg.corpus import open_corpus
    from promptseg.plan import Plan, SaveMasks, plan_of_masks
    from promptseg.record import start_run
    from promptseg.run import describe_run, keep_profile
    from promptseg.sample import Unit
    from promptseg.subset import Choice
    from promptseg.terminal import choose, run_plan, say_unit, show_outcome

    plan = _valid(
        Plan,
        strategies=_strategies(strategy or ["box"], protocol),
        unit=pick(words(Unit), unit, "unit"),
        seeds=tuple(dict.fromkeys(seed or [0])),
        jitter=_jitters(jitter or []),
        max_targets=max_targets_per_image,
        nsd_tolerance=nsd_tolerance,
        save_masks=pick(words(SaveMasks), save_masks, "choice of masks to save"),
        batch_size=batch_size,
        workers=workers,
    )
    change = _Thresholds(
        points_per_side=points_per_side,
        pred_iou_thresh=pred_iou_thresh,
        stability_score_thresh=stability_score_thresh,
        stability_score_offset=stability_score_offset,
        box_nms_thresh=box_nms_thresh,
    )
    data = open_corpus(corpus)
    where_to = usable_device(device, backend)
    choice = Choice(split=split, where=where, per_task=per_task, limit=limit)
    subset = choose(data, choice, plan)
    reading = {"labels": labels, "instances": instances, "threshold": threshold}
    if masks:
        asking = {"model": model, "strategy": strategy, "jitter": jitter, "weights": weights}
        unusual = {"protocol": protocol != "paper", "backend": backend != "torch"}
        unusual["dtype"] = dtype != "float32"
        _refuse(WITH_MASKS, asking | unusual | change.given())
        answering: dict[str, Any] = _predictions(masks, data, **reading)
        plan = plan_of_masks(plan)
    else:
        _refuse("a model: they say how --masks are read", reading)
        answering = load_models(model or ["litemedsam"], weights, where_to, dtype, backend)
        plan = replace(plan, everything=change.of(plan, answering.values()))
    say_unit(data, plan)
    run = describe_run(data, answering, plan, subset=subset, device=where_to, dtype=dtype)
    run = replace(run, trained_on=_with(run.trained_on, run.models, trained_on or []))
    folder = start_run(out, run)
    stopwatch.so_far("loading")
    told = stopwatch if profile else None
    run_plan(
        data, answering, plan, folder, subset=subset, retry_failed=retry_failed, stopwatch=told
    )
    times = told.profile() if told else None
    if times is not None:
        keep_profile(folder, times)
    raise typer.Exit(show_outcome(folder, as_json=as_json, profile=times))


def _valid(make: Any, **settings: Any) -> Any:
    """Make a value of settings; what it refuses is the user's to mend."""
    try:
        return make(**settings)
    except ValueError as error:
        raise DataError(f"Cannot evaluate like that: {error}.") from error


def _strategies(names: list[str], protocol: str) -> tuple[Any, ...]:
    from promptseg.released import PROTOCOLS

    table = pick(PROTOCOLS, protocol, "protocol")
    unique = list(dict.fromkeys(table if "all" in names else names))
    return tuple(pick(table, name, "strategy") for name in unique)


def _jitters(texts: list[str]) -> tuple[Any, ...]:
    from promptseg.jitter import parse_jitter

    return tuple(dict.fromkeys(parse_jitter(text) for text in texts))


def _with(
    declared: Mapping[str, list[str]], models: Iterable[str], names: list[str]
) -> dict[str, list[str]]:
    """Add what the user says that all models were trained on."""
    told = {model: list(dict.fromkeys([*declared.get(model, []), *names])) for model in models}
    return {model: own for model, own in told.items() if own}


WITH_MASKS = (
    "--masks, which are scored as they are. Evaluate the model into a run of its own, and give "
    "both runs to promptseg report"
)


def _refuse(what: str, options: Mapping[str, Any]) -> None:
    """Refuse options that would do nothing: the user means something by them."""
    given = (name for name, value in options.items() if value is not None and value is not False)
    if names := [f"--{name.replace('_', '-')}" for name in given]:
        raise DataError(f"{', '.join(names)} cannot go with {what}.")


def _predictions(folders: list[Path], corpus: "Corpus", **reading: Any) -> "dict[str, Predictions]":
    from promptseg.predictions import open_predictions
    from promptseg.terminal import err

    options = [word for name, value in reading.items() for word in _option(name, value)]
    opened = {
        shlex.join([str(folder), *options]): open_predictions(folder, corpus, **reading)
        for folder in folders
    }
    if len({one.name for one in opened.values()}) < len(opened):
        raise DataError("Two of the folders of --masks have one name; rename one of them.")
    for one in opened.values():
        if one.unpaired:
            err.print(f"{one.name}: {one.unpaired} files belong to no image of the corpus.")
    return opened


def _option(name: str, value: Any) -> list[str]:
    """Write an option as it was given, or not at all."""
    if value is None or value is False:  # 0 is a threshold
        return []
    return [f"--{name}"] if value is True else [f"--{name}", str(value)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Thresholds:
    """What the command line changes of every model's own settings of everything."""

    points_per_side: int | None
    pred_iou_thresh: float | None
    stability_score_thresh: float | None
    stability_score_offset: float | None
    box_nms_thresh: float | None

    def given(self) -> dict[str, Any]:
        """List what was given, 0 included."""
        changes = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in changes.items() if value is not None}

    def of(self, plan: "Plan", models: "Any") -> "dict[str, Everything]":
        """Give every model its settings, where everything is asked for."""
        given = self.given()
        if all(strategy.make is not None for strategy in plan.strategies):
            if given:
                options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
                raise DataError(f"{options} is for --strategy everything, which is not asked for.")
            return {}
        return {
            model.name: _valid(_changed, of=plan.everything_of(model), **given) for model in models
        }


def _changed(of: "Everything", **given: Any) -> "Everything":
    return replace(of, **given)
