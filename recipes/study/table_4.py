"""Table 4: what an answer costs.

python recipes/study/table_4.py RUN... --out DIR

The paper's table gives seconds for the image encoder, for a prompt, and for everything. Here they
are medians and quartiles of what the runs measured on their device: the encoder once per image,
the decoder per prompt (over all strategies and jitter), everything per
image; scoring is in none. Times are of the machine that made a run, and of what else it did then:
compare runs of one machine. Needs: runs of kind `prompts`, and
`everything` for its rows.
"""

from collections.abc import Sequence

import polars as pl
import runs
import sheet
from asked import Asked, ask, plainly

from promptseg import open_run

WHO = ["model", "device", "torch"]


def machines(asked: Asked) -> pl.DataFrame:
    """Tell the device and the torch of every run."""
    folders = [open_run(path) for path in asked.runs]
    return pl.DataFrame(
        {
            "run": [folder.path.name for folder in folders],
            "device": [folder.run.device for folder in folders],
            "torch": [folder.run.versions.get("torch") for folder in folders],
        }
    ).unique("run")


def table(records: pl.DataFrame, of_run: pl.DataFrame) -> pl.DataFrame:
    """Give the quartiles of the times, in milliseconds."""
    timed = records.join(of_run, on="run", how="left").drop_nulls("decode_ms")
    everything = pl.col("strategy") == "everything"
    images = timed.unique(["run", "model", "image_id"], maintain_order=True)
    prompts = timed.filter(~everything).unique(["run", "model", "prompt_id"], maintain_order=True)
    grid = pl.format("everything, {} x {}, per image", "points_per_side", "points_per_side")
    return pl.concat(
        [
            _quartiles(images.with_columns(step=pl.lit("encoder, per image")), "embed_ms"),
            _quartiles(prompts.with_columns(step=pl.lit("decoder, per prompt")), "decode_ms"),
            _quartiles(images.filter(everything).with_columns(step=grid), "decode_ms"),
        ]
    )


def _quartiles(timed: pl.DataFrame, column: str) -> pl.DataFrame:
    quartiles = {
        name: pl.col(column).quantile(share, interpolation="linear")
        for name, share in (("median_ms", 0.5), ("lower_quartile_ms", 0.25),
                            ("upper_quartile_ms", 0.75))
    }  # fmt: skip
    return timed.group_by(*WHO, "step").agg(n=pl.len(), **quartiles).sort(*WHO, "step")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table."""
    asked = ask(__doc__, [runs.PROMPTS], arguments)
    found = table(asked.records(), machines(asked))
    title = "Table 4: time of an answer, in milliseconds, on the machine that made the runs."
    sheet.write(found, asked.out / "table_4", title)


if __name__ == "__main__":
    plainly(main)
