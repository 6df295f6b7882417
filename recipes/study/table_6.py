"""Table 6: what DICE depends on.

python recipes/study/table_6.py RUN... --out DIR

The paper's table gives partial Spearman correlations of DICE with size, aspect ratio, intensity
difference, boundary complexity and modality, over all structures at once. Here ranks are taken
within data set and modality (a modality is no number), intervals and p leave out subjects, p is
corrected by Holm, and boundary complexity is given by the paper's rule and by a corrected one.
Below five subjects nothing is tested. Needs: runs of kind `prompts`.
"""

from collections.abc import Sequence

import polars as pl
import runs
import sheet
from asked import Asked, ask, plainly

from promptseg import frame_of
from promptseg.factors import factors

SHOWN = (
    "attribute", "model", "strategy", "selection", "rho", "lo", "hi", "p_holm", "alone",
    "inflation", "n_targets", "n_units", "n_strata",
)  # fmt: skip


def table(asked: Asked) -> pl.DataFrame:
    """Correlate DICE with every attribute, for every model, strategy and selection."""
    found = frame_of(factors(asked.records(), asked.attributes()), each="rows")
    return found.filter(~pl.col("off_protocol"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table."""
    asked = ask(__doc__, [runs.PROMPTS], arguments)
    title = (
        "Table 6: partial Spearman correlation (rho) of DICE with attributes, within data set and "
        "modality; 95 % intervals over subjects; `alone`: nothing held."
    )
    sheet.write(table(asked), asked.out / "table_6", title, SHOWN)


if __name__ == "__main__":
    plainly(main)
