"""A data set of litemedsam-points, and shapes that several of them share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from prepare import Stack, cropped, thinned

from promptseg.curation import Curation

EACH_IMAGE = r"images/(.+?)\.[a-z.]+$"  # a patient each
CC_BY, CC0 = "CC-BY-4.0", "CC0-1.0"
Labels = Mapping[str, int | list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One data set: its groups, where it lies, how it is prepared, and how it is curated."""

    name: str
    groups: str  # of A, B and C
    folder: str  # below DATA; "" for what packages carry
    settings: Curation
    labels: Labels = field(default_factory=dict)
    prepare: Callable[[Path, Path], None] | None = None


def volumes(name: str, groups: str, folder: str, settings: Curation, *stacks: Stack) -> Source:
    """Describe volumes that are thinned, and cut along the plane in which they were."""
    return Source(
        name=name,
        groups=groups,
        folder=folder,
        settings=replace(settings, plane=stacks[0].plane),
        prepare=partial(thinned, stacks=stacks),
    )


def covid(groups: str, licence: str, stems: tuple[str, ...]) -> Source:
    """Describe chest X-rays of one licence: the set's own table tells each image's."""
    return Source(
        name="chest_xray_covid",
        groups=groups,
        folder="covid_cxr_multilabel",
        settings=Curation(modality="X-ray", subject_pattern=EACH_IMAGE, licence=licence),
        prepare=partial(cropped, stems=stems),
    )
