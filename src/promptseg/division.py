"""Splits of a corpus: subjects are divided so that every task has its share of each.

Source: Sechidis, Tsoumakas and Vlahavas 2011, On the Stratification of Multi-Label Data,
doi:10.1007/978-3-642-23808-6_10 (iterative stratification, here of subjects by their tasks).
"""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Set

from promptseg.errors import DataError

EXAMPLE = "train=0.7,val=0.1,test=0.2"


def parse_shares(text: str) -> dict[str, float]:
    """Read `train=0.7,val=0.1,test=0.2`: names and shares that sum to 1 (or to 100).

    Raises
    ------
    DataError
        It is not of that form.
    """
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.partition("="))
        try:
            share = float(number)
        except ValueError:
            share = math.nan
        if not name or name in shares or not 0 < share < math.inf:
            raise DataError(f"Cannot read the split {text!r}: expected is {EXAMPLE}.")
        shares[name] = share
    total = sum(shares.values())
    if len(shares) < 2 or not any(math.isclose(total, whole, rel_tol=1e-6) for whole in (1, 100)):
        raise DataError(f"The shares of split {text!r} sum to {total:g}, not to 1. Try {EXAMPLE}.")
    return {name: share / total for name, share in shares.items()}


def divide(
    tasks: Mapping[str, Set[str]], shares: Mapping[str, float], *, seed: int = 0
) -> dict[str, str]:
    """Give every unit (a subject, or subjects that belong together) a split.

    The task with the fewest units left is dealt out first; each of its units goes to the split
    that lacks most of that task, then most of all units, then by a draw. Units without a task come
    last. The result depends on names and seed alone. Every split gets a unit while there are
    enough of them.

    Parameters
    ----------
    tasks
        Unit -> the tasks of its targets.
    shares
        Split -> its share, above 0; they sum to 1.

    Raises
    ------
    DataError
        There are fewer units than splits.
    """
    if len(tasks) < len(shares):
        raise DataError(
            f"{len(tasks)} subject{'s' * (len(tasks) != 1)} cannot give {', '.join(shares)} one "
            "each. Curate more, or ask for fewer splits."
        )
    counts = Counter(task for found in tasks.values() for task in found)
    wanted = {split: share * len(tasks) for split, share in shares.items()}
    lacking = {s: {t: share * n for t, n in counts.items()} for s, share in shares.items()}
    left = sorted(tasks, key=lambda unit: _lot(seed, unit))
    given: dict[str, str] = {}
    while left:
        rest = Counter(task for unit in left for task in tasks[unit])
        task = min(rest, key=lambda name: (rest[name], name)) if rest else None
        for unit in [unit for unit in left if task is None or task in tasks[unit]]:
            split = _neediest(task, wanted, lacking, empty=set(shares) - set(given.values()))
            given[unit] = split
            left.remove(unit)
            wanted[split] -= 1
            for name in tasks[unit]:
                lacking[split][name] -= 1
            if len(left) == len(set(shares) - set(given.values())):
                break  # what is left has to go to the splits that have nothing
    return given


def _neediest(
    task: str | None,
    wanted: Mapping[str, float],
    lacking: Mapping[str, Mapping[str, float]],
    empty: Set[str],
) -> str:
    """Choose the split that lacks most; where units run short, one that has nothing."""
    n_left = sum(wanted.values())
    among = [split for split in wanted if split in empty] if n_left < len(empty) + 0.5 else wanted

    def need(split: str) -> tuple[float, float]:
        of_task = lacking[split][task] if task is not None else 0.0
        return of_task, wanted[split]

    return max(among, key=need)


def _lot(seed: int, unit: str) -> bytes:
    return hashlib.sha256(f"{seed}\n{unit}".encode()).digest()
