"""Before and after: the base and the trained model on the same held-out subjects and prompts."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptseg.corpus import Corpus
from promptseg.model import SELECTIONS, Segmenter
from promptseg.models import load_model
from promptseg.plan import Plan
from promptseg.record import RunFolder, start_run
from promptseg.run import Progress, describe_run, evaluate_corpus
from promptseg.strategy import STRATEGIES, Strategy
from promptseg.subset import Choice, Subset, choose_subset
from promptseg.tuned import load_tuned
from promptseg.tuning.run import Job, split_of
from promptseg.tuning.settings import Settings
from promptseg.tuning.split import Split
from promptseg.tuning.validation import TESTED


@dataclass(frozen=True, slots=True)
class Trial:
    """One corpus on which both models are scored."""

    corpus: Corpus
    subset: Subset | None  # None: all of it, which nobody was trained on
    folder: RunFolder


def judged_strategies(settings: Settings, base: Segmenter[Any]) -> tuple[Strategy, ...]:
    """List what was trained, and what the base was trained for: that may have been forgotten."""
    names = set(TESTED[settings.prompts])
    known = {s.name for s in STRATEGIES.values() if s.prompt_kind in base.training.prompts}
    return tuple(s for s in STRATEGIES.values() if s.name in names | known)


def trials(
    held_out: Sequence[tuple[Corpus, Collection[str] | None]],
    models: Mapping[str, Segmenter[Any]],
    plan: Plan,
    folder: Path,
    *,
    device: str = "cpu",
) -> list[Trial]:
    """Begin the runs: on the held-out images of what was trained on, and on all of other corpora.

    `models` are the base and the trained model by the words that load them. All targets of an
    image are scored, those of tasks that were not trained on as well.
    """
    made: list[Trial] = []
    for number, (corpus, images) in enumerate(held_out):
        subset = None
        if images is not None:
            subset = choose_subset(corpus, Choice(where=images_are(images)), unit=plan.unit)
        run = describe_run(corpus, models, plan, subset=subset, device=device)
        name = f"{number:02d}-{corpus.path.name.removesuffix('.corpus')}.run"
        made.append(Trial(corpus, subset, start_run(folder / name, run)))
    return made


def held_out_of(
    corpora: Sequence[Corpus], split: Split, also: Sequence[Corpus]
) -> list[tuple[Corpus, Collection[str] | None]]:
    """List what nobody was trained on: corpora with their images, None for all of them."""
    own = [(corpus, split.ids("test", number)) for number, corpus in enumerate(corpora)]
    return [*((corpus, ids) for corpus, ids in own if ids), *((corpus, None) for corpus in also)]


def images_are(image_ids: Collection[str]) -> str:
    """Write the condition that holds for these images."""
    quoted = (name.replace("'", "''") for name in sorted(image_ids))
    return "image_id IN ({})".format(", ".join(f"'{name}'" for name in quoted))


def judge(trial: Trial, models: Mapping[str, Segmenter[Any]], plan: Plan) -> Iterator[Progress]:
    """Score both models on a corpus; what is there already is not done again."""
    yield from evaluate_corpus(trial.corpus, trial.folder, models, plan, subset=trial.subset)


@dataclass(frozen=True, slots=True)
class Judged:
    """Both models, how they are asked, and on what."""

    models: Mapping[str, Segmenter[Any]]  # by the words that load them
    plan: Plan
    trials: list[Trial]


def judged(job: Job, made: Path, *, weights: Path | None = None) -> Judged:
    """Set out what has to be scored: the base, loaded anew, and the model that was made of it.

    `weights` is the file that the base's weights came from, if not its own.
    """
    device = str(job.model.device) if hasattr(job.model, "device") else "cpu"
    base = load_model(job.asked, weights=weights, device=device)
    models = {job.asked: base, str(made): _made(made, job, device)}
    plan = plan_of(job.settings, base)
    held_out = held_out_of(job.corpora, split_of(job), job.also)
    made_of = trials(held_out, models, plan, job.folder / "before-after", device=device)
    return Judged(models, plan, made_of)


def _made(made: Path, job: Job, device: str) -> Segmenter[Any]:
    """Load what was made; its base may be code, which the user named."""
    return load_tuned(made, device=device, trust_base=":" in job.asked)


def plan_of(settings: Settings, base: Segmenter[Any]) -> Plan:
    """Plan how both models are asked and scored."""
    strategies = judged_strategies(settings, base)
    return Plan(strategies=strategies, selections=SELECTIONS, unit=settings.unit)
