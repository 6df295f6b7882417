"""What came into a corpus and what did not, counted on the way and put into words."""

import re
from collections import Counter
from dataclasses import dataclass, field

from promptseg.curation.pieces import Kept
from promptseg.curation.plan import Plan
from promptseg.curation.settings import Curation


@dataclass(slots=True)
class Tally:
    """What came into a corpus and what did not, counted on the way."""

    drops: Counter[str] = field(default_factory=Counter)  # by reason, with N for numbers
    sources: Counter[str] = field(default_factory=Counter)  # images by what tells their subject
    subjects: set[str] = field(default_factory=set)
    volumes: set[str] = field(default_factory=set)
    objects: set[str] = field(default_factory=set)
    notes: Counter[str] = field(default_factory=Counter)  # images by what is to be known of them

    def keep(self, kept: Kept) -> None:
        """Count an image that was written."""
        self.sources[kept.row.subject_source] += 1
        self.subjects.update(filter(None, [kept.row.subject]))
        self.volumes.update(filter(None, [kept.row.volume_id]))
        self.objects.update(target.object for target in kept.targets)
        self.notes.update(kept.notes)

    def drop(self, reason: str) -> None:
        """Count what was left out; reasons that differ by numbers only are one."""
        self.drops[re.sub(r"\d+", "N", reason)] += 1


def subjects_in_words(tally: Tally, settings: Curation) -> str:
    """Say how many subjects there are, as far as is known."""
    n_unknown = tally.sources["unknown"]
    if settings.subject_pattern is not None:
        without = f", {_counted(n_unknown, 'image')} without" if n_unknown else ""
        return f"{len(tally.subjects)} by pattern{without}"
    if not tally.volumes:
        return "unknown"
    slices, volumes = _counted(tally.sources["file"], "slice"), len(tally.volumes)
    others = f"; unknown for {_counted(n_unknown, 'image')}" if n_unknown else ""
    return (
        f"{slices} of {_counted(volumes, 'volume')}: one subject per volume "
        f"(pass --subject-pattern if volumes share patients){others}"
    )


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def notes_in_words(tally: Tally) -> dict[str, str]:
    """Say what was done to images beyond the rules, and of how many; empty if nothing was."""
    listed = [f"{note} ({_counted(n, 'image')})" for note, n in sorted(tally.notes.items())]
    return {"notes": "; ".join(listed)} if listed else {}


def hint(tally: Tally, plan: Plan) -> dict[str, str]:
    """Tell the user which names of objects had to be guessed; empty when none had."""
    hints = []
    if plan.guessed_name in tally.objects:
        hints.append("No name was given for what the masks show; --object NAME sets it.")
    if plan.reading.naming.table is None and any(
        re.fullmatch(r"label \d+", name) for name in tally.objects
    ):
        hints.append(
            "Values of masks were named label N; --labels FILE.json names them, "
            "--instances says that they number instances."
        )
    return {"hint": " ".join(hints)} if hints else {}
