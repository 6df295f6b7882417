"""How far a curation has come, kept beside its parts, so that the same command goes on with it."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from promptseg import __version__
from promptseg.errors import DataError
from promptseg.store import Store

NAME = ".curation.json"


@dataclass(frozen=True, slots=True)
class Mark:
    """What is in the parts written so far: whole files, and some pieces of the next."""

    identity: str  # of the files and settings
    n_parts: int = 0
    n_files: int = 0
    n_pieces: int = 0
    regridded: tuple[str, ...] = ()  # mask files so far, which no row tells
    notes: Mapping[str, int] = field(default_factory=dict)  # images so far, by what is to be known


def identity(folder: Path, sources: Iterable[str], settings: str) -> str:
    """Hash what a corpus is made from: files by name, size and time, and all settings."""
    digest = hashlib.sha256(f"{__version__}\n{settings}\n".encode())
    for source in sources:
        try:
            status = (folder / source).stat()
        except OSError:
            digest.update(f"{source}\0gone\n".encode("utf-8", "surrogateescape"))
            continue
        facts = f"{source}\0{status.st_size}\0{status.st_mtime_ns}\n"
        digest.update(facts.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def read_mark(store: Store, own: str) -> Mark | None:
    """Read how far the same curation has come; None where nothing was begun, or none of it kept.

    Raises
    ------
    DataError
        What was begun there is another curation, or cannot be read.
    """
    if not store.has(NAME):
        return None
    try:
        facts = json.loads(store.read(NAME))
        mark = Mark(**{**facts, "regridded": tuple(facts["regridded"])})
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"{store.where} is damaged ({NAME}). Delete it.") from error
    if mark.identity != own:
        raise DataError(
            f"{store.where} holds a curation that was begun with other files, settings or another "
            "version. Delete it, or choose another --out."
        )
    return mark


def write_mark(store: Store, mark: Mark) -> None:
    """Write how far it is; raises DataError where it cannot be written."""
    store.write(NAME, json.dumps(asdict(mark)).encode())
