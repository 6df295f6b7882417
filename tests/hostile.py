"""Files that lie: each is small and asks for petabytes, an hour, or the run of its own code."""

import io
import json
import os
import pickle
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from promptseg.errors import DataError
from promptseg.memory import peak_bytes
from promptseg.reader.stack import open_pages


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """Make a chunk of a PNG."""
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png(width: int, height: int, *, bits: int = 8, frames: int | None = None) -> bytes:
    """Make a PNG of zeros, of any declared size; its pixels end after 100 MB at most."""
    row = 1 + (width * bits + 7) // 8
    body = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
    if frames is not None:
        body += png_chunk(b"acTL", struct.pack(">II", frames, 0))
        body += png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, width, height, 0, 0, 1, 10, 0, 0))
    body += png_chunk(b"IDAT", zlib.compress(bytes(min(row * height, 10**8))))
    return b"\x89PNG\r\n\x1a\n" + body + png_chunk(b"IEND", b"")


def tiff(tags: dict[int, tuple[int, int, int]], data: bytes = b"", following: int = 0) -> bytes:
    """Make a TIFF of one directory at 8; tags are (type, count, value); data comes after it."""
    entries = b"".join(struct.pack("<HHII", tag, *fact) for tag, fact in sorted(tags.items()))
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags))
    return head + entries + struct.pack("<I", following) + data


def tiff_tags(
    width: int, height: int, **more: tuple[int, int, int]
) -> dict[int, tuple[int, int, int]]:
    """Give the tags of an uncompressed grey TIFF; `t258=(3, 1, 16)` sets another."""
    tags = {
        256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1),
        273: (4, 1, 300), 277: (3, 1, 1), 278: (4, 1, height), 279: (4, 1, 100),
    }  # fmt: skip
    return tags | {int(name[1:]): fact for name, fact in more.items()}


def tiff_chain(count: int, *, circle: bool = False, side: int = 4) -> bytes:
    """Make a TIFF of many directories that share one strip."""
    tags = tiff_tags(side, side, t273=(4, 1, 8))
    size = 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, *fact) for tag, fact in sorted(tags.items()))
    start, parts = 8 + 256, [b"II*\0", struct.pack("<I", 8 + 256), bytes(256)]
    for i in range(count):
        after = start + (i + 1) * size if i + 1 < count else (start if circle else 0)
        parts.append(struct.pack("<H", len(tags)) + entries + struct.pack("<I", after))
    return b"".join(parts)


def tiff_bomb() -> bytes:
    """Make a TIFF of 8 x 8 doubles whose strip unpacks to 2.7 GB."""
    packer = zlib.compressobj(9)
    block = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    strip = block + block[2:] * 160  # blocks after a full flush stand alone
    tags = tiff_tags(8, 8, t258=(3, 1, 64), t259=(3, 1, 8), t339=(3, 1, 3), t279=(4, 1, len(strip)))
    return tiff(tags, bytes(300 - 8 - 2 - 12 * len(tags) - 4) + strip)


def gif(count: int, width: int = 4, height: int = 4) -> bytes:
    """Make a GIF of many frames of one pixel."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    frame = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return head + frame * count + b";"


def npy(descr: str, shape: str, content: bytes = b"") -> bytes:
    """Make a .npy with any head."""
    head = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + content


class _Evil:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, ("evil",)


def npz(members: dict[str, bytes]) -> bytes:
    """Make a .npz of any members."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return sink.getvalue()


def npz_liar(n_bytes: int) -> bytes:
    """Make a .npz whose directory says that its 16 MB unpack to another number of bytes."""
    content = bytearray(npz({"a.npy": npy("'|u1'", "(4, 4)", bytes(1 << 24))}))
    at = content.rfind(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", n_bytes)
    return bytes(content)


def chunk(kind: bytes, body: bytes) -> bytes:
    """Make a chunk of an AVI."""
    return kind + struct.pack("<I", len(body)) + body


def avi(width: int, height: int, frames: int = 10) -> bytes:
    """Make an AVI of raw pixels with any declared size and almost no content."""
    main = struct.pack("<14I", 100000, 0, 0, 0x10, frames, 0, 1, 0, width, height, 0, 0, 0, 0)
    stream = b"vidsDIB " + struct.pack("<10I", 0, 0, 0, 1, 10, 0, frames, 0, 0, 0) + bytes(8)
    form = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)

    strl = chunk(b"LIST", b"strl" + chunk(b"strh", stream) + chunk(b"strf", form))
    hdrl = chunk(b"LIST", b"hdrl" + chunk(b"avih", main) + strl)
    movi = chunk(b"LIST", b"movi" + chunk(b"00db", bytes(100)))
    return chunk(b"RIFF", b"AVI " + hdrl + movi)


def bmp(width: int, height: int) -> bytes:
    """Make a BMP of any declared size without pixels."""
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<III", 70, 0, 54) + info


def jpeg(width: int, height: int) -> bytes:
    """Make the head of a JPEG of any declared size."""
    size = struct.pack(">HH", height, width)
    return b"\xff\xd8\xff\xc0\0\x11\x08" + size + b"\x03\x01\x11\0\x02\x11\0\x03\x11\0\xff\xd9"


def grey_tiff(width: int, height: int, **more: tuple[int, int, int]) -> bytes:
    """Make a TIFF of one page with almost no pixels."""
    return tiff(tiff_tags(width, height, **more))


_LARGE, _BAD = "are more than", "it cannot be read"
_TILES = {"t322": (4, 1, 2**20), "t323": (4, 1, 2**20), "t324": (4, 1, 8), "t325": (4, 1, 9)}
_DOUBLES = {"t258": (3, 1, 64), "t339": (3, 1, 3), "t277": (3, 1, 3), "t262": (3, 1, 2)}
_MANY = "it has more than 100000 frames"
# name -> how it is made, and a part of the reason for which it is refused
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "huge.png": (lambda: png(2**31 - 1, 2**31 - 1), _LARGE),
    "slide.png": (lambda: png(20_000, 20_000, bits=1), "Cut it and its masks into tiles"),
    "above.png": (lambda: png(8193, 8192, bits=1), "its 8193 x 8192 pixels are more than"),
    "frames.png": (lambda: png(8, 8, frames=2**31 - 1), _MANY),
    "some_frames.png": (lambda: png(8, 8, frames=50), _BAD),
    "huge.bmp": (lambda: bmp(2**30, 2**30), _LARGE),
    "huge.jpg": (lambda: jpeg(65_500, 65_500), _LARGE),
    "huge.gif": (lambda: gif(1, 65_535, 65_535), _LARGE),
    "million.gif": (lambda: gif(10**6), _MANY),
    "huge.tif": (lambda: grey_tiff(2**31 - 1, 2**31 - 1), _LARGE),
    "deep.tif": (lambda: grey_tiff(8192, 8192, **_DOUBLES), _LARGE),
    "empty.tif": (lambda: grey_tiff(0, 8), "is empty"),
    "channels.tif": (lambda: grey_tiff(8, 8, t277=(3, 1, 60_000)), "neither grey nor RGB"),
    "count.tif": (lambda: grey_tiff(8, 8, t258=(3, 2**32 - 1, 400)), _BAD),
    "text.tif": (lambda: grey_tiff(8, 8, t270=(2, 2**32 - 1, 8)), _BAD),
    "tile.tif": (lambda: grey_tiff(8, 8, **_TILES), _BAD),
    "deep_tile.tif": (lambda: grey_tiff(8, 8, **_TILES, **_DOUBLES), "its tiles are larger"),
    "nowhere.tif": (lambda: grey_tiff(8, 8, t273=(4, 1, 2**32 - 1)), _BAD),
    "entries.tif": (lambda: b"II*\0\x08\0\0\0\xff\xff" + bytes(100), _BAD),
    "big.tif": (lambda: b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**60) + bytes(99), _BAD),
    "million.tif": (lambda: tiff_chain(10**5 + 1), _MANY),
    "shared.tif": (lambda: tiff_chain(5000, side=8000), _LARGE),
    "bomb.tif": (tiff_bomb, "unpack to more than it declares"),
    "pickle.npy": (lambda: npy("'|O'", "(8, 8)", pickle.dumps(_Evil())), "not unpickled"),
    "subarray.npy": (lambda: npy("('<f8', (1000, 1000))", "(8, 8)"), "are not read"),
    "huge.npy": (lambda: npy("'<f8'", f"({2**31}, {2**31})"), _BAD),
    "overflow.npy": (lambda: npy("'<f8'", f"({2**62}, {2**62}, 16)"), _BAD),
    "negative.npy": (lambda: npy("'<f8'", "(-8, -8)"), _BAD),
    "code.npy": (lambda: npy("'<f8'", "__import__('os').mkdir('evil')"), _BAD),
    "text.npy": (lambda: npy("'<U5'", "(2, 2)", bytes(80)), "it holds text"),
    "zero.npy": (lambda: npy("'|S0'", f"({2**40}, {2**40})"), "it holds text"),
    "nested.npy": (lambda: npy("'<f8'", "(" * 5000), _BAD),
    "long.npy": (lambda: npy("'<f8'", "(" + "1, " * 20_000 + ")"), _BAD),
    "bomb.npz": (lambda: npz_liar(2**30 + 1), "when unpacked"),
    "liar.npz": (lambda: npz_liar(90), _BAD),
    "pickle.npz": (
        lambda: npz({"a.npy": npy("'|O'", "(8, 8)", pickle.dumps(_Evil()))}),
        "not unpickled",
    ),
    "members.npz": (lambda: npz({f"{i}.npy": b"" for i in range(2000)}), "its members are more"),
    "many.npz": (lambda: npz({f"{i}.npy": b"" for i in range(30_000)}), "too many members"),
    "other.npz": (lambda: npz({"../../evil.txt": b"x"}), "something else than .npy"),
    "head.npz": (lambda: npz({"a.npy": npy("'<f8'", f"({2**40},)")}), _BAD),
    "cut.npz": (lambda: npz({"a.npy": b""})[:-1], _BAD),
    "huge.avi": (lambda: avi(2**31 - 1, 2**31 - 1), "is empty"),
    "limit.avi": (lambda: avi(16_000, 16_000), "16000 x 16000 pixels are more than"),
    "none.mp4": (lambda: b"\0\0\0\x18ftypmp42" + bytes(50), _BAD),
    "none.mkv": (lambda: b"\x1aE\xdf\xa3" + bytes(60), _BAD),
    "none.avi": (lambda: b"", _BAD),
    "page.png": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", _BAD),
}


if __name__ == "__main__":  # reads all files in a folder, and writes what became of them as JSON
    folder = Path(sys.argv[1])
    reasons: dict[str, list[str | None]] = {}
    for path in sorted(folder.iterdir()):
        reasons[path.name] = []
        for as_mask in (False, True):
            try:
                for _ in open_pages(path).read(as_mask, 1):
                    pass
                reasons[path.name].append(None)
            except DataError as error:
                reasons[path.name].append(str(error))
    print(json.dumps({"reasons": reasons, "peak_bytes": peak_bytes()}))
