"""Hundreds of damaged and hostile files of all formats, curated beside good ones."""

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import mutated
import numpy as np
import polars as pl
import pytest
from hostile import HOSTILE
from mutated import N_MUTATIONS, mutations

GIB = 1 << 30
LONGEST_S = 570  # a hang, not a speed: the machine may be shared
MADE: dict[str, int] = {}  # how many files each test was about


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
    MADE["pictures"] = len(bad)

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
    MADE["volumes"] = len(bad)

    assert [pair for pair in bad if not run.accounts_for(*pair)] == []
    for name in made:
        assert run.pixels(f"good_{name}") == alone.pixels(f"good_{name}"), name
        assert run.pixels(f"good_{name}")[1], name
    read = set(run.images["source"])
    tricks = [image for image, _ in bad if re.search("/(linked|l_)", image)]
    assert len(tricks) == 31
    assert [image for image in tricks if image in read] == []
    run.check(["canary", str(outside), str(data)])


def test_they_are_at_least_three_hundred():
    """So many files the tests of this module were about."""
    if len(MADE) < 2:
        pytest.skip("runs after the others of this module")

    assert sum(MADE.values()) >= 300
    assert len(list(mutations(bytes(1000), 0))) == N_MUTATIONS
