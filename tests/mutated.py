"""Good files of every format, and what damage and malice make of them; seeds are fixed."""

import io
import os
import pickle
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import hostile
import nibabel as nib
import numpy as np
import SimpleITK
import tifffile
from PIL import Image

from promptseg.reader.opencv import quiet

SIZE = (40, 52)  # height, width
SHAPE = (22, 18, 5)  # voxels along right, front and up
FRAMES = 4
_SPACING = (0.8, 1.1, 3.0)
_AFFINE = np.array([[-0.8, 0, 0, -1], [0, -1.1, 0, -2], [0, 0, 3.0, 3], [0, 0, 0, 1]])


def seeded(*words: object) -> np.random.Generator:
    """Make a generator that is the same in every run."""
    return np.random.default_rng(zlib.crc32(repr(words).encode()))


def picture(seed: object = 0) -> np.ndarray:
    """Make a grey picture with noise and a bright object."""
    pixels = seeded("picture", seed).integers(0, 100, SIZE, dtype=np.uint8)
    return pixels + mask() // 2


def mask() -> np.ndarray:
    """Make the mask of all pictures: 0 and 255."""
    values = np.zeros(SIZE, np.uint8)
    values[8:30, 10:33] = 255
    return values


def stack(seed: object = 0) -> np.ndarray:
    """Make frames."""
    return np.stack([picture((seed, n)) for n in range(FRAMES)])


def _by_pil(kind: str, pixels: np.ndarray, **options: object) -> bytes:
    sink = io.BytesIO()
    first, *others = [Image.fromarray(page) for page in pixels.reshape(-1, *SIZE)]
    more = {"save_all": True, "append_images": others} if others else {}
    first.save(sink, format=kind, **more, **options)
    return sink.getvalue()


def by_opencv(suffix: str, pixels: np.ndarray) -> bytes:
    """Encode a picture."""
    return bytes(cv2.imencode(suffix, pixels)[1])


def _by_tifffile(pixels: np.ndarray, **options: object) -> bytes:
    sink = io.BytesIO()
    tifffile.imwrite(sink, pixels, photometric="minisblack", **options)
    return sink.getvalue()


def _by_numpy(pixels: np.ndarray, save: Callable[..., None] = np.save) -> bytes:
    sink = io.BytesIO()
    save(sink, pixels)
    return sink.getvalue()


def video(suffix: str, codec: str) -> bytes:
    """Make a video of a few frames."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        with quiet():
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 10, SIZE[::-1])
        for page in stack():
            writer.write(np.repeat(page[..., None], 3, axis=2))
        writer.release()
        return path.read_bytes()


# name -> (suffix of the image, its content, suffix of its mask, content of that)
def pictures() -> dict[str, tuple[str, bytes, str, bytes]]:
    """Make a good image of every format of pictures and stacks, with its mask."""
    png, pages = (".png", by_opencv(".png", mask())), np.stack([mask()] * FRAMES)
    frames = (".tif", _by_tifffile(pages, compression="zlib"))
    deep = picture().astype(np.uint16) * 250
    return {
        "png": (".png", by_opencv(".png", picture()), *png),
        "deep": (".png", by_opencv(".png", deep), ".png", _by_pil("PNG", mask() > 0)),
        "jpeg": (".jpg", by_opencv(".jpg", picture()), ".bmp", _by_pil("BMP", mask())),
        "tiff": (".tif", _by_tifffile(picture()), ".tif", _by_tifffile(mask())),
        "lzw": (".tif", _by_pil("TIFF", picture(), compression="tiff_lzw"), *png),
        "bmp": (".bmp", _by_pil("BMP", picture()), ".gif", _by_pil("GIF", mask())),
        "gif": (".gif", _by_pil("GIF", picture()), ".npy", _by_numpy(mask())),
        "npy": (".npy", _by_numpy(picture().astype(np.float32)), ".npz",
                _by_numpy(mask(), np.savez_compressed)),
        "npz": (".npz", _by_numpy(picture(), np.savez_compressed), *png),
        "stack": (".tif", _by_tifffile(stack(), compression="zlib"), *frames),
        "moving": (".gif", _by_pil("GIF", stack()), *frames),
        "pages": (".npy", _by_numpy(stack()), ".npy", _by_numpy(pages)),
        "avi": (".avi", video(".avi", "MJPG"), *frames),
        "mp4": (".mp4", video(".mp4", "mp4v"), *frames),
    }  # fmt: skip


def voxels() -> tuple[np.ndarray, np.ndarray]:
    """Make a volume and its labels."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[4:15, 3:14, 1:5] = 1
    noise = seeded("voxels").integers(-500, 500, SHAPE, dtype=np.int16)
    return noise + 300 * labels.astype(np.int16), labels


def _written(name: str, write: Callable[[Path], object]) -> dict[str, bytes]:
    """Give all files, by suffix, that writing to `name` makes."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return {path.name[1:]: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def _itk(array: np.ndarray) -> SimpleITK.Image:
    image = SimpleITK.GetImageFromArray(array.T)
    image.SetSpacing(_SPACING)
    image.SetOrigin((1.0, 2.0, 3.0))
    return image


def written(array: np.ndarray) -> dict[str, bytes]:
    """Make a NRRD of an array, where all volumes lie."""
    return _written("x.nrrd", lambda path: SimpleITK.WriteImage(_itk(array), str(path)))


def volumes() -> dict[str, dict[str, bytes]]:
    """Make good files, by suffix, of every format of volumes; the first is the one of its name."""
    scan, labels = voxels()
    segments = _itk(labels)
    segments.SetMetaData("Segment0_Name", "liver")
    segments.SetMetaData("Segment0_LabelValue", "1")

    def nifti(path: Path) -> None:
        image = nib.Nifti1Image(scan, _AFFINE)
        image.header.set_xyzt_units("mm")
        nib.save(image, path)

    def itk(path: Path) -> None:
        is_segments = path.name.endswith(".seg.nrrd")
        SimpleITK.WriteImage(
            segments if is_segments else _itk(scan), str(path), useCompression="nrrd" in path.name
        )

    return {
        "nii": _written("x.nii", nifti),
        "gz": _written("x.nii.gz", nifti),
        "nrrd": _written("x.nrrd", itk),
        "mha": _written("x.mha", itk),
        "nhdr": _written("x.nhdr", itk),
        "mhd": _written("x.mhd", itk),
        "hdr": analyze(scan),
        "segments": _written("x.seg.nrrd", itk),
    }


def analyze(array: np.ndarray) -> dict[str, bytes]:
    """Make a volume whose file does not say how it lies."""
    image = nib.AnalyzeImage(array, np.diag([*_SPACING, 1.0]))
    return _written("x.hdr", image.to_filename)


def mutations(content: bytes, seed: object, head: int = 250) -> Iterator[bytes]:
    """Cut it, flip bits in its head and body, blank a part, and lengthen it: eleven files."""
    rng, size = seeded(seed), len(content)
    for share in (0.02, 0.4, 0.97):
        yield content[: int(size * share)]
    for first, last in [(0, min(head, size))] * 4 + [(min(head, size - 8), size)] * 2:
        flipped = bytearray(content)
        for at in rng.integers(first, last, 3):
            flipped[at] ^= 1 << int(rng.integers(8))
        yield bytes(flipped)
    at = int(rng.integers(0, size))
    yield content[:at] + bytes(len(content[at : at + 40])) + content[at + 40 :]
    yield content + bytes(rng.integers(0, 256, 300, dtype=np.uint8))


N_MUTATIONS = 11


class Evil:
    """What makes a folder when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        """Tell pickle what to call."""
        return os.mkdir, (str(self.canary),)


def evil_arrays(canary: Path) -> dict[str, bytes]:
    """Make arrays whose values are code."""
    code = pickle.dumps(Evil(canary))
    honest = io.BytesIO()
    np.save(honest, np.array([[Evil(canary)] * 8] * 8, dtype=object), allow_pickle=True)
    lie = hostile.npy("'|u1'", "(8, 8)", code)
    return {
        "code.npy": honest.getvalue(),
        "bare.npy": code,
        "lie.npy": lie,
        "code.npz": hostile.npz({"a.npy": honest.getvalue()}),
        "bare.npz": hostile.npz({"a.npy": code}),
        "up.npz": hostile.npz({"../../../a.npy": honest.getvalue()}),
        "out.npz": hostile.npz({f"{canary}.npy": honest.getvalue()}),
    }


HEAD = "NRRD0004\ntype: short\ndimension: 3\nsizes: 22 18 5\nencoding: raw\nendian: little\n"
_META = "ObjectType = Image\nNDims = 3\nBinaryData = True\nElementType = MET_SHORT\n"
_DIMS = "DimSize = 22 18 5\n"


def nifti_head(**fields: object) -> bytes:
    """Make the head of a NIfTI file that may lie."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape(SHAPE)
    header["sform_code"], header["magic"], header["vox_offset"] = 1, b"n+1", 352
    header["srow_x"][0] = header["srow_y"][1] = header["srow_z"][2] = 1
    for name, value in fields.items():
        header[name] = value
    return header.binaryblock + bytes(4)


def liars(outside: Path) -> dict[str, bytes]:
    """Make volumes that promise too much, unpack to too much, or name files elsewhere.

    `outside` is a file of voxels that lies beside the folder of the data.
    """
    big = [3, 30_000, 30_000, 30_000, 1, 1, 1, 1]
    bomb = zlib.compressobj(9, wbits=31)
    zeros = bytes(1 << 24)
    packed = b"".join([*(bomb.compress(zeros) for _ in range(128)), bomb.flush()])  # of 2 GiB
    wide = "sizes: 30000 30000 30000"
    up, full = os.path.join("..", "..", outside.name), str(outside)
    body = bytes(2 * int(np.prod(SHAPE)))
    gzipped = HEAD.replace("raw", "gzip")
    return {
        "large.nii": nifti_head(dim=big) + body,
        "long.nii": nifti_head(dim=[7, *[32_000] * 7]) + body,
        "far.nii": nifti_head(vox_offset=1e30) + body,
        "nan.nii": nifti_head(vox_offset=np.nan, scl_slope=np.nan) + body,
        "less.nii": nifti_head(dim=[3, -5, 18, 5, 1, 1, 1, 1]) + body,
        "extended.nii": nifti_head()[:348] + b"\1\0\0\0" + struct.pack("<ii", 2**31 - 1, 0) + body,
        "bomb.nii.gz": packed,
        "more.nii.gz": zlib.compress(nifti_head() + body + bytes(1 << 27), 9, wbits=31),
        "large.nrrd": (HEAD.replace("sizes: 22 18 5", wide) + "\n").encode() + body,
        "bomb.nrrd": (gzipped + "\n").encode() + packed,
        "bz.nrrd": (HEAD.replace("raw", "bzip2") + "\n").encode() + body,
        "skip.nrrd": (HEAD + "byte skip: 99999999999999\n\n").encode() + body,
        "last.nrrd": (HEAD + "byte skip: -1\n\n").encode() + body,
        "up.nhdr": f"{HEAD}data file: {up}\n".encode(),
        "full.nhdr": f"{HEAD}data file: {full}\n".encode(),
        "hidden.nhdr": f"{HEAD}data file: {full}\ndata file:=none.raw\n".encode(),
        "twice.nhdr": f"{HEAD}datafile: {full}\ndata file: up.nhdr\n".encode(),
        "late.nhdr": f"{HEAD}{'# x' * 400_000}\ndata file: {full}\n".encode(),
        "list.nhdr": f"{HEAD}data file: LIST\n{full}\n".encode(),
        "series.nhdr": f"{HEAD}data file: {full[:-5]}%d.raw 1 5 1 2\n".encode(),
        "large.mha": f"{_META}DimSize = 30000 30000 30000\nElementDataFile = LOCAL\n".encode(),
        "bomb.mha": f"{_META}CompressedData = True\n{_DIMS}ElementDataFile = LOCAL\n".encode()
        + packed,
        "up.mhd": f"{_META}{_DIMS}ElementDataFile = {up}\n".encode(),
        "full.mhd": f"{_META}{_DIMS}ElementDataFile = {full}\n".encode(),
        "small.mhd": f"{_META}{_DIMS}elementdatafile = x\nElementDataFile = {full}\n".encode(),
        "colon.mhd": f"{_META}{_DIMS}ElementDataFile: {full}=\nElementDataFile = LOCAL\n".encode(),
        "list.mhd": f"{_META}{_DIMS}ElementDataFile = LIST\n{full}\n".encode(),
        "series.mhd": f"{_META}{_DIMS}ElementDataFile = {full[:-5]}%d.raw 1 5 1\n".encode(),
    }
