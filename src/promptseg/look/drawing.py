"""Some images of a kind with their masks drawn over them."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from promptseg.errors import DataError
from promptseg.look.watch import Watch
from promptseg.pixels import displayed
from promptseg.reader.folder import ImageFile, printable
from promptseg.reader.frame import Frame, targets_in
from promptseg.reader.frames import read_frames
from promptseg.reader.kind import Kind
from promptseg.reader.labels import Naming
from promptseg.reader.reading import Reading
from promptseg.report.picture import data_uri, outline

_MOST_PICTURES, _MOST_TRIED = 3, 6
_MOST_OBJECTS = 60
_MOST_SLICES = 400
_SIDE, _BYTES = 480, 60_000


@dataclass(frozen=True, slots=True)
class Layer:
    """One object over an image."""

    name: str
    path: str  # SVG
    share: float  # of the image's pixels
    hue: int


@dataclass(frozen=True, slots=True)
class Drawn:
    """One image with its masks, or what they were left out for."""

    source: str
    width: int
    height: int
    uri: str
    layers: tuple[Layer, ...]
    n_more: int  # objects that are not drawn
    reasons: tuple[str, ...]
    place: str  # which slice of a volume


def drawn(
    folder: Path, images: Sequence[ImageFile], kind: Kind | None, watch: Watch
) -> Iterator[Drawn]:
    """Draw some images with their masks of one kind, spread over all."""
    naming = Naming(nameless="object", binary=kind is None)
    reading = Reading(folder=folder, dataset="look", naming=naming, keep_empty=True)
    chosen = np.unique(np.linspace(0, max(len(images) - 1, 0), _MOST_TRIED).astype(int))
    hues: dict[str, int] = {}  # an object has one colour in all images
    n_drawn = 0
    for index in chosen if images else ():
        image = images[index]
        own = replace(image, masks=tuple(mask for mask in image.masks if mask.kind is kind))
        picture = _picture(own, reading, hues, watch)
        if picture is not None:
            yield picture
            n_drawn += 1
        if n_drawn == _MOST_PICTURES:
            return


def _picture(
    image: ImageFile, reading: Reading, hues: dict[str, int], watch: Watch
) -> Drawn | None:
    """Draw an image, or that slice of a volume that shows most."""
    if image.source in watch.suspects and watch.why("draw", image.source) is None:
        _try_alone(image, reading, watch)
    whys = [watch.why("draw", mask.source) for mask in image.masks]
    reasons = [why for why in whys if why is not None]
    left = (mask for mask, why in zip(image.masks, whys, strict=True) if why is None)
    image = replace(image, masks=tuple(left))
    picture = None
    try:
        with watch.reading("draw", image.source):
            frame = _fullest(image, reading, reasons)
            told = tuple(dict.fromkeys(reasons))
            picture = None if frame is None else _drawn(frame, told, hues)
    except DataError as error:
        reasons.append(str(error))
    told = tuple(dict.fromkeys(reasons))
    if picture is None and told:
        return Drawn(printable(image.source), 0, 0, "", (), 0, told, "")
    return picture


def _try_alone(image: ImageFile, reading: Reading, watch: Watch) -> None:
    """Read an image without masks, then with each mask, to see which ends the process."""
    for mask in (None, *image.masks):
        own = replace(image, masks=() if mask is None else (mask,))
        with suppress(DataError), watch.reading("alone", (mask or image).source):
            _fullest(own, reading, [])


def _fullest(image: ImageFile, reading: Reading, reasons: list[str]) -> Frame | None:
    """Give the frame of an image that shows most; what is left out is added to `reasons`."""
    best: tuple[int, Frame] | None = None
    try:
        for n_seen, piece in enumerate(read_frames(image, reading)):
            if not isinstance(piece, Frame):
                reasons.append(piece.reason)
                continue
            n_drawn = sum(int(np.count_nonzero(labels.values)) for labels in piece.labels)
            if best is None or n_drawn > best[0]:
                best = n_drawn, piece
            if n_seen > _MOST_SLICES:
                break
    except DataError as error:
        reasons.append(str(error))
    return None if best is None else best[1]


def _drawn(frame: Frame, reasons: tuple[str, ...], hues: dict[str, int]) -> Drawn:
    picture = frame.picture
    shown = displayed(picture.pixels, picture.lo, picture.hi)
    height, width = shown.shape[:2]
    targets = [target for _, target in targets_in(frame)]
    layers = []
    for target in targets[:_MOST_OBJECTS]:
        name = target.target_id.partition("#")[2]
        path = outline(target.mask, max(height, width) / 1000)
        share = np.count_nonzero(target.mask) / target.mask.size
        # by the golden angle, neighbours differ most
        layers.append(
            Layer(name, path, share, hues.setdefault(name, (len(hues) * 137 + 200) % 360))
        )
    return Drawn(
        source=printable(frame.source),
        width=width,
        height=height,
        uri=data_uri(shown, side=_SIDE, most_bytes=_BYTES),
        layers=tuple(layers),
        n_more=len(targets) - len(layers),
        reasons=reasons,
        place=f"{frame.place.plane} slice {frame.place.slice_index}" if frame.place else "",
    )
