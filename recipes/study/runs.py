"""The runs that the tables and figures of the study are read from, made once.

python recipes/study/runs.py CORPUS... --model MODEL... --out DIR
    [--make prompts points clicks everything]

prompts: every strategy that a model was trained for, exact and with the study's jitter
(`DIR/CORPUS-MODEL.run`). points: more numbers of points (`DIR/CORPUS-MODEL-points.run`). clicks: a
simulated user who corrects, click by click (`DIR/CORPUS-MODEL-clicks.run`).
everything: with so many points per side, on few images, since it is the costly part
(`DIR/CORPUS-MODEL-everything-N.run`). The scripts beside this one read the runs and need no model.
A stopped command goes on by being given again.
"""

import argparse
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import clicked

from promptseg import (
    STRATEGIES,
    Choice,
    Jitter,
    Plan,
    Segmenter,
    evaluate_into,
    load_model,
    open_corpus,
)
from promptseg.jitter import parse_jitter
from promptseg.memory import keep_freed_memory
from promptseg.model import SELECTIONS
from promptseg.plan import own_everything
from promptseg.strategy import Strategy, points

PROMPTS, POINTS, CLICKS, EVERYTHING = "prompts", "points", "clicks", "everything"
LEVELS = ("0-10", "10-20", "20-30")  # pixels, section 4.10 of the study
JITTER = tuple(f"{mode}:px:{level}" for mode in ("centre", "shift") for level in LEVELS)
NUMBERS = (1, 2, 3, 5, 10, 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One run that the study needs of a model, on every corpus."""

    name: str  # of its folder, after the corpus
    plan: Plan
    choice: Choice
    by_clicks: bool = False


def trained_plan(
    model: Segmenter[Any], jitter: Sequence[Jitter] = (), seeds: Sequence[int] = (0,)
) -> Plan:
    """Plan every strategy and selection that a model was trained for, everything apart.

    Jitter that moves no prompt of these is left out.
    """
    known = tuple(one for one in SELECTIONS if one in model.training.selections)
    strategies = tuple(
        one
        for one in STRATEGIES.values()
        if one.make is not None
        and any(model.training.covers(one.prompt_kind, selection) for selection in known)
    )
    moving = tuple(j for j in jitter if any(j.moves(one.prompt_kind) for one in strategies))
    return Plan(
        strategies=strategies,
        selections=known,
        jitter=moving,
        seeds=tuple(seeds) if moving else tuple(seeds[:1]),
    )


def points_plan(model: Segmenter[Any], numbers: Sequence[int]) -> Plan:
    """Plan positive points of the study's rule, so many."""
    return Plan(
        strategies=tuple(Strategy(f"points{n}", "points", points(n)) for n in numbers),
        selections=tuple(one for one in SELECTIONS if one in model.training.selections),
    )


def everything_plan(model: Segmenter[Any], grid: int) -> Plan:
    """Plan everything, with the model's own thresholds and another grid."""
    settings = replace(own_everything(model), points_per_side=grid)
    return Plan(
        strategies=(STRATEGIES["everything"],),
        selections=("oracle", "predicted"),
        everything={model.name: settings},
    )


def wishes(model: Segmenter[Any], told: argparse.Namespace) -> Iterator[Wish]:
    """List what is asked of a model; what it was not trained for is not asked."""
    name = re.sub(r"[^\w.+-]", "_", model.name)
    choice = Choice(per_task=told.per_task, limit=told.limit)
    if PROMPTS in told.make:
        jitter = [parse_jitter(text) for text in told.jitter]
        yield Wish(name=name, plan=trained_plan(model, jitter, told.seed), choice=choice)
    if POINTS in told.make and "points" in model.training.prompts:
        yield Wish(name=f"{name}-points", plan=points_plan(model, told.points), choice=choice)
    if CLICKS in told.make and "points" in model.training.prompts:
        plan = clicked.plan_of(model, told.max_clicks)
        yield Wish(name=f"{name}-clicks", plan=plan, choice=choice, by_clicks=True)
    if EVERYTHING in told.make and model.training.covers("everything", "predicted"):
        fewer = replace(choice, limit=told.grid_limit)
        for grid in told.grid:
            plan = everything_plan(model, grid)
            yield Wish(name=f"{name}-everything-{grid}", plan=plan, choice=fewer)


def make(corpora: Sequence[Path], told: argparse.Namespace, into: Path) -> list[Path]:
    """Make what is not there yet, say what it took, and list the folders."""
    if len({path.stem for path in corpora}) < len(corpora):
        raise SystemExit("two corpora have one name: their runs would be one")
    keep_freed_memory()
    models = {word: load_model(word, device=told.device) for word in told.model}
    made = []
    for path in corpora:
        corpus = open_corpus(path)
        for word, model in models.items():
            for wish in wishes(model, told):
                begun = time.monotonic()
                into_this = into / f"{path.stem}-{wish.name}.run"
                write = clicked.click_into if wish.by_clicks else evaluate_into
                folder = write(
                    into_this,
                    corpus,
                    {word: model},
                    wish.plan,
                    choice=wish.choice,
                    device=told.device,
                )
                took = time.monotonic() - begun
                print(f"{folder.path}: {folder.run.n_targets} targets, {took:.0f} s", flush=True)
                made.append(folder.path)
    return made


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what says how runs are made."""
    parser.add_argument("--model", nargs="+", default=["litemedsam", "litemedsam-points"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jitter", nargs="*", default=JITTER, help="without values: none")
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2], help="of the jitter")
    parser.add_argument("--per-task", type=int, help="at most N targets of a task in a corpus")
    parser.add_argument("--limit", type=int, help="at most N images of a corpus")
    parser.add_argument("--points", type=int, nargs="+", default=list(NUMBERS), help="numbers")
    parser.add_argument("--max-clicks", type=int, default=10, help="of the simulated user")
    parser.add_argument("--grid", type=int, nargs="+", default=[8, 16, 32], help="points per side")
    parser.add_argument("--grid-limit", type=int, default=5, help="images of a corpus, everything")


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the runs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("corpus", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    kinds = [PROMPTS, POINTS, CLICKS, EVERYTHING]
    parser.add_argument("--make", nargs="+", choices=kinds, default=[PROMPTS])
    add_options(parser)
    told = parser.parse_args(arguments)
    make(told.corpus, told, told.out)


if __name__ == "__main__":
    main()
