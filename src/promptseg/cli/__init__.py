"""The command line: one verb per function, thin over the Python API."""

import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from promptseg.cli import models
from promptseg.cli.corpus import corpus
from promptseg.cli.curate import curate
from promptseg.cli.evaluate import evaluate
from promptseg.cli.finetune import finetune
from promptseg.cli.report import demo, report
from promptseg.cli.segment import segment
from promptseg.errors import PromptsegError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Measure, compare and adapt promptable segmentation models on medical images. "
    "Start with [bold]promptseg demo[/bold]; then curate, evaluate and report your own data.",
    epilog="Exit codes: 0 done; 3 done, but samples failed (counted and listed), a corpus leaks, "
    "or a model breaks a promise; 2 could not start or had to stop (one line says why); 130 "
    "interrupted (the same command goes on).",
)
app.add_typer(models.app, name="models")
for verb in (demo, curate, corpus, evaluate, report, finetune, segment):
    app.command()(verb)


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
