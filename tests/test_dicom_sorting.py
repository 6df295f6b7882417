"""Slices of one series that lie at the same place: times, echoes, directions, patients."""

import numpy as np
import polars as pl
import pytest
from dicom_files import MR, clinical, put_pixels, save, series
from pydicom.dataset import Dataset

from promptseg.corpus import open_corpus
from promptseg.curation import curate

N = 9
AFFINE = np.diag([0.8, 1.1, 2.5, 1.0])  # in LPS
rng = np.random.default_rng(7)
SLICES = rng.integers(-1000, 2000, (N, 18, 22), dtype=np.int16)


def volumes(folder, out, **more):
    """Curate a folder without masks; give its rows, the lowest value by volume, and the rules."""
    settings = {"modality": "MR", "keep_empty": True, "dataset": "d", "names": "keep", **more}
    list(curate(folder, out, clinical(**settings)))
    rows = pl.read_parquet(out / "images/*.parquet")
    lowest = rows.group_by("volume_id").agg(pl.col("intensity_lo").unique())["intensity_lo"]
    return rows, sorted(lowest.to_list()), open_corpus(out).info.rules


def several(count, **marks):
    """Make nine places `count` times, the n-th brighter by 4000 n; marks are lists by place."""
    files = []
    for n in range(count):
        for place, data in enumerate(series(SLICES + 4000 * n, AFFINE, MR, name=f"n{n}")):
            data.SeriesInstanceUID, data.InstanceNumber = "1.2.3", place * count + n + 1
            for keyword, values in marks.items():
                setattr(data, keyword, values[n][place])
            files.append(data)
    return files


def of_studies(folder, patients, **facts):
    """Write a series of each patient, every one in its own study."""
    for n, (key, value) in enumerate(patients):
        study = {"StudyInstanceUID": f"1.2.{n}", "PatientID": "", key: value, **facts}
        save(folder / f"p{n}", series(SLICES[:3], AFFINE, MR, name=f"s{n}", **study))


@pytest.mark.parametrize("value", ["Anonymous", "ANON", " anonymized", "n/a", "0", "No ID", "--"])
@pytest.mark.parametrize("key", ["PatientID", "PatientName"])
def test_a_placeholder_that_several_studies_share_is_told(tmp_path, key, value):
    """They stay one subject, which leaks nothing; the note tells what to do, not what stood there.

    An id of which a placeholder is a part names somebody.
    """
    of_studies(tmp_path / "d", [(key, value), (key, value), (key, "anon17")])
    rows, _, rules = volumes(tmp_path / "d", tmp_path / "c")

    assert rows["subject"].n_unique() == 2
    assert set(rows["subject_source"]) == {"header"}
    assert rules["notes"].endswith("by their paths (6 images)")
    assert "looks like a placeholder that several studies share" in rules["notes"]
    assert value.strip() not in rules["notes"].replace("--subject-pattern", "").split()


@pytest.mark.parametrize(
    ("facts", "settings"),
    [
        ({"StudyInstanceUID": "1.2.3"}, {}),
        ({"PatientID": "p1"}, {}),
        ({}, {"subject_pattern": "(p[0-9])/"}),
    ],
    ids=["one study", "an id", "a pattern"],
)
def test_a_placeholder_that_merges_nobody_is_not_told(tmp_path, facts, settings):
    """Nor one that is not used."""
    of_studies(tmp_path / "d", [("PatientID", "ANON")] * 2, **facts)
    _, _, rules = volumes(tmp_path / "d", tmp_path / "c", **settings)

    assert "placeholder" not in str(rules)


@pytest.mark.parametrize(
    ("count", "marks"),
    [
        (
            4,
            {
                "EchoTime": [[10 + n % 2] * N for n in range(4)],
                "TemporalPositionIdentifier": [[1 + n // 2] * N for n in range(4)],
            },
        ),
        (3, {"TriggerTime": [[30 * n + place for place in range(N)] for n in range(3)]}),
    ],
    ids=["two marks", "a mark that differs from slice to slice"],
)
def test_whatever_tells_slices_of_one_place_apart_makes_volumes(tmp_path, count, marks):
    """None is dropped, and none goes into another's volume."""
    save(tmp_path / "d", several(count, **marks))
    rows, lowest, rules = volumes(tmp_path / "d", tmp_path / "c")

    assert rows.height == count * N
    assert lowest == [[SLICES.min() + 4000.0 * n] for n in range(count)]
    assert "numbers alone" not in str(rules)


def test_an_echo_that_lacks_a_slice_is_not_filled_up_from_another(tmp_path):
    """The lowest number at that place is the other echo's."""
    files = several(2, EchoTime=[[10] * N, [80] * N])
    save(tmp_path / "d", [data for data in files if data.InstanceNumber != 7])
    rows, lowest, _ = volumes(tmp_path / "d", tmp_path / "c")

    assert rows.group_by("volume_id").len()["len"].sort().to_list() == [N - 1, N]
    assert lowest == [[SLICES.min() + 0.0], [SLICES.min() + 4000.0]]


def test_numbers_tell_slices_apart_where_nothing_else_does_and_that_is_said(tmp_path):
    """As the directions of diffusion, of which each maker writes in a way of its own."""
    save(tmp_path / "d", several(2))
    rows, lowest, rules = volumes(tmp_path / "d", tmp_path / "c")

    assert rows.height == 2 * N
    assert lowest == [[SLICES.min() + 4000.0 * n] for n in range(2)]
    assert "by their numbers alone" in str(rules)


def test_one_volume_of_too_many_slices_is_said_to_be_one(tmp_path):
    """Another picture at one place: nothing tells which of both belongs to the others."""
    files = several(2)
    save(tmp_path / "d", [*files[:N], files[N + 3]])
    rows, _, rules = volumes(tmp_path / "d", tmp_path / "c")

    assert rows.height == N
    assert "more slices than places" in str(rules)


@pytest.mark.parametrize("value", [{"BitsStored": 12, "HighBit": 11}, {"PixelRepresentation": 0}])
def test_slices_whose_pixels_are_of_another_kind_are_said_to_be_apart(tmp_path, value):
    """Every second one: both volumes would look whole, at twice the distance."""
    files = series(SLICES, AFFINE, MR)
    for data in files[::2]:
        for keyword, other in value.items():
            setattr(data, keyword, other)
    save(tmp_path / "d", files)
    rows, _, rules = volumes(tmp_path / "d", tmp_path / "c")

    assert rows["volume_id"].n_unique() == 2
    assert f"of several kinds (size, bits, sign): volumes of their own ({N} images)" in str(rules)


def test_a_scale_beside_functional_groups_counts_where_they_have_none(tmp_path):
    """Secondary captures of several frames have both."""
    (data,) = series(SLICES[:1], AFFINE, MR, RescaleSlope=2, RescaleIntercept=-100)
    put_pixels(data, SLICES)
    data.SharedFunctionalGroupsSequence = [Dataset()]
    save(tmp_path / "d", [data])
    _, lowest, _ = volumes(tmp_path / "d", tmp_path / "c")

    assert lowest == [[SLICES.min() * 2 - 100.0]]


def test_two_patients_under_one_uid_share_no_volume(tmp_path):
    """One lies where the other ends, as if both were one."""
    above = AFFINE.copy()
    above[2, 3] = N * 2.5
    files = [*series(SLICES, AFFINE), *series(SLICES, above, name="b", PatientID="p2")]
    for data in files:
        data.SeriesInstanceUID = files[0].SeriesInstanceUID
    save(tmp_path / "d", files)
    rows, _, _ = volumes(tmp_path / "d", tmp_path / "c")

    assert rows.group_by("subject", "volume_id").len()["len"].to_list() == [N, N]
    assert rows["subject"].n_unique() == 2


def test_a_cine_in_an_ordinary_file_keeps_its_frames_whatever_place_it_states(tmp_path):
    """All its frames would lie at the one place that such a header has room for."""
    (data,) = series(SLICES[:1], AFFINE, MR)
    put_pixels(data, SLICES)
    save(tmp_path / "d", [data])
    rows, _, _ = volumes(tmp_path / "d", tmp_path / "c")

    assert rows.height == N
    assert rows["plane"].unique().to_list() == ["frame"]
