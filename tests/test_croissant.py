"""The Croissant description against the corpus it describes and the rules of its format."""

import json

import numpy as np
import polars as pl
import pytest
from PIL import Image

from promptseg.corpus import CorpusInfo
from promptseg.croissant import describe
from promptseg.curation import Curation, curate


@pytest.fixture
def corpus(tmp_path):
    """Give the folder of a small corpus."""
    for name in ("images", "masks"):
        (tmp_path / "raw" / name).mkdir(parents=True)
        Image.fromarray(np.full((9, 9), 255, dtype=np.uint8)).save(tmp_path / f"raw/{name}/1.png")
    list(curate(tmp_path / "raw", tmp_path / "corpus", Curation(modality="CT")))
    return tmp_path / "corpus"


def leaves(fields):
    """List the fields that hold values, those within fields too."""
    return [leaf for field in fields for leaf in field.get("subField", [field])]


def test_every_field_is_a_column_and_every_column_a_field(corpus):
    """A loader that follows the description finds what it says, and nothing is hidden."""
    content = json.loads((corpus / "croissant.json").read_text())
    globs = {part["@id"]: part["includes"] for part in content["distribution"]}

    assert [record_set["@id"] for record_set in content["recordSet"]] == [
        "images",
        "targets",
        "drops",
    ]
    for record_set in content["recordSet"]:
        sources = [leaf["source"] for leaf in leaves(record_set["field"])]
        (file_set,) = {source["fileSet"]["@id"] for source in sources}
        columns = pl.read_parquet(corpus / globs[file_set]).columns
        assert list(dict.fromkeys(s["extract"]["column"] for s in sources)) == columns


def test_the_description_has_what_the_format_asks_for(corpus):
    """Name, licence, conformance, types; ids are unique and references lead somewhere."""
    content = json.loads((corpus / "croissant.json").read_text())
    fields = [leaf for record_set in content["recordSet"] for leaf in leaves(record_set["field"])]
    ids = [field["@id"] for field in fields]
    keys = [record_set["key"]["@id"] for record_set in content["recordSet"] if "key" in record_set]
    references = [field["references"]["field"]["@id"] for field in fields if "references" in field]

    assert content["@type"] == "sc:Dataset"
    assert content["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    assert content["@context"]["conformsTo"] == "dct:conformsTo"
    assert content["@context"]["recordSet"] == "cr:recordSet"
    assert (content["name"], content["license"]) == ("raw", "unknown")
    assert content["description"].startswith("1 medical images with 1 reference masks")
    assert len(ids) == len(set(ids))
    assert {*keys, *references} == {"images/image_id", "targets/target_id"}
    assert {field["dataType"] for field in fields} == {
        *("sc:Text", "sc:Integer", "sc:Float", "sc:ImageObject"),
    }


def test_lists_and_structs_are_described_as_such(corpus):
    """Boxes repeat, pictures are bytes within a column, run lengths have two parts."""
    content = json.loads((corpus / "croissant.json").read_text())
    fields = {
        leaf["@id"]: leaf
        for record_set in content["recordSet"]
        for leaf in leaves(record_set["field"])
    }

    assert fields["targets/box"]["repeated"] is True
    assert fields["images/affine"]["dataType"] == "sc:Float"
    assert fields["images/image"]["source"]["transform"] == {"jsonPath": "bytes"}
    assert fields["targets/mask/counts"]["source"] == {
        "fileSet": {"@id": "targets-parts"},
        "extract": {"column": "mask"},
        "transform": {"jsonPath": "counts"},
    }


def test_licences_and_citations_are_passed_on():
    """Those of all data sets in a corpus."""
    info = CorpusInfo(
        name="x",
        version="1",
        fingerprint="f",
        n_images=1,
        n_targets=1,
        n_drops=0,
        tasks={},
        datasets=[
            {"name": "a", "licence": "CC BY 4.0", "citation": "A 2020"},
            {"name": "b", "licence": None, "citation": None},
        ],
    )
    content = describe(info)

    assert content["license"] == "CC BY 4.0; unknown"
    assert content["citeAs"] == "A 2020"
