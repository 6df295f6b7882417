"""The report's words and numbers: formats, names, the headline and what the reader must know."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from promptseg.contamination import MARK
from promptseg.record import RunFolder
from promptseg.report.table import Pool, Row
from promptseg.stats import COMBINATION, Estimate, Group

UNDEFINED = "–"
REASONS_SHOWN = 5
LONGEST_REASON = 160


def fraction(value: float | None) -> str:
    """Write an overlap: three decimals."""
    return UNDEFINED if value is None else f"{value:.3f}"


def distance(value: float | None) -> str:
    """Write a distance: three significant digits, whole numbers from 100."""
    if value is None:
        return UNDEFINED
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def percent(value: float | None) -> str:
    """Write a rate. One that is not zero does not read 0 %, nor one that is not all 100 %."""
    if value is None:
        return UNDEFINED
    if 0 < value < 0.001:
        return "< 0.1\u00a0%"
    if 0.999 < value < 1:
        return "> 99.9\u00a0%"
    return f"{100 * value:.1f}\u00a0%".replace(".0\u00a0", "\u00a0")


def count(value: int | None) -> str:
    """Write a number of things; None is unknown."""
    return "unknown" if value is None else f"{value:,}".replace(",", "\u00a0")


def interval(item: Estimate) -> str:
    """Write an interval, or the subject values that stand in its place, or nothing."""
    if item.lo is not None and item.hi is not None:
        return f"{fraction(item.lo)}–{fraction(item.hi)}"
    return ", ".join(f"{value:.2f}" for value in item.subject_values)


def marked(item: Estimate) -> str:
    """Write an interval as `interval` does, and mark one that rests on few subjects."""
    few = "few" in item.notes and item.lo is not None
    return f"{interval(item)} few" if few else interval(item)


def signed(value: float | None) -> str:
    """Write a difference of overlaps with its sign."""
    if value is None:
        return UNDEFINED
    shown = f"{abs(value):.3f}"
    return shown if float(shown) == 0 else f"{'+' if value > 0 else '−'}{shown}"


def p_value(p: float) -> str:
    """Write a p: two digits, and never zero."""
    return "p\u00a0<\u00a00.001" if p < 0.001 else f"p\u00a0=\u00a0{p:.2g}"


def subjects(item: Estimate) -> str:
    """Write a number of subjects; where some are unknown, how many there are at least."""
    if item.n_subjects is None and item.n_subjects_known:
        return f"≥\u00a0{count(item.n_subjects_known)}"
    return count(item.n_subjects)


def rests_on(item: Estimate) -> str:
    """Write how many subjects a mean is of, and its interval where there is one."""
    who = "subject" if item.n_subjects == 1 else "subjects"
    known = f"{subjects(item)} {who}" if item.n_subjects_known else plural(item.n_images, "image")
    return known if item.lo is None else f"{known}, 95\u00a0% interval {interval(item)}"


def plural(number: int, noun: str, several: str | None = None) -> str:
    """Write a number with its noun: 1 image, 2 images."""
    return f"{count(number)} {noun if number == 1 else several or noun + 's'}"


def listed(names: Sequence[str], conjunction: str = "and") -> str:
    """Write names one after another: box; box or point1; box, point1 or points5."""
    *others, last = names
    return f"{', '.join(others)} {conjunction} {last}" if others else last


@dataclass(frozen=True, slots=True)
class Naming:
    """How groups are called: only what differs between them is said."""

    models: bool
    protocols: bool

    def strategy(self, group: Group) -> str:
        """Name a strategy, with its jitter, and with the protocol where several were run."""
        extra = [group.jitter]
        extra += [f"{group.protocol} protocol"] if self.protocols else []
        told = ", ".join(part for part in extra if part)
        return f"{group.strategy} ({told})" if told else group.strategy

    def combination(self, group: Group) -> str:
        """Name what answered: strategy and selection, after the model where there are several."""
        words = f"{self.strategy(group)} / {group.selection}"
        return f"{group.model}, {words}" if self.models else words


def naming(rows: Sequence[Row]) -> Naming:
    """Find what differs between the groups of a table."""
    return naming_of([row.group for row in rows])


def naming_of(groups: Sequence[Group]) -> Naming:
    """Find what differs between groups."""
    return Naming(
        len({group.model for group in groups}) > 1,
        len({group.protocol for group in groups}) > 1,
    )


def headlines(pooled: Pool, rows: Sequence[Row], best: Sequence[Row]) -> list[str]:
    """Say of every model in one sentence how well it did, by on-protocol results only."""
    spoken = {row.group.model: row for row in best}
    name = naming(rows)
    shown = [shown for names in pooled.names for shown in names.values()]
    return [
        _headline(spoken[model], rows, name) if model in spoken else _no_headline(model, rows)
        for model in dict.fromkeys(shown)
    ]


def _headline(lead: Row, rows: Sequence[Row], name: Naming) -> str:
    group, dice = lead.group, lead.dice
    how = f"{name.strategy(group)} / {group.selection}"
    oracle = " (chosen with the reference at hand: an upper bound)"
    return (
        f"On {plural(dice.n_images, 'image')} of {_whose(dice)}, {group.model} with {how}"
        f"{oracle if group.selection == 'oracle' else ''} reaches a mean DICE of "
        f"{fraction(dice.value)} ({_how_sure(dice)}) {_over_which(group, rows)}"
    )


def _whose(dice: Estimate) -> str:
    """Name the subjects of some images, as far as they are known."""
    if dice.n_subjects is not None:
        return plural(dice.n_subjects, "subject")
    if dice.n_subjects_known == 0:
        return "unknown subjects"
    return (
        f"at least {plural(dice.n_subjects_known, 'subject')} "
        f"(unknown for {plural(dice.n_images_unknown, 'image')})"
    )


def _how_sure(dice: Estimate) -> str:
    who = "images" if dice.n_subjects is None else "subjects"
    if dice.lo is None:
        where = "" if dice.n_tasks == 1 else " in at least one task"
        return f"no interval: fewer than 5 {who}{where}"
    few = f", few {who}" if "few" in dice.notes else ""
    by_image = ", by image: too narrow if images share patients" if "by image" in dice.notes else ""
    return f"95\u00a0% interval {interval(dice)}{few}{by_image}"


def _over_which(group: Group, rows: Sequence[Row]) -> str:
    """Name the tasks of a headline: how many, the worst, the best."""
    scored = sorted(
        (row.dice.value, str(row.group.task))
        for row in rows
        if row.dice.value is not None and same_combination(row.group, group)
    )
    n_tasks = len({row.group.task for row in rows})
    if len(scored) == 1:
        return f"in {'its one task' if n_tasks == 1 else 'the one task it has'}, {scored[0][1]}."
    (low, worst), (high, best) = scored[0], scored[-1]
    share = f"{len(scored)} of {n_tasks}" if len(scored) < n_tasks else f"{n_tasks}"
    return (
        f"over {share} tasks. Worst task: {worst}, {fraction(low)}; "
        f"best task: {best}, {fraction(high)}."
    )


def same_combination(a: Group, b: Group) -> bool:
    """Tell whether the same answered, on whatever task, by whatever unit of evaluation."""
    return all(getattr(a, name) == getattr(b, name) for name in COMBINATION)


def _no_headline(model: str, rows: Sequence[Row]) -> str:
    own = [row for row in rows if row.group.model == model and row.dice.value is not None]
    if own and model.endswith(f"({MARK})"):
        tasks = len({row.group.task for row in own})
        return (
            f"{model.removesuffix(f' ({MARK})')} was trained on data of {plural(tasks, 'task')}: "
            "these results are marked and kept out of headlines, means and rankings."
        )
    if not own:
        return f"{model} has no scored target: there is no number to report."
    return (
        f"No result of {model} is on-protocol: it was not trained for the strategies and "
        "selections that were run, so there is no headline number."
    )


def warnings(runs: Sequence[RunFolder]) -> Iterator[str]:
    """Say what makes the numbers incomplete."""
    for number, folder in enumerate(runs, start=1):
        done, asked = folder.parts_done(), folder.run.n_parts
        if done < asked:
            which = f"Run {number} is incomplete" if len(runs) > 1 else "Incomplete run"
            yield (
                f"{which}: {done} of {asked} parts are there, and all numbers are of those alone. "
                "The same evaluate command finishes it."
            )
        yield from misses(folder)


def machine(runs: Sequence[RunFolder]) -> str:
    """Say whose the times are."""
    devices = list(dict.fromkeys(folder.run.device for folder in runs))
    if len(devices) > 1:
        told = ", ".join(devices)
        return (
            f"Times are of the machines that made the runs (devices: {told}), under the load they "
            "had: those of different runs cannot be weighed against each other."
        )
    return f"Times are of the machine that made the runs (device: {devices[0]}), under its load."


def misses(folder: RunFolder) -> Iterator[str]:
    """Say of the masks of other tools which targets have none, and why: often a name is wrong."""
    if folder.run.strategies != ["masks"]:
        return
    masks = folder.records().filter(pl.col("strategy") == "masks")
    for (model,), own in sorted(masks.group_by("model"), key=lambda item: str(item[0])):
        missed = own.filter(pl.col("outcome") == "miss")
        if len(missed):
            counted = missed["reason"].value_counts(sort=True).rows()
            told = [f"{count(n)} × {_short(reason)}" for reason, n in counted[:REASONS_SHOWN]]
            yield (
                f"{model} has no mask for {count(len(missed))} of {plural(len(own), 'target')}, "
                f"which count as DICE 0: {'; '.join(told)}."
            )


def subsets(runs: Sequence[RunFolder]) -> Iterator[str]:
    """Say of runs on a part of their corpus what part it was."""
    for number, folder in enumerate(runs, start=1):
        run = folder.run
        asked = [f"{name.replace('_', ' ')} {value}" for name, value in run.subset.items()]
        asked += (
            [f"at most {plural(run.max_targets, 'target')} per image"] if run.max_targets else []
        )
        if asked:
            which = f"Run {number} is on a subset" if len(runs) > 1 else "Subset"
            targets = (
                ""
                if run.n_targets is None
                else f", {count(run.n_targets)} of {plural(run.of_targets or 0, 'target')}"
            )
            if run.max_targets:
                targets += " before that"
            yield (
                f"{which} ({'; '.join(asked)}; seed {run.seeds[0]}): {count(run.n_images)} of "
                f"{plural(run.of_images, 'image')}{targets}."
            )


def everything(records: pl.DataFrame) -> Iterator[str]:
    """Say of every model how many masks survived in everything, and how many match no target."""
    images = (
        records.filter(pl.col("n_survivors").is_not_null())
        .group_by("model", "protocol", "dataset", "image_id")
        .agg(pl.col("n_survivors", "n_unmatched").first())
        .group_by("model", "protocol", maintain_order=True)
        .agg(
            pl.len().alias("images"),
            (pl.col("n_survivors") == 0).sum().alias("barren"),
            pl.col("n_survivors", "n_unmatched").mean(),
        )
        .sort("model", "protocol")
    )
    for row in images.iter_rows(named=True):
        barren = f"; none in {plural(row['barren'], 'image')}" if row["barren"] else ""
        yield (
            f"Everything by {row['model']}: {row['n_survivors']:.1f} masks survived per image on "
            f"average (of {plural(row['images'], 'image')}{barren}). Of these "
            f"{row['n_survivors'] - row['n_unmatched']:.1f} overlap a target better than all "
            f"others do, {row['n_unmatched']:.1f} are the best for no target that was asked for."
        )


def barren(folder: RunFolder) -> Iterator[str]:
    """Say in one line per model in how many images no mask of everything survived."""
    records = folder.records().filter(pl.col("n_survivors").is_not_null())
    images = records.group_by("model", "image_id").agg(pl.col("n_survivors").first())
    for (model,), own in sorted(images.group_by("model"), key=lambda item: str(item[0])):
        n_barren = int((own["n_survivors"] == 0).sum())
        if n_barren:
            used = folder.run.everything[str(model)]
            yield (
                f"{model}, everything: no mask survived in {n_barren} of "
                f"{plural(len(own), 'image')} (predicted IoU > {used['pred_iou_thresh']:g}, "
                f"stability >= {used['stability_score_thresh']:g}): their targets are misses. "
                "Lower --pred-iou-thresh and --stability-score-thresh if they do not suit the "
                "model."
            )


@dataclass(frozen=True, slots=True)
class Failures:
    """The failed records of a pool: how many of how many, and the most frequent reasons."""

    n_failed: int
    n_records: int
    n_images: int
    reasons: tuple[tuple[str, int, int], ...]  # reason, records, images
    n_other: int  # failed records with a reason that is not listed


def failures(records: pl.DataFrame) -> Failures:
    """Count failed records, and their images, by reason."""
    failed = records.filter(pl.col("outcome") == "failed")
    counted = (
        failed.group_by(pl.col("reason").fill_null("no reason given"))
        .agg(pl.len().alias("records"), pl.col("image_id").n_unique().alias("images"))
        .sort("records", "reason", descending=[True, False])
        .rows()
    )
    return Failures(
        n_failed=len(failed),
        n_records=len(records),
        n_images=failed["image_id"].n_unique(),
        reasons=tuple((_short(reason), n, images) for reason, n, images in counted[:REASONS_SHOWN]),
        n_other=sum(n for _, n, _ in counted[REASONS_SHOWN:]),
    )


def _short(reason: str) -> str:
    return reason if len(reason) <= LONGEST_REASON else reason[: LONGEST_REASON - 1] + "…"
