"""What the command line shows: work behind progress bars, tables, and JSON for scripts."""

import dataclasses
import json
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from promptseg.bars import Bars
from promptseg.errors import DataError

if TYPE_CHECKING:
    from promptseg import curation, run
    from promptseg.contract import Check
    from promptseg.corpus import Corpus, CorpusInfo
    from promptseg.duplicates import Pair
    from promptseg.inventory import Inventory
    from promptseg.plan import Plan
    from promptseg.record import RunFolder
    from promptseg.report import Row
    from promptseg.stages import Profile, Stopwatch
    from promptseg.stats import Estimate
    from promptseg.subset import Choice, Subset

EXIT_DONE, EXIT_FAILED_SAMPLES = 0, 3
EXIT_INTERRUPTED = 130  # as shells number it: 128 + SIGINT
out = Console(highlight=False, soft_wrap=False)
err = Console(stderr=True, highlight=False)


def progress(unit: str, *, quiet: bool = False) -> Bars:
    """Show bars on standard error, or a line now and then where it is no terminal."""
    return Bars(unit, err, quiet=quiet)


def print_json(content: Any) -> None:
    """Print dataclasses, lists and plain values as JSON on standard output."""
    print(json.dumps(content, default=_plain, indent=2, allow_nan=False))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return str(value)


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; columns after the first that hold numbers are set to the right."""
    table = Table(title=escape(title), title_justify="left", header_style="bold")
    for index, name in enumerate(header):
        numeric = index > 0 and all(_is_number(row[index]) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    out.print(table)


def _is_number(text: str) -> bool:
    return not text or text[0].isdigit() or text[0] in "-–"


def follow_curation(
    steps: "Generator[curation.Progress, None, CorpusInfo]",
) -> "tuple[CorpusInfo, Mapping[str, int]]":
    """Curate behind a progress bar; return what came of it, and the drops by reason."""
    drops: Mapping[str, int] = {}
    with progress("files") as bar:
        task = bar.add_task("curate", total=None, rate="")
        while True:
            try:
                step = next(steps)
            except StopIteration as stop:
                info: CorpusInfo = stop.value
                return info, drops
            drops = step.drops
            bar.update(task, completed=step.done, total=step.total)


def show_corpus(
    path: Path | str, info: "CorpusInfo", drops: "Mapping[str, int]", *, as_json: bool
) -> None:
    """Print what a corpus holds, what was left out, and what to look at twice."""
    if as_json:
        print_json({"corpus": str(path), **dataclasses.asdict(info)})
        return
    rows = [[task, str(count)] for task, count in info.tasks.items()]
    print_table(f"{info.name}: {info.n_images} images", ["task", "targets"], rows)
    print(f"{path}: {info.n_targets} targets; {info.n_drops} left out, listed in {path}/drops")
    for reason, count in sorted(drops.items(), key=lambda item: -item[1])[:5]:
        print(f"  left out {count}: {reason}")
    if subjects := info.rules.get("subjects"):
        print(f"Subjects: {subjects}")
    if hint := info.rules.get("hint"):
        print(f"Note: {hint}")


def show_inventory(found: "Inventory") -> None:
    """Print what is in a corpus."""

    def row(one: Mapping[str, Any], *names: str) -> list[str]:
        return ["unknown" if one[name] is None else f"{one[name]}" for name in names]

    of = "unknown subjects" if found.n_subjects is None else f"{found.n_subjects} subjects"
    print_table(
        f"{found.name}: {found.n_images} images of {of}",
        ["task", "targets", "images", "subjects", "median area, px"],
        [row(one, "task", "targets", "images", "subjects", "area_px") for one in found.tasks],
    )
    if found.splits:
        print_table(
            "Splits",
            ["split", "targets", "images", "subjects"],
            [row(one, "split", "targets", "images", "subjects") for one in found.splits],
        )
    print_table(
        "Data sets",
        ["data set", "licence", "images", "subjects"],
        [row(one, "dataset", "licence", "images", "subjects") for one in found.datasets],
    )
    if found.drops:
        print_table(
            "Left out",
            ["reason", "number"],
            [row(one, "reason", "number") for one in found.drops],
        )
    low, high = found.smallest_hw, found.largest_hw
    print(
        f"{found.path}: {found.n_targets} masks, {found.n_volumes} volumes, "
        f"{found.n_bytes / 1e6:.3g} MB, images of {low[1]} x {low[0]} to {high[1]} x {high[0]} px, "
        f"fingerprint {found.fingerprint[:16]}"
    )


def follow_sheet(corpus: "Corpus", found: "Inventory", out: Path, per_task: int) -> None:
    """Draw the contact sheet of a corpus behind a progress bar."""
    from promptseg.report.contact import write_contact_sheet

    with progress("tasks") as bar:
        task = bar.add_task("draw", total=len(found.tasks), rate="")
        write_contact_sheet(
            corpus, found, out, per_task=per_task,
            drawn=lambda done: bar.update(task, completed=done),
        )  # fmt: skip


def follow_duplicates(corpora: "Sequence[Corpus]") -> "list[Pair]":
    """Look for duplicates behind a progress bar."""
    from promptseg.inventory import duplicates

    with progress("images") as bar:
        total = sum(corpus.info.n_images for corpus in corpora)
        task = bar.add_task("look", total=total, rate="")
        return list(duplicates(corpora, lambda done: bar.update(task, completed=done)))


def say_unit(corpus: "Corpus", plan: "Plan") -> None:
    """Tell the user when instances are about to be joined: the scores are of another thing."""
    count = corpus.n_classes()
    if plan.unit == "class" and count < corpus.info.n_targets:
        err.print(
            f"{corpus.info.n_targets} reference masks are joined to {count} targets, one per "
            "object and image (--unit class, as in the study). --unit instance scores each mask."
        )


def choose(corpus: "Corpus", choice: "Choice", plan: "Plan") -> "Subset | None":
    """Choose what of a corpus is evaluated, and tell the user; None is all of it."""
    from promptseg.subset import choose_subset

    if not choice.told():
        return None
    subset = choose_subset(corpus, choice, unit=plan.unit, seed=plan.seeds[0])
    subjects = (
        ""
        if subset.n_subjects is None or subset.of_subjects is None
        else f" of {subset.n_subjects} of {subset.of_subjects} subjects"
    )
    err.print(
        f"Subset: {subset.n_images} of {subset.of_images} images{subjects}, "
        f"{subset.n_targets} of {subset.of_targets} targets"
        + (f", before at most {plan.max_targets} per image are drawn." if plan.max_targets else ".")
    )
    if subset.n_targets == 0:
        raise DataError("None of these images has a target: there is nothing to score.")
    return subset


def run_plan(  # noqa: PLR0913 - what evaluate_corpus takes
    corpus: "Corpus",
    models: "Mapping[str, run.Answering]",
    plan: "Plan",
    folder: "RunFolder",
    *,
    subset: "Subset | None" = None,
    retry_failed: bool = False,
    stopwatch: "Stopwatch | None" = None,
) -> None:
    """Evaluate a corpus into a run folder behind a progress bar."""
    from promptseg.run import evaluate_corpus

    if done := folder.parts_done():
        err.print(f"{folder.path}: {done} of {folder.run.n_parts} parts are there already.")
    steps = evaluate_corpus(
        corpus,
        folder,
        models,
        plan,
        subset=subset,
        retry_failed=retry_failed,
        stopwatch=stopwatch,
    )
    follow_evaluation(steps, folder.run.n_images * len(models))


def follow_evaluation(steps: "Iterator[run.Progress]", n_images: int) -> None:
    """Evaluate behind a progress bar of images, prompts per second and time left."""
    try:
        _follow_evaluation(steps, n_images)
    except KeyboardInterrupt:
        err.print("Stopped. The same command goes on from here.")
        raise SystemExit(EXIT_INTERRUPTED) from None


def _follow_evaluation(steps: "Iterator[run.Progress]", n_images: int) -> None:
    start, prompts, failed = time.monotonic(), 0, 0
    with progress("images") as bar:
        task = bar.add_task("evaluate", total=n_images, rate="")
        for step in steps:
            prompts += step.prompts
            failed += step.failed
            rate = f"{prompts / max(time.monotonic() - start, 1e-3):.1f} prompts/s"
            told = f"{rate}, {failed} failed" if failed else rate
            bar.update(task, description=step.model, advance=step.images, rate=told)
    seconds = time.monotonic() - start
    from promptseg.report.words import plural

    asked = f"{plural(prompts, 'prompt')} decoded now, " if prompts else ""
    err.print(f"{plural(n_images, 'image')}, {asked}{seconds:.0f} s")


def show_outcome(
    folder: "RunFolder", *, as_json: bool = False, profile: "Profile | None" = None
) -> int:
    """Print a run's table, its failures and where its time went; return the exit code."""
    from promptseg.report import flat, table_rows
    from promptseg.report.words import barren, everything, misses, plural
    from promptseg.run import failures

    rows = table_rows([folder])
    failed = failures(folder)
    if as_json:
        lines = [flat(row) for row in rows]
        told = {} if profile is None else {"profile": profile}
        print_json({"run": str(folder.path), "rows": lines, "failed": failed, **told})
    else:
        print_scores(f"{folder.run.corpus}: {folder.path}", rows)
    if profile is not None:
        show_profile(profile)
    for line in (*everything(folder.records()), *barren(folder), *misses(folder)):
        err.print(line, markup=False)
    for reason, count in failed.items():
        err.print(f"failed on {plural(count, 'image')}: {reason}", markup=False)
    if failed and folder.run.strategies == ["masks"]:
        err.print("Mended files are other predictions: evaluate them into another --out.")
    elif failed:
        err.print("When the cause is mended, the same command with --retry-failed tries again.")
    return EXIT_FAILED_SAMPLES if failed else EXIT_DONE


def show_profile(profile: "Profile") -> None:
    """Print where the time of an evaluation went, on standard error."""
    from promptseg.report.words import plural

    done = f"{plural(profile.images, 'image')}, {plural(profile.prompts, 'prompt')}"
    table = Table(title=f"{done} in {profile.wall_s:.2f} s", title_justify="left", box=None)
    table.add_column("stage")
    for name in ("calls", "seconds", "CPU s", "share", "ms/image", "ms/prompt"):
        table.add_column(name, justify="right")
    for line in profile.stages:
        means = (line.ms_per_image, line.ms_per_prompt)
        table.add_row(
            line.stage,
            str(line.calls),
            f"{line.wall_s:.2f}",
            f"{line.cpu_s:.2f}",
            f"{line.share:.1%}",
            *("–" if mean is None else f"{mean:.1f}" for mean in means),
        )
    err.print(table)
    err.print(
        f"Stages beside one another: {profile.overlap:.2f} at a time. CPU: {profile.cpu_s:.2f} s, "
        f"{profile.cores_busy:.2f} cores busy; {profile.helpers_cpu_s:.2f} s of it in no stage's "
        f"own thread (torch's helpers). Peak memory: {profile.peak_bytes / 2**30:.2f} GiB.",
        markup=False,
    )


CHECK_MARKS = {"passed": "[green]passed ", "failed": "[bold red]FAILED ", "skipped": "[dim]skipped"}


def say_check(check: "Check", console: Console = out) -> None:
    """Print one check of a model as soon as it is done."""
    mark = CHECK_MARKS[check.outcome]
    console.print(f"{mark}[/] {escape(check.name)}: {escape(check.detail)}", soft_wrap=True)


SCORE_COLUMNS = (
    ("prompt", 10), ("selection", 10), ("DICE", 5), ("95 % (values)", 16),
    ("subj.", 5), ("images", 6), ("targets", 7), ("empty", 5),
)  # fmt: skip


def print_scores(title: str, rows: "Sequence[Row]") -> None:
    """Print a run's scores, task by task; what a model was not trained for is dim, with a star."""
    several = len({row.group.model for row in rows}) > 1
    prompts = max((len(_prompt(row)) for row in rows), default=0)
    out.print(f"\n[bold]{escape(title)}[/bold]")
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        task = row.group.task or ""
        grouped.setdefault(f"{task}, {row.group.model}" if several else task, []).append(row)
    for index, (heading, group) in enumerate(grouped.items()):
        table = Table(
            title=escape(heading),
            title_justify="left",
            box=None,
            show_header=index == 0,
            pad_edge=False,
            collapse_padding=True,
        )
        for number, (name, width) in enumerate(SCORE_COLUMNS):
            side: Literal["left", "right"] = "right" if number > 1 else "left"
            wide = max(width, prompts) if number == 0 else width
            table.add_column(name, width=wide, no_wrap=number != 3, justify=side)
        for row in group:
            table.add_row(*_cells(row), style="dim" if row.group.off_protocol else None)
        out.print(table)
    for line in _legend([row.dice for row in rows]):
        out.print(line)
    if any(row.group.off_protocol for row in rows):
        out.print("* off-protocol: the model was not trained for this prompt or selection.")


def _legend(shown: "Sequence[Estimate]") -> Iterator[str]:
    """Explain what stands in a table of scores."""
    if any("by image" in dice.notes for dice in shown):
        yield "? subjects unknown: intervals are over images, too narrow if images share patients."
    if any("few" in dice.notes and dice.lo is not None for dice in shown):
        yield "few: the interval rests on 5 to 11 subjects."
    if any(dice.subject_values for dice in shown):
        yield "(values): subject means, where fewer than 5 subjects give no interval."


def _prompt(row: "Row") -> str:
    """Name a prompt: its strategy; below an exact one, indented, its jitter."""
    return f"  {row.group.jitter}" if row.group.jitter else row.group.strategy


def _cells(row: "Row") -> list[str]:
    from promptseg.report.words import marked

    group, dice = row.group, row.dice
    return [
        _prompt(row),
        group.selection + ("*" if group.off_protocol else ""),
        "–" if dice.value is None else f"{dice.value:.3f}",
        marked(dice) or "–",
        "?" if dice.n_subjects is None else str(dice.n_subjects),
        str(dice.n_images),
        str(dice.n_targets),
        "–" if dice.rate_empty is None else f"{dice.rate_empty:.0%}",
    ]
