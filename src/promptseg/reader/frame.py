"""Frames: 2D images, each with the label arrays that lie on it.

A picture gives one frame, a volume one for every slice of the planes it is cut along. Masks that
do not fit come as drops with their reason, and the rest goes on. `promptseg.reader.frames` gives
those of any file.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from promptseg.errors import DataError
from promptseg.reader import volume as volumes
from promptseg.reader.folder import ImageFile
from promptseg.reader.frame_labels import (
    NO_MASK,
    Labels,
    are_all_empty,
    read_labels,
    reader_on_picture,
    targets_of,
)
from promptseg.reader.image import Picture, only_page
from promptseg.reader.intensity import MIN_MAX, shaded, shades_of_slice, shades_of_volume
from promptseg.reader.pages import Pages
from promptseg.reader.reading import PlaneChoice, Reading
from promptseg.rows import DropRow
from promptseg.sample import Place, Target

FRAME = "frame"  # the plane of what is no slice of a volume


@dataclass(frozen=True, slots=True)
class Tile:
    """The image that a tile was cut from, and the pixel of it where the tile begins."""

    tile_of: str
    tile_y: int
    tile_x: int


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Frame:
    """One 2D image on its way into a corpus."""

    image_id: str
    source: str
    picture: Picture
    labels: tuple[Labels, ...]
    spacing_yx_mm: tuple[float, float] | None
    place: Place | None = None  # None: a picture, no slice
    tile: Tile | None = None  # None: no part of a larger image
    dicom_modality: str | None = None
    patient: str | None = None  # as the header calls the patient: to be hashed, goes nowhere else
    notes: tuple[str, ...] = ()  # what was done to it beyond the rules, and what to look at


def frame_of_picture(image: ImageFile, pages: Pages, reading: Reading) -> Iterator[Frame | DropRow]:
    """Give a picture with its masks; raises DataError as `promptseg.reader.frames.read_frames`."""
    picture = shaded(only_page(pages, as_mask=False), reading.intensity)
    height, width = picture.pixels.shape[:2]
    read = reader_on_picture(reading.folder, height, width)
    labels, drops = read_labels(image, image.masks, reading, read)
    yield from drops
    if not labels and not are_all_empty(image, drops):
        raise DataError(NO_MASK)
    yield Frame(
        image_id=reading.image_id(image),
        source=image.source,
        picture=picture,
        labels=labels,
        spacing_yx_mm=reading.spacing_yx_mm,
    )


def frames_of_volume(
    image: ImageFile,
    reading: Reading,
    volume: volumes.Volume,
    labels: tuple[Labels, ...],
    drops: list[DropRow],
) -> Iterator[Frame | DropRow]:
    """Cut a volume with its labels.

    Raises
    ------
    DataError
        No mask of it is usable, or it has not what the intensity rule needs.
    """
    yield from drops
    if not labels and not (reading.keep_empty and are_all_empty(image, drops)):
        raise DataError(NO_MASK)
    rule = reading.intensity or MIN_MAX
    shades = shades_of_volume(volume, rule)
    for plane in _planes(volume, reading.plane):
        for index in range(volumes.n_slices(volume, plane)):
            values = volume.slice(plane, index)
            place = _place(volume, reading.image_id(image), plane, index)
            image_id = f"{place.volume_id}/{plane}/{index:04d}"
            spacing = volumes.spacing_of_slices(volume, plane)
            try:
                picture = (shades or shades_of_slice(values, rule)).picture(values)
            except DataError as error:
                yield DropRow(source=image.source, image_id=image_id, reason=str(error))
                continue
            yield Frame(
                image_id=image_id,
                source=image.source,
                picture=picture,
                labels=tuple(item.slice(plane, index) for item in labels),
                spacing_yx_mm=spacing[:2] if spacing else reading.spacing_yx_mm,
                place=place,
                dicom_modality=volume.dicom_modality,
                patient=volume.patient,
            )


def _planes(volume: volumes.Volume, choice: PlaneChoice | None) -> tuple[volumes.Plane, ...]:
    if choice is None:
        return (volumes.main_plane(volume),)
    return volumes.PLANES if choice == "all" else (choice,)


def _place(volume: volumes.Volume, volume_id: str, plane: volumes.Plane, index: int) -> Place:
    spacing = volumes.spacing_of_slices(volume, plane)
    n_slices = volumes.n_slices(volume, plane)
    is_lone = n_slices == 1 and not volume.has_place  # a picture: it has no next slice
    return Place(
        volume_id=volume_id,
        slice_index=index,
        n_slices=n_slices,
        plane=plane,
        spacing_slice_mm=spacing[2] if spacing and not is_lone else None,
        affine=tuple(volume.affine.ravel().tolist()) if spacing and volume.has_place else None,
    )


def place_of_frame(volume_id: str, index: int, count: int) -> Place:
    """Say which frame of a stack an image is; what lies between two is not known."""
    return Place(
        volume_id=volume_id,
        slice_index=index,
        n_slices=count,
        plane=FRAME,
        spacing_slice_mm=None,
        affine=None,
    )


def targets_in(frame: Frame) -> Iterator[tuple[str, Target]]:
    """Make a target of every object that is present in a frame; give the mask's source too."""
    for labels in frame.labels:
        for target in targets_of(labels, frame.image_id):
            yield labels.source, target
