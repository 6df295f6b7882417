"""A folder read by a mapping file: which files are images, and which masks belong to them."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path

from promptseg.errors import DataError
from promptseg.reader.folder import (
    MASK_FOLDERS,
    NO_IMAGE,
    OTHER_TYPE,
    ImageFile,
    Listing,
    MaskFile,
    images_by_key,
    mask_files,
    pair,
    printable,
    why_not,
)
from promptseg.reader.mapping import MappingFile, Masks
from promptseg.reader.mask_name import parse_name
from promptseg.reader.offsets import Offsets, read_offsets
from promptseg.reader.pattern import Keys, Pattern, keys_of

_NO_PATTERN = "no pattern of the mapping file fits it"
_NO_FOLDER = "it lies in no folder of images or masks"


@dataclass(slots=True)
class _Found:
    """What is found on the way: masks by the key of their image, and what is left out."""

    masks: dict[str, list[MaskFile]] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)  # keys of images of which a mask cannot be used
    left_out: list[tuple[str, str]] = field(default_factory=list)


def scan_by(folder: Path, mapping: MappingFile) -> Listing:
    """List the images of a folder with their masks, as a mapping file says.

    What the file leaves open is as `promptseg.reader.folder.scan` has it: images lie in `images/`,
    masks in `masks/` or `labels/`, and belong together by name. A file that a pattern of masks
    fits is a mask, even if one of images fits too.

    Raises
    ------
    DataError
        There is no such folder; a pattern fits nothing; two images have one key; a mask fits the
        patterns of two kinds.
    """
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}.")
    files = {s: why for s, why in files_in(folder) if not _fits(mapping.ignore, s)}
    of_masks = {s for masks in mapping.masks for s in files if _fits(masks.patterns, s)}
    found = _Found()
    images = _images(folder, mapping, {s: files[s] for s in files.keys() - of_masks}, found)
    if mapping.masks:
        _map_masks(folder, mapping, {s: files[s] for s in sorted(of_masks)}, images, found)
    else:
        _pair_masks(files, images, found)
    _list_unused(files, images.values(), of_masks, found, is_mapped=bool(mapping.masks))
    listed = (_image(source, key, mapping, found) for key, source in images.items())
    named = tuple((printable(source), why) for source, why in sorted(set(found.left_out)))
    return Listing(tuple(sorted(listed, key=lambda image: image.source)), named, None)


def files_in(folder: Path) -> Iterator[tuple[str, str | None]]:
    """List all files with the reason why they are not read, without hidden ones."""
    root = folder.resolve()
    for path in sorted(folder.rglob("*"), key=lambda path: path.as_posix()):
        source = path.relative_to(folder).as_posix()
        if any(part.startswith(".") for part in source.split("/")):
            continue
        reason = why_not(path, source, (root,))
        if reason is not None or path.is_file():
            yield source, reason


def _fits(patterns: Collection[Pattern], source: str) -> bool:
    return any(pattern.fits(source) is not None for pattern in patterns)


def _images_by_name(folder: Path, files: Mapping[str, str | None], found: _Found) -> dict[str, str]:
    below = sorted(source for source in files if source.startswith("images/"))
    images, doubles = images_by_key(source for source in below if files[source] is None)
    found.left_out += doubles
    found.left_out += [(s, why) for s in below if (why := files[s]) is not None]
    if not images:
        raise DataError(
            f"{folder} has no image in images/. A mapping file says where images are: "
            'images = "scans/{key}.png".'
        )
    return images


def _images(
    folder: Path, mapping: MappingFile, files: Mapping[str, str | None], found: _Found
) -> dict[str, str]:
    """Find the images by their keys, as they are in file names."""
    if not mapping.images:
        return _images_by_name(folder, files, found)
    ordered = sorted(files)
    images: dict[str, str] = {}
    for pattern in mapping.images:
        fitting = [(s, fields["key"]) for s in ordered if (fields := pattern.fits(s)) is not None]
        if not fitting:
            raise _fits_nothing(mapping, pattern, "images", ordered)
        for source, key in fitting:
            if (why := files[source]) is not None:
                found.left_out.append((source, why))
            elif (first := images.setdefault(key, source)) != source:
                raise DataError(
                    f"Two images have the key {key!r}: {first} and {source}. Change images in "
                    f"{mapping.name} so that keys differ.",
                    unnamed=f"Two images have one key. Change images in {mapping.name}.",
                )
    if not images:
        source, why = found.left_out[0]
        raise DataError(
            f"{folder} has no image that is read. Left out: {source} ({why}), ...",
            unnamed=f"{folder} has no image that is read: {why}, ...",
        )
    return images


def _fits_nothing(
    mapping: MappingFile, pattern: Pattern, what: str, files: Collection[str]
) -> DataError:
    near = get_close_matches(pattern.text, files, n=1, cutoff=0.0)
    there = f" There is, for example, {near[0]!r}." if near else ""
    told = f"{mapping.name}: no file fits {pattern.text!r} of {what}."
    return DataError(f"{told}{there}", unnamed=told)


def _image(source: str, key: str, mapping: MappingFile, found: _Found) -> ImageFile:
    fields = next((f for p in mapping.images if (f := p.fits(source)) is not None), {})
    return ImageFile(
        source,
        key.replace("#", "_"),
        tuple(_numbered(found.masks.get(key, []))),
        lost_mask=key in found.lost,
        modality=mapping.modality_of(source),
        subject=fields.get("subject"),
    )


def _pair_masks(files: Mapping[str, str | None], images: Mapping[str, str], found: _Found) -> None:
    """Find the masks in `masks/` or `labels/` by their names."""
    folder = next((f for f in MASK_FOLDERS if any(s.startswith(f + "/") for s in files)), None)
    if folder is None:
        return
    masks = [s for s in files if s.startswith(folder + "/")]
    by_key, orphans = pair((s for s in masks if files[s] is None), images.keys())
    lost, _ = pair((s for s in masks if files[s] is not None), images.keys())
    found.lost.update(lost)
    for key, sources in by_key.items():
        found.masks[key] = list(mask_files(key, sources, parse_name))
    found.left_out += [(s, NO_IMAGE) for s in orphans]
    found.left_out += [(s, why) for s in masks if (why := files[s]) is not None]


def _map_masks(
    folder: Path,
    mapping: MappingFile,
    files: Mapping[str, str | None],
    images: Mapping[str, str],
    found: _Found,
) -> None:
    """Find the masks by the patterns of a mapping file."""
    keys = keys_of(images.keys())
    taken: dict[str, Masks] = {}
    for masks in mapping.masks:
        offsets = None if masks.offsets is None else _offsets(folder, masks.offsets)
        own = _own_keys(masks, images, mapping) or keys
        for source, (key, fields) in _hits(masks, files, own, mapping).items():
            if (first := taken.setdefault(source, masks)) is not masks:
                raise DataError(
                    f"{mapping.name}: {source} fits two kinds of masks, {first.kind.path!r} "
                    f"and {masks.kind.path!r}.",
                    unnamed=f"{mapping.name}: a file fits two kinds of masks, "
                    f"{first.kind.path!r} and {masks.kind.path!r}.",
                )
            key = masks.keys.get(key, key)
            try:
                if (why := files[source]) is not None:
                    raise DataError(why)
                file = _mask(source, images[key], masks, fields, offsets)
                found.masks.setdefault(key, []).append(file)
            except DataError as error:
                found.lost.add(key)
                found.left_out.append((source, str(error)))
    orphans = [source for source in files if source not in taken]
    found.left_out += [(s, files[s] or "no image has the key in this mask's name") for s in orphans]


def _hits(
    masks: Masks, files: Collection[str], keys: Keys, mapping: MappingFile
) -> dict[str, tuple[str, dict[str, str]]]:
    """Read the names of masks: key, and what else they tell."""
    hits: dict[str, tuple[str, dict[str, str]]] = {}
    for pattern in masks.patterns:
        fitting = [source for source in files if pattern.fits(source) is not None]
        if not fitting:
            raise _fits_nothing(mapping, pattern, "[[masks]]", files)
        of_images = {s: hit for s in fitting if (hit := pattern.find(s, keys)) is not None}
        if not of_images:
            raise _belongs_to_nothing(mapping, pattern, fitting[0], keys)
        hits = of_images | hits
    return hits


def _own_keys(masks: Masks, images: Mapping[str, str], mapping: MappingFile) -> Keys | None:
    """Give the keys of masks that have others than their images; None where they have not."""
    for key in masks.keys.values():
        if key not in images:
            near = get_close_matches(key, images, n=1, cutoff=0.0)
            raise DataError(
                f"{mapping.name}: keys of {masks.kind.path!r} names the image {key!r}, which is "
                f"not there. Did you mean {near[0]!r}?",
                unnamed=f"{mapping.name}: keys of {masks.kind.path!r} names an image that is not "
                "there.",
            )
    return keys_of(masks.keys) if masks.keys else None


def _belongs_to_nothing(
    mapping: MappingFile, pattern: Pattern, source: str, keys: Keys
) -> DataError:
    fields = pattern.fits(source) or {}
    shown = ", ".join(map(repr, sorted(keys.text)[:3]))
    return DataError(
        f"{mapping.name}: no mask of {pattern.text!r} belongs to an image: {source} would have the "
        f"key {fields.get('key')!r}, and keys of images are {shown}.",
        unnamed=f"{mapping.name}: no mask of {pattern.text!r} belongs to an image.",
    )


def _mask(
    source: str, image: str, masks: Masks, fields: Mapping[str, str], offsets: Offsets | None
) -> MaskFile:
    told = fields.get("object")
    shows = masks.object_of(source, told)
    instance = fields.get("instance")
    return MaskFile(
        source,
        shows,
        None if instance is None else int(instance),
        masks.annotator or fields.get("annotator"),
        masks.kind,
        None if offsets is None else offsets.corner(source, image, told or shows),
    )


def _offsets(folder: Path, words: Mapping[str, str]) -> Offsets:
    """Read a table of offsets that has to lie in the folder."""
    path = folder / words["table"]
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"The table of offsets {words['table']!r} lies outside the folder.")
    return read_offsets(path, {word: name for word, name in words.items() if word != "table"})


def _numbered(files: Collection[MaskFile]) -> list[MaskFile]:
    """Give numbers to masks of one image, object and annotator that have none of their own."""
    groups: dict[tuple[str | None, str | None], list[MaskFile]] = {}
    for file in sorted(files, key=lambda file: file.source):
        groups.setdefault((file.object, file.annotator), []).append(file)
    numbered = []
    for group in groups.values():
        taken = {file.instance for file in group} - {None}
        first = 0 if taken else 1
        for file in group:
            if file.instance is None and len(group) > 1 and not _is_map(file):
                number = next(n for n in range(first, first + len(group) + 1) if n not in taken)
                taken.add(number)
                file = replace(file, instance=number)
            numbered.append(file)
    return sorted(numbered, key=lambda file: file.source)


def _is_map(file: MaskFile) -> bool:
    return file.kind is not None and bool(file.kind.labels or file.kind.channels)


def _list_unused(
    files: Mapping[str, str | None],
    images: Collection[str],
    of_masks: Collection[str],
    found: _Found,
    *,
    is_mapped: bool,
) -> None:
    """List what no pattern fits; files of the folder itself that are not read are papers."""
    known = {*images, *of_masks, *(source for source, _ in found.left_out)}
    known |= {mask.source for masks in found.masks.values() for mask in masks}
    why = _NO_PATTERN if is_mapped else _NO_FOLDER
    for source in files.keys() - known:
        if "/" in source or files[source] != OTHER_TYPE:
            found.left_out.append((source, why))
