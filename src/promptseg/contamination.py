"""Which models were trained on the data that they are evaluated on: what is declared, and matched.

Three may declare it: a model (its card, or its attribute `trained_on`, names of data sets), a
fine-tuning (its card lists the data sets, and hashes of the images that it saw), and the user.
Names are compared whatever their case and punctuation. Nothing declared is nothing known, and not
clean.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from promptseg.corpus import Corpus, part_paths
from promptseg.models import MODELS, folder_of, published_hash
from promptseg.record import Run
from promptseg.subset import Subset
from promptseg.tuned.card import TunedCard, read_card, stages_of

HASH_LETTERS = 16  # of the hash of an image's pixels, as cards keep it: enough to tell images apart
MARK = "trained on it"


@dataclass(frozen=True, slots=True)
class Declared:
    """What one model says it was trained on."""

    names: tuple[str, ...]  # data sets
    listed: tuple[str, ...] = ()  # of these, the ones of which it lists the images
    images: frozenset[str] = frozenset()

    def only_names(self, dataset: str) -> bool:
        """Tell whether a data set is named, and which of its images were seen is not listed."""
        return _matches(dataset, self.names) and not _matches(dataset, self.listed)


def declared(word: str, model: Any) -> Declared:
    """Ask a model, by the word that loaded it, for what it was trained on."""
    own = tuple(map(str, getattr(model, "trained_on", ())))
    is_tool = not hasattr(model, "training")  # a folder of masks is no folder of a model
    if is_tool or (word in MODELS and model.weights_hash != published_hash(MODELS[word])):
        return Declared(own)
    folder = folder_of(word)
    # of one's own, it may have been loaded from a folder
    card = getattr(model, "tuned_card", None) if folder is None else read_card(folder)
    return _of_card(card, own) if isinstance(card, TunedCard) else Declared(own)


def _of_card(card: TunedCard, own: Sequence[str]) -> Declared:
    """Take what all trainings behind a model saw: those of the models it was made from too."""
    listed, unlisted, images = list[str](), list[str](own), set[str]()
    for stage in stages_of(card):
        names = [str(row["name"]) for row in stage["data"] if row.get("name")]
        (listed if stage["images"] else unlisted).extend(names)
        images |= set(stage["images"])
    only = tuple(name for name in listed if not _matches(name, unlisted))
    return Declared(tuple(dict.fromkeys([*unlisted, *listed])), only, frozenset(images))


def found(
    corpus: Corpus, models: Mapping[str, Any], subset: Subset | None
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Give what every model was trained on, and what of its fine-tuning is held out.

    The first lists data sets, in the words of who declares them; of a fine-tuning that lists its
    images, those of the corpus of which it saw an image that is evaluated. The second lists those
    of which it saw none.
    """
    told = {model.name: declared(word, model) for word, model in models.items()}
    trained, held_out = {}, {}
    for name, one in told.items():
        seen = _seen(corpus, one.images, subset) if one.images else {}
        here = {dataset for dataset in seen if _matches(dataset, one.listed)}
        clean = {dataset for dataset in here if not seen[dataset]}
        names = [word for word in one.names if not _matches(word, tuple(clean))]
        trained[name] = list(dict.fromkeys([*names, *(d for d in seen if seen[d])]))
        held_out[name] = sorted(clean)
    return (
        {name: names for name, names in trained.items() if names},
        {name: names for name, names in held_out.items() if names},
    )


def _seen(corpus: Corpus, images: frozenset[str], subset: Subset | None) -> dict[str, int]:
    """Count by data set the images that are evaluated and that a model saw."""
    import polars as pl

    columns = ["image_id", "dataset", "sha256"]
    rows = pl.scan_parquet(part_paths(corpus.path, "images"), glob=False).select(columns).collect()
    of_pixels, used = pixel_hashes(corpus), with_targets(corpus)
    counts: dict[str, int] = {}
    for image_id, dataset, of_file in rows.iter_rows():
        if image_id in used and (subset is None or image_id in subset.targets):
            hashes = {of_file[:HASH_LETTERS], of_pixels.get(image_id, of_file)[:HASH_LETTERS]}
            counts[dataset] = counts.get(dataset, 0) + bool(hashes & images)
    return counts


def pixel_hashes(corpus: Corpus) -> dict[str, str]:
    """Give the hash of every image's pixels, where the corpus has looks.

    An image that is curated again may be packed into another file, by a newer library; its pixels
    are the same.
    """
    import polars as pl

    parts = part_paths(corpus.path, "looks")
    if not parts:
        return {}
    looks = pl.scan_parquet(parts, glob=False).select("image_id", "content").collect()
    return dict(looks.iter_rows())


def with_targets(corpus: Corpus) -> set[str]:
    """List the images that have a target: what has none, as a black slice, tells nothing."""
    import polars as pl

    parts = part_paths(corpus.path, "targets")
    if not parts:
        return set()
    drawn = pl.scan_parquet(parts, glob=False).filter(pl.col("area_px") > 0)
    return set(drawn.select("image_id").unique().collect()["image_id"].to_list())


def contaminated(run: Run, model: str, datasets: Sequence[str]) -> list[str]:
    """Pick the data sets that a model of a run was trained on."""
    names = tuple(run.trained_on.get(model, ()))
    return [dataset for dataset in datasets if _matches(dataset, names)]


def _matches(dataset: str, names: Sequence[str]) -> bool:
    return _plain(dataset) in {_plain(name) for name in names}


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())
