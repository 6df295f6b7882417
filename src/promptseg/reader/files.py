"""Which reader reads a file, by its suffix."""

from pathlib import Path

from promptseg.reader.nifti import read_nifti
from promptseg.reader.volume import Volume


def read_volume(path: Path) -> Volume:
    """Read a volume of any kind; raises DataError, as its reader does."""
    return read_nifti(path)
