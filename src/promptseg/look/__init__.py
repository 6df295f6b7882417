"""`promptseg curate --look`: what a folder seems to hold, drawn, and a mapping file for it."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from promptseg.errors import DataError
from promptseg.isolated import Limits, Lost, Processes
from promptseg.look.content import WORDS, Content, look_into
from promptseg.look.drawing import Drawn, drawn
from promptseg.look.names import Guess, Shape, by_name, guess
from promptseg.look.proposal import Part, proposed
from promptseg.look.watch import Watch
from promptseg.reader.folder import Listing, printable, scan
from promptseg.reader.kind import Kind
from promptseg.reader.mapped import files_in, scan_by
from promptseg.reader.mapping import MappingFile, read_mapping

__all__ = ["First", "Section", "look", "look_apart"]
_MOST_LOST = 30  # processes: each may cost as long as a look
_LIMITS = Limits(silent_s=3600.0)  # nothing is heard before all is drawn
PROPOSAL = "mapping.toml"
_BY_NAME = "names and headers"


@dataclass(frozen=True, slots=True)
class Section:
    """Masks of one kind: what they seem to be, and some of them over their images."""

    title: str
    content: Content | None  # None: a mapping file was given, which says what they are
    what: str
    n_masks: int
    n_images: int
    pictures: tuple[Drawn, ...]


@dataclass(frozen=True, slots=True)
class First:
    """What a first look at a folder gives."""

    folder: str
    page: Path
    mapping: Path | None  # the proposal, as it was written
    text: str  # of the mapping file
    n_images: int
    without: tuple[str, ...]  # images without masks
    sections: tuple[Section, ...]
    left_out: tuple[tuple[str, str], ...]  # (source, reason)
    reasons: dict[str, int]
    error: str | None  # why the proposal cannot be drawn
    images: tuple[str, ...]  # the patterns of images
    has_modality: bool


def look(folder: Path, out: Path, mapping: Path | None = None, watch: Watch | None = None) -> First:
    """Look at a folder: write a page and, unless a mapping file is given, a proposal of one.

    Parameters
    ----------
    out
        The page to write (.html), or a folder for it.
    mapping
        Draw what this mapping file makes of the folder.
    watch
        Which files are not to be read.

    Raises
    ------
    DataError
        There is no such folder, or another mapping file lies where the proposal would go.
    """
    from promptseg.look.page import write_page

    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}.")
    watch = watch or Watch()
    page = out if out.suffix.lower() in (".html", ".htm") else out / "look.html"
    files = list(files_in(folder))
    readable = [source for source, why in files if why is None]
    guessed = guess(readable)
    contents: dict[str, Content] | None = None
    if mapping is None:
        parts = _parts(folder, guessed, watch)
        contents = {part.pattern: part.content for part in parts}
        text = proposed(folder, guessed, parts)
        target = _write_proposal(page.parent / PROPOSAL, text)
    else:
        target = mapping
        text = mapping.read_text("utf-8", errors="replace") if mapping.is_file() else ""
    first = _drawn(folder, page, target, text, contents, watch)
    write_page(first)
    return first


def look_apart(folder: Path, out: Path, mapping: Path | None = None) -> First:
    """Look in a process of its own, whose memory is bounded and which a file may crash.

    Then another process looks again, without that file.

    Raises
    ------
    DataError
        As `look`; or a process was lost and none of its files to blame, or too many were.
    """
    with TemporaryDirectory() as place:
        watch, why = Watch(note=Path(place) / "at"), ""
        for _ in range(_MOST_LOST):
            task = folder, out, mapping, watch
            ((_, told),) = Processes(1, _LIMITS).one_each(_looked, [task], _size)
            if isinstance(told, DataError):
                raise told
            if not isinstance(told, Lost):
                return told
            why = told.reason
            if watch.at() is None:
                raise DataError(f"The folder cannot be looked at: {why}.")
            watch = watch.after(why)
    raise DataError(f"The folder cannot be looked at: {_MOST_LOST} times, {why}.")


def _looked(task: tuple[Path, Path, Path | None, Watch | None]) -> First | DataError:
    try:
        return look(*task)
    except DataError as error:
        return error


def _size(_: First | DataError) -> int:
    return 0


def _parts(folder: Path, guessed: Guess, watch: Watch) -> list[Part]:
    """Look into masks of every shape; what differs by object is parted, what is alike joined."""

    def look_at(shape: Shape) -> Part:
        images = {source: guessed.images[key] for source, key in shape.keys.items()}
        return Part((shape,), look_into(folder, sorted(shape.keys), images.__getitem__, watch))

    parts: list[Part] = []
    for shape in guessed.shapes:
        whole = look_at(shape)
        by_object = [look_at(part) for part in by_name(shape)] if whole.is_mixed else []
        differ = len({(part.content.what, part.content.threshold) for part in by_object}) > 1
        for part in by_object if differ else [whole]:
            like = next((i for i, other in enumerate(parts) if other.joins(part)), None)
            if like is None:
                parts.append(part)
            else:
                parts[like] = parts[like].with_shapes(part.shapes)
    return parts


def _write_proposal(path: Path, text: str) -> Path:
    """Write a proposal, but not over a file that somebody may have changed."""
    if path.exists() and path.read_bytes() != text.encode():
        raise DataError(
            f"{path} is there already and says something else. Pass it by --mapping to see what it "
            "makes of the folder, or another place by --out."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _drawn(
    folder: Path,
    page: Path,
    target: Path,
    text: str,
    contents: dict[str, Content] | None,
    watch: Watch,
) -> First:
    """Read the folder as the mapping file says, and draw what comes of it.

    `contents` are what our own proposal was made of; None where a mapping file was given.
    """
    error: str | None = None
    listing, mapping = Listing((), (), None), MappingFile(name=target.name)
    try:
        mapping = read_mapping(target)
        listing = scan_by(folder, mapping) if mapping.has_patterns() else scan(folder)
    except DataError as problem:
        if contents is None:
            raise
        error = str(problem)
    left_out = (*watch.told(), *listing.left_out)
    return First(
        folder=printable(folder.resolve().name),
        page=page,
        mapping=target,
        text=text,
        n_images=len(listing.images),
        without=tuple(printable(i.source) for i in listing.images if not i.masks),
        sections=tuple(_sections(folder, listing, mapping, contents or {}, watch)),
        left_out=left_out,
        reasons=dict(Counter(why for _, why in left_out).most_common()),
        error=error,
        images=tuple(found.text for found in mapping.images),
        has_modality=bool(mapping.modality or mapping.modalities),
    )


def _sections(
    folder: Path,
    listing: Listing,
    mapping: MappingFile,
    contents: dict[str, Content],
    watch: Watch,
) -> Iterator[Section]:
    kinds: list[Kind | None] = [masks.kind for masks in mapping.masks]
    kinds = kinds or [None]
    for kind in kinds:
        images = [i for i in listing.images if any(mask.kind is kind for mask in i.masks)]
        if kind is None and not images:
            continue
        content = None if kind is None else contents.get(kind.path)
        yield Section(
            title=_BY_NAME if kind is None else kind.path,
            content=content,
            what=_what(content, None if kind is None else kind.in_words()),
            n_masks=sum(mask.kind is kind for image in images for mask in image.masks),
            n_images=len(images),
            pictures=tuple(drawn(folder, images, kind, watch)),
        )


def _what(content: Content | None, said: str | None) -> str:
    return WORDS[content.what] if content is not None else said or f"what {_BY_NAME} say"
