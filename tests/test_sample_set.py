"""Each folder of the sample set curates by one command, with all its quirks.

The mapping files are those of `recipes/sample_set`. What is expected was counted in the files
themselves, apart from our readers.
"""

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import polars as pl
import pytest
import SimpleITK as sitk  # noqa: N813
from PIL import Image
from scipy import ndimage

from promptseg import cli
from promptseg.corpus import open_corpus
from promptseg.look import look

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
RECIPES = Path(__file__).parents[1] / "recipes/sample_set"


@dataclass(frozen=True)
class Expected:
    """What a folder holds: images, subjects (None: unknown), and targets by object."""

    images: int
    subjects: int | None
    objects: dict[str, int]
    reasons: dict[str, int] = field(default_factory=dict)  # drops


SMALL, NOTHING = "its area is at most 50 pixels", "no target is left in it"
FOLDERS = [
    ("axon_myelin_sem", Expected(2, 2, {"axon": 2, "myelin": 2})),
    (
        "brats2015_mr_nifti",
        Expected(
            142,
            1,
            {
                "brain": 142,
                "necrosis": 48,
                "oedema": 81,
                "non-enhancing tumour": 48,
                "enhancing tumour": 54,
                "tumour core": 56,
                "whole tumour": 81,
            },
            {SMALL: 30, NOTHING: 13},
        ),
    ),
    (
        "btcv_ct_npz",
        Expected(
            6,
            5,
            {
                "spleen": 2,
                "right kidney": 5,
                "left kidney": 6,
                "gallbladder": 3,
                "liver": 5,
                "stomach": 4,
                "aorta": 6,
                "inferior vena cava": 6,
                "pancreas": 5,
                "portal and splenic vein": 2,
                "right adrenal gland": 2,
                "left adrenal gland": 1,
            },
        ),
    ),
    (
        "busi_us",
        Expected(
            12,
            None,
            {"lesion": 13},
            {
                "the mask is empty": 2,
                NOTHING: 2,
                "its size 555 x 465 is not its image's, 416 x 416": 1,
            },
        ),
    ),
    ("chase_db1_fundus", Expected(5, 5, {"retinal vessels": 10})),
    (
        "covid_cxr_multilabel",
        Expected(
            6,
            None,
            {
                "airways": 6,
                "cardiomediastinum": 6,
                "consolidation": 1,
                "left lung": 6,
                "ground glass opacities": 6,
                "monitoring probes": 2,
                "right lung": 6,
            },
            {SMALL: 1},
        ),
    ),
    ("cxr_lung_small", Expected(4, None, {"lungs": 4})),
    (
        "dicom_ct_seg",
        Expected(
            3,
            1,
            {"Liver": 3, "GREEN": 1, "ORANGE": 1, "PURPLE": 3, "LIGHT_BLUE": 1, "DARK_BLUE": 1},
        ),
    ),
    (
        "dicom_seg_small",
        Expected(
            3,
            1,
            {"first segment": 3},
            {
                SMALL: 8,
                NOTHING: 1,
                "another mask of this image has the same object and instance": 6,
            },
        ),
    ),
    ("drive_fundus", Expected(4, 4, {"retinal vessels": 4})),
    ("dsb2018_nuclei", Expected(12, None, {"nucleus": 187}, {SMALL: 8})),
    ("glas_histology", Expected(6, None, {"gland": 49}, {SMALL: 1})),
    ("hc18_us", Expected(7, 7, {"fetal head": 7})),
    (
        "hc18_us_outline",
        Expected(6, 6, {"fetal head": 6}, {"no mask belongs to it by its name": 1}),
    ),
    ("isbi2012_em_membrane", Expected(5, 1, {"cell interior": 5})),
    ("kvasir_seg_endoscopy", Expected(3, None, {"polyp": 3})),
    (
        "medscribble_npy",
        Expected(
            15,
            15,
            {
                "pelvic organ": 3,
                "liver": 3,
                "femur": 3,
                "mandible": 3,
                "left ventricle": 3,
            },
        ),
    ),
    (
        "mni152_brain_nifti",
        Expected(152, 1, {"grey matter": 152, "white matter": 131}, {SMALL: 18, NOTHING: 37}),
    ),
    ("monuseg_histology", Expected(3, 3, {"nuclei": 3})),
    ("msd_spleen_ct_nifti", Expected(20, 1, {"spleen": 20}, {NOTHING: 6})),
    (
        "paper_22_heart_mr",
        Expected(9, 2, {"left ventricle": 9, "myocardium": 9, "right ventricle": 8}),
    ),
    ("paper_6_pancreas_ct", Expected(11, 5, {"pancreas": 11})),
    ("ph2_dermoscopy", Expected(4, None, {"skin lesion": 4})),
    ("prostate_mr", Expected(7, 6, {"prostate": 7})),
    ("pyradiomics_nrrd", Expected(8, 2, {"tumour": 8}, {SMALL: 2, NOTHING: 38})),
    (
        "spinalcord_mr_nifti",
        Expected(
            64,
            2,
            {
                "spinal cord": 64,
                "grey matter": 6,
                "level 2": 17,
                "level 3": 18,
                "level 4": 14,
                "level 5": 2,
            },
            {SMALL: 6},
        ),
    ),
    (
        "vnc_sstem",
        Expected(
            2,
            1,
            {
                **{f"membrane {angle} degrees": 2 for angle in (0, 45, 90, 135)},
                "membrane junction": 2,
                "glia or extracellular space": 2,
                "mitochondria": 4,
                "synapses": 4,
                "intracellular space": 2,
                "membranes": 2,
            },
        ),
    ),
    ("wbc_blood_smear", Expected(10, None, {"cell": 10, "cytoplasm": 10, "nucleus": 10})),
]


class Curated:
    """A folder of the sample set as a corpus, with what is needed to look into it."""

    def __init__(self, sample_set, out, name, *options):
        self.folder = sample_set / name.removesuffix("_outline")
        words = ["curate", self.folder, "--mapping", RECIPES / f"{name}.toml", "--out", out]
        words += ["--key", out.with_name("key")]
        with pytest.raises(SystemExit) as raised:
            cli.main([str(word) for word in [*words, *options]])
        assert raised.value.code == 0
        self.corpus = open_corpus(out)
        self.images = pl.read_parquet(out / "images" / "*.parquet").drop("image")
        self.targets = pl.read_parquet(out / "targets" / "*.parquet")
        self.drops = pl.read_parquet(out / "drops" / "*.parquet")

    @property
    def samples(self):
        """Give all images by what follows the data set's name in their ids."""
        groups = self.corpus.row_groups()
        samples = (sample for group in groups for sample in self.corpus.read(group))
        return {sample.image_id.partition("/")[2]: sample for sample in samples}

    @property
    def masks(self):
        """Give all masks by (image, object, instance, annotator)."""
        return {
            (key, target.object, target.instance, target.annotator): target.mask
            for key, sample in self.samples.items()
            for target in sample.targets
        }


@pytest.fixture(scope="module")
def curated(sample_set, tmp_path_factory):
    """Curate folders by their names, each once."""
    done = {}

    def get(name, *options):
        if (name, options) not in done:
            out = tmp_path_factory.mktemp("corpora") / "corpus"
            done[name, options] = Curated(sample_set, out, name, *options)
        return done[name, options]

    return get


def values_in(path):
    """Read a picture of a mask as its strongest colour."""
    array = np.asarray(Image.open(path))
    return array[..., :3].max(axis=2) if array.ndim == 3 else array


def test_there_is_a_mapping_file_for_every_folder(sample_set):
    """None of them is left out."""
    folders = {path.name for path in sample_set.iterdir() if path.is_dir()}
    recipes = {path.stem.removesuffix("_outline") for path in RECIPES.glob("*.toml")}

    assert len(folders) == 30
    assert recipes == folders


@pytest.mark.parametrize(("name", "expected"), FOLDERS)
def test_a_folder_curates_by_one_command(curated, name, expected):
    """Images, subjects, objects and what is left out."""
    corpus = curated(name)
    subjects = corpus.images["subject"].drop_nulls().n_unique()
    by_object = dict(corpus.targets["object"].value_counts().iter_rows())

    assert corpus.images.height == expected.images
    assert (subjects or None) == expected.subjects
    assert by_object == expected.objects
    assert dict(corpus.drops["reason"].value_counts().iter_rows()) == expected.reasons
    assert corpus.images["modality"].null_count() == 0


def test_axon_masks_with_soft_edges_are_thresholded(curated):
    """One file holds 0, 130, 233 and 255; greys of its edges are above 127, so all are kept."""
    corpus = curated("axon_myelin_sem")
    path = corpus.folder / "masks/sub-rat2_sample-data5_SEM_seg-axon-manual.png"
    mask = corpus.masks["sub-rat2_sample-data5_SEM", "axon", None, None]

    assert set(np.unique(values_in(path))) == {0, 130, 233, 255}
    assert np.array_equal(mask, values_in(path) > 127)
    assert set(corpus.images["subject"]) == {"rat2", "rat3"}


def test_biomedparse_has_eight_modalities_and_names_with_spaces(curated):
    """The object is in the mask's name; alpha is 255 everywhere; objects overlap."""
    corpus = curated("biomedparse_demo_multimodal")
    masks = corpus.masks
    kidneys = [
        masks["06_CT_abdomen", f"{side}kidney", None, None] for side in ("", "left ", "right ")
    ]
    by_modality = dict(corpus.images["modality"].value_counts().iter_rows())

    assert (corpus.images.height, corpus.targets.height, corpus.drops.height) == (19, 45, 0)
    assert by_modality == {
        "CT": 6,
        "MRI": 4,
        "FLAIR MRI": 1,
        "X-ray": 2,
        "Histopathology": 2,
        "US": 2,
        "Fundus": 1,
        "Colonoscopy": 1,
    }
    assert corpus.targets["object"].n_unique() == 42
    assert not corpus.targets["object"].str.contains(r"\+").any()
    assert np.array_equal(kidneys[0], kidneys[1] | kidneys[2])
    assert all(mask.mean() < 0.5 for mask in masks.values())


def test_brats_regions_share_values_and_a_brain_of_almost_1_is_one(curated):
    """Whole tumour is 1 to 4; the brain mask holds 0.99999997; intensities are negative."""
    corpus = curated("brats2015_mr_nifti")
    labels = nib.load(corpus.folder / "masks/pat0006_OTMultiClass.nii.gz").get_fdata()
    brain = nib.load(corpus.folder / "masks/pat0006_brainmask.nii.gz").get_fdata()
    areas = dict(corpus.targets.group_by("object").agg(pl.col("area_px").sum()).iter_rows())
    lost = dict(corpus.drops.group_by("object").agg(pl.col("area_px").sum()).iter_rows())
    of = {"whole tumour": (1, 2, 3, 4), "tumour core": (1, 3, 4), "necrosis": (1,), "oedema": (2,)}

    assert brain.max() < 1
    for name, values in of.items():
        assert areas[name] + lost.get(name, 0) == np.isin(labels, values).sum()
    assert areas["brain"] + lost.get("brain", 0) == (brain > 0.5).sum()
    assert corpus.images["intensity_lo"].max() < -3
    assert corpus.images["spacing_y_mm"].unique().to_list() == [1.0]


def test_btcv_rows_are_the_thirteen_organs(curated):
    """SciPy's own reader gives the same masks; organs that are not in the slice are no targets."""
    from scipy import sparse

    corpus = curated("btcv_ct_npz")
    masks = corpus.masks
    n_filled = 0
    organs = {1: "right kidney", 2: "left kidney", 5: "liver", 6: "stomach", 7: "aorta"}
    for path in sorted((corpus.folder / "masks").iterdir()):
        rows = sparse.load_npz(path).toarray().reshape(13, 512, 512)
        n_filled += int(rows.any(axis=(1, 2)).sum())
        key = path.name.removeprefix("x___").partition(".")[0]
        for index, name in organs.items():
            mask = masks.get((key, name, None, None), np.zeros((512, 512), bool))
            assert np.array_equal(mask, rows[index] > 0)

    assert len(masks) == n_filled == 47


def test_busi_normal_cases_stay_when_asked_and_two_lesions_are_two_instances(curated):
    """`benign (25)` has two files; one of `benign (4)` has another size; normal masks are empty."""
    corpus = curated("busi_us", "--keep-empty")
    instances = [key[2] for key in corpus.masks if key[0] == "benign (25)"]
    (drop,) = corpus.drops.filter(pl.col("reason").str.starts_with("its size")).to_dicts()

    assert corpus.images.height == 14
    assert sorted(k for k, s in corpus.samples.items() if not s.targets) == [
        "normal (1)",
        "normal (2)",
    ]
    assert sorted(instances) == [0, 1]
    assert drop["source"] == "masks/benign (4)_mask_1.png"
    assert ("benign (4)", "lesion", 0, None) in corpus.masks


def test_chase_has_two_annotators(curated):
    """Both are kept apart, as targets of one object."""
    corpus = curated("chase_db1_fundus")
    first, second = (
        corpus.masks["Image_01L", "retinal vessels", None, f"{n}HO"] for n in ("1st", "2nd")
    )

    assert dict(corpus.targets["annotator"].value_counts().iter_rows()) == {"1stHO": 5, "2ndHO": 5}
    assert not np.array_equal(first, second)
    assert (first & second).sum() > 0.6 * first.sum()


def test_covid_masks_lie_where_the_table_says(curated):
    """Every mask has the box that the table promises; the lungs lie on their sides."""
    corpus = curated("covid_cxr_multilabel")
    boxes = {
        (t["image_id"].partition("/")[2], t["object"]): t["box"] for t in corpus.targets.to_dicts()
    }
    with (corpus.folder / "structure_subset.csv").open() as file:
        rows = list(csv.DictReader(file))

    assert len(rows) == len(boxes) + 1  # a probe of 2 x 3 pixels is too small
    for row in rows:
        key = Path(row["Filename"]).stem, row["Template Name"].lower()
        top, left = int(row["Top"]), int(row["Left"])
        if key in boxes:
            x0, y0, x1, y1 = boxes[key]
            assert left <= x0 <= left + 3
            assert top <= y0 <= top + 3
            assert left + int(row["Width"]) - 3 <= x1 <= left + int(row["Width"])
            assert top + int(row["Height"]) - 3 <= y1 <= top + int(row["Height"])
    for key in {image for image, _ in boxes}:
        assert boxes[key, "right lung"][0] < boxes[key, "left lung"][0]


def test_cxr_masks_have_a_suffix(curated):
    """`1-mask.png` is the mask of `1.jpg`."""
    corpus = curated("cxr_lung_small")

    assert np.array_equal(
        corpus.masks["1", "lungs", None, None], values_in(corpus.folder / "masks/1-mask.png") > 0
    )


def test_dicom_segments_lie_on_their_slices(curated):
    """The liver of the SEG has the pixels of the liver in the NRRD label map."""
    corpus = curated("dicom_ct_seg")
    path = corpus.folder / "masks_nrrd/liver_seg.nrrd"
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(path))) == 1
    livers = {key[0][-4:]: mask for key, mask in corpus.masks.items() if key[1] == "Liver"}

    assert sorted(livers) == ["0000", "0001", "0002"]
    for number, mask in livers.items():
        assert np.array_equal(mask, expected[int(number)])
    assert set(corpus.images["subject_source"]) == {"header"}
    assert not corpus.images["source"].str.contains("ct_0|images").any()


def test_small_dicom_segments_are_there(curated):
    """Binary, overlapping and fractional segmentations of one tiny series."""
    corpus = curated("dicom_seg_small", "--min-area", "0")
    areas = corpus.targets.group_by("object").agg(pl.col("area_px").sort())

    assert dict(areas.iter_rows()) == {
        "first segment": [16, 127, 255, 256],
        "second segment": [4, 4, 4, 4],
    }


def test_drive_gif_masks_need_their_palette_and_the_field_of_view_is_none(curated):
    """Vessels cover about a tenth; files in `fov/` are no masks and no drops."""
    corpus = curated("drive_fundus")
    share = {key[0]: mask.mean() for key, mask in corpus.masks.items()}

    assert set(share) == {"21", "24", "27", "32"}
    assert all(0.05 < value < 0.15 for value in share.values())
    assert corpus.drops.height == 0


def test_dsb_has_a_file_for_every_nucleus(curated):
    """195 files: 187 nuclei of more than 50 pixels, the other 8 are listed."""
    corpus = curated("dsb2018_nuclei")
    everything = curated("dsb2018_nuclei", "--min-area", "0")
    n_files = sum(1 for path in (corpus.folder / "masks").rglob("*.png"))
    per_image = everything.targets["image_id"].value_counts()["count"]

    assert n_files == everything.targets.height == corpus.targets.height + 8 == 195
    assert (per_image.min(), per_image.max()) == (7, 24)


def test_glas_values_number_the_glands(curated):
    """1 to 16, which look black; each is an instance, of which one is tiny."""
    corpus = curated("glas_histology")
    values = values_in(corpus.folder / "masks/train_12.png")

    assert np.array_equal(corpus.masks["train_12", "gland", 16, None], values == 16)
    assert corpus.targets["instance"].max() == 16


def test_hc18_outlines_enclose_the_filled_masks(curated):
    """The thin line covers under 1 %; filled it is the head that others have filled."""
    filled, lines = curated("hc18_us"), curated("hc18_us_outline")
    shares = {}
    for key, head in lines.masks.items():
        other = filled.masks[key]
        shares[key[0]] = (head & other).sum() / (head | other).sum()
        line = values_in(lines.folder / f"masks_outline/{key[0]}_Annotation.png")
        assert (line > 0).mean() < 0.01

    assert len(shares) == 6
    assert min(shares.values()) > 0.95
    assert lines.drops["source"].to_list() == ["images/000_HC.png"]


def test_isbi_foreground_is_the_interior_of_cells(curated):
    """Most of the picture, touching every border, in many pieces."""
    corpus = curated("isbi2012_em_membrane")
    mask = corpus.masks["0", "cell interior", None, None]

    assert mask.mean() > 0.7
    assert all(edge.any() for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
    assert ndimage.label(mask)[1] > 50


def test_kvasir_jpeg_masks_are_thresholded(curated):
    """Ringing of JPEG gives 16 values; what lies in the middle is nothing."""
    corpus = curated("kvasir_seg_endoscopy")
    for (key, *_), mask in corpus.masks.items():
        values = values_in(corpus.folder / f"masks/{key}.jpg")
        assert len(np.unique(values)) >= 16
        assert np.array_equal(mask, values > 127)


def test_medscribble_masks_are_soft(curated):
    """Values between 0 and 1 are cut at 0.5; objects and modalities are told by names."""
    corpus = curated("medscribble_npy")
    key = "PanDental__15_axis0_midslice"
    soft = np.load(corpus.folder / f"masks/{key}.npy")

    assert len(np.unique(soft)) > 1000
    assert np.array_equal(corpus.masks[key, "mandible", None, None], soft > 0.5)
    assert set(corpus.images["modality"]) == {"CT", "X-ray", "US"}


def test_mni_probabilities_are_thresholded(curated):
    """Values of 0 to 255 are shares of tissue, not labels."""
    corpus = curated("mni152_brain_nifti")
    for short, name in (("gm", "grey matter"), ("wm", "white matter")):
        path = corpus.folder / f"masks/mni_icbm152_{short}_tal_nlin_sym_09a_converted.nii.gz"
        stored = np.asanyarray(nib.load(path).dataobj)
        of_object = pl.col("object") == name
        kept = corpus.targets.filter(of_object)["area_px"].sum()
        lost = corpus.drops.filter(of_object)["area_px"].sum()
        assert len(np.unique(stored)) == 256
        assert kept + lost == (stored > 127).sum()


def test_monuseg_suffixes_differ_and_nuclei_are_many(curated):
    """A TIFF image with a PNG mask; one mask holds hundreds of nuclei."""
    corpus = curated("monuseg_histology")
    mask = corpus.masks["TCGA-2Z-A9J9-01A-01-TS1", "nuclei", None, None]

    assert "images/TCGA-2Z-A9J9-01A-01-TS1.tif" in corpus.images["source"].to_list()
    assert ndimage.label(mask)[1] > 100


def test_spleen_slices_keep_their_spacing(curated):
    """0.79 mm pixels, 5 mm slices; 6 of 26 slices show no spleen."""
    corpus = curated("msd_spleen_ct_nifti")
    image = corpus.images.row(0, named=True)

    assert (round(image["spacing_y_mm"], 2), image["spacing_slice_mm"]) == (0.79, 5.0)
    assert corpus.targets["area_px"].sum() == 96672
    assert image["plane"] == "axial"


def test_heart_greys_stand_for_classes(curated):
    """85, 170 and 255; the right ventricle is missing in one image."""
    corpus = curated("paper_22_heart_mr")
    without = {key[0] for key in corpus.masks} - {
        key[0] for key in corpus.masks if key[1] == "right ventricle"
    }
    values = values_in(corpus.folder / "masks/22_Heart_2_8.png")

    assert without == {"22_Heart_4_2"}
    assert np.array_equal(corpus.masks["22_Heart_2_8", "myocardium", None, None], values == 170)


def test_pancreas_masks_are_binary_and_patients_are_five(curated):
    """Only 0 and 255 occur, whatever the suffix means."""
    corpus = curated("paper_6_pancreas_ct")

    assert set(corpus.images["subject"]) == {"13", "15", "17", "18", "21"}
    assert all(
        set(np.unique(values_in(path))) == {0, 255} for path in (corpus.folder / "masks").iterdir()
    )


def test_ph2_masks_of_two_modes_are_alike(curated):
    """Three are 1-bit, one is in RGB."""
    corpus = curated("ph2_dermoscopy")
    modes = set()
    for (key, *_), mask in corpus.masks.items():
        path = corpus.folder / f"masks/{key}_lesion.bmp"
        with Image.open(path) as image:
            modes.add(image.mode)
        assert np.array_equal(mask, values_in(path) > 0)

    assert modes == {"1", "RGB"}


def test_prostate_zones_of_254_and_255_are_one_gland(curated):
    """Three files hold 254, one of them alone; none of its pixels is lost."""
    corpus = curated("prostate_mr")
    held = {}
    for (key, *_), mask in corpus.masks.items():
        values = values_in(corpus.folder / f"masks/{key}.png")
        held[key] = set(np.unique(values)) - {0}
        assert np.array_equal(mask, values > 0)

    assert held["RUNMC03_16"] == {254}
    assert sum(254 in values for values in held.values()) == 3
    assert corpus.images["subject"].n_unique() == 6


def test_prostate_zones_can_be_kept_apart(sample_set, tmp_path):
    """Values that differ by 1 are two labels, which no threshold merges."""
    (tmp_path / "labels.json").write_text(json.dumps({"254": "zone A", "255": "zone B"}))
    words = ["curate", sample_set / "prostate_mr", "--modality", "MRI"]
    words += ["--labels", tmp_path / "labels.json", "--out", tmp_path / "corpus"]
    with pytest.raises(SystemExit) as raised:
        cli.main([str(word) for word in words])
    targets = pl.read_parquet(tmp_path / "corpus/targets/*.parquet")

    assert raised.value.code == 0
    assert dict(targets["object"].value_counts().iter_rows()) == {"zone A": 3, "zone B": 6}


def test_pyradiomics_volumes_have_very_flat_voxels(curated):
    """Axes are x, y, z in the file; labels are 32-bit integers of 1."""
    corpus = curated("pyradiomics_nrrd")
    path = corpus.folder / "masks/brain1_label.nrrd"
    areas = (sitk.GetArrayFromImage(sitk.ReadImage(str(path))) == 1).sum(axis=(1, 2))
    brain = corpus.targets.filter(pl.col("image_id").str.contains("brain1"))

    assert brain["area_px"].to_list() == areas[areas > 0].tolist()
    assert corpus.images["volume_id"].n_unique() == 2
    assert set(corpus.images["spacing_slice_mm"].round(1)) == {6.5, 2.1}


def test_sam_med2d_names_hold_underscores_and_one_image_has_no_mask(curated):
    """`s0114_111_rib_left_9_000.png` is the left rib 9, instance 0, of `s0114_111`."""
    corpus = curated("sammed2d_demo_ct")

    assert (corpus.images.height, corpus.targets.height) == (2, 18)
    assert corpus.targets["object"].n_unique() == 17
    assert ("s0114_111", "rib left 9", 0, None) in corpus.masks
    assert corpus.drops.select("source", "reason").rows() == [
        ("images/amos_0507_31.png", "no mask belongs to it by its name")
    ]
    assert set(corpus.images["subject"]) == {"amos_0004", "s0114"}


def test_pixel_formats_come_in_without_masks(curated):
    """14 pictures in 8 and 16 bits, grey and colour, with and without alpha."""
    corpus = curated("sem_pixel_formats_nomask", "--keep-empty")

    assert (corpus.images.height, corpus.targets.height, corpus.drops.height) == (14, 0, 0)
    shapes = {sample.image.shape for sample in corpus.samples.values()}
    assert shapes == {(256, 256, 3), (266, 278, 3)}


def test_spinal_cord_axes_are_turned_and_levels_are_labels(curated):
    """PSR and LAS come as RAS; labels of float64 are 2 to 5; three masks for two images."""
    corpus = curated("spinalcord_mr_nifti")
    labels = nib.load(corpus.folder / "masks/t2_seg-manual_labeled.nii.gz")
    turned = nib.as_closest_canonical(labels).get_fdata()
    of_level = corpus.targets.filter(pl.col("object") == "level 3")["area_px"].sum()
    lost = corpus.drops.filter(pl.col("object") == "level 3")["area_px"].sum()
    place = corpus.images.filter(pl.col("volume_id").str.ends_with("/t2")).row(0, named=True)

    assert nib.aff2axcodes(labels.affine) == ("P", "S", "R")
    assert of_level + lost == (turned == 3).sum()
    assert (place["plane"], place["n_slices"]) == ("axial", turned.shape[2])
    assert corpus.images["subject"].n_unique() == 2


def test_vnc_names_are_paired_by_number_and_0_is_an_object(curated):
    """`labels00000008.png` is of `08.tif`; nine greys, of which 0 is the membrane."""
    corpus = curated("vnc_sstem")
    values = values_in(corpus.folder / "masks/labels00000008.png")
    masks = corpus.masks
    mitochondria = values_in(corpus.folder / "masks_mitochondria/00.png")

    assert np.array_equal(masks["08", "membrane 0 degrees", None, None], values == 0)
    assert np.array_equal(masks["08", "synapses", None, None], values == 223)
    assert len({key[1] for key in masks if key[0] == "08" and key[3] is None}) == 9
    assert len(np.unique(mitochondria)) == 36
    assert np.array_equal(masks["00", "mitochondria", None, "binary"], mitochondria > 127)


def test_wbc_classes_are_nested(curated):
    """The cell is cytoplasm and nucleus, in very small images."""
    corpus = curated("wbc_blood_smear")
    masks = corpus.masks
    for key in {key[0] for key in masks}:
        cell, cytoplasm, nucleus = (
            masks[key, name, None, None] for name in ("cell", "cytoplasm", "nucleus")
        )
        assert np.array_equal(cell, cytoplasm | nucleus)
        assert not (cytoplasm & nucleus).any()

    assert corpus.images["width"].min() == 112


LOOKS = [
    ("axon_myelin_sem", {"masks/{key}_seg-{object}-manual.png": "soft"}),
    (
        "brats2015_mr_nifti",
        {"masks/{key}_OTMultiClass.nii.gz": "labels", "masks/{key}_brainmask.nii.gz": "binary"},
    ),
    ("btcv_ct_npz", {"masks/x___{key}.(13, 512, 512, 1).npz": "channels"}),
    ("busi_us", {"masks/{key}_mask.png, masks/{key}_mask_{instance}.png": "binary"}),
    ("chase_db1_fundus", {"masks/{key}_{annotator}.png": "binary"}),
    ("covid_cxr_multilabel", {"masks/{key}/{object}__*.png": "cropped"}),
    ("dsb2018_nuclei", {"masks/{key}/*.png": "binary"}),
    ("glas_histology", {"masks/{key}.png": "instances"}),
    (
        "hc18_us",
        {"masks/{key}_Annotation.png": "binary", "masks_outline/{key}_Annotation.png": "outline"},
    ),
    ("kvasir_seg_endoscopy", {"masks/{key}.jpg": "soft"}),
    ("prostate_mr", {"masks/{key}.png": "labels"}),
    (
        "vnc_sstem",
        {
            "masks/labels{key:d}.png": "labels",
            "masks_membranes/{key}.png": "binary",
            "masks_mitochondria/{key}.png": "soft",
            "masks_synapses/{key}.png": "binary",
        },
    ),
    ("wbc_blood_smear", {"masks/{key}.png": "labels"}),
]


@pytest.mark.parametrize(("name", "expected"), LOOKS)
def test_a_first_look_takes_masks_for_what_they_are(sample_set, tmp_path, name, expected):
    """Every mask is paired with its image, and every kind is drawn."""
    first = look(sample_set / name, tmp_path)
    n_files = sum(len(list(path.rglob("*.*"))) for path in (sample_set / name).glob("masks*"))

    assert {section.title: section.content.what for section in first.sections} == expected
    assert first.error is None
    assert sum(section.n_masks for section in first.sections) == n_files
    assert all(any(p.layers for p in section.pictures) for section in first.sections)
    assert first.left_out == ()
