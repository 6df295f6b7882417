"""The before/after report of a fine-tuning: one HTML file that needs nothing else."""

import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from promptseg.corpus import Corpus
from promptseg.parquet import write_atomically
from promptseg.record import RunFolder
from promptseg.report import words
from promptseg.report.facts import account
from promptseg.report.gallery import find_corpus
from promptseg.report.table import pool, task_rows
from promptseg.report.template import template
from promptseg.report.words import naming
from promptseg.tuning import page_words as told
from promptseg.tuning.outcome import read_outcome
from promptseg.tuning.page_facts import facts, methods, settings, split_counts
from promptseg.tuning.page_pictures import pictures
from promptseg.tuning.page_story import Story, story_of
from promptseg.tuning.page_view import as_csv, blocks, curves, slopes

HERE = Path(__file__).parent
REPORT = "report.html"
OWN_FILTERS: dict[str, Callable[..., Any]] = {
    "signed": told.signed,
    "span": told.span,
    "tested": told.tested,
    "changes": told.differences,
}


def write_page(
    folder: Path, runs: Sequence[RunFolder], *, corpora: Mapping[str, Corpus] | None = None
) -> Path:
    """Write `report.html` beside a fine-tuned model, and return its path.

    Parameters
    ----------
    folder
        Where the training left its `training.json`.
    runs
        In which the model and its base were scored on the same prompts, on subjects that were held
        out; and, to see what was forgotten, on other tasks and prompts.
    corpora
        `run.corpus_path` -> corpus, for the pictures; else they are looked up on disk. Where one
        is missing or has changed, the page says so and has no pictures of it.

    Raises
    ------
    DataError
        There is no training.json, a run is damaged or given twice, a model has no record in the
        runs, or a prompt was scored twice.
    ValueError
        There is no run.
    """
    story = story_of(read_outcome(folder), runs)
    out = folder / REPORT
    write_atomically(out, render(story, corpora or {}).encode())
    return out


def render(story: Story, corpora: Mapping[str, Corpus]) -> str:
    """Render the report of a training."""
    own, found = story.outcome, story.comparison
    rows = [row for row in task_rows(pool(story.runs)) if row.group.model in (own.base, own.name)]
    corpora_found = [find_corpus(folder.run, corpora) for folder in story.runs]
    known = [item if isinstance(item, Corpus) else None for item in corpora_found]
    scored = story.records.filter(story.records["model"].is_in([own.base, own.name]))
    return template(HERE / "page.html.jinja", **OWN_FILTERS).render(
        title=told.title(story),
        own=own,
        trained_from=told.trained_from(story),
        gains=told.gains(story),
        forgotten=told.forgotten(story),
        doubts=told.doubts(story),
        failures=words.failures(scored),
        table=blocks(story, naming(rows)),
        selections=story.selections,
        score=story.score,
        found=found,
        has_off_protocol=any(cell.off for cell in found.cells),
        has_unpaired=any(sum(_alone(cell.counts)) for cell in found.cells),
        slopes=slopes(story),
        curves=curves(own),
        pictures=pictures(story, corpora),
        facts=list(facts(own)),
        settings=settings(own),
        split=split_counts(own),
        account=account([folder.run for folder in story.runs], known),
        methods=methods(own, found, [folder.run for folder in story.runs], rows),
        csv_uri=_csv_uri(story),
    )


def _alone(counts: object) -> tuple[int, ...]:
    return tuple(getattr(counts, name) for name in ("unpaired_before", "unpaired_after"))


def _csv_uri(story: Story) -> str:
    content = base64.b64encode(as_csv(story).encode()).decode("ascii")
    return f"data:text/csv;charset=utf-8;base64,{content}"
