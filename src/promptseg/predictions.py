"""Masks that another tool predicted for the images of a corpus, read from its files.

A file belongs to an image by the rules by which curation pairs masks with images; where nothing
has the name of nnU-Net's image `case_0000`, the file `case` is its prediction. Values become
objects as `promptseg.reader.vocabulary` says.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from promptseg.corpus import Corpus, part_paths
from promptseg.errors import DataError
from promptseg.reader.folder import (
    MASK_FOLDERS,
    RASTERS,
    VOLUMES,
    MaskFile,
    files_below,
    image_key,
    mask_files,
    pair,
    printable,
)
from promptseg.reader.frame_labels import Labels, targets_of
from promptseg.reader.layer import MOST_SHOWN, Layer, besides, read_layer, some
from promptseg.reader.table import find_table
from promptseg.reader.vocabulary import Vocabulary, vocabulary
from promptseg.sample import Sample, Target

NO_FILE = "no prediction file"
_FIRST_CHANNEL = "_0000"  # what nnU-Net's images have in their names, and its predictions have not


@dataclass(frozen=True, slots=True, eq=False)
class Predicted:
    """What a tool predicted for one image.

    `missing` says why there is nothing; it is None where there was a file, if an empty one. Of the
    objects that are `lost` there was a file, which is damaged or lies on another grid.
    Objects that the corpus does not have may be there or not.
    """

    targets: tuple[Target, ...]
    missing: str | None
    lost: Mapping[str, str] = field(default_factory=dict)  # object -> why its file is of no use
    besides: str = ""  # what it holds instead: objects and values that the corpus does not know


# the object that a file's name tells, and what the file holds, or why it cannot be read
_Read = tuple[str | None, Layer | DataError]


@dataclass(slots=True, eq=False)
class _Shelf:
    """The files by the key of their image; what was read last is kept."""

    root: Path  # the sources of files are below it
    sources: Mapping[str, tuple[str, ...]]
    words: Vocabulary
    files_read: int = 0
    _key: str | None = None
    _kept: tuple[_Read, ...] | str = ()  # or why it could not be read

    def read(self, key: str) -> tuple[_Read, ...]:
        """Read the files of an image or volume.

        A damaged file whose name tells its object comes as the error. What another one shows is
        unknown, and it raises DataError with the reason.
        """
        if key != self._key:
            self._key, self._kept = None, ()  # before more is read: a volume is large
            try:
                self._kept = tuple(self._read(key))
            except DataError as error:
                self._kept = str(error)
            self._key = key
        if isinstance(self._kept, str):
            raise DataError(self._kept)
        return self._kept

    def _read(self, key: str) -> Iterator[_Read]:
        first: dict[tuple[str, int | None], str] = {}
        for file in _files(key, self.sources[key], self.words):
            self.files_read += 1
            try:
                layer = read_layer(self.root, file, self.words)
            except DataError as error:
                told = _of_file(file.source, error)
                if file.object is None:
                    raise told from error
                yield file.object, told
                continue
            for entry in layer.entries:
                other = first.setdefault((entry.object, entry.instance), file.source)
                if other != file.source:
                    why = f"{_shown(other)} shows {entry.object!r} of its image, too"
                    raise _of_file(file.source, why)
            yield file.object, layer


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Predictions:
    """The predictions of a tool: a model whose answers are there before it is asked.

    `weights_hash` is the SHA-256 over names and contents of all files used (the table of labels
    is one) and the settings by which they are read: a changed prediction is another model. Files
    that belong to no image are counted by `unpaired`, and the first of them named.
    """

    name: str
    weights_hash: str
    unpaired: int
    unpaired_names: tuple[str, ...]
    _lost: Mapping[str, str] = field(repr=False)  # image key -> why its only file is not read
    _shelf: _Shelf = field(repr=False)

    @property
    def files_read(self) -> int:
        """Count how often a file was read so far."""
        return self._shelf.files_read

    def of(self, sample: Sample) -> Predicted:
        """Give what was predicted for an image.

        A volume is read once for its slices, as long as no other image is asked for in between.

        Raises
        ------
        DataError
            A file is damaged or lies on another grid than the image, and its name does not tell
            the object that is `lost`.
        """
        if sample.source is None:
            raise DataError(f"The corpus does not say from which file {sample.image_id} came.")
        key = image_key(sample.source)
        if key not in self._shelf.sources:
            why = f" ({self._lost[key]})" if key in self._lost else ""
            return Predicted((), NO_FILE + why)
        targets: list[Target] = []
        lost: dict[str, str] = {}
        for name, layer in self._shelf.read(key):
            try:
                targets += targets_of(_on(layer, sample), sample.image_id)
            except DataError as error:
                if name is None:
                    raise
                lost[name] = str(error)
        layers = [layer for _, layer in self._shelf.read(key) if isinstance(layer, Layer)]
        return Predicted(tuple(targets), None, lost, besides(layers, self._shelf.words.objects))


def open_predictions(
    folder: Path,
    corpus: Corpus,
    *,
    labels: Path | None = None,
    name: str | None = None,
    instances: bool = False,
    threshold: float | None = None,
) -> Predictions:
    """Find the predictions in a folder for the images of a corpus.

    The folder itself, or `masks/` or `labels/` in it, holds a label map per image, or a file per
    object, as pictures or on the grid of a volume; subfolders are those of the curated images.

    Parameters
    ----------
    labels
        A table that names the values; else the one in the folder (also nnU-Net's `dataset.json`).
    name
        What to call the tool; else the folder's name.
    instances
        The values of a file number the instances of one object.
    threshold
        Makes masks of probabilities and soft edges: value > threshold.

    Raises
    ------
    DataError
        No file is of use, or nothing says what the files show; the message says what to do.
    """
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}.")
    home = folder.resolve()
    inner = next((home / n for n in MASK_FOLDERS if (home / n).is_dir()), home)
    paired, unpaired, lost = _paired(folder, inner, _image_keys(corpus))
    table = find_table(folder, labels)
    if threshold is not None and not math.isfinite(threshold):
        raise DataError(f"--threshold {threshold:g} is no number that values could exceed.")
    words = vocabulary(_objects(corpus), table.table, instances=instances, threshold=threshold)
    words = replace(words, by_name=_is_by_name(paired, words))
    used = _used(folder, paired, words)
    shelf = _checked(folder, _Shelf(inner.parent, used, words))
    settings = {"instances": instances, "threshold": threshold}
    return Predictions(
        name=name or printable(home.name),
        weights_hash=_hash(shelf, table.path, settings),
        unpaired=len(unpaired),
        unpaired_names=tuple(_shown(source) for source in unpaired[:MOST_SHOWN]),
        _lost=lost,
        _shelf=shelf,
    )


def _image_keys(corpus: Corpus) -> set[str]:
    """List what the image files of a corpus are called."""
    import polars as pl

    images = pl.scan_parquet(part_paths(corpus.path, "images"))
    files = images.select("dataset", "source").unique(maintain_order=True).collect()
    keys: set[str] = set()
    for source in files["source"]:
        key = image_key(source)
        if key in keys:
            raise DataError(
                f"Two images of the corpus are called {key}, so that names of predictions cannot "
                "tell them apart. Score its data sets as corpora of their own."
            )
        keys.add(key)
    return keys


def _objects(corpus: Corpus) -> list[str]:
    import polars as pl

    targets = pl.scan_parquet(part_paths(corpus.path, "targets"))
    names = targets.select(pl.col("object").unique().sort()).collect()
    return [str(name) for name in names["object"]]


def _paired(
    folder: Path, inner: Path, keys: set[str]
) -> tuple[dict[str, tuple[str, ...]], list[str], dict[str, str]]:
    """List the files of each image, those of none, and why an image's only file is not read."""
    # nnU-Net writes probabilities as .npz beside its masks
    files, strange = files_below(inner.parent, inner.name, RASTERS)
    paired, left = pair(files, keys)
    by_name, unpaired = set(paired), []
    for source in left:
        key = image_key(source) + _FIRST_CHANNEL
        if key in keys and key not in by_name:
            paired[key] = (*paired.get(key, ()), source)
        else:
            unpaired.append(source)
    if not paired:
        raise _nothing_paired(folder, unpaired, strange, keys)
    reasons = {source: f"{_shown(source)}: {why}" for source, why in strange}
    lost = {
        key: reasons[sources[0]]
        for key, sources in pair(reasons, keys)[0].items()
        if sources and key not in paired
    }
    return paired, unpaired, lost


def _nothing_paired(
    folder: Path, unpaired: list[str], strange: list[tuple[str, str]], keys: set[str]
) -> DataError:
    if not unpaired:
        kinds = ", ".join((*RASTERS, *VOLUMES))
        hint = f" Left out: {_shown(strange[0][0])} ({strange[0][1]}), ..." if strange else ""
        return DataError(f"{folder} holds no mask. Expected are files ending in {kinds}.{hint}")
    return DataError(
        f"No file in {folder} is called like an image of the corpus. Its files are "
        f"{some(map(_shown, unpaired))}; the images are {some(sorted(keys))}. "
        "Name each prediction like its image, or IMAGE_OBJECT."
    )


def _files(key: str, sources: Iterable[str], words: Vocabulary) -> list[MaskFile]:
    """Read the names of an image's files, and leave out those of other objects."""
    sources = list(sources)
    if sources and all(image_key(source) + _FIRST_CHANNEL == key for source in sources):
        return [MaskFile(source) for source in sources]
    return words.choose(mask_files(key, sources, words.read_name))


def _is_by_name(paired: Mapping[str, tuple[str, ...]], words: Vocabulary) -> bool:
    """Look whether any file is called by an object of the corpus."""
    return any(
        file.object in words.objects
        for key, sources in paired.items()
        for file in mask_files(key, sources, words.read_name)
    )


def _used(
    folder: Path, paired: Mapping[str, tuple[str, ...]], words: Vocabulary
) -> dict[str, tuple[str, ...]]:
    """List the files that may show an object of the corpus; an image may be left with none.

    Raises
    ------
    DataError
        No name of an object is one of the corpus's, or nothing says what a file shows.
    """
    used = {}
    possible: set[str] = set()
    for key, sources in paired.items():
        files = _files(key, sources, words)
        for file in files:
            if words.is_mute(file):
                raise _mute(folder, file, words)
            possible |= words.possible(file)
        if not files:
            names = (file.object for file in mask_files(key, sources, words.read_name))
            possible.update(name for name in names if name)
        used[key] = tuple(file.source for file in files)
    if not possible & words.objects:
        raise _no_known_object(folder, possible, words)
    return used


def _mute(folder: Path, file: MaskFile, words: Vocabulary) -> DataError:
    return DataError(
        f"Nothing says what {_shown(file.source)} in {folder} shows, as the corpus has several "
        f"objects: {some(sorted(words.objects))}. Name its values by --labels FILE.json, or "
        "name the files IMAGE_OBJECT."
    )


def _no_known_object(folder: Path, predicted: Iterable[str], words: Vocabulary) -> DataError:
    return DataError(
        f"No object in {folder} is one of the corpus's. Predicted are "
        f"{some(sorted(predicted))}; the corpus has {some(sorted(words.objects))}. "
        "Give its names to the values by --labels FILE.json, or to the files."
    )


def _checked(folder: Path, shelf: _Shelf) -> _Shelf:
    """Look into files until one shows an object of the corpus; empty and damaged ones may be.

    Raises
    ------
    DataError
        All that there is are other objects.
    """
    names: set[str] = set()
    unknown: set[int] = set()
    errors: list[DataError] = []
    for key in shelf.sources:
        try:
            layers = [layer for _, layer in shelf.read(key) if isinstance(layer, Layer)]
        except DataError as error:
            errors.append(error)  # reported when its image is scored
            continue
        shown = {entry.object for layer in layers for entry in layer.entries}
        if shown & shelf.words.objects:
            return shelf
        names |= shown
        unknown.update(value for layer in layers for value in layer.unknown)
    if len(errors) > 1 and len(errors) == len(shelf.sources):
        raise DataError(f"No prediction in {folder} can be used. The first: {errors[0]}")
    if not names and not unknown:
        return shelf
    if not names and (words := shelf.words.as_binary(unknown)) is not None:
        return _Shelf(shelf.root, shelf.sources, words)
    values = {f"value {value}" for value in islice(sorted(unknown), MOST_SHOWN)}
    raise _no_known_object(folder, names | values, shelf.words)


def _hash(shelf: _Shelf, table: Path | None, settings: Mapping[str, float | None]) -> str:
    """Hash all files used, whatever the folder is called, and how they are read."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    used = sorted(source for sources in shelf.sources.values() for source in sources)
    listed = [(_shown(source), shelf.root / source) for source in used]
    for name, path in [*listed, *([("table of labels", table)] if table else [])]:
        try:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"{name} cannot be read ({error.strerror}).") from error
        digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()


def _on(layer: Layer | DataError, sample: Sample) -> Labels:
    """Give what a file holds on the pixels of an image; raises DataError where it holds nothing."""
    if isinstance(layer, DataError):
        raise layer
    try:
        return layer.on(sample)
    except DataError as error:
        raise _of_file(layer.source, error) from error


def _of_file(source: str, why: DataError | str) -> DataError:
    """Say on one line what is wrong with a file."""
    return DataError(f"{_shown(source)}: {' '.join(str(why).split())}")


def _shown(source: str) -> str:
    """Give the path of a file below the folder of masks."""
    return printable(source.partition("/")[2])
