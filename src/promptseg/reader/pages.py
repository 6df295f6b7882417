"""What a file of pictures is to the rest: a number of pages that are decoded one after another.

A picture is one page, a stack or a video has several.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """One decoded picture: grey or colours, of a mask with its alpha."""

    values: Shaped[np.ndarray, "h w *channels"]
    lossy: bool = False  # near to what was drawn, no more
    conversion: str | None = None  # how its colours became RGB, if not as they were


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Pages:
    """The pages of a file. `read(as_mask, every)` gives (index, page) of every n-th from 0 on.

    All of it has been checked against the limits; what is damaged raises DataError when it is
    reached.
    """

    count: int
    size: tuple[int, int]  # height, width
    read: Callable[[bool, int], Iterator[tuple[int, Page]]]
    is_video: bool = False
    cut_short: str | None = None  # why there are fewer pages than the file promises

    @property
    def is_stack(self) -> bool:
        """Whether it gives frames: a stack of one page is a picture, a video is none."""
        return self.count > 1 or self.is_video
