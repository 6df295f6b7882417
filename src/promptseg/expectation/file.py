"""Predictors as JSON files: plain numbers, checked when they are read, and nothing unpickled."""

import json
import types
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from promptseg.errors import DataError
from promptseg.expectation.predictor import Predictor
from promptseg.parquet import write_atomically

WHAT = "promptseg predictor of expected DICE"
SCHEMA_VERSION = 1


def write_predictor(path: Path, predictor: Predictor) -> None:
    """Write a predictor as JSON; `read_predictor` gives back an equal one."""
    content = {"what": WHAT, "schema_version": SCHEMA_VERSION, **asdict(predictor)}
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    write_atomically(path, f"{text}\n".encode())


def read_predictor(path: Path) -> Predictor:
    """Read a predictor.

    Raises
    ------
    DataError
        There is none, it is damaged, or another promptseg wrote it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON file ({error}).") from error
    if not isinstance(content, dict) or content.pop("what", None) != WHAT:
        raise DataError(
            f"{path} holds no predictor. `promptseg report RUN --out FILE --predictor FILE` makes "
            "one."
        )
    version = content.pop("schema_version", None)
    if version != SCHEMA_VERSION:
        raise DataError(
            f"{path} has predictor schema {version}, this promptseg reads {SCHEMA_VERSION}: make "
            "it again."
        )
    try:
        made = _made(Predictor, content)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}).") from error
    assert isinstance(made, Predictor)
    return made


def _made(kind: Any, content: Any) -> Any:
    """Make a value of an annotated kind of what JSON holds; raises TypeError or ValueError."""
    origin, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind) and isinstance(kind, type):
        return _dataclass(kind, content)
    if origin is types.UnionType:
        (kind,) = (one for one in inner if one is not type(None))
        return None if content is None else _made(kind, content)
    if origin is tuple:
        return _tuple(inner, content)
    if origin is Literal:
        return _word(inner, content)
    return _plain(kind, content)


def _plain(kind: type, content: Any) -> Any:
    if kind is float and type(content) is int:
        return float(content)
    if type(content) is not kind:
        raise TypeError(f"{content!r:.60} is no {kind.__name__}")
    return content


def _word(known: tuple[Any, ...], content: Any) -> Any:
    if content not in known:
        raise ValueError(f"{content!r:.60} is none of {known}")
    return content


def _dataclass(kind: type, content: Any) -> Any:
    hints = get_type_hints(kind)
    names = {field.name for field in fields(kind)}
    if not isinstance(content, dict) or content.keys() != names:
        raise ValueError(f"{kind.__name__} does not have its fields")
    return kind(**{name: _made(hints[name], value) for name, value in content.items()})


def _tuple(inner: tuple[Any, ...], content: Any) -> tuple[Any, ...]:
    if not isinstance(content, list):
        raise TypeError(f"{content!r:.60} is no list")
    kinds = [inner[0]] * len(content) if inner[-1] is Ellipsis else list(inner)
    return tuple(_made(kind, one) for kind, one in zip(kinds, content, strict=True))
