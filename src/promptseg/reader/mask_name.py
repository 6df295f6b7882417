"""What the name of a mask tells beside that of its image: object, instance, frame."""

import re
from collections.abc import Callable, Collection

# words of a mask's file name that say that it is a mask, not of what
MASK_WORDS = frozenset(
    {
        *("mask", "masks", "seg", "segmentation", "label", "labels", "labeled"),
        *("gt", "groundtruth", "annotation", "manual"),
    }
)
# from what a mask's name says beyond its image's to object and instance
ReadName = Callable[[str], tuple[str | None, int | None]]
_NUMBER = re.compile(r"(?:(?P<name>.*)[_-])?(?P<number>\d{1,9})")
_FRAME = r"(?:(?:frame|slice|page|image|img)[_-]?)?(?P<number>\d{1,9})"
_FRAME_FIRST = re.compile(rf"{_FRAME}(?:[_-](?P<name>.*))?", re.IGNORECASE)
_FRAME_LAST = re.compile(rf"(?P<name>.*)[_-]{_FRAME}", re.IGNORECASE)
_HASH = re.compile(r"(?=.*\d)[0-9a-f-]{10,}", re.IGNORECASE)  # a name made by a machine


def instance_alone(rest: str) -> tuple[None, int | None]:
    """Read a name that tells no object."""
    return None, parse_name(rest)[1]


def parse_name(rest: str) -> tuple[str | None, int | None]:
    """Read object and instance from what a mask's name says beyond its image's.

    Examples
    --------
    >>> parse_name("_rib_left_9_000")
    ('rib_left_9', 0)
    >>> parse_name("_mask_1")
    (None, 1)
    """
    rest = without_words(rest)
    match = _NUMBER.fullmatch(rest)
    number = int(match["number"]) if match else None
    name = without_words(match["name"] or "") if match else rest
    return (None if not name or _HASH.fullmatch(name) else name), number


def without_words(name: str, words: Collection[str] = MASK_WORDS) -> str:
    """Cut words, by default those that say "mask", and separators off both ends of a name."""
    parts = re.split(r"([_-]+)", name.strip("_- "))
    while parts and parts[0].lower() in words:
        parts = parts[2:]
    while parts and parts[-1].lower() in words:
        parts = parts[:-2]
    return "".join(parts)


def parse_frame(rest: str) -> tuple[str, int] | None:
    """Read the number of a frame, first or last in a name, and the rest; None: there is none."""
    rest = without_words(rest)
    match = _FRAME_FIRST.fullmatch(rest) or _FRAME_LAST.fullmatch(rest)
    return None if match is None else (match["name"] or "", int(match["number"]))
