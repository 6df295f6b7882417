"""`promptseg corpus`: what is in corpora, what is in them twice, and what it looks like."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptseg.cli.option import Json
from promptseg.errors import DataError

if TYPE_CHECKING:
    from promptseg.duplicates import Pair
    from promptseg.inventory import Inventory

EXIT_LEAKS = 3
MOST_PAIRS = 20  # printed; --json has all


def corpus(
    corpora: Annotated[list[Path], typer.Argument(help="Corpora made by curate.")],
    sheet: Annotated[
        Path | None,
        typer.Option(help="HTML file to write: some images of every task, masks drawn in."),
    ] = None,
    per_task: Annotated[
        int, typer.Option(help="How many targets of a task are drawn.", min=1, max=200)
    ] = 12,
    duplicates: Annotated[
        bool,
        typer.Option(
            "--duplicates",
            help="Look for images that are there twice, or nearly: within a corpus across "
            "subjects and splits, and across all corpora given.",
        ),
    ] = False,
    allow_leak: Annotated[
        list[str] | None,
        typer.Option(help="Image or data set that may be on both sides. Repeat for several."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Tell what is in a corpus: tasks, subjects, splits, licences, what was left out, and why.

    promptseg corpus heart.corpus --sheet heart.html

    promptseg corpus train.corpus test.corpus --duplicates

    Ends with 3 where an image is in two splits or in two corpora (a leak) that is not allowed.
    """
    from promptseg.corpus import open_corpus
    from promptseg.inventory import take
    from promptseg.terminal import follow_duplicates, follow_sheet

    if sheet is not None and sheet.suffix.lower() not in {".html", ".htm"}:
        raise DataError(f"--sheet {sheet} has to end in .html.")
    if sheet is not None and len(corpora) > 1:
        raise DataError("--sheet shows one corpus. Write one for each.")
    opened = [open_corpus(path) for path in corpora]
    taken = [take(one) for one in opened]
    if sheet is not None:
        follow_sheet(opened[0], taken[0], sheet, per_task)
    found = follow_duplicates(opened) if duplicates else None
    leaks = [p for p in found or () if p.is_leak and not p.is_allowed(allow_leak or ())]
    (_print_json if as_json else _print)(taken, found, leaks)
    if sheet is not None and not as_json:
        print(sheet)
    if leaks:
        raise typer.Exit(EXIT_LEAKS)


def _print_json(
    taken: "Sequence[Inventory]", found: "Sequence[Pair] | None", leaks: "Sequence[Pair]"
) -> None:
    from promptseg.terminal import print_json

    told: dict[str, Any] = {"corpora": [asdict(one) for one in taken]}
    if found is not None:
        told["pairs"] = [{**asdict(pair), "is_leak": pair in leaks} for pair in found]
    print_json(told)


def _print(
    taken: "Sequence[Inventory]", found: "Sequence[Pair] | None", leaks: "Sequence[Pair]"
) -> None:
    from promptseg.terminal import show_inventory

    for one in taken:
        show_inventory(one)
    if found is None:
        return
    for pair in [*leaks, *(pair for pair in found if pair not in leaks)][:MOST_PAIRS]:
        print(f"{'LEAK: ' if pair in leaks else ''}{pair.told()}")
    more = f" ({len(found) - MOST_PAIRS} more by --json)" if len(found) > MOST_PAIRS else ""
    print(f"{len(found)} pairs of images look the same{more}; {len(leaks)} are leaks.")
