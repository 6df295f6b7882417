"""The masks of a stack: a stack of as many pages, or a file for each frame, by its number.

Files are numbered from 0 where one of them has the number 0, else from 1.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Integer

from promptseg.errors import DataError
from promptseg.reader.folder import ImageFile, MaskFile, frame_file, is_volume
from promptseg.reader.frame_labels import EMPTY, Labels, drop, read_labels, reader_on_picture
from promptseg.reader.image import RawMask, mask_of
from promptseg.reader.labels import Entry, free_value, name_values, naming_of, survey
from promptseg.reader.pages import Pages
from promptseg.reader.reading import Reading
from promptseg.reader.stack import open_pages
from promptseg.rows import DropRow

FROM_1 = "numbers of masks are taken to count frames from 1: if from 0, say --first-frame 0"


@dataclass(frozen=True, slots=True, eq=False)
class _Stack:
    """A mask file with a page for every frame, decoded along with the frames."""

    file: MaskFile
    pages: Iterator[Integer[np.ndarray, "h w"]]
    entries: tuple[Entry, ...]


@dataclass(slots=True)
class FrameMasks:
    """All masks of a stack; `drops` are those that are of no use."""

    image: ImageFile
    size: tuple[int, int]  # height, width of a frame
    reading: Reading
    drops: list[DropRow] = field(default_factory=list)
    notes: tuple[str, ...] = ()  # what was guessed
    _stacks: list[_Stack] = field(default_factory=list)
    _files: dict[int, list[MaskFile]] = field(default_factory=lambda: defaultdict(list))

    @property
    def are_none(self) -> bool:
        """Whether there is no mask for any frame."""
        return not (self._stacks or self._files)

    def next(self, index: int, image_id: str) -> tuple[list[Labels], list[DropRow]]:
        """Read the masks of a frame; to be called once for each that is read, in order."""
        labels = [
            Labels(stack.file.source, next(stack.pages), stack.entries, stack.file.annotator)
            for stack in self._stacks
        ]
        read = reader_on_picture(self.reading.folder, *self.size)
        files = self._files.get(index, ())
        own, drops = read_labels(self.image, files, self.reading, read, image_id)
        return [*labels, *own], drops

    def add(self, image_pages: Pages) -> None:
        """Sort the masks of the stack into stacks and files of one frame."""
        numbered: list[tuple[MaskFile, int]] = []
        for file in self.image.masks:
            try:
                pages = self._opened(file)
                if pages is not None and pages.is_stack:
                    self._add_stack(file, pages, image_pages)
                elif found := frame_file(self.image.key, file):
                    numbered.append(found)
                else:
                    raise DataError(
                        f"it is one picture, and its image has {image_pages.count} frames. "
                        "Expected are as many pages, or a mask per frame, with its number in "
                        "the name"
                    )
            except DataError as error:
                self._drop(file, str(error))
        self._add_numbered(numbered, image_pages.count)

    def _opened(self, file: MaskFile) -> Pages | None:
        """Open a mask; None for channels, which are those of one frame."""
        if is_volume(file.where):
            raise DataError("it is a volume, and its image a stack of pictures")
        if file.kind is not None and file.kind.channels:
            return None
        return open_pages(self.reading.folder / file.where)

    def _check(self, file: MaskFile, pages: Pages, of_image: Pages) -> None:
        """See that a mask has a page for every frame."""
        if file.kind is not None and (file.kind.outline or file.kind.is_cropped):
            raise DataError("outlines and cropped masks of frames are read from one file a frame")
        if pages.size != self.size:
            (h, w), (height, width) = self.size, pages.size
            raise DataError(f"its size {width} x {height} is not its image's, {w} x {h}")
        is_longer = of_image.cut_short is not None and pages.count > of_image.count
        if pages.count != of_image.count and not is_longer:
            raise DataError(f"it has {pages.count} pages, and its image {of_image.count} frames")

    def _add_stack(self, file: MaskFile, pages: Pages, of_image: Pages) -> None:
        """Look through a mask with pages: its values become labels by one rule for all of them."""
        naming, every = naming_of(file, self.reading.naming), self.reading.every
        if pages.is_video and naming.threshold is None:
            raise DataError(
                "a video cannot hold labels, as its coding changes them. "
                "--threshold makes a mask of what lies above it"
            )
        self._check(file, pages, of_image)
        raws = (mask_of(page) for _, page in pages.read(True, every))
        make, present = survey(raws, naming, one_object=file.is_one_object).rule()
        free, naming = free_value(naming, max(present, default=0))
        entries, unknown = name_values(file, present if free is None else [*present, free], naming)
        for value, reason in unknown:
            self._drop(file, reason, object_name=f"label {value}")
        if not present:
            self._drop(file, EMPTY)

        def labels(raw: RawMask) -> Integer[np.ndarray, "h w"]:
            values = make(raw)
            return values if free is None else np.where(values == 0, np.int32(free), values)

        if entries:
            read = (labels(mask_of(page)) for _, page in pages.read(True, every))
            self._stacks.append(_Stack(file, read, tuple(entries)))

    def _add_numbered(self, numbered: list[tuple[MaskFile, int]], count: int) -> None:
        """Give each mask of one frame to its frame."""
        first = self.reading.first_frame
        if first is None:
            found = {number for _, number in numbered}
            first = 0 if 0 in found else 1
            if found and not {0, count} & found:  # they may be those of either
                self.notes = (FROM_1,)
        for file, number in numbered:
            if first <= number < first + count:
                self._files[number - first].append(file)
            else:
                reason = f"its number {number} is no frame: they count from {first} to "
                self._drop(file, f"{reason}{first + count - 1}")

    def _drop(self, file: MaskFile, reason: str, *, object_name: str | None = None) -> None:
        lost = drop(
            file,
            self.reading.image_id(self.image),
            reason=reason,
            area_px=0 if reason == EMPTY else None,
        )
        self.drops.append(replace(lost, object=object_name or file.object))


def masks_of(image: ImageFile, pages: Pages, reading: Reading) -> FrameMasks:
    """Find the masks of a stack; those that are of no use are in `drops`."""
    masks = FrameMasks(image, pages.size, reading)
    masks.add(pages)
    return masks
