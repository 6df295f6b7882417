"""Objects that are drawn on the slices of a series; they may overlap."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, UInt8

from promptseg.reader.labels import Entry

_LONGEST = 100
_MOST_IN_LAYER = 255


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """One object: its mask on the slices where it has one, eight pixels a byte."""

    name: str
    number: int
    width: int
    planes: dict[int, UInt8[np.ndarray, "h bytes"]] = field(default_factory=dict)
    instance: int | None = None

    def add(self, index: int, mask: Bool[np.ndarray, "h w"]) -> None:
        """Join a mask to what is drawn on a slice."""
        if mask.any():
            packed = np.packbits(mask, axis=1)
            known = self.planes.get(index)
            self.planes[index] = packed if known is None else packed | known

    def mask(self, index: int) -> Bool[np.ndarray, "h w"]:
        """Give the mask on a slice where there is one."""
        return np.unpackbits(self.planes[index], axis=1, count=self.width).astype(bool)


def clean_name(said: str | None) -> str | None:
    """Bring a name from a header into one line of limited length."""
    name = " ".join("".join(c if c.isprintable() else " " for c in said or "").split())
    return name[:_LONGEST] or None


def with_instances(objects: Sequence[Drawn]) -> list[Drawn]:
    """Give objects that share a name their numbers in the file as instances."""
    names = Counter(one.name for one in objects)
    return [replace(one, instance=one.number if names[one.name] > 1 else None) for one in objects]


def layers_of(
    objects: Iterable[Drawn], shape: tuple[int, int, int]
) -> list[tuple[UInt8[np.ndarray, "n h w"], tuple[Entry, ...]]]:
    """Lay objects into as few label arrays as it takes so that none hides another."""
    layers: list[tuple[UInt8[np.ndarray, "n h w"], list[Entry]]] = []
    for one in objects:
        if not one.planes:
            continue
        layer = next((layer for layer in layers if _is_free(one, layer)), None)
        if layer is None:
            layer = (np.zeros(shape, np.uint8), [])
            layers.append(layer)
        values, entries = layer
        value = len(entries) + 1
        entries.append(Entry(one.name, one.instance, (value,)))
        for index in one.planes:
            values[index][one.mask(index)] = value
    return [(values, tuple(entries)) for values, entries in layers]


def _is_free(one: Drawn, layer: tuple[UInt8[np.ndarray, "n h w"], list[Entry]]) -> bool:
    values, entries = layer
    return len(entries) < _MOST_IN_LAYER and not any(
        values[index][one.mask(index)].any() for index in one.planes
    )
