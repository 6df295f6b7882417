"""From the values of a mask file to named objects: thresholds, tables of labels, instances.

0 is background. A value becomes an object by the table of labels, by the name of its file, or, in
a binary mask that says nothing, by the name that the whole curation has for it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Integer, Shaped

from promptseg.errors import DataError
from promptseg.reader.folder import MaskFile
from promptseg.reader.image import RawMask
from promptseg.reader.soft import hardened, has_soft_edges, is_plain
from promptseg.reader.table import Table

MAX_UNNAMED = 32  # a file with more values that no table knows holds no labels
_NEAR_INTEGER = 1e-3
_LOSSY_THRESHOLD = 127
_MOST_VALUES = 1 << 20  # more are not even instance numbers


@dataclass(frozen=True, slots=True)
class Entry:
    """An object in a label array: where the array holds one of the values."""

    object: str
    instance: int | None
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """How the values of all masks of a curation become objects."""

    nameless: str  # what a mask shows that says nothing itself
    table: Table | None = None
    instances: bool = False  # values are instance numbers of one object
    binary: bool = False  # without a table: all values of nameless masks are one object
    threshold: float | None = None
    soft_edges: bool = False  # greys on the edges of nameless masks are none of their labels

    def knows(self, value: int) -> bool:
        """Whether the table of labels has a value."""
        return self.table is not None and any(value in values for values in self.table.values())


@dataclass(slots=True)
class Survey:
    """What the pages of one mask file hold: its values are made labels by one rule for all."""

    naming: Naming
    one_object: bool = False  # the file's name says so: then smoothed edges are no labels
    _seen: set[int] = field(default_factory=set)
    _whole: bool = True
    _lossy: bool = False
    _soft: bool = True
    _is_smoothed: bool = False  # and has greys
    _highest: float = -np.inf

    def add(self, raw: RawMask) -> None:
        """Look at one page; raises DataError if it is a JPEG of more than black and white."""
        if raw.lossy:
            self._lossy = True
            self._seen.update(values_in(_from_lossy(raw.values, self.naming.threshold)))
            return
        self._highest = max(self._highest, float(np.fmax.reduce(raw.values, axis=None)))
        labels = _whole(raw.values) if self._whole else None
        self._whole = labels is not None
        if labels is not None:
            self._seen.update(values_in(labels))
            self._whole = len(self._seen) <= _MOST_VALUES
        if self._soft and self._is_judged and not is_plain(raw.values):
            self._is_smoothed = True
            self._soft = raw.values.ndim == 2 and has_soft_edges(raw.values)

    def rule(self) -> tuple[Callable[[RawMask], Integer[np.ndarray, "*space"]], list[int]]:
        """Give what makes labels of every page, and the labels that there will be.

        Raises
        ------
        DataError
            The values are no labels, and there is no threshold to make a mask of them.
        """
        naming, threshold = self.naming, self.naming.threshold
        if self._lossy:
            return lambda raw: _from_lossy(raw.values, threshold), sorted(self._seen)
        if self.has_soft_edges and (self.one_object or naming.soft_edges):
            return lambda raw: hardened(raw.values), [255]
        if self._whole and _are_labels(sorted(self._seen), naming):
            return _as_they_are, sorted(self._seen)
        if threshold is None:
            raise DataError(
                "its values are no labels (fractions, negative, or too many). "
                "--threshold makes a mask of what lies above it"
            )
        above = [1] if self._highest > threshold else []
        return lambda raw: (raw.values > threshold).astype(np.uint8), above

    @property
    def has_soft_edges(self) -> bool:
        """Whether it is a binary mask with smoothed edges (`promptseg.reader.soft`)."""
        is_named = any(self.naming.knows(value) for value in self._seen - {255})
        return self._soft and self._is_smoothed and not is_named

    @property
    def is_plain(self) -> bool:
        """Whether it has no value but 0 and 255, or is a JPEG of black and white."""
        return not self._is_smoothed

    @property
    def _is_judged(self) -> bool:
        return self.naming.threshold is None and not self.naming.instances


def survey(raws: Iterable[RawMask], naming: Naming, *, one_object: bool = False) -> Survey:
    """Look at the pages of one mask file; raises DataError as `Survey.add` does."""
    found = Survey(naming, one_object)
    for raw in raws:
        found.add(raw)
    return found


def as_labels(
    raw: RawMask, naming: Naming, *, one_object: bool = False
) -> Integer[np.ndarray, "*space"]:
    """Bring the values of a mask file to whole numbers, 0 for background.

    Raises
    ------
    DataError
        The values are no labels, and there is no threshold to make a mask of them.
    """
    make, _ = survey([raw], naming, one_object=one_object).rule()
    return make(raw)


def _as_they_are(raw: RawMask) -> Integer[np.ndarray, "*space"]:
    labels = _whole(raw.values)
    if labels is None:
        raise DataError("its values are no labels")
    return labels


def _whole(values: Shaped[np.ndarray, "*space"]) -> Integer[np.ndarray, "*space"] | None:
    """Give values as whole numbers from 0 on, or None if they are not close to that."""
    if not np.issubdtype(values.dtype, np.integer):
        rounded = np.rint(values)
        with np.errstate(invalid="ignore"):
            if not (np.abs(values - rounded) <= _NEAR_INTEGER).all():  # so with NaN
                return None
        values = rounded
    if values.min() < 0 or values.max() >= 2**31:
        return None
    return values.astype(np.uint8 if values.max() < 256 else np.int32)


def _are_labels(values: list[int], naming: Naming) -> bool:
    """Tell labels from shades: instance numbers, known values, a lone 1, or at least not many.

    Under a threshold any other mask is thresholded, also that of one value: whether an image
    happens to show a second shade must not decide.
    """
    if naming.instances or set(values) <= {1}:
        return True
    n_unknown = sum(not naming.knows(value) for value in values)
    return n_unknown <= (MAX_UNNAMED if naming.threshold is None else 0)


def _from_lossy(
    values: Shaped[np.ndarray, "h w"], threshold: float | None
) -> Integer[np.ndarray, "h w"]:
    """Part light from dark; areas in between, not just edges, are labels that JPEG has blurred."""
    from scipy import ndimage

    between = (values >= 64) & (values < 192)
    if threshold is None and ndimage.binary_erosion(between, np.ones((3, 3), dtype=bool)).any():
        raise DataError(
            "a JPEG file cannot hold labels, and this one has areas between black and white. "
            "--threshold makes a mask of what lies above it"
        )
    above = values > (_LOSSY_THRESHOLD if threshold is None else threshold)
    return np.where(above, np.uint8(255), np.uint8(0))


def values_in(labels: Integer[np.ndarray, "*space"]) -> list[int]:
    """List the labels of an array, without background, in order."""
    return [int(value) for value in np.unique(labels) if value]


def name_values(
    file: MaskFile, values: list[int], naming: Naming
) -> tuple[list[Entry], list[tuple[int, str]]]:
    """Name the values of one mask file; what cannot be named comes with the reason.

    Raises
    ------
    DataError
        The file's name promises one object, and it holds several values.
    """
    if not values:
        return [], []
    if naming.instances:
        return _instances(file, values, naming), []
    if _by_table(file, values, naming):
        return _from_table(file, values, naming)
    if file.is_one_object:
        if len(values) > 1:
            raise DataError(
                f"it holds {len(values)} values besides 0; expected is one, since its name is "
                "that of one object. --threshold makes a mask of what lies above it"
            )
        return [Entry(file.object or naming.nameless, file.instance, tuple(values))], []
    if naming.binary:
        return [Entry(naming.nameless, None, tuple(values))], []
    return [Entry(f"label {value}", None, (value,)) for value in values], []


def _instances(file: MaskFile, values: list[int], naming: Naming) -> list[Entry]:
    name = file.object or naming.nameless
    if len(values) == 1 and file.instance is not None:
        return [Entry(name, file.instance, (values[0],))]
    return [Entry(name, value, (value,)) for value in values]


def _by_table(file: MaskFile, values: list[int], naming: Naming) -> bool:
    """Decide whether the table names the values of a file, rather than the file's name."""
    if naming.table is None or file.object in naming.table:
        return False
    return not file.is_one_object or all(naming.knows(value) for value in values)


def _from_table(
    file: MaskFile, values: list[int], naming: Naming
) -> tuple[list[Entry], list[tuple[int, str]]]:
    table = naming.table or {}
    if list(table.values()) == [(1,)] and values == [255]:  # a binary mask, stored to be seen
        return [Entry(next(iter(table)), file.instance, (255,))], []
    present = set(values)
    entries = [
        Entry(name, file.instance, tuple(sorted(present.intersection(of_object))))
        for name, of_object in table.items()
        if present.intersection(of_object)
    ]
    unknown = [value for value in values if not naming.knows(value)]
    return entries, [(value, f"the table of labels has no value {value}") for value in unknown]
