"""The page: everything the report shows, rendered to one HTML file that needs nothing else."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from promptseg.corpus import Corpus
from promptseg.parquet import write_atomically
from promptseg.record import RunFolder
from promptseg.report import words
from promptseg.report.case_files import CasesPart, keep_cases
from promptseg.report.cases import find_cases
from promptseg.report.compared import METHOD as CONTRAST_METHOD
from promptseg.report.compared import Compared, compared
from promptseg.report.depends import METHOD as FACTORS_METHOD
from promptseg.report.depends import Depends, depends
from promptseg.report.facts import Method, account, methods
from promptseg.report.gallery import Gallery, find_corpus, gallery
from promptseg.report.sloppy import METHOD as LOSS_METHOD
from promptseg.report.sloppy import Sloppy, sloppy
from promptseg.report.table import Pool, Row, as_csv, leads, mean_rows, merit, pool, task_rows
from promptseg.report.template import HERE, template
from promptseg.report.view import (
    by_task,
    combination,
    combinations,
    comparisons,
    figure,
    under_jitter,
)
from promptseg.response import responses

MOST_CASES = 500


@dataclass(frozen=True, slots=True)
class Looking:
    """How many cases can be looked at (None: all), and where the page will be."""

    page: Path | None = None
    most: int | None = MOST_CASES


NOWHERE = Looking()


def write_report(
    runs: Sequence[RunFolder],
    out: Path,
    *,
    corpora: Mapping[str, Corpus] | None = None,
    most_cases: int | None = MOST_CASES,
) -> Path:
    """Write the report of one or several runs as one HTML file, and return its path.

    The file opens offline: style, figure and pictures are in it. Pictures come from the corpus
    of each run, looked up by `run.corpus_path` in `corpora` or else on disk; where it is missing
    or has changed the report says so and has none. At most `most_cases` targets (None: all) can
    be looked at one by one; where they are more than 2,000 they lie in a folder beside the file,
    named after it.

    Raises
    ------
    DataError
        As `pool`; or that folder holds something else.
    """
    page = render(pool(runs), corpora or {}, Looking(out, most_cases))
    write_atomically(out, page.encode())
    return out


def render(pooled: Pool, corpora: Mapping[str, Corpus], looking: Looking = NOWHERE) -> str:
    """Render the report of a pool."""
    rows, means = task_rows(pooled), mean_rows(pooled)
    best = leads(means)
    name = words.naming(rows)
    columns = combinations(pooled, rows)
    scored = combinations(pooled, [row for row in rows if row.dice.value is not None])
    n_exact = sum(group.jitter is None for group in scored)
    parts = _Parts(compared(pooled.records), _sloppy(pooled), _depends(pooled, rows, best))
    found = [find_corpus(folder.run, corpora) for folder in pooled.runs]
    known = [item if isinstance(item, Corpus) else None for item in found]
    return template(HERE / "report.html.jinja").render(
        title=_title(pooled),
        headlines=words.headlines(pooled, rows, best),
        warnings=list(words.warnings(pooled.runs)),
        notes=[*words.subsets(pooled.runs), *words.everything(pooled.records)],
        failures=words.failures(pooled.records),
        account=account([folder.run for folder in pooled.runs], known),
        name=name,
        means=means,
        figure=figure(pooled, scored, rows, best, name),
        comparisons=comparisons(scored, rows, means, name) if n_exact > 1 else [],
        jittered=under_jitter(scored, rows, means, name),
        compared=parts.compared,
        sloppy=parts.sloppy,
        depends=parts.depends,
        n_seeds=max(len(folder.run.seeds) for folder in pooled.runs),
        table=by_task(rows, means),
        has_failed=any(row.dice.n_failed for row in rows),
        has_unknown=any(row.dice.n_images_unknown for row in rows),
        columns=columns,
        has_off_protocol=any(row.group.off_protocol for row in rows),
        cases=_cases(pooled, rows, best, corpora, looking),
        gallery=_gallery(pooled, rows, best, corpora),
        methods=[*methods([folder.run for folder in pooled.runs], rows), *_more_methods(parts)],
        csv_uri=_csv_uri([*means, *rows]),
    )


def _title(pooled: Pool) -> str:
    corpora = dict.fromkeys(folder.run.corpus for folder in pooled.runs)
    models = dict.fromkeys(model for folder in pooled.runs for model in folder.run.models)
    return f"{', '.join(models)} on {', '.join(corpora)}"


@dataclass(frozen=True, slots=True)
class _Parts:
    """The sections that need more than the table's rows."""

    compared: Compared | None
    sloppy: Sloppy | None
    depends: Depends | None


def _more_methods(parts: _Parts) -> Iterator[Method]:
    if parts.compared is not None:
        yield Method("Ways of answering compared", CONTRAST_METHOD)
    if parts.sloppy is not None:
        yield Method("Loss under jitter", LOSS_METHOD)
    if parts.depends is not None:
        yield Method("What DICE depends on", FACTORS_METHOD)


def _attributes(pooled: Pool) -> pl.DataFrame:
    """Give what all targets look like; the same target of several runs comes once."""
    frames = [
        folder.attributes().with_columns(corpus=pl.lit(folder.run.corpus_fingerprint))
        for folder in pooled.runs
    ]
    return pl.concat(frames).unique(["corpus", "target_id"], maintain_order=True)


def _sloppy(pooled: Pool) -> Sloppy | None:
    if not any(folder.run.jitter for folder in pooled.runs):
        return None
    several = pooled.records["model"].n_unique() > 1
    return sloppy(responses(pooled.records, _attributes(pooled)), several)


def _depends(pooled: Pool, rows: Sequence[Row], best: Sequence[Row]) -> Depends | None:
    leading = sorted(best, key=merit, reverse=True) or list(rows)
    group = leading[0].group if leading else None
    return depends(pooled.records, _attributes(pooled), group)


def _gallery(
    pooled: Pool, rows: Sequence[Row], best: Sequence[Row], corpora: Mapping[str, Corpus]
) -> Gallery | None:
    """Show the best of the leading combinations; without one, the first that has a score."""
    scored = [row for row in rows if row.dice.value is not None]
    leading = sorted(best, key=merit, reverse=True) or scored
    return gallery(pooled, rows, leading[0].group, corpora) if leading else None


def _cases(
    pooled: Pool,
    rows: Sequence[Row],
    best: Sequence[Row],
    corpora: Mapping[str, Corpus],
    looking: Looking,
) -> CasesPart | None:
    """Show cases one by one, first those that the leading combination is worst at."""
    scored = [row for row in rows if row.dice.value is not None]
    leading = sorted(best, key=merit, reverse=True) or scored
    if not leading or looking.most == 0:
        return None
    found = find_cases(
        pooled,
        _attributes(pooled),
        combinations(pooled, rows),
        lead=combination(leading[0].group),
        most=looking.most,
    )
    return None if found is None else keep_cases(found, pooled.runs, corpora, looking.page)


def _csv_uri(rows: Sequence[Row]) -> str:
    content = base64.b64encode(as_csv(rows).encode()).decode("ascii")
    return f"data:text/csv;charset=utf-8;base64,{content}"
