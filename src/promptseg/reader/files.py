"""Which reader reads a file, by its suffix."""

from pathlib import Path

from promptseg.reader.analyze import read_analyze
from promptseg.reader.header import META, NRRD
from promptseg.reader.itk import read_itk
from promptseg.reader.nifti import read_nifti
from promptseg.reader.segments import NamedVolume, has_segments, read_segments
from promptseg.reader.volume import Volume


def read_volume(path: Path) -> Volume:
    """Read a volume of any kind; raises DataError, as its reader does."""
    name = path.name.lower()
    if name.endswith((*NRRD, *META)):
        return read_itk(path)
    return read_analyze(path) if name.endswith(".hdr") else read_nifti(path)


def read_label_volumes(path: Path) -> list[NamedVolume]:
    """Read the label volumes of a file, mostly one; raises DataError, as its reader does."""
    if path.name.lower().endswith(NRRD) and has_segments(path):
        return read_segments(path)
    return [NamedVolume(read_volume(path), None)]
