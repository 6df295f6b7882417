"""Labels on another grid are brought onto their image's by geometry, never by array index.

Every voxel of the image takes the label of the voxel whose centre is nearest to its own (the one
further right, front or up of two), so that grids that differ by order or cropping alone give an
exact copy. What lies outside the labels' grid is background.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Integer

from promptseg.errors import DataError
from promptseg.reader.part import cropped
from promptseg.reader.volume import Volume, corners, difference_of_grids, slab_axis

_NEAR = 1e-3  # of an edge: what the 32 bits of a header may be off


@dataclass(frozen=True, slots=True, eq=False)
class Regridded:
    """Labels on the grid of an image, and what is lost of them."""

    values: Integer[np.ndarray, "i j k"]
    outside: Mapping[int, tuple[int, int]]  # label -> (voxels outside the image, all its voxels)

    def loss(self, labels: tuple[int, ...]) -> tuple[int, str] | None:
        """Say how much of an object is lost, in its own voxels, or None if nothing is."""
        lost, total = np.sum([self.outside.get(n, (0, 0)) for n in labels], axis=0)
        if lost:
            return int(lost), f"{100 * lost / total:.3g} % of its volume lie outside its image"
        if not np.isin(self.values, labels).any():
            return 0, "it lies between the voxels of its image, which are larger than its own"
        return None


def other_grid(image: Volume, labels: Volume) -> bool:
    """Whether labels lie on another grid than their image, and can be brought over.

    Raises
    ------
    DataError
        They lie on another grid, and one of the files does not say where.
    """
    difference = difference_of_grids(image, labels)
    if difference is None:
        return False
    for volume, whose in ((image, "its image"), (labels, "it")):
        if not (volume.has_place and volume.has_spacing):
            unknown = f", and the header of {whose} does not say how it lies in the patient"
            raise DataError(difference + ("" if "lies" in difference else unknown))
    return True


def regrid(labels: Integer[np.ndarray, "i j k"], own: Volume, image: Volume) -> Regridded:
    """Bring labels from their own grid onto that of an image.

    Raises
    ------
    DataError
        The two grids have no voxel in common.
    """
    to_own = np.linalg.inv(own.affine) @ image.affine
    values = np.zeros(image.voxels.shape, labels.dtype, order="F")
    is_beside = True
    for index, at, inside in _nearest(to_own, image.voxels.shape, labels.shape):
        if inside.any():
            is_beside = False
            values[:, :, index][inside] = labels[tuple(at[:, inside])]
    if is_beside:
        raise DataError("it lies wholly beside its image")
    return Regridded(values, _outside(labels, np.linalg.inv(to_own), image.voxels.shape))


def _nearest(
    to_own: Float[np.ndarray, "4 4"], shape: tuple[int, ...], own_shape: tuple[int, ...]
) -> Iterator[tuple[int, Integer[np.ndarray, "3 i j"], Bool[np.ndarray, "i j"]]]:
    """Give, slice by slice, the nearest voxels of the labels, and which of them there are."""
    i, j = np.ogrid[: shape[0], : shape[1]]
    flat = np.stack([to_own[axis, 0] * i + to_own[axis, 1] * j for axis in range(3)])
    most = np.array(own_shape).reshape(3, 1, 1)
    for k in range(shape[2]):
        shift = to_own[:3, 2] * k + to_own[:3, 3] + 0.5 + _NEAR
        at = np.floor(flat + shift.reshape(3, 1, 1)).astype(np.int64)
        yield k, at, ((at >= 0) & (at < most)).all(axis=0)


def _outside(
    labels: Integer[np.ndarray, "i j k"], to_image: Float[np.ndarray, "4 4"], shape: tuple[int, ...]
) -> dict[int, tuple[int, int]]:
    """Count the voxels of every label of which the centre lies outside the image."""
    part = cropped(labels)
    box = corners(part.values.shape)
    box[:3] += np.array(part.corner).reshape(3, 1)
    if part.values.size == 0 or _inside((to_image @ box)[:3], shape).all():
        return {}
    counts: dict[int, tuple[int, int]] = {}
    axis = slab_axis(part.values)
    for index, slab in enumerate(np.moveaxis(part.values, axis, 0)):
        at = np.insert(np.array(np.nonzero(slab)), axis, index, axis=0)
        at = at + np.array(part.corner).reshape(3, 1)
        inside = _inside(to_image[:3, :3] @ at + to_image[:3, 3:], shape)
        found = slab[slab != 0]
        for value, total in zip(*np.unique(found, return_counts=True), strict=True):
            before = counts.get(int(value), (0, 0))
            lost = int(np.count_nonzero(~inside[found == value]))
            counts[int(value)] = (before[0] + lost, before[1] + int(total))
    return counts


def _inside(voxels: Float[np.ndarray, "3 n"], shape: tuple[int, ...]) -> Bool[np.ndarray, "n"]:
    most = np.array(shape).reshape(3, 1) - 0.5 + _NEAR
    inside = (voxels >= -0.5 - _NEAR) & (voxels <= most)
    return np.asarray(inside.all(axis=0))
