"""How much one file may ask for, checked on what it declares before anything is allocated.

A few bytes can promise petabytes (decompression bombs), so that every reader asks here first.
"""

import re
from pathlib import Path

from promptseg.errors import DataError

MOST_PIXELS = 2**26  # of one picture: 8192 x 8192
MOST_BYTES = 2**30  # of one decoded picture, or of one array that is not read frame by frame
MOST_FRAMES = 100_000
MOST_STACK_PIXELS = 2**34  # of all frames together: 512 x 512 x 65536


def check_picture(height: int, width: int, bytes_per_pixel: float = 1.0) -> None:
    """Refuse a picture that is empty or larger than is read at once; raises DataError."""
    if height < 1 or width < 1:
        raise DataError(f"its size {width} x {height} is empty")
    if height * width > MOST_PIXELS or height * width * bytes_per_pixel > MOST_BYTES:
        raise too_large(f"its {width} x {height} pixels")


def check_stack(count: int, height: int, width: int) -> None:
    """Refuse a stack of too many frames or pixels; raises DataError."""
    if count > MOST_FRAMES:
        raise too_many_frames()
    if count * height * width > MOST_STACK_PIXELS:
        raise DataError(
            f"its {count} frames of {width} x {height} are more than {MOST_STACK_PIXELS} pixels. "
            "Cut it into several files"
        )


def too_large(what: str) -> DataError:
    """Say that a picture is too large."""
    return DataError(
        f"{what} are more than is read at once ({MOST_PIXELS} pixels, {MOST_BYTES // 2**20} MiB). "
        "Cut it and its masks into tiles, or scale them down"
    )


def too_many_frames() -> DataError:
    """Say that a stack has too many frames."""
    return DataError(f"it has more than {MOST_FRAMES} frames. Cut it into several files")


def unreadable(path: Path, error: Exception) -> DataError:
    """Say why a file could not be read, without its name, which may tell a person's.

    Too little memory is not the file's fault alone: that is raised again, for whoever set the
    limit.
    """
    if isinstance(error, MemoryError):
        raise error
    if isinstance(error, FileNotFoundError) and not path.exists():
        return DataError("there is no such file")
    message = str(error)
    for name in (str(path), path.name):
        message = message.replace(repr(name), "").replace(name, "")
    # a file beside it, which has its name or lies in its folder
    beside = f"(?:{re.escape(str(path.parent))}/|{re.escape(path.stem)}[.])"
    message = re.sub(rf"""['"]?{beside}[^'"]*['"]?""", "", message)
    told = " ".join(message.split()).rstrip(" :,")
    return DataError(f"it cannot be read: {told or type(error).__name__}")
