"""The settings of a curation."""

from dataclasses import dataclass
from pathlib import Path

from promptseg.reader.frame import PlaneChoice


@dataclass(frozen=True, slots=True, kw_only=True)
class Curation:
    """The settings of one curation. None means: not known, or found by the stated rule."""

    dataset: str | None = None  # else the folder's name
    modality: str | None = None  # required
    subject_pattern: str | None = None  # regex; group `subject`, else group 1, else all of it
    spacing_yx_mm: tuple[float, float] | None = None  # where the file does not say
    labels: Path | None = None  # table of labels; else the only one in the folder
    licence: str | None = None
    keep_empty: bool = False  # keep images without a target
    min_area_px: int = 50  # labels of at most this many pixels are dropped
    plane: PlaneChoice | None = None  # else that of the finest pixels
    object_name: str | None = None  # what a mask shows that says nothing itself
    instances: bool = False  # values of masks are instance numbers of one object
    threshold: float | None = None  # makes masks of probabilities and soft edges: value > threshold
    every: int = 1  # of stacks and videos, the first frame and then every n-th
    first_frame: int | None = None  # number of its mask: 0 or 1; else 0 where that occurs
