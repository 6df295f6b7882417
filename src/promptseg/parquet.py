"""Dataclasses as Parquet: schemas from annotations, and files that are whole or absent."""

import dataclasses
import os
import types
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from promptseg.errors import DataError
from promptseg.mask import Rle

if TYPE_CHECKING:
    import pyarrow as pa


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, then rename it: readers see all of it or nothing.

    Raises
    ------
    DataError
        It cannot be written there, for whatever reason the system gives.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise DataError(f"Cannot write {path}: {error.strerror or error}.") from error


def sweep_temporaries(folder: Path) -> None:
    """Delete what killed processes of this machine left half-written below a folder."""
    for path in folder.rglob(".*.tmp"):
        pid = path.name.split(".")[-2]
        if pid.isdigit() and not _is_running(int(pid)):
            path.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # asks, does not kill
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def arrow_schema(row: type) -> "pa.Schema":
    """Derive the Parquet schema of a row type from its annotations; `| None` means nullable."""
    import pyarrow as pa

    hints = get_type_hints(row)
    fields = []
    for field in dataclasses.fields(row):
        hint = hints[field.name]
        nullable = type(None) in get_args(hint)
        if nullable and get_origin(hint) is types.UnionType:
            hint = next(part for part in get_args(hint) if part is not type(None))
        fields.append(pa.field(field.name, _arrow_type(hint), nullable=nullable))
    return pa.schema(fields)


def _arrow_type(hint: Any) -> "pa.DataType":
    import pyarrow as pa

    if get_origin(hint) is tuple:
        return pa.list_(_arrow_type(get_args(hint)[0]))
    return {
        int: pa.int64(),
        float: pa.float64(),
        str: pa.string(),
        bool: pa.bool_(),
        Rle: pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())]),
    }[hint]


def facts_of(row: Any) -> dict[str, Any]:
    """Give the values of a dataclass by name, as they are: `asdict` copies all that is in them."""
    return {name: getattr(row, name) for name in row.__dataclass_fields__}


def write_parquet(path: Path, row: type, rows: Iterable[Any]) -> None:
    """Write rows of one dataclass as one Parquet file, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist([facts_of(item) for item in rows], arrow_schema(row))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_atomically(path, sink.getvalue().to_pybytes())
