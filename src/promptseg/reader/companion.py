"""Files that hold the voxels of another: they are read with their header, and are none of it alone.

`x.img` belongs to `x.hdr`; `.nhdr` and `.mhd` name their file of voxels.
"""

from collections.abc import Iterable
from pathlib import Path

from promptseg.errors import DataError
from promptseg.reader.analyze import voxel_file
from promptseg.reader.header import data_path, read_header


def companions(folder: Path, sources: Iterable[str]) -> set[str]:
    """List the files of voxels that headers below a folder name, as paths below the folder."""
    found = set()
    for source in sources:
        path = folder / source
        try:
            part = _part(path)
        except DataError:
            continue  # reported when it is read
        if part != path:
            found.add(part.relative_to(folder).as_posix())
    return found


def _part(path: Path) -> Path:
    name = path.name.lower()
    if name.endswith(".hdr"):
        return voxel_file(path)
    return data_path(path, read_header(path)) if name.endswith((".nhdr", ".mhd")) else path
