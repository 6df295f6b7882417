"""What `promptseg finetune` shows: the training behind bars, then what it gained."""

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.progress import Progress

from promptseg.errors import ModelError
from promptseg.terminal import (
    EXIT_DONE,
    EXIT_FAILED_SAMPLES,
    EXIT_INTERRUPTED,
    err,
    follow_evaluation,
    print_json,
    progress,
    say_check,
)

if TYPE_CHECKING:
    from promptseg.tuning.outcome import Outcome
    from promptseg.tuning.run import Begun, Happened, Job
    from promptseg.tuning.state import Progressed
    from promptseg.tuning.training import Stepped, Validated


def follow_training(job: "Job", accelerator: Any) -> "Outcome":
    """Fine-tune behind a progress bar of loss, DICE and time left."""
    from promptseg.tuning.result import MODEL, write_result
    from promptseg.tuning.run import StoppedEarly, finetune
    from promptseg.tuning.state import peek

    quiet = not accelerator.is_main_process
    before = peek(job.folder / "state")
    if before is not None and not quiet:
        err.print(f"{job.folder}: {before.step} steps are there already.", soft_wrap=True)
    try:
        return _follow(finetune(job, accelerator), job, before, quiet=quiet)
    except KeyboardInterrupt:
        err.print("Stopped. The same command goes on from here.")
        raise SystemExit(EXIT_INTERRUPTED) from None
    except StoppedEarly as error:
        made, outcome = job.folder / MODEL, error.outcome
        if not quiet:
            write_result(job, outcome)
        accelerator.wait_for_everyone()  # the first process that ends would end all others
        raise ModelError(
            f"{error} Step {outcome.best_step} of {outcome.n_steps} that were done is written to "
            f"{made}, and not scored."
        ) from error


def _follow(
    steps: "Generator[Happened, None, Outcome]",
    job: "Job",
    before: "Progressed | None",
    *,
    quiet: bool,
) -> "Outcome":
    from promptseg.tuning.board import Board
    from promptseg.tuning.run import Begun

    with ExitStack() as stack:
        bar, log = stack.enter_context(progress("", quiet=quiet)), None
        shown = _Bar(bar, job.settings.score, 0 if before is None else before.step, quiet)
        while True:
            try:
                happened = next(steps)
            except StopIteration as stop:
                outcome: Outcome = stop.value
                return outcome
            try:
                shown.show(happened)
                if isinstance(happened, Begun) and not quiet:
                    log = stack.enter_context(Board(job.folder / "log", before))
                if log is not None:
                    log.add(happened, shown.step)
            except KeyboardInterrupt as stop:  # so that the training saves its state
                steps.throw(stop)


class _Bar:
    """A bar for encoding, then one for steps."""

    def __init__(self, bar: Progress, score: str, step: int, quiet: bool) -> None:
        self.bar, self.score, self.step, self.quiet = bar, score, step, quiet
        self.encoding = bar.add_task("encode", total=None, rate="images")
        self.training = bar.add_task("train", total=None, rate="steps", visible=False)

    def show(self, happened: "Happened") -> None:
        """Show what happens; what lasts is printed."""
        from promptseg.contract import Check
        from promptseg.tuning.run import Begun, Gathered
        from promptseg.tuning.training import Stepped, Validated

        match happened:
            case Gathered(done, of, _):
                self.bar.update(self.encoding, completed=done, total=of)
            case Begun():
                self.bar.update(self.encoding, visible=False)
                self.bar.update(self.training, total=happened.of, completed=self.step, visible=True)
                self._say(begun(happened))
            case Check() if not self.quiet:
                say_check(happened, err)
            case Stepped():
                self._stepped(happened)
            case Validated():
                self._validated(happened)

    def _stepped(self, event: "Stepped") -> None:
        self.step = event.step
        rate = f"steps, loss {event.log.loss:.3f}, DICE {event.log.dice:.3f}"
        self.bar.update(self.training, completed=event.step, rate=rate)

    def _validated(self, event: "Validated") -> None:
        best = ", the best so far" if event.best else ""
        self._say(
            f"epoch {event.epoch}/{event.of}: DICE {event.score.dice:.4f} ({self.score}) on the "
            f"subjects that choose{best}"
        )

    def _say(self, line: str) -> None:
        if not self.quiet:
            err.print(escape(line), soft_wrap=True)


def begun(event: "Begun") -> str:
    """Tell who is trained on, and how much of the network is trained."""
    from promptseg.report.words import plural

    split = event.split
    counts = ", ".join(
        f"{role}: {plural(len(split.owners(role)), split.division.by)} "
        f"({plural(len(split.images[role]), 'image')})"
        for role in ("train", "val", "test")
    )
    share = event.chosen.n_values / event.n_values
    counts += "".join(f" (WARNING: {doubt})" for doubt in doubts(event))
    return (
        f"{counts}; {split.source}. {event.chosen.n_values:,} of {event.n_values:,} parameters are "
        f"trained ({share:.0%})."
    )


def doubts(event: "Begun") -> Iterator[str]:
    """Tell why what is scored may not be unseen."""
    from promptseg.tuning.split import n_on_both_sides

    if event.unlisted:
        yield (
            f"the base was trained on images of {', '.join(event.unlisted)}, and does not list "
            "them: some may be held out here"
        )
    if shared := n_on_both_sides(event.split):
        yield f"{shared} subjects have images in two of these: what is scored is not unseen"


def show_training(
    job: "Job",
    outcome: "Outcome",
    *,
    weights: Path | None,
    as_json: bool,
) -> int:
    """Write the model, score it and its base on held-out subjects, and write the report."""
    from promptseg.run import failures
    from promptseg.tuning.judge import judge, judged
    from promptseg.tuning.page import write_page
    from promptseg.tuning.result import write_result
    from promptseg.tuning.state import alone

    with alone(job.folder / "state", writes=True):  # not written to by another in the meantime
        made = write_result(job, outcome)
        found = judged(job, made, weights=weights)
        for trial in found.trials:
            images = trial.folder.run.n_images * len(found.models)
            follow_evaluation(judge(trial, found.models, found.plan), images)
    folders = [trial.folder for trial in found.trials]
    if as_json:
        print_json(outcome)
    err.print(f"Model: {made} (promptseg evaluate CORPUS --model {made})", soft_wrap=True)
    if folders:
        page = write_page(job.folder, folders)
        err.print(f"Before and after, for any browser: {page.resolve()}", soft_wrap=True)
    else:
        err.print("Nobody was held out, and no --also given: there is no before and after.")
    return EXIT_FAILED_SAMPLES if any(map(failures, folders)) else EXIT_DONE
