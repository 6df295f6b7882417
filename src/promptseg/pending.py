"""Images whose answers are still being scored, in other threads, while the model goes on."""

from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field

from promptseg.attributes import AttributeRow
from promptseg.record import MaskRow, PromptRow, Record
from promptseg.scoring import Scored


@dataclass(frozen=True, slots=True)
class Evaluated:
    """All that one image gave."""

    image_id: str
    records: list[Record]
    prompts: list[PromptRow]
    masks: list[MaskRow]
    attributes: list[AttributeRow] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Scoring:
    """Answers that are being scored; `places` say where their records stand among an image's."""

    future: Future[list[Scored]]
    places: Iterable[int]
    n_prompts: int  # whose answers are in memory until then


@dataclass(slots=True)
class Begun:
    """An image whose answers are being scored."""

    image_id: str
    failed: list[Record] = field(default_factory=list)
    prompts: list[PromptRow] = field(default_factory=list)
    scored: list[Scoring] = field(default_factory=list)
    attributes: Future[list[AttributeRow]] | None = None

    def wait(self, most: int) -> None:
        """Wait until the answers to no more than so many prompts are left to be scored."""
        left = [one for one in self.scored if not one.future.done()]
        n_left = sum(one.n_prompts for one in left)
        for one in left:
            if n_left <= most:
                return
            one.future.result()
            n_left -= one.n_prompts

    def is_done(self) -> bool:
        """Tell whether nothing is left to wait for."""
        described = self.attributes is None or self.attributes.done()
        return described and all(one.future.done() for one in self.scored)

    def finish(self) -> Evaluated:
        """Wait for the scores, and bring them into the order in which was asked."""
        placed = [
            pair
            for one in self.scored
            for pair in zip(one.places, one.future.result(), strict=False)
        ]
        done = [one for _, one in sorted(placed, key=lambda pair: pair[0])]
        records = [*self.failed, *(record for one in done for record in one.records)]
        # strategies may come to the same prompt: of a one-pixel object, or jittered into a corner
        prompts = {row.prompt_id: row for row in self.prompts}
        masks = {(row.prompt_id, row.mask_index): row for one in done for row in one.masks}
        attributes = [] if self.attributes is None else self.attributes.result()
        return Evaluated(
            self.image_id, records, list(prompts.values()), list(masks.values()), attributes
        )
