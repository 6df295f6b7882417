"""The course of a training: a row of figures for every step, 40 bytes each, however many."""

from array import array
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

COLUMNS = ("loss", "mask loss", "IoU loss", "DICE", "gradient norm")
MOST_ROWS = 10_000  # that are told of a training: a curve has fewer points


class Course:
    """What every step saw, in their order."""

    def __init__(self, rows: np.ndarray | None = None) -> None:
        """Begin with a row (5) for each step that is done; raises ValueError at another shape."""
        if rows is not None and rows.shape[1:] != (len(COLUMNS),):
            raise ValueError(
                f"rows of steps have {len(COLUMNS)} figures, not the shape {rows.shape}"
            )
        self._values = array("d", b"" if rows is None else rows.astype(np.float64).tobytes())

    def __len__(self) -> int:
        """Count the steps."""
        return len(self._values) // len(COLUMNS)

    def add(self, row: Sequence[float]) -> None:
        """Add the figures of one step, in the order of `COLUMNS`."""
        if len(row) != len(COLUMNS):
            raise ValueError(f"A step has {len(COLUMNS)} figures, not {len(row)}.")
        self._values.extend(row)

    def rows(self) -> Float64[np.ndarray, "n 5"]:
        """Give a row for every step."""
        return np.array(self._values, dtype=np.float64).reshape(-1, len(COLUMNS))

    def told(self, most: int = MOST_ROWS) -> tuple[list[list[float]], int]:
        """Give at most so many rows, each the mean of as many steps, and how many these are.

        The last row may be of fewer.
        """
        rows, each = self.rows(), max(1, -(-len(self) // most))
        if each == 1:
            return rows.tolist(), 1
        starts = np.arange(0, len(rows), each)
        sizes = np.diff(np.append(starts, len(rows)))[:, None]
        means: list[list[float]] = (np.add.reduceat(rows, starts, axis=0) / sizes).tolist()
        return means, each
