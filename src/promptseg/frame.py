"""Runs, and what is computed from them, as data frames: for anyone's own analysis."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.record import RunFolder, open_run

if TYPE_CHECKING:
    import polars as pl


def load_run(*paths: str | Path) -> "pl.DataFrame":
    """Read the records of one or several runs as one Polars frame; `.to_pandas()` makes it pandas'.

    One row is one scored mask (`promptseg.record.Record`: DICE and Jaccard are fractions, distances
    are in `distance_unit`, undefined is null, `failed` records have a reason and no score). Before
    them stand `run`, the folder's name, `corpus`, the fingerprint by which targets of the same name
    are told apart, and `points_per_side`, the grid of everything (null for other strategies); after
    them the attributes of the target (`promptseg.attributes.Attributes`, null where a run has
    none). `promptseg.stats`, `contrast`, `paired`, `factors` and `response` take such frames.

    Raises
    ------
    DataError
        There is no run, it is damaged, or a later promptseg wrote it.
    ValueError
        No path is given.

    Examples
    --------
    Rows are answers: a mean over them mixes jittered prompts with exact ones, and counts subjects
    with many targets for more. `promptseg.stats.estimate` averages targets, images and subjects.

    >>> from promptseg.stats import estimate
    >>> frame = load_run("heart.run")  # doctest: +SKIP
    >>> boxes = frame.filter(pl.col("jitter_mode").is_null(), strategy="box")  # doctest: +SKIP
    >>> frame_of(estimate(boxes, "dice")).select("task", "value", "lo", "hi")  # doctest: +SKIP
    """
    import polars as pl

    if not paths:
        raise ValueError("load_run needs the folder of a run")
    return pl.concat([_described(open_run(Path(path))) for path in paths])


def load_attributes(*paths: str | Path) -> "pl.DataFrame":
    """Read what the targets of one or several runs look like: one row each, however many runs.

    `corpus`, and the columns of `promptseg.attributes.AttributeRow`, as
    `promptseg.factors.factors` and `promptseg.response.responses` take them beside `load_run`.
    Raises as `load_run`.
    """
    import polars as pl

    if not paths:
        raise ValueError("load_attributes needs the folder of a run")
    folders = [open_run(Path(path)) for path in paths]
    return pl.concat(
        [folder.attributes().select(_corpus(folder), pl.all()) for folder in folders]
    ).unique(["corpus", "target_id"], keep="first", maintain_order=True)


def frame_of(
    values: Mapping[Any, Any] | Iterable[Any], *, each: str | None = None
) -> "pl.DataFrame":
    """Lay dataclasses out as a frame: estimates, contrasts, factors, responses, places.

    One value is one row and its fields are columns; of a mapping, the fields of the key stand
    before those of the value (`estimate` gives Group -> Estimate). A field that is a dataclass
    gives columns named `field_name`.

    Parameters
    ----------
    each
        A field that holds several dataclasses: each gives a row of its own, beside the other
        fields of its value. `rows` of `factors`, `levels` of `responses`.

    Raises
    ------
    TypeError
        A value is no dataclass.
    ValueError
        Two fields would give one column.

    Examples
    --------
    >>> from promptseg.response import Level
    >>> frame_of([Level(at=5.0, loss=0.02, lo=None, hi=None, n_subjects=3, n_targets=9)]).columns
    ['at', 'loss', 'lo', 'hi', 'n_subjects', 'n_targets']
    """
    import polars as pl

    pairs = values.items() if isinstance(values, Mapping) else ((value,) for value in values)
    rows = [row for parts in pairs for row in _rows(parts, each)]
    return pl.DataFrame(rows, infer_schema_length=None)


def _rows(parts: tuple[Any, ...], each: str | None) -> Iterator[dict[str, Any]]:
    """Give the rows of dataclasses that stand side by side."""
    beside: dict[str, Any] = {}
    several: tuple[Any, ...] | None = None
    for part in parts:
        if not is_dataclass(part) or isinstance(part, type):
            raise TypeError(f"no dataclass: {part!r}")
        for field in fields(part):
            value = getattr(part, field.name)
            if field.name == each:
                several = value
            else:
                beside = _joined(beside, _cell(field.name, value))
    if each is None:
        yield beside
    elif several is None:
        raise ValueError(f"there is no field {each!r}")
    else:
        yield from (_joined(beside, _cells(one)) for one in several)


def _cells(of: Any) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for field in fields(of):
        cells = _joined(cells, _cell(field.name, getattr(of, field.name)))
    return cells


def _cell(name: str, value: Any) -> dict[str, Any]:
    if is_dataclass(value) and not isinstance(value, type):
        return {f"{name}_{inner}": cell for inner, cell in _cells(value).items()}
    if isinstance(value, tuple):
        value = [_cells(one) if is_dataclass(one) else one for one in value]
    return {name: value}


def _joined(cells: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    if twice := sorted(cells.keys() & more.keys()):
        raise ValueError(f"two fields would be one column: {', '.join(twice)}")
    return cells | more


def _corpus(folder: RunFolder) -> "pl.Expr":
    import polars as pl

    return pl.lit(folder.run.corpus_fingerprint).alias("corpus")


def _described(folder: RunFolder) -> "pl.DataFrame":
    import polars as pl

    grids = {name: own["points_per_side"] for name, own in folder.run.everything.items()}
    grid = pl.col("model").replace_strict(grids, default=None, return_dtype=pl.Int64)
    of_everything = pl.when(pl.col("strategy") == "everything").then(grid)
    described = folder.attributes().drop("image_id")
    return (
        folder.records()
        .join(described, on="target_id", how="left", maintain_order="left")
        .select(
            pl.lit(folder.path.name).alias("run"),
            _corpus(folder),
            of_everything.alias("points_per_side"),
            pl.all(),
        )
    )
