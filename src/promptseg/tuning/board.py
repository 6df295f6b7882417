"""TensorBoard's files of a training: loss and DICE as they come."""

from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from types import TracebackType
from typing import Any

from promptseg.tuning.state import Progressed
from promptseg.tuning.training import Stepped, Validated

LOSSES = ("loss/total", "loss/mask", "loss/iou", "train/dice", "train/gradient norm")


class Board:
    """Write what happens for TensorBoard; one that goes on begins with what was before."""

    def __init__(self, folder: Path, before: Progressed | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        for file in folder.glob("events.out.tfevents.*"):  # a state may be older than the last
            file.unlink(missing_ok=True)
        self._writer: Any = SummaryWriter(str(folder))
        if before is not None:
            for step, values in enumerate(before.course.rows().tolist(), start=1):
                self._step(step, values)
            for line in before.epochs:
                self._epoch(line["step"], line["dice"], line["tasks"])

    def __enter__(self) -> "Board":
        """Open it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write what is left, and close."""
        self._writer.close()

    def add(self, event: object, step: int) -> None:
        """Write an event that is of curves: a step or a validation."""
        if isinstance(event, Stepped):
            self._step(event.step, astuple(event.log))
        elif isinstance(event, Validated):
            self._epoch(step, event.score.dice, dict(event.score.tasks))

    def _step(self, step: int, values: Sequence[float]) -> None:
        for name, value in zip(LOSSES, values, strict=True):
            self._writer.add_scalar(name, value, step)

    def _epoch(self, step: int, dice: float, tasks: dict[str, float]) -> None:
        self._writer.add_scalar("val/dice", dice, step)
        for task, value in tasks.items():
            self._writer.add_scalar(f"val/{task}", value, step)
