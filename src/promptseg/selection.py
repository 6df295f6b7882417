"""Selection: which of a model's candidates counts (PROTOCOL decision 5)."""

from collections.abc import Sequence

import numpy as np

from promptseg.model import Candidates, Selection


def choose(candidates: Candidates, selection: Selection, dice: Sequence[float]) -> int | None:
    """Return the index of the candidate that counts, or None when the model has none such.

    `dice` holds the exact DICE of every candidate; only `oracle` looks at it, and so at the
    answer. Ties go to the lowest index.
    """
    match selection:
        case "single":
            return candidates.single
        case "oracle":
            return _best(candidates.multimask, dice)
        case "predicted":
            if candidates.predicted_iou is None:
                return None
            return _best(candidates.multimask, [float(iou) for iou in candidates.predicted_iou])


def _best(indices: Sequence[int], values: Sequence[float]) -> int | None:
    if not indices:
        return None
    return indices[int(np.argmax([values[index] for index in indices]))]
