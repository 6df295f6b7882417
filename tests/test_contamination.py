"""Models that were trained on what they are evaluated on: found, marked, and kept out."""

import dataclasses
import json
from pathlib import Path

import fakes
import numpy as np
import polars as pl
import pytest
from phantom import write_phantoms
from PIL import Image
from test_report import folder, page, record, text_of
from test_report_answers import answers_of
from typer.testing import CliRunner

import promptseg.models
from promptseg.cli import app
from promptseg.contamination import HASH_LETTERS, _seen, contaminated, found
from promptseg.corpus import open_corpus, part_paths
from promptseg.curation import Curation, curate
from promptseg.likeness import look_of
from promptseg.record import open_run
from promptseg.report import summary_rows, table_rows
from promptseg.tuned.card import card_text, read_card

POINTS = Path(promptseg.models.__file__).parent / "litemedsam_points"


@dataclasses.dataclass
class Said:
    """A model that says what it was trained on."""

    trained_on: tuple[str, ...]
    name: str = "said"
    weights_hash: str = "0" * 64
    training: object = None


def records_of(dataset: str, dice: float, model: str = "m") -> list:
    """Six subjects of one data set."""
    return [
        record(model=model, dataset=dataset, subject=f"{dataset}{i}", image_id=f"{dataset}{i}",
               target_id=f"{dataset}{i}#liver", dice=dice)
        for i in range(6)
    ]  # fmt: skip


def test_results_on_training_data_are_marked_and_in_no_headline_mean_or_ranking(tmp_path):
    """0.9 was trained on, 0.6 was not; n was trained on neither, with 0.7."""
    records = [*records_of("Heart-MR", 0.9), *records_of("other", 0.6),
               *records_of("Heart-MR", 0.7, "n"), *records_of("other", 0.7, "n")]  # fmt: skip
    made = folder(
        tmp_path / "r", records, models={"m": "a" * 64, "n": "b" * 64},
        asked={"m": "m", "n": "n"}, trained_on={"m": ["heart_mr"]},
    )  # fmt: skip
    html = page(tmp_path, made)
    means = {row.group.model: row.dice.value for row in summary_rows([made])}
    rows = {row.group.model: row for row in table_rows([made])}

    assert means == {"m": pytest.approx(0.6), "n": pytest.approx(0.7)}
    assert rows["m (trained on it)"].dice.value == pytest.approx(0.9)
    assert rows["m (trained on it)"].group.off_protocol
    assert "m was trained on data of 1 task: these results are marked" in text_of(html)
    assert answers_of(html)["Which model?"].startswith(
        "n, by box / single (DICE 0.700 on common targets); m at its"
    )
    assert "0.9" not in answers_of(html)["Which model?"]


def test_what_the_models_declare_is_matched_by_name_and_nothing_else(tmp_path):
    """Case and punctuation do not matter, parts of names do."""
    made = folder(tmp_path / "r", [record()], trained_on={"m": ["BTCV", "Kvasir SEG"]})

    assert contaminated(made.run, "m", ["btcv", "kvasir-seg", "btcv-cervix"]) == [
        "btcv", "kvasir-seg",
    ]  # fmt: skip
    assert contaminated(made.run, "n", ["btcv"]) == []


def test_one_s_own_model_and_a_silent_one(tmp_path):
    """An attribute declares; without it nothing is known, and nothing is claimed."""
    corpus = write_phantoms(tmp_path / "c", range(2))
    trained, held_out = found(
        corpus, {"a:b": Said(("phantom",)), "fakes:reference": fakes.reference()}, None
    )

    assert trained == {"said": ["phantom"]}
    assert held_out == {}


@pytest.mark.parametrize("saw", [True, False])
def test_a_fine_tuning_that_lists_its_images_is_judged_by_them(tmp_path, saw):
    """Held-out images of the data set that it was trained on are clean, one seen image is not."""
    corpus = write_phantoms(tmp_path / "c", range(3))
    digests = pl.read_parquet(part_paths(corpus.path, "images"))["sha256"].to_list()
    card = json.loads((POINTS / "model.json").read_text())
    card["name"] = "tuned"
    card["finetuned"]["data"] = [{"name": "phantom", "licence": None}]
    card["finetuned"]["images"] = [digests[0][:HASH_LETTERS] if saw else "0" * HASH_LETTERS]
    folder_of_model = tmp_path / "tuned"
    folder_of_model.mkdir()
    (folder_of_model / "model.json").write_text(json.dumps(card))
    model = Said((), name="tuned", weights_hash=read_card(folder_of_model).sha256)
    trained, held_out = found(corpus, {str(folder_of_model): model}, None)

    assert trained == ({"tuned": ["phantom"]} if saw else {})
    assert held_out == ({} if saw else {"tuned": ["phantom"]})


def test_images_that_are_packed_anew_are_the_same_images(tmp_path):
    """Hashes are of pixels: a newer library may write another PNG of them."""
    (tmp_path / "data/images").mkdir(parents=True)
    (tmp_path / "data/masks").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "data/images/a.png")
    mask = np.zeros((20, 30), np.uint8)
    mask[4:16, 5:25] = 255
    Image.fromarray(mask).save(tmp_path / "data/masks/a.png")
    list(curate(tmp_path / "data", tmp_path / "c", Curation(modality="CT", dataset="d")))
    (path,) = part_paths(tmp_path / "c", "images")
    rows = pl.read_parquet(path)
    rows.with_columns(sha256=pl.lit("f" * 64)).write_parquet(path)
    seen = frozenset({look_of("a", pixels).content[:HASH_LETTERS]})

    assert _seen(open_corpus(tmp_path / "c"), seen, None) == {"d": 1}
    assert _seen(open_corpus(tmp_path / "c"), frozenset({"0" * HASH_LETTERS}), None) == {"d": 0}
    assert _seen(open_corpus(tmp_path / "c"), frozenset({"f" * HASH_LETTERS}), None) == {"d": 1}


def test_the_user_may_declare_it(tmp_path):
    """`evaluate --trained-on`, kept with the run; the report says which data it was."""
    corpus = write_phantoms(tmp_path / "c", range(2))
    result = CliRunner().invoke(
        app,
        ["evaluate", str(corpus.path), "--model", "fakes:reference", "--trained-on", "Phantom",
         "--out", str(tmp_path / "r")],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    made = open_run(tmp_path / "r")
    text = text_of(page(tmp_path, made, corpora={str(corpus.path): corpus}))

    assert made.run.trained_on == {"reference": ["Phantom"]}
    assert made.run.datasets == corpus.info.datasets
    assert "reference (trained on it)" in text
    assert "reference: Phantom" in text
    assert not summary_rows([made])


@pytest.mark.parametrize("odd", [{"data": "phantom"}, {"images": 3}, {"data": [3], "images": [{}]}])
def test_a_card_of_another_form_says_nothing(tmp_path, odd):
    """Anyone may have written it: what is no list of data sets or hashes is left."""
    corpus = write_phantoms(tmp_path / "c", range(1))
    card = dataclasses.replace(read_card(POINTS), finetuned=odd)
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "model.json").write_text(card_text(card))
    model = Said((), name=card.name, weights_hash=card.sha256)

    assert found(corpus, {str(tmp_path / "tuned"): model}, None) == ({}, {})
