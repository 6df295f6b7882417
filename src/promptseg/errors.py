"""The errors a user can meet, and the lookup that suggests the nearest name."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TypeVar

T = TypeVar("T")


class PromptsegError(Exception):
    """Root of the errors that tell the user what was wrong and what to do next."""


class DataError(PromptsegError):
    """Input data, a corpus or a run folder is not what it should be.

    `unnamed` says it without names of files and what stands in them, which may tell a person's.
    """

    def __init__(self, message: str, unnamed: str | None = None) -> None:
        super().__init__(message)
        self.unnamed = message if unnamed is None else unnamed

    def __reduce__(self) -> tuple[type["DataError"], tuple[str, str]]:
        """Keep both where it goes to another process."""
        return type(self), (str(self), self.unnamed)


class ModelError(PromptsegError):
    """A model or its weights cannot be had, loaded or trusted."""


class UnknownName(PromptsegError):  # noqa: N818 - the name says what is wrong, as KeyError does
    """A model, strategy or other built-in was asked for by a name nobody has."""


def pick(table: Mapping[str, T], name: str, kind: str) -> T:
    """Look up a built-in by name: `pick(STRATEGIES, "box", "strategy")`.

    Raises
    ------
    UnknownName
        Names the nearest known name and all of them.
    """
    if name in table:
        return table[name]
    near = get_close_matches(name, table, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UnknownName(f"No {kind} named {name!r}.{hint} Known: {', '.join(sorted(table))}.")
