"""The masks of a stack: a stack of as many pages, or a file for each frame, by its number.

Files are numbered from 0 where one of them has the number 0, else from 1.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from jaxtyping import Integer

from promptseg.errors import DataError
from promptseg.reader.folder import ImageFile, MaskFile, frame_file, is_volume
from promptseg.reader.frame import EMPTY, Labels, Reading
from promptseg.reader.image import mask_of, read_mask
from promptseg.reader.labels import Entry, as_labels, name_values, survey, values_in
from promptseg.reader.pages import Pages
from promptseg.reader.stack import open_pages
from promptseg.rows import DropRow


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
        drops: list[DropRow] = []
        for file in self._files.get(index, ()):
            read, dropped = self._one(file, image_id)
            labels += read
            drops += dropped
        return labels, drops

    def add(self, image_pages: Pages) -> None:
        """Sort the masks of the stack into stacks and files of one frame."""
        numbered: list[tuple[MaskFile, int]] = []
        for file in self.image.masks:
            try:
                pages = self._opened(file)
                if pages.is_stack:
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
                self.drops.append(self._drop(file, str(error)))
        self._add_numbered(numbered, image_pages.count)

    def _opened(self, file: MaskFile) -> Pages:
        if is_volume(file.source):
            raise DataError("it is a volume, and its image a stack of pictures")
        return open_pages(self.reading.folder / file.source)

    def _check_size(self, height: int, width: int) -> None:
        if (height, width) != self.size:
            h, w = self.size
            raise DataError(f"its size {width} x {height} is not its image's, {w} x {h}")

    def _add_stack(self, file: MaskFile, pages: Pages, of_image: Pages) -> None:
        """Look through a mask with pages: its values become labels by one rule for all of them."""
        naming, every = self.reading.naming, self.reading.every
        if pages.is_video and naming.threshold is None:
            raise DataError(
                "a video cannot hold labels, as its coding changes them. "
                "--threshold makes a mask of what lies above it"
            )
        self._check_size(*pages.size)
        is_longer = of_image.cut_short is not None and pages.count > of_image.count
        if pages.count != of_image.count and not is_longer:
            raise DataError(f"it has {pages.count} pages, and its image {of_image.count} frames")
        raws = (mask_of(page) for _, page in pages.read(True, every))
        make, present = survey(raws, naming, one_object=file.is_one_object).rule()
        entries, unknown = name_values(file, present, naming)
        for value, reason in unknown:
            self.drops.append(self._drop(file, reason, object_name=f"label {value}"))
        if not present:
            self.drops.append(self._drop(file, EMPTY))
        if entries:
            labels = (make(mask_of(page)) for _, page in pages.read(True, every))
            self._stacks.append(_Stack(file, labels, tuple(entries)))

    def _add_numbered(self, numbered: list[tuple[MaskFile, int]], count: int) -> None:
        """Give each mask of one frame to its frame."""
        first = self.reading.first_frame
        if first is None:
            first = 0 if any(number == 0 for _, number in numbered) else 1
        for file, number in numbered:
            if first <= number < first + count:
                self._files[number - first].append(file)
            else:
                reason = f"its number {number} is no frame: they count from {first} to "
                self.drops.append(self._drop(file, f"{reason}{first + count - 1}"))

    def _one(self, file: MaskFile, image_id: str) -> tuple[list[Labels], list[DropRow]]:
        """Read the mask of one frame."""
        naming = self.reading.naming
        drop = partial(self._drop, file, image_id=image_id)
        try:
            raw = read_mask(self.reading.folder / file.source)
            self._check_size(*raw.values.shape)
            values = as_labels(raw, naming, one_object=file.is_one_object)
            present = values_in(values)
            entries, unknown = name_values(file, present, naming)
        except DataError as error:
            return [], [drop(str(error))]
        drops = [drop(reason, object_name=f"label {value}") for value, reason in unknown]
        if not present:
            drops.append(drop(EMPTY))
        labels = Labels(file.source, values, tuple(entries), file.annotator)
        return [labels] if entries else [], drops

    def _drop(
        self, file: MaskFile, reason: str, *, image_id: str = "", object_name: str | None = None
    ) -> DropRow:
        return DropRow(
            source=file.source,
            image_id=image_id or self.reading.image_id(self.image),
            object=object_name or file.object,
            instance=file.instance,
            area_px=0 if reason == EMPTY else None,
            reason=reason,
        )


def masks_of(image: ImageFile, pages: Pages, reading: Reading) -> FrameMasks:
    """Find the masks of a stack; those that are of no use are in `drops`."""
    masks = FrameMasks(image, pages.size, reading)
    masks.add(pages)
    return masks
