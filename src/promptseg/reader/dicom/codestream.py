"""What compressed pictures say of their size, read before a decoder allocates for it."""

from promptseg.errors import DataError
from promptseg.reader.dicom.model import Kind

_JPEG_2000 = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (90, 91, 201, 202, 203))
_RLE = "1.2.840.10008.1.2.5"
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length
_NO_FRAME = frozenset({0xC4, 0xC8, 0xCC})


def check_size(packed: bytes, syntax: str, kind: Kind) -> None:
    """Refuse a picture whose own size is not that of the header; raises DataError."""
    if syntax == _RLE:
        if len(packed) < 64:
            raise DataError("its compressed picture is cut off")
        return  # decoded bytes are compared with what the header promises
    found = _size_in_2000(packed) if syntax in _JPEG_2000 else _size_in_jpeg(packed)
    if found is None:
        raise DataError("its compressed picture does not say how large it is")
    expected = (kind.rows, kind.columns, kind.samples)
    if found != expected:
        raise DataError("its compressed picture has another size than its header says")


def _size_in_jpeg(packed: bytes) -> tuple[int, int, int] | None:
    """Read rows, columns and components from the frame header of JPEG or JPEG-LS.

    Source: ITU-T T.81, B.2.2; T.87, C.2.2.
    """
    at = 2
    while at + 10 <= len(packed) and packed[at] == 0xFF:
        marker = packed[at + 1]
        if marker == 0xFF:  # fill
            at += 1
        elif marker in _ALONE:
            at += 2
        elif (0xC0 <= marker <= 0xCF and marker not in _NO_FRAME) or marker == 0xF7:
            return _number(packed, at + 5, 2), _number(packed, at + 7, 2), packed[at + 9]
        else:
            at += 2 + max(2, _number(packed, at + 2, 2))
    return None


def _size_in_2000(packed: bytes) -> tuple[int, int, int] | None:
    """Read rows, columns and components from the SIZ marker of JPEG 2000.

    Source: ITU-T T.800, A.5.1.
    """
    at = packed.find(b"\xff\x4f\xff\x51", 0, 4096)
    if at < 0 or at + 42 > len(packed):
        return None
    x1, y1, x0, y0 = (_number(packed, at + 8 + 4 * i, 4) for i in range(4))
    return y1 - y0, x1 - x0, _number(packed, at + 40, 2)


def _number(packed: bytes, at: int, count: int) -> int:
    return int.from_bytes(packed[at : at + count], "big")
