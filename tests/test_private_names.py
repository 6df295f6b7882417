"""What identifies a person, planted in files of all formats, is in no output of a curation."""

import base64
import gzip
import json
import os
import re
import subprocess
import sys
import zipfile

import dicom_files as dicom
import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
import pytest
import SimpleITK
import tifffile
import volume_phantom as phantom
from mutated import mask, picture
from PIL import Image, PngImagePlugin
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from promptseg import cli

WORDS = (
    *("Zymurgia", "Quokkasson", "Vexillo", "Hospital-Xanadu", "Dr-Wobblethorpe", "19370214"),
    *("20190317", "ACC7741QX", "MRN998877", "private-Yttrium", "overlay-Plover"),
)
NAME = "Zymurgia_Quokkasson"
ALL = " ".join(WORDS)


def forms(word):
    """Give a word as it may stand in bytes: in three alphabets, base64 at any place, and hex."""
    for text in {word, word.lower(), word.upper()}:
        plain = text.encode()
        yield from (plain, text.encode("utf-16-le"), text.encode("utf-16-be"), plain[::-1])
        yield from (plain.hex().encode(), plain.hex().upper().encode())
        for shift in range(3):  # what neighbours do not change
            packed = base64.b64encode(b"\0" * shift + plain).rstrip(b"=")
            yield packed[(0, 2, 3)[shift] : len(packed) - (1 if (shift + len(plain)) % 3 else 0)]


def contents(path):
    """Give the bytes of a file, and what is packed in it."""
    raw = path.read_bytes()
    yield raw
    if raw[:2] == b"\x1f\x8b":
        yield gzip.decompress(raw)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from (archive.read(name) for name in archive.namelist())
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        yield repr((pq.read_metadata(path).metadata, table.schema.metadata)).encode()
        for row in table.to_pylist():
            yield json.dumps(row, default=lambda value: value.decode("latin-1")).encode()
            picture = (row.get("image") or {}).get("bytes") if "image" in row else None
            yield from [picture] if picture else []


def told(folder, *texts):
    """List the words that are in any file of a folder, or in a text."""
    parts = [content for path in folder.rglob("*") if path.is_file() for content in contents(path)]
    parts += [str(path.relative_to(folder)).encode() for path in folder.rglob("*")]
    everything = b"\n".join([*parts, *(text.encode() for text in texts)])
    return [word for word in WORDS if any(form in everything for form in forms(word))]


def command(source, out, *options):
    """Run a curation as its users do; give the exit code and all that it wrote."""
    begin = [sys.executable, "-m", "promptseg", "curate", source, "--out", out, "--workers", "2"]
    hidden = ["--key", out.parent / "key", *options]
    done = subprocess.run([*begin, *hidden], capture_output=True, text=True, timeout=570)
    return done.returncode, done.stdout + done.stderr


def failed(capfd, source, out, *options):
    """Run a curation that fails, in this process; give all that it wrote."""
    capfd.readouterr()
    words = ("curate", source, "--out", out, "--workers", 0, "--key", out.parent / "key", *options)
    with pytest.raises(SystemExit) as raised:
        cli.main([str(word) for word in words])
    text = "".join(capfd.readouterr())
    assert raised.value.code not in (0, None), text
    return text


def put_pictures(folder):
    """Write pictures with words in their headers, names and folders."""
    for kind in ("images", "masks"):
        (folder / kind / NAME).mkdir(parents=True)
    text = PngImagePlugin.PngInfo()
    text.add_text("Patient", ALL)
    text.add_itxt("Description", ALL)
    exif = Image.Exif()
    exif[0x010E], exif[0x013B], exif[0x9C9B] = ALL, ALL, ALL.encode("utf-16-le")
    for name, options in {
        "a.png": {"pnginfo": text, "exif": exif},
        "b.jpg": {"exif": exif, "comment": ALL.encode()},
        "c.gif": {"comment": ALL.encode()},
    }.items():
        Image.fromarray(picture(name)).save(folder / f"images/{NAME}/{WORDS[2]}_{name}", **options)
        stem = name.partition(".")[0]
        of_mask = folder / f"masks/{NAME}/{WORDS[2]}_{stem}.png"
        Image.fromarray(mask()).save(of_mask, pnginfo=text)
    tags = [(315, "s", 0, ALL, True), (270, "s", 0, ALL, True), (65000, "s", 0, ALL, True)]
    path = folder / f"images/{NAME}/{WORDS[2]}_d.tif"
    tifffile.imwrite(path, picture("d"), extratags=tags, metadata=None)
    Image.fromarray(mask()).save(folder / f"masks/{NAME}/{WORDS[2]}_d.png")
    np.savez(folder / f"images/{NAME}/{WORDS[2]}_e.npz", **{f"{NAME} {ALL}": picture("e")})
    np.savez(folder / f"images/{NAME}/two_{WORDS[3]}.npz", **{ALL: mask(), NAME: mask()})
    broken = bytearray((folder / f"images/{NAME}/{WORDS[2]}_e.npz").read_bytes())
    broken[60 + len(ALL) + 200] ^= 255
    (folder / f"images/{NAME}/bad_{WORDS[3]}.npz").write_bytes(broken)
    whole = path.read_bytes()
    (folder / f"images/{NAME}/cut_{WORDS[4]}.tif").write_bytes(whole[: len(whole) // 2])


def put_volumes(folder):
    """Write volumes with words in their headers."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    scan = phantom.scan()
    for kind, array in (("images", scan.voxels), ("masks", scan.labels)):
        image = nib.Nifti1Image(array, scan.affine)
        image.header["descrip"], image.header["aux_file"] = ALL[:79], WORDS[3]
        image.header["db_name"], image.header["intent_name"] = WORDS[2], WORDS[4]
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", ALL.encode()))
        nib.save(image, folder / f"{kind}/{NAME}_n.nii.gz")
        itk = phantom.itk_image(array, scan.affine)
        for number, word in enumerate(WORDS):
            itk.SetMetaData(f"Patient{number}", word)
        for suffix in ("nrrd", "mha"):
            SimpleITK.WriteImage(itk, str(folder / f"{kind}/{NAME}_{suffix}.{suffix}"))
        turned, _ = phantom.reordered(array, np.eye(4), "LAS")
        old = nib.Spm2AnalyzeImage(turned, np.diag([*phantom.SPACING, 1.0]))
        old.header["descrip"], old.header["patient_id"] = ALL[:79], WORDS[8]
        old.header["db_name"], old.header["exp_date"] = WORDS[2], WORDS[6]
        old.to_filename(folder / f"{kind}/{NAME}_old.hdr")
    image = folder / f"images/{NAME}_old.img"
    (folder / f"images/{NAME}_cut.hdr").write_bytes(image.with_suffix(".hdr").read_bytes())
    image.with_name(f"{NAME}_cut.img").write_bytes(image.read_bytes()[:99])
    (folder / f"images/{NAME}_nrrd_cut.nrrd").write_bytes(f"NRRD0004\ntype: {NAME}\n".encode())
    (folder / f"images/{NAME}_mhd_cut.mhd").write_bytes(f"ElementType = {NAME}\n".encode())


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Write pictures and volumes into a folder of a person."""
    folder = tmp_path_factory.mktemp("data") / f"{NAME}_{WORDS[5]}"
    put_pictures(folder)
    put_volumes(folder)
    (folder / f"{NAME}.json").write_text(json.dumps({"about": ALL}))
    (folder / "images" / f"notes of {NAME}.txt").write_text(ALL)
    (folder / "masks" / f"{NAME}_lost_{WORDS[3]}.png").write_bytes(b"x")
    return folder


def test_hidden_names_and_headers_are_in_no_byte_of_an_output(source, tmp_path):
    """PNG, JPEG, GIF, TIFF, npz, NIfTI, NRRD, MetaImage, Analyze: kept, damaged and left out."""
    hidden = ("--names", "hash", "--modality", "CT", "--keep-empty")
    code, text = command(source, tmp_path / "out", *hidden)
    images = pq.read_table(tmp_path / "out/images").to_pylist()
    stored = b"".join(path.read_bytes() for path in source.rglob("*") if path.is_file())

    assert code == 0, text
    assert len({image["image_id"].split("/")[1] for image in images}) == 9
    assert pq.read_table(tmp_path / "out/drops").num_rows >= 8
    assert not [word for word in WORDS if word.encode() not in stored]
    assert told(tmp_path / "out", text) == []


def tables(folder):
    """Give failing tables of labels in a folder of a person."""
    (folder / "labels.json").write_text(json.dumps({NAME: ALL}))


def mapped(text):
    """Give options of a mapping file that does not fit."""
    return lambda _, place: ("--mapping", place(text))


FAILURES = {
    "no subject": lambda *_: ("--subject-pattern", "(nobody)"),
    "no split": lambda *_: ("--split-pattern", "(nobody)"),
    "no such images": mapped('images = "scans/{key}.png"'),
    "no such masks": mapped('images = "images/**/{key}.*"\n[[masks]]\npath = "m/{key}.png"'),
    "masks of others": mapped(
        'images = "images/{key}.nii.gz"\n[[masks]]\npath = "masks/**{key}_x.*"'
    ),
    "double keys": mapped('images = ["images/{key}_n.*", "images/{key}_nrrd.*"]'),
    "two kinds": mapped(
        'images = "images/{key}.nii.gz"\n[[masks]]\npath = "masks/{key}.nii.gz"\n'
        '[[masks]]\npath = "masks/{key}.*"'
    ),
    "no table": lambda folder, _: tables(folder) or (),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_a_failing_run_names_nobody_either(tmp_path, capfd, kind):
    """Errors say what to do without an example where names are hidden."""
    source = tmp_path / NAME
    put_volumes(source)

    def place(text):
        (tmp_path / "map.toml").write_text(text)
        return tmp_path / "map.toml"

    more = FAILURES[kind](source, place)
    text = failed(capfd, source, tmp_path / "out", "--names", "hash", "--modality", "CT", *more)

    assert told(tmp_path / "out", text) == []


def test_folders_that_are_no_good_are_not_named(tmp_path, capfd):
    """Missing, empty, without a usable image; and an --out that holds something."""
    source = tmp_path / NAME
    out = tmp_path / "out"
    hidden = ("--names", "hash", "--modality", "CT")
    for make in (
        lambda: None,
        lambda: source.mkdir(),
        lambda: (source / "images").mkdir(),
        lambda: (source / f"images/{NAME}.txt").write_text(ALL),
        lambda: (source / f"images/{NAME}.png").write_text(ALL),
        lambda: (source / "masks").symlink_to(tmp_path / f"gone_{NAME}"),
    ):
        make()
        text = failed(capfd, source, out, *hidden)
        assert "SOURCE" in text
        assert told(out, text) == []
    (source / "masks").unlink()
    out.mkdir(exist_ok=True)
    (out / "thing").touch()
    assert told(out, failed(capfd, source, out, *hidden)) == []


def plant(data, number):
    """Write the words wherever a header of DICOM has a place for them."""
    facts = {
        "PatientName": "Zymurgia^Quokkasson", "PatientID": "MRN998877",
        "PatientBirthDate": "19370214", "StudyDate": "20190317", "AccessionNumber": "ACC7741QX",
        "InstitutionName": "Hospital-Xanadu", "ReferringPhysicianName": "Dr-Wobblethorpe^X",
        "PatientComments": ALL, "StudyDescription": ALL[:60], "SeriesDescription": ALL[60:120],
        "ImageComments": ALL, "ContentDate": "20190317", "StationName": "Vexillo",
    }  # fmt: skip
    for keyword, value in facts.items():
        setattr(data, keyword, value)
    data.add_new(0x60000022, "LO", "overlay-Plover")
    data.add_new(0x60000010, "US", 8)
    data.add_new(0x60000011, "US", 8)
    data.add_new(0x60000040, "CS", "G")
    data.add_new(0x60004000, "LT", ALL)
    data.add_new(0x60003000, "OW", b"Vexillo.")
    block = data.private_block(0x0099, "private-Yttrium", create=True)
    block.add_new(1, "LO", "private-Yttrium")
    block.add_new(2, "UN", ALL.encode())
    inner = Dataset()
    inner.PatientName, inner.InstitutionName = "Zymurgia^Quokkasson", "Hospital-Xanadu"
    data.RequestAttributesSequence = Sequence([inner])
    return data


def test_dicom_tells_nothing_by_default(tmp_path, capfd):
    """Headers of pictures and masks, descriptions of segments and structures, overlays, names."""
    source = tmp_path / NAME
    slices = np.random.default_rng(4).integers(0, 900, (4, 30, 34), dtype=np.int16)
    files = [
        plant(data, n) for n, data in enumerate(dicom.series(slices, np.diag([0.7, 0.7, 2, 1])))
    ]
    masks = np.zeros((4, 30, 34, 1), np.uint8)
    masks[:, 4:20, 6:25] = 1
    seg = plant(dicom.segmentation(files, masks, ["liver"]), 8)
    seg.ContentLabel, seg.ContentDescription = "VEXILLO", ALL[:60]
    seg.ContentCreatorName = "Zymurgia^Quokkasson"
    seg.SegmentSequence[0].SegmentDescription = NAME
    contour = np.array([[3.0, 3, 2], [15, 3, 2], [15, 15, 2]])
    rt = plant(dicom.structure_set(files, {"kidney": [contour]}), 9)
    rt.StructureSetLabel, rt.StructureSetName = "Vexillo", NAME
    rt.StructureSetDescription, rt.StructureSetDate = ALL, "20190317"
    rt.StructureSetROISequence[0].ROIDescription = ALL[:60]
    observed = Dataset()
    observed.ROIInterpreter, observed.ROIObservationLabel = "Dr-Wobblethorpe", "Vexillo"
    rt.RTROIObservationsSequence = Sequence([observed])
    dicom.save(source / f"{NAME}/{WORDS[6]}", files, f"{NAME}_{{}}.dcm")
    dicom.save(source / NAME, [seg], f"SEG_{NAME}")
    dicom.save(source / NAME, [rt], f"RT_{NAME}.dcm")
    whole = (source / NAME / f"SEG_{NAME}").read_bytes()
    (source / f"cut_{NAME}.dcm").write_bytes(whole[: len(whole) // 2])
    (source / f"{NAME}.txt").write_text(ALL)
    code, text = command(source, tmp_path / "out", "--min-area", "3")
    targets = pq.read_table(tmp_path / "out/targets").column("object").to_pylist()

    assert code == 0, text
    assert set(targets) == {"liver", "kidney"}
    assert told(tmp_path / "out", text) == []
    for more in (("--subject-pattern", "(nobody)"), ("--split-pattern", "(nobody)")):
        text = failed(capfd, source, tmp_path / "none", *more)
        assert told(tmp_path / "none", text) == []
    bad = tmp_path / f"bad_{NAME}"
    bad.mkdir()
    (bad / f"{NAME}.dcm").write_bytes(whole[:600])
    text = failed(capfd, bad, tmp_path / "none")
    assert told(tmp_path / "none", text) == []
    assert re.search("SOURCE holds no usable image", text)
    assert os.listdir(bad) == [f"{NAME}.dcm"]


def test_the_search_finds_what_it_looks_for(tmp_path):
    """Plain, encoded, packed, and in the cells of a table."""
    word = WORDS[0]
    for number, content in enumerate(
        (
            f"x{word}y".encode(),
            word.encode("utf-16-le"),
            base64.b64encode(f"ab{word}c".encode()),
            word.encode().hex().encode(),
            gzip.compress(word.encode()),
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "f").write_bytes(content)
        assert told(folder) == [word], number
    table = tmp_path / "t"
    table.mkdir()
    import pyarrow as pa

    rows = pa.table({"a": [[word] * 3], "image": [{"bytes": b"z"}]})
    pq.write_table(rows, table / "t.parquet", compression="zstd")
    assert told(table) == [word]
