"""Tables of labels: JSON files that say which values of masks stand for which objects."""

import json
import os
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptseg.errors import DataError
from promptseg.reader.folder import printable

Table = Mapping[str, tuple[int, ...]]  # object -> the values that stand for it
TABLE_NAME = "labels.json"  # a file of this name has to be a table; others may be
_NNUNET_NAME = "dataset.json"  # it describes a whole data set, and gives way to a mere table
KNOWN_NAMES = (TABLE_NAME, _NNUNET_NAME)
_FORMS = (
    'Expected is {"1": "liver"}, {"liver": 1}, {"liver": [1, 2]} or '
    '{"info": {"1": "liver"}, "color": {"1": 85}}'
)
_MOST_BYTES = 2**24
_MOST = 2**31  # values of masks are below it


@dataclass(frozen=True, slots=True)
class Found:
    """The table of labels that a folder has, or none; `left_out` are (source, reason)."""

    path: Path | None
    table: Table | None
    left_out: tuple[tuple[str, str], ...] = ()


class _NoTableError(ValueError):
    """A file is no table of labels; the message says why."""


def find_table(folder: Path, given: Path | None) -> Found:
    """Read the table of labels: the one given, else the only one in the folder, else none.

    nnU-Net's `dataset.json` is read where there is no other.

    Raises
    ------
    DataError
        The given file or `labels.json` is no table, or the folder holds several.
    """
    if given is not None:
        return Found(given, read_table(given))
    found: list[tuple[Path, Table]] = []
    left_out: list[tuple[str, str]] = []
    for path in sorted(folder.glob("*.json")):
        if path.name.startswith("."):
            continue  # files of the operating system
        try:
            found.append((path, _read_within(folder, path)))
        except _NoTableError as error:
            if path.name == TABLE_NAME:
                raise _no_table(path, error) from error
            left_out.append((printable(path.name), "no table of labels"))
    if len(found) > 1 and any(path.name == _NNUNET_NAME for path, _ in found):
        found = [(path, table) for path, table in found if path.name != _NNUNET_NAME]
        left_out.append((_NNUNET_NAME, "another table of labels is read"))
    if len(found) > 1:
        names = ", ".join(printable(path.name) for path, _ in found)
        raise DataError(
            f"{folder} holds several tables of labels ({names}). Choose by --labels.",
            unnamed=f"{folder} holds several tables of labels. Choose by --labels.",
        )
    return Found(*found[0], tuple(left_out)) if found else Found(None, None, tuple(left_out))


def read_table(path: Path) -> Table:
    """Read a table of labels in one of its forms.

    `{"1": "liver"}`, `{"liver": 1}`, `{"liver": [1, 2]}`, the paper's
    `{"info": {"1": "liver"}, "color": {"1": 85}}`, where colours are the values in the masks, or
    nnU-Net's `{"labels": {"liver": 1}, ...}`.

    Raises
    ------
    DataError
        There is no such file, or it is no table; the message says why.
    """
    if not os.path.lexists(path):
        raise DataError(f"There is no file {path}.")
    try:
        return _read(path)
    except _NoTableError as error:
        raise _no_table(path, error) from error


def _no_table(path: Path, error: _NoTableError) -> DataError:
    return DataError(
        f"{path} is no table of labels: {error}. {_FORMS}.",
        unnamed=f"A table of labels is none. {_FORMS}.",
    )


def named_values(content: Mapping[str, Any]) -> Table:
    """Bring names with a value or several to a table; objects may share values.

    0 is a value as any other here, unless it is called background.

    Raises
    ------
    ValueError
        One of the entries is no name with values; the message says which.
    """
    _refuse_misfits(content, [_lists_values(*item) for item in content.items()])
    is_object = {name: name.strip().casefold() != "background" for name in content}
    table: dict[str, tuple[int, ...]] = {}
    for name, value in _pairs(content):
        if value or is_object[name]:
            table[name] = (*table.get(name, ()), value)
    return table


def _read_within(folder: Path, path: Path) -> Table:
    if path.exists() and not path.resolve().is_relative_to(folder.resolve()):
        raise _NoTableError("it is a link that leads out of the folder")
    return _read(path)


def _read(path: Path) -> Table:
    if path.exists() and not path.is_file():
        raise _NoTableError("it is no file")
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise _NoTableError("it is too large")
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise _NoTableError(f"it cannot be read ({error.strerror})") from error
    except RecursionError as error:
        raise _NoTableError("it is nested too deeply") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise _NoTableError(f"it cannot be read as JSON ({error})") from error
    except ValueError as error:  # Python's own limit
        raise _NoTableError("it holds a number of too many digits") from error
    table = _table(content, path)
    if not table:
        raise _NoTableError("it names no value but the background's, 0")
    return table


def _table(content: Any, path: Path) -> Table:
    """Recognise a form and bring it to `Table`; background (0) is left away."""
    if not isinstance(content, dict):
        raise _NoTableError(f"it holds {_shown(content)}, not an object in braces")
    if isinstance(content.get("info"), dict):
        return _paper_table(content["info"], content.get("color"), path)
    if isinstance(content.get("labels"), dict):
        content = content["labels"]
    if content and _names_a_value(*next(iter(content.items()))):
        _refuse_misfits(content, [_names_a_value(*item) for item in content.items()])
        return _grouped([(name, int(key)) for key, name in content.items()])
    _refuse_misfits(content, [_lists_values(*item) for item in content.items()])
    return _grouped(_pairs(content))


def _pairs(content: Mapping[str, Any]) -> list[tuple[str, int]]:
    return [
        (name, value)
        for name, values in content.items()
        for value in (values if isinstance(values, list) else [values])
    ]


def _paper_table(info: dict[str, Any], colours: Any, path: Path) -> Table:
    _refuse_misfits(info, [_is_name(name) for name in info.values()])
    colours = {key: key for key in info} if colours is None else colours
    if not isinstance(colours, dict):
        raise _NoTableError(f'its "color" holds {_shown(colours)}, not an object in braces')
    of_labels: dict[str, Any] = {key: colours.get(key) for key in info}
    _refuse_misfits(of_labels, [_is_value(colour) for colour in of_labels.values()])
    values = [int(colour) for colour in of_labels.values()]
    if len(set(values)) < len(values):
        raise DataError(
            f"{path} gives two labels one colour, so that masks cannot tell them apart. "
            "Give them colours of their own, or pass another table by --labels.",
            unnamed="A table of labels gives two labels one colour.",
        )
    return _grouped(list(zip(info.values(), values, strict=True)))


def _refuse_misfits(entries: Mapping[str, Any], fits: list[bool]) -> None:
    for (key, value), is_fit in zip(entries.items(), fits, strict=True):
        if not is_fit:
            raise _NoTableError(f"its entry {_shown(key)} with {_shown(value)} cannot be used")


def _shown(value: Any) -> str:
    """Show some JSON on one line, but not all of what may be long or deep."""
    text = reprlib.repr(value) if isinstance(value, (list, dict)) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _grouped(pairs: list[tuple[str, int]]) -> Table:
    table: dict[str, tuple[int, ...]] = {}
    for name, value in pairs:
        if value:
            table[name] = (*table.get(name, ()), value)
    return table


def _names_a_value(key: Any, name: Any) -> bool:
    return _is_value(key) and _is_name(name)


def _lists_values(name: Any, values: Any) -> bool:
    """Tell `"liver": 1` and `"liver": [1, 2]`; repeated values and 0 among others are colours."""
    if not isinstance(values, list):
        return _is_name(name) and isinstance(values, int) and _is_value(values)
    all_values = all(isinstance(value, int) and _is_value(value) for value in values)
    is_set = all_values and len(set(values)) == len(values) > 0
    return _is_name(name) and is_set and (0 not in values or len(values) == 1)


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and bool(name.strip()) and name == printable(name)


def _is_value(value: Any) -> bool:
    if isinstance(value, str):
        return value.isascii() and value.isdigit() and len(value) <= 10 and int(value) < _MOST
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST
