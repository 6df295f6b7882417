"""What a fine-tuned model says of itself: `model.json`, which anyone may have written."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, get_args

from promptseg.errors import ModelError
from promptseg.model import SELECTIONS, Training
from promptseg.prompt import Everything, PromptKind

CARD, VERSION = "model.json", 1
COUNTS = ("subjects", "images", "targets")  # of a split: what may be told of patients
NAME = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}"
BASE = rf"{NAME}|[A-Za-z_][\w.]*:[A-Za-z_]\w*"
HASH = r"[0-9a-f]{64}"
MOST_LETTERS = 2000  # of one line


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedCard:
    """What a fine-tuned model is, as `model.json` says it.

    Of `finetuned`, any JSON object, four entries are shown in the README: `settings` (an object),
    `data` (a list of flat objects, with licences), `splits` (`train`, `val`, `test`: an object with
    the counts `subjects`, `images`, `targets`; and `source`, a line), and `scores` (a list of flat
    objects: the rows of a table). `images` lists shortened hashes of the images that it saw.
    Where the base was fine-tuned itself, `earlier` lists what it saw, the first training first:
    objects of its `name`, `data` and `images`. `stages_of` gives them all.
    """

    name: str
    base: str  # the word that loads it: `litemedsam`, `package.module:name`
    training: Training  # what it was trained for
    licence: str
    training_data: str  # one line
    everything: Everything | None = None  # None: the thresholds of the base
    everything_source: str = ""
    finetuned: Mapping[str, Any] = field(default_factory=dict)
    base_hash: str = ""  # weights_hash of the base; filled in when it is written, as is ...
    sha256: str = ""  # ... that of model.safetensors


def stages_of(card: TunedCard) -> list[dict[str, Any]]:
    """List all trainings behind a model, its own last: objects of `name`, `data` and `images`.

    Anyone may have written a card: what is not of the form that `TunedCard` says is left out, so
    that it does not go on from card to card.
    """
    stages = [one for one in _list(card.finetuned.get("earlier")) if isinstance(one, dict)]
    return [
        {
            "name": str(one.get("name"))[:64],
            "data": [row for row in _list(one.get("data")) if _is_flat(row)],
            "images": [image for image in _list(one.get("images")) if isinstance(image, str)],
        }
        for one in (*stages, {**card.finetuned, "name": card.name})
    ]


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_flat(row: object) -> bool:
    kinds = (str, int, float, type(None))
    return isinstance(row, dict) and all(isinstance(value, kinds) for value in row.values())


def read_card(folder: Path) -> TunedCard:
    """Read what a fine-tuned model is.

    Raises
    ------
    ModelError
        There is no model.json, it is damaged or foreign, or of a newer promptseg.
    """
    path = folder / CARD
    if not path.is_file():
        raise ModelError(
            f"{folder} is no fine-tuned model: it holds no {CARD}. Give the folder that a finished "
            "fine-tuning wrote."
        )
    try:
        return parsed(json.loads(path.read_bytes(), parse_constant=_no_number))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{path} is damaged or foreign: {error}. Copy the folder again, or write it anew."
        ) from error


def card_text(card: TunedCard) -> str:
    """Write a card as JSON; raises TypeError or ValueError where JSON cannot hold it."""
    content: dict[str, Any] = {"format_version": VERSION} | {
        name: getattr(card, name) for name in TunedCard.__dataclass_fields__
    }
    content["training"] = {
        "prompts": sorted(card.training.prompts),
        "selections": sorted(card.training.selections),
    }
    if card.training.but:
        content["training"]["but"] = sorted(map(list, card.training.but))
    if card.everything is not None:
        content["everything"] = asdict(card.everything)
        del content["everything"]["kind"]
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def parsed(content: object) -> TunedCard:
    """Make a card of JSON that anyone may have written; raises ValueError."""
    told = object_of(content, "the file")
    version = told.pop("format_version", None)
    if isinstance(version, int) and version > VERSION:
        raise ValueError(f"its format {version} is of a newer promptseg, which has to be installed")
    if version != VERSION:
        raise ValueError(f"it has no format_version {VERSION}")
    if told.keys() != TunedCard.__dataclass_fields__.keys():
        odd = min(told.keys() ^ TunedCard.__dataclass_fields__.keys())
        raise ValueError(f"{odd!r} is {'unknown' if odd in told else 'missing'}")
    training = object_of(told["training"], "training")
    finetuned = object_of(told["finetuned"], "finetuned")
    _refuse_names(finetuned.get("splits", {}))
    return TunedCard(
        name=_line(told["name"], "name", NAME),
        base=_line(told["base"], "base", BASE),
        training=_training(training),
        licence=_line(told["licence"], "licence"),
        training_data=_line(told["training_data"], "training_data"),
        everything=_everything(told["everything"]),
        everything_source=_line(told["everything_source"], "everything_source", ".*"),
        finetuned=finetuned,
        base_hash=_line(told["base_hash"], "base_hash"),
        sha256=_line(told["sha256"], "sha256", HASH),
    )


def object_of(value: object, what: str) -> dict[str, Any]:
    """Take a JSON object; raises ValueError."""
    if not isinstance(value, dict):
        raise ValueError(f"{what} is no JSON object")
    return value


def _training(told: dict[str, Any]) -> Training:
    prompts = _words(told.get("prompts"), get_args(PromptKind), "prompts")
    selections = _words(told.get("selections"), SELECTIONS, "selections")
    but = told.get("but", [])
    pairs = list(map(list, product(prompts, selections)))
    if not isinstance(but, list) or any(pair not in pairs for pair in but):
        raise ValueError("but is no list of pairs of its prompts and selections")
    return Training(prompts, selections, frozenset((kind, chosen) for kind, chosen in but))


def _line(value: object, what: str, pattern: str = ".+") -> str:
    """Take one line of text, without anything that a terminal would obey."""
    if not (isinstance(value, str) and value.isprintable() and len(value) <= MOST_LETTERS):
        raise ValueError(f"{what} is no line of text")
    if not re.fullmatch(pattern, value):
        raise ValueError(f"{what} {value!r} is not of the form {pattern}")
    return value


def _words(value: object, known: Sequence[str], what: str) -> frozenset[Any]:
    if not isinstance(value, list) or not value or any(word not in known for word in value):
        raise ValueError(f"{what} is no list of {', '.join(known)}")
    return frozenset(value)


def _everything(value: object) -> Everything | None:
    if value is None:
        return None
    told, usual = object_of(value, "everything"), asdict(Everything())
    for name, setting in told.items():
        fitting = (int,) if name == "points_per_side" else (int, float)
        if name == "kind" or name not in usual or type(setting) not in fitting:
            raise ValueError(f"everything has no {name} of {setting!r}")
    return Everything(**told)


def _refuse_names(splits: object) -> None:
    """Refuse what could name a patient: a split is told by its counts."""
    for role, counts in object_of(splits, "splits").items():
        if role == "source":
            _line(counts, "source")
        elif not all(
            key in COUNTS and (count is None or type(count) is int)
            for key, count in object_of(counts, role).items()
        ):
            raise ValueError(
                f"the split {role} has to hold counts of {', '.join(COUNTS)} and nothing else, "
                "since names of subjects are data of patients"
            )


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number of JSON")
