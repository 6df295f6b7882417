"""The run-time type checker that the tests put around every function of the package.

In every test the first calls of each function are checked. What is called thousands of times is
not checked as often: that took half of the time of the tests.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

MOST = 12  # calls of a function that are checked in one test
# PEP 484's tower: an int is a float where a float is annotated.
_check: Any = beartype(conf=BeartypeConf(is_pep484_tower=True))
_always: Any = jaxtyping.jaxtyped
_test = [0]  # the number of the test that runs


def begin_test() -> None:
    """Check the next calls of every function again."""
    _test[0] += 1


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check a function, unless typer calls it: its contexts are not what it says they are."""
    return function if function.__module__.startswith("promptseg.cli") else _check(function)


def _jaxtyped(of: Any = None, *, typechecker: Any = None) -> Any:
    """Stand in for `jaxtyping.jaxtyped`, which checks every call."""
    again = functools.partial(_jaxtyped, typechecker=typechecker)
    if of is None:
        return again
    if inspect.isclass(of):
        if is_dataclass(of) and "__init__" in vars(of):
            of.__init__ = again(of.__init__)
        return of
    if isinstance(of, classmethod | staticmethod):
        return type(of)(again(of.__func__))
    if isinstance(of, property):
        return property(*(f and again(f) for f in (of.fget, of.fset, of.fdel)), of.__doc__)
    return _first_calls(of, functools.partial(_always, typechecker=typechecker))


def _first_calls(plain: Callable[..., Any], check: Callable[..., Any]) -> Callable[..., Any]:
    """Call a function with its checks, and after so many calls in a test without."""
    test, count, with_checks = -1, 0, None

    @functools.wraps(plain)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal test, count, with_checks
        if test != _test[0]:
            test, count = _test[0], 0
        count += 1
        if count > MOST:
            return plain(*args, **kwargs)
        if with_checks is None:  # made when it is needed: a worker never calls all functions
            with_checks = check(plain)
        return with_checks(*args, **kwargs)

    return call


jaxtyping.jaxtyped = _jaxtyped
