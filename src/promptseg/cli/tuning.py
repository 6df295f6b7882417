"""The words of `promptseg finetune`, and the objects that they become."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.cli.option import words
from promptseg.errors import DataError, pick

if TYPE_CHECKING:
    from promptseg.tuning.settings import Settings
    from promptseg.tuning.split import Division


def settings_of(preset: str, **given: Any) -> "Settings":
    """Take a preset and change what was given; words of the command line are checked."""
    from dataclasses import replace

    from promptseg.jitter import parse_jitter
    from promptseg.model import Selection
    from promptseg.trainable import Tokens
    from promptseg.tuning.settings import (
        PRESETS,
        Asking,
        Augmentation,
        CacheType,
        Method,
        Precision,
        changed,
    )

    known = {
        "method": Method,
        "prompts": Asking,
        "tokens": Tokens,
        "score": Selection,
        "augmentation": Augmentation,
        "cache_dtype": CacheType,
        "precision": Precision,
    }
    for name, literal in known.items():
        if given[name] is not None:
            pick(words(literal), given[name], name.replace("_", " "))
    start = pick(PRESETS, preset, "preset")
    jitter = given.pop("jitter")
    if jitter == "none":
        start = replace(start, jitter=None)
    elif jitter is not None:
        given["jitter"] = parse_jitter(jitter)
    return changed(start, **given)


def division_of(
    subjects: list[str], test_share: float, val_share: float, by: str, seed: int
) -> "Division":
    """Make the rule by which subjects are held out; its words are checked."""
    from promptseg.tuning.split import Division

    if by not in ("subject", "image"):
        raise DataError(f"--split-by {by!r} is not known: subject or image.")
    return Division(
        test_subjects=tuple(subjects),
        test_share=test_share,
        val_share=val_share,
        by="image" if by == "image" else "subject",
        seed=seed,
    )


def name_of(out: Path, base: str) -> str:
    """Call the trained model as its folder; its base and built-in models keep their own names."""
    from promptseg.models import MODELS

    name = re.sub(r"[^A-Za-z0-9._+-]+", "-", out.resolve().name).strip("-._+")[:64] or "tuned"
    others = (f"{name[:54]}-tuned{number}" for number in ("", *range(2, 99)))
    return next(free for free in (name, *others) if free not in {base, *MODELS})
