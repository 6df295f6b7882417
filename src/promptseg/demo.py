"""The demo: the main job on real images that packages carry, from nothing.

Brain: the MNI152 T1 template with its grey- and white-matter probability maps (Fonov et al. 2011,
doi:10.1016/j.neuroimage.2010.07.033), carried by nilearn. Nuclei: a fluorescence image with
instance masks, carried by StarDist (Schmidt et al. 2018, doi:10.1007/978-3-030-00934-2_30).
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.errors import DataError
from promptseg.weights import WheelFile, fetch_all

if TYPE_CHECKING:
    from jaxtyping import UInt8

    from promptseg.corpus import Corpus
    from promptseg.curation import Curation

MODELS_SHOWN = ("litemedsam-points", "litemedsam")
SHOWN = ("point1", "points5", "points5+5", "box")
MNI152 = "nilearn/datasets/data/mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
BRAIN = {
    name: WheelFile("nilearn==0.14.1", MNI152.format(name), sha256)
    for name, sha256 in (
        ("t1", "421a10e872fd6cadae7f61d358dffbcc1795a497d61ee76c5dda2503e1a1e9e6"),
        ("gm", "97a5ca69bd24db37a9cb7b32525e1733a209af904129bf1cd36da06d24243bed"),
        ("wm", "382d92812de4744f9c86c7a0e4f680dc317a0a50e4da1f0153618a6798c7b7db"),
    )
}
# one platform's wheel on every machine, so that one hash holds: only its pictures are used
LINUX = (
    "--platform=manylinux_2_28_x86_64", "--python-version=3.11", "--implementation=cp",
    "--abi=cp311",
)  # fmt: skip
NUCLEI = {
    name: WheelFile("stardist==0.9.2", f"stardist/data/images/{name}.tif", sha256, LINUX)
    for name, sha256 in (
        ("img2d", "f9ccc1571b92c861ff87e28463068b43f61bd47357ed0503f711e5cd1eb97750"),
        ("mask2d", "59ad5e820b7982ca9d13e946fa6e7f64e2714899e00a2ae6c69aa79aad53d46f"),
    )
}
# of each plane: its axis in the template, and the slices shown
PLANES = {
    "sagittal": (0, range(44, 164, 16)),
    "coronal": (1, range(44, 204, 20)),
    "axial": (2, range(40, 152, 14)),
}


@dataclass(frozen=True, slots=True)
class Part:
    """One data set of the demo, and how it is curated."""

    name: str
    settings: "Curation"


def parts() -> list[Part]:
    """Describe the two data sets."""
    from promptseg.curation import Curation

    brain = Curation(
        dataset="mni152",
        modality="T1W MRI",
        subject_pattern="mni152",
        threshold=127,
        licence="ICBM, free to use, copy and distribute with its copyright notice",
    )
    nuclei = Curation(
        dataset="stardist-nuclei",
        modality="Microscopy",
        object_name="nucleus",
        instances=True,
        licence="CC0 (BBBC038, Data Science Bowl 2018)",
    )
    return [Part("brain", brain), Part("nuclei", nuclei)]


def run_demo(out: Path, *, device: str) -> int:
    """Fetch, curate, evaluate and report; return the exit code of the evaluation."""
    from promptseg.models import load_model
    from promptseg.plan import Plan
    from promptseg.record import start_run
    from promptseg.report import write_report
    from promptseg.run import describe_run
    from promptseg.strategy import STRATEGIES
    from promptseg.terminal import err, run_plan, show_outcome

    err.print("Fetching the weights and the sample images, unless they are here already ...")
    models = {name: load_model(name, device=device) for name in MODELS_SHOWN}
    folders, codes = [], []
    plan = Plan(tuple(STRATEGIES[name] for name in SHOWN), unit="instance")
    for part, corpus in zip(parts(), demo_corpora(out), strict=True):
        run = describe_run(corpus, models, plan, device=device)
        folders.append(start_run(out / f"{part.name}.run", run))
        run_plan(corpus, models, plan, folders[-1])
        codes.append(show_outcome(folders[-1]))
    report = write_report(folders, out / "report.html")
    err.print(f"\nThe report, for any browser: {report.resolve()}", soft_wrap=True)
    return max(codes)


def demo_corpora(out: Path) -> "list[Corpus]":
    """Fetch and curate the demo's data sets, unless they are there: brain, then nuclei."""
    fetch_raw(out / "raw")
    return [_corpus(out, part) for part in parts()]


def _corpus(out: Path, part: Part) -> "Corpus":
    from promptseg.corpus import open_corpus
    from promptseg.curation import curate
    from promptseg.terminal import follow_curation

    path, begun = out / f"{part.name}.corpus", out / f".{part.name}.begun"
    if not path.exists():
        shutil.rmtree(begun, ignore_errors=True)  # of a demo that was stopped
        follow_curation(curate(out / "raw" / part.name, begun, part.settings))
        begun.rename(path)
    return open_corpus(path)


def fetch_raw(raw: Path) -> None:
    """Lay the sample images out as a user would have them: images/ and masks/ per data set."""
    t1, grey, white = fetch_all(list(BRAIN.values()))
    images, masks = _folders(raw / "brain")
    for plane in PLANES:
        _cut(t1, plane, images / f"mni152_{plane}.nii.gz")
        _cut(grey, plane, masks / f"mni152_{plane}_grey matter.nii.gz")
        _cut(white, plane, masks / f"mni152_{plane}_white matter.nii.gz")
    picture, instances = fetch_all(list(NUCLEI.values()))
    images, masks = _folders(raw / "nuclei")
    shutil.copyfile(picture, images / "nuclei.tif")
    shutil.copyfile(instances, masks / "nuclei.tif")


def _folders(folder: Path) -> tuple[Path, Path]:
    images, masks = folder / "images", folder / "masks"
    try:
        images.mkdir(parents=True, exist_ok=True)
        masks.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"Cannot write {folder}: {error.strerror}. Choose another --out."
        ) from error
    return images, masks


def _cut(volume: Path, plane: str, target: Path) -> None:
    """Keep some slices of a volume, as thick ones: curate then cuts across them."""
    import nibabel
    import numpy as np

    axis, kept = PLANES[plane]
    source: Any = nibabel.load(volume)
    voxels: UInt8[np.ndarray, "i j k"] = np.take(np.asarray(source.dataobj), kept, axis=axis)
    affine = source.affine.copy()
    affine[:3, 3] += kept.start * affine[:3, axis]
    affine[:3, axis] *= kept.step
    image = nibabel.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, target)
