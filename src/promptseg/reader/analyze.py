"""Pairs of `.hdr` and `.img`: Analyze 7.5, or NIfTI that is stored so.

Analyze says nothing of how a volume lies in the patient. Taken is what the format's makers
describe as its normal order: the first axis runs to the patient's left, the second to the front,
the third up (LAS). A `.mat` file of SPM beside the pair is not read.
"""

from pathlib import Path

import numpy as np

from promptseg.errors import DataError
from promptseg.reader.header import leads_away
from promptseg.reader.limits import unreadable
from promptseg.reader.nifti import read_nifti
from promptseg.reader.volume import Volume, check_bytes, check_grid, check_numbers, oriented

_NIFTI_MAGIC = (b"ni1\0", b"ni2\0")
_UNITS_AT = slice(56, 60)


def read_analyze(path: Path) -> Volume:
    """Read the pair of a `.hdr` file.

    Edges of 1 without a unit are what software writes that knows nothing: then there is no
    spacing.

    Raises
    ------
    DataError
        It is damaged, is too large, or has not three axes.
    """
    from nibabel.arrayproxy import ArrayProxy
    from nibabel.spm2analyze import Spm2AnalyzeHeader

    try:
        with path.open("rb") as file:
            content = file.read(1024)
        image = voxel_file(path)
        if content[344:348] in _NIFTI_MAGIC or content[4:7] == b"ni2":
            return read_nifti(path)
        with path.open("rb") as file:
            header = Spm2AnalyzeHeader.from_fileobj(file)
        shape = tuple(int(n) for n in header.get_data_shape())
        check_grid(shape, np.eye(4))
        dtype = header.get_data_dtype()
        check_bytes(shape, dtype.itemsize)
        proxy = ArrayProxy(str(image), header)
        stored = np.asanyarray(proxy.get_unscaled()).reshape(shape[:3])
        edges = np.array([*map(float, header.get_zooms()[:3])])
    except DataError:
        raise
    except Exception as error:  # damaged and hostile files make decoders raise anything
        raise unreadable(path, error) from error
    check_numbers(stored)
    is_default = not content[_UNITS_AT].strip(b"\0 ") and (edges == 1).all()
    has_spacing = bool((edges > 0).all() and np.isfinite(edges).all() and not is_default)
    affine = np.diag([*(edges if has_spacing else np.ones(3)), 1.0])
    affine[0, 0] *= -1
    slope, intercept = float(proxy.slope), float(proxy.inter)
    return oriented(Volume(stored, affine, has_spacing, slope, intercept, has_place=False))


def voxel_file(path: Path) -> Path:
    """Find the `.img` beside a `.hdr`, in small or capital letters; raises DataError."""
    for suffix in (".img", ".IMG", ".Img"):
        if (found := path.with_suffix(suffix)).is_file():
            if leads_away(found):
                raise DataError("the file of its voxels is a link that leads out of the folder")
            return found
    raise DataError(f"{path.stem}.img, the file of its voxels, is not there")
