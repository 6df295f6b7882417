"""Where a corpus is written: a folder of this machine, or any that fsspec knows."""

from pathlib import Path
from typing import Any

from promptseg.errors import DataError
from promptseg.parquet import sweep_temporaries, write_atomically


class Store:
    """Files by name below a folder, each whole or absent.

    Parameters
    ----------
    where
        A path, or a URL such as `s3://bucket/corpus`, whose file system has to be installed.

    Raises
    ------
    DataError
        There is no file system for the URL, or it cannot be reached.
    """

    def __init__(self, where: Path | str) -> None:
        self.where = where
        self._folder, self._remote, self._root = Path(where), None, ""
        if is_url(where):
            self._remote, self._root = _opened(str(where))

    def is_free(self) -> bool:
        """Tell whether nothing is there that writing could mix with."""
        if self._remote is None and self._folder.exists() and not self._folder.is_dir():
            return False
        return not self.names()

    def names(self) -> list[str]:
        """List all files below the folder."""
        if self._remote is not None:
            found = self._asked(self._remote.find, self._root)
            return sorted(name[len(self._root) :].lstrip("/") for name in found)
        files = (path for path in self._folder.rglob("*") if not path.is_dir())
        return sorted(path.relative_to(self._folder).as_posix() for path in files)

    def has(self, name: str) -> bool:
        """Tell whether a file is there."""
        if self._remote is None:
            return (self._folder / name).is_file()
        return bool(self._asked(self._remote.isfile, f"{self._root}/{name}"))

    def read(self, name: str) -> bytes:
        """Read a file whole."""
        if self._remote is None:
            return (self._folder / name).read_bytes()
        return bytes(self._asked(self._remote.cat_file, f"{self._root}/{name}"))

    def write(self, name: str, content: bytes) -> None:
        """Write a file; raises DataError when it cannot be written."""
        if self._remote is None:
            write_atomically(self._folder / name, content)
            return
        path = f"{self._root}/{name}"
        self._asked(self._remote.makedirs, path.rpartition("/")[0], exist_ok=True)
        self._asked(self._remote.pipe_file, path, content)

    def remove(self, name: str) -> None:
        """Delete a file that is there."""
        if self._remote is None:
            (self._folder / name).unlink()
        else:
            self._asked(self._remote.rm_file, f"{self._root}/{name}")

    def sweep(self) -> None:
        """Delete what a killed process left half-written; elsewhere nothing ever is."""
        if self._remote is None and self._folder.is_dir():
            sweep_temporaries(self._folder)

    def _asked(self, action: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return action(*arguments, **options)
        except Exception as error:  # every file system has errors of its own
            told = " ".join(str(error).split())[:200] or type(error).__name__
            raise DataError(f"{self.where} cannot be used: {told}.") from error


def is_url(where: Path | str) -> bool:
    """Tell a URL from a path."""
    return "://" in str(where)


def _opened(url: str) -> tuple[Any, str]:
    import fsspec

    try:
        remote, root = fsspec.core.url_to_fs(url)
    except Exception as error:  # unknown protocols, missing packages, credentials
        told = " ".join(str(error).split())[:200]
        raise DataError(f"{url} cannot be used: {told}.") from error
    return remote, str(root).rstrip("/")
