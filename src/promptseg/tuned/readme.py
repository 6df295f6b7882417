"""The README of a fine-tuned model: a model card, as model hubs read it."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from promptseg.tuned.card import COUNTS, TunedCard, object_of

# licences as model hubs call them
HUB_LICENCES = frozenset(
    {"apache-2.0", "mit", "bsd-3-clause", "gpl-3.0", "cc0-1.0"}
    | {f"cc-{kind}-4.0" for kind in ("by", "by-sa", "by-nc", "by-nc-sa", "by-nc-nd")}
)


def model_card(card: TunedCard) -> str:
    """Write the README of a fine-tuned model: YAML for model hubs, then what a user has to know.

    Raises
    ------
    ValueError
        An entry of `finetuned` that is shown is not of the form that `TunedCard` says.
    """
    return "\n".join([*_front_matter(card), *_said(card), *_history(card), *_usage(card)]) + "\n"


def _front_matter(card: TunedCard) -> Iterator[str]:
    licence = card.licence.lower()
    yield from ("---", f"license: {licence if licence in HUB_LICENCES else 'other'}")
    if licence not in HUB_LICENCES:
        yield f"license_name: {json.dumps(card.licence)}"
    yield from ("library_name: promptseg", "pipeline_tag: mask-generation", "tags:")
    yield from ("- medical", "- image-segmentation", "- promptable-segmentation")
    yield from (f"base_model: {json.dumps(card.base)}", "---", "")


def _said(card: TunedCard) -> Iterator[str]:
    yield from (f"# {card.name}", "")
    yield f"{card.base} fine-tuned with promptseg. model.safetensors holds the tensors that differ."
    exceptions = card.training.exceptions()
    rows = {
        "prompts it was trained for": ", ".join(sorted(card.training.prompts)),
        "selections it was trained for": ", ".join(sorted(card.training.selections)),
        **({"but not for": ", ".join(exceptions)} if exceptions else {}),
        "training data": card.training_data,
        "licence": card.licence,
        "everything": "as the base" if card.everything is None else card.everything_source,
        "sha256 of the weights": card.sha256,
        "weights of the base": card.base_hash,
    }
    yield from _table(["", ""], rows.items())


def _history(card: TunedCard) -> Iterator[str]:
    """Tell data, splits, settings and scores, as far as the card has them."""
    told = card.finetuned
    if data := told.get("data"):
        yield from ("", "## Data", *_rows(data, "data"))
    if earlier := told.get("earlier"):
        yield from ("", f"## Data of models before {_cell(card.name)}", *_earlier(earlier))
    if splits := dict(told.get("splits", {})):
        source = splits.pop("source", None)
        yield from ("", "## Splits")
        yield from () if source is None else ("", _cell(source))
        counts = [[role, *(one.get(c) for c in COUNTS)] for role, one in splits.items()]
        yield from _table(["split", *COUNTS], counts)
    if settings := told.get("settings"):
        yield from ("", "## Settings", *_table(["", ""], object_of(settings, "settings").items()))
    if scores := told.get("scores"):
        yield from ("", "## Scores", *_rows(scores, "scores"))


def _earlier(value: object) -> Iterator[str]:
    """Tell what the models saw that it was fine-tuned from."""
    if not isinstance(value, list):
        raise ValueError("earlier is no list of objects")
    stages = [object_of(stage, "an entry of earlier") for stage in value]
    data = [(stage.get("name"), stage.get("data") or []) for stage in stages]
    if not all(isinstance(rows, list) for _, rows in data):
        raise ValueError("data is no list of objects")
    yield from _rows(
        [{"model": name} | object_of(row, "data") for name, rows in data for row in rows], "earlier"
    )


def _usage(card: TunedCard) -> Iterator[str]:
    yield from ("", "## Use", "")
    if ":" in card.base:
        yield from ("    # my_model.py", "    from pathlib import Path", "")
        yield from ("    from promptseg.tuned import load_tuned", "", "    def make():")
        yield f"        # imports {card.base}: only if you trust it"
        yield from ('        return load_tuned(Path("FOLDER"), trust_base=True)', "")
        yield "    promptseg evaluate CORPUS --model my_model:make --out RUN"
    else:
        yield "    promptseg evaluate CORPUS --model FOLDER --out RUN"
    yield from ("", "FOLDER is the folder that holds this file.", "", "## Limits", "")
    yield "For research only: no medical device, and not for diagnosis or treatment. Scores hold"
    yield "for data like that above; other scanners, hospitals, objects and prompts have to be"
    yield "measured."


def _rows(value: object, what: str) -> Iterator[str]:
    """Show a list of flat objects as a table of all their entries."""
    if not isinstance(value, list):
        raise ValueError(f"{what} is no list of objects")
    rows = [object_of(row, f"an entry of {what}") for row in value]
    header = list(dict.fromkeys(key for row in rows for key in row))
    yield from _table(header, [[row.get(key) for key in header] for row in rows])


def _table(header: Sequence[str], rows: Any) -> Iterator[str]:
    yield from ("", _row(header), _row(["---"] * len(header)))
    for row in rows:
        yield _row(row)


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(value: object) -> str:
    """Write a value so that Markdown shows it and does not obey it."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = value if isinstance(value, str) else json.dumps(value)
    return " ".join(re.sub(r"([|<>\[\]`*_\\])", r"\\\1", text).split())
