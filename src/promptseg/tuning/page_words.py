"""What the before/after report says first: the gain, what was forgotten, what to look at twice."""

from collections.abc import Iterator, Sequence

import polars as pl

from promptseg.contamination import contaminated
from promptseg.paired import Cell, Unit
from promptseg.report import words
from promptseg.report.words import count, fraction, plural
from promptseg.report.words import p_value as p_value
from promptseg.report.words import signed as signed
from promptseg.stats import FEWEST
from promptseg.tuning.page_story import OTHER, TRAINED, Story, Summary, is_led, summaries

MOST_LINES = 6  # of what was forgotten
METHODS = {
    "decoder": "its mask decoder",
    "lora": "low-rank adapters of its encoder",
    "both": "its mask decoder and low-rank adapters of its encoder",
    "full": "its encoder and its mask decoder",
}


def span(cell: Cell) -> str:
    """Write the interval of a difference; of fewer than five units, their differences."""
    item = cell.difference
    if item.lo is not None and item.hi is not None:
        return f"{signed(item.lo)} to {signed(item.hi)}"
    return ", ".join(signed(value) for value in item.subject_values)


def tested(cell: Cell) -> str:
    """Write what the test of a row gave, or why there is none."""
    return p_value(cell.p_holm) if cell.p_holm is not None else cell.verdict


def owners(cell: Cell) -> str:
    """Name the kind of what intervals are over."""
    return "image" if "by image" in cell.difference.notes else "subject"


def title(story: Story) -> str:
    """Name the page."""
    return f"{story.outcome.name}: before and after fine-tuning"


def trained_from(story: Story) -> str:
    """Say what was trained from what, on how much."""
    own = story.outcome
    tasks = own.tasks
    told = ", ".join(tasks[:3]) + (f" and {len(tasks) - 3} more" if len(tasks) > 3 else "")
    method = METHODS.get(str(own.settings.get("method")), "a part of it")
    whose = "image" if own.split_by == "image" else "subject"
    on = plural(own.n_subjects.get("train", 0), whose)
    images = "" if whose == "image" else f" ({plural(own.n_images.get('train', 0), 'image')})"
    return (
        f"{own.name} is {own.base} with {method} trained on {on}{images}, "
        f"for {plural(len(tasks), 'task')}{': ' + told if told else ''}."
    )


def gains(story: Story) -> list[str]:
    """Say for every strategy of the training what it gained on subjects it has not seen."""
    cells = [cell for cell in story.led() if story.is_trained(cell.group.task)]
    if not cells:
        return [
            f"What {story.outcome.name} gained was not measured: these runs hold no pair of "
            f"records of a task it was trained on, with {', '.join(story.leading)} / {story.score}."
        ]
    return [_gain(story, summary) for summary in summaries(story, cells)]


def _gain(story: Story, summary: Summary) -> str:
    group = summary.cells[0].group
    how = f"{group.strategy} / {group.selection}"
    tasks = _over(summary)
    if off := summary.cells[0].off:
        return (
            f"With {how}, mean DICE {tasks} is {fraction(summary.after)} and was "
            f"{fraction(summary.before)}; no gain is claimed, since {_untrained(story, off)} not "
            "trained for this."
        )
    whom = f"On {_held_out(summary)} {'held out here' if _known(story) else 'it has not seen'}"
    return f"{whom}, with {how}, mean DICE {tasks} went {_went(summary)}.{_doubt(summary)}"


def _known(story: Story) -> list[str]:
    """List the data sets of what was held out that the base says it was trained on."""
    scored = story.records.filter(story.records["task"].is_in(story.outcome.tasks))
    datasets = sorted(scored["dataset"].unique().to_list())
    runs = (run.run for run in story.runs)
    found = {name for run in runs for name in contaminated(run, story.outcome.base, datasets)}
    return sorted(found)


def _untrained(story: Story, off: str) -> str:
    own = story.outcome
    return {"before": f"{own.base} was", "after": f"{own.name} was"}.get(off, "both models were")


def _held_out(summary: Summary) -> str:
    cell = summary.whole or max(summary.cells, key=lambda one: one.n_units)
    return plural(cell.n_units, owners(cell))


def _over(summary: Summary) -> str:
    if summary.n_tasks == 1:
        return f"in {summary.cells[0].group.task}"
    return f"over {plural(summary.n_tasks, 'task')}"


def _went(summary: Summary) -> str:
    cell = summary.whole
    lead = f"from {fraction(summary.before)} to {fraction(summary.after)}"
    if cell is None:
        return lead
    return f"{lead}: {signed(cell.difference.value)} ({_how_sure(cell)})"


def _how_sure(cell: Cell) -> str:
    item = cell.difference
    few = f", few {owners(cell)}s" if "few" in item.notes and item.lo is not None else ""
    if item.lo is not None:
        verdict = cell.verdict if cell.p_holm is None else f"{tested(cell)} after Holm"
        return f"95\u00a0% interval {span(cell)}{few}; {verdict}"
    shown = f": {span(cell)}" if item.subject_values else ""
    where = "" if item.n_tasks == 1 else " in at least one task"
    return f"no interval, fewer than {FEWEST} {owners(cell)}s{where}{shown}"


def _doubt(summary: Summary) -> str:
    """Say in words where an interval holds zero."""
    item = summary.whole.difference if summary.whole else None
    if item is None or item.lo is None or item.hi is None or not item.lo <= 0 <= item.hi:
        return ""
    return " The interval holds zero: neither a gain nor a loss is shown."


def forgotten(story: Story) -> list[str]:
    """Say what became of what the base could do, and the training did not ask for."""
    known = [c for c in story.exact() if c.off in (None, "after") and c.group.selection != "oracle"]
    kept = [c for c in known if c.group.strategy != "everything"]
    tasks = summaries(story, [c for c in kept if not story.is_trained(c.group.task)])
    ways = summaries(
        story, [c for c in kept if story.is_trained(c.group.task) and not is_led(story, c)]
    )
    lines = [_kept(story, summary, "Tasks it was not trained on") for summary in tasks]
    if not tasks:
        lines.append(
            f"Whether {story.outcome.name} got worse on tasks it was not trained on was not "
            "measured: these runs hold none. Evaluate both models on other corpora, too."
        )
    lines += [_kept(story, summary, "Prompts it was not judged by") for summary in ways]
    rest = len(lines) - MOST_LINES
    return lines[:MOST_LINES] + ([f"{rest} more are in the table."] if rest > 0 else [])


def _kept(story: Story, summary: Summary, what: str) -> str:
    group = summary.cells[0].group
    off = summary.cells[0].off == "after"
    now = f" {story.outcome.name} makes no claim to this any more." if off else ""
    worst = min(summary.cells, key=lambda cell: cell.difference.value or 0.0)
    one = ""
    if summary.n_tasks > 1:
        one = f" Lowest: {worst.group.task}, {signed(worst.difference.value)}."
    return (
        f"{what}: with {group.strategy} / {group.selection}, mean DICE {_over(summary)} went "
        f"{_went(summary)}.{one}{now}"
    )


def doubts(story: Story) -> list[str]:
    """List what a reader should look at twice before believing the gain."""
    return [*_of_runs(story), *_of_numbers(story), *_of_training(story)]


def _of_runs(story: Story) -> Iterator[str]:
    yield from words.warnings(story.runs)
    counts, own = story.comparison.counts, story.outcome
    alone = ((counts.unpaired_before, own.base), (counts.unpaired_after, own.name))
    if told := [f"{count(n)} of {name}" for n, name in alone if n]:
        yield f"Scored by one model alone, and in no number here: {' and '.join(told)}."
    seen = {cell.group.task for cell in story.comparison.cells}
    if absent := [task for task in own.tasks if task not in seen]:
        yield f"Trained on, and not in these runs: {', '.join(absent)}."
    yield from _too_many(story)


def _too_many(story: Story) -> Iterator[str]:
    """Compare the subjects of the runs with those held out, of whom only the number is known."""
    own, apart = story.outcome, set(story.outcome.also)
    records = story.records.filter(~pl.col("corpus").is_in(apart))
    trained = records.filter(
        records["task"].is_in(own.tasks)
        & records["dataset"].is_in([data.get("name") for data in own.datasets])
    )
    by = "image_id" if own.split_by == "image" else "subject"
    there = trained.drop_nulls(by).select("dataset", by).n_unique() if len(trained) else 0
    held_out = own.n_subjects.get("test", 0)
    if there > held_out:
        what = "image" if by == "image_id" else "subject"
        yield (
            f"These runs hold {plural(there, what)} of the data trained on, but only "
            f"{count(held_out)} were held out: some were seen in training, and the gain is too "
            "high. Evaluate on the test split alone."
        )


def _of_numbers(story: Story) -> Iterator[str]:
    cells = [cell for cell in story.led() if story.is_trained(cell.group.task)]
    notes = {note for cell in cells for note in cell.difference.notes}
    fewest = min((cell.n_units for cell in cells), default=0)
    if notes & {"few", "subject values"}:
        yield (
            f"Few held-out {owners(cells[0])}s ({fewest} in the smallest task): one more, or one "
            "less, could change the gain much."
        )
    if any(cell.verdict == "too few subjects to test" for cell in cells):
        yield (
            f"Too few {owners(cells[0])}s to test: even if all gained, p could not pass 5\u00a0% "
            "when it is corrected for the rows of the table."
        )
    if "by image" in notes:
        yield (
            "Some subjects are unknown, so intervals are over images. They are too narrow if "
            "images share patients."
        )
    if any(cell.off for cell in cells):
        yield "Off-protocol: one of the models was not trained for a strategy that leads here (†)."


def _of_training(story: Story) -> Iterator[str]:
    own = story.outcome
    if known := _known(story):
        yield (
            f"{own.base} was itself trained on images of {', '.join(known)}, and does not list "
            "them: some may be held out here, where both models are then too good."
        )
    if own.split_by == "image":
        yield (
            "Images were held out, not subjects: images of one patient may be on both sides, and "
            "the gain is too high if they are."
        )
    if own.best_score is None:
        yield "No subject chose the best state: the last one counts, good or not."
    elif own.best_step == 0:
        yield f"No state was better than the first: {own.name} does as {own.base} does."
    elif own.epochs and own.best_step == max(epoch["step"] for epoch in own.epochs):
        yield "The last state was the best one: a longer training may gain more."
    for check in own.checks:
        if check.get("outcome") != "passed":
            what = f"The check of {check.get('name')} was {check.get('outcome')}"
            yield f"{what}: {check.get('detail')}"


def differences(units: Sequence[Unit]) -> tuple[int, int]:
    """Count the units that gained and those that lost."""
    changes = [unit.after - unit.before for unit in units]
    return sum(change > 0 for change in changes), sum(change < 0 for change in changes)


SCOPES = {TRAINED: "Mean over tasks trained on", OTHER: "Mean over other tasks"}
