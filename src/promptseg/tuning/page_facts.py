"""How a model was trained, in facts and in paragraphs of a methods section."""

from collections.abc import Iterator, Sequence
from pathlib import PurePath

from promptseg.paired import Comparison
from promptseg.record import Run
from promptseg.report.facts import SHORT, Fact, Method
from promptseg.report.facts import methods as methods_of_runs
from promptseg.report.table import Row
from promptseg.report.words import UNDEFINED, count, percent
from promptseg.significance import ENUMERATED, FLIPS
from promptseg.tuning.outcome import Outcome

ROLES = ("train", "val", "test")
ASKED = {
    "box": "the tight box",
    "points": "points",
    "mixed": "boxes, points, and both",
    "clicks": "boxes, points and both, some corrected by simulated clicks",
}


def duration(seconds: float) -> str:
    """Write a time in its two largest units."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if whole < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(n_bytes: int) -> str:
    """Write a number of bytes; 0 is unknown, or nothing was kept."""
    if not n_bytes:
        return UNDEFINED
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"


def facts(own: Outcome) -> Iterator[Fact]:
    """List what was trained, on what, and what it cost."""
    yield Fact(
        "Base", (f"{own.base} ({PurePath(own.asked).name}), weights {own.base_hash[:SHORT]}",)
    )
    share = f" of {count(own.of_values)} ({percent(own.n_values / own.of_values)})"
    yield Fact("Trained parameters", (count(own.n_values) + (share if own.of_values else ""),))
    yield Fact("Data", tuple(map(_dataset, own.datasets)))
    yield Fact("Split", (own.split_source,))
    yield Fact("Left out", tuple(f"{count(n)} images: {why}" for why, n in own.left_out.items()))
    yield Fact("Steps", (_steps(own),))
    yield Fact("Wall time", (f"{duration(own.seconds)} (of the last start)",))
    yield Fact("Peak memory", (size(own.peak_bytes),))
    if own.device_peak_bytes:
        yield Fact("Peak memory of the GPU", (size(own.device_peak_bytes),))
    yield Fact("Cache of features", (size(own.cache_bytes),))
    several = f", {own.processes} processes" if own.processes > 1 else ""
    yield Fact("Device", (f"{own.device}{several}",))
    yield Fact("Versions", (", ".join(f"{name} {told}" for name, told in own.versions.items()),))
    yield Fact("Started", (own.started,) if own.started else ())


def _dataset(dataset: dict[str, str | None]) -> str:
    licence = dataset.get("licence") or "licence unknown"
    parts = (dataset.get("name") or "unnamed", licence, dataset.get("citation"))
    return ", ".join(part for part in parts if part)


def _steps(own: Outcome) -> str:
    whole = f"{count(own.n_steps)}, of which {count(own.steps_per_epoch)} are an epoch"
    if own.best_score is None:
        return whole
    return f"{whole}; the best state after {count(own.best_step)} (DICE {own.best_score:.3f})"


def settings(own: Outcome) -> list[tuple[str, str]]:
    """List the settings as they were given."""
    return [(name.replace("_", " "), _setting(value)) for name, value in own.settings.items()]


def _setting(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def split_counts(own: Outcome) -> list[tuple[str, str, str, str]]:
    """List for every role its subjects, images and targets."""
    return [
        (
            role,
            count(own.n_subjects.get(role)),
            count(own.n_images.get(role)),
            count(own.n_targets[role]) if role in own.n_targets else UNDEFINED,
        )
        for role in ROLES
        if role in own.n_subjects or role in own.n_images
    ]


def methods(
    own: Outcome, found: Comparison, runs: Sequence[Run], rows: Sequence[Row]
) -> list[Method]:
    """Write the paragraphs: the training, the comparison, then those of any evaluation."""
    return [
        Method("Training", " ".join(_training(own))),
        Method("Comparison", " ".join(_comparison(found))),
        *methods_of_runs(runs, rows),
    ]


def _training(own: Outcome) -> Iterator[str]:
    told = own.settings
    asked = ASKED.get(str(told.get("prompts")), str(told.get("prompts")))
    yield (
        f"{own.base} was trained further by AdamW (learning rate {told.get('learning_rate')}, "
        f"{told.get('schedule')} schedule, weight decay {told.get('weight_decay')}) for "
        f"{told.get('epochs')} epochs of {count(own.steps_per_epoch)} steps, each of "
        f"{told.get('batch_size')} images, asking by {asked}."
    )
    yield "The loss is that of the masks and, where it is trained, of the predicted IoU."
    if own.best_score is None:
        yield "The last state was kept."
    else:
        yield (
            f"The state with the best mean DICE by the {told.get('score')} selection on "
            f"{'images' if own.split_by == 'image' else 'subjects'} set apart for this was kept."
        )
    yield f"The held-out {own.split_by}s took part in neither."


def _comparison(found: Comparison) -> Iterator[str]:
    yield (
        "Both models answered the same prompts, and only prompts that both were scored on enter. "
        "The difference of each pair, after minus before, is averaged within targets, images, "
        "subjects and tasks, in this order, and its interval is over subjects. d is the mean of "
        "the subjects' differences over their standard deviation."
    )
    yield (
        "p is two-sided, by flipping the signs of subjects: of all flips up to "
        f"{ENUMERATED} subjects, beyond of {FLIPS:,} drawn ones. It is corrected by Holm for the "
        f"{found.n_tested} rows of the table that are tested. Rows whose subjects are too few for "
        "any p to pass 5 % after it, chosen by their number alone (Tarone), and off-protocol rows "
        "are not tested."
    ).replace(f"{FLIPS:,}", count(FLIPS))
