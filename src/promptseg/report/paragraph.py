"""The methods in one paragraph that an author can take, and the licences of models and data."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from promptseg.corpus import Corpus
from promptseg.record import Run
from promptseg.report.compared import Compared
from promptseg.report.facts import Method
from promptseg.report.table import Row
from promptseg.report.words import count, plural, subjects
from promptseg.stats import DRAWS

HUANG = "Huang et al. 2024, doi:10.1016/j.media.2023.103061"


TESTS = (
    "Differences from the best were tested by flipping the signs of subjects (two-sided; Fisher "
    "1935, Pitman 1937, doi:10.2307/2984124), with Holm's correction (Holm 1979, Scandinavian "
    "Journal of Statistics 6: 65-70) over all pairs of the ways compared."
)
CORRELATIONS = (
    "DICE was related to attributes of the targets by partial Spearman correlations within data "
    "set and modality, with jackknife intervals over subjects and Holm's correction."
)


def paragraph(
    runs: Sequence[Run],
    rows: Sequence[Row],
    means: Sequence[Row],
    *,
    compared: Compared | None = None,
    is_correlated: bool = False,
) -> Method:
    """Write what was done, and nothing that was not, as the methods of a paper."""
    told = [_evaluated(runs, rows, means), _asked(runs)]
    told += [_averaged({row.dice.method for row in (*means, *rows)})]
    if jitter := dict.fromkeys(level for run in runs for level in run.jitter):
        told.append(
            f"Prompts were also moved ({', '.join(jitter)}; magnitude uniform within a level, "
            "direction uniform, clipped to the image)."
        )
    rankings = compared.rankings if compared else ()
    contrasts = [one for ranked in rankings for one in ranked.against if one is not None]
    if any(one.p_holm is not None for one in contrasts):
        told.append(TESTS)
    told += [CORRELATIONS] if is_correlated else []
    return Method("In one paragraph", " ".join(told))


def _evaluated(runs: Sequence[Run], rows: Sequence[Row], means: Sequence[Row]) -> str:
    models = ", ".join(dict.fromkeys(name for run in runs for name in run.models))
    corpora = ", ".join(dict.fromkeys(run.corpus for run in runs))
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
    return (
        f"With promptseg {versions} we evaluated {models} on {corpora}: {plural(n_tasks, 'task')} "
        f"(pairs of object and modality){of_what}."
    )


def _asked(runs: Sequence[Run]) -> str:
    strategies = ", ".join(dict.fromkeys(name for run in runs for name in run.strategies))
    selections = ", ".join(dict.fromkeys(name for run in runs for name in run.selections))
    units = ", ".join(dict.fromkeys(run.unit for run in runs))
    return (
        f"Prompts ({strategies}) were derived from the reference masks as by {HUANG}, a target "
        f"being all of an object in an image or a part of it (unit: {units}); masks were selected "
        f"by {selections}."
    )


def _averaged(methods: Collection[str | None]) -> str:
    how = "Student's t (Student 1908, doi:10.1093/biomet/6.1.1)" if "t" in methods else ""
    drawn = (
        f"the percentile bootstrap, {count(DRAWS)} draws (Efron 1979, doi:10.1214/aos/1176344552)"
    )
    ways = " and ".join(part for part in (how, drawn if "bootstrap" in methods else "") if part)
    intervals = f" with 95\u00a0% intervals over subjects by {ways}" if ways else ""
    return (
        "We report means over targets within images, images within subjects, subjects within "
        f"tasks, and over tasks{intervals}."
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
