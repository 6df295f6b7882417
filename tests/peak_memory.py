"""Measure what curating a volume needs beyond the libraries: `python peak_memory.py FOLDER OUT`.

Prints the bytes by which the peak of resident memory rose after everything was imported.
"""

import sys
from pathlib import Path

import nibabel  # noqa: F401 - imported before the base line is taken
import scipy.ndimage  # noqa: F401
import SimpleITK  # noqa: F401

from promptseg.curation import Curation, curate
from promptseg.memory import peak_bytes
from promptseg.reader.intensity import intensity_rule


def main(folder: str, out: str, warm: str) -> None:
    """Curate a small folder first, so that all is imported."""
    rule = intensity_rule("percentile:1-99")
    for source, name in ((warm, "warm"), (folder, "cold")):
        before = peak_bytes()
        settings = Curation(modality="CT", dataset="d", intensity=rule)
        for _ in curate(Path(source), Path(out) / name, settings):
            pass
    print(peak_bytes() - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
