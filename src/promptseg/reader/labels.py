"""From the values of a mask file to named objects: label tables, thresholds, instances.

0 is background. A value becomes an object by the table of labels, by the name of its file, or, in
a binary mask that says nothing, by the name that the whole curation has for it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer, Shaped

from promptseg.errors import DataError
from promptseg.reader.folder import MaskFile
from promptseg.reader.image import RawMask

Table = Mapping[str, tuple[int, ...]]  # object -> the values that stand for it
MAX_UNNAMED = 32  # a file with more values that no table knows holds no labels
_NEAR_INTEGER = 1e-3
_LOSSY_THRESHOLD = 127


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
    binary: bool = False  # without a table: all nameless masks hold one value besides 0
    threshold: float | None = None

    def knows(self, value: int) -> bool:
        """Whether the table of labels has a value."""
        return self.table is not None and any(value in values for values in self.table.values())


def find_table(folder: Path, given: Path | None) -> tuple[Path | None, Table | None]:
    """Read the table of labels: the one given, else the only one in the folder, else none.

    Raises
    ------
    DataError
        The given file is no table, or the folder holds several.
    """
    if given is not None:
        return given, read_table(given)
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        if table := _table(content, path):
            found.append((path, table))
    if len(found) > 1:
        names = ", ".join(path.name for path, _ in found)
        raise DataError(f"{folder} holds several tables of labels ({names}). Choose by --labels.")
    return found[0] if found else (None, None)


def read_table(path: Path) -> Table:
    """Read a table of labels in one of its forms.

    `{"1": "liver"}`, `{"liver": 1}`, `{"liver": [1, 2]}`, or the paper's
    `{"info": {"1": "liver"}, "color": {"1": 85}}`, where colours are the values in the masks.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}).") from error
    table = _table(content, path)
    if not table:
        raise DataError(
            f'{path} is no table of labels. Expected is {{"1": "liver"}}, {{"liver": 1}}, '
            '{"liver": [1, 2]} or {"info": {"1": "liver"}, "color": {"1": 85}}.'
        )
    return table


def _table(content: Any, path: Path) -> Table | None:
    """Recognise a form and bring it to `Table`; background (0) is left away."""
    if not isinstance(content, dict):
        return None
    if isinstance(content.get("info"), dict):
        return _paper_table(content["info"], content.get("color"), path)
    if all(_is_value(key) and isinstance(name, str) and name for key, name in content.items()):
        return _grouped([(name, int(key)) for key, name in content.items()])
    if all(_are_values(values) for values in content.values()):
        pairs = [
            (name, value)
            for name, values in content.items()
            for value in (values if isinstance(values, list) else [values])
        ]
        return _grouped(pairs)
    return None


def _paper_table(info: dict[str, Any], colours: Any, path: Path) -> Table | None:
    colours = {key: key for key in info} if colours is None else colours
    if not isinstance(colours, dict) or not all(_is_value(colours.get(key)) for key in info):
        return None
    values = [int(colours[key]) for key in info]
    if len(set(values)) < len(values):
        raise DataError(
            f"{path} gives two labels one colour, so that masks cannot tell them apart. "
            "Give them colours of their own, or pass another table by --labels."
        )
    return _grouped([(str(name), int(colours[key])) for key, name in info.items()])


def _grouped(pairs: list[tuple[str, int]]) -> Table:
    table: dict[str, tuple[int, ...]] = {}
    for name, value in pairs:
        if value:
            table[name] = (*table.get(name, ()), value)
    return table


def _is_value(value: Any) -> bool:
    if isinstance(value, str):
        return value.isascii() and value.isdigit()
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are_values(values: Any) -> bool:
    if isinstance(values, list):
        return bool(values) and all(isinstance(v, int) and _is_value(v) for v in values)
    return isinstance(values, int) and _is_value(values)


def as_labels(raw: RawMask, naming: Naming) -> Integer[np.ndarray, "*space"]:
    """Bring the values of a mask file to whole numbers, 0 for background.

    Raises
    ------
    DataError
        The values are no labels, and there is no threshold to make a mask of them.
    """
    if raw.lossy:
        return _from_lossy(raw.values, naming.threshold)
    labels = _whole(raw.values)
    if labels is not None and _are_labels(values_in(labels), naming):
        return labels
    if naming.threshold is None:
        raise DataError(
            "its values are no labels (fractions, negative, or too many). "
            "--threshold makes a mask of what lies above it"
        )
    return (raw.values > naming.threshold).astype(np.uint8)


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
    """Tell labels from shades: one value, known ones, instance numbers, or at least not many."""
    if len(values) < 2 or naming.instances:
        return True
    n_unknown = sum(not naming.knows(value) for value in values)
    return n_unknown == 0 or (naming.threshold is None and n_unknown <= MAX_UNNAMED)


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
        return [Entry(naming.nameless, None, (value,)) for value in values], []
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
