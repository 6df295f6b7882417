"""NIfTI volumes."""

import gzip
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Shaped

from promptseg.errors import DataError
from promptseg.reader.limits import unreadable
from promptseg.reader.volume import Volume, check_bytes, check_grid, check_numbers, oriented

if TYPE_CHECKING:
    from nibabel.arrayproxy import ArrayProxy

_MOST_AFTER = 2**26  # bytes that may follow the voxels
_PIECE = 2**20
_MOST_AT_ONCE = 2**26  # bytes of a packed file that is unpacked in one go
_MM = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}


def read_nifti(path: Path) -> Volume:
    """Read a NIfTI file.

    An identity affine without units is what software writes when it knows nothing: then there is
    no spacing. Other affines without units are in millimetres, as all tools read them.

    Raises
    ------
    DataError
        It is damaged, has not three axes, or does not say how it lies in the patient.
    """
    import nibabel

    try:
        image = nibabel.load(path)
        units = image.header.get_xyzt_units()[0]
        codes = (int(image.header["sform_code"]), int(image.header["qform_code"]))
        check_grid(image.shape, image.affine)
        check_bytes(image.shape, image.get_data_dtype().itemsize)
        if not any(codes):
            raise DataError(
                "its header does not say how it lies in the patient (no sform, no qform)"
            )
        stored = _stored(image.dataobj, path).reshape(image.shape[:3], order="F")
        slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
    except DataError:
        raise
    except Exception as error:  # damaged and hostile files make decoders raise anything
        raise unreadable(path, error) from error
    check_numbers(stored)
    is_default = units == "unknown" and np.array_equal(image.affine, np.eye(4))
    scale = np.diag([_MM[units]] * 3 + [1.0])
    affine = scale @ image.affine.astype(np.float64)
    return oriented(Volume(stored, affine, not is_default, slope, intercept))


def _stored(proxy: "ArrayProxy", path: Path) -> Shaped[np.ndarray, "..."]:
    """Give the voxels as they are stored, once their checksum was looked at, if there is one.

    nibabel stops before it, and gives other voxels where a bit is flipped.
    """
    if not path.name.lower().endswith(".gz"):
        return np.asanyarray(proxy.get_unscaled())
    n_bytes = int(np.prod(proxy.shape, dtype=np.int64)) * proxy.dtype.itemsize
    found = _at_once(path, proxy.offset, n_bytes)
    content = _piece_by_piece(path, proxy.offset, n_bytes) if found is None else found
    return np.frombuffer(content, proxy.dtype).reshape(proxy.shape, order="F")


def _at_once(path: Path, offset: int, n_bytes: int) -> memoryview | None:
    """Unpack a file that holds the voxels and nothing after them; None for any other, or a bad one.

    It is four times as fast as by pieces.
    """
    from imagecodecs import DeflateError, gzip_decode

    if path.stat().st_size > _MOST_AT_ONCE:
        return None
    packed = path.read_bytes()
    if int.from_bytes(packed[-4:], "little") != offset + n_bytes:
        return None
    content = bytearray(offset + n_bytes)
    try:
        gzip_decode(packed, out=content)
    except DeflateError:
        return None
    return memoryview(content)[offset:]


def _piece_by_piece(path: Path, offset: int, n_bytes: int) -> bytearray:
    """Unpack the voxels, and look at all that is after them; raises DataError."""
    content = bytearray(n_bytes)
    with gzip.open(path) as file:
        file.seek(offset)
        held = _fill(content, file)
        left = _MOST_AFTER
        while chunk := file.read(_PIECE):  # the checksum is looked at when the end is reached
            left -= len(chunk)
            if left < 0:
                raise DataError("it holds more than its header says")
    if held != n_bytes:
        raise DataError(
            f"it cannot be read: it is cut off, its header promises {n_bytes} bytes of voxels"
        )
    return content


def _fill(content: bytearray, file: gzip.GzipFile) -> int:
    """Read piece by piece: at once, gzip keeps copies of what was packed well."""
    view, held = memoryview(content), 0
    while piece := file.readinto(view[held : held + _PIECE]):
        held += piece
    return held
