"""The page: everything the report shows, rendered to one HTML file that needs nothing else."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from promptseg.corpus import Corpus
from promptseg.expectation import Predictor
from promptseg.parquet import write_atomically
from promptseg.record import RunFolder
from promptseg.report import words
from promptseg.report.answers import Findings, answers
from promptseg.report.apart import VOLUME_METHOD, DatasetLine, Volumes, by_dataset, by_volume
from promptseg.report.case_files import CasesPart, keep_cases
from promptseg.report.cases import find_cases
from promptseg.report.compared import METHOD as CONTRAST_METHOD
from promptseg.report.compared import Compared, compared
from promptseg.report.depends import METHOD as FACTORS_METHOD
from promptseg.report.depends import Depends, depends
from promptseg.report.expected import METHOD as EXPECTED_METHOD
from promptseg.report.expected import Expectations, expected
from promptseg.report.facts import Method, account, methods
from promptseg.report.gallery import Gallery, find_corpus, gallery
from promptseg.report.gapped import METHOD as GAP_METHOD
from promptseg.report.gapped import Gapped, gapped
from promptseg.report.heat import maps
from promptseg.report.paragraph import licences, paragraph
from promptseg.report.sheets import Tables, sheets, uri, write_sheets
from promptseg.report.sloppy import METHOD as LOSS_METHOD
from promptseg.report.sloppy import Sloppy, sloppy
from promptseg.report.spread import LEVELS, spread
from promptseg.report.table import Pool, Row, leads, mean_rows, merit, pool, task_rows
from promptseg.report.template import HERE, template
from promptseg.report.view import (
    by_task,
    combination,
    combinations,
    comparisons,
    figure,
    under_jitter,
)
from promptseg.response import Response, responses

MOST_IN_TITLE = 5

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
    tables: Path | None = None,
    predictor: Predictor | None = None,
) -> Path:
    """Write the report of one or several runs as one HTML file, and return its path.

    The file opens offline: style, figure and pictures are in it. Pictures come from the corpus
    of each run, looked up by `run.corpus_path` in `corpora` or else on disk; where it is missing
    or has changed the report says so and has none. At most `most_cases` targets (None: all) can
    be looked at one by one; where they are more than 2,000 they lie in a folder beside the file,
    named after it. Into the folder `tables` all tables are written as CSV too: full precision, an
    undefined value is an empty field. Of a predictor that was fitted on these runs the report tells
    how well it knows answers without their reference.

    Raises
    ------
    DataError
        As `pool`; or the folder beside the file holds something else.
    """
    write_with_rows(
        runs, out, corpora=corpora, most_cases=most_cases, tables=tables, predictor=predictor
    )
    return out


def write_with_rows(
    runs: Sequence[RunFolder],
    out: Path,
    *,
    corpora: Mapping[str, Corpus] | None = None,
    most_cases: int | None = MOST_CASES,
    tables: Path | None = None,
    predictor: Predictor | None = None,
) -> list[Row]:
    """Write the report as `write_report` does, and return the rows that `table_rows` would give.

    Who wants both need not have them computed twice. Raises as `write_report`.
    """
    pooled = pool(runs)
    parts = _parts(pooled, predictor)
    made = sheets(_tables(parts))
    page = render(pooled, parts, made, corpora or {}, Looking(out, most_cases))
    write_atomically(out, page.encode())
    if tables is not None:
        write_sheets(made, tables)
    return list(parts.rows)


def render(
    pooled: Pool,
    parts: "_Parts",
    made: Mapping[str, str],
    corpora: Mapping[str, Corpus],
    looking: Looking = NOWHERE,
) -> str:
    """Render the report of a pool, with the tables that were made of it."""
    rows, means, best = parts.rows, parts.means, parts.best
    name = words.naming(rows)
    columns = combinations(pooled, rows)
    scored = combinations(pooled, [row for row in rows if row.dice.value is not None])
    n_exact = sum(group.jitter is None for group in scored)
    found = [find_corpus(folder.run, corpora) for folder in pooled.runs]
    known = [item if isinstance(item, Corpus) else None for item in found]
    failed = words.failures(pooled.records)
    told = Findings(
        rows=rows,
        best=best,
        name=name,
        compared=parts.compared,
        sloppy=parts.sloppy,
        depends=parts.depends,
        n_failed=failed.n_failed,
        gap=_gap_said(parts.gapped, best),
        training=_training_said(pooled, best),
    )
    leading = told.leading or next((row for row in rows if row.dice.value is not None), None)
    return template(HERE / "report.html.jinja").render(
        title=_title(pooled),
        headlines=words.headlines(pooled, rows, best),
        warnings=list(words.warnings(pooled.runs)),
        notes=[*words.subsets(pooled.runs), *words.everything(pooled.records)],
        failures=failed,
        answers=answers(told),
        maps=maps(scored, rows, name) if n_exact > 1 else [],
        spread=spread(pooled.records, leading.group if leading else None),
        levels=LEVELS,
        account=account([folder.run for folder in pooled.runs], known),
        name=name,
        means=means,
        figure=figure(pooled, scored, rows, best, name),
        comparisons=comparisons(scored, rows, means, name) if n_exact > 1 else [],
        jittered=under_jitter(scored, rows, means, name),
        compared=parts.compared,
        machine=words.machine(pooled.runs),
        sloppy=parts.sloppy,
        depends=parts.depends,
        expected=parts.expected,
        n_seeds=max(len(folder.run.seeds) for folder in pooled.runs),
        table=by_task(rows, means),
        nsd_tolerance=f"{pooled.runs[0].run.nsd_tolerance:g} mm, or px",
        has_failed=any(row.dice.n_failed for row in rows),
        has_unknown=any(row.dice.n_images_unknown for row in rows),
        columns=columns,
        has_off_protocol=any(row.group.off_protocol for row in rows),
        cases=_cases(pooled, rows, best, corpora, looking),
        gallery=_gallery(pooled, rows, best, corpora),
        methods=list(_methods(pooled, parts, known)),
        csv={key: uri(text) for key, text in made.items()},
        gap=parts.gapped,
        datasets=parts.datasets,
        volumes=parts.volumes,
    )


def _title(pooled: Pool) -> str:
    corpora = dict.fromkeys(folder.run.corpus for folder in pooled.runs)
    models = dict.fromkeys(model for folder in pooled.runs for model in folder.run.models)
    return f"{_few(list(models))} on {_few(list(corpora))}"


def _few(names: Sequence[str]) -> str:
    shown = names if len(names) <= MOST_IN_TITLE else names[: MOST_IN_TITLE - 1]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


@dataclass(frozen=True, slots=True)
class _Parts:
    """What was found: rows, and the sections that need more than these."""

    rows: Sequence[Row]
    means: Sequence[Row]
    best: Sequence[Row]
    compared: Compared | None
    responses: tuple[Response, ...]
    sloppy: Sloppy | None
    depends: Depends | None
    gapped: Gapped | None
    datasets: tuple[DatasetLine, ...]
    volumes: Volumes | None
    expected: Expectations | None


def _parts(pooled: Pool, predictor: Predictor | None = None) -> _Parts:
    rows, means = task_rows(pooled), mean_rows(pooled)
    best = leads(means)
    records, attributes = pooled.records, _attributes(pooled)
    is_jittered = any(folder.run.jitter for folder in pooled.runs)
    found = tuple(responses(records, attributes)) if is_jittered else ()
    leading = sorted(best, key=merit, reverse=True) or list(rows)
    after = [] if predictor is None else predictor.after_answers()
    return _Parts(
        rows=rows,
        means=means,
        best=best,
        compared=compared(records),
        responses=found,
        sloppy=sloppy(found, records["model"].n_unique() > 1),
        depends=depends(records, attributes, leading[0].group if leading else None),
        gapped=gapped(records, attributes),
        datasets=by_dataset(records),
        volumes=by_volume(
            records, rows, is_subset=any(folder.run.subset for folder in pooled.runs)
        ),
        expected=expected(records, attributes, after),
    )


def _tables(parts: _Parts) -> Tables:
    return Tables(
        rows=[*parts.means, *parts.rows],
        compared=parts.compared,
        gapped=parts.gapped,
        responses=parts.responses,
        factors=parts.depends.found if parts.depends else (),
        depends=parts.depends,
        expected=parts.expected,
        datasets=parts.datasets,
        volumes=parts.volumes,
    )


def _more_methods(parts: _Parts) -> Iterator[Method]:
    if parts.compared is not None:
        yield Method("Ways of answering compared", CONTRAST_METHOD)
    if parts.gapped is not None:
        yield Method("The oracle gap", GAP_METHOD)
    if parts.sloppy is not None:
        yield Method("Loss under jitter", LOSS_METHOD)
    if parts.depends is not None:
        yield Method("What DICE depends on", FACTORS_METHOD)
    if parts.volumes is not None:
        yield Method("Volumes", VOLUME_METHOD)
    if parts.expected is not None:
        yield Method("What to expect", EXPECTED_METHOD)


def _methods(pooled: Pool, parts: _Parts, corpora: Sequence[Corpus | None]) -> Iterator[Method]:
    """Give the paragraph to take, then every method by itself, and the licences."""
    runs = [folder.run for folder in pooled.runs]
    yield paragraph(
        runs,
        parts.rows,
        parts.means,
        compared=parts.compared,
        is_correlated=_is_correlated(parts),
    )
    yield from methods(runs, parts.rows)
    yield from _more_methods(parts)
    yield from licences(runs, corpora)


def _is_correlated(parts: _Parts) -> bool:
    found = parts.depends.found if parts.depends else ()
    return any(row.rho is not None for one in found for row in one.rows)


def _attributes(pooled: Pool) -> pl.DataFrame:
    """Give what all targets look like; the same target of several runs comes once."""
    frames = [
        folder.attributes().with_columns(corpus=pl.lit(folder.run.corpus_fingerprint))
        for folder in pooled.runs
    ]
    return pl.concat(frames).unique(["corpus", "target_id"], maintain_order=True)


def _training_said(pooled: Pool, best: Sequence[Row]) -> str:
    """Say whether the leading model may know the data from its training."""
    leading = max(best, key=merit, default=None)
    for folder, names in zip(pooled.runs, pooled.names, strict=True):
        for name, shown in names.items():
            if leading is not None and shown == leading.group.model:
                if folder.run.held_out.get(name):
                    return f"None of these images is among those that {shown} was fine-tuned on."
                if folder.run.trained_on.get(name):
                    return (
                        f"The data sets that {shown} declares to be trained on have other names "
                        "than these; no more is known."
                    )
    return "Whether this data was trained on is not declared."


def _gap_said(found: Gapped | None, best: Sequence[Row]) -> str:
    """Say what the choice among candidates costs the leading combination."""
    leading = max(best, key=merit, default=None)
    if found is None or leading is None:
        return ""
    item = found.of(leading.group.model, leading.group.strategy)
    if item is None or item.value is None:
        return ""
    return (
        f" Of several candidates for a {leading.group.strategy}, the model's own choice loses "
        f"{words.fraction(item.value)} DICE against the best ({words.rests_on(item)})."
    )


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
