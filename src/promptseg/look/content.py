"""What masks are, by what they hold: binary, soft, labels, instances, outlines, cropped, stacks."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Shaped

from promptseg.errors import DataError
from promptseg.look.watch import Watch
from promptseg.reader.channels import count_channels
from promptseg.reader.drawn import filled
from promptseg.reader.folder import ARRAYS, is_volume
from promptseg.reader.frame_labels import read_raw
from promptseg.reader.image import RawMask
from promptseg.reader.labels import MAX_UNNAMED
from promptseg.reader.stack import open_pages

What = Literal[
    "binary", "outline", "soft", "instances", "labels", "channels", "cropped", "empty", "unread"
]
WORDS: dict[What, str] = {
    "binary": "binary masks: one value besides 0",
    "outline": "drawn outlines: thin closed lines, which are filled",
    "soft": "soft masks: shades, of which a threshold makes masks",
    "instances": "instance maps: values number the objects of an image",
    "labels": "label maps: each value stands for an object",
    "channels": "stacks of masks: a channel for each object",
    "cropped": "cropped masks: smaller than their image, so that a table has to say where they lie",
    "empty": "empty masks: nothing but 0 in those looked at",
    "unread": "files that cannot be read",
}
_MOST_FILES = 8
_MOST_ROWS = 16
_NEAR_INTEGER = 1e-3


@dataclass(frozen=True, slots=True)
class Value:
    """A value that masks hold: its share of all pixels looked at, and in how many files it is."""

    value: float
    share: float
    n_files: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What some masks of one shape hold."""

    what: What
    n_looked_at: int
    values: tuple[Value, ...] = ()  # besides 0, the most frequent ones
    n_values: int = 0
    threshold: float | None = None
    n_channels: int = 0
    reasons: tuple[str, ...] = ()  # why files could not be read


@dataclass(slots=True)
class _Seen:
    """What was counted in the files that were looked at."""

    files: list[Shaped[np.ndarray, "*space"]] = field(default_factory=list)
    counts: Counter[float] = field(default_factory=Counter)
    in_files: Counter[float] = field(default_factory=Counter)
    n_pixels: int = 0
    lossy: bool = False
    is_flat: bool = True  # pictures, no volumes
    n_cropped: int = 0
    reasons: list[str] = field(default_factory=list)


def look_into(
    folder: Path, masks: Sequence[str], image_of: Callable[[str], str], watch: Watch
) -> Content:
    """Look into some of the masks of one shape; `image_of` gives the image of a mask."""
    chosen = [masks[i] for i in np.unique(np.linspace(0, len(masks) - 1, _MOST_FILES).astype(int))]
    is_stack = all(source.lower().endswith(ARRAYS) for source in chosen)
    if is_stack and (n_channels := _channels(folder, chosen[0], watch)):
        return Content(what="channels", n_looked_at=1, n_channels=n_channels)
    seen = _Seen()
    for source in chosen:
        try:
            with watch.reading("guess", source):
                raw = read_raw(folder / source)
                _count(raw, seen)
        except DataError as error:
            seen.reasons.append(str(error))
            continue
        seen.is_flat &= not is_volume(source)
        seen.n_cropped += _is_smaller(raw, folder, image_of(source), watch)
    what, threshold = _judged(seen)
    n_pixels = seen.n_pixels or 1
    return Content(
        what=what,
        n_looked_at=len(chosen),
        values=tuple(
            Value(value, count / n_pixels, seen.in_files[value])
            for value, count in sorted(seen.counts.most_common(_MOST_ROWS))
        ),
        n_values=len(seen.counts),
        threshold=threshold,
        reasons=tuple(seen.reasons),
    )


def _count(raw: RawMask, seen: _Seen) -> None:
    values = raw.values
    if not np.issubdtype(values.dtype, np.integer):
        rounded = np.rint(values)
        is_whole = np.abs(values - rounded) <= _NEAR_INTEGER
        values = np.where(is_whole, rounded, values)
    found, counts = np.unique(values, return_counts=True)
    for value, count in zip(found.tolist(), counts.tolist(), strict=True):
        if value:
            seen.counts[float(value)] += count
            seen.in_files[float(value)] += 1
    seen.files.append(values)
    seen.n_pixels += values.size
    seen.lossy |= raw.lossy


def _channels(folder: Path, source: str, watch: Watch) -> int:
    try:
        with watch.reading("guess", source):
            return count_channels(folder / source)
    except DataError:  # reported when it is read
        return 0


def _is_smaller(raw: RawMask, folder: Path, image: str, watch: Watch) -> bool:
    """Tell a mask that would fit into its image, and is of another size."""
    if raw.values.ndim != 2 or is_volume(image):
        return False
    try:
        with watch.reading("guess", image):
            pages = open_pages(folder / image)
    except DataError:
        return False
    own, size = raw.values.shape, pages.size
    return not pages.is_stack and own != size and own[0] <= size[0] and own[1] <= size[1]


def _judged(seen: _Seen) -> tuple[What, float | None]:
    """Decide what masks are, and which threshold soft ones need."""
    if not seen.files:
        return "unread", None
    if not seen.counts:
        return "empty", None
    top = max(seen.counts)
    middle = 0.5 if top <= 1 else float(int(top / 2))
    if 2 * seen.n_cropped > len(seen.files):
        return "cropped", middle if _is_soft(seen, top) else None
    values = set(seen.counts)
    if seen.lossy:
        return "soft", 127.0
    if len(values) == 1 or values == {1.0, 255.0}:
        return ("outline" if seen.is_flat and _are_outlines(seen) else "binary"), None
    if _are_instances(seen):
        return "instances", None
    return ("soft", middle) if _is_soft(seen, top) else ("labels", None)


def _is_soft(seen: _Seen, top: float) -> bool:
    """Tell shades: fractions, many values, or one value and others on its edge only."""
    is_whole = all(value.is_integer() and value > 0 for value in seen.counts)
    if not is_whole or len(seen.counts) > MAX_UNNAMED:
        return True
    if len(seen.counts) == 1 or seen.counts[top] < 0.8 * seen.counts.total():
        return False
    return all(_is_thin((values > 0) & (values < top)) for values in seen.files)


def _is_thin(drawn: Shaped[np.ndarray, "*space"]) -> bool:
    from scipy import ndimage

    return not ndimage.binary_erosion(drawn, np.ones((3,) * drawn.ndim, dtype=bool)).any()


def _are_outlines(seen: _Seen) -> bool:
    """Tell thin closed lines, which enclose several times what they cover."""
    drawn = [values for values in seen.files if values.any()]
    for values in drawn:
        line = (values > 0).astype(np.uint8)
        try:
            region = sum(np.count_nonzero(layer) for layer in filled(line))
        except DataError:
            return False
        if region < 4 * np.count_nonzero(line):
            return False
    return bool(drawn)


def _are_instances(seen: _Seen) -> bool:
    """Tell numbers 1 to n, of which every one is a single piece, and n differs or is large."""
    from scipy import ndimage

    numbers = []
    pieces = Counter[bool]()
    for values in seen.files:
        present = [value for value in np.unique(values).tolist() if value]
        if present != list(range(1, len(present) + 1)):
            return False
        numbers.append(len(present))
        for value in present[:40]:
            pieces[int(ndimage.label(values == value)[1]) == 1] += 1
    is_counting = max(numbers) > 3 and (len(set(numbers)) > 1 or max(numbers) > MAX_UNNAMED // 2)
    return is_counting and pieces[True] >= 0.8 * pieces.total()
