"""Where the time of a curation goes, stage by stage, in one process that does everything.

The functions of each stage are wrapped; the CPU time that one takes is counted without that of
those that it calls. What is imported at first use counts for the stage that uses it.

python benchmarks/curation_stages.py FOLDER [--pictures]
"""

import argparse
import inspect
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

STAGES = {
    "listing and planning": (
        *("curation:listed", "curation:plan_of", "curation:_identity"),
        "curation:write_croissant",
    ),
    "reading and decoding": (
        *("reader.frames:read_volume", "reader.frame_labels:read_label_volumes"),
        *("reader.frame_labels:read_mask", "reader.frame:only_page", "reader.frames:open_pages"),
    ),
    "naming of labels": ("reader.frames:read_labels", "reader.frame:read_labels"),
    "cutting and intensity": ("reader.frames:frames_of_volume", "reader.frames:frame_of_picture"),
    "masks": ("curation.pieces:targets_in",),
    "run lengths, boxes, areas": ("curation.pieces:target_row",),
    "PNG": ("curation.pieces:encode_image",),
    "looks for duplicates": ("curation.pieces:look_of", "curation:split"),
    "facts and hashes": ("curation.pieces:_image_row",),
    "Parquet": ("corpus_writer:CorpusWriter.flush", "corpus_writer:CorpusWriter.finish"),
}


class Stopwatch:
    """Adds up the CPU time of stages, each without that of the stages within it."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self._within: list[str] = []
        self._since = time.process_time()

    @contextmanager
    def watch(self, stage: str) -> Iterator[None]:
        """Count a block for a stage."""
        self._turn()
        self._within.append(stage)
        try:
            yield
        finally:
            self._turn()
            self._within.pop()

    def _turn(self) -> None:
        now = time.process_time()
        if self._within:
            self.spent[self._within[-1]] += now - self._since  # type: ignore[assignment]
        self._since = now

    def watched(self, work: Callable[..., Any], stage: str) -> Callable[..., Any]:
        """Wrap a function, or what its generator does."""

        @wraps(work)
        def plain(*given: Any, **named: Any) -> Any:
            with self.watch(stage):
                return work(*given, **named)

        @wraps(work)
        def stepwise(*given: Any, **named: Any) -> Iterator[Any]:
            steps = work(*given, **named)
            while True:
                with self.watch(stage):
                    try:
                        item = next(steps)
                    except StopIteration:
                        return
                yield item

        return stepwise if inspect.isgeneratorfunction(work) else plain


def wrap_all(watch: Stopwatch) -> None:
    """Put the stopwatch around the functions of all stages."""
    for stage, names in STAGES.items():
        for name in names:
            module, _, path = name.partition(":")
            holder: Any = import_module(f"promptseg.{module}")
            *outer, last = path.split(".")
            for part in outer:
                holder = getattr(holder, part)
            setattr(holder, last, watch.watched(getattr(holder, last), stage))


def main() -> None:
    """Curate a folder, and print a line per stage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", action="store_true", help="masks number the instances")
    given = parser.parse_args()
    from promptseg.curation import Curation, curate

    watch = Stopwatch()
    imports = time.process_time()
    wrap_all(watch)
    settings = Curation(
        modality="CT",
        object_name="cell" if given.pictures else None,
        instances=given.pictures,
    )
    with tempfile.TemporaryDirectory() as name, watch.watch("all else"):
        steps = curate(given.folder, Path(name) / "corpus", settings)
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                n_images = stop.value.n_images
                break
    total = sum(watch.spent.values())
    print("| stage of ours | CPU s | share | ms an image |")
    print("|---|---|---|---|")
    for stage, spent in watch.spent.most_common():
        print(f"| {stage} | {spent:.2f} | {spent / total:.1%} | {1e3 * spent / n_images:.2f} |")
    print(f"\n{n_images} images, {total:.2f} s of CPU time after {imports:.2f} s of imports.")


if __name__ == "__main__":
    main()
