"""The corpus format: what other programs read in it, and what happens to damaged ones."""

import hashlib
import json

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from promptseg.corpus import open_corpus
from promptseg.corpus_writer import IMAGES_PER_PART, IMAGES_PER_ROW_GROUP, CorpusWriter
from promptseg.errors import DataError
from promptseg.pixels import decode_image, displayed, encode_image
from promptseg.rows import DropRow, ImageRow, target_row
from promptseg.sample import Listed, Sample, Target, Unreadable

# pycocotools has not followed NumPy 2 in one place; what it decodes is right
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

rng = np.random.default_rng(2)
RGB = rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)
MASK = np.zeros((6, 9), dtype=bool)
MASK[1:4, 2:8] = True
MASK[2, 5] = False


def add(writer, name="d/1", pixels=RGB, mask=MASK, **facts):
    """Add an image with one target."""
    content = encode_image(pixels)
    row = ImageRow(
        image_id=name,
        dataset="d",
        modality="CT",
        width=pixels.shape[1],
        height=pixels.shape[0],
        intensity_rule="none",
        source=f"images/{name}.png",
        sha256=hashlib.sha256(content).hexdigest(),
        **facts,
    )
    writer.add(row, content, [target_row(name, Target(f"{name}#liver", "liver", mask))])


def finished(writer):
    """Write what is left."""
    about = {"name": "d", "licence": None, "citation": None}
    return writer.finish(name="d", datasets=[about], rules={})


@pytest.fixture
def corpus(tmp_path):
    """Give the folder of a corpus of two images and a drop."""
    writer = CorpusWriter(tmp_path / "corpus")
    add(writer, "d/1")
    add(writer, "d/2", pixels=RGB[::-1, :, 0].copy(), subject="p1", subject_source="pattern")
    writer.drop(DropRow(source="masks/3.png", reason="the mask is empty"))
    finished(writer)
    return tmp_path / "corpus"


def test_datasets_opens_a_corpus_with_pictures(corpus, tmp_path):
    """The schema metadata tell `datasets` that the column image holds pictures."""
    import datasets

    opened = datasets.load_dataset(
        "parquet",
        data_files=str(corpus / "images" / "*.parquet"),
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )

    assert opened.column_names[-1] == "image"
    assert np.array_equal(np.asarray(opened[0]["image"]), RGB)
    assert opened[1]["image"].mode == "L"
    assert opened["subject"][:] == [None, "p1"]


def test_duckdb_joins_images_and_targets(corpus):
    """A corpus is a database for whoever knows SQL."""
    import duckdb

    rows = duckdb.sql(
        f"select object, area_px, box, width from '{corpus}/images/*.parquet' "
        f"join '{corpus}/targets/*.parquet' using (image_id) where subject is null"
    ).fetchall()

    assert rows == [("liver", 17, [2, 1, 8, 4], 9)]


def test_polars_and_pycocotools_read_the_masks(corpus):
    """Run lengths are COCO's, column-major, so that its tools decode them as they are."""
    from pycocotools import mask as coco

    (first, _) = pl.read_parquet(corpus / "targets" / "*.parquet").to_dicts()

    assert np.array_equal(coco.decode(first["mask"]), MASK)


def test_unknown_is_null_never_a_default(corpus):
    """Of the first image only what was said is known."""
    first = pl.read_parquet(corpus / "images" / "*.parquet").drop("image").to_dicts()[0]
    known = {name for name, value in first.items() if value is not None}

    assert known == {
        *("image_id", "dataset", "modality", "width", "height", "intensity_rule", "source"),
        *("sha256", "subject_source", "digest"),
    }
    assert first["subject_source"] == "unknown"


def test_drops_are_kept_with_their_reason(corpus):
    """What is not in a corpus is in it too, by name."""
    (drop,) = pl.read_parquet(corpus / "drops" / "*.parquet").to_dicts()

    assert (drop["source"], drop["reason"]) == ("masks/3.png", "the mask is empty")
    assert open_corpus(corpus).info.n_drops == 1


def test_samples_come_back_as_they_were_written(corpus):
    """Grey images come as RGB, masks bit for bit, unknown spacing as None."""
    opened = open_corpus(corpus)
    first, second = (sample for group in opened.row_groups() for sample in opened.read(group))

    assert isinstance(first, Sample)
    assert np.array_equal(first.image, RGB)
    assert np.array_equal(second.image, np.repeat(RGB[::-1, :, :1], 3, axis=2))
    assert np.array_equal(first.targets[0].mask, MASK)
    assert (first.spacing_yx_mm, first.subject, second.subject) == (None, None, "p1")
    assert opened.info.tasks == {"liver (CT)": 2}


def test_the_fingerprint_is_of_the_content_not_of_its_order(tmp_path):
    """Records of two runs are comparable if the fingerprints are equal."""
    writers = [CorpusWriter(tmp_path / name) for name in "abc"]
    for name in ("d/1", "d/2"):
        add(writers[0], name)
    for name in ("d/2", "d/1"):
        add(writers[1], name)
    for name in ("d/1", "d/2"):
        add(writers[2], name, mask=MASK | (name == "d/2"))
    same, turned, other = (finished(writer).fingerprint for writer in writers)

    assert same == turned
    assert same != other


def test_a_large_corpus_has_parts_and_row_groups(tmp_path):
    """Parts bound the memory of writing, row groups that of reading."""
    writer = CorpusWriter(tmp_path / "corpus")
    for index in range(IMAGES_PER_PART + 1):
        add(writer, f"d/{index}")
    info = finished(writer)
    opened = open_corpus(tmp_path / "corpus")
    groups = opened.row_groups()

    assert info.n_images == sum(group.n_images for group in groups) == IMAGES_PER_PART + 1
    assert max(group.n_images for group in groups) == IMAGES_PER_ROW_GROUP
    assert [group.part for group in groups if group.index == 0] == [0, 1]
    (last,) = opened.read(groups[-1])
    assert last.image_id == f"d/{IMAGES_PER_PART}"
    assert len(last.targets) == 1


def test_a_damaged_image_is_unreadable_and_the_rest_is_not(corpus):
    """A flipped byte costs one image, and says so; its targets are not forgotten."""
    path = corpus / "images" / "part-00000.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[0]["image"]["bytes"] = rows[0]["image"]["bytes"][:-20]
    pq.write_table(type(table).from_pylist(rows, table.schema), path)
    opened = open_corpus(corpus)
    first, second = opened.read(opened.row_groups()[0])

    assert isinstance(first, Unreadable)
    assert first.targets == (Listed("d/1#liver", "liver"),)
    assert "sha256" in first.reason
    assert isinstance(second, Sample)


def test_a_mask_of_another_size_makes_its_image_unreadable(tmp_path):
    """Scores against it would be about something else."""
    writer = CorpusWriter(tmp_path / "corpus")
    add(writer, mask=MASK[:, :-1])
    finished(writer)
    opened = open_corpus(tmp_path / "corpus")
    (sample,) = opened.read(opened.row_groups()[0])

    assert isinstance(sample, Unreadable)
    assert "another size" in sample.reason


def test_an_image_id_is_given_once(tmp_path):
    """Records point at images by it."""
    writer = CorpusWriter(tmp_path / "corpus")
    add(writer)

    with pytest.raises(ValueError, match="d/1"):
        add(writer)


def test_an_empty_mask_is_no_target():
    """Nothing could be prompted or scored."""
    with pytest.raises(ValueError, match="empty"):
        target_row("d/1", Target("d/1#liver", "liver", np.zeros((2, 2), dtype=bool)))


def test_a_corpus_never_overwrites(corpus):
    """The folder may hold the only copy of something."""
    with pytest.raises(DataError, match="not empty"):
        CorpusWriter(corpus)


def test_a_corpus_without_images_is_none(tmp_path):
    """An evaluation of nothing would look like one."""
    with pytest.raises(DataError, match="no image"):
        finished(CorpusWriter(tmp_path / "corpus"))

    with pytest.raises(DataError, match="There is no folder"):
        open_corpus(tmp_path / "corpus")


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "damaged"), ("{}", "damaged"), ("[]", "damaged"), (None, "format 99")],
)
def test_a_damaged_or_newer_description_is_an_error_in_one_line(corpus, content, message):
    """Whatever stands in corpus.json."""
    file = corpus / "corpus.json"
    newer = json.dumps({**json.loads(file.read_text()), "format_version": 99})
    file.write_text(newer if content is None else content)

    with pytest.raises(DataError, match=message):
        open_corpus(corpus)


def test_missing_and_broken_parts_are_errors(corpus):
    """A corpus copied in part is noticed before anything is computed."""
    path = corpus / "images" / "part-00000.parquet"
    path.write_bytes(b"no parquet")
    with pytest.raises(DataError, match="damaged"):
        open_corpus(corpus).row_groups()
    path.unlink()
    with pytest.raises(DataError, match="0 rows in 0 parts"):
        open_corpus(corpus)


def test_16_bit_grey_is_shown_by_its_range():
    """The stored picture keeps all bits; 0..255 is for models that want it."""
    deep = np.array([[1000, 2000], [3000, 5000]], dtype=np.uint16)
    content = encode_image(deep)
    stored = decode_image(content, hashlib.sha256(content).hexdigest())

    assert np.array_equal(stored, deep)
    assert displayed(stored, 1000.0, 5000.0)[:, :, 0].tolist() == [[0, 64], [128, 255]]
    with pytest.raises(ValueError, match="no intensity range"):
        displayed(stored, None, None)
