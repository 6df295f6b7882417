"""Who is trained on, who chooses the best state, and who is held out: by subject, leaks refused."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from promptseg.contamination import HASH_LETTERS, Declared, pixel_hashes, with_targets
from promptseg.corpus import Corpus, part_paths
from promptseg.errors import DataError

Role = Literal["train", "val", "test"]
ROLES: tuple[Role, ...] = get_args(Role)
# how splits are called elsewhere
WORDS: Mapping[str, Role] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "held-out", "holdout"), "test"),
}
OWN = "the corpus's own split"
NO_TARGET, NOT_WANTED = "it has no target", "it has no target that --where leaves"
Owner = tuple[str, str]  # (dataset, subject), or (dataset, image_id) where images are split


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """How subjects are divided; a corpus with splits keeps them, unless subjects are named.

    A `val_share` of 0 trains without subjects that choose the best state: the last one counts. A
    `test_share` of 0 holds nobody out: for what is tested on other corpora.

    `train_subjects` trains on so many only. They are drawn by `draw`, spread over the datasets in
    proportion; those of a smaller number are among those of a larger one of the same draw, and
    validation and test subjects are the same for all.
    """

    test_subjects: tuple[str, ...] = ()  # `subject`, or `dataset/subject`; else drawn
    test_share: float = 0.2
    val_share: float = 0.15
    by: Literal["subject", "image"] = "subject"
    seed: int = 0
    train_subjects: int | None = None  # None: all that are left
    draw: int = 0

    def leaves_out(self, role: Role) -> bool:
        """Tell whether a role is meant to be empty."""
        return (role == "val" and self.val_share == 0) or (
            role == "test" and self.test_share == 0 and not self.test_subjects
        )


@dataclass(frozen=True, slots=True)
class Image:
    """One image of one of several corpora, and whose it is."""

    corpus: int
    image_id: str
    owner: Owner
    content: str  # hash of its pixels, or of its file where the corpus has no looks
    split: str | None
    subject: str | None = None
    is_used: bool = True  # it has a target: what has none, as a black slice, tells nothing
    file: str = ""  # hash of its file, which cards of before list
    is_wanted: bool = True  # it has a target that may be trained on


@dataclass(frozen=True, slots=True)
class Split:
    """The images of every role, and their owners."""

    division: Division
    source: str  # where the split comes from, in words
    images: Mapping[Role, tuple[Image, ...]] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)  # reason -> images

    def owners(self, role: Role) -> list[Owner]:
        """List the subjects of a role (or images, where these are split), in order."""
        return sorted({image.owner for image in self.images[role]})

    def ids(self, role: Role, corpus: int) -> frozenset[str]:
        """List the images that one corpus has of a role."""
        return frozenset(i.image_id for i in self.images[role] if i.corpus == corpus)


Wanted = Sequence[Mapping[str, frozenset[str]] | None]


def split_corpora(
    corpora: Sequence[Corpus], division: Division, wanted: Wanted | None = None
) -> Split:
    """Divide the images of corpora into train, val and test.

    Subjects are drawn within every dataset, of which three are the fewest that give all roles one;
    of two one is held out, a single one is trained on. An image that lies in two splits, under
    whatever subject, is a leak.

    Images without a target are in no role. `wanted` are, per corpus, the targets that may be
    trained on (image_id -> target_ids; None: all): what has none is neither trained on nor chooses,
    and may be held out.

    Raises
    ------
    DataError
        Subjects are unknown, a role is left empty, a named subject is not there, a subject or an
        image would be in two splits, or fewer subjects are left to train on than were asked for.
    """
    every = [
        replace(image, is_wanted=wanted is None or _is_wanted(image, wanted[number]))
        for number, corpus in enumerate(corpora)
        for image in _images(number, corpus, division)
    ]
    images = [image for image in every if image.is_used]
    left_out = {NO_TARGET: len(every) - len(images)}
    if not division.test_subjects and any(image.split for image in images):
        given = _given(images, division)
        less = [role for role in ROLES if division.leaves_out(role)]
        source = OWN + "".join(f", without its {role}" for role in less)
        split = Split(division, source, given, left_out)
    else:
        named = "subjects named" if division.test_subjects else "drawn"
        source = f"{named}, by {division.by}, seed {division.seed}"
        roles = _by_role(images, _drawn(images, division))
        split = Split(division, source, roles, left_out)
    return _fewer(_only_wanted(_checked(split, division)), division)


def _is_wanted(image: Image, wanted: Mapping[str, frozenset[str]] | None) -> bool:
    return wanted is None or image.image_id in wanted


def _only_wanted(split: Split) -> Split:
    """Leave out of train and val what has no target to train on."""
    images = dict(split.images)
    for role in ROLES[:2]:
        images[role] = tuple(image for image in split.images[role] if image.is_wanted)
        if split.images[role] and not images[role]:
            n_images = len(split.images[role])
            raise DataError(
                f"None of the {n_images} images of the {role} split can be used: they have no "
                "target that --where leaves. Loosen it, or divide the subjects otherwise (--seed)."
            )
    before, after = (sum(len(of[role]) for role in ROLES[:2]) for of in (split.images, images))
    left_out = {reason: n for reason, n in split.left_out.items() if n}
    return replace(
        split,
        images=images,
        left_out=left_out | ({NOT_WANTED: before - after} if before > after else {}),
    )


def _images(number: int, corpus: Corpus, division: Division) -> Iterable[Image]:
    import polars as pl

    columns = ["image_id", "dataset", "subject", "sha256", "split"]
    rows = pl.scan_parquet(part_paths(corpus.path, "images"), glob=False).select(columns).collect()
    unknown = rows["subject"].null_count()
    if division.by == "subject" and unknown:
        raise DataError(
            f"{corpus.path}: the subject of {unknown} of {rows.height} images is unknown, so that "
            "a split cannot keep patients apart. Curate again with --subject-pattern; or give "
            "--split-by image if no patient has two images."
        )
    of_pixels, used = pixel_hashes(corpus), with_targets(corpus)
    for image_id, dataset, subject, of_file, split in rows.iter_rows():
        owner = (dataset, image_id if division.by == "image" else subject)
        content = of_pixels.get(image_id, of_file)
        yield Image(number, image_id, owner, content, split, subject, image_id in used, of_file)


def _given(images: Sequence[Image], division: Division) -> dict[Role, tuple[Image, ...]]:
    """Take the splits that a corpus has; without a `val`, some of its training subjects are it."""
    unknown = sorted({str(i.split) for i in images if str(i.split).lower() not in WORDS})
    if unknown:
        raise DataError(
            f"The corpus has images of split {', '.join(unknown)}; train, val and test are known. "
            "Rename them, or name the held-out subjects by --test-subject."
        )
    found: dict[Role, tuple[Image, ...]] = {
        role: tuple(i for i in images if WORDS[str(i.split).lower()] == role) for role in ROLES
    }
    found |= {role: () for role in ROLES if division.leaves_out(role)}
    if not found["val"] and division.val_share:
        owners = _by_dataset(found["train"])
        chosen = {
            o
            for s in owners.values()
            for o in _choosing(_shuffled(s, division.seed), found["train"], division)
        }
        found["val"] = tuple(i for i in found["train"] if i.owner in chosen)
        found["train"] = tuple(i for i in found["train"] if i.owner not in chosen)
    return found


def _drawn(images: Sequence[Image], division: Division) -> dict[Owner, Role]:
    roles: dict[Owner, Role] = {}
    owners = _by_dataset(images)
    held_out = _named(owners, division)
    for subjects in owners.values():
        order = _shuffled(subjects, division.seed)
        if division.test_subjects:
            test = [owner for owner in order if owner in held_out]
        else:
            test = order[: _count(len(order), division.test_share, fewest=2)]
        rest = [owner for owner in order if owner not in set(test)]
        val = _choosing(rest, images, division)
        train = [owner for owner in rest if owner not in set(val)]
        for role, found in zip(ROLES, (train, val, test), strict=True):
            roles.update(dict.fromkeys(found, role))
    return roles


def _choosing(owners: Sequence[Owner], images: Iterable[Image], division: Division) -> list[Owner]:
    """Take those who choose the best state, of the owners of a target that may be trained on."""
    able = {image.owner for image in images if image.is_wanted}
    left = [owner for owner in owners if owner in able]
    return left[: _count(len(left), division.val_share, fewest=2)]


def _named(owners: Mapping[str, Sequence[Owner]], division: Division) -> set[Owner]:
    """Find the subjects that are named; one that is not there is an error."""
    every = [owner for subjects in owners.values() for owner in subjects]
    found: set[Owner] = set()
    for word in division.test_subjects:
        hits = {o for o in every if word in (o[1], f"{o[0]}/{o[1]}")}
        if not hits:
            some = ", ".join(f"{o[0]}/{o[1]}" for o in every[:5])
            raise DataError(f"There is no subject {word!r} to hold out. The corpus has {some}, ...")
        found |= hits
    return found


def _count(n: int, share: float, *, fewest: int) -> int:
    """Take a share of n subjects: at least one of `fewest` or more, and never the last."""
    return min(max(1, round(n * share)), n - 1) if n >= fewest and share > 0 else 0


def _by_dataset(images: Iterable[Image]) -> dict[str, list[Owner]]:
    owners: dict[str, set[Owner]] = defaultdict(set)
    for image in images:
        owners[image.owner[0]].add(image.owner)
    return {dataset: sorted(found) for dataset, found in sorted(owners.items())}


def _shuffled(owners: Sequence[Owner], seed: int | str) -> list[Owner]:
    """Order subjects by a draw of their own, which no other subject changes."""

    def lot(owner: Owner) -> bytes:
        return hashlib.sha256(f"{seed}\n{owner[0]}\n{owner[1]}".encode()).digest()

    return sorted(owners, key=lot)


def _by_role(images: Sequence[Image], roles: Mapping[Owner, Role]) -> dict[Role, tuple[Image, ...]]:
    return {role: tuple(i for i in images if roles[i.owner] == role) for role in ROLES}


def _refuse_leaks(split: Split) -> None:
    """Refuse subjects, then images, that are in two roles."""
    every = [(role, image) for role in ROLES for image in split.images[role]]
    subjects = [(role, image, "subject", image.owner) for role, image in every]
    images = [(role, image, "image", image.content) for role, image in every if image.is_used]
    seen: dict[object, Role] = {}
    for role, image, what, value in (*subjects, *images):
        if seen.setdefault(value, role) != role:
            raise DataError(
                f"A leak: {what} {_told(image, what)} is in {seen[value]} and in {role}. "
                "What is held out has to be of subjects that were never seen: mend the "
                "splits or the subjects of the corpus."
            )


def _checked(split: Split, division: Division) -> Split:
    """Refuse leaks, then empty roles."""
    _refuse_leaks(split)
    every = [image for role in ROLES for image in split.images[role]]
    owners = {image.owner for image in every}
    able = {image.owner for image in every if image.is_wanted}
    which = "" if able == owners else f" ({len(able)} with a target that --where leaves)"
    for role, images in split.images.items():
        if not images and split.source.startswith(OWN) and not division.leaves_out(role):
            raise DataError(
                f"The corpus's own split has no {role} images. Name those to hold out by "
                "--test-subject, which divides all subjects anew."
            )
        if not images and not division.leaves_out(role):
            raise DataError(
                f"The {role} split is empty: {len(owners)} {division.by}{'s' * (len(owners) != 1)}"
                f"{which} cannot give train, val and test one each. They are drawn within each "
                "data set, of which three are the fewest; curate more, or check --subject-pattern."
            )
    return split


def _fewer(split: Split, division: Division) -> Split:
    """Leave so many subjects to train on as were asked for."""
    number, every = division.train_subjects, len(split.owners("train"))
    if number is None:
        return split
    if not 1 <= number <= every:
        raise DataError(
            f"Cannot train on {number} {division.by}{'s' * (number != 1)}: there are {every} to "
            f"train on. Ask for 1 to {every}, or for all."
        )
    kept = set(_in_turn(split.images["train"], f"{division.seed}/{division.draw}")[:number])
    images = {**split.images, "train": tuple(i for i in split.images["train"] if i.owner in kept)}
    source = f"{split.source}; {number} of {every} to train on, draw {division.draw}"
    return replace(split, source=source, images=images)


def _in_turn(images: Iterable[Image], seed: str) -> list[Owner]:
    """Order subjects so that the first of them are spread over datasets in proportion."""
    places: dict[Owner, float] = {}
    for subjects in _by_dataset(images).values():
        order = _shuffled(subjects, seed)
        places |= {owner: (rank + 0.5) / len(order) for rank, owner in enumerate(order)}
    return sorted(_shuffled(list(places), seed), key=places.__getitem__)


def check_apart(split: Split, also: Sequence[Corpus]) -> None:
    """Refuse corpora for tests that hold a subject or an image that is trained on or chooses.

    Raises DataError. Of unknown subjects only the images can be compared.
    """
    seen = [image for role in ROLES[:2] for image in split.images[role]]
    known = {(image.owner[0], image.subject) for image in seen if image.subject is not None}
    hashes = {i.content for i in [*seen, *split.images["test"]] if i.is_used}
    for corpus in also:
        images = list(_images(0, corpus, Division(by="image")))
        for image in images:
            alike = image.is_used and image.content in hashes
            if (image.owner[0], image.subject) in known or alike:
                raise DataError(
                    f"A leak: {image.image_id} of {corpus.path}, on which both models were to be "
                    "scored as unseen, is of a subject that is trained on, or is in this training "
                    "or in another corpus of --also already. Give --also other data."
                )
        hashes |= {image.content for image in images if image.is_used}


def check_unseen(split: Split, base: str, declared: Declared) -> list[str]:
    """Refuse to hold out images that the base was fine-tuned on, as far as it lists them.

    Gives the data sets of which it lists none, though it was trained on them. Raises DataError.
    """
    held_out = split.images["test"]
    shortened = [{i.content[:HASH_LETTERS], i.file[:HASH_LETTERS]} for i in held_out]
    leaks = [
        i for i, own in zip(held_out, shortened, strict=True) if i.is_used and own & declared.images
    ]
    if leaks:
        raise DataError(
            f"A leak: {base} was itself fine-tuned on {len(leaks)} of the {len(held_out)} images "
            f"that are held out here, such as {leaks[0].image_id}. Hold out subjects that it never "
            "saw: the same --seed and shares as then, or --test-subject."
        )
    return sorted({i.owner[0] for i in held_out if declared.only_names(i.owner[0])})


def n_on_both_sides(split: Split) -> int:
    """Count the known subjects that have images in two roles, where images are split."""
    roles: dict[tuple[str, str], set[Role]] = defaultdict(set)
    for role in ROLES:
        for image in split.images[role]:
            if image.subject is not None:
                roles[image.owner[0], image.subject].add(role)
    return sum(len(found) > 1 for found in roles.values())


def _told(image: Image, what: str) -> str:
    return "/".join(image.owner) if what == "subject" else image.image_id
