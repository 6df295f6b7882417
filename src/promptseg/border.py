"""Borders of two masks: which pixels they are, and how far each is from the other mask's border.

Two masks are looked at side by side, on one canvas: every step is then one call for both. A canvas
is indexed (y, mask, x), and has a row of background above and below, and a column of it after
each mask. Flattened, a pixel's neighbours are at fixed offsets, and none is of the other mask.
"""

import numpy as np
from jaxtyping import Bool, Float64, Int, Int32, UInt
from scipy.spatial import cKDTree

from promptseg.mask import bounding_box_xyxy

Canvas = Bool[np.ndarray, "h 2 w"]

# What costs as much as a query of a tree, as measured: no result depends on it.
_PIXELS_PER_QUERY = 700
_LOOKS_PER_PIXEL = 5
_TABLE_PIXELS = 2**16  # of one table: it stays in the processor's cache
_NOWHERE = 2**30  # squared distance to a border that a column does not have


def side_by_side(
    pred: Bool[np.ndarray, "_ _"], reference: Bool[np.ndarray, "_ _"]
) -> Canvas | None:
    """Bring two masks onto one canvas, cropped to the box around both; None when one is empty."""
    boxes = bounding_box_xyxy(pred), bounding_box_xyxy(reference)
    if boxes[0] is None or boxes[1] is None:
        return None
    x0, y0 = map(min, boxes[0][:2], boxes[1][:2])
    x1, y1 = map(max, boxes[0][2:], boxes[1][2:])
    canvas = np.zeros((y1 - y0 + 2, 2, x1 - x0 + 1), dtype=np.bool_)
    for column, mask in enumerate((pred, reference)):
        canvas[1:-1, column, :-1] = mask[y0:y1, x0:x1]
    return canvas


def rims(canvas: Canvas) -> Canvas:
    """Leave the pixels of each mask that have a 4-neighbour outside it."""
    rim = canvas.copy()
    flat, row = canvas.reshape(-1), canvas[0].size
    core = flat[row:-row] & flat[2 * row :]
    core &= flat[: -2 * row]
    core &= flat[row - 1 : -row - 1]
    core &= flat[row + 1 : flat.size - row + 1]
    rim.reshape(-1)[row:-row] ^= core
    return rim


def bands(canvas: Canvas, steps: int) -> Canvas:
    """Leave the pixels of each mask from which a king reaches its outside in that many steps."""
    height, _, width = canvas.shape
    side = 2 * steps + 1
    if min(height - 2, width - 1) < side:
        return canvas  # no square of that side fits
    flat, row = canvas.reshape(-1), canvas[0].size
    band, core = flat.copy(), flat
    for stride in (1, row):
        length = 1  # of the runs whose pixels are all of the mask
        while length < side:
            more = min(length, side - length)
            core = core[more * stride :] & core[: -more * stride]
            length += more
    start = steps * (row + 1)
    band[start : start + core.size] ^= core
    return band.reshape(canvas.shape)


def between(
    rim: Canvas, spacing_yx: tuple[float, float]
) -> tuple[Float64[np.ndarray, "p"], Float64[np.ndarray, "r"]]:
    """Measure from each border pixel to the nearest of the other mask's border, both ways.

    Distances are in the unit of the spacing, in row-major order of the pixels. They are those
    between the places `index * spacing`, counted from the corner of the box around both masks, to
    the last bit: that large masks are measured another way than small ones changes nothing.
    """
    height, _, width = rim.shape
    count = int(np.count_nonzero(rim))
    looks = 1 if spacing_yx == (1.0, 1.0) else 2
    pixels = _LOOKS_PER_PIXEL * rim.size + looks * width * count
    if pixels < _PIXELS_PER_QUERY * count and height**2 + width**2 < _NOWHERE:
        return _by_rows(rim, spacing_yx)
    yx = [np.argwhere(rim[1:, mask]) * np.array(spacing_yx) for mask in (0, 1)]
    return _by_tree(yx[0], yx[1]), _by_tree(yx[1], yx[0])


def _by_tree(
    points_yx: Float64[np.ndarray, "p 2"], others_yx: Float64[np.ndarray, "q 2"]
) -> Float64[np.ndarray, "p"]:
    """O(n log n) in the number of pixels, whatever the area between them."""
    tree = cKDTree(others_yx, balanced_tree=False, compact_nodes=False)  # built in half the time
    return np.asarray(tree.query(points_yx)[0], dtype=np.float64)


def _by_rows(
    rim: Canvas, spacing_yx: tuple[float, float]
) -> tuple[Float64[np.ndarray, "p"], Float64[np.ndarray, "r"]]:
    """Distance transform of each border, in the rows and at the pixels of the other one only.

    Down the columns first, then along the rows by squares, as in Saito and Toriwaki 1994
    (https://doi.org/10.1016/0031-3203(94)90133-3). Squares are integers: exact between pixels of
    1 x 1, else rounded, and then they tell the few pixels among which the nearest is.
    """
    height, _, width = rim.shape
    steps = _steps(rim)
    down, across = _squares(height, width, spacing_yx)
    by_column = down.take(steps).reshape(-1, width)
    flat = np.flatnonzero(rim)
    row = flat // width  # of one mask: even rows are of the prediction
    x = flat - row * width
    squared = np.empty(flat.size)
    many = max(1, _TABLE_PIXELS // width)
    for part in (slice(start, start + many) for start in range(0, flat.size, many)):
        table = by_column.take(row[part] ^ 1, axis=0)
        table += across.take(x[part], axis=0)
        least = table.min(axis=1)
        if spacing_yx != (1.0, 1.0):
            # a rounded sum is off by 1 at most, so the nearest pixel is within 2 of the least
            nearest = table <= least[:, None] + 3
            squared[part] = _exactly(rim, steps, spacing_yx, row[part], x[part], nearest)
        else:
            squared[part] = least
    distances, of_pred = np.sqrt(squared, out=squared), row & 1 == 0
    return distances[of_pred], distances[~of_pred]


def _steps(rim: Canvas) -> UInt[np.ndarray, "h 2 w"]:
    """Count the pixels up or down to the next one of the border; the height where none is."""
    height, row = rim.shape[0], rim[0].size
    kind = np.uint8 if height < 128 else np.uint16 if height < 2**15 else np.uint32
    flat = np.multiply(~rim.reshape(-1), kind(height))
    reach = 1  # twice as far every time, from what was found so far
    while reach < height:
        up, here = flat[: -reach * row], flat[reach * row :]
        np.minimum(here, up + kind(reach), out=here)
        np.minimum(up, here + kind(reach), out=up)
        reach *= 2
    steps: UInt[np.ndarray, "h 2 w"] = flat.reshape(rim.shape)
    return steps


def _squares(
    height: int, width: int, spacing_yx: tuple[float, float]
) -> tuple[Int32[np.ndarray, "k"], Int32[np.ndarray, "w w"]]:
    """Squared distances as integers: of so many steps up or down, and from column to column."""
    y = (np.arange(height + 1) * spacing_yx[0]) ** 2
    x = (np.arange(1 - width, width) * spacing_yx[1]) ** 2
    if spacing_yx != (1.0, 1.0):
        unit = (y[-1] + x[0]) / (_NOWHERE // 2)
        y, x = np.rint(y / unit), np.rint(x / unit)
    y[height] = _NOWHERE
    keys = x.astype(np.int32)
    size = keys.itemsize
    across = np.ndarray((width, width), np.int32, keys, (width - 1) * size, (-size, size))
    return y.astype(np.int32), across.copy()


def _exactly(
    rim: Canvas,
    steps: UInt[np.ndarray, "h 2 w"],
    spacing_yx: tuple[float, float],
    row: Int[np.ndarray, "n"],
    x: Int[np.ndarray, "n"],
    nearest: Bool[np.ndarray, "n w"],
) -> Float64[np.ndarray, "n"]:
    """Squared distance of each pixel to the nearest of those in the columns that are marked."""
    height, _, width = rim.shape
    places_y = np.repeat(np.arange(-1, height - 1) * spacing_yx[0], 2)
    places_x = np.arange(width) * spacing_yx[1]
    pixel, column = np.divmod(np.flatnonzero(nearest), width)
    row = row[pixel]
    there = row ^ 1
    x_part = places_x[x[pixel]] - places_x[column]
    x_part *= x_part
    reach = steps.take(there * width + column).astype(np.intp) * 2
    squared = np.full(pixel.size, np.inf)
    for other in (there - reach, there + reach):
        # clipped, a place is one of the canvas's corners, which are of no border
        is_border = rim.take(other * width + column, mode="clip")
        part = places_y[row] - places_y.take(other, mode="clip")
        part *= part
        part += x_part
        np.minimum(squared, part, out=squared, where=is_border)
    least = np.full(nearest.shape[0], np.inf)
    np.minimum.at(least, pixel, squared)
    return least
