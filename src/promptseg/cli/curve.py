"""`promptseg finetune --curve`: how many cases are needed, trained, scored and told."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.cli.training import doubts
from promptseg.errors import DataError
from promptseg.terminal import (
    EXIT_DONE,
    EXIT_FAILED_SAMPLES,
    EXIT_INTERRUPTED,
    err,
    print_json,
    print_table,
    progress,
    say_check,
)

if TYPE_CHECKING:
    from rich.progress import Progress

    from promptseg.tuning.curve import Learned, Study
    from promptseg.tuning.curve_fit import Span
    from promptseg.tuning.run import Job


@dataclass(frozen=True, slots=True)
class Asked:
    """The curve that the command line asks for."""

    sizes: tuple[str, ...]
    repeats: int


def asked_curve(
    curve: str | None, repeats: int | None, also: Sequence[Path] | None
) -> Asked | None:
    """Read the options of a curve; None where none is asked for.

    Raises
    ------
    DataError
        A size cannot be read, or options do not go together.
    """
    from promptseg.tuning.curve import REPEATS, parse_sizes

    if curve is None:
        if repeats is not None:
            raise DataError("--repeats is of a curve: give --curve 2,4,8,all too.")
        return None
    if also:
        raise DataError("A curve scores its held-out subjects only: leave --also out.")
    return Asked(parse_sizes(curve), REPEATS if repeats is None else repeats)


def show_curve(job: "Job", asked: Asked, accelerator: Any, *, as_json: bool) -> int:
    """Train and score every size behind bars, print the table, and write the page."""
    from promptseg.report.words import plural
    from promptseg.run import failures
    from promptseg.tuning.curve import runs_of, study_of, write_curve
    from promptseg.tuning.curve_page import answer, write_curve_page

    study = study_of(job, asked.sizes, asked.repeats)
    try:
        found = _follow(study, accelerator)
    except KeyboardInterrupt:
        err.print("Stopped. The same command goes on from here.")
        raise SystemExit(EXIT_INTERRUPTED) from None
    written = write_curve(job.folder, found)
    page = write_curve_page(job.folder, found)
    if as_json:
        print_json(found)
    else:
        _print(found)
        print(answer(found))
    err.print(
        f"Learning curve, for any browser: {page.resolve()}; numbers: {written}", soft_wrap=True
    )
    failed = [(run.path.relative_to(job.folder), failures(run)) for run in runs_of(study)]
    for path, reasons in failed:
        for reason, count in reasons.items():
            err.print(f"{path}: failed on {plural(count, 'image')}: {reason}", markup=False)
    return EXIT_FAILED_SAMPLES if any(reasons for _, reasons in failed) else EXIT_DONE


def _follow(study: "Study", accelerator: Any) -> "Learned":
    """Learn behind two bars: of the trainings, and of what is done in one."""
    from promptseg.tuning.curve import learn

    steps = learn(study, accelerator)
    with progress("") as bar:
        shown = _Bars(bar)
        while True:
            try:
                happened = next(steps)
            except StopIteration as stop:
                found: Learned = stop.value
                shown.end()
                return found
            shown.show(happened)


class _Bars:
    """A bar of all trainings, and one of the work in hand."""

    def __init__(self, bar: "Progress") -> None:
        self.bar = bar
        self.whole = bar.add_task("curve", total=None, rate="trainings")
        self.work = bar.add_task("", total=None, rate="")
        self.doubts: set[str] = set()

    def show(self, happened: object) -> None:
        """Show what happens; what lasts is printed."""
        from promptseg.contract import Check
        from promptseg.run import Progress as Scored
        from promptseg.tuning.curve import Turn
        from promptseg.tuning.run import Begun, Gathered
        from promptseg.tuning.training import Stepped

        match happened:
            case Turn():
                self.bar.update(self.whole, completed=happened.number, total=happened.of)
                self.bar.reset(self.work, total=None, description=_name(happened), rate="")
                done = ", is there already" if happened.is_done else ""
                err.print(f"{happened.number + 1}/{happened.of}: {_name(happened)}{done}")
            case Gathered(done, of, _):
                self.bar.update(self.work, completed=done, total=of, rate="images encoded")
            case Begun():
                self.bar.reset(self.work, total=happened.of)
                self._warn(doubts(happened))
            case Check() if happened.outcome == "failed" or happened.name == "overfit":
                say_check(happened, err)
            case Stepped():
                rate = f"steps, DICE {happened.log.dice:.3f}"
                self.bar.update(self.work, completed=happened.step, rate=rate)
            case Scored():
                self.bar.update(self.work, description="score", rate="", total=None)

    def _warn(self, told: Iterator[str]) -> None:
        """Say each doubt once: all trainings share who is held out."""
        for doubt in told:
            if doubt not in self.doubts:
                err.print(f"WARNING: {doubt}", markup=False, soft_wrap=True)
            self.doubts.add(doubt)

    def end(self) -> None:
        """Fill the bar."""
        total = self.bar.tasks[0].total
        self.bar.update(self.whole, completed=total or 0)


def _name(turn: Any) -> str:
    return f"size {turn.size}, draw {turn.draw + 1}" if turn.size else "base"


def _print(found: "Learned") -> None:
    """Print DICE by size."""
    curve, most = found.curve, found.curve.points[-1].size
    rows = [[f"none ({found.base})", *_cells(curve.base), "–", "–", ""]]
    rows += [
        [
            str(point.size),
            *_cells(point.dice),
            *_cells(point.gain, sign="+"),
            " ".join(f"{value:.3f}" for value in point.draws),
        ]
        for point in curve.points
    ]
    rows += [
        [f"{place.n:.0f}, extrapolated", *_cells(place.dice), "–", "–", ""]
        for place in curve.ahead
        if place.n <= most * curve.reach
    ]
    header = [f"training {found.unit}s", "DICE", "95 %", "over base", "95 % ", "draws"]
    print_table(f"{found.name}: DICE of {curve.n_subjects} held out", header, rows)


def _cells(span: "Span", sign: str = "") -> tuple[str, str]:
    if span.lo is None or span.hi is None:
        return f"{span.value:{sign}.3f}", "–"
    return f"{span.value:{sign}.3f}", f"{span.lo:{sign}.3f} to {span.hi:{sign}.3f}"
