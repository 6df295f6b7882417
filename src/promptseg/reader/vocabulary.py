"""How masks that others made are named in the words of a corpus: file names, tables, and values.

A name is that of an object of the corpus if it is the same, or else if it is with underscores
read as spaces. What a table of labels and the file's name leave open, the corpus may tell: it has
one object only, or calls its objects "label 1", "label 2", ...
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from promptseg.errors import DataError
from promptseg.reader.folder import MaskFile
from promptseg.reader.labels import Entry, Naming, name_values
from promptseg.reader.mask_name import MASK_WORDS, parse_name, without_words
from promptseg.reader.table import Table

_WORDS = MASK_WORDS | {"pred", "preds", "prediction", "predictions", "predicted"}
_LABEL = re.compile(r"label (\d{1,9})")  # how curation calls the objects of values without names
_STORED_TO_BE_SEEN = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The objects of a corpus, and how the files of another tool are named by them."""

    objects: frozenset[str]
    naming: Naming  # `nameless` is empty where nothing tells what a nameless mask shows
    own_values: bool = False  # the table is the corpus's own: value N is "label N"
    by_name: bool = False  # files are called by their objects, so that other names are other ones
    _folded: Mapping[str, str] = field(repr=False)

    def match(self, name: str | None) -> str | None:
        """Find the object of the corpus that a name means."""
        if name is None or name in self.objects:
            return name
        return self._folded.get(_fold(name))

    def read_name(self, rest: str) -> tuple[str | None, int | None]:
        """Read object and instance from what a file's name says beyond its image's.

        Where all files number instances of the only object, other names say nothing.
        """
        plain = without_words(rest, _WORDS)
        for whole in (rest.strip("_- "), without_words(rest), plain):
            if known := self.match(whole):
                return known, None
        name, number = parse_name(plain)
        is_silent = self.naming.instances and len(self.objects) == 1
        return self.match(name) or (None if is_silent else name), number

    def choose(self, files: Collection[MaskFile]) -> list[MaskFile]:
        """Choose among the files of an image those that may show an object of the corpus.

        A table can name the values of a file whose own name nobody knows, if that must be a label
        map: no file of the folder is called by an object, none of the image is nameless.
        """
        is_suffix = self._has_table and not self.by_name and all(file.object for file in files)
        table = self.naming.table or {}
        return [
            file
            for file in files
            if file.object is None
            or file.object in self.objects
            or (is_suffix and file.object not in table)
        ]

    def is_mute(self, file: MaskFile) -> bool:
        """Whether nothing says what a file shows, whatever its values are."""
        by_value = self._has_table or (self.own_values and not file.is_one_object)
        return file.object is None and not self.naming.nameless and not by_value

    @property
    def _has_table(self) -> bool:
        return self.naming.table is not None and not self.own_values

    def possible(self, file: MaskFile) -> set[str]:
        """List what a file may show by its name and the table."""
        return {file.object or self.naming.nameless, *(self.naming.table or ())} - {""}

    def entries(self, file: MaskFile, values: list[int]) -> tuple[list[Entry], tuple[int, ...]]:
        """Name the values of a file; those that the table does not know come second.

        Raises
        ------
        DataError
            The file holds more values than it can show objects, or nothing says what it shows.
        """
        naming = self.naming
        # a name of the corpus is sure, and the corpus's own values are only for label maps
        if file.object in self.objects or (file.is_one_object and self.own_values):
            naming = replace(naming, table=None)
        if naming.binary and not file.is_one_object and len(values) > 1:
            raise DataError(
                f"it holds {len(values)} values besides 0; expected is one, as the corpus has one "
                "object. --labels names the values, --instances says that they number instances, "
                "--threshold makes a mask of what lies above it"
            )
        named, unknown = name_values(file, values, naming)
        if any(not entry.object for entry in named):
            raise DataError("neither its name nor the table of labels says what it shows")
        return named, tuple(value for value, _ in unknown)

    def as_binary(self, seen: Collection[int]) -> "Vocabulary | None":
        """Read masks of the corpus's only object, "label N", that all have another value: 1 or 255.

        Returns None where they cannot be that.
        """
        is_binary = self.own_values and list(seen) in ([1], [_STORED_TO_BE_SEEN])
        if not is_binary or len(self.objects) != 1:
            return None
        naming = replace(self.naming, nameless=_sole(self.objects), table=None, binary=True)
        return replace(self, naming=naming, own_values=False)


def vocabulary(
    objects: Collection[str], table: Table | None, *, instances: bool, threshold: float | None
) -> Vocabulary:
    """Settle how files are named: by a table, as the only object, by "label N", or by their names.

    `instances` says that values number the instances of one object.
    """
    folds = Counter(map(_fold, objects))
    words = Vocabulary(
        objects=frozenset(objects),
        naming=Naming(nameless="", instances=instances, threshold=threshold),
        _folded={_fold(name): name for name in objects if folds[_fold(name)] == 1},
    )
    given = _in_words(table, words)
    own = {name: (int(m[1]),) for name in objects if (m := _LABEL.fullmatch(name))}
    if instances:
        return _named(words, nameless=_sole(objects) or _sole(given))
    if given:
        return _named(words, nameless=_sole(given), table=given)
    if own:
        return replace(_named(words, nameless="", table=own), own_values=True)
    return _named(words, nameless=_sole(objects), binary=True)


def _in_words(table: Table | None, words: Vocabulary) -> dict[str, tuple[int, ...]]:
    """Bring a table to the names of the corpus, as far as it has them."""
    known: dict[str, tuple[int, ...]] = {}
    for name, values in (table or {}).items():
        name = words.match(name) or name
        known[name] = (*known.get(name, ()), *values)
    return known


def _named(
    words: Vocabulary, *, nameless: str, table: Table | None = None, binary: bool = False
) -> Vocabulary:
    naming = replace(words.naming, nameless=nameless, table=table, binary=binary)
    return replace(words, naming=naming)


def _sole(names: Iterable[str]) -> str:
    """Give the only name, or an empty one."""
    listed = list(names)
    return listed[0] if len(listed) == 1 else ""


def _fold(name: str) -> str:
    return name.replace("#", "_").replace("_", " ")
