"""Hundreds of damaged and hostile files of all formats, curated beside good ones."""

import os
import re
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import dicom_files as dicom
import highdicom as hd
import imagecodecs
import mutated
import nibabel
import numpy as np
import PIL.Image
import polars as pl
import pydicom.filereader
import pytest
import SimpleITK
from hostile import HOSTILE
from mutated import N_MUTATIONS, mutations
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, RLELossless

from promptseg.curation import Curation, curate
from promptseg.errors import DataError, PromptsegError
from promptseg.reader import offsets as offsets_table
from promptseg.reader.dicom.name import file_name

GIB = 1 << 30
LONGEST_S = 570  # a hang, not a speed: the machine may be shared


class Memory(threading.Thread):
    """Watch the peaks of all processes of a session."""

    def __init__(self, session: int) -> None:
        super().__init__(daemon=True)
        self.session, self.peaks, self.done = session, dict[int, int](), threading.Event()

    def run(self):
        """Look ten times a second; the system keeps each process's own peak."""
        while not self.done.wait(0.1):
            for path in Path("/proc").glob("[0-9]*"):
                try:
                    if os.getsid(int(path.name)) != self.session:
                        continue
                    peak = re.search(r"VmHWM:\s+(\d+)", (path / "status").read_text())
                except OSError:
                    continue
                if peak:
                    self.peaks[int(path.name)] = int(peak[1]) * 1024


class Run:
    """A curation by the command, in processes of its own, and what it wrote."""

    def __init__(self, folder, out, *options):
        command = [sys.executable, "-m", "promptseg", "curate", folder, "--out", out]
        command += ["--modality", "CT", "--dataset", "d", "--min-area", "3", "--workers", "2"]
        begun = time.monotonic()
        process = subprocess.Popen(
            [*command, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        memory = Memory(process.pid)
        memory.start()
        out_text, self.errors = process.communicate(timeout=LONGEST_S)
        self.told = out_text + self.errors
        memory.done.set()
        memory.join()
        self.seconds = time.monotonic() - begun
        self.peaks = memory.peaks
        assert process.returncode == 0, self.told
        tables = [sorted((out / kind).glob("*.parquet")) for kind in ("images", "targets", "drops")]
        self.images, self.targets, self.drops = map(pl.read_parquet, tables)
        self.reasons = dict(self.drops.select("source", "reason").rows())

    def accounts_for(self, image, mask):
        """Whether an image, or a mask of it, is there, or has a reason."""
        lost = {str(image), str(mask)} & set(self.reasons)
        return bool(lost) or image in self.images["source"]

    def pixels(self, key):
        """Give what identifies the pixels and masks of an image and its frames."""
        ours = pl.col("image_id").str.contains(rf"^d/{key}(/|$)")
        images = self.images.filter(ours).sort("image_id")
        masks = self.targets.filter(ours).sort("image_id")
        return (
            images.select("image_id", "sha256", "width", "height", "slice_index").rows(),
            masks.select("image_id", "area_px", "box", "mask").rows(),
        )

    def check(self, secrets):
        """Nothing took more than it may, nothing crashed, and no name from outside got out."""
        assert len(self.peaks) > 3  # ours, the server's, and at least two that read
        assert max(self.peaks.values()) < 2 * GIB
        texts = [self.told, *self.reasons.values(), *(self.drops["source"])]
        assert not [text for text in texts for secret in secrets if secret in text]
        assert not [line for line in self.errors.splitlines() if "iff" in line]
        grave = re.compile("crashed|ended the reader|more than .* GiB of memory|takes more than")
        assert not [reason for reason in self.reasons.values() if grave.search(reason)]
        assert all(reason and "\n" not in reason for reason in self.reasons.values())


def put(path, content):
    """Write a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def put_all(path, contents):
    """Write files of one name with several suffixes; what the first names is called so too."""
    stem = path.name
    for number, (suffix, content) in enumerate(contents.items()):
        named = re.sub(rb"\bx(\.[a-z.]+)", rb"%s\1" % stem.encode(), content)
        put(path.with_name(stem + suffix), content if number else named)


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """Make a folder beside all data, whose files nobody must read."""
    folder = tmp_path_factory.mktemp("elsewhere")
    values = np.full((41, 37), 201, np.uint8)
    values[5:30, 4:33] = 255
    put(folder / "canary.png", mutated.by_opencv(".png", values))
    put(folder / "canary.avi", mutated.video(".avi", "MJPG"))
    put(folder / "canary.json", b'{"canary": 255}')
    put(folder / "canary.csv", b"Mask,Top,Left\na.png,0,0\n")
    noise = np.random.default_rng(1).integers(0, 999, mutated.SHAPE, dtype=np.int16)
    put(folder / "canary1.raw", noise.tobytes())
    return folder


def bad_pictures(folder, outside, canary):
    """Write damaged and hostile pictures, stacks, arrays and videos; yield (image, mask)."""
    good_png = mutated.by_opencv(".png", mutated.mask())
    for name, (suffix, image, of_mask, mask) in mutated.pictures().items():
        for number, content in enumerate(mutations(image, name)):
            key = f"{name}{number:02d}"
            put(folder / f"images/{key}{suffix}", content)
            put(folder / f"masks/{key}{of_mask}", mask)
            yield f"images/{key}{suffix}", None
        if name in ("png", "deep", "jpeg", "tiff", "bmp", "gif", "npy", "stack", "pages"):
            for number, content in enumerate(mutations(mask, (name, "mask"))):
                key = f"{name}m{number:02d}"
                put(folder / f"images/{key}{suffix}", image)
                put(folder / f"masks/{key}{of_mask}", content)
                yield f"images/{key}{suffix}", f"masks/{key}{of_mask}"
    hostiles = {name: make() for name, (make, _) in HOSTILE.items()}
    for name, content in (hostiles | mutated.evil_arrays(canary)).items():
        stem, suffix = name.split(".")
        key = f"h_{stem}{suffix}"
        put(folder / f"images/{key}.{suffix}", content)
        put(folder / f"masks/{key}.png", good_png)
        yield f"images/{key}.{suffix}", None
        if suffix in ("png", "tif", "npy", "npz"):
            put(folder / f"images/{key}m.png", good_png)
            put(folder / f"masks/{key}m.{suffix}", content)
            yield f"images/{key}m.png", f"masks/{key}m.{suffix}"
    playlist = f"ffconcat version 1.0\nfile '{outside / 'canary.avi'}'\n".encode()
    put(folder / "images/list.avi", playlist)
    put(folder / "images/stream.mp4", f"#EXTM3U\n#EXTINF:1,\n{outside}/canary.avi\n".encode())
    for name in ("list.avi", "stream.mp4"):
        yield f"images/{name}", None
    (folder / "images/link.png").symlink_to(outside / "canary.png")
    put(folder / "images/linked.png", good_png)
    (folder / "masks/linked.png").symlink_to(outside / "canary.png")
    (folder / "images/more").symlink_to(outside)
    os.mkfifo(folder / "images/pipe.png")
    os.mkfifo(folder / "images/pipe.dcm")
    yield "images/link.png", None
    yield "images/linked.png", "masks/linked.png"
    yield "images/more", None
    yield "images/pipe.png", None
    yield "images/pipe.dcm", None


def test_pictures_stacks_arrays_and_videos(tmp_path, outside):
    """Each is in the corpus or has its reason; the good ones beside them are as alone."""
    canary, data = tmp_path / "executed", tmp_path / "data"
    for folder in (data, tmp_path / "good"):
        for name, (suffix, image, of_mask, mask) in mutated.pictures().items():
            put(folder / f"images/good_{name}{suffix}", image)
            put(folder / f"masks/good_{name}{of_mask}", mask)
    bad = list(bad_pictures(data, outside, canary))
    run = Run(data, tmp_path / "out", "--keep-empty")
    alone = Run(tmp_path / "good", tmp_path / "alone", "--keep-empty")

    assert len(bad) >= 300
    assert [pair for pair in bad if not run.accounts_for(*pair)] == []
    for name in mutated.pictures():
        assert run.pixels(f"good_{name}") == alone.pixels(f"good_{name}"), name
        assert run.pixels(f"good_{name}")[1], name
    assert not canary.exists()
    assert run.images.filter(width=37, height=41).is_empty()
    assert run.reasons["images/link.png"] == "a link that leads out of the folder"
    run.check(["canary", str(outside), str(data), "executed"])


def bad_volumes(data, outside, made, segments):
    """Write damaged and lying volumes and labels; yield (image, mask)."""
    _, labels = mutated.voxels()
    of_mask = mutated.written(labels)
    for name, files in made.items():
        first = next(iter(files))
        head = 300 if name in ("nii", "hdr") else 200
        for part in files:
            for number, content in enumerate(mutations(files[part], (name, part), head)):
                key = f"{name}{part[1:3]}{number:02d}"
                put_all(data / f"images/{key}", files | {part: content})
                put_all(data / f"masks/{key}", of_mask)
                yield f"images/{key}{first}", None
    for number, content in enumerate(mutations(segments[".seg.nrrd"], "segments", 700)):
        put_all(data / f"images/seg{number:02d}", made["nii"])
        put(data / f"masks/seg{number:02d}.seg.nrrd", content)
        yield f"images/seg{number:02d}.nii", f"masks/seg{number:02d}.seg.nrrd"
    for name, content in mutated.liars(outside / "canary1.raw").items():
        stem, _, suffix = name.partition(".")
        key = f"l_{stem}{suffix.replace('.', '')}"
        put(data / f"images/{key}.{suffix}", content)
        put_all(data / f"masks/{key}", of_mask)
        yield f"images/{key}.{suffix}", None
    for header, part in ((".nhdr", ".raw"), (".mhd", ".raw"), (".hdr", ".img")):
        key = f"linked{header[1:]}"
        put_all(data / f"images/{key}", made[header[1:]])
        (data / f"images/{key}{part}").unlink()
        (data / f"images/{key}{part}").symlink_to(outside / "canary1.raw")
        yield f"images/{key}{header}", None


def test_volumes(tmp_path, outside):
    """As pictures; voxels are never those of a file outside."""
    data = tmp_path / "data"
    made, (_, labels) = mutated.volumes(), mutated.voxels()
    segments = made.pop("segments")
    for folder in (data, tmp_path / "good"):
        for name, files in made.items():
            put_all(folder / f"images/good_{name}", files)
            of_mask = mutated.analyze(labels) if name == "hdr" else segments
            put_all(folder / f"masks/good_{name}", of_mask)
    bad = list(bad_volumes(data, outside, made, segments))
    run = Run(data, tmp_path / "out", "--keep-empty")
    alone = Run(tmp_path / "good", tmp_path / "alone", "--keep-empty")

    assert len(bad) >= 150
    assert [pair for pair in bad if not run.accounts_for(*pair)] == []
    for name in made:
        assert run.pixels(f"good_{name}") == alone.pixels(f"good_{name}"), name
        assert run.pixels(f"good_{name}")[1], name
    read = set(run.images["source"])
    tricks = [image for image, _ in bad if re.search("/(linked|l_)", image)]
    assert len(tricks) == 31
    assert [image for image in tricks if image in read] == []
    run.check(["canary", str(outside), str(data)])


SLICES = np.random.default_rng(3).integers(0, 900, (2, 24, 31), dtype=np.int16)
ONES = np.zeros((2, 24, 31, 1), np.uint8)
ONES[:, 4:18, 5:22] = 1
CONTOUR = np.array([[4.0, 4, 0], [15, 4, 0], [15, 12, 0], [6, 12, 0]])


def by_rle(files, _):
    """Compress a slice."""
    files[0].compress(RLELossless, generate_instance_uid=False)
    return files[0]


def by_jpeg_2000(files, _):
    """Compress a slice."""
    packed = imagecodecs.jpeg2k_encode(SLICES[0], codecformat="j2k", reversible=True)
    files[0].PixelData = encapsulate([packed])
    files[0]["PixelData"].VR, files[0]["PixelData"].is_undefined_length = "OB", True
    files[0].file_meta.TransferSyntaxUID = JPEG2000Lossless
    return files[0]


def enhanced(files, name):
    """Make one file of a series."""
    for data in files:
        data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        data.PositionReferenceIndicator, data.PatientPosition = "", "HFS"
    uids = dicom.uid(name, "e"), 3, dicom.uid(name, "e1"), 1
    return hd.legacy.LegacyConvertedEnhancedCTImage(files, *uids)


def cine(files, _):
    """Make a stack without a place."""
    dicom.put_pixels(files[0], np.repeat(SLICES, 3, axis=0))
    del files[0].ImagePositionPatient, files[0].ImageOrientationPatient
    return files[0]


# kind -> how the file to be damaged is made of a series and its name, and what stays of the series
KINDS = {
    "plain": (lambda files, _: files[0], slice(1, None)),
    "rle": (by_rle, slice(1, None)),
    "j2k": (by_jpeg_2000, slice(1, None)),
    "enhanced": (enhanced, slice(0)),
    "cine": (cine, slice(0)),
    "seg": (lambda files, name: dicom.segmentation(files, ONES, [name]), slice(None)),
    "fraction": (
        lambda files, name: dicom.segmentation(files, ONES * 0.6, [name], "FRACTIONAL"),
        slice(None),
    ),
    "rtstruct": (lambda files, name: dicom.structure_set(files, {name: [CONTOUR]}), slice(None)),
}


def bad_dicom(folder):
    """Write damaged slices, stacks and masks of DICOM, each with a series of its own.

    Yields (path of the damaged file, folder of its series).
    """
    for kind, (make, kept) in KINDS.items():
        for number in range(N_MUTATIONS):
            name = f"{kind}{number:02d}"
            files = dicom.series(SLICES, np.diag([0.7, 0.7, 2.0, 1.0]), name=name)
            others = files[kept]
            dicom.save(folder / name, [make(files, name)], ["bad"])
            dicom.save(folder / name, others, "good{}")
            path = folder / name / "bad"
            path.write_bytes(list(mutations(path.read_bytes(), kind, 1500))[number])
            yield f"./{name}/bad", f"./{name}/"


def test_dicom(tmp_path):
    """Slices, cines, compressed ones, SEG and RTSTRUCT; a sound series is as it is alone."""
    data, names = tmp_path / "data", tmp_path / "names.csv"
    files = dicom.series(np.arange(3000, dtype=np.int16).reshape(5, 20, 30), np.eye(4), name="good")
    masks = np.zeros((5, 20, 30, 1), np.uint8)
    masks[1:4, 4:15, 5:20] = 1
    for folder in (data, tmp_path / "good"):
        dicom.save(folder / "good", files)
        dicom.save(folder / "good", [dicom.segmentation(files, masks, ["sound"])], "seg")
    bad = list(bad_dicom(data))
    (data / "dump.dcm").symlink_to(data / "good")
    os.mkfifo(data / "pipe")
    more = ("--names", "keep", "--key", tmp_path / "key", "--keep-empty")
    run = Run(data, tmp_path / "out", *more, "--names-out", names)
    alone = Run(tmp_path / "good", tmp_path / "alone", *more)
    ids = {place: name for name, place in pl.read_csv(names).rows()}
    drawn = set(run.targets["image_id"].str.replace("/(axial|frame)/.*", ""))
    shown = set(run.images["image_id"].str.replace("/(axial|frame)/.*", ""))
    assert len(bad) >= 80

    def is_told(path, folder):
        of_series = {name for place, name in ids.items() if folder in place}
        is_mask = re.match(r"\./(seg|fraction|rtstruct)", path) is not None
        own = {name for place, name in ids.items() if path in place}
        in_series = any("and 1 more" in place and folder in place for place in ids)
        is_there = bool(of_series & drawn) if is_mask else bool(own & shown) or in_series
        return (
            is_there
            or file_name(path) in run.reasons
            or bool(of_series & set(run.drops["image_id"]))
        )

    assert [path for path, folder in bad if not is_told(path, folder)] == []
    (key,) = {image.split("/")[1] for image in alone.images["image_id"]}
    assert run.pixels(key) == alone.pixels(key)
    assert len(run.pixels(key)[1]) == 3
    run.check([str(data)])


MAPPING = """
dataset = "d"
modality = "CT"
images = "scans/{key}.png"
[[masks]]
path = "cuts/{key}_{object}.png"
offsets = { table = "boxes.csv", file = "Mask", top = "Top", left = "Left" }
[[masks]]
path = "maps/{key}.png"
[masks.labels]
liver = 1
"both of them" = [1, 2]
[masks.keys]
"b" = "a"
"""
CSV = "Mask,Top,Left\na_cyst.png,3,4\nb_cyst.png,5,6\n"
LABELS = '{"liver": 1, "spleen": [2, 3], "kidney": 4}\n'


def text_folder(folder, labels):
    """Write what a mapping file, a table of offsets and a table of labels speak of."""
    values = (mutated.mask() > 0).astype(np.uint8)
    for name in "ab":
        put(folder / f"scans/{name}.png", mutated.by_opencv(".png", mutated.picture(name)))
        put(folder / f"cuts/{name}_cyst.png", mutated.by_opencv(".png", values[8:20, 10:20] * 255))
        put(folder / f"images/{name}.png", mutated.by_opencv(".png", mutated.picture(name)))
        put(folder / f"masks/{name}.png", mutated.by_opencv(".png", values))
    put(folder / "maps/b.png", mutated.by_opencv(".png", values))
    put(folder / "boxes.csv", CSV.encode())
    if labels:
        put(folder / "labels.json", labels)


def texts(outside):
    """Make damaged and hostile (mapping file, table of offsets, table of labels)."""
    mapping, offsets, labels = MAPPING.encode(), CSV.encode(), LABELS.encode()
    yield from ((bad, offsets, None) for bad in mutations(mapping, "mapping"))
    yield from ((mapping, bad, None) for bad in mutations(offsets, "offsets"))
    yield from ((None, None, bad) for bad in mutations(labels, "labels"))
    for old, new in (
        ("boxes.csv", str(outside / "canary.csv")),
        ("boxes.csv", f"../{outside.name}/canary.csv"),
        ("boxes.csv", "link.csv"),
        ("scans/{key}", f"../{outside.name}/{{key}}"),
        ("scans/{key}", f"{outside}/{{key}}"),
        ("scans/{key}", "scans/../../{key}"),
        ('"b" = "a"', f'"b" = "../{outside.name}/canary"'),
        ('"b" = "a"', f'"../{outside.name}/canary" = "a"'),
        ("liver = 1", "liver = " + "[" * 9000),
        ("liver = 1", "liver = " + "9" * 9000),
        ("liver = 1", "x." * 3000 + "liver = 1"),
    ):
        yield mapping.replace(old.encode(), new.encode()), offsets, None
    for row in (
        f"{outside}/a_cyst.png,3,4\n../../b_cyst.png,5,6\n",
        "a_cyst.png,999999999,4\nb_cyst.png,-999999999,6\n",
        "a_cyst.png,1e308,nan\nb_cyst.png," + "9" * 4000 + ",6\n",
        "a_cyst.png,3,4\n" * 40_000 + "b_cyst.png,5,6\n",
        '"' + "a" * 300_000,
        "a_cyst.png" + "," * 3_000_000 + "\n",
    ):
        yield mapping, b"Mask,Top,Left\n" + row.encode(), None
    yield mapping, b"," * 3_000_000 + b"\n", None
    yield mapping, b"Mask,Top,Left\n" + b"a,1,2\n" * 60_000, None
    for content in ("[" * 100_000, '{"liver": 1' + "0" * 100_000 + "}", "[]" + " " * (1 << 25)):
        yield None, None, content.encode()


def test_texts(tmp_path, outside, monkeypatch):
    """A mapping file, a table of offsets, a table of labels: a corpus with reasons, or one line."""
    monkeypatch.setattr(offsets_table, "MOST_ROWS", 50_000)  # a million take some seconds
    told = []
    for number, (mapping, offsets, labels) in enumerate(texts(outside)):
        data = tmp_path / f"{number}/data"
        text_folder(data, labels)
        settings = Curation(modality="CT", dataset="d", min_area_px=3)
        if mapping is not None:
            put(data / "boxes.csv", offsets)
            (data / "link.csv").symlink_to(outside / "canary.csv")
            path = put(tmp_path / f"{number}.toml", mapping)
            settings = replace(settings, mapping=path)
        try:
            list(curate(data, tmp_path / f"{number}/out", settings))
        except PromptsegError as error:
            told.append(str(error))
        else:
            images = pl.read_parquet(tmp_path / f"{number}/out/images/*.parquet")
            assert set(images["source"]) <= {
                f"{f}/{i}.png" for f in ("scans", "images") for i in "ab"
            }
            told.append(None)
    lines = [line for line in told if line]

    assert len(told) >= 50
    assert 10 < len(lines) < len(told) - 10
    assert not [line for line in lines if "\n" in line or len(line) > 900]
    (tmp_path / "last").mkdir()
    text_folder(tmp_path / "last", None)
    (tmp_path / "last/labels.json").symlink_to(outside / "canary.json")
    with pytest.raises(DataError, match="it is a link that leads out of the folder"):
        list(curate(tmp_path / "last", tmp_path / "o", Curation(modality="CT")))


class NeverError(BaseException):
    """What nothing catches."""


def test_the_process_that_writes_decodes_nothing(tmp_path, monkeypatch):
    """So that no file can end it: neither nameless masks nor headers of DICOM are read in it."""
    data, made = tmp_path / "data", mutated.pictures()
    for name, (suffix, image, of_mask, mask) in made.items():
        put(data / f"images/{name}{suffix}", image)
        put(data / f"masks/{name}{of_mask}", mask)
    put_all(data / "images/v", mutated.volumes()["nii"])
    put_all(data / "masks/v", mutated.written(mutated.voxels()[1]))
    dicom.save(data / "images/series", dicom.series(SLICES, np.eye(4)))

    def never(*_, **__):
        raise NeverError

    for module, name in (
        (PIL.Image, "open"),
        (np, "memmap"),
        (zipfile.ZipFile, "open"),
        (cv2, "VideoCapture"),
        (nibabel, "load"),
        (SimpleITK, "ReadImage"),
        (pydicom.filereader, "read_dataset"),
    ):
        monkeypatch.setattr(module, name, never)
    settings = dicom.clinical(modality="CT", dataset="d", min_area_px=3, keep_empty=True)
    steps = list(curate(data, tmp_path / "out", settings, workers=2))

    assert len(steps) == len(made) + 2
    assert pl.read_parquet(tmp_path / "out/images/*.parquet").height > len(steps)
    with pytest.raises(NeverError):
        list(curate(data, tmp_path / "alone", settings))
