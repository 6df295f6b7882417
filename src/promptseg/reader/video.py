"""Videos as pages: AVI, MP4, MOV and Matroska through OpenCV, one frame in memory at a time.

Frames are as the decoder gives them, in RGB: a rotation in the header is not applied, like the
orientation of pictures. They are counted by decoding all of them once, because headers lie, and
damaged videos end early. What a codec conceals inside of a frame goes unnoticed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from promptseg.errors import DataError
from promptseg.reader.limits import MOST_FRAMES, check_picture, too_many_frames
from promptseg.reader.opencv import quiet
from promptseg.reader.pages import Page, Pages

if TYPE_CHECKING:
    import cv2

# AVI, Matroska, and what QuickTime and MP4 begin with
_MARKS = (
    *((8, b"AVI "), (0, b"\x1aE\xdf\xa3")),
    *((4, kind) for kind in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")),
)
_ESTIMATED = (".mkv",)  # Matroska stores no number of frames: it is the duration times the rate


def open_video(path: Path) -> Pages:
    """Open a video and count its frames; raises DataError if none can be decoded."""
    with _captured(path) as capture:
        size = _size(capture)
        promised = int(_property(capture, "FRAME_COUNT"))
        count = 0
        while capture.grab():
            count += 1
            if count > MOST_FRAMES:
                raise too_many_frames()
    if not count:
        raise DataError("it cannot be read: no frame of it can be decoded")
    missing = promised - count - (1 if path.suffix.lower() in _ESTIMATED else 0)
    cut_short = (
        f"from frame {count} on it cannot be decoded; its header promises {promised} frames"
        if missing > 0
        else None
    )

    def read(as_mask: bool, every: int) -> Iterator[tuple[int, Page]]:
        return _frames(path, count, size, every)

    return Pages(count=count, size=size, read=read, is_video=True, cut_short=cut_short)


def _frames(
    path: Path, count: int, size: tuple[int, int], every: int
) -> Iterator[tuple[int, Page]]:
    with _captured(path) as capture:
        for index in range(count):
            if not capture.grab():
                raise DataError(f"from frame {index} on it cannot be decoded")
            if index % every:
                continue
            is_there, bgr = capture.retrieve()
            if not is_there or bgr.shape[:2] != size:
                raise DataError(f"from frame {index} on it has another size, or cannot be decoded")
            yield index, Page(np.ascontiguousarray(bgr[:, :, ::-1]), lossy=True)


@contextmanager
def _captured(path: Path) -> Iterator["cv2.VideoCapture"]:
    import cv2

    try:
        capture = _opened(path)
        try:
            capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
            yield capture
        finally:
            capture.release()
    except cv2.error as error:
        raise DataError("it cannot be read: its decoder failed") from error


def _opened(path: Path) -> "cv2.VideoCapture":
    import cv2

    if not path.is_file():
        raise DataError("there is no such file")
    with path.open("rb") as file:
        start = file.read(12)
    if not any(start[at : at + len(mark)] == mark for at, mark in _MARKS):
        # FFmpeg goes by content: lists of files and descriptions of streams would be followed
        raise DataError("it cannot be read: it does not begin as a video does")
    with quiet():
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise DataError("it cannot be read as a video: damaged, or of an unknown codec")
    return capture


def _size(capture: "cv2.VideoCapture") -> tuple[int, int]:
    height, width = int(_property(capture, "FRAME_HEIGHT")), int(_property(capture, "FRAME_WIDTH"))
    check_picture(height, width, 3)
    return height, width


def _property(capture: "cv2.VideoCapture", name: str) -> float:
    import cv2

    return float(capture.get(getattr(cv2, f"CAP_PROP_{name}")))
