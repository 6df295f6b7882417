"""The settings of a curation."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from promptseg.reader.intensity import Intensity
from promptseg.reader.reading import PlaneChoice

NamesOf = Literal["keep", "hash"]
SplitBy = Literal["subject", "image"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curation:
    """The settings of one curation. None means: not known, or found by the stated rule."""

    mapping: Path | None = None  # a mapping file; what is said here is put before its facts
    dataset: str | None = None  # else the folder's name
    modality: str | None = None  # else what the mapping file or the DICOM header says
    subject_pattern: str | None = None  # regex; group `subject`, else group 1, else all of it
    spacing_yx_mm: tuple[float, float] | None = None  # where the file does not say
    labels: Path | None = None  # table of labels; else the only one in the folder
    licence: str | None = None
    citation: str | None = None
    keep_empty: bool = False  # keep images without a target
    min_area_px: int = 50  # labels of at most this many pixels are dropped
    plane: PlaneChoice | None = None  # else that of the finest pixels
    intensity: Intensity | None = None  # else min-max, and 8 bits as they are
    tile_px: int | None = None  # images with a longer side are cut into tiles
    object_name: str | None = None  # what a mask shows that says nothing itself
    instances: bool = False  # values of masks are instance numbers of one object
    threshold: float | None = None  # makes masks of probabilities and soft edges: value > threshold
    names: NamesOf | None = None  # of files; else hash where there is DICOM, and keep elsewhere
    split: str | None = None  # shares, as train=0.7,val=0.1,test=0.2
    split_by: SplitBy = "subject"
    split_seed: int = 0
    split_pattern: str | None = None  # regex that finds the split in a path, as subject_pattern
    allow_leaks: tuple[str, ...] = ()  # images or data sets that may be in two splits
    key: Path | None = None  # file of the secret under which names are hashed
    every: int = 1  # of stacks and videos, the first frame and then every n-th
    first_frame: int | None = None  # number of its mask: 0 or 1; else 0 where that occurs
