"""How the files of one folder are read: what holds for all of them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from promptseg.reader.folder import ImageFile
from promptseg.reader.intensity import Intensity
from promptseg.reader.labels import Naming
from promptseg.reader.names import Names

PlaneChoice = Literal["axial", "coronal", "sagittal", "all"]
PLANE_CHOICES: dict[str, PlaneChoice] = {word: word for word in get_args(PlaneChoice)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How the files of one folder are read."""

    folder: Path
    dataset: str
    naming: Naming
    plane: PlaneChoice | None = None
    spacing_yx_mm: tuple[float, float] | None = None
    keep_empty: bool = False
    names: Names = field(default_factory=Names)
    intensity: Intensity | None = None  # None: the study's rule
    every: int = 1  # of a stack or a video, the first frame and then every n-th
    first_frame: int | None = None  # the number of the first in names of masks; else what occurs

    def image_id(self, image: ImageFile) -> str:
        """Name the image of a file."""
        return f"{self.dataset}/{self.names.image(image.key)}"
