"""From the values of a mask file to named objects: thresholds, tables of labels, instances.

0 is background. A value becomes an object by the table of labels, by the name of its file, or, in
a binary mask that says nothing, by the name that the whole curation has for it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Integer, Shaped

from promptseg.errors import DataError
from promptseg.reader.folder import MaskFile
from promptseg.reader.image import RawMask
from promptseg.reader.soft import hardened, has_soft_edges, is_plain
from promptseg.reader.table import Table
from promptseg.reader.volume import slab_axis, slabs

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


def naming_of(file: MaskFile, naming: Naming) -> Naming:
    """Put what a mapping file says of a mask before what holds for all."""
    kind = file.kind
    if kind is None:
        return naming
    threshold = naming.threshold if kind.threshold is None else kind.threshold
    if kind.labels is not None:
        return replace(naming, table=kind.labels, instances=False, threshold=None)
    if file.object is not None:
        instances = kind.instances
        return replace(naming, table=None, instances=instances, threshold=threshold)
    return replace(naming, instances=naming.instances or kind.instances, threshold=threshold)


def shown_zero(
    labels: Integer[np.ndarray, "*space"], naming: Naming
) -> tuple[Integer[np.ndarray, "*space"], Naming]:
    """Give another value to 0 where the table of labels makes an object of it."""
    free, naming = free_value(naming, int(labels.max()))
    return labels if free is None else np.where(labels == 0, np.int32(free), labels), naming


def free_value(naming: Naming, highest: int) -> tuple[int | None, Naming]:
    """Find a value that stands for 0 where the table of labels makes an object of it.

    `highest` is that of the labels. Returns None, and the naming as it is, where 0 is background.
    """
    table = naming.table or {}
    if not any(0 in of_object for of_object in table.values()):
        return None, naming
    known = {value for of_object in table.values() for value in of_object}
    free = max(highest, *known) + 1
    moved = {name: tuple(value or free for value in of) for name, of in table.items()}
    return free, replace(naming, table=moved)


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

    def add(self, raw: RawMask) -> Integer[np.ndarray, "*space"] | None:
        """Look at one page, and give it as whole numbers, if all pages so far hold such.

        Raises
        ------
        DataError
            It is a JPEG of more than black and white.
        """
        if raw.lossy:
            self._lossy = True
            parted = _from_lossy(raw.values, self.naming.threshold)
            self._seen.update(values_in(parted))
            return parted
        if self.naming.threshold is not None:
            self._highest = max(self._highest, float(np.fmax.reduce(raw.values, axis=None)))
        labels = _whole(raw.values) if self._whole else None
        self._whole = labels is not None
        if labels is not None:
            self._seen.update(values_in(labels))
            self._whole = len(self._seen) <= _MOST_VALUES
        is_flat = raw.values.ndim == 2
        if self._soft and self._is_judged and not (is_flat and is_plain(raw.values)):
            self._is_smoothed = True
            self._soft = is_flat and has_soft_edges(raw.values)
        return labels

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
    found = Survey(naming, one_object)
    labels = found.add(raw)
    make, _ = found.rule()
    return labels if make is _as_they_are and labels is not None else make(raw)


def _as_they_are(raw: RawMask) -> Integer[np.ndarray, "*space"]:
    labels = _whole(raw.values)
    if labels is None:
        raise DataError("its values are no labels")
    return labels


def _whole(values: Shaped[np.ndarray, "*space"]) -> Integer[np.ndarray, "*space"] | None:
    """Give values as whole numbers from 0 on, or None if they are not close to that.

    Works slab by slab: a volume in float64 must not be there three times.
    """
    axis = slab_axis(values)
    highest = 0
    for slab in slabs(values, axis):
        rounded = _rounded(slab)
        if rounded is None or rounded.min() < 0 or rounded.max() >= 2**31:
            return None
        highest = max(highest, int(rounded.max()))
    dtype = np.dtype(np.uint8 if highest < 256 else np.int32)
    if values.dtype == dtype:
        return values
    labels = np.empty_like(values, dtype)
    for slab, stored in zip(slabs(labels, axis), slabs(values, axis), strict=True):
        slab[...] = np.rint(stored) if np.issubdtype(stored.dtype, np.inexact) else stored
    return labels


def _rounded(values: Shaped[np.ndarray, "*slab"]) -> Shaped[np.ndarray, "*slab"] | None:
    if not np.issubdtype(values.dtype, np.inexact):
        return values
    rounded = np.rint(values)
    with np.errstate(invalid="ignore"):
        is_near = (np.abs(values - rounded) <= _NEAR_INTEGER).all()  # not with NaN
    return rounded if is_near else None


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
    found: set[int] = set()
    for slab in slabs(labels):
        if slab.dtype == np.uint8:  # twenty times as quick as sorting
            found.update(np.flatnonzero(np.bincount(slab[slab != 0])).tolist())
        else:
            found.update(np.unique(slab).tolist())
    return sorted(found - {0})


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
