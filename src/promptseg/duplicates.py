"""Images that are in corpora more than once, and which of these pairs are leaks.

A pair is a leak where its images are in different splits, or in different corpora, unless it is
allowed by name. The slices of one volume resemble each other and are no pair, nor are images of
one subject within a split.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Shaped

from promptseg.errors import DataError
from promptseg.likeness import Look, are_alike, candidates

MOST_TOLD = 3  # pairs, in an error


@dataclass(frozen=True, slots=True)
class Seen:
    """One image of one of several corpora: what it is called, whose it is, how it looks."""

    corpus: str  # its path, where there are several
    dataset: str
    subject: str | None
    volume: str | None
    split: str | None
    look: Look

    @property
    def owner(self) -> tuple[str, str, str]:
        """Tell what an image shares with others that are expected to resemble it."""
        return self.corpus, self.dataset, self.subject or self.volume or self.look.image_id


@dataclass(frozen=True, slots=True)
class Pair:
    """Two images that are the same, or nearly."""

    one: Seen
    other: Seen
    kind: Literal["exact", "near"]

    @property
    def is_leak(self) -> bool:
        """Tell whether what one teaches is asked of the other."""
        return self.one.corpus != self.other.corpus or self.one.split != self.other.split

    def is_allowed(self, names: Collection[str]) -> bool:
        """Tell whether either image, or its data set, is named."""
        own = {name for seen in (self.one, self.other) for name in (seen.dataset, _id(seen))}
        return not own.isdisjoint(names)

    def told(self) -> str:
        """Put the pair into words."""
        word = "the same as" if self.kind == "exact" else "nearly the same as"
        places = ""
        if self.one.corpus != self.other.corpus:
            places = f" ({self.one.corpus} and {self.other.corpus})"
        elif self.one.split != self.other.split:
            places = f" ({self.one.split or 'no split'} and {self.other.split or 'no split'})"
        return f"{_id(self.one)} is {word} {_id(self.other)}{places}"


def _id(seen: Seen) -> str:
    return seen.look.image_id


Pixels = Callable[[Seen], Shaped[np.ndarray, "h w *rgb"]]


def pairs(images: Sequence[Seen], pixels: Pixels) -> Iterator[Pair]:
    """Yield pairs of different owners, or of one owner in different splits.

    Parameters
    ----------
    pixels
        Gives the pixels of an image: asked for only where looks agree.
    """
    by_content: dict[str, list[int]] = {}
    for number, seen in enumerate(images):
        by_content.setdefault(seen.look.content, []).append(number)
    exact = {
        (first, other)
        for numbers in by_content.values()
        for place, first in enumerate(numbers)
        for other in numbers[place + 1 :]
    }
    near = ((i, j) for i, j in candidates([seen.look for seen in images]) if (i, j) not in exact)
    for i, j in sorted(exact):
        if _counts(images[i], images[j]):
            yield Pair(images[i], images[j], "exact")
    for i, j in near:
        if _counts(images[i], images[j]) and are_alike(pixels(images[i]), pixels(images[j])):
            yield Pair(images[i], images[j], "near")


def _counts(one: Seen, other: Seen) -> bool:
    return one.owner != other.owner or one.split != other.split


def refuse(found: Iterable[Pair], allowed: Collection[str]) -> None:
    """Raise DataError where a pair is a leak that nobody allows, with the first of them."""
    leaks = [pair for pair in found if pair.is_leak and not pair.is_allowed(allowed)]
    if leaks:
        first = "; ".join(pair.told() for pair in leaks[:MOST_TOLD])
        more = f"; and {len(leaks) - MOST_TOLD} more" if len(leaks) > MOST_TOLD else ""
        raise DataError(
            f"{len(leaks)} leak{'s' * (len(leaks) != 1)}: {first}{more}. What is held out must not "
            "have been seen. Leave one of each pair out; or allow it by --allow-leak IMAGE (or the "
            "name of its data set)."
        )


def together(owners: Collection[str], found: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Join owners that share images into groups: owner -> the first owner of its group."""
    parent = {owner: owner for owner in owners}

    def root(owner: str) -> str:
        while parent[owner] != owner:
            parent[owner] = parent[parent[owner]]
            owner = parent[owner]
        return owner

    for one, other in found:
        first, second = sorted((root(one), root(other)))
        parent[second] = first
    return {owner: root(owner) for owner in owners}


def seen_in(corpus: str, image: dict[str, Any], look: Look) -> Seen:
    """Make a `Seen` of a row of images and the look."""
    return Seen(
        corpus=corpus,
        dataset=image["dataset"],
        subject=image["subject"],
        volume=image["volume_id"],
        split=image["split"],
        look=look,
    )
