"""DICE of volumes: voxels of all annotated slices pooled, from the areas that records keep.

A slice's DICE is 2 I / (a + b), of the areas of mask and target and their intersection. With a and
b known I is too, so that 2 (sum of I) / (sum of a + b) needs neither masks nor corpus. Slices lie
in one grid, so that a voxel's size cancels out. Slices on which the object is not annotated are no
targets and take no part: what a model would find there is not asked.
"""

import polars as pl

from promptseg.record import with_corpus

WAY = ("model", "protocol", "unit", "strategy", "selection", "off_protocol")
UNIT = "class"  # instances of neighbouring slices are not known to be the same


def volume_records(records: pl.DataFrame) -> pl.DataFrame:
    """Give one record per volume, object and way of answering, without jitter.

    Columns are those of `Record` that estimates need (`image_id` is the volume), and `n_slices`,
    `n_missed`, `n_failed`. A slice without a mask counts with its whole target missed. A volume of
    which a slice failed is incomplete: its outcome is `failed`, with the reason and no DICE. Slices
    of a volume of which there is one alone are left out, and so are runs by instance or component.
    Frames of a video are pooled as slices are.
    """
    own = with_corpus(records).filter(
        pl.col("volume").is_not_null(),
        pl.col("jitter_mode").is_null(),
        pl.col("target_id").is_not_null(),
        pl.col("task").is_not_null(),
        pl.col("unit") == UNIT,
    )
    both = pl.col("predicted_px") + pl.col("reference_px")
    shared = (pl.col("dice") * both / 2).round()  # an area is a whole number
    failed = (pl.col("outcome") == "failed").sum()
    where = ("corpus", "dataset", "subject", "volume", "modality", "object", "task", "seed")
    part = pl.col("target_id").str.split("#").list.last()  # the object, and its annotator
    grouped = own.group_by(*WAY, *where, part.alias("part"), maintain_order=True).agg(
        n_slices=pl.len(),
        n_missed=(pl.col("outcome") == "miss").sum(),
        n_failed=failed,
        n_without=both.is_null().sum() - failed,
        shared=shared.sum(),
        both=both.sum(),
        predicted_px=pl.col("predicted_px").sum(),
        reference_px=pl.col("reference_px").sum(),
    )
    whole = grouped.filter(pl.col("n_slices") > 1, pl.col("n_without") == 0)
    is_whole = pl.col("n_failed") == 0
    empty = pl.col("predicted_px") == 0
    outcome = pl.when(~is_whole).then(pl.lit("failed")).when(empty).then(pl.lit("miss"))
    return whole.with_columns(
        outcome=outcome.otherwise(pl.lit("ok")),
        reason=pl.when(~is_whole).then(pl.format("{} of {} slices failed", "n_failed", "n_slices")),
        dice=pl.when(is_whole).then(2 * pl.col("shared") / pl.col("both")),
        image_id="volume",
        target_id=pl.format("{}#{}", "volume", "part"),
        jitter_mode=pl.lit(None, pl.String),
        jitter_unit=pl.lit(None, pl.String),
        jitter_lo=pl.lit(None, pl.Float64),
        jitter_hi=pl.lit(None, pl.Float64),
        distance_unit=pl.lit(None, pl.String),
        image_diagonal=pl.lit(None, pl.Float64),
    ).drop("shared", "both", "n_without", "part")
