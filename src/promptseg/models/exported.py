"""LiteMedSAM's encoder and decoder as ONNX graphs, run by OpenVINO instead of PyTorch.

Graphs are made once per weights and kept in the cache. What changes with every prompt but costs
little, the encoding of boxes and clicks, stays in PyTorch, so that one decoder serves all kinds of
prompts. Every prompt is decoded alone in one thread, several at a time: its answer does not depend
on the others.
"""

import copy
import hashlib
import importlib
import importlib.metadata
import json
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn

from promptseg.errors import ModelError
from promptseg.model import Candidates, Segmenter
from promptseg.models.litemedsam import EMBEDDING_SIDE, SIDE, Embedding, LiteMedSamSegmenter
from promptseg.models.sam_decoder import SamHead
from promptseg.models.tinyvit import NECK_DIM
from promptseg.parquet import write_atomically
from promptseg.prompt import Prompt
from promptseg.weights import cache_dir, sha256_of

EXPORT = 1  # to be raised whenever the graphs change
GRAPHS, MANIFEST = ("encoder.onnx", "decoder.onnx"), "export.json"
OF_IMAGE = ("cells", "key", "value", "query")  # what of Prepared differs between images
MOST_TOKENS = 4096  # of a prompt: a click has one, a box two
PLAIN = {"INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False}


class Decoder(nn.Module):
    """The mask decoder as a function of what differs between images and prompts."""

    def __init__(self, head: SamHead) -> None:
        super().__init__()
        self.head = head
        self.same = head.prepare(torch.zeros(1, NECK_DIM, EMBEDDING_SIDE, EMBEDDING_SIDE))

    def forward(
        self,
        cells: Float[Tensor, "1 n c"],
        key: Float[Tensor, "1 heads n d"],
        value: Float[Tensor, "1 heads n d"],
        query: Float[Tensor, "1 heads n d"],
        sparse: Float[Tensor, "1 1 t c"],
    ) -> tuple[Float[Tensor, "1 4 h w"], Float[Tensor, "1 4"]]:
        """Decode one prompt of an image."""
        image = replace(self.same, cells=cells, key=key, value=value, query=query)
        return self.head.answer(image, sparse)


class ExportedSegmenter:
    """LiteMedSAM behind the `Segmenter` protocol, with OpenVINO for its networks."""

    def __init__(self, model: LiteMedSamSegmenter, graphs: Path, openvino: Any) -> None:
        self.name = model.name
        self.weights_hash = model.weights_hash
        self.training = model.training
        self.everything = model.everything
        self.tuned_card = getattr(model, "tuned_card", None)  # what it was trained on
        self.trained_on = getattr(model, "trained_on", ())
        self.backend = f"onnx, export {EXPORT}, openvino {version('openvino')}"
        self._model, self._openvino = model, openvino
        self._threads = torch.get_num_threads()
        core, encoder, decoder = openvino.Core(), *(str(graphs / name) for name in GRAPHS)
        threads = {"INFERENCE_NUM_THREADS": self._threads}
        one = {"PERFORMANCE_HINT": "LATENCY", **threads, **PLAIN}
        # as many streams as threads: a prompt has one
        several = {"NUM_STREAMS": self._threads, **threads, **PLAIN}
        self._encoder = core.compile_model(encoder, "CPU", one)
        self._decoder = core.compile_model(decoder, "CPU", several)

    def embed(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[Embedding]:
        """Encode images, one at a time."""
        return [self._embed(image) for image in images]

    def _embed(self, image: UInt8[np.ndarray, "h w 3"]) -> Embedding:
        features = self.encode(self._model.pixels(image))
        return self._model.embedding(features, (image.shape[0], image.shape[1]))

    def encode(self, pixels: Float[Tensor, "1 3 256 256"]) -> Float[Tensor, "1 256 64 64"]:
        """Encode what `LiteMedSamSegmenter.pixels` makes of an image."""
        features = self._encoder.create_infer_request().infer([pixels.numpy()])[0]
        return torch.from_numpy(features.copy())

    def segment(self, embedding: Embedding, prompts: Sequence[Prompt]) -> list[Candidates]:
        """Decode every prompt in a thread of its own."""
        image = {name: getattr(embedding.prepared, name).numpy() for name in OF_IMAGE}
        found: dict[int, tuple[np.ndarray, np.ndarray]] = {}

        def keep(request: Any, index: int) -> None:
            logits, iou = (request.get_output_tensor(n).data for n in (0, 1))
            found[index] = logits[0].copy(), iou[0].copy()

        queue = self._openvino.AsyncInferQueue(self._decoder, self._threads)
        queue.set_callback(keep)
        given = [image | {"sparse": self._sparse(embedding, prompt)} for prompt in prompts]
        for index, arrays in enumerate(given):
            queue.start_async(arrays, index, share_inputs=True)
        queue.wait_all()
        canvas = self._model.canvas(embedding.image_hw)
        return [Candidates(*found[n], 0, (1, 2, 3), canvas) for n in range(len(prompts))]

    @torch.inference_mode()
    def _sparse(self, embedding: Embedding, prompt: Prompt) -> Float32[np.ndarray, "1 1 t c"]:
        return self._model.head.encoded(*self._model.asked(embedding, [prompt])).numpy()


def exported(model: Segmenter[Any]) -> ExportedSegmenter:
    """Give a loaded model's networks to OpenVINO; they are exported where the cache lacks them.

    The number of threads is that of PyTorch.

    Raises
    ------
    ModelError
        The model cannot be exported, is not on a CPU in float32, or packages are missing.
    DataError
        The cache cannot be written to.
    """
    if not isinstance(model, LiteMedSamSegmenter):
        raise ModelError(
            f"{model.name} cannot be exported: the backend onnx is for litemedsam and what was "
            "fine-tuned from it. Use the backend torch."
        )
    if model.device.type != "cpu" or model.dtype != torch.float32:
        raise ModelError(
            "The backend onnx runs on a CPU in float32: use --device cpu and --dtype float32."
        )
    openvino = _package("openvino")
    return ExportedSegmenter(model, graphs_of(model), openvino)


def version(package: str) -> str:
    """Tell a package's version; raises ModelError where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError as error:
        raise _missing(package) from error


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise _missing(name) from error


def _missing(name: str) -> ModelError:
    return ModelError(
        f'The backend onnx needs {name}, which is not installed: pip install "promptseg[onnx]".'
    )


def graphs_of(model: LiteMedSamSegmenter) -> Path:
    """Give the folder of a model's graphs, which are made where it lacks them or is damaged."""
    folder = cache_dir() / "exported" / _identity(model)
    if not _is_whole(folder):
        made = dict(zip(GRAPHS, graphs(model), strict=True))
        for name, content in made.items():
            write_atomically(folder / name, content)
        # it comes last: a folder with it is whole
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in made.items()}
        write_atomically(folder / MANIFEST, json.dumps(digests).encode())
    return folder


def _identity(model: LiteMedSamSegmenter) -> str:
    """Hash the weights as they are, and by what graphs are made of them."""
    made_by = [EXPORT, model.weights_hash, torch.__version__, version("openvino")]
    digest = hashlib.sha256(json.dumps(made_by).encode())
    for name, value in sorted(model.network.state_dict().items()):
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()[:32]


def _is_whole(folder: Path) -> bool:
    try:
        digests = json.loads((folder / MANIFEST).read_bytes())
        return all(sha256_of(folder / name) == digests[name] for name in GRAPHS)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def graphs(model: LiteMedSamSegmenter) -> tuple[bytes, bytes]:
    """Export encoder and decoder to ONNX; the decoder for one prompt of any number of tokens.

    Raises
    ------
    ModelError
        A package that exporting needs is not installed.
    """
    for name in ("onnx", "onnxscript"):
        _package(name)
    network = copy.deepcopy(model.network).requires_grad_(False)
    with torch.no_grad():
        decoder = Decoder(network.head)
        image = [getattr(decoder.same, name) for name in OF_IMAGE]
    tokens = torch.export.Dim("tokens", min=2, max=MOST_TOKENS)
    given = (*image, torch.zeros(1, 1, 3, NECK_DIM))
    free: Any = ({}, {}, {}, {}, {2: tokens})
    pixels = (torch.zeros(1, 3, SIDE, SIDE),)
    return (
        _onnx(network.image_encoder, pixels, ["pixels"], ["features"], None),
        _onnx(decoder, given, [*OF_IMAGE, "sparse"], ["logits", "predicted_iou"], free),
    )


def _onnx(
    module: nn.Module, given: tuple[Tensor, ...], names: list[str], outputs: list[str], free: Any
) -> bytes:
    # with gradients enabled the encoder runs as its modules, not in strips
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about its own future
        program = torch.onnx.export(
            module.eval(),
            given,
            input_names=names,
            output_names=outputs,
            dynamic_shapes=free,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content
