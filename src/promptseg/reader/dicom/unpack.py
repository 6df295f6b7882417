"""Compressed pictures of DICOM: each transfer syntax has one decoder.

So the same file gives the same pixels everywhere. The size that a picture itself declares is
compared with the header before anything is decoded.
"""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import Shaped

from promptseg.errors import DataError
from promptseg.reader.dicom.codestream import check_size
from promptseg.reader.dicom.model import Kind

_JPEG = "1.2.840.10008.1.2.4."
RLE, BASELINE = "1.2.840.10008.1.2.5", f"{_JPEG}50"
_BY_PYDICOM = {RLE: "pydicom", BASELINE: "pillow"}
_DECODERS = {
    f"{_JPEG}51": "jpeg8_decode",
    f"{_JPEG}57": "jpeg8_decode",
    f"{_JPEG}70": "jpeg8_decode",
    f"{_JPEG}80": "jpegls_decode",
    f"{_JPEG}81": "jpegls_decode",
    f"{_JPEG}90": "jpeg2k_decode",
    f"{_JPEG}91": "jpeg2k_decode",
    f"{_JPEG}201": "htj2k_decode",
    f"{_JPEG}202": "htj2k_decode",
    f"{_JPEG}203": "htj2k_decode",
}
_END = b"\xff\xd9"  # of a JPEG picture
_LOSSLESS_JPEG = (f"{_JPEG}57", f"{_JPEG}70")
KNOWN = frozenset((*_BY_PYDICOM, *_DECODERS))
Pixels = Shaped[np.ndarray, "h w *rgb"]
Unpack = Callable[[bytes], Pixels]


def unpacker(syntax: str, kind: Kind, options: dict[str, Any]) -> Unpack:
    """Give the decoder of single frames.

    Parameters
    ----------
    syntax
        One of `KNOWN`.
    options
        What pydicom's decoders need to know.

    Raises
    ------
    DataError
        The package that decodes it is not installed.
    """
    if syntax in _BY_PYDICOM:
        unpack = partial(_by_pydicom, syntax, options)
    else:
        if find_spec("imagecodecs") is None:
            raise DataError("its compressed pictures need the package imagecodecs")
        unpack = partial(_by_imagecodecs, syntax, kind)
    return partial(_checked, unpack, syntax, kind)


def _checked(unpack: Unpack, syntax: str, kind: Kind, packed: bytes) -> Pixels:
    check_size(packed, syntax, kind)
    return unpack(packed)


def _by_pydicom(syntax: str, options: dict[str, Any], packed: bytes) -> Pixels:
    from pydicom.encaps import encapsulate
    from pydicom.pixels.decoders.base import get_decoder

    decoder = get_decoder(syntax)
    whole = encapsulate([packed], has_bot=False)
    plugin = _BY_PYDICOM[syntax]
    return decoder.as_array(whole, index=0, raw=False, decoding_plugin=plugin, **options)[0]


def _by_imagecodecs(syntax: str, kind: Kind, packed: bytes) -> Pixels:
    import imagecodecs
    from pydicom.pixels.processing import convert_color_space

    decode = getattr(imagecodecs, _DECODERS[syntax])
    if _DECODERS[syntax] == "jpegls_decode":
        packed += _END  # CharLS 2.4 searches for half a minute where there is none
    is_left_as_it_is = syntax in _LOSSLESS_JPEG and kind.samples == 3
    space = {"colorspace": "RGB", "outcolorspace": "RGB"} if is_left_as_it_is else {}
    found = np.asarray(decode(packed, **space))
    kept = np.dtype(f"{'i' if kind.is_signed else 'u'}{max(1, kind.bits_allocated // 8)}")
    # what has a sign is told by the header, not by the picture
    is_as_long = found.dtype.itemsize == kept.itemsize
    found = found.view(kept) if is_as_long else found.astype(kept)
    if kind.photometric in ("YBR_FULL", "YBR_FULL_422") and syntax != f"{_JPEG}51":
        return convert_color_space(found, "YBR_FULL", "RGB")
    return found
