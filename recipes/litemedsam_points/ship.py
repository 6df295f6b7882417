"""Put a trained litemedsam-points into the package: as float16, with what it was measured to reach.

python recipes/litemedsam_points/ship.py MODEL --base RUN... --everything FILE --out FOLDER

MODEL is the folder that the training wrote, RUN... the runs of measure.py, FILE what thresholds.py
chose. The attribution of the training images goes with the weights.
"""

import argparse
import json
import shutil
from pathlib import Path

import polars as pl
from measure import ASKED, by_dataset

from promptseg.models import load_model
from promptseg.prompt import Everything
from promptseg.record import open_run
from promptseg.tuned import TunedCard, load_tuned, read_card, write_tuned

HERE = Path(__file__).parent
BASE = "litemedsam"


def scores(runs: list[Path], name: str) -> list[dict[str, object]]:
    """Average what both models reached on data sets that neither training nor choice saw."""
    means = by_dataset(pl.concat([open_run(run).records() for run in runs]))
    table = means.group_by("model", "selection", "strategy").agg(
        pl.col("dice").mean(), pl.col("dataset").n_unique().alias("n")
    )
    found = []
    for model, selection in (
        (name, "predicted"),
        (name, "single"),
        (name, "oracle"),
        (BASE, "single"),
    ):
        own = table.filter(model=model, selection=selection)
        values = dict(zip(own["strategy"], own["dice"], strict=True))
        row: dict[str, object] = {"model": model, "selection": selection}
        row |= {one.name: round(values[one.name], 3) for one in ASKED}
        found.append(row | {"held-out data sets": int(own["n"].max() or 0)})
    return found


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--base", type=Path, nargs="+", required=True, metavar="RUN")
    parser.add_argument("--everything", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    told = parser.parse_args()
    card = read_card(told.model)
    model = load_tuned(told.model)
    chosen = json.loads(told.everything.read_text())
    data = list(card.finetuned["data"])
    settings = {k: v for k, v in card.finetuned["settings"].items() if v is not None}
    shipped = TunedCard(
        name="litemedsam-points",
        base=BASE,
        training=card.training,
        licence="Apache-2.0",
        training_data=(
            f"{card.training_data.rpartition(': ')[2]} of {len(data)} sets whose terms allow it "
            "(ATTRIBUTION.md), a part of the targets labelled by LiteMedSAM from random boxes"
        ),
        everything=Everything(**chosen["everything"]),
        everything_source=chosen["source"],
        finetuned={
            "data": data,
            "splits": card.finetuned["splits"],
            "settings": settings,
            "scores": scores(told.base, card.name),
        },
    )
    network = model.network  # type: ignore[attr-defined]
    write_tuned(
        told.out,
        network.state_dict(),
        model,
        shipped,
        base=load_model(BASE),
        dtype="float16",
    )
    shutil.copyfile(HERE / "ATTRIBUTION.md", told.out / "ATTRIBUTION.md")
    sizes = sum(path.stat().st_size for path in told.out.iterdir())
    print(f"{told.out}: {sizes / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
