"""Subsets of a corpus that do not mislead: by split, by condition, and few of everything.

What is taken first is spread over subjects, volumes and slices, and depends on names and a seed
only, never on the order in which a corpus is stored. Nothing is decoded.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import polars as pl
from jaxtyping import Int

from promptseg.corpus import Corpus, part_paths
from promptseg.errors import DataError
from promptseg.parquet import arrow_schema
from promptseg.rows import ImageRow, TargetRow
from promptseg.sample import Unit, task_name

IMAGE_COLUMNS = tuple(field.name for field in fields(ImageRow) if field.name != "affine")
BOX_COLUMNS = ("x0", "y0", "x1", "y1")
TARGET_COLUMNS = ("target_id", "object", "instance", "annotator", "area_px", *BOX_COLUMNS)
COLUMNS = (*IMAGE_COLUMNS, *TARGET_COLUMNS, "task")  # what a condition can ask for
EXAMPLE = "modality = 'CT' AND area_px > 100 AND subject IN ('P01', 'P02')"

_PLACE = ("image_id", "dataset", "subject", "volume_id", "plane", "slice_index")
# a condition is made of these and of columns. Polars would run more, and read files by it:
# (SELECT ... FROM read_csv('...')) is an expression of its SQL
_KEYWORDS = {"AND", "OR", "NOT", "IN", "IS", "NULL", "LIKE", "ILIKE", "BETWEEN", "TRUE", "FALSE"}
_FUNCTIONS = {"ABS", "COALESCE", "LENGTH", "LOWER", "UPPER", "STARTS_WITH", "ENDS_WITH"}
_TOKEN = re.compile(
    r"""\s+ | '(?:[^'\\]|'')*' | "(?P<name>\w+)" | (?P<word>[a-z_]\w*)
    | (?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)? | <=|>=|<>|!=|[<>=+*%(),] | -(?!-) | /(?!\*)""",
    re.VERBOSE | re.ASCII | re.IGNORECASE,
)


class NothingLeftError(DataError):
    """A condition holds for no image and no target of a corpus."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What of a corpus is evaluated; None: no such limit. Applied in this order."""

    split: str | None = None
    where: str | None = None  # SQL condition on `COLUMNS`
    per_task: int | None = None  # at most so many targets per task
    limit: int | None = None  # at most so many images

    def told(self) -> dict[str, str | int]:
        """Give what is limited, as a run keeps it."""
        limits = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in limits.items() if value is not None}


@dataclass(frozen=True, slots=True, eq=False)
class Subset:
    """The images and targets that a choice leaves, and of how many.

    Targets are counted by the unit of evaluation: by class one per object, annotator and image.
    """

    choice: Choice
    targets: Mapping[str, frozenset[str]]  # image_id -> ids of its stored targets; may be empty
    n_images: int
    n_targets: int
    of_images: int
    of_targets: int
    n_subjects: int | None  # None: the subject of at least one image is unknown
    of_subjects: int | None
    per_task: Mapping[str, int]  # task -> chosen targets


def choose_subset(corpus: Corpus, choice: Choice, *, unit: Unit, seed: int = 0) -> Subset:
    """Choose images and targets of a corpus.

    What is chosen among are the targets of the unit: by class all instances of an object by one
    annotator in an image are one target (`area_px` the sum of theirs, the box their union,
    `instance` null), which is kept or left out whole. By component they are the stored targets,
    from which components are cut later. An image without targets is one row, whose target columns
    are null.

    `where` takes comparisons, AND, OR, NOT, IN, IS NULL, LIKE, BETWEEN, arithmetic and a few
    functions; as in SQL, what compares with null is not taken.

    `per_task` takes the targets of a task from its subjects (within datasets) in turn, from the
    volumes of a subject in turn, from the slices of a volume by `spread_ranks`, and one target of
    an image after the slices have all given one. An image of unknown subject counts by its volume,
    else by itself. Images without targets have no task and are left out. `limit` takes images in
    the same way, with all that was chosen of their targets. What is chosen for N holds what is
    chosen for less.

    Raises
    ------
    DataError
        There is no such split, the condition is none, a number is below 1, or nothing is left
        (`NothingLeftError` where the condition holds for nothing).
    """
    _check_numbers(choice)
    condition = None if choice.where is None else _condition(choice.where)
    images = _images(corpus, condition)
    if choice.split is not None:
        _check_split(images, choice.split)
    rows = _rows(images.lazy(), _scanned(corpus, "targets"), unit)
    if choice.split is not None:
        rows = rows.filter(pl.col("split") == choice.split)
    if condition is not None:
        rows = rows.filter(condition)
    by = "" if choice.where is None else f" by --where {choice.where!r}"
    kept = _collected(corpus, rows.select(*_PLACE, "task", "target_id", "stored"), by)
    if kept.is_empty():
        raise NothingLeftError(
            f"--where {choice.where!r} leaves nothing{_of_split(choice)}. Loosen it."
        )
    return _subset(corpus, choice, images, _limited(kept, choice, seed), unit)


def _limited(rows: pl.DataFrame, choice: Choice, seed: int) -> pl.DataFrame:
    """Take few targets per task, then few images."""
    if choice.per_task is not None:
        rows = rows.drop_nulls("task")
        if rows.is_empty():
            raise DataError(
                "--per-task leaves nothing: no image that it chooses from has a target"
                f"{_of_split(choice)}. Leave it out, or loosen --where."
            )
        rows = _first(rows, choice.per_task, seed)
    if choice.limit is not None:
        images = rows.unique("image_id").with_columns(task=pl.lit("any"))
        rows = rows.join(_first(images, choice.limit, seed), on="image_id", how="semi")
    return rows


def _subset(
    corpus: Corpus, choice: Choice, every: pl.DataFrame, rows: pl.DataFrame, unit: Unit
) -> Subset:
    images = rows.group_by("image_id").agg(
        pl.col("dataset", "subject").first(), pl.col("stored").explode().drop_nulls()
    )
    images = images.sort("image_id")
    tasks = rows.drop_nulls("task").group_by("task").len().sort("task")
    stored = zip(images["image_id"], images["stored"].to_list(), strict=True)
    return Subset(
        choice=choice,
        targets={image_id: frozenset(ids) for image_id, ids in stored},
        n_images=images.height,
        n_targets=int(tasks["len"].sum()),
        of_images=corpus.info.n_images,
        of_targets=corpus.n_classes() if unit == "class" else corpus.info.n_targets,
        n_subjects=_n_subjects(images),
        of_subjects=_n_subjects(every),
        per_task=dict(tasks.iter_rows()),
    )


def _n_subjects(images: pl.DataFrame) -> int | None:
    if images["subject"].has_nulls():
        return None
    return images.select("dataset", "subject").n_unique()


def _check_numbers(choice: Choice) -> None:
    for option, number in (("--per-task", choice.per_task), ("--limit", choice.limit)):
        if number is not None and number < 1:
            raise DataError(f"{option} {number} leaves nothing. Give 1 or more, or leave it out.")


def _check_split(images: pl.DataFrame, split: str) -> None:
    """Raise unless some image has that split, and tell which splits there are."""
    counts = dict(images.group_by("split").len().sort("split").iter_rows())
    if split in counts:
        return
    unknown = counts.pop(None, 0)
    if not counts:
        raise DataError(f"There is no split {split!r}: the corpus has none. Leave out --split.")
    known = ", ".join(f"{name} ({count} images)" for name, count in counts.items())
    without = f", and {unknown} images without" if unknown else ""
    raise DataError(f"There is no split {split!r}. The corpus has: {known}{without}.")


def _of_split(choice: Choice) -> str:
    return "" if choice.split is None else f" of split {choice.split!r}"


# --- the rows that are chosen among


def _collected(corpus: Corpus, frame: pl.LazyFrame, by: str = "") -> pl.DataFrame:
    try:
        return frame.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{corpus.path} cannot be searched{by}: {_first_line(error)}.") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")


def _images(corpus: Corpus, condition: pl.Expr | None) -> pl.DataFrame:
    """Read what is needed of all images: the many small row groups make this the slow part."""
    asked = set() if condition is None else set(condition.meta.root_names())
    needed = [name for name in IMAGE_COLUMNS if name in {*_PLACE, "modality", "split", *asked}]
    return _collected(corpus, _scanned(corpus, "images").select(needed))


def _scanned(corpus: Corpus, kind: str) -> pl.LazyFrame:
    return pl.scan_parquet(part_paths(corpus.path, kind), glob=False)


def _rows(images: pl.LazyFrame, targets: pl.LazyFrame, unit: Unit) -> pl.LazyFrame:
    """Give the rows that are chosen among: images with their targets, or without any."""
    task = pl.format(task_name("{}", "{}"), "object", "modality")
    return images.join(_of_unit(targets, unit), on="image_id", how="left").with_columns(task=task)


def _of_unit(stored: pl.LazyFrame, unit: Unit) -> pl.LazyFrame:
    """Give the targets of a unit, `stored` being the ids of the stored ones that make each up."""
    corners = {name: pl.col("box").list.get(i) for i, name in enumerate(BOX_COLUMNS)}
    targets = stored.with_columns(**corners).select("image_id", *TARGET_COLUMNS)
    if unit != "class":
        return targets.with_columns(stored=pl.concat_list("target_id"))
    # the name that `promptseg.sample.regroup` gives
    before = pl.col("target_id").first().str.extract("(?s)^(.*)#").fill_null("")
    name = pl.concat_str("object", pl.lit("@") + pl.col("annotator"), ignore_nulls=True)
    return targets.group_by("image_id", "object", "annotator").agg(
        target_id=before + "#" + name.first(),
        instance=pl.lit(None, dtype=pl.Int64),
        area_px=pl.col("area_px").sum(),
        x0=pl.col("x0").min(),
        y0=pl.col("y0").min(),
        x1=pl.col("x1").max(),
        y1=pl.col("y1").max(),
        stored=pl.col("target_id"),
    )


def _condition(where: str) -> pl.Expr:
    """Parse a condition on `COLUMNS`; raises DataError on anything else."""
    _check_words(where)
    nothing = _rows(_no_rows(ImageRow), _no_rows(TargetRow), "instance").collect().clear(1)
    try:
        pl.sql_expr(where)  # on its own first: ) OR ( is no condition either
        condition = pl.sql_expr(f"({where})")  # within which no name can follow, as in x0 > 1 x1
        found = nothing.select(condition).dtypes
    except pl.exceptions.PolarsError as error:
        raise _no_condition(where, _first_line(error)) from error
    if found != [pl.Boolean]:
        raise _no_condition(where, "it is neither true nor false")
    return condition.cast(pl.Boolean)  # polars makes (NULL AND x) a null of no type


def _no_rows(row: type) -> pl.LazyFrame:
    return pl.DataFrame(arrow_schema(row).empty_table()).lazy()


def _check_words(where: str) -> None:
    """Refuse whatever is no column, keyword or function of a condition."""
    end = 0
    while end < len(where):
        token = _TOKEN.match(where, end)
        if token is None:
            raise _no_condition(where, f"{where[end : end + 2]!r} is not understood there")
        word = token["name"] or token["word"]
        if word and not (
            word in COLUMNS or (token["word"] and word.upper() in _KEYWORDS | _FUNCTIONS)
        ):
            raise _no_condition(where, f"{word!r} is no column (text stands in single quotes)")
        end = token.end()


def _no_condition(where: str, reason: str) -> DataError:
    return DataError(
        f"--where {where!r} is no condition: {reason}. Columns: {', '.join(COLUMNS)}. "
        f"Functions: {', '.join(sorted(_FUNCTIONS)).lower()}. Example: {EXAMPLE}."
    )


# --- the order in which they are taken


def spread_ranks(n: int) -> Int[np.ndarray, "n"]:
    """Rank the n positions of a ring so that the first few of them are spread over it.

    Position floor(n v) comes k-th for the k-th term v of the van der Corput sequence in base 2
    (0, 1/2, 1/4, 3/4, 1/8, ...), repeats left out. Of the first N <= n positions, no two are
    nearer than floor(n / 2^ceil(log2 N)): at worst about half of n / N.

    References
    ----------
    J. G. van der Corput, "Verteilungsfunktionen I", Proc. Akad. Wet. Amsterdam 38 (1935) 813-821.
    """
    terms = np.zeros(1, dtype=np.int64)
    while len(terms) < n:
        terms = np.concatenate([2 * terms, 2 * terms + 1])  # the k-th: k with its bits reversed
    _, first_visit = np.unique(terms * n // len(terms), return_index=True)
    return np.argsort(np.argsort(first_visit))


def _first(rows: pl.DataFrame, number: int, seed: int) -> pl.DataFrame:
    """Take the first rows of each task, as many as `number`.

    Round robin is a rank of ranks: the second of every volume comes after the first of all.
    """
    keys = rows.select("task", "image_id", draw=_draws(rows, seed)).with_row_index("row")
    keys = keys.join(_places(rows, seed), on="image_id").drop("image_id")
    keys = _ranked("in_image", ["task", "place"], ["draw"], keys)
    spread = _spread(keys.filter(pl.col("in_image") == 0))
    keys = keys.join(spread, on=["task", "place"])
    keys = _ranked("in_volume", ["task", "volume"], ["in_image", "spread"], keys)
    keys = _ranked("in_owner", ["task", "owner"], ["in_volume", "volume"], keys)
    keys = _ranked("in_task", ["task"], ["in_owner", "owner"], keys)
    return rows[keys.filter(pl.col("in_task") < number)["row"].sort()]


def _ranked(name: str, within: list[str], by: list[str], rows: pl.DataFrame) -> pl.DataFrame:
    """Add the rank, from 0, that each row has in its group."""
    index = pl.int_range(pl.len())
    is_first = pl.any_horizontal(pl.col(within).ne_missing(pl.col(within).shift()))
    start = pl.when(is_first).then(index).forward_fill()
    return rows.sort(*within, *by).with_columns((index - start).alias(name))


def _spread(slices: pl.DataFrame) -> pl.DataFrame:
    """Rank the slices of every volume that hold a task by `spread_ranks`, turned by an offset."""
    n_slices = pl.len().over("task", "volume").cast(pl.Int64)
    slices = _ranked("position", ["task", "volume"], ["place"], slices).with_columns(n=n_slices)
    turned = (slices["position"] + slices["offset"]) % slices["n"]
    sizes, which = np.unique(slices["n"].to_numpy(), return_inverse=True)
    table = np.concatenate([spread_ranks(int(size)) for size in sizes])
    ranks = table[(np.cumsum(sizes) - sizes)[which] + turned.to_numpy()]
    return slices.select("task", "place", spread=pl.Series(ranks))


def _places(rows: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Give the numbers of images: those of owner and volume by hashes, place along the volume.

    The owner is the subject within its dataset, else the volume, else the image.
    """
    within = pl.coalesce(_named("volume", "dataset", "volume_id"), _named("image", "image_id"))
    owner = pl.coalesce(_named("subject", "dataset", "subject"), within)
    images = rows.select(_PLACE).unique("image_id").with_columns(owner=owner, within=within)
    keyed = images.with_columns(volume=_named("in", "owner", "within"))
    owners = _shuffled(keyed["owner"], seed).drop("offset")
    volumes = _shuffled(keyed["volume"], seed)
    return (
        keyed.sort("plane", "slice_index", "image_id")
        .with_row_index("place")
        .select(
            "image_id",
            "place",
            pl.col("owner").replace_strict(owners["name"], owners["number"]),
            pl.col("volume").replace_strict(volumes["name"], volumes["number"]),
            offset=pl.col("volume").replace_strict(volumes["name"], volumes["offset"]),
        )
    )


def _named(kind: str, *names: str) -> pl.Expr:
    """Write several names as one, null if any is; no two lists of names give the same."""
    counted = [pl.format("{}:{}", pl.col(name).str.len_chars(), pl.col(name)) for name in names]
    return pl.concat_str(pl.lit(kind), *counted)


def _shuffled(names: pl.Series, seed: int) -> pl.DataFrame:
    """Give names their numbers in the order of hashes, and an offset that is hashed too."""
    known = names.unique().to_list()
    hashes = [_hash(seed, name) for name in known]
    return (
        pl.DataFrame(
            {"name": known, "hash": hashes, "offset": [_number(hashed[8:]) for hashed in hashes]}
        )
        .sort("hash")
        .with_row_index("number")
        .drop("hash")
    )


def _draws(rows: pl.DataFrame, seed: int) -> pl.Series:
    """Draw a number for each target that is not the only one of its task in its image."""
    several = rows.select("task", "image_id").is_duplicated()
    names = rows.select("image_id", "target_id").iter_rows()
    drawn = zip(several, names, strict=True)
    return pl.Series([_number(_hash(seed, *name)) if many else 0 for many, name in drawn])


def _hash(seed: int, *names: str) -> bytes:
    return hashlib.sha256("\n".join([str(seed), *names]).encode()).digest()


def _number(hashed: bytes) -> int:
    return int.from_bytes(hashed[:7], "big")  # fits 64 bits with room for a sum
