"""NRRD and MetaImage volumes, read by ITK.

ITK gives the axes to the patient's left, back and up (LPS). Where a header does not say how the
volume lies, or only says what software writes that knows nothing (edges of 1, no turn, no origin,
no unit), its order is taken for LPS, so that slices look as they are stored.
"""

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Shaped

from promptseg.errors import DataError
from promptseg.reader.header import NRRD, Header, check_promise, data_path, read_header
from promptseg.reader.volume import Volume, check_grid, check_numbers, oriented, times

if TYPE_CHECKING:
    import SimpleITK

_PLACES = frozenset(
    {
        *("right-anterior-superior", "ras", "left-anterior-superior", "las"),
        *("left-posterior-superior", "lps"),
    }
)
_MM = {"mm": 1.0, "millimeter": 1.0, "cm": 10.0, "m": 1000.0, "um": 0.001, "µm": 0.001}
_MM |= {"micron": 0.001, "nm": 1e-6}
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_CHUNK = 2**20


def read_itk(path: Path) -> Volume:
    """Read a NRRD or MetaImage volume; one slice (2D) is a volume of one slice.

    Raises
    ------
    DataError
        It is damaged, has not three axes or one value per voxel, is too large, or its voxels lie
        outside the folder of its header.
    """
    header = read_header(path)
    shape = _spatial(header)
    check_grid(shape, np.eye(4))
    check_promise(path, header)
    image = read_image(path, header)
    voxels = held(image).T.reshape(shape, order="F")
    check_numbers(voxels)
    affine, has_place, has_spacing = geometry(image, header)
    check_grid(shape, affine)
    return oriented(Volume(voxels, affine, has_spacing, has_place=has_place))


def _spatial(header: Header) -> tuple[int, ...]:
    """Give the shape as three axes; raises DataError where there are others."""
    kinds = header.fields.get("kinds", "").split()
    inner = next((n for n, kind in enumerate(kinds) if kind in ("domain", "space")), 0)
    channels = header.shape[:inner]
    if np.prod(channels, initial=1) != 1:
        raise DataError(f"it has {times(channels)} values per voxel; expected is one")
    shape = header.shape[inner:]
    if len(shape) == 2:
        shape = (*shape, 1)
    if len(shape) < 3 or any(n != 1 for n in shape[3:]):
        raise DataError(f"it has the shape {times(header.shape)}; expected are three axes")
    return shape[:3]


def read_image(path: Path, header: Header) -> "SimpleITK.Image":
    """Let ITK read a file whose header was checked; raises DataError."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    name = "NrrdImageIO" if path.name.lower().endswith(NRRD) else "MetaImageIO"
    if header.packing == "gzip":
        _check_packed(data_path(path, header), header)
    try:
        return SimpleITK.ReadImage(str(path), imageIO=name)
    except Exception as error:  # its messages are long, and name paths of ours and its own
        raise DataError("it cannot be read: it is damaged, or of a kind that is unknown") from error


def _check_packed(path: Path, header: Header) -> None:
    """Unpack voxels once to see that they are whole: ITK looks at no checksum.

    A damaged MetaImage it reads as noise.
    """
    promised = int(np.prod(header.shape, dtype=np.int64)) * header.bytes_per_voxel
    start = header.length if header.data_file is None else 0
    try:
        held = unpacked_size(path, start, promised + _CHUNK)
    except zlib.error as error:
        raise DataError("it cannot be read: its packed voxels are damaged") from error
    has_skip = any(header.fields.get(name, "0") != "0" for name in ("byte skip", "line skip"))
    if held < promised or (held > promised and not has_skip):
        raise DataError("it cannot be read: its packed voxels are not as many as its header says")


def unpacked_size(path: Path, start: int, most: int) -> int:
    """Count what a zlib or gzip stream holds; -1 if it is cut off. Raises zlib.error."""
    unpacker, held = zlib.decompressobj(wbits=47), 0
    with path.open("rb") as file:
        file.seek(start)
        while not unpacker.eof and held <= most:
            packed = unpacker.unconsumed_tail or file.read(_CHUNK)
            if not packed:
                return -1
            held += len(unpacker.decompress(packed, _CHUNK))
    return held


class _Held:
    """The memory of an ITK image as an array; the array keeps the image, which owns it."""

    def __init__(self, image: "SimpleITK.Image") -> None:
        import SimpleITK

        self.image = image
        self.__array_interface__: dict[str, Any] = dict(
            SimpleITK.GetArrayViewFromImage(image).__array_interface__
        )


def held(image: "SimpleITK.Image") -> Shaped[np.ndarray, "..."]:
    """Give the values of an ITK image, the fastest axis last, without a copy."""
    return np.asarray(_Held(image))


def geometry(
    image: "SimpleITK.Image", header: Header
) -> tuple[Float[np.ndarray, "4 4"], bool, bool]:
    """Give the affine to RAS+ mm, and whether the file says how it lies, and its spacing."""
    n_axes = image.GetDimension()
    spacing = np.array([*image.GetSpacing(), 1.0])[:3]
    direction, origin = np.eye(3), np.zeros(3)
    if n_axes >= 3:
        direction = np.array(image.GetDirection()).reshape(n_axes, n_axes)[:3, :3]
        origin = np.array(image.GetOrigin())[:3]
    scale = _mm_per_unit(header)
    is_default = scale is None and (
        np.array_equal(spacing, np.ones(3))
        and np.array_equal(direction, np.eye(3))
        and not origin.any()
    )
    has_spacing = _states_spacing(header) and not is_default
    has_place = n_axes >= 3 and _states_place(header) and not is_default
    affine = np.eye(4)
    if has_place:
        affine[:3, :3], affine[:3, 3] = direction * spacing, origin
    elif has_spacing:
        affine[:3, :3] = np.diag(spacing)
    affine[:3] *= scale or 1.0
    return _LPS @ affine, has_place, has_spacing


def _mm_per_unit(header: Header) -> float | None:
    """Read the unit of lengths; None where the file names none (or none that is known)."""
    text = header.fields.get("space units") or header.fields.get("units") or ""
    units = {word for word in text.replace('"', " ").split() if word != "???"}
    return _MM.get(units.pop()) if len(units) == 1 else None


def _states_spacing(header: Header) -> bool:
    if "dimsize" in header.fields:
        edges = header.numbers("elementspacing") or header.numbers("elementsize")
        return edges is not None and all(0 < edge < float("inf") for edge in edges)
    if "space directions" in header.fields:
        return True
    words = header.fields.get("spacings", "").lower().split()
    return bool(words) and all(word != "nan" for word in words[: len(header.shape)])


def _states_place(header: Header) -> bool:
    if "dimsize" in header.fields:
        turns = ("transformmatrix", "orientation", "rotation")
        return any(name in header.fields for name in turns)
    space = header.fields.get("space", "").lower()
    return space.removesuffix("-time") in _PLACES and "space directions" in header.fields
