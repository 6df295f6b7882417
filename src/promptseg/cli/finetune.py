"""`promptseg finetune`: adapt a model to a corpus, and show what it gained on held-out subjects."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptseg.cli.curve import asked_curve, show_curve
from promptseg.cli.option import Device, Json, Weights, usable_device, words
from promptseg.cli.training import follow_training, show_training
from promptseg.cli.tuning import division_of, name_of, settings_of
from promptseg.errors import ModelError, pick

if TYPE_CHECKING:
    from promptseg.tuning.run import Job
    from promptseg.tuning.settings import Settings

DATA, MODEL, PROMPTS, OPTIMISER, WORK = (
    "Who is trained on, and who is held out", "What is trained", "How targets are asked for",
    "How it is trained", "How the work is done",
)  # fmt: skip


def finetune(
    corpus: Annotated[list[Path], typer.Argument(help="One corpus or more, made by curate.")],
    out: Annotated[Path, typer.Option(help="Folder to write, or to go on with.")],
    model: Annotated[
        str, typer.Option(help="Model name, folder of a trained one, or package.module:function.")
    ] = ("litemedsam"),
    weights: Weights = None,
    method: Annotated[
        str,
        typer.Option(
            help="decoder: the mask decoder (the study's); lora: low-rank adapters in the encoder; "
            "both; full: encoder and decoder.",
            rich_help_panel=MODEL,
        ),
    ] = "decoder",
    preset: Annotated[
        str,
        typer.Option(
            help="promptseg, or paper (20 epochs at 1e-4, batch 2, exact boxes, single mask). "
            "Options that are given change it.",
            rich_help_panel=OPTIMISER,
        ),
    ] = "promptseg",
    prompts: Annotated[
        str | None,
        typer.Option(
            help="box, points, mixed (both), or clicks (mixed, and corrected). (default: box)",
            rich_help_panel=PROMPTS,
        ),
    ] = None,
    jitter: Annotated[
        str | None,
        typer.Option(
            help="Half of the boxes miss by MODE:UNIT:LO-HI; none: all exact. (default: "
            "edge:rel:0-0.1; paper: none)",
            rich_help_panel=PROMPTS,
        ),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            help="Of clicks: corrections per target at most. (default: 2)",
            min=1,
            rich_help_panel=PROMPTS,
        ),
    ] = None,
    max_targets: Annotated[
        int | None,
        typer.Option(
            help="At most N targets of an image in a step: bounds the memory. (default: 8)",
            min=1,
            rich_help_panel=PROMPTS,
        ),
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(
            help="Mask tokens that are trained: single, multimask, both. (default: both; paper: "
            "single)",
            rich_help_panel=MODEL,
        ),
    ] = None,
    score: Annotated[
        str | None,
        typer.Option(
            help="Selection that chooses the best state, as a user will: single or predicted. "
            "(default: single)",
            rich_help_panel=MODEL,
        ),
    ] = None,
    prompt_encoder: Annotated[
        bool | None,
        typer.Option(
            "--prompt-encoder/--no-prompt-encoder",
            help="Train the embeddings of points and corners too.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    lora_rank: Annotated[
        int | None,
        typer.Option(help="Rank of the adapters. (default: 8)", min=1, rich_help_panel=MODEL),
    ] = None,
    lora_targets: Annotated[
        str | None,
        typer.Option(
            help="Regular expression of the linear layers that get adapters. (default: those of "
            "the encoder's last two stages)",
            rich_help_panel=MODEL,
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            help="Train only on targets for which this holds: \"object = 'liver'\". Held-out "
            "subjects are scored on all of theirs.",
            rich_help_panel=DATA,
        ),
    ] = None,
    test_subject: Annotated[
        list[str] | None,
        typer.Option(
            help="Hold out this subject (or dataset/subject); repeat. Else the corpus's own "
            "splits, else a share of the subjects, drawn by the seed.",
            rich_help_panel=DATA,
        ),
    ] = None,
    test_share: Annotated[
        float,
        typer.Option(
            help="Subjects held out, where the corpus has no splits; 0: none are, for tests on "
            "other corpora (--also).",
            min=0,
            max=0.9,
            rich_help_panel=DATA,
        ),
    ] = 0.2,
    val_share: Annotated[
        float,
        typer.Option(
            help="Subjects that choose the best state, where the corpus has no splits; 0: none "
            "do, the last state counts.",
            min=0,
            max=0.9,
            rich_help_panel=DATA,
        ),
    ] = 0.15,
    split_by: Annotated[
        str,
        typer.Option(
            help="subject; or image, where no patient has two images.", rich_help_panel=DATA
        ),
    ] = "subject",
    also: Annotated[
        list[Path] | None,
        typer.Option(
            help="Score before and after on this corpus too: what was forgotten. Repeat.",
            rich_help_panel=DATA,
        ),
    ] = None,
    curve: Annotated[
        str | None,
        typer.Option(
            help="How many cases are needed: train on so many subjects, as 2,4,8,all or "
            "25%,50%,100%, and score each on those held out.",
            rich_help_panel=DATA,
        ),
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(
            help="Of a curve: draws of subjects per size. (default: 3)",
            min=1,
            rich_help_panel=DATA,
        ),
    ] = None,
    unit: Annotated[
        str, typer.Option(help="class, instance or component.", rich_help_panel=DATA)
    ] = "class",
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Times that every image is trained on. (default: 20)",
            min=1,
            rich_help_panel=OPTIMISER,
        ),
    ] = None,
    min_steps: Annotated[
        int | None,
        typer.Option(
            help="Multiply the epochs of few images until there are so many steps. (default: "
            "120; with --epochs, and of paper: 0)",
            min=0,
            rich_help_panel=OPTIMISER,
        ),
    ] = None,
    val_every: Annotated[
        int | None,
        typer.Option(
            help="Epochs between validations. (default: 1)", min=1, rich_help_panel=OPTIMISER
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="At the start. (default: 3e-4, falling by a cosine; paper: 1e-4, constant)",
            rich_help_panel=OPTIMISER,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Images per step. (default: 2)", min=1, rich_help_panel=OPTIMISER),
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            help="none, flips, dihedral (flips and quarter turns), or full (with --no-cache). "
            "(default: dihedral; paper: none)",
            rich_help_panel=OPTIMISER,
        ),
    ] = None,
    overfit_steps: Annotated[
        int | None,
        typer.Option(
            help="Steps of the check that one batch can be learned by heart; 0 leaves it out. "
            "(default: 30)",
            min=0,
            rich_help_panel=OPTIMISER,
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            help="Of the split, the order, the augmentation and the prompts.",
            min=0,
            max=2**31 - 1,
            rich_help_panel=OPTIMISER,
        ),
    ] = 0,
    cache: Annotated[
        bool | None,
        typer.Option(
            "--cache/--no-cache",
            help="Keep what the frozen stages give on disk. (default: yes, but for full)",
            rich_help_panel=WORK,
        ),
    ] = None,
    cache_dtype: Annotated[
        str | None,
        typer.Option(help="float16 or float32. (default: float16)", rich_help_panel=WORK),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="no (float32), or bf16 (mixed).", rich_help_panel=WORK)
    ] = "no",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Adapt a model to a corpus, check that it was trained right, and score it before and after.

    Subjects are held out whole. OUT/model loads as --model; OUT/report.html shows what was gained
    on subjects that the training never saw, and what was forgotten. An interrupted training goes
    on by the same command. TensorBoard: tensorboard --logdir OUT/log.

    promptseg finetune heart.corpus --out heart-tuned

    promptseg finetune heart.corpus --method lora --prompts mixed --also pancreas.corpus --out all

    promptseg finetune heart.corpus --curve 2,4,8,all --out heart-curve

    torchrun --nproc-per-node 2 -m promptseg finetune heart.corpus --out heart-tuned
    """
    from promptseg.corpus import open_corpus
    from promptseg.models import load_model
    from promptseg.sample import Unit

    learning = asked_curve(curve, repeats, also)
    settings = settings_of(
        preset,
        method=method,
        prompts=prompts,
        jitter=jitter,
        rounds=rounds,
        max_targets=max_targets,
        tokens=tokens,
        score=score,
        prompt_encoder=prompt_encoder,
        lora_rank=lora_rank,
        lora_targets=lora_targets,
        where=where,
        unit=pick(words(Unit), unit, "unit"),
        epochs=epochs,
        min_steps=min_steps,
        val_every=val_every,
        learning_rate=learning_rate,
        batch_size=batch_size,
        augmentation=augment,
        overfit_steps=overfit_steps,
        seed=seed,
        cached=method != "full" if cache is None else cache,
        cache_dtype=cache_dtype,
        precision=precision,
    )
    division = division_of(test_subject or [], test_share, val_share, split_by, seed)
    where_to = usable_device(device)
    corpora = tuple(map(open_corpus, corpus))
    accelerator = _accelerator(where_to, settings)
    base = load_model(model, weights=weights, device=str(accelerator.device))
    job = _job(
        corpora=corpora,
        model=base,
        asked=model,
        name=name_of(out, base.name),
        settings=settings,
        division=division,
        folder=out,
        also=tuple(map(open_corpus, also or [])),
    )
    check_base(job)
    if learning is not None:
        raise typer.Exit(show_curve(job, learning, accelerator, as_json=as_json))
    outcome = follow_training(job, accelerator)
    code = 0
    if accelerator.is_main_process:
        code = show_training(job, outcome, weights=weights, as_json=as_json)
    accelerator.end_training()
    raise typer.Exit(code)


def _accelerator(device: str, settings: "Settings") -> Any:
    from promptseg.tuning.run import make_accelerator

    return make_accelerator(device, settings.precision)


def check_base(job: "Job") -> None:
    """Refuse a word that names one object: it could not be had again as it was, to compare with."""
    from promptseg.models import load_model

    if ":" in job.asked and load_model(job.asked) is job.model:
        raise ModelError(
            f"{job.asked} names one object, which training changes: let it name a function that "
            "makes the model."
        )


def _job(**given: Any) -> "Job":
    from promptseg.tuning.run import Job

    return Job(**given)
