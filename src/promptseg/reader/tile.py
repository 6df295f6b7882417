"""Tiles of large images: an even grid without overlap, and the labels cut with it."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from promptseg.reader.frame import Frame, Tile


def tiles(frame: Frame, most_px: int | None) -> Iterator[Frame]:
    """Cut a frame into tiles of at most `most_px` a side; one that is no larger stays whole.

    The sides of the tiles differ by one pixel at most, so that none is a sliver.
    """
    height, width = frame.picture.pixels.shape[:2]
    if most_px is None or max(height, width) <= most_px:
        yield frame
        return
    for y, y_end in _parts(height, most_px):
        for x, x_end in _parts(width, most_px):
            box = (slice(y, y_end), slice(x, x_end))
            yield replace(
                frame,
                image_id=f"{frame.image_id}/tile_{y}_{x}",
                picture=replace(frame.picture, pixels=frame.picture.pixels[box].copy()),
                labels=tuple(replace(item, values=item.values[box]) for item in frame.labels),
                tile=Tile(frame.image_id, y, x),
            )


def _parts(length: int, most: int) -> Iterator[tuple[int, int]]:
    count = -(-length // most)
    edges = [length * number // count for number in range(count + 1)]
    return pairwise(edges)
