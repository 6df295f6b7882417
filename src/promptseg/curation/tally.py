"""What came into a corpus and what did not, counted on the way and put into words."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from promptseg.curation.pieces import Kept
from promptseg.curation.plan import Plan
from promptseg.curation.settings import Curation
from promptseg.parquet import facts_of

MOST_NAMED = 5


@dataclass(slots=True)
class Tally:
    """What came into a corpus and what did not, counted on the way."""

    drops: Counter[str] = field(default_factory=Counter)  # by reason, with N for numbers
    sources: Counter[str] = field(default_factory=Counter)  # images by what tells their subject
    subjects: set[str] = field(default_factory=set)
    volumes: set[str] = field(default_factory=set)
    objects: set[str] = field(default_factory=set)
    regridded: set[str] = field(default_factory=set)  # mask files
    plain_ct: bool = False  # there is a CT that shows all its values, from min to max
    notes: Counter[str] = field(default_factory=Counter)  # images by what is to be known of them

    def keep(self, kept: Kept) -> None:
        """Count an image that was written."""
        self.sources[kept.row.subject_source] += 1
        self.subjects.update(filter(None, [kept.row.subject]))
        self.volumes.update(filter(None, [kept.row.volume_id]))
        self.objects.update(target.object for target in kept.targets)
        self.regridded.update(kept.regridded)
        self.notes.update(kept.notes)
        self.plain_ct |= _is_plain_ct(facts_of(kept.row))

    def recall(self, rows: Mapping[str, Iterable[Mapping[str, Any]]]) -> None:
        """Count the rows of a part that was written before."""
        for image in rows["images"]:
            self.sources[image["subject_source"]] += 1
            self.subjects.update(filter(None, [image["subject"]]))
            self.volumes.update(filter(None, [image["volume_id"]]))
            self.plain_ct |= _is_plain_ct(image)
        self.objects.update(target["object"] for target in rows["targets"])
        for drop in rows["drops"]:
            self.drop(drop["reason"])

    def drop(self, reason: str) -> None:
        """Count what was left out; reasons that differ by numbers only are one."""
        self.drops[re.sub(r"\d+", "N", reason)] += 1


def subjects_in_words(tally: Tally, settings: Curation) -> str:
    """Say how many subjects there are, as far as is known."""
    n_unknown = tally.sources["unknown"]
    if settings.subject_pattern is not None or tally.sources["pattern"]:
        without = f", {_counted(n_unknown, 'image')} without" if n_unknown else ""
        return f"{len(tally.subjects)} by pattern{without}"
    if tally.sources["header"]:
        n_others = tally.sources["file"] + n_unknown
        without = f"; {_counted(n_others, 'image')} whose header names none" if n_others else ""
        return f"{len(tally.subjects)} by the patients that headers name, hashed{without}"
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


def moved_in_words(tally: Tally) -> dict[str, str]:
    """List the masks that were brought to the grid of their image; empty when none were."""
    some = ", ".join(sorted(tally.regridded)[:MOST_NAMED])
    more = ", ..." if len(tally.regridded) > MOST_NAMED else ""
    told = f"{_counted(len(tally.regridded), 'mask file')} from another grid, by nearest voxel"
    return {"regridded": f"{told}: {some}{more}"} if tally.regridded else {}


def _is_plain_ct(image: Mapping[str, Any]) -> bool:
    """Tell a CT that shows all its values, from the lowest to the highest."""
    is_ct = "CT" in (image["modality"].upper(), (image["dicom_modality"] or "").upper())
    return is_ct and str(image["intensity_rule"]).startswith("min-max")


def hint(tally: Tally, plan: Plan) -> dict[str, str]:
    """Tell the user what had to be guessed, and what is seldom meant; empty when nothing was."""
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
    if tally.plain_ct and plan.settings.intensity is None:
        hints.append(
            "CT was scaled from its lowest to its highest value, which leaves soft tissue few "
            "greys; --intensity window:soft-tissue (or lung, bone, ...) shows it as read."
        )
    return {"hint": " ".join(hints)} if hints else {}
