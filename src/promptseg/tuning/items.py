"""The images that a training sees: their targets in memory, what the frozen stages give on disk."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from torch import Tensor

from promptseg.corpus import Corpus, RowGroup
from promptseg.errors import DataError
from promptseg.mask import Rle, from_rle, to_rle
from promptseg.sample import Sample, regroup, task_name
from promptseg.subset import Choice, NothingLeftError, choose_subset
from promptseg.tuning.frozen import Frozen
from promptseg.tuning.settings import Augmentation, Settings
from promptseg.tuning.split import NO_TARGET, Owner, Role, Split, Wanted

# of the eight turns and mirrorings of a square, by their number: 4 mirrors, 1 to 3 turn
VARIANTS: dict[Augmentation, tuple[int, ...]] = {
    "none": (0,),
    "flips": (0, 2, 4, 6),
    "dihedral": (0, 1, 2, 3, 4, 5, 6, 7),
    "full": (0, 1, 2, 3, 4, 5, 6, 7),
}


def turned(array: np.ndarray, variant: int) -> np.ndarray:
    """Mirror (y, x, ...) left to right if the variant says so, then turn it by quarters."""
    mirrored = array[:, ::-1] if variant & 4 else array
    return np.ascontiguousarray(np.rot90(mirrored, variant & 3))


@dataclass(frozen=True, slots=True)
class Goal:
    """One target to be trained on or scored."""

    target_id: str
    object: str
    task: str
    rle: Rle

    def mask(self, variant: int = 0) -> Bool[np.ndarray, "h w"]:
        """Give the mask of one variant of the image."""
        return turned(from_rle(self.rle), variant)


@dataclass(frozen=True, slots=True)
class Item:
    """One image with its goals; `keys` name what the frozen stages make of its variants."""

    image_id: str
    owner: Owner
    image_hw: tuple[int, int]
    goals: tuple[Goal, ...]
    place: tuple[int, RowGroup]
    variants: tuple[int, ...]
    keys: tuple[str, ...]  # empty: nothing is kept

    def hw(self, variant: int) -> tuple[int, int]:
        """Give the size of a variant."""
        height, width = self.image_hw
        return (width, height) if variant & 1 else (height, width)


@dataclass(slots=True)
class Items:
    """The items of all roles, and what could not be used."""

    of_role: dict[Role, list[Item]]
    left_out: dict[str, int] = field(default_factory=dict)  # reason -> images


def wanted_targets(corpora: Sequence[Corpus], settings: Settings) -> Wanted:
    """List, per corpus, the targets that may be trained on (image_id -> target_ids); None: all.

    Raises
    ------
    DataError
        The condition of the settings is none, or holds for nothing in any corpus.
    """
    if settings.where is None:
        return [None] * len(corpora)
    choice = Choice(where=settings.where)
    found: list[dict[str, frozenset[str]]] = []
    for corpus in corpora:
        try:
            subset = choose_subset(corpus, choice, unit=settings.unit)
        except NothingLeftError:
            found.append({})
        else:
            found.append({image_id: ids for image_id, ids in subset.targets.items() if ids})
    if not any(found):
        raise DataError(f"--where {settings.where!r} leaves no target. Loosen it.")
    return found


def gather(
    corpora: Sequence[Corpus],
    split: Split,
    wanted: Wanted,
    settings: Settings,
    frozen: Frozen,
    share: tuple[int, int] = (0, 1),
) -> Iterator[tuple[Role, Item | str]]:
    """Yield the images of train and val as items, or the reasons why they are left out.

    `wanted` are, per corpus, the targets to be trained on (image_id -> target_ids); None: all. Of
    the images only a share may be taken: (1, 3) takes the second of every three.
    """
    roles: tuple[Role, ...] = ("train", "val")
    seen = -1
    for number, corpus in enumerate(corpora):
        of = {i: role for role in roles for i in split.ids(role, number)}
        own = wanted[number]
        targets = None if own is None else {i: own[i] for i in of if i in own}
        for group in corpus.groups_of(of if targets is None else targets):
            for sample in corpus.read(group, targets):
                if sample.image_id not in of:
                    continue
                seen += 1
                if seen % share[1] == share[0]:
                    role = of[sample.image_id]
                    yield role, _item(sample, (number, group), role, (split, settings, frozen))


def _item(
    sample: Any, place: tuple[int, RowGroup], role: Role, how: tuple[Split, Settings, Frozen]
) -> Item | str:
    split, settings, frozen = how
    if not isinstance(sample, Sample):
        return str(sample.reason)
    goals = tuple(
        Goal(t.target_id, t.object, task_name(t.object, sample.modality), to_rle(t.mask))
        for t in regroup(sample.targets, settings.unit)
        if t.mask.any()
    )
    if not goals:
        return NO_TARGET
    variants = VARIANTS[settings.augmentation] if role == "train" else (0,)
    keys: tuple[str, ...] = ()
    if frozen.folder is not None:
        keys = tuple(frozen.keep(turned(sample.image, variant)) for variant in variants)
    by_image = split.division.by == "image" or sample.subject is None
    owner = (sample.dataset, sample.image_id if by_image else str(sample.subject))
    size_hw = (sample.image.shape[0], sample.image.shape[1])
    return Item(sample.image_id, owner, size_hw, goals, place, variants, keys)


@dataclass(frozen=True, slots=True)
class Source:
    """Where items get their images and features from."""

    corpora: Sequence[Corpus]
    frozen: Frozen

    def image(self, item: Item) -> UInt8[np.ndarray, "h w 3"]:
        """Read the image of an item again."""
        number, group = item.place
        for sample in self.corpora[number].read(group, {item.image_id: ()}):
            if isinstance(sample, Sample):
                return sample.image
            raise DataError(f"{sample.image_id} cannot be read any more: {sample.reason}")
        raise DataError(f"{item.image_id} is not in its corpus any more.")

    def features(self, item: Item, variant: int, device: Any) -> Tensor:
        """Give what the frozen stages make of a variant of an image."""
        if item.keys:
            return self.frozen.load(item.keys[item.variants.index(variant)], device)
        return self.frozen.make(turned(self.image(item), variant))


def distorted(
    image: UInt8[np.ndarray, "h w 3"],
    masks: Sequence[Bool[np.ndarray, "h w"]],
    rng: np.random.Generator,
) -> tuple[UInt8[np.ndarray, "h w 3"], list[Bool[np.ndarray, "h w"]]]:
    """Turn, scale and shift an image and its masks a little; change its contrast; add noise."""
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D(
        (width / 2, height / 2), rng.uniform(-20, 20), rng.uniform(0.8, 1.2)
    )
    turn[:, 2] += rng.uniform(-0.08, 0.08, 2) * (width, height)
    moved = cv2.warpAffine(image, turn, (width, height), flags=cv2.INTER_LINEAR)
    unit = moved.astype(np.float32) / 255
    unit = np.clip(unit, 0, 1) ** np.exp(rng.uniform(-0.4, 0.4))
    unit = unit * rng.uniform(0.8, 1.2) + rng.normal(0, rng.uniform(0, 0.03), unit.shape)
    shown = np.clip(255 * unit + 0.5, 0, 255).astype(np.uint8)
    warped = [
        cv2.warpAffine(m.astype(np.uint8), turn, (width, height), flags=cv2.INTER_NEAREST) > 0
        for m in masks
    ]
    return shown, warped
