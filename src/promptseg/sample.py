"""Samples and targets: what is segmented, and how its instances are grouped for scoring."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, UInt8

Unit = Literal["class", "instance", "component"]


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """One reference mask in one sample; targets of a sample may overlap."""

    target_id: str
    object: str
    mask: Bool[np.ndarray, "h w"]
    instance: int | None = None  # None: the source does not tell instances apart
    annotator: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a slice lies in its volume; the affine takes voxels (i, j, k) to RAS+ millimetres."""

    volume_id: str
    slice_index: int
    n_slices: int
    plane: str
    spacing_slice_mm: float | None
    affine: tuple[float, ...] | None  # 4 x 4, row-major


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One 2D image with its targets, and what is known about where it came from.

    The image is RGB in 0..255, indexed (y, x, channel). Everything that may be unknown is None
    then, never a default.
    """

    image_id: str
    image: UInt8[np.ndarray, "h w 3"]
    dataset: str
    modality: str
    targets: tuple[Target, ...]
    subject: str | None = None  # the patient (pseudonymous): what intervals resample
    spacing_yx_mm: tuple[float, float] | None = None  # None: distances are in pixels
    source: str | None = None  # path of its file below the curated folder
    place: Place | None = None  # None: a picture, no slice of a volume

    @property
    def volume(self) -> str | None:
        """Name the volume, and the plane in which this slice was cut; None: no slice."""
        return None if self.place is None else f"{self.place.volume_id}/{self.place.plane}"


@dataclass(frozen=True, slots=True)
class Listed:
    """A target of which the names alone are known."""

    target_id: str
    object: str
    annotator: str | None = None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A sample of a corpus that could not be read, kept so that nothing is lost silently."""

    image_id: str
    dataset: str
    modality: str
    subject: str | None
    targets: tuple[Listed, ...]  # what should have been scored
    reason: str
    volume: str | None = None  # and plane, that it is a slice of


def task_name(object_name: str, modality: str) -> str:
    """Name a task: an (object, modality) pair, the row of every table."""
    return f"{object_name} ({modality})"


def regroup(targets: Sequence[Target], unit: Unit) -> tuple[Target, ...]:
    """Bring targets to the unit of evaluation (PROTOCOL decision 2).

    `class` joins all instances of one object by one annotator, `instance` leaves the targets as
    they are, `component` splits every target into its 8-connected components, ordered by their
    first pixel in row-major order.
    """
    match unit:
        case "class":
            return tuple(_joined(group) for group in _by_object(targets))
        case "instance":
            return tuple(targets)
        case "component":
            return tuple(part for target in targets for part in _components(target))


def _by_object(targets: Iterable[Target]) -> list[list[Target]]:
    groups: dict[tuple[str, str | None], list[Target]] = {}
    for target in targets:
        groups.setdefault((target.object, target.annotator), []).append(target)
    return list(groups.values())


def _joined(group: Sequence[Target]) -> Target:
    first = group[0]
    mask = group[0].mask.copy()
    for target in group[1:]:
        mask |= target.mask
    return Target(class_id(first), first.object, mask, annotator=first.annotator)


def class_id(target: Target | Listed) -> str:
    """Name the target that all instances of an object by one annotator make."""
    image_id = target.target_id.rpartition("#")[0]
    annotator = "" if target.annotator is None else f"@{target.annotator}"
    return f"{image_id}#{target.object}{annotator}"


def _components(target: Target) -> list[Target]:
    from scipy import ndimage

    labels, count = ndimage.label(target.mask, structure=np.ones((3, 3)))
    if count <= 1:  # an empty mask stays one target: it fails, and is not lost
        return [target]
    return [
        Target(f"{target.target_id}.{i}", target.object, labels == i, i, target.annotator)
        for i in range(1, count + 1)
    ]
