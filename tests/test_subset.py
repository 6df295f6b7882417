"""Subsets: few images that stand for many, whatever the order in which a corpus is stored."""

import hashlib
import random
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from phantom import write_phantoms

from promptseg.corpus import open_corpus
from promptseg.corpus_writer import CorpusWriter
from promptseg.errors import DataError
from promptseg.pixels import encode_image
from promptseg.rows import ImageRow, target_row
from promptseg.sample import Listed, Sample, Target, Unreadable, regroup
from promptseg.subset import COLUMNS, EXAMPLE, Choice, choose_subset, spread_ranks

CONTENT = encode_image(np.arange(64, dtype=np.uint8).reshape(8, 8))
FACTS: dict[str, Any] = {
    "dataset": "d", "modality": "CT", "width": 8, "height": 8, "intensity_rule": "none",
    "sha256": hashlib.sha256(CONTENT).hexdigest(),
}  # fmt: skip


def target(name, area, instance=None, annotator=None, first=0):
    """Give a target of so many pixels from a given one on, row by row."""
    mask = np.zeros((8, 8), dtype=bool)
    mask.ravel()[first : first + area] = True
    return name, mask, instance, annotator


def picture(name, targets=None, **facts):
    """Describe an image; it shows a liver of 20 pixels unless told otherwise."""
    return facts | {"image_id": name}, [target("liver", 20)] if targets is None else targets


def volume(name, n_slices, **facts):
    """Describe a volume whose slices all show a liver."""
    place = {"volume_id": name, "n_slices": n_slices, "plane": "axial"}
    return [
        picture(f"{name}/{index:03}", slice_index=index, **place, **facts)
        for index in range(n_slices)
    ]


def corpus_of(path, images):
    """Write described images as a corpus."""
    writer = CorpusWriter(path)
    for facts, targets in images:
        row = ImageRow(**{**FACTS, "source": facts["image_id"], **facts})
        rows = []
        for name, mask, instance, annotator in targets:
            suffix = f"{name}/{instance}" if instance else name
            suffix += f"@{annotator}" if annotator else ""
            one = Target(f"{row.image_id}#{suffix}", name, mask, instance, annotator)
            rows.append(target_row(row.image_id, one))
        writer.add(row, CONTENT, rows)
    writer.finish(name="d", datasets=[], rules={})
    return open_corpus(path)


def chosen(corpus, unit="class", seed=0, **choice):
    """Choose, and give the targets."""
    return dict(choose_subset(corpus, Choice(**choice), unit=unit, seed=seed).targets)


def slices(corpus, n, **how):
    """Choose n targets per task, and give the slices that they lie in, in order."""
    return sorted(int(name[-3:]) for name in chosen(corpus, per_task=n, **how))


MIXED = [
    *volume("v1", 9, subject="p1", split="train"),
    *volume("v2", 4, subject="p1", split="train"),
    *volume("v3", 30, subject="p2", split="test", modality="MR"),
    *volume("v4", 1, subject="p1", dataset="e", split="test"),
    *volume("v5", 12, subject=None),
    picture("i1", subject="p3", split="test"),
    picture("i2", subject="p3"),
    picture("i3", subject="p3"),
    picture("u1"),
    picture("u2", []),
    picture(
        "u3",
        [
            *(target("cell", 4, i, first=9 * i) for i in range(1, 6)),
            target("gland", 7, annotator="a"),
            target("gland", 9, annotator="b"),
        ],
        modality="WSI",
    ),
]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Give a corpus of volumes and pictures, known and unknown subjects, and two datasets."""
    return corpus_of(tmp_path_factory.mktemp("mixed") / "corpus", MIXED)


# --- without a choice, and what is counted


def test_no_choice_is_everything(mixed):
    """An image without targets included."""
    subset = choose_subset(mixed, Choice(), unit="instance")
    stored = pl.read_parquet(mixed.path / "targets" / "*.parquet")

    assert subset.n_images == subset.of_images == len(subset.targets) == len(MIXED)
    assert subset.n_targets == subset.of_targets == stored.height
    assert set().union(*subset.targets.values()) == set(stored["target_id"])
    assert subset.targets["u2"] == frozenset()
    assert dict(subset.per_task) == mixed.info.tasks


@pytest.mark.parametrize(("unit", "expected"), [("class", 3), ("instance", 7), ("component", 7)])
def test_targets_are_counted_by_the_unit(mixed, unit, expected):
    """Five cells are one target by class; two annotators are two; components are cut later."""
    subset = choose_subset(mixed, Choice(where="image_id = 'u3'"), unit=unit)

    assert subset.n_targets == sum(subset.per_task.values()) == expected
    assert len(subset.targets["u3"]) == 7
    assert subset.of_targets == (mixed.n_classes() if unit == "class" else mixed.info.n_targets)


def test_subjects_are_counted_within_datasets_and_unknown_is_not_a_number(mixed):
    """Subject p1 of two datasets is two people; of one image unknown, the count is."""
    known = choose_subset(mixed, Choice(where="subject IS NOT NULL"), unit="class")
    some = choose_subset(mixed, Choice(where="subject IS NULL OR subject = 'p1'"), unit="class")

    assert (known.n_subjects, known.of_subjects) == (4, None)
    assert some.n_subjects is None


def test_phantoms_are_counted(tmp_path):
    """Counts of a corpus whose subjects are all known."""
    corpus = write_phantoms(tmp_path / "corpus", range(20))
    subset = choose_subset(corpus, Choice(per_task=3), unit="class")

    assert (subset.n_subjects, subset.of_subjects) == (3, 6)
    assert dict(subset.per_task) == {"disc (CT)": 3, "bar (CT)": 3}


# --- split and where


def test_a_split_is_taken_exactly(mixed):
    """Every image of it, and no other."""
    images = chosen(mixed, split="test")

    assert set(images) == {*(f"v3/{i:03}" for i in range(30)), "v4/000", "i1"}


def test_an_unknown_split_names_those_there_are(mixed, tmp_path):
    """With the number of their images, and of those without."""
    with pytest.raises(DataError, match=r"test \(32 images\), train \(13 images\), and 17 images"):
        chosen(mixed, split="Test")
    corpus = write_phantoms(tmp_path / "corpus", range(2))
    with pytest.raises(DataError, match="the corpus has none"):
        chosen(corpus, split="test")


@pytest.mark.parametrize(
    ("where", "n_images"),
    [
        ("modality = 'MR'", 30),
        ("modality IN ('MR', 'WSI') AND NOT object = 'cell'", 31),
        ("area_px IS NULL", 1),
        ("image_id LIKE 'v1/%' and slice_index BETWEEN 2 AND 4", 3),
        ("slice_index % 10 = 0 AND n_slices > 4", 3 + 2 + 1),
        ('"subject" = \'p1\' AND dataset <> \'d\'', 1),
        ("starts_with(image_id, 'u') and length(image_id) = 2", 3),
        ("lower(modality) = 'wsi' OR upper(object) = 'nothing'", 1),
        ("coalesce(split, 'no') = 'no' and (x1 - x0) * y1 >= 24 and task = 'liver (CT)'", 15),
        ("annotator = 'b'", 1),
        ("target_id = 'u3#gland@a'", 1),
        ("subject = 'it''s'  or 1 = 1", len(MIXED)),
    ],
)  # fmt: skip
def test_a_condition_is_sql_on_images_and_targets(mixed, where, n_images):
    """Whatever columns it names; null compares with nothing."""
    assert len(chosen(mixed, where=where)) == n_images


def test_every_column_can_be_asked_for(mixed):
    """None of their names is a word of SQL that would be taken for something else."""
    for column in COLUMNS:
        assert len(chosen(mixed, where=f"{column} IS NULL OR {column} IS NOT NULL")) == len(MIXED)


def test_by_class_a_condition_is_on_the_joined_instances(mixed):
    """Area is the sum, the box the union, and an object stays whole or goes whole."""
    by_class = "object = 'cell' AND area_px = 20 AND x0 = 0 AND y0 = 1 AND y1 = 7"
    (cells,) = chosen(mixed, where=by_class).values()

    assert cells == {f"u3#cell/{i}" for i in range(1, 6)}
    assert chosen(mixed, where="target_id = 'u3#cell' AND instance IS NULL") == {"u3": cells}
    assert chosen(mixed, where="instance = 2", unit="instance") == {"u3": {"u3#cell/2"}}
    with pytest.raises(DataError, match="leaves nothing"):
        chosen(mixed, where="object = 'cell' AND area_px = 4")


def test_target_ids_by_class_are_those_of_records(mixed):
    """What a report names can be asked for."""
    names = set()
    for group in mixed.row_groups():
        for sample in mixed.read(group):
            names |= {one.target_id for one in regroup(sample.targets, "class")}

    for name in names:
        (stored,) = chosen(mixed, where=f"target_id = '{name}'").values()
        assert stored


@pytest.mark.parametrize(
    "where",
    [
        *("", "  ", "area_px >", "(area_px > 1", "area_px > 1)", "area_px > 1 area_px", "*"),
        *("nope = 1", "Modality = 'CT'", "modality = CT", 'modality = "CT"', "affine = 1"),
        *("area_px", "modality", "NULL", "1", "'x'", "area_px + 1", "x0 = 1) OR (x0 = 2"),
        *("max(area_px) > 3", "count(*) > 1", "sum(area_px) OVER () > 1", "rank() = 1"),
        *("area_px > 1; area_px > 2", "area_px > 1, area_px > 2", "area_px > 1 -- that", "x0 /* 1"),
        *("area_px > 'a'", "subject = 1", "subject IN (1)", "upper(area_px) = 'A'", "x0 IN ()"),
        *("subject = 'a\\'", "subject ~ 'a'", "cast(area_px AS double) > 1", "area_px::int = 1"),
        *("subject = 'a", "subject = E'a'", "unnest(area_px) > 1", "COLUMNS('.*')", "`x0` > 1"),
        *("x0 > 1 AS y", "x0 > 1 FROM self", "x0 > 1 ORDER BY 1", "$$a$$ = subject", "coalesce(*)"),
    ],
)  # fmt: skip
def test_what_is_no_condition_is_an_error_in_one_line(mixed, where):
    """It names the columns there are and an example."""
    with pytest.raises(DataError) as error:
        chosen(mixed, where=where)

    assert "\n" not in str(error.value)
    assert EXAMPLE in str(error.value)
    assert "slice_index, n_slices" in str(error.value)


@pytest.mark.parametrize(
    "where",
    [
        "x0 > (SELECT count(*) FROM read_csv('{}'))",
        "EXISTS (SELECT * FROM read_csv('{}'))",
        "x0 IN (SELECT secret FROM '{}')",
        "x0 = 1 OR x0 = (TABLE '{}')",
        "subject = 'a' -- '\n OR x0 > (SELECT max(secret) FROM read_csv('{}')) -- '",
        "subject = 'a' /* ' */ OR x0 > (SELECT max(secret) FROM read_csv('{}')) -- '",
        "subject = 'a\\' OR x0 > (SELECT max(secret) FROM read_csv('{}')) OR subject = '",
        "x0 > 1 -- '\n OR x0 > (SELECT 1) -- '\n",
        "x0 > 1 /* ' */ OR x0 > (SELECT 1) -- '\n",
        "read_csv('{}')",
        "x0 > (FROM read_csv('{}'))",
    ],
)
def test_no_condition_reads_a_file(mixed, tmp_path, where):
    """Polars opens files while it parses; the error would show what is in them."""
    file = tmp_path / "file.csv"
    file.write_text("secret\n123456\n")
    with pytest.raises(DataError, match="is no condition") as error:
        chosen(mixed, where=where.format(file))

    assert "is no column" in str(error.value) or "is not understood" in str(error.value)


def test_polars_itself_would_read_a_file(tmp_path):
    """So the words of a condition have to be checked before it sees them."""
    file = tmp_path / "file.csv"
    file.write_text("secret\n123456\n")

    with pytest.raises(pl.exceptions.ColumnNotFoundError, match="secret"):
        pl.sql_expr(f"x > (SELECT max(y) FROM read_csv('{file}'))")


WORDS = st.sampled_from(
    [
        *("x0", "area_px", "subject", "task", '"x1"', "1", "2.5", "'a'", "'b%'", "NULL", "TRUE"),
        *("AND", "OR", "NOT", "IN", "IS", "LIKE", "BETWEEN", "abs", "coalesce", "upper", "length"),
        *("(", ")", ",", "=", "<>", "<", ">=", "+", "-", "*", "/", "%", "starts_with"),
    ]
)


@given(st.lists(WORDS, max_size=9).map(" ".join))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_words_are_a_condition_or_an_error(mixed, where):
    """No other exception, and no other shape than a choice of rows."""
    try:
        images = chosen(mixed, where=where)
    except DataError:
        return

    assert set(images) <= {facts["image_id"] for facts, _ in MIXED}


def test_an_empty_result_says_which_condition_left_nothing(mixed):
    """An evaluation of nothing would look like one."""
    with pytest.raises(DataError, match=r"--where .* leaves nothing of split 'train'"):
        chosen(mixed, split="train", where="modality = 'MR'")
    with pytest.raises(DataError, match="--per-task leaves nothing"):
        chosen(mixed, where="area_px IS NULL", per_task=2)


@pytest.mark.parametrize("number", [0, -3])
def test_a_number_below_one_is_an_error(mixed, number):
    """It would leave nothing, or everything."""
    with pytest.raises(DataError, match=f"--limit {number} "):
        chosen(mixed, limit=number)
    with pytest.raises(DataError, match=f"--per-task {number} "):
        chosen(mixed, per_task=number)


# --- few of everything


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 10**9))
def test_the_first_of_a_ring_keep_their_distance(n, first, offset):
    """At least floor(n / 2^ceil(log2 N)), about half of the best there is; on a line it is more."""
    first = min(first, n)
    ranks = spread_ranks(n)[(np.arange(n) + offset) % n]
    taken = np.flatnonzero(ranks < first)
    gaps = np.diff(np.append(taken, taken[0] + n))

    assert sorted(ranks) == list(range(n))
    assert len(taken) == first
    assert gaps.min() >= n // 2 ** (first - 1).bit_length()
    assert gaps.max() <= -(-n // 2 ** (first.bit_length() - 1))


def test_three_of_thirty_slices_lie_apart(tmp_path):
    """At least 7 slices (30 / 4, the worst case), whatever the seed; the first is any."""
    corpus = corpus_of(tmp_path / "corpus", volume("v", 30, subject="p"))
    found = [slices(corpus, 3, seed=seed) for seed in range(30)]

    assert min(np.diff(three).min() for three in found) == 7
    assert len({slices(corpus, 1, seed=seed)[0] for seed in range(60)}) > 20


def test_slices_are_those_that_hold_the_task(tmp_path):
    """A small object of a long volume is spread over its own slices."""
    images = volume("v", 40, subject="p")
    images = [
        (facts, [*targets, target("node", 3)] if 20 <= facts["slice_index"] < 28 else targets)
        for facts, targets in images
    ]
    corpus = corpus_of(tmp_path / "corpus", images)
    nodes = slices(corpus, 4, where="object = 'node'")

    assert set(np.diff(nodes)) == {2}
    assert set(np.diff(slices(corpus, 8, where="object = 'liver'"))) == {5}


@pytest.mark.parametrize("choice", [{"per_task": 7}, {"limit": 7}, {"per_task": 9, "limit": 7}])
def test_subjects_take_turns(tmp_path, choice):
    """A subject of forty slices counts no more than one of three, until that runs out."""
    sizes = {"a": (40,), "b": (2, 1), "c": (1,), "d": (5, 5, 5)}
    images = [
        one
        for subject, lengths in sizes.items()
        for i, n in enumerate(lengths)
        for one in volume(f"{subject}{i}", n, subject=subject)
    ]
    corpus = corpus_of(tmp_path / "corpus", images)
    for seed in range(10):
        taken = Counter(name[0] for name in chosen(corpus, seed=seed, **choice))
        assert taken["c"] == 1
        assert sorted(taken.values()) == [1, 2, 2, 2]


def test_volumes_of_a_subject_take_turns(tmp_path):
    """And single pictures beside them: 6 of a long and a short volume and a picture."""
    images = [*volume("v", 40, subject="p"), *volume("w", 2, subject="p")]
    corpus = corpus_of(tmp_path / "corpus", [*images, picture("i", subject="p")])
    taken = Counter(name[0] for name in chosen(corpus, per_task=6))

    assert taken == {"v": 3, "w": 2, "i": 1}


def test_unknown_subjects_count_by_volume_else_by_image(tmp_path):
    """Slices of one volume are of one patient, even if nobody knows whom."""
    images = [*volume("v", 40), *volume("w", 40), *(picture(f"i{i}") for i in range(3))]
    corpus = corpus_of(tmp_path / "corpus", images)

    assert Counter(name[0] for name in chosen(corpus, per_task=5)) == {"v": 1, "w": 1, "i": 3}
    assert Counter(name[0] for name in chosen(corpus, limit=9)) == {"v": 3, "w": 3, "i": 3}


def test_subjects_of_one_name_in_two_datasets_are_two(tmp_path):
    """Names of subjects mean something within their dataset only; of volumes too."""
    images = [
        (facts | {"image_id": f"{dataset}/{facts['image_id']}"}, targets)
        for dataset in "de"
        for subject in ("p", None)
        for facts, targets in volume(f"v{subject}", 20, subject=subject, dataset=dataset)
    ]
    corpus = corpus_of(tmp_path / "corpus", images)
    taken = Counter(name.rpartition("/")[0] for name in chosen(corpus, per_task=8))

    assert taken == {"d/vp": 2, "e/vp": 2, "d/vNone": 2, "e/vNone": 2}


def test_several_targets_of_an_image_come_in_turn(tmp_path):
    """All slices give one cell before any gives its second; which one is drawn."""
    cells = [target("cell", 3, i, first=10 * i) for i in range(1, 6)]
    images = [(facts, cells) for facts, _ in volume("v", 8, subject="p")]
    corpus = corpus_of(tmp_path / "corpus", images)
    one, more = (chosen(corpus, per_task=n, unit="instance") for n in (8, 12))

    assert [len(ids) for ids in one.values()] == [1] * 8
    assert sorted(len(ids) for ids in more.values()) == [1] * 4 + [2] * 4
    assert len({name[-1] for ids in one.values() for name in ids}) > 2
    assert chosen(corpus, per_task=8, unit="class") == {
        facts["image_id"]: {f"{facts['image_id']}#cell/{i}" for i in range(1, 6)}
        for facts, _ in images
    }


def test_a_task_gets_what_there_is_and_no_more(mixed):
    """Each task for itself."""
    subset = choose_subset(mixed, Choice(per_task=2), unit="instance")

    assert dict(subset.per_task) == {
        "cell (WSI)": 2, "gland (WSI)": 2, "liver (CT)": 2, "liver (MR)": 2,
    }  # fmt: skip
    assert "u2" not in subset.targets


def test_a_limit_keeps_all_chosen_targets_of_its_images(mixed):
    """After per_task, which then is the most a task can have."""
    everything = chosen(mixed)
    few, fewer = (chosen(mixed, per_task=n, limit=5, unit="instance") for n in (100, 2))

    assert len(few) == len(fewer) == 5
    assert all(ids == everything[name] for name, ids in few.items())
    before = chosen(mixed, per_task=2, unit="instance")
    assert all(ids == before[name] for name, ids in fewer.items())


def test_a_limit_above_the_number_of_images_is_none(mixed):
    """Nothing is lost by it, images without targets included."""
    assert chosen(mixed, limit=1000) == chosen(mixed)


@pytest.mark.parametrize("unit", ["class", "instance"])
@pytest.mark.parametrize("option", ["per_task", "limit"])
def test_what_is_chosen_for_more_holds_what_is_chosen_for_less(mixed, unit, option):
    """So that a run on a few can become one on more."""
    previous: dict[str, frozenset[str]] = {}
    for n in range(1, 25):
        now = chosen(mixed, unit=unit, **{option: n})
        assert all(ids <= now.get(name, set()) for name, ids in previous.items())
        previous = now


def test_the_seed_changes_what_is_chosen(mixed):
    """Else it would choose nothing."""
    assert len({frozenset(chosen(mixed, limit=5, seed=seed)) for seed in range(10)}) > 5


@pytest.mark.parametrize("unit", ["class", "instance"])
def test_a_shuffled_corpus_gives_the_same_subset(mixed, tmp_path, unit):
    """Storage order says nothing about what is in a corpus."""
    images = [(facts, random.Random(5).sample(targets, len(targets))) for facts, targets in MIXED]
    random.Random(4).shuffle(images)
    shuffled = corpus_of(tmp_path / "corpus", images)
    for choice in ({"per_task": 3}, {"limit": 9}, {"per_task": 5, "limit": 7, "split": "test"}):
        assert chosen(shuffled, unit=unit, **choice) == chosen(mixed, unit=unit, **choice)


def test_what_is_chosen_stays_what_it_was(mixed):
    """A subset is named by its options in papers: other versions must choose it too."""
    images = chosen(mixed, per_task=2, unit="instance")

    assert set(chosen(mixed, limit=6)) == {"i2", "u1", "u2", "u3", "v2/001", "v5/008"}
    assert set(images) == {"u1", "u3", "v2/001", "v3/006", "v3/021"}
    assert {"u3#cell/3", "u3#cell/5"} < images["u3"]


LENGTHS = st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=3), min_size=1, max_size=4)


@given(LENGTHS, st.integers(1, 30), st.sampled_from(["per_task", "limit"]), st.integers(0, 9))
@settings(max_examples=25)
def test_turns_are_fair_at_both_levels(subjects, n, option, seed):
    """Counts of subjects, and of volumes in one, differ by one at most unless one has run out."""
    sizes = {f"{s}.{v}": n for s, volumes in enumerate(subjects) for v, n in enumerate(volumes)}
    images = [one for name, n in sizes.items() for one in volume(name, n, subject=name[0])]
    with tempfile.TemporaryDirectory() as folder:
        corpus = corpus_of(Path(folder) / "corpus", images)
        names = chosen(corpus, seed=seed, **{option: n})
    by_volume = Counter({name: 0 for name in sizes})
    by_volume.update(name.partition("/")[0] for name in names)

    assert len(names) == min(n, len(images))
    by_subject = [
        (sum(by_volume[f"{s}.{v}"] for v in range(len(volumes))), sum(volumes))
        for s, volumes in enumerate(subjects)
    ]
    _assert_fair(by_subject)
    for s, volumes in enumerate(subjects):
        _assert_fair([(by_volume[f"{s}.{v}"], n) for v, n in enumerate(volumes)])


def _assert_fair(taken_of: list[tuple[int, int]]) -> None:
    most = max(taken for taken, _ in taken_of)
    assert all(taken >= most - 1 for taken, of in taken_of if taken < of)


# --- reading a subset


def test_a_corpus_gives_only_what_was_chosen(mixed):
    """Image by image, target by target, from the row groups that hold any."""
    targets = chosen(mixed, per_task=2, unit="instance")
    groups = mixed.groups_of(targets)
    read = [sample for group in groups for sample in mixed.read(group, targets)]

    assert {s.image_id: {t.target_id for t in s.targets} for s in read} == targets
    assert [group.n_images for group in groups] == [
        len(list(mixed.read(group, targets))) for group in groups
    ]
    assert len(groups) < len(mixed.row_groups())
    assert mixed.groups_of(chosen(mixed)) == mixed.row_groups()


def test_an_image_chosen_without_targets_is_read(mixed):
    """It was kept on purpose."""
    targets = chosen(mixed, where="area_px IS NULL")
    (group,) = mixed.groups_of(targets)
    (sample,) = mixed.read(group, targets)

    assert isinstance(sample, Sample)
    assert (sample.image_id, sample.targets, group.n_images) == ("u2", (), 1)


@pytest.mark.parametrize("changed", ["u3#cell/1", "u3#gland@a"])
def test_an_image_is_checked_whole_before_targets_are_left_out(tmp_path, changed):
    """A changed target that is not asked for still says that the image is not what it was."""
    corpus = corpus_of(tmp_path / "corpus", MIXED)
    part = corpus.path / "targets" / "part-00000.parquet"
    table = pq.read_table(part)
    rows = [
        row | ({"area_px": 1} if row["target_id"] == changed else {}) for row in table.to_pylist()
    ]
    pq.write_table(type(table).from_pylist(rows, table.schema), part)
    targets = {"u3": frozenset({"u3#cell/1", "u3#cell/2"})}
    (group,) = corpus.groups_of(targets)
    (found,) = corpus.read(group, targets)

    assert isinstance(found, Unreadable)
    assert "changed after it was curated" in found.reason
    assert found.targets == (Listed("u3#cell/1", "cell"), Listed("u3#cell/2", "cell"))


def test_choosing_decodes_nothing_and_a_damaged_part_is_one_line(tmp_path):
    """Pictures and masks may be anything; a part that is no Parquet is an error."""
    corpus = corpus_of(tmp_path / "corpus", MIXED)
    for kind, column in (("images", "image"), ("targets", "mask")):
        part = corpus.path / kind / "part-00000.parquet"
        pq.write_table(pq.read_table(part).drop_columns([column]), part)

    assert chosen(corpus, limit=3)
    part.write_bytes(b"no parquet")
    with pytest.raises(DataError, match="cannot be searched") as error:
        chosen(corpus, limit=3)
    assert "\n" not in str(error.value)


def test_a_choice_is_a_value():
    """It can be compared, and written beside a run."""
    assert replace(Choice(limit=3), limit=None) == Choice()
