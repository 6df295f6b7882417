"""What file names tell: which files are images, which are masks, and what pairs them.

Everything here is a guess, made to be looked at.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from promptseg.reader.folder import PICTURES, VOLUMES
from promptseg.reader.mask_name import MASK_WORDS, parse_name

_IMAGE_WORDS = frozenset(
    {"image", "images", "imgs", "img", "imagestr", "scan", "scans", "photos", "volumes", "data"}
)
_MASK_WORDS = MASK_WORDS | {
    *("annotations", "truth", "segmentations", "segs", "labelstr", "contours", "outline"),
    *("outlines", "mask", "ground", "references"),
}
_READER = re.compile(
    r"(\d+(st|nd|rd|th))?[_-]?(ho|obs|observer|reader|rater|expert|manual)\d*", re.I
)
_SEPARATOR = re.compile(r"[_\-. ]+")
_MOST_SHAPES = 12


@dataclass(frozen=True, slots=True)
class Shape:
    """Masks whose names are alike: their pattern, and by source the key of their image."""

    pattern: str
    keys: Mapping[str, str]
    object: str | None  # what all their names say
    translated: Mapping[str, str]  # keys of masks to keys of images, where nothing else tells
    names: Mapping[str, str]  # of objects, by source


@dataclass(frozen=True, slots=True)
class Guess:
    """Which files are what, by their names."""

    image_patterns: tuple[str, ...]
    images: Mapping[str, str]  # key -> source
    shapes: tuple[Shape, ...]
    unpaired: tuple[str, ...]  # files that look like masks, and belong to no image


def stem(source: str) -> str:
    """Cut the suffix off a path."""
    known = next((s for s in (*VOLUMES, *PICTURES) if source.lower().endswith(s)), None)
    suffix = PurePosixPath(source).suffix if known is None else known
    return source[: len(source) - len(suffix)] if suffix else source


def guess(sources: Sequence[str]) -> Guess:
    """Guess from the paths of all files that can be read."""
    of_images, of_masks = _split(sources)
    folders = {str(PurePosixPath(source).parent) for source in of_images}
    root = _common_folder(folders)
    best: tuple[int, dict[str, str], str, dict[str, tuple[str, str, str]]] | None = None
    for keys, form in _key_forms(of_images, root):
        paired = dict(_paired(of_masks, keys))
        if best is None or len(paired) > best[0]:
            best = (len(paired), keys, form, paired)
    if best is None:
        return Guess((), {}, (), tuple(of_masks))
    _, keys, form, paired = best
    by_folder: dict[str, list[str]] = {}
    for source in of_masks:
        by_folder.setdefault(_top(source), []).append(source)
    shapes: list[Shape] = []
    unpaired: list[str] = []
    for files in by_folder.values():
        known = {source: paired[source] for source in files if source in paired}
        shapes += _shapes(known)
        rest = [source for source in files if source not in paired]
        others = _by_order(rest, keys) if not known else None
        if others is None:
            unpaired += rest
        else:
            shapes.append(others)
    suffixes = sorted({source[len(stem(source)) :] for source in of_images})
    end = suffixes[0] if len(suffixes) == 1 else ".*"
    return Guess((f"{form}{end}",), keys, tuple(shapes), tuple(unpaired))


def by_name(shape: Shape) -> list[Shape]:
    """Part masks by the objects in their names, for up to a dozen of them."""
    objects = sorted(set(shape.names.values()))
    if "{object}" not in shape.pattern or not 1 < len(objects) <= _MOST_SHAPES:
        return []
    parts = []
    for name in objects:
        keys = {s: key for s, key in shape.keys.items() if shape.names.get(s) == name}
        parts.append(Shape(shape.pattern.replace("{object}", name), keys, name, {}, {}))
    return parts


def _split(sources: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part images from masks by the words of their folders, or else of their names."""
    in_folders = [s for s in sources if _words(str(PurePosixPath(s).parent)) & _IMAGE_WORDS]
    candidates = in_folders or [
        s for s in sources if not _words(str(PurePosixPath(s).parent)) & _MASK_WORDS
    ]
    stems = {stem(source) for source in candidates}
    images = [s for s in candidates if not _is_mask_beside(stem(s), stems)]
    chosen = set(images)
    return images, [source for source in sources if source not in chosen]


def _is_mask_beside(name: str, stems: Collection[str]) -> bool:
    """Tell `1_mask` beside `1`."""
    base = PurePosixPath(name).name
    ends = [m.start() for m in _SEPARATOR.finditer(base)]
    before = name[: len(name) - len(base)]
    return any(
        before + base[:end] in stems and _words(base[end:]) & _MASK_WORDS for end in ends if end
    )


def _words(path: str) -> set[str]:
    return {word for word in re.split(r"[^a-z]+", path.lower()) if word}


def _top(source: str) -> str:
    """Give the folder that groups masks: the first one whose name has a word of masks."""
    parts = source.split("/")[:-1]
    for index, part in enumerate(parts):
        if _words(part) & _MASK_WORDS:
            return "/".join(parts[: index + 1])
    return "/".join(parts[:1])


def _common_folder(folders: Iterable[str]) -> str:
    parts = [folder.split("/") if folder != "." else [] for folder in folders]
    common = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        common.append(level[0])
    return "".join(f"{part}/" for part in common)


def _key_forms(images: Sequence[str], root: str) -> Iterator[tuple[dict[str, str], str]]:
    """Give ways to read keys: whole names, names without what all have, and what masks may have."""
    names = {source: stem(source)[len(root) :] for source in images}
    if len(set(names.values())) < len(names):
        names = {source: source[len(root) :] for source in images}
    if not names:
        return
    yield {name: source for source, name in names.items()}, f"{root}{{key}}"
    lead, trail = _shared(list(names.values()))
    for start, end in ((lead, trail), ("", trail), (lead, "")):
        cut = {name[len(start) : len(name) - len(end)]: source for source, name in names.items()}
        if (start or end) and len(cut) == len(names) and all(cut):
            yield cut, f"{root}{start}{{key}}{end}"
    if len(names) == 1:
        (source, name), *_ = names.items()
        tokens = _SEPARATOR.split(name)
        for n in range(len(tokens) - 1, 0, -1):
            key = re.match(r"[_\-. ]+".join(map(re.escape, tokens[:n])), name)
            if key is not None:
                yield {key[0]: source}, f"{root}{{key}}{name[key.end() :]}"


def _shared(names: Sequence[str]) -> tuple[str, str]:
    """Find what all names begin and end with, up to a separator."""
    if len(names) < 2:
        return "", ""
    lead, trail = _prefix(names), _prefix([name[::-1] for name in names])[::-1]
    lead = lead[: max((m.end() for m in _SEPARATOR.finditer(lead)), default=0)]
    first = _SEPARATOR.search(trail)
    return lead, trail[first.start() :] if first else ""


def _prefix(names: Sequence[str]) -> str:
    low, high = min(names), max(names)
    same = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), None)
    return low[: min(len(low), len(high)) if same is None else same]


def _paired(
    masks: Iterable[str], keys: Mapping[str, str]
) -> Iterator[tuple[str, tuple[str, str, str]]]:
    """Give of each mask (key, what its path has before the key, and after it)."""
    numbers = _numbers(keys)
    longest = sorted(keys, key=len, reverse=True)
    for source in masks:
        name = stem(source)
        top = _top(source)
        base = len(top) + 1 if top else 0
        hit = _in_name(name, base, longest)
        if hit is None and numbers:
            digits = re.search(r"(\d+)\D*$", name[base:])
            key = numbers.get(int(digits[1])) if digits else None
            if digits and key is not None:
                at = base + digits.start(1)
                hit = key, at, at + len(digits[1])
                yield source, (key, f"{source[:at]}{{key:d}}", source[hit[2] :])
                continue
        if hit is not None:
            key, start, end = hit
            yield source, (key, f"{source[:start]}{{key}}", source[end:])


def _in_name(name: str, base: int, keys: Sequence[str]) -> tuple[str, int, int] | None:
    """Find the longest key that a path holds from its beginning on, or else between separators."""
    for key in keys:
        end = base + len(key)
        if name.startswith(key, base) and (end == len(name) or not name[end].isalnum()):
            return key, base, end
    for key in keys:
        at = name.rfind(key, base)
        end = at + len(key)
        if (
            at > base
            and not name[at - 1].isalnum()
            and (end == len(name) or not name[end].isalnum())
            and (len(key) > 2 or len(keys) > 1)
        ):
            return key, at, end
    return None


def _numbers(keys: Mapping[str, str]) -> dict[int, str]:
    """Index keys that are numbers, if all are and no two are the same."""
    if not keys or not all(re.fullmatch(r"[0-9]{1,18}", key) for key in keys):
        return {}
    numbers = {int(key): key for key in keys}
    return numbers if len(numbers) == len(keys) else {}


def _shapes(paired: Mapping[str, tuple[str, str, str]]) -> list[Shape]:
    """Group masks by what their names have around the key."""
    found: dict[str, dict[str, tuple[str, str | None]]] = {}
    for source, (key, before, after) in paired.items():
        pattern, name = _shape(before, after)
        found.setdefault(pattern, {})[source] = key, name
    found = _with_literals(found)
    if len(found) > _MOST_SHAPES:
        found = _merged(found)
    return [_named(pattern, files) for pattern, files in sorted(found.items())]


def _shape(before: str, after: str) -> tuple[str, str | None]:
    """Write the pattern of one mask, and give the name of an object in it."""
    rest = stem(f"x{after}")[1:]
    suffix = after[len(rest) :]
    name, number = parse_name(rest.replace("/", "_"))
    if rest.startswith("/") and name is None:
        return f"{before}/*{suffix}", None
    if name is not None and (at := rest.rfind(name)) >= 0:
        tail = rest[at + len(name) :]
        field = "annotator" if _READER.fullmatch(name) else "object"
        rest = f"{rest[:at]}{{{field}}}{_with_instance(tail, number)}"
        return f"{before}{rest}{suffix}", name
    return f"{before}{_with_instance(rest, number)}{suffix}", None


def _with_instance(text: str, number: int | None) -> str:
    if number is None:
        return text
    return re.sub(r"\d+(?=\D*$)", "{instance}", text, count=1)


Files = dict[str, tuple[str, str | None]]


def _with_literals(found: dict[str, Files]) -> dict[str, Files]:
    """Write out an object's name where all masks of a pattern have the same one."""
    written: dict[str, Files] = {}
    for pattern, files in found.items():
        names = {name for _, name in files.values()}
        heads = {name.partition("__")[0] for name in names if name and "__" in name}
        if len(names) == 1 and (only := next(iter(names))) is not None:
            pattern = pattern.replace("{object}", only)
        elif 0 < len(heads) < len(names) == sum("__" in (name or "") for name in names):
            pattern = pattern.replace("{object}", "{object}__*")
        written.setdefault(pattern, {}).update(files)
    return written


def _merged(found: dict[str, Files]) -> dict[str, Files]:
    """Bring many shapes to few: all that has no common form is text behind the key."""
    merged: dict[str, Files] = {}
    for pattern, files in found.items():
        before, field, after = re.split(r"(\{key(?::d)?\})", pattern, maxsplit=1)
        ends = Counter(source[len(stem(source)) :] for source in files)
        separator = after[:1] if after[:1] and after[0] in "_-/" else ""
        shape = f"{before}{field}{separator}{{object}}{ends.most_common(1)[0][0]}"
        merged.setdefault(shape, {}).update(files)
    return merged


def _named(pattern: str, files: Files) -> Shape:
    """Say what all masks of a pattern show, where their names or their folder's tell it."""
    names = {name for _, name in files.values()}
    told = None
    if not re.search(r"\{(object|annotator)\}", pattern):
        told = next(iter(names)) if len(names) == 1 else None
        if told is None or not re.fullmatch(r"[A-Za-z][\w+\- ]*", told):
            told = _of_folder(pattern)
    keys = {source: key for source, (key, _) in files.items()}
    shown = {source: name for source, (_, name) in files.items() if name is not None}
    return Shape(pattern, keys, told, {}, shown)


def _of_folder(pattern: str) -> str | None:
    """Read an object from the name of a folder of masks: `masks_mitochondria`."""
    folder = pattern.split("/")[0] if "/" in pattern else ""
    words = [w for w in _SEPARATOR.split(folder) if w and w.lower() not in _MASK_WORDS]
    return " ".join(words) if words and "{" not in folder else None


def _by_order(masks: Sequence[str], keys: Mapping[str, str]) -> Shape | None:
    """Pair as many masks as images by their order: the last resort."""
    if not masks or len(masks) != len(keys):
        return None
    ends = {source[len(stem(source)) :] for source in masks}
    top = _top(masks[0])
    ordered = sorted(keys, key=_natural), sorted(masks, key=_natural)
    of = {source: key for key, source in zip(*ordered, strict=True)}
    pattern = f"{top}/{{key}}{ends.pop() if len(ends) == 1 else '.*'}"
    base = len(top) + 1
    translated = {stem(source)[base:]: key for source, key in of.items()}
    return Shape(pattern, of, _of_folder(pattern), translated, {})


def _natural(text: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", text)
    return [(1, int(p), "") if p.isdigit() and p.isascii() else (0, 0, p) for p in parts]
