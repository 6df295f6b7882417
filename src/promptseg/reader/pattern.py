"""Patterns of file names: which part of a path is the image's key, which the object's name.

`masks/{key}_{object}.png` fits `masks/a/1_liver.png` with the key `a/1` and the object `liver`.
`*` stands for any text within a folder's or file's name, `**` for any text, `.*` at the end for
any suffix. A key may contain /. `{key:d}` is a number, of which leading zeros do not count.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from promptseg.errors import DataError

FIELDS = {
    "key": r".+?",
    "object": r"[^/]+?",
    "instance": r"[0-9]{1,9}",
    "annotator": r"[^/]+?",
    "subject": r"[^/]+?",
}
_TOKEN = re.compile(
    r"\{(?P<field>[^{}]*)\}|(?P<any>\*\*)|(?P<some>\*)|(?P<text>[^{}*]+)|(?P<bad>.)"
)
_SUFFIX = r"\.(?:nii\.gz|[^./]+)"
_MOST_DIGITS = 18


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of all images, as text and as numbers (None: several have that number)."""

    text: Collection[str]
    numbers: Mapping[int, str | None]

    def find(self, text: str, *, is_number: bool) -> str | None:
        """Give the key that a part of a path stands for."""
        if not is_number:
            return text if text in self.text else None
        is_digits = text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
        return self.numbers.get(int(text)) if is_digits else None


def keys_of(images: Collection[str]) -> Keys:
    """Index keys of images."""
    numbers: dict[int, str | None] = {}
    for key in images:
        if key.isascii() and key.isdigit() and len(key) <= _MOST_DIGITS:
            numbers[int(key)] = None if int(key) in numbers else key
    return Keys(images, numbers)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern of paths, as one expression and as its parts before and after the key."""

    text: str
    whole: re.Pattern[str]
    before: re.Pattern[str]
    after: re.Pattern[str]
    start: str  # the fixed text that it begins with
    has_key: bool
    is_number: bool

    def fits(self, source: str) -> dict[str, str] | None:
        """Read a path, with the shortest key that is possible; None where it does not fit."""
        match = self.whole.fullmatch(source)
        return match.groupdict() if match else None

    def find(self, source: str, keys: Keys) -> tuple[str, dict[str, str]] | None:
        """Read a path with the longest key that an image has; None where there is none."""
        for start in self._starts(source):
            for end in range(len(source), start, -1):
                key = keys.find(source[start:end], is_number=self.is_number)
                if key is not None and (after := self.after.fullmatch(source, end)):
                    before = self.before.fullmatch(source, 0, start)
                    return key, after.groupdict() | (before.groupdict() if before else {})
        return None

    def _starts(self, source: str) -> Iterator[int]:
        if self.has_key and source.startswith(self.start):
            for start in range(len(self.start), len(source)):
                if self.before.fullmatch(source, 0, start):
                    yield start


def pattern(text: str, known: Collection[str]) -> Pattern:
    """Read a pattern that may have some fields; raises DataError, which says what is wrong."""
    if not text or text.startswith("/") or "\\" in text or {"..", ".", ""} & set(text.split("/")):
        raise DataError(
            f"the pattern {text!r} has to be a path below the folder, with /, and without . and .."
        )
    body = text.removesuffix(".*")
    tokens = [_token(match, text, known) for match in _TOKEN.finditer(body)]
    names = [token.field for token in tokens if token.field]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"the pattern {text!r} has {{{twice}}} twice; write * for one of them")
    if body != text:
        tokens.append(_Token("", _SUFFIX))
    end = next((i for i, token in enumerate(tokens) if token.field == "key"), len(tokens))
    return Pattern(
        text=text,
        whole=_compiled(tokens),
        before=_compiled(tokens[:end]),
        after=_compiled(tokens[end + 1 :]),
        start=re.split(r"[{*]", body, maxsplit=1)[0],
        has_key="key" in names,
        is_number=any(token.is_number for token in tokens),
    )


@dataclass(frozen=True, slots=True)
class _Token:
    field: str  # empty: plain text or a wildcard
    expression: str
    is_number: bool = False


def _token(match: re.Match[str], text: str, known: Collection[str]) -> _Token:
    if match["any"]:
        return _Token("", r".*?")
    if match["some"]:
        return _Token("", r"[^/]*?")
    if match["text"]:
        return _Token("", re.escape(match["text"]))
    written = match["field"]
    name = (written or "").removesuffix(":d")
    if match["bad"] or name not in known or (written != name != "key"):
        near = get_close_matches(name, known, n=1)
        hint = f" Did you mean {{{near[0]}}}?" if near and written == name else ""
        fields = ", ".join(f"{{{field}}}" for field in known)
        raise DataError(
            f"the pattern {text!r} cannot be read at {match[0]!r}.{hint} "
            f"Known are {fields}, * and **"
        )
    is_number = written != name
    inner = r"[0-9]+" if is_number else FIELDS[name]
    return _Token(name, f"(?P<{name}>{inner})", is_number)


def _compiled(tokens: list[_Token]) -> re.Pattern[str]:
    return re.compile("".join(token.expression for token in tokens), re.DOTALL)
