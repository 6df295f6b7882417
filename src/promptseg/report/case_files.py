"""Where the cases of a report are kept: within the page, or in a folder beside it.

A page that was opened from a disk may load scripts and pictures beside it, but no data; so the
folder holds scripts that hand their data over.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from promptseg.corpus import Corpus
from promptseg.errors import DataError
from promptseg.parquet import write_atomically
from promptseg.record import RunFolder
from promptseg.report.case_pictures import Detail, draw_cases
from promptseg.report.cases import Cases, as_json
from promptseg.report.picture import as_uri
from promptseg.report.words import count, plural

MOST_IN_PAGE = 2000  # cases; with more, they lie beside the page
PER_FILE = 100  # cases of a file beside the page
OURS = re.compile(r"(cases|details-\d+)\.js|\d+(-near)?\.(png|jpeg)")  # what may be there


@dataclass(frozen=True, slots=True)
class CasesPart:
    """What the page needs to show cases: its data, or the folder they lie in."""

    lines: tuple[str, ...]
    problems: tuple[str, ...]
    columns: str | None  # JSON
    details: str | None  # JSON
    pictures: str | None  # JSON
    folder: str | None


def keep_cases(
    cases: Cases, runs: Sequence[RunFolder], corpora: Mapping[str, Corpus], page: Path | None
) -> CasesPart:
    """Draw the cases, and keep them in the page or, if they are many, in a folder beside it.

    Without a `page` they are kept in it, however many.

    Raises
    ------
    DataError
        The folder beside the page holds something else, or cannot be written.
    """
    folder = None
    if page is not None and cases.n_shown > MOST_IN_PAGE:
        folder = page.with_name(f"{page.stem}-cases")
        _make_room(folder)
    details: list[Detail | None] = [None] * cases.n_shown
    pictures: dict[str, str] = {}
    problems: dict[str, None] = {}
    for one in draw_cases(cases, runs, corpora):
        if isinstance(one, str):
            problems[one] = None
            continue
        details[one.case] = _merged(details[one.case], one.detail)
        for name, content in one.pictures.items():
            if folder is None:
                pictures[name] = as_uri(name.rpartition(".")[2], content)
            else:
                write_atomically(folder / name, content)
    if folder is not None:
        _write(folder, cases, details)
    return CasesPart(
        lines=tuple(_said(cases)),
        problems=tuple(problems),
        columns=as_json(cases.columns) if folder is None else None,
        details=as_json(details) if folder is None else None,
        pictures=as_json(pictures) if folder is None else None,
        folder=None if folder is None else folder.name,
    )


def _said(cases: Cases) -> Iterator[str]:
    if cases.n_shown < cases.n_all:
        yield (
            f"Of {plural(cases.n_all, 'target')} {count(cases.n_shown)} can be looked at here: "
            "half of them the worst of their tasks, half drawn at random. More by --cases N, or "
            "all."
        )


def _merged(before: Detail | None, now: Detail) -> Detail:
    """Bring the answers of several runs to one case together."""
    if before is None or "paths" not in before:
        return now
    if "paths" not in now:
        return before
    n_paths, n_prompts = len(before["paths"]), len(before["prompts"])

    def moved(place: int | None, by: int) -> int | None:
        return None if place is None else place + by

    answers = {
        answer: [moved(path, n_paths), moved(prompt, n_prompts)]
        for answer, (path, prompt) in now["answers"].items()
    }
    others = [
        [label, path + n_paths, moved(prompt, n_prompts)] for label, path, prompt in now["others"]
    ]
    return {
        **before,
        "paths": before["paths"] + now["paths"],
        "prompts": before["prompts"] + now["prompts"],
        "answers": before["answers"] | answers,
        "others": before["others"] + others,
    }


def _make_room(folder: Path) -> None:
    """Make the folder, or clear an earlier report's; what holds anything else stays."""
    try:
        folder.mkdir(exist_ok=True)
        there = list(folder.iterdir())
        strange = next((path.name for path in there if not OURS.fullmatch(path.name)), None)
        if strange is not None:
            raise DataError(
                f"{folder} holds {strange}, which is no part of a report. Move it away, choose "
                "another --out, or show fewer cases (--cases N)."
            )
        for path in there:
            path.unlink()
    except OSError as error:
        raise DataError(f"Cannot write the cases to {folder}: {error.strerror}.") from error


def _write(folder: Path, cases: Cases, details: Sequence[Detail | None]) -> None:
    for start in range(0, len(details), PER_FILE):
        number = start // PER_FILE
        told = as_json(details[start : start + PER_FILE])
        content = f"promptsegCases.take({number}, {told});\n"
        write_atomically(folder / f"details-{number}.js", content.encode())
    columns = f"promptsegCases.begin({as_json(cases.columns)});\n"
    write_atomically(folder / "cases.js", columns.encode())
