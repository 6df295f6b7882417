"""One mask file as the labels of an image: a picture, or any slice of a volume.

Of a volume only the box around its objects is kept, so that a file for each of a hundred organs
fits into memory.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer

from promptseg.errors import DataError
from promptseg.reader import volume as volumes
from promptseg.reader.files import read_volume
from promptseg.reader.folder import MaskFile, is_volume
from promptseg.reader.frame_labels import Labels
from promptseg.reader.image import RawMask, read_mask
from promptseg.reader.labels import Entry, as_labels, values_in
from promptseg.reader.part import Part, cropped
from promptseg.reader.vocabulary import Vocabulary
from promptseg.sample import Place, Sample

MOST_SHOWN = 5


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Layer:
    """The labels of a file, cropped to what is not background.

    Arrays and shapes are (y, x) of a picture, (i, j, k) in RAS+ order of a volume.
    """

    source: str
    affine: Float[np.ndarray, "4 4"] | None  # None: a picture
    part: Part
    entries: tuple[Entry, ...]
    unknown: tuple[int, ...]  # values that the table does not name

    def on(self, sample: Sample) -> Labels:
        """Give the labels on the pixels of an image.

        Raises
        ------
        DataError
            The file lies on another grid.
        """
        if (self.affine is None) is not (sample.place is None):
            raise DataError("of this mask and its image one is a volume and one a picture")
        values = (
            self._picture(sample) if sample.place is None else self._slice(sample.place, sample)
        )
        return Labels(self.source, values, self.entries)

    def _picture(self, sample: Sample) -> Integer[np.ndarray, "h w"]:
        height, width = sample.image.shape[:2]
        if self.part.shape != (height, width):
            h, w = self.part.shape
            raise DataError(f"its size {w} x {h} is not its image's, {width} x {height}")
        return self.part.whole()

    def _slice(self, place: Place, sample: Sample) -> Integer[np.ndarray, "h w"]:
        plane = next((plane for plane in volumes.PLANES if plane == place.plane), None)
        if plane is None:
            raise DataError(f"its image is a slice of an unknown plane, {place.plane!r}")
        height, width = sample.image.shape[:2]
        shape = volumes.shape_of_slices(plane, place.n_slices, height, width)
        if difference := volumes.difference_of_grids(_grid(shape, place.affine), self._own_grid()):
            raise DataError(difference)
        return self.part.slice(plane, place.slice_index)

    def _own_grid(self) -> volumes.Volume:
        affine = None if self.affine is None else tuple(self.affine.ravel().tolist())
        return _grid(self.part.shape, affine)


def _grid(shape: tuple[int, ...], affine: tuple[float, ...] | None) -> volumes.Volume:
    """Make a volume to compare grids with; curation stores no affine where it is the identity."""
    matrix = np.eye(4) if affine is None else np.array(affine).reshape(4, 4)
    return volumes.grid(shape, matrix)


def read_layer(root: Path, file: MaskFile, words: Vocabulary) -> Layer:
    """Read a mask file and name what it holds.

    Raises
    ------
    DataError
        It is damaged, its values are no labels, or nothing says what they show.
    """
    path = root / file.source
    if is_volume(file.source):
        volume = read_volume(path)
        # a corpus keeps no affine either where the file does not say how it lies
        raw, affine = RawMask(volume.values()), volume.affine if volume.has_place else np.eye(4)
    else:
        raw, affine = read_mask(path), None
    part = cropped(as_labels(raw, words.naming))
    entries, unknown = words.entries(file, values_in(part.values))
    return Layer(
        source=file.source,
        affine=affine,
        part=part,
        entries=tuple(entries),
        unknown=unknown,
    )


def besides(layers: Iterable[Layer], objects: Collection[str]) -> str:
    """Tell what files hold that a corpus does not know: often the same by another name."""
    held = list(layers)
    names = {entry.object for layer in held for entry in layer.entries} - set(objects)
    values = sorted({value for layer in held for value in layer.unknown})
    told = ", ".join([*sorted(names), *(f"value {value}" for value in values)][:MOST_SHOWN])
    return f", but {told}, unknown to the corpus" if told else ""


def some(names: Iterable[str]) -> str:
    """List the first names."""
    listed = list(islice(names, MOST_SHOWN + 1))
    shown = ", ".join(listed[:MOST_SHOWN]) or "none"
    return f"{shown}, ..." if len(listed) > MOST_SHOWN else shown
