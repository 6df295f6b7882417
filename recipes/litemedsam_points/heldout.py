"""Groups B and C: what litemedsam-points is tested on, and patients to leave out one by one."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from prepare import SOFT_TISSUE_HU, Stack, btcv, chosen, medscribble
from source import CC_BY, EACH_IMAGE, Labels, Source, covid, volumes

from promptseg.curation import Curation

RESEARCH = "research only"


def by_patient() -> Iterator[Source]:
    """List the sets of C, whose names of files tell the patient; all but one are held out, too."""
    sets: tuple[tuple[str, str, str, str, Curation, Labels], ...] = (
        (
            "heart",
            "BC",
            "paper_22_heart_mr",
            "Heart_([0-9]+)_",
            Curation(modality="Cine-MRI", licence=RESEARCH),
            {"left ventricle": 85, "left ventricular myocardium": 170, "right ventricle": 255},
        ),
        (
            "pancreas",
            "BC",
            "paper_6_pancreas_ct",
            "Pancreas_([0-9]+)_",
            Curation(modality="CT", object_name="pancreas", licence="unknown; CC-BY-SA-4.0?"),
            {},
        ),
        (
            "prostate",
            "BC",
            "prostate_mr",
            r"([A-Z0-9]+)_[0-9]+\.png",
            Curation(modality="T2W MRI", licence=RESEARCH),
            {"prostate": [254, 255]},
        ),
        (
            "ultrasound_busi",
            "BC",
            "busi_us",
            EACH_IMAGE,
            Curation(modality="Ultrasound", object_name="breast lesion", licence="unclear"),
            {},
        ),
        (
            "ultrasound_hc18",
            "AC",
            "hc18_us",
            "images/([0-9]+)_",
            Curation(modality="Ultrasound", object_name="fetal head", licence=CC_BY),
            {},
        ),
    )
    for name, groups, folder, pattern, settings, labels in sets:
        settings = replace(settings, subject_pattern=pattern)
        yield Source(name=name, groups=groups, folder=folder, settings=settings, labels=labels)
    yield Source(
        name="ct_organs",
        groups="BC",
        folder="btcv_ct_npz",
        settings=Curation(
            modality="CT", subject_pattern="(ABD_[0-9]+)_", licence="CC-BY-4.0, after registration"
        ),
        prepare=btcv,
    )


def held_out() -> Iterator[Source]:
    """List sets for tests alone: their terms are for research, or not plain."""
    sets: tuple[tuple[str, str, Curation, Labels], ...] = (
        (
            "polyp_kvasir",
            "kvasir_seg_endoscopy",
            Curation(modality="Colonoscopy", object_name="polyp"),
            {},
        ),
        (
            "lesion_ph2",
            "ph2_dermoscopy",
            Curation(modality="Dermoscopy"),
            {},
        ),
        (
            "glands_glas",
            "glas_histology",
            Curation(modality="Histology", object_name="gland", instances=True),
            {},
        ),
        (
            "nuclei_monuseg",
            "monuseg_histology",
            Curation(modality="Histology", object_name="nucleus"),
            {},
        ),
        (
            "blood_wbc",
            "wbc_blood_smear",
            Curation(modality="Microscopy", licence="GPL-3.0"),
            {"cell": [128, 255], "nucleus": 255},
        ),
        (
            "lungs_cxr",
            "cxr_lung_small",
            Curation(modality="X-ray", object_name="lungs"),
            {},
        ),
    )
    for name, folder, settings, labels in sets:
        settings = replace(
            settings, subject_pattern=EACH_IMAGE, licence=settings.licence or RESEARCH
        )
        yield Source(name=name, groups="B", folder=folder, settings=settings, labels=labels)
    yield covid(
        "B",
        "CC-BY-NC-SA",
        (
            "pneumococcal-pneumonia-day35",
            "pneumocystis-jiroveci-pneumonia-2",
            "pneumocystis-pneumonia-12",
            "pneumocystis-pneumonia-2-PA",
            "pneumocystis-pneumonia-8",
        ),
    )
    yield Source(
        name="amos",
        groups="B",
        folder="sammed2d_demo_ct",
        settings=Curation(modality="CT", subject_pattern="(amos_[0-9]+)_", licence=RESEARCH),
        prepare=partial(chosen, images="images/amos_0004*.png", masks={"masks/{}_*.png": "*"}),
    )
    for source, shown, modality in (
        ("CHAOS", "liver", "CT"),
        ("CAMUS", "left ventricle", "Ultrasound"),
        ("PanDental", "mandible", "X-ray"),
    ):
        yield Source(
            name=f"medscribble_{source.lower()}",
            groups="B",
            folder="medscribble_npy",
            settings=Curation(modality=modality, subject_pattern=EACH_IMAGE, licence=RESEARCH),
            prepare=partial(medscribble, source=source, shown=shown),
        )
    yield from _held_out_volumes()


def _held_out_volumes() -> Iterator[Source]:
    brain = volumes(
        "glioma_brats",
        "B",
        "brats2015_mr_nifti",
        Curation(modality="FLAIR MRI", licence="CC-BY-NC-SA-3.0"),
        Stack(
            name="pat0006",
            image="images/pat0006_Flair_subtrMeanDivStd.nii.gz",
            masks={"": "masks/pat0006_OTMultiClass.nii.gz"},
            plane="axial",
            n_slices=8,
        ),
    )
    glioma: Labels = {"whole tumour": [1, 2, 3, 4], "tumour core": [1, 3, 4], "enhancing tumour": 4}
    yield replace(brain, labels=glioma)
    yield volumes(
        "spleen_msd",
        "B",
        "msd_spleen_ct_nifti",
        Curation(modality="CT", licence="CC-BY-SA-4.0"),
        Stack(
            name="spleen2",
            image="images/sub-spleen2_ct.nii.gz",
            masks={"spleen": "masks/sub-spleen2_ct_seg-manual.nii.gz"},
            plane="axial",
            n_slices=8,
            window=SOFT_TISSUE_HU,
        ),
    )


def biomedparse() -> Iterator[Source]:
    """List the demo subset of BiomedParseData, by modality as its file names tell it."""
    for kind, modality in (
        ("CT", "CT"),
        ("MRI", "MRI"),
        ("MRI-FLAIR", "FLAIR MRI"),
        ("X-Ray", "X-ray"),
        ("pathology", "Histology"),
        ("ultrasound", "Ultrasound"),
        ("fundus", "Fundus"),
        ("endoscope", "Colonoscopy"),
    ):
        yield Source(
            name=f"biomedparse_{kind.lower()}",
            groups="B",
            folder="biomedparse_demo_multimodal",
            settings=Curation(
                modality=modality, subject_pattern=EACH_IMAGE, licence="CC-BY-NC-SA-4.0"
            ),
            prepare=partial(chosen, images=f"images/*_{kind}_*.png", masks={"masks/{}_*.png": "*"}),
        )
