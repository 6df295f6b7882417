"""Images that are in corpora more than once, and which of these pairs are leaks.

A pair is a leak where its images are in different splits, or in different corpora, unless it is
allowed by name. The slices of one volume resemble each other and are no pair, nor are images of
one subject within a split.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from jaxtyping import Shaped

from promptseg.errors import DataError
from promptseg.likeness import Look, are_alike, candidates, fine_of

MOST_TOLD = 3  # pairs, in an error
_MOST_FINE = 8192  # images kept small, 16 KiB each


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


def pairs(
    images: Sequence[Seen], pixels: Pixels, group_of: Callable[[Seen], str] | None = None
) -> Iterator[Pair]:
    """Yield pairs of different owners, or of one owner in different splits.

    Parameters
    ----------
    pixels
        Gives the pixels of an image: asked for only where looks agree.
    group_of
        Gives the group of an image, where it is enough to know which groups belong together: then
        pairs of groups that others join already are neither looked for nor yielded.
    """
    search = _Search(group_of)
    for i, j in _same(images):
        if search.is_wanted(images[i], images[j]):
            yield search.pair(images[i], images[j], "exact")
    fine = lru_cache(_MOST_FINE)(lambda index: fine_of(pixels(images[index])))
    for i, j in candidates([seen.look for seen in images]):
        one, other = images[i], images[j]
        is_same = one.look.content == other.look.content
        if not is_same and search.is_wanted(one, other) and are_alike(fine(i), fine(j)):
            yield search.pair(one, other, "near")


def _same(images: Sequence[Seen]) -> Iterator[tuple[int, int]]:
    """Yield the pairs of the same pixels, in order."""
    by_content: dict[str, list[int]] = {}
    for number, seen in enumerate(images):
        by_content.setdefault(seen.look.content, []).append(number)
    place = dict.fromkeys(by_content, 0)
    for number, seen in enumerate(images):
        place[seen.look.content] += 1
        numbers = by_content[seen.look.content]
        for index in range(place[seen.look.content], len(numbers)):
            yield number, numbers[index]


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
    groups = _Groups()
    for one, other in found:
        groups.join(one, other)
    return {owner: groups.root(owner) for owner in owners}


@dataclass(slots=True)
class _Groups:
    """Owners in groups, each called by its first."""

    parent: dict[str, str] = field(default_factory=dict)

    def root(self, owner: str) -> str:
        parent = self.parent
        while (above := parent.setdefault(owner, owner)) != owner:
            parent[owner] = parent[above]
            owner = parent[owner]
        return owner

    def are_one(self, one: str, other: str) -> bool:
        return self.root(one) == self.root(other)

    def join(self, one: str, other: str) -> None:
        first, second = sorted((self.root(one), self.root(other)))
        self.parent[second] = first


@dataclass(slots=True)
class _Search:
    """Which pairs are still of interest."""

    group_of: Callable[[Seen], str] | None
    groups: _Groups = field(default_factory=_Groups)

    def is_wanted(self, one: Seen, other: Seen) -> bool:
        if not _counts(one, other) or self.group_of is None:
            return _counts(one, other)
        return not self.groups.are_one(self.group_of(one), self.group_of(other))

    def pair(self, one: Seen, other: Seen, kind: Literal["exact", "near"]) -> Pair:
        if self.group_of is not None:
            self.groups.join(self.group_of(one), self.group_of(other))
        return Pair(one, other, kind)


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
