"""A folder of `images/` and `masks/` (or `labels/`): which mask belongs to which image, by name.

A mask belongs to the image that has its path and stem (`masks/a/1.png`, `images/a/1.jpg`), or to
the image whose stem begins its own (`1_liver_2.png`: the object "liver", instance 2, of image 1),
or to the image that is called like a folder it lies in (`masks/1/nucleus_07.png`).
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from promptseg.errors import DataError
from promptseg.isolated import Processes
from promptseg.reader.companion import companions
from promptseg.reader.dicom.header import is_dicom
from promptseg.reader.dicom.model import DicomMask, Series
from promptseg.reader.kind import Kind
from promptseg.reader.mask_name import ReadName, instance_alone, parse_frame, parse_name

ARRAYS = (".npy", ".npz")
VIDEOS = (".avi", ".mp4", ".mov", ".mkv")
RASTERS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif")
PICTURES = (*RASTERS, *ARRAYS, *VIDEOS)
# .hdr is read with the .img beside it
VOLUMES = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".nhdr", ".mha", ".mhd", ".hdr")
MASK_FOLDERS = ("masks", "labels")
_BROKEN = "a broken link"
_LEADS_OUT = "a link that leads out of the folder"
OTHER_TYPE = "files of this type are not read"
NO_IMAGE = "no image belongs to this mask by its name"


@dataclass(frozen=True, slots=True)
class MaskFile:
    """A mask file of one image, and what its name tells."""

    source: str  # path below the folder, or what stands for it
    object: str | None = None
    instance: int | None = None
    annotator: str | None = None
    kind: Kind | None = None  # what a mapping file says of it
    corner: tuple[int, int] | None = None  # (top, left): where a cropped mask lies in its image
    path: str | None = None  # below the folder, where that is not `source`
    dicom: DicomMask | None = None

    @property
    def where(self) -> str:
        """Give the path below the folder."""
        return self.path or self.source

    @property
    def is_one_object(self) -> bool:
        """Whether the file's name promises the mask of one object, not a label map."""
        return self.object is not None or self.instance is not None


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image or volume with its mask files."""

    source: str  # path below the folder, or what stands for it
    key: str  # path below images/, without suffix and with _ for #
    masks: tuple[MaskFile, ...]
    lost_mask: bool = False  # a mask of it cannot be read, so that it may show more than they say
    modality: str | None = None  # where images of a folder differ
    subject: str | None = None  # where its name tells
    series: Series | None = None  # of DICOM; then `source` is no path

    @property
    def paths(self) -> tuple[str, ...]:
        """List its files by their paths below the folder."""
        if self.series is None:
            return (self.source,)
        return tuple(dict.fromkeys(one.path for one in self.series.slices))

    @property
    def where(self) -> str:
        """Give the path of its first file."""
        return self.paths[0]

    @property
    def is_volume(self) -> bool:
        """Whether it has three axes in the patient's space."""
        return is_volume(self.source) if self.series is None else self.series.affine is not None


@dataclass(frozen=True, slots=True)
class Listing:
    """All that a folder holds, in the order of its paths; `left_out` are (source, reason)."""

    images: tuple[ImageFile, ...]
    left_out: tuple[tuple[str, str], ...]
    mask_folder: str | None


@dataclass(frozen=True, slots=True)
class _Claim:
    source: str
    key: str  # of the image
    rest: str  # what the mask's name says beyond the image's
    in_folder: bool  # the image's name is the folder's


def is_volume(source: str) -> bool:
    """Tell a volume file from a picture by its suffix."""
    return source.lower().endswith(VOLUMES)


def is_video(source: str) -> bool:
    """Tell a video from a picture by its suffix."""
    return source.lower().endswith(VIDEOS)


def printable(text: str) -> str:
    r"""Write what a file's name has beside UTF-8 as escapes (`\udce9`): nothing else stores it."""
    return text.encode("utf-8", "backslashreplace").decode()


def image_key(source: str) -> str:
    """Cut the first folder and the suffix off a path; # parts the ids of targets, so it goes."""
    known = (s for s in (*VOLUMES, *PICTURES) if source.lower().endswith(s))
    suffix = next(known, PurePath(source).suffix)
    return source[: len(source) - len(suffix)].partition("/")[2].replace("#", "_")


def scan(folder: Path, one_object: bool = False, processes: Processes | None = None) -> Listing:
    """List the images of a folder with their masks.

    Parameters
    ----------
    one_object
        All masks show one kind of object, so names of mask files tell no objects.
    processes
        What reads the headers of DICOM; None: this process.

    Raises
    ------
    DataError
        There is no such folder or no `images/` in it, or that holds no image.
    """
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}.")
    read_name = instance_alone if one_object else parse_name
    processes = processes or Processes()
    if not (folder / "images").is_dir():
        return _scan_dicom(folder, read_name, processes)
    images, left_out = files_below(folder, "images")
    mask_folder = next((name for name in MASK_FOLDERS if (folder / name).is_dir()), None)
    masks, strange = files_below(folder, mask_folder) if mask_folder else ([], [])
    dicom = _dicom_files(folder, [*left_out, *strange])
    if not images and not dicom:
        kinds = ", ".join((*PICTURES, *VOLUMES))
        raise DataError(
            f"{folder / 'images'} holds no image. Expected are DICOM, or files ending in {kinds}."
            + (f" Left out: {left_out[0][0]} ({left_out[0][1]}), ..." if left_out else ""),
            unnamed=f"{folder / 'images'} holds no image that is read.",
        )
    by_key, doubles = images_by_key(images)
    claims, orphans = _claims(masks, by_key.keys())
    lost, _ = _claims((source for source, _ in strange), by_key.keys())
    lost_for_sure, _ = _claims((s for s, why in strange if why != OTHER_TYPE), by_key.keys())
    listed, misnamed = [], []
    for key, source in by_key.items():
        own, ambiguous = _without_ambiguous(claims.get(key, []))
        misnamed += ambiguous
        is_lost = key in (lost_for_sure if own else lost)
        listed.append(ImageFile(source, key, _mask_files(own, read_name), is_lost))
    unread = _unread_folders(folder, mask_folder)
    if unread and mask_folder is None:
        raise DataError(f"{folder / unread[0][0]} is a broken link, so that there are no masks.")
    left_out += [*doubles, *unread, *strange, *orphans, *misnamed]
    listing = Listing(tuple(listed), tuple(left_out), mask_folder)
    return _with_dicom(folder, dicom, listing, read_name, processes) if dicom else listing


def _scan_dicom(folder: Path, read_name: ReadName, processes: Processes) -> Listing:
    """List a folder without images/: DICOM says itself what is an image and what a mask."""
    known, others = files_below(folder, ".")
    dicom = _dicom_files(folder, others)
    if not dicom:
        raise DataError(
            f"{folder} has no folder images/. Expected are images/ and masks/ (or labels/) "
            "with files of the same names, or DICOM files anywhere."
        )
    left_out = [(source, NO_IMAGE) for source in known]
    listing = Listing((), (*others, *left_out), None)
    return _with_dicom(folder, dicom, listing, read_name, processes)


def _dicom_files(folder: Path, others: Iterable[tuple[str, str]]) -> list[str]:
    """Find DICOM among the files whose names say nothing."""
    return [s for s, why in others if why == OTHER_TYPE and is_dicom(folder / s)]


def _with_dicom(
    folder: Path, dicom: list[str], listing: Listing, read_name: ReadName, processes: Processes
) -> Listing:
    from promptseg.reader.dicom.listing import with_series  # which needs our words for images

    return with_series(folder, dicom, listing, read_name, processes)


def pair(
    masks: Iterable[str], keys: Collection[str]
) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Find the masks of each image as `scan` does, from `image_key`s that are known already.

    Returns the sources of the masks by key, and those that belong to no image for sure.
    """
    claims, orphans = _claims(masks, keys)
    by_key, left = {}, [source for source, _ in orphans]
    for key, of_image in claims.items():
        own, ambiguous = _without_ambiguous(of_image)
        by_key[key] = tuple(claim.source for claim in own)
        left += [source for source, _ in ambiguous]
    return by_key, left


def mask_files(key: str, masks: Iterable[str], read_name: ReadName) -> tuple[MaskFile, ...]:
    """Read the names of the masks that `pair` found for an image."""
    claims, _ = _claims(masks, {key})
    return _mask_files(claims.get(key, []), read_name)


def _unread_folders(folder: Path, chosen: str | None) -> list[tuple[str, str]]:
    """List the folders of masks that are there, but not read, with the reason."""
    others = [name for name in MASK_FOLDERS if name != chosen]
    broken = [(name, _BROKEN) for name in others if _is_broken(folder / name)]
    unread = [(name, f"{chosen}/ is read instead") for name in others if (folder / name).is_dir()]
    return [*broken, *unread]


def _is_broken(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def files_below(
    folder: Path, name: str, pictures: tuple[str, ...] = PICTURES
) -> tuple[list[str], list[tuple[str, str]]]:
    """List the readable files below a folder, and the others with the reason."""
    known, others = [], []
    roots = (folder.resolve(), (folder / name).resolve())  # the second may be a link of the user's
    for path in sorted((folder / name).rglob("*"), key=lambda path: path.as_posix()):
        source = path.relative_to(folder).as_posix()
        if path.name.startswith("."):
            continue  # files of the operating system
        if reason := why_not(path, source, roots, pictures):
            others.append((printable(source), reason))
        elif path.is_file():
            known.append(source)
    parts = companions(folder, known)
    others = [(source, why) for source, why in others if source not in parts]
    first = "./" if name == "." else ""  # a first folder, as all paths have
    return [first + source for source in known], [(first + source, why) for source, why in others]


def why_not(
    path: Path, source: str, roots: Collection[Path], pictures: tuple[str, ...] = PICTURES
) -> str | None:
    """Say why a file is not read; None for a good one and for a plain folder.

    A link may lead to a file below the `roots`, which are resolved.
    """
    if _is_broken(path):
        return _BROKEN
    if path.is_dir():
        return "links to folders are not followed" if path.is_symlink() else None
    if path.is_symlink() and not any(path.resolve().is_relative_to(root) for root in roots):
        return _LEADS_OUT
    if source != printable(source):
        return "its name is not in UTF-8"
    if path.suffix.lower() == ".dcm" and not is_dicom(path):
        return "it is no DICOM file: it has no preamble"
    is_known = path.is_file() and source.lower().endswith((*pictures, *VOLUMES))
    return None if is_known else OTHER_TYPE


def images_by_key(images: Iterable[str]) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Index the images by their path without suffix; of two with one key the first counts."""
    by_key: dict[str, str] = {}
    doubles = []
    for source in images:
        first = by_key.setdefault(image_key(source), source)
        if first != source:
            doubles.append(
                (source, "another image has the same name but for its suffix (or # for _)")
            )
    return by_key, doubles


def _claims(
    masks: Iterable[str], keys: Collection[str]
) -> tuple[dict[str, list[_Claim]], list[tuple[str, str]]]:
    claims: dict[str, list[_Claim]] = {}
    orphans = []
    for source in masks:
        claim = _claim(source, keys)
        if claim is None:
            orphans.append((source, NO_IMAGE))
        else:
            claims.setdefault(claim.key, []).append(claim)
    return claims, orphans


def _claim(source: str, keys: Collection[str]) -> _Claim | None:
    """Find the image a mask belongs to: the longest key that begins the mask's own."""
    key = image_key(source)
    if key in keys:
        return _Claim(source, key, "", False)
    name_at = key.rfind("/") + 1
    for end in range(len(key) - 1, name_at, -1):
        if key[end] in "_-" and key[:end] in keys:
            return _Claim(source, key[:end], key[end:], False)
    parts = key.split("/")
    for count in range(len(parts) - 1, 0, -1):
        parent = "/".join(parts[:count])
        if parent in keys:
            return _Claim(source, parent, parts[-1].removeprefix(parts[count - 1]), True)
    return None


def _without_ambiguous(claims: list[_Claim]) -> tuple[list[_Claim], list[tuple[str, str]]]:
    """Leave out `1_2` beside `1`: the mask of an image that is missing, maybe."""
    if not any(claim.rest == "" for claim in claims):
        return claims, []
    plain = [c for c in claims if not c.in_folder and c.rest and c.rest.strip("_-").isdigit()]
    reason = "no image of this name, and the nearest has a mask of its own name"
    return [c for c in claims if c not in plain], [(c.source, reason) for c in plain]


def _mask_files(claims: Iterable[_Claim], read_name: ReadName) -> tuple[MaskFile, ...]:
    """Read the names of an image's masks, and number those that share an object."""
    groups: dict[str | None, list[tuple[MaskFile, bool]]] = {}
    for claim in claims:
        file = MaskFile(claim.source, *read_name(claim.rest))
        groups.setdefault(file.object, []).append((file, claim.in_folder))
    files = [file for group in groups.values() for file in _numbered(group)]
    return tuple(sorted(files, key=lambda file: file.source))


def _numbered(group: list[tuple[MaskFile, bool]]) -> list[MaskFile]:
    """Give numbers to the nameless masks of a folder, and to `_mask` beside `_mask_1`."""
    taken = {file.instance for file, _ in group} - {None}
    first = 0 if taken else 1
    files = []
    for file, in_folder in group:
        if file.instance is None and (taken or (in_folder and file.object is None)):
            number = next(n for n in range(first, first + len(group) + 1) if n not in taken)
            taken.add(number)
            file = replace(file, instance=number)
        files.append(file)
    return files


def frame_file(key: str, file: MaskFile) -> tuple[MaskFile, int] | None:
    """Read the name of a mask of one frame of a stack: its number, and what else it tells.

    The number stands first or last beside the name of the stack, or is the name in a folder called
    like it: `a_0007.png`, `a_liver_0007.png`, `a/0007.png`, `a/frame_0007.png`, `a/0007_liver.png`.
    Of a file that a mapping gave, and that is not called like that, the instance is the number.
    """
    claim = _claim(file.source, {key})
    frame = None if claim is None else parse_frame(claim.rest)
    if claim is None or file.kind is not None:  # the mapping says what it shows
        number = file.instance if frame is None else frame[1]
        return None if number is None else (replace(file, instance=None), number)
    if frame is None:
        return None
    object_name, instance = parse_name(frame[0])
    if file.object is None:  # names tell no objects
        object_name = None
    return replace(file, object=object_name, instance=instance), frame[1]
