"""Segmentations of 3D Slicer (`.seg.nrrd`), which name what they show.

The fields are those of https://slicer.readthedocs.io/en/latest/developer_guide/modules/
segmentations.html: segment N has a name, a value and a layer. Layers may overlap; they lie along
the first axis of the file. Files of before 2020 have a layer for every segment, and no values.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from promptseg.errors import DataError
from promptseg.reader.folder import printable
from promptseg.reader.header import Header, check_promise, read_header
from promptseg.reader.itk import geometry, held, read_image
from promptseg.reader.table import Table
from promptseg.reader.volume import Volume, check_grid, check_numbers, oriented

_FIELD = re.compile(r"Segment(\d{1,4})_(Name|LabelValue|Layer)")


@dataclass(frozen=True, slots=True, eq=False)
class NamedVolume:
    """Labels, and the objects that their file says they are; None: it says nothing."""

    volume: Volume
    table: Table | None


def read_segments(path: Path) -> list[NamedVolume]:
    """Read the layers of a NRRD file, with the names that its header has.

    Raises
    ------
    DataError
        As `read_itk`.
    """
    header = read_header(path)
    is_layered = len(header.shape) == 4 and header.fields.get("kinds", "").startswith("list")
    n_layers = header.shape[0] if is_layered else 1
    shape = header.shape[1:] if is_layered else header.shape
    check_grid(shape, np.eye(4))
    check_promise(path, header)
    image = read_image(path, header)
    stored = held(image).T.reshape((n_layers, *shape[:3]), order="F")
    check_numbers(stored)
    affine, has_place, has_spacing = geometry(image, header)
    check_grid(shape, affine)
    tables = _tables(header, n_layers)
    volumes = [Volume(layer, affine, has_spacing, has_place=has_place) for layer in stored]
    return [
        NamedVolume(oriented(volume), table)
        for volume, table in zip(volumes, tables, strict=True)
        if table or n_layers == 1
    ]


def has_segments(path: Path) -> bool:
    """Whether a NRRD file names segments; False too if it cannot be read."""
    try:
        return any(map(_FIELD.fullmatch, read_header(path).fields))
    except DataError:
        return False


def _tables(header: Header, n_layers: int) -> list[dict[str, tuple[int, ...]]]:
    """Give the names and values of every layer."""
    segments: dict[int, dict[str, str]] = {}
    for field, text in header.fields.items():
        if match := _FIELD.fullmatch(field):
            segments.setdefault(int(match[1]), {})[match[2]] = text
    tables: list[dict[str, tuple[int, ...]]] = [{} for _ in range(n_layers)]
    for number, segment in sorted(segments.items()):
        name = printable(segment.get("Name", "").strip()) or f"segment {number}"
        is_old = "LabelValue" not in segment
        layer = _number(segment.get("Layer", str(number) if is_old else "0"), n_layers)
        value = _number(segment.get("LabelValue", "1"), 2**31)
        table = tables[layer]
        table[name] = (*table.get(name, ()), value)
    return tables


def _number(text: str, below: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 11) or int(text) >= below:
        raise DataError("its header is damaged: a segment has no usable value or layer")
    return int(text)
