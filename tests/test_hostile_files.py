"""Damaged and hostile files are refused with a reason: no memory, no hang, no code of theirs."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import hostile
import numpy as np
import pytest
import tifffile
from PIL import Image

from promptseg.errors import DataError
from promptseg.reader.array import arrays_in
from promptseg.reader.opencv import quiet
from promptseg.reader.raster import open_raster
from promptseg.reader.stack import open_pages

rng = np.random.default_rng(7)


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """Read all hostile files in one fresh process, whose memory can be asked for."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "files").mkdir()
    for name, (make, _) in hostile.HOSTILE.items():
        (folder / "files" / name).write_bytes(make())
    command = [sys.executable, hostile.__file__, "files"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True, timeout=600
    )
    assert done.stderr == ""
    assert sorted(path.name for path in folder.iterdir()) == ["files"]  # nothing of theirs was run
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", hostile.HOSTILE)
def test_a_hostile_file_is_refused_with_its_reason(refused, name):
    """As an image and as a mask, in one line that names no folder."""
    for reason in refused["reasons"][name]:
        assert hostile.HOSTILE[name][1] in reason
        assert "\n" not in reason
        assert len(reason) < 300


def test_hostile_files_take_no_memory(refused):
    """All of them together stay far below 2 GiB, though one unpacks to more."""
    assert refused["peak_bytes"] < 2**30


def test_directories_that_bite_their_tail_end(tmp_path):
    """The pages up to there are the pages of the file."""
    (tmp_path / "a.tif").write_bytes(hostile.tiff_chain(3, circle=True))
    pages = open_pages(tmp_path / "a.tif")

    assert pages.count == 3
    assert len(list(pages.read(False, 1))) == 3


def files(folder: Path) -> list[Path]:
    """Write a small file of every kind."""
    grey = rng.integers(0, 256, (3, 40, 50), dtype=np.uint8)
    rgb = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    for name in ("a.png", "a.jpg", "a.bmp", "a.gif"):
        Image.fromarray(rgb).save(folder / name)
    first, *others = [Image.fromarray(page) for page in grey]
    for name in ("s.gif", "s.png"):
        first.save(folder / name, save_all=True, append_images=others)
    Image.fromarray(rgb).save(folder / "lzw.tif", compression="tiff_lzw")
    Image.fromarray(rgb).save(folder / "jpeg.tif", compression="jpeg")
    for name, pixels in (("s.tif", grey), ("d.tif", grey.astype(np.float64))):
        tifffile.imwrite(folder / name, pixels, photometric="minisblack", compression="zlib")
    cv2.imwrite(str(folder / "deep.tif"), rgb.astype(np.uint16) * 200)
    cv2.imwrite(str(folder / "deep.png"), rgb.astype(np.uint16) * 200)
    np.save(folder / "a.npy", grey)
    np.savez_compressed(folder / "a.npz", grey)
    for name, codec in (("a.avi", "MJPG"), ("b.avi", "FFV1"), ("a.mp4", "mp4v"), ("a.mkv", "FFV1")):
        with quiet():
            code = cv2.VideoWriter_fourcc(*codec)
            writer = cv2.VideoWriter(str(folder / name), code, 10, (50, 40))
        for _ in range(5):
            writer.write(rgb)
        writer.release()
    return sorted(folder.iterdir())


def damaged(whole: bytes, i: int) -> bytes:
    """Cut a file, flip bits at its start, or put zeros into it."""
    content = bytearray(whole)
    at = int(rng.integers(0, len(whole)))
    if i % 3 == 0:
        return bytes(content[:at])
    if i % 3 == 1:
        for place in rng.integers(0, min(len(whole), 400), 5):
            content[place] ^= 1 << int(rng.integers(8))
        return bytes(content)
    content[at : at + 30] = bytes(len(content[at : at + 30]))
    return bytes(content)


def reason_of(path: Path) -> str | None:
    """Say why a file cannot be read as a picture or as a mask; None if it can."""
    try:
        for as_mask in (False, True):
            for _ in open_pages(path).read(as_mask, 1):
                pass
    except DataError as error:
        return str(error)
    return None


def test_damage_of_any_kind_is_no_more_than_a_data_error(tmp_path):
    """Files that are cut, have bits flipped, or zeros in them, at 10 places each."""
    (tmp_path / "whole").mkdir()
    reasons = []
    for path in files(tmp_path / "whole"):
        assert reason_of(path) is None
        for i in range(30):
            (tmp_path / f"a{path.suffix}").write_bytes(damaged(path.read_bytes(), i))
            reasons.append(reason_of(tmp_path / f"a{path.suffix}"))

    assert 50 < reasons.count(None) < len(reasons) - 100
    assert not any(str(tmp_path) in str(reason) for reason in reasons)


def test_only_the_formats_that_are_meant_are_tried(tmp_path):
    """PIL would open 40 more, some by calling other programs."""
    for kind in ("PPM", "WEBP", "TGA", "PCX"):
        Image.new("RGB", (5, 4)).save(tmp_path / "a.png", format=kind)
        with pytest.raises(DataError, match="cannot be read"):
            open_raster(tmp_path / "a.png")


def test_the_arrays_of_an_npz_are_there_by_name_and_read_when_asked_for(tmp_path):
    """As SciPy stores a sparse matrix: numbers, and the name of its format."""
    data = rng.integers(0, 9, (3, 4)).astype(">i4")
    np.savez_compressed(
        tmp_path / "a.npz", data=np.asfortranarray(data), format=np.array(b"csr"), none=np.zeros(0)
    )
    arrays = arrays_in(tmp_path / "a.npz")

    assert sorted(arrays) == ["data", "format", "none"]
    assert np.array_equal(arrays["data"], data)
    assert arrays["data"].dtype == data.dtype
    assert arrays["format"].item() == b"csr"
    assert arrays["none"].shape == (0,)
    with pytest.raises(KeyError):
        arrays["other"]
