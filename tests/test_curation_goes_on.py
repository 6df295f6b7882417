"""Long curations: interrupted ones go on, several processes give the same, names can be hidden."""

import hashlib
import json
import os
import stat

import fsspec
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import SimpleITK as sitk  # noqa: N813
from test_curation import put, put_volume

import promptseg.corpus_writer
from promptseg.corpus import open_corpus
from promptseg.curation import Curation, curate, journal
from promptseg.errors import DataError
from promptseg.isolated import Limits

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
CT = Curation(modality="CT", min_area_px=3)


@pytest.fixture
def folder(tmp_path):
    """Five volumes of seven slices, a damaged one, and one without a mask."""
    rng = np.random.default_rng(5)
    data = tmp_path / "data"
    for number in range(7):
        voxels = rng.integers(0, 900, (12, 11, 7)).astype(np.int16)
        put_volume(data / "images" / f"v{number}.nii.gz", voxels, np.diag([1.0, 1, 3, 1]))
        if number != 5:
            mask = (voxels > 500).astype(np.uint8)
            mask[:, :, number % 3] = 0  # slices without an object are dropped
            put_volume(data / "masks" / f"v{number}.nii.gz", mask, np.diag([1.0, 1, 3, 1]))
    (data / "images" / "v3.nii.gz").write_bytes(b"nothing")
    return data


@pytest.fixture
def small_parts(monkeypatch):
    """Write a part after five images."""
    monkeypatch.setattr(promptseg.corpus_writer, "IMAGES_PER_PART", 5)


@pytest.fixture
def few_bytes(monkeypatch):
    """Write a part once its pictures take 500 bytes: two or three of them."""
    monkeypatch.setattr(promptseg.corpus_writer, "BYTES_PER_PART", 500)


def done(folder, out, settings=CT, **how):
    """Curate to the end."""
    for _ in curate(folder, out, settings, **how):
        pass
    return content(out)


def content(out):
    """Hash every file of a corpus."""
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


class StopError(Exception):
    """A killed process, as seen by what is left on disk."""


@pytest.mark.parametrize(
    ("parts", "stop_at"),
    [*(("small_parts", n) for n in range(1, 22, 2)), *(("few_bytes", n) for n in range(4, 50, 11))],
)
def test_wherever_it_is_interrupted_the_same_command_makes_the_same_corpus(
    folder, tmp_path, monkeypatch, request, parts, stop_at
):
    """Bit for bit, also when it died between the files of a part; half-written files go."""
    request.getfixturevalue(parts)
    whole = done(folder, tmp_path / "whole")
    written = []
    write = promptseg.corpus_writer.Store.write

    def fail(store, name, content):
        written.append(name)
        if len(written) == stop_at:
            raise StopError
        write(store, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(promptseg.corpus_writer.Store, "write", fail)
        with pytest.raises(StopError):
            done(folder, tmp_path / "out")
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out" / ".part-00000.parquet.99999999.tmp").write_bytes(b"half")
    begun = (tmp_path / "out" / journal.NAME).exists()
    if not begun:  # no part is whole: what there is has no owner, and goes by hand
        for path in (tmp_path / "out").rglob("*.parquet"):
            path.unlink()

    assert done(folder, tmp_path / "out") == whole
    assert journal.NAME not in whole
    assert len(whole) > 15


@pytest.mark.usefixtures("small_parts")
def test_it_does_not_read_again_what_is_written(folder, tmp_path, monkeypatch):
    """Files that are whole in the corpus are not opened."""
    steps = curate(folder, tmp_path / "out", CT)
    for _ in range(4):
        next(steps)
    steps.close()
    seen = [step.done for step in curate(folder, tmp_path / "out", CT)]

    assert seen[0] > 2
    assert seen[-1] == 7


@pytest.mark.usefixtures("small_parts")
def test_other_settings_and_other_files_do_not_go_on(folder, tmp_path):
    """What is there was made otherwise."""
    steps = curate(folder, tmp_path / "out", CT)
    for _ in range(4):
        next(steps)
    steps.close()

    with pytest.raises(DataError, match="begun with other files, settings"):
        done(folder, tmp_path / "out", Curation(modality="CT", min_area_px=4))
    os.utime(folder / "images" / "v6.nii.gz", ns=(1, 1))
    with pytest.raises(DataError, match="begun with other files, settings"):
        done(folder, tmp_path / "out")


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("kind", ["images", "masks"])
@pytest.mark.parametrize("suffixes", [(".mhd", ".raw"), (".nhdr", ".raw"), (".hdr", ".img")])
def test_changed_voxels_beside_their_header_do_not_go_on(folder, tmp_path, kind, suffixes):
    """Files that are no images by themselves, but hold those of another."""
    header, voxels = suffixes
    for name in ("images", "masks"):
        put_volume(tmp_path / "w.nii", np.ones((12, 11, 7), np.int16), np.diag([1.0, 1, 3, 1]))
        image = sitk.ReadImage(tmp_path / "w.nii")
        sitk.WriteImage(image, folder / name / f"w{header}", useCompression=False)
    steps = curate(folder, tmp_path / "out", CT)
    for _ in range(4):
        next(steps)
    steps.close()
    assert (tmp_path / "out" / journal.NAME).exists()
    os.utime(folder / kind / f"w{voxels}", ns=(1, 1))

    with pytest.raises(DataError, match="begun with other files, settings"):
        done(folder, tmp_path / "out")


@pytest.mark.usefixtures("small_parts")
def test_another_table_of_labels_does_not_go_on(folder, tmp_path):
    """By the same name: what is written was called by the old one."""
    (folder / "labels.json").write_text('{"liver": 1, "spleen": 2}')
    steps = curate(folder, tmp_path / "out", CT)
    for _ in range(4):
        next(steps)
    steps.close()
    (folder / "labels.json").write_text('{"spleen": 1, "liver": 2}')

    with pytest.raises(DataError, match="begun with other files, settings"):
        done(folder, tmp_path / "out")


def test_a_finished_corpus_is_not_touched(folder, tmp_path):
    """As any folder that holds something."""
    done(folder, tmp_path / "out")

    with pytest.raises(DataError, match="exists and is not empty"):
        done(folder, tmp_path / "out")


@pytest.mark.usefixtures("few_bytes")
def test_a_part_ends_where_its_pictures_reach_a_bound(folder, tmp_path):
    """No sooner and no later, so that very large pictures are not held by the hundred."""
    done(folder, tmp_path / "out")
    parts = [pl.read_parquet(path) for path in sorted((tmp_path / "out/images").glob("*"))]
    sizes = [part["image"].struct.field("bytes").bin.size().to_list() for part in parts]

    assert len(parts) > 8
    assert all(sum(part) >= 500 > sum(part[:-1]) for part in sizes[:-1])


@pytest.mark.usefixtures("few_bytes")
@pytest.mark.parametrize("workers", [1, 2])
def test_several_processes_make_the_same_corpus(folder, tmp_path, workers):
    """Also the same reasons, in the same order, and parts that end at the same image."""
    alone = done(folder, tmp_path / "alone")

    assert done(folder, tmp_path / "many", workers=workers) == alone


def test_what_needs_too_much_memory_is_left_out(folder, tmp_path):
    """A volume larger than allowed costs itself."""
    import nibabel

    large = nibabel.Nifti1Image(np.zeros((1024, 1024, 500), np.int16), np.diag([1.0, 1, 3, 1]))
    nibabel.save(large, folder / "images" / "v9.nii.gz")
    nibabel.save(large, folder / "masks" / "v9.nii.gz")
    done(folder, tmp_path / "out", workers=1, limits=Limits(memory_bytes=900 << 20))
    drops = pl.read_parquet(tmp_path / "out" / "drops" / "*.parquet")
    reasons = dict(
        drops.filter(pl.col("source").str.contains("v9")).select("source", "reason").rows()
    )

    assert reasons == {"images/v9.nii.gz": "it needs more than 0.878906 GiB of memory"}
    assert open_corpus(tmp_path / "out").info.n_images == 30


def test_a_url_holds_the_same_corpus(folder, tmp_path):
    """Any file system that fsspec knows; without one for the URL, one line says so."""
    local = done(folder, tmp_path / "out")
    for _ in curate(folder, "memory://bucket/corpus", CT):
        pass
    files = fsspec.filesystem("memory")
    found = {
        name.removeprefix("/bucket/corpus/"): hashlib.sha256(files.cat_file(name)).hexdigest()
        for name in files.find("/bucket/corpus")
    }

    assert found == local
    with pytest.raises(DataError, match="exists and is not empty"):
        next(curate(folder, "memory://bucket/corpus", CT))
    with pytest.raises(DataError, match=r"^nowhere://x cannot be used: "):
        next(curate(folder, "nowhere://x", CT))


@pytest.mark.usefixtures("small_parts")
def test_a_url_is_gone_on_with(folder):
    """As a folder of this machine."""
    where = "memory://bucket/interrupted"
    steps = curate(folder, where, CT)
    for _ in range(4):
        next(steps)
    steps.close()
    seen = [step.done for step in curate(folder, where, CT)]
    names = fsspec.filesystem("memory").find("/bucket/interrupted")

    assert seen[0] > 2
    assert not [name for name in names if journal.NAME in name]
    assert json.loads(fsspec.filesystem("memory").cat_file("/bucket/interrupted/corpus.json"))


def secret(tmp_path, **settings):
    """Give settings that hide names."""
    return Curation(
        modality="CT", min_area_px=3, names="hash", key=tmp_path / "keys" / "own", **settings
    )


def test_hidden_names_are_in_no_file(tmp_path):
    """Of files, folders and patients: neither in what is kept nor in what is left out."""
    data = tmp_path / "Doe_Jane"
    grey = np.arange(600, dtype=np.uint16).reshape(20, 30).astype(np.uint8)
    mask = np.zeros((20, 30), np.uint8)
    mask[3:12, 3:12] = 255
    for name in ("MILLER_19600214", "smith_anna"):
        for number in (1, 2):
            put(data / "images" / name / f"{number}.png", grey + number)
            put(data / "masks" / name / f"{number}.png", mask)
    put(data / "images" / "MILLER_19600214" / "1.jpg", grey)  # the same name
    put(data / "images" / "lonely_carl.png", grey)
    put(data / "masks" / "orphan_maria.png", mask)
    (data / "images" / "notes_of_peter.txt").write_text("x")
    (data / "images" / "broken_rosa.png").write_bytes(b"x")
    put(data / "masks" / "broken_rosa.png", mask)
    out = tmp_path / "out"
    settings = secret(tmp_path, subject_pattern=r"/([A-Za-z]+)_[^/]*/")
    steps = list(curate(data, out, settings))
    words = ("doe", "jane", "miller", "1960", "smith", "anna", "lonely", "carl", "orphan", "maria",
             "notes", "peter", "broken", "rosa")  # fmt: skip
    told = "\n".join(
        [
            *(str(step) for step in steps),
            *(str(pq.read_table(path).to_pylist()) for path in out.rglob("*.parquet")),
            *(path.read_text() for path in out.glob("*.json")),
        ]
    ).lower()
    images = pl.concat([pl.read_parquet(path) for path in out.rglob("images/*.parquet")])

    assert not [word for word in words if word in told]
    assert images["subject"].n_unique() == 2
    assert images["image_id"].n_unique() == 4
    assert open_corpus(out).info.n_drops >= 5


def test_names_are_hidden_under_a_key_that_only_its_owner_can_read(folder, tmp_path):
    """The same key gives the same names, another one others; the corpus tells which it was."""
    first = done(folder, tmp_path / "a", secret(tmp_path))
    second = done(folder, tmp_path / "b", secret(tmp_path))
    (tmp_path / "keys" / "own").unlink()
    third = done(folder, tmp_path / "c", secret(tmp_path))
    rules = [open_corpus(tmp_path / name).info.rules for name in "ac"]
    mode = (tmp_path / "keys" / "own").stat().st_mode

    assert first == second
    assert first["images/part-00000.parquet"] != third["images/part-00000.parquet"]
    assert rules[0]["names"] != rules[1]["names"]
    assert stat.S_IMODE(mode) == 0o600


def test_a_key_that_is_none_is_refused(folder, tmp_path):
    """Too short, missing, or inside the corpus, where everyone would have it."""
    (tmp_path / "short").write_bytes(b"secret")
    hide = {"modality": "CT", "names": "hash"}
    with pytest.raises(DataError, match="has 6 bytes"):
        done(folder, tmp_path / "out", Curation(**hide, key=tmp_path / "short"))
    with pytest.raises(DataError, match="in which file"):
        done(folder, tmp_path / "out", Curation(**hide))
    with pytest.raises(DataError, match="belong outside of the corpus"):
        done(folder, tmp_path / "out", Curation(**hide, key=tmp_path / "out" / "key"))


def test_who_has_the_right_finds_a_name_again(folder, tmp_path):
    """A table of one's own, outside of the corpus, tells which image is which file."""
    done(folder, tmp_path / "out", secret(tmp_path), names_out=tmp_path / "names.csv")
    names = dict(pl.read_csv(tmp_path / "names.csv").rows())
    corpus = open_corpus(tmp_path / "out")
    volumes = {s.place.volume_id for g in corpus.row_groups() for s in corpus.read(g)}

    assert volumes <= set(names)
    assert sorted(names.values()) == [f"images/v{number}.nii.gz" for number in range(7)]
