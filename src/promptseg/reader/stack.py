"""Which reader opens a file of pictures: by its suffix an array or a video, else a picture."""

from pathlib import Path

from promptseg.reader.array import open_array
from promptseg.reader.folder import ARRAYS, VIDEOS
from promptseg.reader.pages import Pages
from promptseg.reader.raster import open_raster
from promptseg.reader.video import open_video


def open_pages(path: Path) -> Pages:
    """Open a picture, a stack or a video.

    Raises
    ------
    DataError
        It is damaged, larger than `promptseg.reader.limits` allows, or of an unknown kind.
    """
    name = path.name.lower()
    if name.endswith(ARRAYS):
        return open_array(path)
    return open_video(path) if name.endswith(VIDEOS) else open_raster(path)
