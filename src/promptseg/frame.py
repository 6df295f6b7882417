"""Runs as one data frame, for anyone's own analysis."""

from pathlib import Path
from typing import TYPE_CHECKING

from promptseg.record import RunFolder, open_run

if TYPE_CHECKING:
    import polars as pl


def load_run(*paths: str | Path) -> "pl.DataFrame":
    """Read the records of one or several runs as one Polars frame; `.to_pandas()` makes it pandas'.

    One row is one scored mask (`promptseg.record.Record`: DICE and Jaccard are fractions, distances
    are in `distance_unit`, undefined is null, `failed` records have a reason and no score). Before
    them stands `run`, the folder's name; after them the attributes of the target
    (`promptseg.attributes.Attributes`, null where a run has none).

    Raises
    ------
    DataError
        There is no run, it is damaged, or a later promptseg wrote it.
    ValueError
        No path is given.

    Examples
    --------
    >>> frame = load_run("heart.run")  # doctest: +SKIP
    >>> frame.filter(strategy="box", selection="single").group_by("task").agg(
    ...     pl.col("dice").mean())  # doctest: +SKIP
    """
    import polars as pl

    if not paths:
        raise ValueError("load_run needs the folder of a run")
    return pl.concat([_described(open_run(Path(path))) for path in paths])


def _described(folder: RunFolder) -> "pl.DataFrame":
    import polars as pl

    described = folder.attributes().drop("image_id")
    return (
        folder.records()
        .join(described, on="target_id", how="left", maintain_order="left")
        .select(pl.lit(folder.path.name).alias("run"), pl.all())
    )
