"""The methods in one paragraph that an author can take, and the licences of models and data."""

from collections.abc import Iterator, Mapping, Sequence

from promptseg.corpus import Corpus
from promptseg.record import Run
from promptseg.report.facts import Method
from promptseg.report.table import Row
from promptseg.report.words import count, plural, subjects
from promptseg.stats import DRAWS

HUANG = "Huang et al. 2024, doi:10.1016/j.media.2023.103061"


def paragraph(runs: Sequence[Run], rows: Sequence[Row], means: Sequence[Row]) -> Method:
    """Write what was done as the methods of a paper."""
    models = ", ".join(dict.fromkeys(name for run in runs for name in run.models))
    corpora = ", ".join(dict.fromkeys(run.corpus for run in runs))
    strategies = ", ".join(dict.fromkeys(name for run in runs for name in run.strategies))
    selections = ", ".join(dict.fromkeys(name for run in runs for name in run.selections))
    n_tasks = len({row.group.task for row in rows})
    largest = max((*means, *rows), key=lambda row: row.dice.n_targets, default=None)
    of_what = ""
    if largest is not None:
        dice = largest.dice
        of_what = (
            f" ({subjects(dice)} subjects, {plural(dice.n_images, 'image')} and "
            f"{plural(dice.n_targets, 'target')} in the largest mean)"
        )
    versions = ", ".join(dict.fromkeys(run.versions.get("promptseg", "") for run in runs))
    methods = {row.dice.method for row in (*means, *rows)}
    how = "Student's t (Student 1908, doi:10.1093/biomet/6.1.1)" if "t" in methods else ""
    drawn = (
        f"the percentile bootstrap, {count(DRAWS)} draws (Efron 1979, doi:10.1214/aos/1176344552)"
    )
    ways = " and ".join(part for part in (how, drawn if "bootstrap" in methods else "") if part)
    intervals = f" with 95\u00a0% intervals over subjects by {ways}" if ways else ""
    return Method(
        "In one paragraph",
        f"With promptseg {versions} we evaluated {models} on {corpora}: {plural(n_tasks, 'task')} "
        f"(pairs of object and modality){of_what}. Prompts ({strategies}) were derived from the "
        f"reference masks as by {HUANG}; masks were selected by {selections}. We report means over "
        f"targets within images, images within subjects, subjects within tasks, and over "
        f"tasks{intervals}. Differences were tested by flipping the signs of subjects (two-sided), "
        "with Holm's correction.",
    )


def licences(runs: Sequence[Run], corpora: Sequence[Corpus | None]) -> Iterator[Method]:
    """Tell under which licence every model and every data set may be used, as far as is known."""
    models = dict.fromkeys(
        f"{name}: {run.licences.get(name, 'unknown')}"
        for run in runs
        if run.strategies != ["masks"]
        for name in run.models
    )
    data = dict.fromkeys(
        _dataset(one)
        for run, corpus in zip(runs, corpora, strict=True)
        for one in (run.datasets or (corpus.info.datasets if corpus else []))
    )
    told = [f"Models: {'; '.join(models)}."] if models else []
    told += [f"Data: {'; '.join(data)}."] if data else ["Data: not known."]
    yield Method("Licences", " ".join(told))


def _dataset(one: Mapping[str, str | None]) -> str:
    name, licence = one.get("name") or "unnamed", one.get("licence") or "unknown"
    return f"{name}: {licence}" + (f" ({one['citation']})" if one.get("citation") else "")
