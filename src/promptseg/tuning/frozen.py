"""What the frozen stages of an encoder give, kept on disk: computed once per image and variant."""

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from promptseg.errors import DataError, ModelError
from promptseg.trainable import Trainable
from promptseg.tuning.settings import CacheType
from promptseg.weights import cache_dir


@dataclass(frozen=True, slots=True)
class Frozen:
    """The stages before `cut`: their output, from the cache or made anew.

    A file is named by what it was made from: the pixels as the model sees them (the image and the
    preprocessing), the weights of the frozen stages, what ran them, and the type it is kept in. So
    a file is stale only where a model's code was changed, and runs share them.
    """

    model: Trainable
    cut: int
    dtype: CacheType
    folder: Path | None  # None: nothing is kept
    weights: str  # hash of the frozen stages
    ran_by: str  # version of PyTorch, and kind of device: their last digits differ

    def key(self, image: UInt8[np.ndarray, "h w 3"]) -> str:
        """Name what the stages make of an image."""
        pixels = self.model.pixels(image).float().cpu().numpy()
        told = (self.model.name, self.weights, self.cut, self.dtype, self.ran_by, pixels.shape)
        identity = "".join(f"{value}\n" for value in told)
        return hashlib.sha256(identity.encode() + pixels.tobytes()).hexdigest()

    def path(self, key: str) -> Path:
        """Tell where the output of a key is kept."""
        assert self.folder is not None
        return self.folder / key[:2] / f"{key}.npy"

    @torch.no_grad()  # and not inference mode, whose tensors no training may use
    def make(self, image: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "1 k y x"]:
        """Run the frozen stages on an image."""
        made: Tensor = self.model.encode(self.model.pixels(image), 0, self.cut).float()
        return made

    def keep(self, image: UInt8[np.ndarray, "h w 3"]) -> str:
        """Have the output of an image kept, and give its key; one that is there stays.

        Raises
        ------
        ModelError
            The output does not fit into float16.
        DataError
            The file cannot be written.
        """
        key = self.key(image)
        path = self.path(key)
        if path.is_file():
            return key
        values = self.make(image).cpu().numpy().astype(self.dtype)
        if not np.isfinite(values).all():
            raise ModelError(
                f"What {self.model.name} makes of an image does not fit into {self.dtype}: keep it "
                "as float32 (--cache-dtype float32)."
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            with temporary.open("wb") as sink:
                np.save(sink, values)
            os.replace(temporary, path)
        except OSError as error:
            raise DataError(
                f"Cannot keep embeddings in {self.folder}: {error.strerror}. Choose another "
                "PROMPTSEG_CACHE, or train without (--no-cache)."
            ) from error
        return key

    def load(self, key: str, device: torch.device) -> Float[Tensor, "1 k y x"]:
        """Read the output of a key; raises DataError when it is not there or damaged."""
        path = self.path(key)
        try:
            values = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            path.unlink(missing_ok=True)
            raise DataError(
                f"{path} is damaged or gone. The same command makes it again."
            ) from error
        return torch.from_numpy(values).to(device).float()


def frozen_stages(model: Trainable, cut: int, dtype: CacheType, *, cached: bool) -> Frozen:
    """Describe the stages before the first one that is trained."""
    digest = hashlib.sha256()
    for name in model.stages[:cut]:
        for key, value in sorted(model.network.get_submodule(name).state_dict().items()):
            digest.update(f"{name}.{key}\n".encode() + value.cpu().numpy().tobytes())
    folder = cache_dir() / "embeddings" if cached else None
    device = next(model.network.parameters()).device.type
    ran_by = f"torch {torch.__version__.partition('+')[0]} on {device}"
    return Frozen(model, cut, dtype, folder, digest.hexdigest(), ran_by)


def room_for(frozen: Frozen, image: UInt8[np.ndarray, "h w 3"], count: int) -> int:
    """Tell how many bytes `count` outputs take; raises DataError where the disk has no room."""
    assert frozen.folder is not None
    each = frozen.make(image).numel() * np.dtype(frozen.dtype).itemsize
    try:
        frozen.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"Cannot write to the cache {frozen.folder}: {error.strerror}. Set PROMPTSEG_CACHE to "
            "a folder that you may write to, or train without (--no-cache)."
        ) from error
    free = shutil.disk_usage(frozen.folder).free
    there = sum(file.stat().st_size for file in frozen.folder.glob("*/*.npy"))
    if each * count > free + there:  # what is there may be what is needed
        raise DataError(
            f"The embeddings of this training take {each * count / 1e9:.1f} GB, and "
            f"{frozen.folder} has {free / 1e9:.1f} GB left. Augment less (--augment none), choose "
            "another PROMPTSEG_CACHE, or train without (--no-cache)."
        )
    return each * count
