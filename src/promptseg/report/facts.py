"""What was run and how the numbers came about, in words generated from the runs."""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
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


LISTED = frozenset({"Data", "To repeat", "Trained on"})  # too long for a table
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
    yield Fact("Jitter", tuple(run.jitter))
    yield Fact("Everything", tuple(_grid(name, run) for name in run.everything))
    yield Fact("Subset", (_subset(run),))
    yield Fact("Seed", (", ".join(map(str, run.seeds)),))
    backends = (f"{name}: {backend}" for name, backend in run.backends.items())
    yield Fact("Device", (f"{run.device}, {run.dtype}", *backends))
    yield Fact("Versions", (", ".join(f"{name} {told}" for name, told in run.versions.items()),))
    yield Fact("Started", (run.started,))
    yield Fact("Trained on", tuple(_trained(run)))
    yield Fact("Data", tuple(map(_dataset, corpus.info.datasets if corpus else run.datasets)))
    yield Fact("To repeat", (command(run),), is_code=True)


def _model(run: Run, name: str) -> str:
    own = " (not the published ones)" if name in run.custom_weights else ""
    licence = run.licences.get(name, "unknown")
    return f"{name}, weights {run.models[name][:SHORT]}{own}, licence {licence}"


def _trained(run: Run) -> Iterator[str]:
    for name, words in run.trained_on.items():
        yield f"{name}: {', '.join(words)}"
    for name, words in run.held_out.items():
        yield f"{name}: other images of {', '.join(words)}"


def _grid(name: str, run: Run) -> str:
    own = run.everything[name]
    side, least = own["points_per_side"], own["pred_iou_thresh"]
    iou = f"predicted IoU > {least:g}" if least else "any predicted IoU"
    return (
        f"{name}: grid {side} x {side}, {iou}, stability >= "
        f"{own['stability_score_thresh']:g} at an offset of {own['stability_score_offset']:g}, "
        f"box NMS {own['box_nms_thresh']:g}"
    )


def _subset(run: Run) -> str:
    asked = dict(run.subset)
    asked |= {"max targets per image": run.max_targets} if run.max_targets else {}
    return "; ".join(f"{key.replace('_', ' ')} {value}" for key, value in asked.items()) or "all"


def _dataset(dataset: Mapping[str, str | None]) -> str:
    licence = dataset.get("licence") or "licence unknown"
    parts = (dataset.get("name") or "unnamed", licence, dataset.get("citation"))
    return ", ".join(part for part in parts if part)


def command(run: Run) -> str:
    """Write the command that repeats a run, with FILE for weights that no name stands for.

    Of the corpus only the folder's name is told: a path may name its owner, and pages are shared.
    """
    words = ["promptseg", "evaluate", Path(run.corpus_path).name]
    if run.strategies == ["masks"]:
        for name in run.models:
            folder, *options = shlex.split(run.asked.get(name, name))
            words += ["--masks", Path(folder).name, *(Path(word).name for word in options)]
    else:
        words += _asking(run)
    for key, value in run.subset.items():
        words += [f"--{key.replace('_', '-')}", str(value)]
    words += ["--max-targets-per-image", str(run.max_targets)] if run.max_targets else []
    words += ["--unit", run.unit]
    for seed in run.seeds:
        words += ["--seed", str(seed)]
    # said of all models: by --trained-on, or by each itself, and then it does no harm
    for name in _of_all(run.trained_on, run.models):
        words += ["--trained-on", name]
    words += ["--nsd-tolerance", f"{run.nsd_tolerance:g}", "--save-masks", run.save_masks]
    words += ["--device", run.device, "--dtype", run.dtype]
    words += ["--backend", "onnx"] if run.backends else []
    words += ["--out", "RUN"]
    return shlex.join(words)


def _of_all(declared: Mapping[str, Sequence[str]], models: Iterable[str]) -> list[str]:
    lists = [declared.get(model, ()) for model in models]
    return [name for name in (lists[0] if lists else ()) if all(name in one for one in lists)]


def _asking(run: Run) -> Iterator[str]:
    """Write the options that say who was asked, and with which prompts."""
    for name in run.models:
        yield from ("--model", run.asked.get(name, name))
    yield from ("--weights", "FILE") if run.custom_weights else ()
    for strategy in run.strategies:
        yield from ("--strategy", strategy)
    yield from () if run.protocol == "paper" else ("--protocol", run.protocol)
    for jitter in run.jitter:
        yield from ("--jitter", jitter)
    for key in GRID:
        # models that differ in it have their own defaults
        if len(values := {own[key] for own in run.everything.values()}) == 1:
            yield from (f"--{key.replace('_', '-')}", f"{values.pop():g}")


GRID = (
    "points_per_side", "pred_iou_thresh", "stability_score_thresh", "stability_score_offset",
    "box_nms_thresh",
)  # fmt: skip
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
EVERYTHING = (
    "A grid of points covers the image; each is answered with the model's multimask candidates. "
    "Those whose predicted IoU and whose stability (area at the higher over area at the lower "
    "logit) pass the thresholds survive, unless their box overlaps that of a better one too much "
    "(Kirillov et al. 2023). Oracle takes for each target the survivor of the best DICE, "
    "predicted the survivor of the highest predicted IoU in the image, whatever the target: "
    "nothing but the reference tells which mask is meant. No survivor is a miss."
)
JITTER = (
    "MODE:UNIT:FROM-TO moves prompts by a distance drawn uniformly from the range, in pixels (px) "
    "or relative to the square root of the object's area (rel), in a random direction: centre "
    "moves the first point, all every point, shift the box, edge every edge of the box by itself. "
    "Prompts are clipped to the image; a box keeps at least one pixel."
)
MASKS = (
    "Masks of other tools are scored as they are. A target without a predicted mask of its object "
    "is a miss; a prediction that cannot be read, or has another size, is failed."
)
SUBSETS = (
    "Targets of a task are taken in turn from its subjects, and from places spread over each "
    "volume; which come first is decided by the seed. A larger subset contains a smaller one."
)
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
    yield from _prompts(runs)
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


def _prompts(runs: Sequence[Run]) -> Iterator[Method]:
    """Say how targets were asked for, if they were."""
    asking = [run for run in runs if run.strategies != ["masks"]]
    if asking:
        protocols = [PROTOCOLS.get(name, name) for name in _once(run.protocol for run in asking)]
        yield Method("Prompts", " ".join(protocols))
    if len(asking) < len(runs):
        yield Method("Masks of other tools", MASKS)
    if any(run.everything for run in runs):
        yield Method("Everything", EVERYTHING)
    if any(run.jitter for run in runs):
        yield Method("Jitter", JITTER)
    if any(run.subset for run in runs):
        yield Method("Subsets", SUBSETS)


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
