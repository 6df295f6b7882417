"""The mapping file that a first look proposes, as text to be read and changed."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from promptseg.look.content import Content
from promptseg.look.names import Guess, Shape

_MODALITIES = {  # words of paths -> as the study names it
    "ct": "CT",
    "mri": "MRI",
    "mr": "MRI",
    "flair": "FLAIR MRI",
    "us": "US",
    "ultrasound": "US",
    "xray": "X-ray",
    "cxr": "X-ray",
    "fundus": "Fundus",
    "dermoscopy": "Dermoscopy",
    "histology": "Histopathology",
    "pathology": "Histopathology",
    "endoscopy": "Colonoscopy",
    "colonoscopy": "Colonoscopy",
    "microscopy": "Microscopy",
    "sem": "SEM",
    "tem": "TEM",
    "em": "EM",
}
_COLUMNS = {
    "top": ("top", "y", "y0", "ymin", "y_min", "row"),
    "left": ("left", "x", "x0", "xmin", "x_min", "col", "column"),
}
_MOST_LABELS = 40
_MOST_TABLES = 20


@dataclass(frozen=True, slots=True)
class Part:
    """Masks of one shape, or of several that are alike, and what they hold."""

    shapes: tuple[Shape, ...]
    content: Content

    @property
    def pattern(self) -> str:
        """The patterns, as a kind of masks calls itself."""
        return ", ".join(shape.pattern for shape in self.shapes)

    @property
    def object(self) -> str | None:
        """What all of them show, where names tell."""
        return self.shapes[0].object

    @property
    def is_mixed(self) -> bool:
        """Whether masks of several objects are among them, of which one may be another kind."""
        return self.content.what in ("labels", "soft", "instances")

    @property
    def is_plain(self) -> bool:
        """Whether we say what they show, rather than their names or values."""
        has_name = any("{object}" in s.pattern or "{annotator}" in s.pattern for s in self.shapes)
        return not has_name and self.content.what not in ("labels", "channels")

    def joins(self, other: "Part") -> bool:
        """Whether masks in one folder show the same, and differ by their names only."""
        folders = {shape.pattern.partition("{")[0] for shape in (*self.shapes, *other.shapes)}
        is_like = (self.content.what, self.content.threshold, self.object) == (
            *(other.content.what, other.content.threshold),
            other.object,
        )
        return self.is_plain and other.is_plain and is_like and len(folders) == 1

    def with_shapes(self, shapes: tuple[Shape, ...]) -> "Part":
        """Give this with more shapes."""
        return replace(self, shapes=(*self.shapes, *shapes))


def proposed(folder: Path, guess: Guess, parts: Sequence[Part]) -> str:
    """Write a mapping file."""
    known = _modality(folder)
    lines = [
        f"# proposed by promptseg curate {folder.resolve().name} --look: look at every line",
        f"modality = {_text(known)} # is it?" if known else '# modality = "CT" # say it',
        '# licence = "CC-BY-4.0"',
        '# subject = "patient([0-9]+)" # regular expression that finds the patient in a path',
    ]
    if guess.image_patterns:  # none where all is DICOM
        lines.append(f"images = {_texts(guess.image_patterns)}")
    if not parts and not guess.unpaired:
        lines.append("# no masks that can be read were found; --keep-empty keeps images without")
    told = [part.object for part in parts if part.is_plain]
    for part in parts:
        is_double = part.is_plain and told.count(part.object) > 1
        lines += ["", *_table(folder, part, is_double=is_double)]
    return "\n".join(lines) + "\n"


def _table(folder: Path, part: Part, *, is_double: bool) -> list[str]:
    content = part.content
    lines = ["[[masks]]", f"path = {_texts([shape.pattern for shape in part.shapes])}"]
    has_name = any("{object}" in shape.pattern for shape in part.shapes)
    is_numbered = any("{instance}" in shape.pattern for shape in part.shapes)
    if content.what == "channels":
        lines += ["channels = [ # name them in the order of the file", *_channels(content), "]"]
    elif content.what == "labels" and not has_name and not is_numbered:
        return [*lines, *_translated(part), *_labels(content)]
    elif has_name:
        lines.append(_replaced(part))
    else:
        remark = "" if part.object else " # what do they show?"
        lines.append(f"object = {_text(part.object or 'object')}{remark}")
    if content.threshold is not None:
        lines.append(f"threshold = {content.threshold:g} # what lies above is the object")
    if content.what in ("instances", "outline"):
        lines.append("instances = true" if content.what == "instances" else "outline = true")
    if content.what == "cropped":
        lines.append(_offsets(folder, part.shapes[0]))
    if is_double:
        name = PurePosixPath(part.pattern.partition("{")[0]).name or "second"
        told = "other masks show the same; one kind may be ignored"
        lines.append(f"annotator = {_text(name)} # {told}")
    return lines + _translated(part)


def _channels(content: Content) -> list[str]:
    return [f"    {_text(f'channel {n + 1}')}," for n in range(min(content.n_channels, 1000))]


def _labels(content: Content) -> list[str]:
    lines = [
        "",
        "[masks.labels] # name them; [1, 2] joins values; 0 is background unless it is named",
    ]
    for value in content.values[:_MOST_LABELS]:
        remark = f"{100 * value.share:.2g} % of the pixels, in {value.n_files} of the files"
        number = int(value.value)
        lines.append(f"{_text(f'label {number}')} = {number} # {remark}")
    return lines


def _replaced(part: Part) -> str:
    """Turn + or _ in names of objects to spaces."""
    names = (source.rsplit("/", 1)[-1] for shape in part.shapes for source in shape.keys)
    sign = "+" if any("+" in name for name in names) else "_"
    return f'replace = {{ {_text(sign)} = " " }} # in the names of objects'


def _translated(part: Part) -> list[str]:
    """Write down what nothing but the order tells."""
    translated = part.shapes[0].translated
    if not translated:
        return []
    pairs = [f"{_text(mask)} = {_text(image)}" for mask, image in translated.items()]
    return ["", "[masks.keys] # masks to images by their order: look whether it is right", *pairs]


def _offsets(folder: Path, shape: Shape) -> str:
    """Find the table that says where cropped masks lie."""
    for path in sorted(folder.glob("*.csv"))[:_MOST_TABLES]:
        found = _columns(path, shape)
        if found:
            told = {"table": path.name, **found}
            inner = ", ".join(f"{word} = {_text(name)}" for word, name in told.items())
            return f"offsets = {{ {inner} }}"
    return (
        '# offsets = { table = "boxes.csv", file = "File", top = "Top", left = "Left" } '
        "# say where they lie"
    )


def _columns(path: Path, shape: Shape) -> dict[str, str] | None:
    """Find the columns for corners, and those that tell a mask's file, or its image and object."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            header = [name for name in reader.fieldnames or [] if name]
            rows = [row for row, _ in zip(reader, range(1000), strict=False)]
    except (OSError, UnicodeDecodeError, csv.Error):
        return None
    corner = {
        word: next((name for name in header if name.strip().lower() in names), "")
        for word, names in _COLUMNS.items()
    }
    if not rows or not all(corner.values()):
        return None
    cells = {name: {PurePosixPath(str(row[name])).name for row in rows} for name in header}
    files = {PurePosixPath(source).name for source in shape.keys}
    if of_file := next((name for name in header if files & cells[name]), None):
        return {"file": of_file, **corner}
    keys = {PurePosixPath(key).name for key in shape.keys.values()}
    stems = {name: {PurePosixPath(cell).stem for cell in cells[name]} for name in header}
    image = next((name for name in header if keys & stems[name]), None)
    objects = {name.split("__")[0].replace("_", " ").casefold() for name in files}
    folded = {name: {cell.replace("_", " ").casefold() for cell in cells[name]} for name in header}
    shown = next((name for name in header if objects & folded[name]), None)
    return None if image is None or shown is None else {"image": image, "object": shown, **corner}


def _modality(folder: Path) -> str | None:
    words = folder.resolve().name.lower().replace("-", "").split("_")
    known = [_MODALITIES[word] for word in words if word in _MODALITIES]
    return known[0] if len(set(known)) == 1 else None


def _text(text: str) -> str:
    """Write a TOML string: JSON escapes what TOML does, but for one sign."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _texts(texts: Sequence[str]) -> str:
    inner = ", ".join(map(_text, texts))
    return inner if len(texts) == 1 else f"[{inner}]"
