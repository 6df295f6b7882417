"""Mapping files (TOML): what a data set is, and which of its files are which kind of masks."""

import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from promptseg.errors import DataError
from promptseg.reader.folder import printable
from promptseg.reader.kind import Kind
from promptseg.reader.pattern import Pattern, pattern
from promptseg.reader.table import named_values

_IMAGE_FIELDS = ("key", "subject")
_MASK_FIELDS = ("key", "object", "instance", "annotator")
_TEXTS = ("dataset", "licence", "citation", "object", "subject", "plane")
_TOP = (*_TEXTS, "modality", "spacing", "images", "ignore", "masks")
_MASKS = (
    *("path", "object", "labels", "channels", "threshold", "instances", "outline"),
    *("annotator", "offsets", "replace", "names", "keys"),
)
_OFFSETS = ("table", "file", "image", "object", "top", "left")
# what cannot be said of the same masks
_APART = (
    ("object", "labels", "channels"),
    ("instances", "labels", "channels"),
    ("threshold", "labels"),
    ("outline", "channels"),
    ("offsets", "channels"),
    ("offsets", "outline"),
)
# fields of a pattern and what says the same or the contrary
_DOUBLE = (
    *(("object", "object"), ("object", "labels"), ("object", "channels")),
    *(("instance", "labels"), ("annotator", "annotator")),
)
_MOST_BYTES = 2**22
# possessive, so that a long text takes no longer than its length
_LONG_KEY = re.compile(r"""(?<![\w"'-])(?:(?:"[^"\n]*+"|'[^'\n]*+'|[\w-]++)[ \t]*+\.[ \t]*+){50}""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Masks:
    """The masks that some patterns find, and how they are read."""

    patterns: tuple[Pattern, ...]
    kind: Kind
    objects: Mapping[str, str] = field(default_factory=dict)  # text in the mask's path -> object
    annotator: str | None = None
    offsets: Mapping[str, str] | None = None  # in the words of a mapping file -> table and columns
    replace: Mapping[str, str] = field(default_factory=dict)  # text in names of objects
    names: Mapping[str, str] = field(default_factory=dict)  # whole names of objects
    keys: Mapping[str, str] = field(default_factory=dict)  # of masks -> of images

    def object_of(self, source: str, found: str | None) -> str | None:
        """Name what a mask shows; `found` is the object that its path tells by {object}.

        Raises
        ------
        DataError
            Objects are told by texts in paths, and none is in this one.
        """
        if self.objects and found is None:
            if (name := longest_in(source, self.objects)) is None:
                raise DataError("its path has none of the texts that tell the object")
            return name
        return self.kind.object if found is None else self._renamed(found) or found

    def _renamed(self, found: str) -> str:
        if found in self.names:
            return self.names[found]
        for old, new in self.replace.items():
            found = found.replace(old, new)
        return self.names.get(found, found)


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingFile:
    """A mapping file; what it does not say is None or empty."""

    name: str
    facts: Mapping[str, str] = field(default_factory=dict)  # of `_TEXTS`
    modality: str | None = None
    modalities: Mapping[str, str] = field(default_factory=dict)  # text in the image's path -> its
    spacing_yx_mm: tuple[float, float] | None = None
    images: tuple[Pattern, ...] = ()
    ignore: tuple[Pattern, ...] = ()
    masks: tuple[Masks, ...] = ()

    def modality_of(self, source: str) -> str | None:
        """Give the modality that an image's path tells."""
        return longest_in(source, self.modalities)

    def has_patterns(self) -> bool:
        """Whether it says which files are what, beside facts of the data set."""
        return bool(self.images or self.masks or self.ignore)


def longest_in(source: str, meanings: Mapping[str, str]) -> str | None:
    """Give the meaning of the longest text that is part of a path."""
    known = sorted((text for text in meanings if text in source), key=len)
    return meanings[known[-1]] if known else None


class _MisreadError(ValueError):
    """Something in a mapping file is wrong; the message says what."""


def read_mapping(path: Path) -> MappingFile:
    """Read a mapping file.

    Raises
    ------
    DataError
        There is no such file, or it says what no mapping file can; names the nearest known key.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise _MisreadError("it is too large")
        content = path.read_bytes().decode()
        if _LONG_KEY.search(content):  # a key of n parts takes tomllib n x n steps
            raise _MisreadError("it has a key of too many parts")
        return _mapping(tomllib.loads(content), path.name)
    except FileNotFoundError as error:
        raise DataError(f"There is no file {path}.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError, DataError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise DataError(f"{path} is no mapping file: {why}.") from error


def _mapping(content: dict[str, Any], name: str) -> MappingFile:
    _refuse_unknown(content, _TOP, "")
    modality = content.get("modality")
    is_table = isinstance(modality, dict)
    tables = content.get("masks", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise _MisreadError("masks are tables of their own, each under [[masks]]")
    return MappingFile(
        name=name,
        facts={key: _text(content[key], key) for key in _TEXTS if key in content},
        modality=_text(modality, "modality") if modality is not None and not is_table else None,
        modalities=_texts(modality, "modality") if is_table else {},
        spacing_yx_mm=_spacing(content.get("spacing")),
        images=_patterns(content.get("images", []), "images", _IMAGE_FIELDS),
        ignore=_patterns(content.get("ignore", []), "ignore", ()),
        masks=tuple(map(_masks, tables)),
    )


def _masks(table: dict[str, Any]) -> Masks:
    _refuse_unknown(table, _MASKS, " in [[masks]]")
    patterns = _patterns(table.get("path", []), "path", _MASK_FIELDS)
    if not patterns:
        raise _MisreadError('[[masks]] needs a path, such as path = "masks/{key}.png"')
    _refuse_contradictions(table, patterns)
    offsets, shows = table.get("offsets"), table.get("object")
    is_table = isinstance(shows, dict)
    kind = Kind(
        path=", ".join(found.text for found in patterns),
        object=None if shows is None or is_table else _text(shows, "object"),
        labels=_labels(table["labels"]) if "labels" in table else None,
        channels=_channels(table.get("channels")),
        threshold=_number(table.get("threshold"), "threshold"),
        instances=_flag(table.get("instances", False), "instances"),
        outline=_flag(table.get("outline", False), "outline"),
        is_cropped=offsets is not None,
    )
    return Masks(
        patterns=patterns,
        kind=kind,
        objects=_texts(shows, "object") if is_table else {},
        annotator=_text(table["annotator"], "annotator") if "annotator" in table else None,
        offsets=None if offsets is None else _offsets(offsets),
        replace=_texts(table.get("replace", {}), "replace", may_be_empty=True),
        names=_texts(table.get("names", {}), "names"),
        keys=_texts(table.get("keys", {}), "keys"),
    )


def _refuse_unknown(table: Mapping[str, Any], known: Collection[str], where: str) -> None:
    for key in table:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise _MisreadError(
                f"there is no key {key!r}{where}.{hint} Known are {', '.join(known)}"
            )


def _refuse_contradictions(table: Mapping[str, Any], patterns: tuple[Pattern, ...]) -> None:
    """Refuse what names the same objects twice, or leaves open which image a mask is of."""
    for words in _APART:
        said = [word for word in words if table.get(word)]
        if len(said) > 1:
            raise _MisreadError(f"[[masks]] says {said[0]} and {said[1]} of the same masks")
    for found in patterns:
        if not found.has_key:
            raise _MisreadError(f"the pattern {found.text!r} has no {{key}}, the name of its image")
        for field_name, word in _DOUBLE:
            if field_name in found.whole.groupindex and word in table:
                raise _MisreadError(
                    f"the pattern {found.text!r} has {{{field_name}}}, and [[masks]] says {word}"
                )


def _patterns(value: Any, key: str, fields: Collection[str]) -> tuple[Pattern, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise _MisreadError(f"{key} holds {_shown(value)}; expected is a pattern or a list of them")
    found = tuple(pattern(text, fields) for text in texts)
    if key == "images" and (bare := next((p for p in found if not p.has_key), None)):
        raise _MisreadError(f"the pattern {bare.text!r} has no {{key}}, the name of the image")
    return found


def _labels(value: Any) -> Mapping[str, tuple[int, ...]]:
    if not isinstance(value, dict):
        raise _MisreadError(f'labels holds {_shown(value)}; expected is {{ "liver" = 1, ... }}')
    table = named_values(value)
    if not table:
        raise _MisreadError("labels names no value but the background's, 0")
    return table


def _channels(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not value or len(value) > 1000:
        raise _MisreadError(f"channels holds {_shown(value)}; expected is a list of names")
    names = tuple(_text(name, "channels") for name in value)
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise _MisreadError(f"channels has the name {twice!r} twice")
    return names


def _offsets(value: Any) -> Mapping[str, str]:
    offsets = _texts(value, "offsets")
    _refuse_unknown(offsets, _OFFSETS, " in offsets")
    needed = [word for word in ("table", "top", "left") if word not in offsets]
    if needed or not {"file", "image", "object"} & offsets.keys():
        raise _MisreadError(
            f"offsets needs {needed[0] if needed else 'file, or image and object'}; expected is "
            '{ table = "boxes.csv", file = "Mask", top = "Top", left = "Left" }, with the names '
            "of columns"
        )
    return offsets


def _spacing(value: Any) -> tuple[float, float] | None:
    if value is None:
        return None
    pair = value if isinstance(value, list) else []
    numbers = [_number(edge, "spacing") or 0.0 for edge in pair]
    if len(numbers) != 2 or not all(0 < edge < float("inf") for edge in numbers):
        raise _MisreadError(f"spacing holds {_shown(value)}; expected is [Y, X] in mm")
    return numbers[0], numbers[1]


def _text(value: Any, key: str, *, may_be_empty: bool = False) -> str:
    if not isinstance(value, str) or not (value.strip() or may_be_empty):
        raise _MisreadError(f"{key} holds {_shown(value)}; expected is a text")
    if value != printable(value) or (set(value) & set("\n\r\0")):
        raise _MisreadError(f"{key} holds {_shown(value)}, which is no plain text")
    return value


def _texts(value: Any, key: str, *, may_be_empty: bool = False) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _MisreadError(f'{key} holds {_shown(value)}; expected is {{ "text" = "text" }}')
    return {
        _text(old, key): _text(new, key, may_be_empty=may_be_empty) for old, new in value.items()
    }


def _number(value: Any, key: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e15:
        raise _MisreadError(f"{key} holds {_shown(value)}; expected is a number")
    return float(value)


def _flag(value: Any, key: str) -> bool:
    if not isinstance(value, bool):
        raise _MisreadError(f"{key} holds {_shown(value)}; expected is true or false")
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
