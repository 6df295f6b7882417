"""DICOM with what other files have: names, resumption, processes, grids, intensity rules."""

import os

import nibabel as nib
import numpy as np
import polars as pl
import pytest
import SimpleITK as sitk  # noqa: N813
from dicom_files import DX, KEY, clinical, dataset, put_pixels, save, segmentation, series, uid
from test_curation_goes_on import content

import promptseg.corpus_writer
from promptseg.corpus import open_corpus
from promptseg.curation import Curation, curate
from promptseg.errors import DataError
from promptseg.pixels import decode_image
from promptseg.reader.intensity import intensity_rule
from promptseg.reader.names import Names

SHAPE = (9, 20, 24)  # slices, rows, columns
AFFINE = np.diag([0.8, 0.7, 2.0, 1.0])  # (column, row, slice) to LPS
SLICES = np.random.default_rng(3).integers(-900, 900, SHAPE, dtype=np.int16)
SECRET = "MUSTER^ERIKA"


@pytest.fixture
def folder(tmp_path):
    """Write a padded series of a named patient with a segmentation, and another without masks."""
    facts = {"PatientID": SECRET, "PatientName": SECRET, "PixelPaddingValue": -900}
    files = series(SLICES, AFFINE, WindowCenter=100, WindowWidth=300, **facts)
    files[4].PixelData = np.full(SHAPE[1:], -900, np.int16).tobytes()
    masks = np.zeros((*SHAPE, 1), np.uint8)
    masks[2:8, 4:15, 5:18, 0] = 1
    save(tmp_path / SECRET / "ct", files, "IM{}")
    save(tmp_path / SECRET / "ct", [segmentation(files, masks, ["liver"])], "SEG{}")
    save(tmp_path / SECRET / "other", series(SLICES[:3], AFFINE, name="b", PatientID="p2"))
    return tmp_path / SECRET


def done(folder, out, settings, **how):
    """Curate to the end; give the tables of images and drops, and the corpus."""
    for _ in curate(folder, out, settings, **how):
        pass
    drops = pl.read_parquet(out / "drops/*.parquet") if list(out.glob("drops/*")) else None
    return pl.read_parquet(out / "images/*.parquet"), drops, open_corpus(out)


def test_names_are_hashed_unless_it_is_said_that_they_are_kept(folder, tmp_path):
    """No name of a file or a header is in the corpus; a patient is a subject in any case."""
    images, _, corpus = done(folder, tmp_path / "c", clinical())
    kept, _, _ = done(folder, tmp_path / "k", clinical(names="keep"))
    subject = Names(key=KEY.read_bytes()).patient(SECRET)
    everything = b"".join(path.read_bytes() for path in (tmp_path / "c").rglob("*.*"))

    assert images["image_id"].str.contains("^data-[0-9a-f]{16}/[0-9a-f]{16}/axial/000[2-7]$").all()
    assert not images["source"].is_in(kept["source"].to_list()).any()
    assert kept["image_id"].str.starts_with(f"{SECRET}/series-").all()
    for table in (images, kept):
        assert set(table["subject"]) == {subject}
        assert set(table["subject_source"]) == {"header"}
    assert corpus.info.rules["subjects"] == "1 by the patients that headers name, hashed"
    assert corpus.info.rules["names"].startswith("hashed under the key")
    assert not any(word in everything for word in (b"MUSTER", b"ERIKA", uid("a").encode()))


@pytest.mark.parametrize("names", [None, "keep", "hash"])
def test_without_a_key_there_is_no_corpus_of_dicom(folder, tmp_path, names):
    """Patients are hashed under it even where files keep their names."""
    with pytest.raises(DataError, match="Names are hashed under a key"):
        done(folder, tmp_path / "c", Curation(names=names))
    assert not (tmp_path / "c").exists()


def test_a_pattern_looks_at_the_path_of_the_first_file(folder, tmp_path):
    """What is asked for goes before what headers say."""
    settings = clinical(subject_pattern="(c.)/IM", names="keep", keep_empty=True, dataset="d")
    images, _, _ = done(folder, tmp_path / "c", settings)

    assert dict(images["subject_source"].value_counts().iter_rows()) == {"pattern": 9, "unknown": 3}
    assert set(images["subject"]) == {"ct", None}


def test_who_has_the_right_finds_the_files_of_a_series(folder, tmp_path):
    """The first path and how many others there are."""
    done(folder, tmp_path / "c", clinical(), names_out=tmp_path / "names.csv")
    names = dict(pl.read_csv(tmp_path / "names.csv").rows())

    assert sorted(names.values()) == [
        "./ct/IM0 and 8 more of its series",
        "./other/000.dcm and 2 more of its series",
    ]


def test_wherever_it_is_interrupted_the_notes_are_the_same(folder, tmp_path, monkeypatch):
    """Also of slices that were written before."""
    monkeypatch.setattr(promptseg.corpus_writer, "IMAGES_PER_PART", 4)
    settings = clinical(keep_empty=True, dataset="d")
    _, _, corpus = done(folder, tmp_path / "whole", settings)
    for stop_at in range(1, 14, 3):
        out = tmp_path / f"out{stop_at}"
        written = []
        write = promptseg.corpus_writer.Store.write

        def fail(store, name, content, written=written, write=write, stop_at=stop_at):
            written.append(name)
            if len(written) > stop_at and name.startswith("drops"):
                raise KeyboardInterrupt
            write(store, name, content)

        with monkeypatch.context() as patch:
            patch.setattr(promptseg.corpus_writer.Store, "write", fail)
            with pytest.raises(KeyboardInterrupt):
                done(folder, out, settings)
        if not (out / ".curation.json").exists():
            continue
        done(folder, out, settings)
        assert content(out) == content(tmp_path / "whole")

    assert (
        "padding is shown as the darkest value that is none (9 images)"
        in (corpus.info.rules["notes"])
    )


def test_a_changed_slice_or_mask_is_another_curation(folder, tmp_path, monkeypatch):
    """Every file of a series counts, not the first alone."""
    monkeypatch.setattr(promptseg.corpus_writer, "IMAGES_PER_PART", 2)
    for number, name in enumerate(("IM7", "SEG0")):
        out = tmp_path / f"c{number}"
        steps = curate(folder, out, clinical())
        next(steps)
        steps.close()
        os.utime(folder / "ct" / name, ns=(1, 1))
        with pytest.raises(DataError, match="begun with other files"):
            done(folder, out, clinical())


def test_several_processes_make_the_same_corpus(folder, tmp_path):
    """Series go to workers as other files do."""
    done(folder, tmp_path / "one", clinical(keep_empty=True))
    done(folder, tmp_path / "two", clinical(keep_empty=True), workers=2)

    assert content(tmp_path / "one") == content(tmp_path / "two")


def image_of(labels, spacing, origin=(0.0, 0.0, 0.0)):
    """Make an image of SimpleITK from (slice, row, column)."""
    image = sitk.GetImageFromArray(labels)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    return image


def test_masks_of_other_formats_are_named_and_brought_to_the_grid_of_a_series(tmp_path):
    """A segmentation of 3D Slicer on a cropped grid, and NIfTI on the same grid."""
    save(tmp_path / "d/images", series(SLICES, AFFINE))
    (tmp_path / "d/masks").mkdir()
    part = np.zeros((4, 10, 12), np.uint8)
    part[1:3, 2:8, 3:9], part[1:3, 2:8, 9:11] = 1, 2
    image = image_of(part, (0.8, 0.7, 2.0), (0.8 * 5, 0.7 * 4, 2.0 * 3))
    for number, name in enumerate(("liver", "spleen")):
        image.SetMetaData(f"Segment{number}_Name", name)
        image.SetMetaData(f"Segment{number}_LabelValue", str(number + 1))
        image.SetMetaData(f"Segment{number}_Layer", "0")
    sitk.WriteImage(image, str(tmp_path / "d/masks/a.seg.nrrd"))
    full = np.zeros(SHAPE, np.uint8)
    full[5, 3:9, 4:11] = 1
    affine = np.diag([-0.8, -0.7, 2.0, 1.0])  # RAS
    nib.save(nib.Nifti1Image(full.T, affine), tmp_path / "d/masks/kidney.nii.gz")
    settings = clinical(min_area_px=0, names="keep", dataset="d")
    images, drops, corpus = done(tmp_path / "d", tmp_path / "c", settings)
    samples = [s for group in corpus.row_groups() for s in corpus.read(group)]
    found = {(t.object, s.place.slice_index): t.mask for s in samples for t in s.targets}
    whole = np.zeros(SHAPE, np.uint8)
    whole[3:7, 4:14, 5:17] = part

    assert set(found) == {*(("liver", k) for k in (4, 5)), *(("spleen", k) for k in (4, 5))} | {
        ("kidney", 5)
    }
    for value, name in ((1, "liver"), (2, "spleen")):
        for k in (4, 5):
            assert np.array_equal(found[name, k], whole[k] == value)
    assert np.array_equal(found["kidney", 5], full[5] == 1)
    assert drops is None or drops.height == 7  # slices without an object
    assert corpus.info.rules["regridded"].startswith("1 mask file from another grid")
    assert images.height == 2


@pytest.mark.parametrize(
    ("rule", "lo", "hi"),
    [("window:dicom", -50, 249), ("window:40/80", 0, 80), ("percentile:10-90", None, None)],
)
def test_intensity_rules_hold_for_a_series(tmp_path, rule, lo, hi):
    """The window of the header is the linear one of the standard (PS3.3 C.11.2.1.2.1)."""
    folder = tmp_path / "d"
    files = series(SLICES, AFFINE, WindowCenter=100, WindowWidth=300)
    for data in files:
        data.RescaleSlope, data.RescaleIntercept = 2, -10
    save(folder, files)
    values = SLICES.astype(float) * 2 - 10
    if lo is None:
        lo, hi = np.percentile(values, (10, 90))
    settings = clinical(keep_empty=True, dataset="d", intensity=intensity_rule(rule))
    images, _, corpus = done(folder, tmp_path / "c", settings)
    samples = [s for group in corpus.row_groups() for s in corpus.read(group)]

    assert images["intensity_lo"].to_list() == pytest.approx([lo] * 9)
    assert images["intensity_hi"].to_list() == pytest.approx([hi] * 9)
    for sample in samples:
        expected = np.clip((values[sample.place.slice_index] - lo) / (hi - lo), 0, 1) * 255
        assert np.abs(sample.image[..., 0] - expected).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("rule", ["window:dicom", "window:3000/2000", "min-max", None])
def test_intensity_rules_hold_for_an_x_ray(tmp_path, rule, photometric):
    """16 bits are kept, with the two ends of the rule."""
    pixels = np.random.default_rng(1).integers(100, 4000, (12, 15), dtype=np.uint16)
    data = dataset(DX, uid("dx"))
    data.SeriesInstanceUID, data.Modality = uid("dx series"), "DX"
    put_pixels(data, pixels, photometric)
    data.BitsStored, data.HighBit = 12, 11
    data.WindowCenter, data.WindowWidth = 1500, 1000
    save(tmp_path / "d", [data])
    settings = clinical(keep_empty=True, dataset="d", intensity=intensity_rule(rule))
    images, _, _ = done(tmp_path / "d", tmp_path / "c", settings)
    (row,) = images.to_dicts()
    is_inverted = photometric == "MONOCHROME1"
    values = 4095 - pixels if is_inverted else pixels
    ends = {
        "window:dicom": (4095 - 1999, 4095 - 1000) if is_inverted else (1000, 1999),
        "window:3000/2000": (2000, 4000),
    }.get(rule, (values.min(), values.max()))

    assert (row["intensity_lo"], row["intensity_hi"]) == ends
    assert np.array_equal(decode_image(row["image"]["bytes"], row["sha256"]), values)
    assert row["intensity_rule"] == {
        "window:dicom": "window of the header",
        "window:3000/2000": "window 3000/2000",
    }.get(rule, "min-max image")
