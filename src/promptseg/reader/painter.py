"""How the frames of a stack become what a corpus keeps: by one rule for all, or each by itself."""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Shaped

from promptseg.errors import DataError
from promptseg.reader.image import Picture, finite_range, shown
from promptseg.reader.intensity import (
    MIN_MAX,
    Intensity,
    Shades,
    count_values,
    percentile_of_counts,
    shaded,
    shades_of_slice,
)
from promptseg.reader.pages import Page, Pages


def painter(pages: Pages, rule: Intensity | None, every: int) -> Callable[[Page], Picture]:
    """Give what brings each frame of a stack to the form that a corpus keeps.

    Raises
    ------
    DataError
        Its values are not what the rule needs. The result raises it for a frame by itself.
    """
    shades = _shades(pages, rule, every)
    return lambda page: shaded(page, rule, shades or _own(page, rule))


def _own(page: Page, rule: Intensity | None) -> Shades | None:
    """Find the shades of one frame where the rule goes by slice; None: it does not."""
    if rule is None or rule.kind not in ("min-max", "percentile"):
        return None
    return shades_of_slice(shown(page.values), rule)


def _shades(pages: Pages, rule: Intensity | None, every: int) -> Shades | None:
    """Find the shades of all frames that are read; None where each has its own, or needs none."""
    asked = rule or MIN_MAX
    if asked.kind not in ("min-max", "percentile") or asked.per == "slice":
        return None
    frames = _decoded(pages, every)
    if asked.kind == "percentile":
        return Shades(f"{asked.name} volume", *_percentiles(frames, asked.numbers))
    ranges: list[tuple[float, float]] = []
    for values in frames:
        if rule is None and values.dtype == np.uint8:
            return None
        if np.isfinite(values).any():
            ranges.append(finite_range(values))
    if not ranges:
        raise DataError("it holds no finite value")
    ends = min(lo for lo, _ in ranges), max(hi for _, hi in ranges)
    return Shades(f"{asked.name} volume", *ends)


def _decoded(pages: Pages, every: int) -> Iterator[Shaped[np.ndarray, "h w *rgb"]]:
    """Give the frames as far as they can be decoded; raises DataError if the first cannot."""
    is_first = True
    try:
        for _, page in pages.read(False, every):
            yield shown(page.values)
            is_first = False
    except DataError:
        if is_first:
            raise


def _percentiles(
    frames: Iterator[Shaped[np.ndarray, "h w *rgb"]], shares: tuple[float, float]
) -> tuple[float, float]:
    """Find percentiles of the values of all frames, which are counted one after another."""
    dtypes, counts, lowest = set[np.dtype[np.generic]](), np.zeros(0, np.int64), 0
    for values in frames:
        dtypes.add(values.dtype)
        is_counted = np.issubdtype(values.dtype, np.integer) and values.dtype.itemsize <= 2
        if len(dtypes) > 1 or not is_counted:
            raise DataError(
                "percentiles over a stack need whole numbers of 8 or 16 bits. --per slice finds "
                "those of each frame"
            )
        counts = counts + count_values(values) if counts.size else count_values(values)
        lowest = int(np.iinfo(values.dtype).min)
    lo, hi = (percentile_of_counts(counts, lowest, share) for share in shares)
    return lo, hi
