"""What a mapping file says of the masks that one of its patterns finds."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How masks of one pattern are read; what is None or empty is left to the general rules."""

    path: str  # the pattern
    object: str | None = None  # what the masks show
    labels: Mapping[str, tuple[int, ...]] | None = None  # objects by values, which may be shared
    channels: tuple[str, ...] = ()  # the objects of a stack of masks, in its order
    threshold: float | None = None
    instances: bool = False  # values number instances
    outline: bool = False  # lines are drawn; the object is what they enclose
    is_cropped: bool = False  # to the box around the object

    def in_words(self) -> str:
        """Say on one line what the masks are, for the rules of a corpus."""
        told = [
            self.object,
            ", ".join(f"{name} {_listed(of)}" for name, of in (self.labels or {}).items()),
            f"a channel each for {', '.join(self.channels)}" if self.channels else None,
            None if self.threshold is None else f"value > {self.threshold:g}",
            "values number instances" if self.instances else None,
            "outlines are filled" if self.outline else None,
            "cropped masks are put at their place" if self.is_cropped else None,
        ]
        return f"{self.path} ({'; '.join(filter(None, told)) or 'by the general rules'})"


def _listed(values: tuple[int, ...]) -> str:
    return "+".join(map(str, values))
