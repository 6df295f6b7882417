"""The part of a volume that is not background: labels of a hundred organs fit into memory so."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer

from promptseg.reader import volume as volumes


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Labels cropped to the box around what is not 0."""

    values: Integer[np.ndarray, "*part"]
    corner: tuple[int, ...]  # where the box begins
    shape: tuple[int, ...]  # of the whole

    def whole(self) -> Integer[np.ndarray, "*space"]:
        """Give all labels."""
        return _placed(self.values, self.corner, self.shape)

    def slice(self, plane: volumes.Plane, index: int) -> Integer[np.ndarray, "y x"]:
        """Cut one slice, as `volume.cut`."""
        axis = volumes.slice_axis(plane)
        at = index - self.corner[axis]
        is_inside = 0 <= at < self.values.shape[axis]
        section = np.moveaxis(self.values, axis, 0)[at : at + 1 if is_inside else at]
        corner = tuple(0 if i == axis else n for i, n in enumerate(self.corner))
        shape = tuple(1 if i == axis else n for i, n in enumerate(self.shape))
        slab = _placed(np.moveaxis(section, 0, axis), corner, shape)
        return volumes.cut(slab, plane, 0)


def cropped(labels: Integer[np.ndarray, "*space"]) -> Part:
    """Cut out the box around what is not 0."""
    corner, box = [], []
    for axis in range(labels.ndim):
        others = tuple(other for other in range(labels.ndim) if other != axis)
        filled = np.flatnonzero(labels.any(axis=others))
        start, end = (int(filled[0]), int(filled[-1]) + 1) if filled.size else (0, 0)
        corner.append(start)
        box.append(slice(start, end))
    return Part(labels[tuple(box)].copy(order="K"), tuple(corner), labels.shape)


def _placed(
    values: Integer[np.ndarray, "*space"], corner: tuple[int, ...], shape: tuple[int, ...]
) -> Integer[np.ndarray, "*all"]:
    """Lay an array into an empty one."""
    whole = np.zeros(shape, values.dtype)
    box = [slice(start, start + n) for start, n in zip(corner, values.shape, strict=True)]
    whole[tuple(box)] = values
    return whole
