"""What was run and how the numbers came about, in words generated from the runs."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from promptseg.corpus import Corpus
from promptseg.record import Run
from promptseg.report.table import USUAL_UNIT, Row
from promptseg.report.words import count
from promptseg.stats import DRAWS, Estimate

SHORT = 12  # characters of a hash: enough to tell two apart


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing to know of what was run, in one value or several."""

    name: str
    values: tuple[str, ...]
    is_code: bool = False


@dataclass(frozen=True, slots=True)
class Account:
    """What was run: facts of all runs, and a table (one line per run) of those that differ."""

    shared: tuple[Fact, ...]
    columns: tuple[str, ...] = ()
    lines: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Method:
    """One paragraph of the methods."""

    title: str
    text: str


def account(runs: Sequence[Run], corpora: Sequence[Corpus | None]) -> Account:
    """Tell what was run: what all runs share once, the rest run by run."""
    told = [list(facts(run, corpus)) for run, corpus in zip(runs, corpora, strict=True)]
    names = dict.fromkeys(fact.name for own in told for fact in own)
    by_run = [{fact.name: fact for fact in own} for own in told]
    differ = {name for name in names if len({own[name].values for own in by_run}) > 1} - LISTED
    columns = [name for name in names if name in differ or (name in OF_RUN and len(runs) > 1)]
    shared = [_union([own[name] for own in by_run]) for name in names if name not in columns]
    lines = [tuple("; ".join(own[name].values) for name in columns) for own in by_run]
    return Account(tuple(shared), tuple(columns), tuple(lines))


LISTED = frozenset({"Data", "To repeat"})  # too long for a table
OF_RUN = frozenset({"Corpus", "Images", "Fingerprint"})  # told run by run even if the same


def _union(same: Sequence[Fact]) -> Fact:
    return replace(same[0], values=tuple(_once(value for fact in same for value in fact.values)))


def facts(run: Run, corpus: Corpus | None) -> Iterator[Fact]:
    """List what makes a run repeatable."""
    yield Fact("Corpus", (run.corpus,))
    yield Fact("Images", (count(run.n_images),))
    yield Fact("Fingerprint", (run.corpus_fingerprint[:SHORT],))
    yield Fact("Model", tuple(_model(run, name) for name in run.models))
    yield Fact("Strategies", (", ".join(run.strategies),))
    yield Fact("Selections", (", ".join(run.selections),))
    yield Fact("Prompt protocol", (run.protocol,))
    yield Fact("Unit of evaluation", (run.unit,))
    yield Fact("Seed", (str(run.seed),))
    yield Fact("Device", (f"{run.device}, {run.dtype}",))
    yield Fact("Versions", (", ".join(f"{name} {told}" for name, told in run.versions.items()),))
    yield Fact("Started", (run.started,))
    yield Fact("Data", tuple(map(_dataset, corpus.info.datasets if corpus else [])))
    yield Fact("To repeat", (command(run),), is_code=True)


def _model(run: Run, name: str) -> str:
    own = " (not the published ones)" if name in run.custom_weights else ""
    licence = run.licences.get(name, "unknown")
    return f"{name}, weights {run.models[name][:SHORT]}{own}, licence {licence}"


def _dataset(dataset: Mapping[str, str | None]) -> str:
    licence = dataset.get("licence") or "licence unknown"
    parts = (dataset.get("name") or "unnamed", licence, dataset.get("citation"))
    return ", ".join(part for part in parts if part)


def command(run: Run) -> str:
    """Write the command that repeats a run, with FILE for weights that no name stands for.

    Of the corpus only the folder's name is told: a path may name its owner, and pages are shared.
    """
    words = ["promptseg", "evaluate", Path(run.corpus_path).name]
    for name in run.models:
        words += ["--model", run.asked.get(name, name)]
    words += ["--weights", "FILE"] if run.custom_weights else []
    for strategy in run.strategies:
        words += ["--strategy", strategy]
    words += [] if run.protocol == "paper" else ["--protocol", run.protocol]
    words += ["--unit", run.unit, "--seed", str(run.seed)]
    words += ["--nsd-tolerance", f"{run.nsd_tolerance:g}", "--save-masks", run.save_masks]
    words += ["--device", run.device, "--dtype", run.dtype, "--out", "RUN"]
    return shlex.join(words)


PROTOCOLS = {
    "paper": (
        "Prompts follow the rule of Huang et al. (2024): the first positive point is the pixel at "
        "the centre of mass if it lies on the object, further ones are spaced evenly over the "
        "object's pixels in row-major order; negative points are spaced evenly over the non-object "
        "pixels of the object's box enlarged twice."
    ),
    "released": (
        "Prompts repeat the code released by Huang et al. (2024) as it is, with labels shifted by "
        "one point; where that code would stop, the record is failed."
    ),
}
SELECTIONS = {
    "oracle": (
        "oracle is the candidate mask with the best DICE: it looks at the reference, and is an "
        "upper bound that no user gets"
    ),
    "predicted": "predicted is the candidate with the highest IoU predicted by the model",
    "single": "single is the model's own single mask",
}
UNITS = {
    "class": "all instances of an object in an image are one target",
    "instance": "every instance is a target of its own",
    "component": "every connected component of a reference mask is a target of its own",
}


def methods(runs: Sequence[Run], rows: Sequence[Row]) -> Iterator[Method]:
    """Say how the numbers came about, leaving out what did not happen."""
    protocols = [PROTOCOLS.get(name, name) for name in _once(run.protocol for run in runs)]
    yield Method("Prompts", " ".join(protocols))
    yield Method("Targets", " ".join(_targets(rows)))
    yield Method("Selection", _selection(_once(name for run in runs for name in run.selections)))
    yield Method("Measures", _measures(runs, rows))
    yield Method(
        "Misses and failures",
        "A miss (no candidate, or an empty mask) has DICE 0 and no distance. Mean distances are "
        "over targets that have one; beside them, where there were misses, stands the mean with "
        "every miss at the diagonal of its image. Empty and no overlap are shares of the scored "
        "targets, no overlap being DICE 0, misses included. Failed records have no score, are in "
        "no mean, and are counted.",
    )
    yield Method(
        "Means",
        "Targets are averaged within an image, images within a subject, and subjects within a "
        "task; every task weighs the same in the mean over tasks.",
    )
    yield Method("Intervals", " ".join(_intervals([row.dice for row in rows])))
    yield from _off_protocol(rows)


def _once(names: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _targets(rows: Sequence[Row]) -> Iterator[str]:
    """Say by which unit targets were formed, and where several were, for which tasks."""
    units = sorted({row.group.unit for row in rows}, key=lambda unit: unit == USUAL_UNIT)
    for unit in units:
        rule = UNITS.get(unit, unit)
        tasks = _once(str(row.group.task) for row in rows if row.group.unit == unit)
        names = "; ".join(task.removesuffix(f", by {unit}") for task in tasks)
        whose = "All other tasks" if unit == USUAL_UNIT else names
        yield f"{whose}: {rule}." if len(units) > 1 else f"{rule[0].upper()}{rule[1:]}."


def _selection(names: Sequence[str]) -> str:
    return f"Of the masks offered for a prompt one counts: {'; '.join(map(_rule, names))}."


def _rule(name: str) -> str:
    return SELECTIONS.get(name, name)


def _measures(runs: Sequence[Run], rows: Sequence[Row]) -> str:
    units = sorted({surface.unit for row in rows for surface in row.surfaces})
    within = " and ".join(f"{run_tolerance:g}" for run_tolerance in _tolerances(runs))
    apart = (
        " Millimetres and pixels are never averaged together: (mm data) and (px data) say of which "
        "images a number is."
        if len(units) > 1
        else ""
    )
    return (
        "DICE is 2|A∩B| / (|A|+|B|), from 0 to 1. NSD is the share of both borders within "
        f"{within} {' or '.join(units) or 'mm'} of the other. HD95 is the larger of the two "
        "directed 95th percentiles of the border distance, ASSD the mean of the two directed mean "
        f"distances.{apart} Distances are in millimetres where the pixel spacing is known, else in "
        "pixels (px)."
    )


def _tolerances(runs: Sequence[Run]) -> list[float]:
    return sorted({run.nsd_tolerance for run in runs})


def _intervals(estimates: Sequence[Estimate]) -> Iterator[str]:
    notes = {note for item in estimates for note in item.notes}
    used = {item.method for item in estimates}
    yield "Intervals are of 95 %, over subjects, and cut at the bounds of the measure."
    if "t" in used:
        yield "Below 30 subjects they are Student's t intervals of the subject means."
    if "bootstrap" in used:
        yield (
            f"From 30 subjects they are percentile bootstrap intervals ({DRAWS} draws of subjects "
            "within datasets, the same draws for all tasks, models and strategies)."
        )
    if "few" in notes:
        yield "Intervals of 5 to 11 subjects are marked few."
    if "subject values" in notes:
        yield "Below 5 subjects there is no interval; the subject means are listed in its place."
    if "by image" in notes:
        yield (
            "By image: the subject of some images is unknown, so images stand in for subjects. "
            "Such intervals are too narrow if images share patients."
        )


def _off_protocol(rows: Sequence[Row]) -> Iterator[Method]:
    if any(row.group.off_protocol for row in rows):
        yield Method(
            "Off-protocol",
            "The model was not trained for this strategy or selection. The result is shown on "
            "grey and marked †, and counts in no headline, mean over tasks or ranking.",
        )
