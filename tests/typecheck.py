"""The run-time type checker that the tests put around every function of the package."""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

# PEP 484's tower: an int is a float where a float is annotated.
_check: Any = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check a function, unless typer calls it: its contexts are not what it says they are."""
    return function if function.__module__.startswith("promptseg.cli") else _check(function)
