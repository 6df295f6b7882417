"""One scan, stored in several formats and orders, is one and the same corpus."""

from functools import partial

import dicom_files as dicom
import numpy as np
import polars as pl
import pytest
import SimpleITK
import volume_phantom as phantom

from promptseg.curation import Curation, curate
from promptseg.errors import DataError
from promptseg.reader.files import read_label_volumes, read_volume

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SUFFIXES = {
    "nifti": ".nii.gz",
    "nifti pair": ".hdr",
    "nrrd": ".nrrd",
    "nrrd, raw": ".nhdr",
    "metaimage": ".mha",
    "metaimage, raw": ".mhd",
}
FACTS = ("image_id", "sha256", "width", "height", "plane", "slice_index", "n_slices")
SPACING = ("spacing_y_mm", "spacing_x_mm", "spacing_slice_mm")


def write(folder, kind, scan, codes):
    """Store image and labels of a scan; labels in the opposite order of storage."""
    for name, voxels in (("images", scan.voxels), ("masks", scan.labels)):
        own = codes if name == "images" else phantom.CODES[::-1][phantom.CODES.index(codes)]
        path = folder / name / f"s{SUFFIXES[kind]}"
        if kind.startswith("nifti"):
            phantom.write_nifti(path, voxels, scan.affine, own)
        else:
            phantom.write_itk(path, voxels, scan.affine, own, packed="raw" not in kind)
    (folder / "labels.json").write_text('{"liver": 1, "kidney": 2}')


def curated(folder, out, **settings):
    """Curate a folder, and give tables of its images, targets and drops."""
    run = curate(folder, out, Curation(modality="CT", dataset="d", **settings))
    for _ in run:
        pass
    return [pl.read_parquet(out / kind / "*.parquet") for kind in ("images", "targets", "drops")]


@pytest.fixture(scope="module", params=[0.0, 4.0], ids=["straight", "oblique"])
def reference(request, tmp_path_factory):
    """Curate the scan as NIfTI in RAS+ order, along all planes."""
    scan = phantom.scan(request.param)
    folder = tmp_path_factory.mktemp("reference")
    write(folder / "in", "nifti", scan, "RAS")
    return scan, curated(folder / "in", folder / "out", plane="all", min_area_px=10)


@pytest.mark.parametrize("codes", phantom.CODES)
@pytest.mark.parametrize("kind", SUFFIXES)
def test_every_format_and_order_gives_the_same_corpus(reference, tmp_path, kind, codes):
    """Pixels, targets, spacing and affine; labels lie in another order than their image."""
    scan, (images, targets, _) = reference
    plane = "all" if codes in ("LPS", "PSR") else "axial"
    if plane == "axial":
        images = images.filter(plane="axial")
        targets = targets.filter(pl.col("image_id").is_in(images["image_id"]))
    write(tmp_path / "in", kind, scan, codes)
    found, found_targets, drops = curated(
        tmp_path / "in", tmp_path / "out", plane=plane, min_area_px=10
    )

    assert found.select(FACTS).equals(images.select(FACTS))
    assert found_targets.equals(targets)
    assert len(targets) > (50 if plane == "all" else 10)
    for name in SPACING:
        assert found[name].to_list() == pytest.approx(images[name].to_list(), rel=1e-6)
    affine = np.array(found["affine"].to_list()).reshape(-1, 4, 4)
    assert affine == pytest.approx(np.broadcast_to(scan.affine, affine.shape), abs=1e-4)
    assert set(drops["reason"]) <= {"no target is left in it", "its area is at most 10 pixels"}


TAIL = pl.col("image_id").str.extract(r"([a-z]+/\d+)$")
ACQUISITIONS = {
    "axial": ((0, 1, 2), "cr"),
    "axial, feet first": ((0, 1, 2), "crs"),
    "axial, face down": ((0, 1, 2), ""),
    "axial, turned": ((1, 0, 2), "r"),
    "coronal": ((0, 2, 1), "r"),
    "coronal, back first": ((0, 2, 1), "crs"),
    "sagittal": ((1, 2, 0), "cr"),
    "sagittal, from the right": ((1, 2, 0), "s"),
}


@pytest.mark.parametrize("name", ACQUISITIONS)
def test_dicom_in_eight_acquisitions_gives_the_same_corpus(reference, tmp_path, name):
    """A series with a segmentation; only its name is another, and files lie in no order."""
    scan, (images, targets, _) = reference
    slices, moved = dicom.native(scan.voxels, scan.affine, *ACQUISITIONS[name])
    files = dicom.series(slices, moved)
    objects = [scan.labels == value for value in phantom.LABELS.values()]
    drawn = [dicom.native(one, scan.affine, *ACQUISITIONS[name])[0] for one in objects]
    masks = np.stack(drawn, axis=-1).astype(np.uint8)
    places = np.random.default_rng(2).permutation(len(files))
    dicom.save(tmp_path / "in", [files[place] for place in places])
    dicom.save(tmp_path / "in", [dicom.segmentation(files, masks, list(phantom.LABELS))], "seg")
    settings = {"key": dicom.KEY, "names": "keep", "min_area_px": 10, "plane": "all"}
    found, found_targets, drops = curated(tmp_path / "in", tmp_path / "out", **settings)
    order = ["image_id", "object"]
    tables = [t.with_columns(TAIL).sort(order) for t in (found_targets, targets)]
    pair = [t.with_columns(TAIL).sort("image_id") for t in (found, images)]

    assert pair[0].select(FACTS).equals(pair[1].select(FACTS))
    told = ("image_id", "object", "instance", "area_px", "box", "mask")
    assert tables[0].select(told).equals(tables[1].select(told))
    for name in SPACING:
        assert pair[0][name].to_list() == pytest.approx(pair[1][name].to_list(), rel=1e-6)
    affine = np.array(pair[0]["affine"].to_list()).reshape(-1, 4, 4)
    assert affine == pytest.approx(np.broadcast_to(scan.affine, affine.shape), abs=1e-4)
    assert set(drops["reason"]) <= {"no target is left in it", "its area is at most 10 pixels"}


def test_the_reference_is_the_scan(reference):
    """So that all of them are not wrong alike: pixels of an axial slice by their formula."""
    scan, (images, targets, _) = reference
    image = images.row(by_predicate=pl.col("image_id") == "d/s/axial/0004", named=True)
    areas = {t["object"]: t["area_px"] for t in targets.to_dicts() if "axial/0004" in t["image_id"]}

    assert (image["width"], image["height"], image["n_slices"]) == phantom.SHAPE
    assert [image[name] for name in SPACING] == pytest.approx([1.25, 0.75, 3.5], rel=1e-6)
    assert (image["intensity_lo"], image["intensity_hi"]) == (-1000, 1500)
    assert areas == {"liver": (scan.labels[..., 4] == 1).sum(), "kidney": 133}


def test_analyze_gives_the_same_pixels_without_a_place(reference, tmp_path):
    """It stores neither order nor origin: in the order that is assumed, all but that agrees."""
    scan, (images, targets, _) = reference
    for name, voxels in (("images", scan.voxels), ("masks", scan.labels)):
        phantom.write_analyze(tmp_path / f"in/{name}/s.hdr", voxels, phantom.SPACING)
    (tmp_path / "in/labels.json").write_text('{"liver": 1, "kidney": 2}')
    found, found_targets, drops = curated(
        tmp_path / "in", tmp_path / "out", plane="all", min_area_px=10
    )

    assert found.select(FACTS).equals(images.select(FACTS))
    assert found_targets.equals(targets)
    for name in SPACING:
        assert found[name].to_list() == pytest.approx(images[name].to_list(), rel=1e-6)
    assert found["affine"].null_count() == len(found)
    assert not any(source.endswith(".img") for source in drops["source"])


@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".mha", ".mhd"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8", "i8", "u8"])
def test_every_type_of_voxel_is_read_as_stored(tmp_path, suffix, dtype):
    """No value changes, in its own type."""
    voxels = phantom.scan().labels.astype(dtype)
    path = tmp_path / f"a{suffix}"
    phantom.write_itk(path, voxels, phantom.scan().affine)
    volume = read_volume(path)

    assert volume.voxels.dtype == np.dtype(dtype)
    assert np.array_equal(volume.voxels, voxels)


def test_voxels_are_there_when_itk_has_let_go_of_them(tmp_path):
    """The array keeps the memory that it looks at."""
    scan = phantom.scan()
    phantom.write_itk(tmp_path / "a.mha", scan.voxels, scan.affine)
    volumes = [read_volume(tmp_path / "a.mha") for _ in range(20)]

    assert all(np.array_equal(volume.voxels, scan.voxels) for volume in volumes)


def _default(image):
    image.SetOrigin((0, 0, 0))
    image.SetSpacing((1, 1, 1))
    image.SetDirection(np.eye(3).ravel().tolist())


def _moved(image):
    _default(image)
    image.SetOrigin((1, 0, 0))


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
@pytest.mark.parametrize(("edit", "known"), [(_default, False), (_moved, True)])
def test_the_header_of_software_that_knows_nothing_states_nothing(tmp_path, suffix, edit, known):
    """Edges of 1, no turn, no origin: neither spacing nor place."""
    image = phantom.itk_image(phantom.scan().voxels, np.eye(4))
    edit(image)
    SimpleITK.WriteImage(image, str(tmp_path / f"a{suffix}"))
    volume = read_volume(tmp_path / f"a{suffix}")

    assert (volume.has_spacing, volume.has_place) == (known, known)


HEAD = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 3 4\nencoding: raw\n"


def nrrd(path, more, head=HEAD, size=24):
    """Write a NRRD file with more fields, of the voxels 0, 1, 2, ..."""
    path.write_bytes((head + more + "\n").encode() + bytes(range(size)))
    return path


@pytest.mark.parametrize(
    ("more", "spacing", "place"),
    [
        ("", None, False),
        ("spacings: 0.5 0.5 2\n", (0.5, 0.5, 2), False),
        ("spacings: 0.5 nan 2\n", None, False),
        ('spacings: 500 500 2000\nunits: "um" "um" "um"\n', (0.5, 0.5, 2), False),
        ("space directions: (0.5,0,0) (0,0.5,0) (0,0,2)\n"
         "space dimension: 3\nspace origin: (1,2,3)\n", (0.5, 0.5, 2), False),
        ("space: RAS\nspace directions: (0.5,0,0) (0,0.5,0) (0,0,2)\n"
         "space origin: (1,2,3)\n", (0.5, 0.5, 2), True),
        ("space: right-anterior-superior\nspace directions: (1,0,0) (0,1,0) (0,0,1)\n"
         'space units: "mm" "mm" "mm"\nspace origin: (0,0,0)\n', (1, 1, 1), True),
        ('space: LPS\nspace directions: (0.1,0,0) (0,0.1,0) (0,0,0.2)\nspace units: "cm" "cm" "cm"'
         "\nspace origin: (1,2,3)\n", (1, 1, 2), True),
    ],
)  # fmt: skip
def test_what_a_nrrd_header_states_is_known(tmp_path, more, spacing, place):
    """Spacing alone, directions without a space, a space with units: nothing is made up."""
    head, tail = (HEAD, more)
    if "space" in more and "spacings" not in more:  # `space` stands before what it rules
        lines = more.splitlines(keepends=True)
        first = [line for line in lines if line.startswith(("space:", "space dimension"))]
        head = HEAD.replace("sizes", "".join(first) + "sizes")
        tail = "".join(line for line in lines if line not in first)
    volume = read_volume(nrrd(tmp_path / "a.nrrd", tail, head))

    assert volume.has_spacing is (spacing is not None)
    assert volume.has_place is place
    if spacing:
        assert volume.spacing_ras == pytest.approx(spacing)


def test_a_nrrd_without_a_space_is_shown_as_it_is_stored(tmp_path):
    """The first axis runs to the right of the picture, the second down."""
    volume = read_volume(nrrd(tmp_path / "a.nrrd", ""))

    assert volume.slice("axial", 0).tolist() == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_one_slice_is_a_volume_of_one_slice(tmp_path, suffix):
    """With its spacing, whichever is larger; what lies across is unknown."""
    pixels = np.arange(3000, dtype=np.int16).reshape(50, 60)
    labels = np.zeros((50, 60), np.uint8)
    labels[10:30, 5:25] = 1
    for name, array in (("images", pixels), ("masks", labels)):
        (tmp_path / "in" / name).mkdir(parents=True)
        image = SimpleITK.GetImageFromArray(array)
        image.SetSpacing((3.0, 2.0))
        SimpleITK.WriteImage(image, str(tmp_path / f"in/{name}/a{suffix}"))
    images, targets, _ = curated(tmp_path / "in", tmp_path / "out")
    row = images.to_dicts()[0]

    assert (row["image_id"], row["plane"], row["n_slices"]) == ("d/a/axial/0000", "axial", 1)
    assert [row[name] for name in SPACING] == [2.0, 3.0, None]
    assert row["affine"] is None
    assert targets["box"].to_list() == [[5, 10, 25, 30]]
    assert np.array_equal(read_volume(tmp_path / f"in/images/a{suffix}").slice("axial", 0), pixels)


def test_a_last_axis_of_1_is_no_fourth_axis(tmp_path):
    """It is what some software writes; such a NRRD of ITK's names no space of the patient."""
    scan = phantom.scan()
    image = SimpleITK.JoinSeries([phantom.itk_image(scan.voxels, scan.affine)])
    SimpleITK.WriteImage(image, str(tmp_path / "a.nrrd"))
    SimpleITK.WriteImage(image, str(tmp_path / "a.mha"))
    for name in ("a.nrrd", "a.mha"):
        volume = read_volume(tmp_path / name)

        assert np.array_equal(volume.voxels, scan.voxels)
        assert volume.spacing_ras == pytest.approx(phantom.SPACING)
        assert volume.has_place is (name == "a.mha")
        assert not volume.has_place or volume.affine == pytest.approx(scan.affine)


def test_colours_vectors_and_series_have_their_reason(tmp_path):
    """One value per voxel and three axes are expected."""
    one = phantom.itk_image(phantom.scan().voxels, np.eye(4))
    SimpleITK.WriteImage(SimpleITK.Compose(one, one, one), str(tmp_path / "rgb.nrrd"))
    SimpleITK.WriteImage(SimpleITK.Compose(one, one), str(tmp_path / "vector.mha"))
    SimpleITK.WriteImage(SimpleITK.JoinSeries([one, one]), str(tmp_path / "series.nrrd"))
    SimpleITK.WriteImage(SimpleITK.JoinSeries([one, one]), str(tmp_path / "series.mha"))
    for name, reason in (
        ("rgb.nrrd", "it has 3 values per voxel; expected is one"),
        ("vector.mha", "it has 2 values per voxel; expected is one"),
        ("series.nrrd", "it has the shape 40 x 32 x 9 x 2; expected are three axes"),
        ("series.mha", "it has the shape 40 x 32 x 9 x 2; expected are three axes"),
    ):
        with pytest.raises(DataError) as caught:
            read_volume(tmp_path / name)

        assert str(caught.value) == reason


# Hostile and damaged files


def meta(path, **fields):
    """Write a MetaImage header with other fields, and 24 bytes of voxels."""
    plain = {
        "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "DimSize": "2 3 4",
        "ElementSpacing": "1 1 2", "ElementType": "MET_UCHAR",
    }  # fmt: skip
    named = {**plain, **fields}
    data = named.pop("ElementDataFile", "LOCAL")
    lines = [f"{name} = {value}" for name, value in named.items()]
    text = "\n".join([*lines, f"ElementDataFile = {data}", ""])
    path.write_bytes(text.encode() + bytes(range(24)))
    return path


OUTSIDE = "its header names a file of voxels outside its folder"
SEVERAL = "its voxels lie in several files; expected is one"
HUGE = "32767 x 32767 x 32767 voxels cannot be handled"


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (partial(meta, DimSize="32767 32767 32767"), HUGE),
        (partial(meta, DimSize="1024 1024 1024", ElementType="MET_DOUBLE"), "8.0 GiB of memory"),
        (partial(meta, DimSize="2 3 5"), "it is cut off, its header promises 30 bytes"),
        (partial(meta, DimSize="2000 2000 100", CompressedData="True"), "it is cut off"),
        (partial(meta, CompressedData="True"), "its packed voxels are damaged"),
        (partial(meta, ElementDataFile="/etc/passwd"), OUTSIDE),
        (partial(meta, ElementDataFile="../secret.raw"), OUTSIDE),
        (partial(meta, ElementDataFile="a/../../secret.raw"), OUTSIDE),
        (partial(meta, ElementDataFile="C:\\secret.raw"), OUTSIDE),
        (partial(meta, ElementDataFile="link/secret.raw"), OUTSIDE),
        (partial(meta, ElementDataFile="none.raw"), "that its header names is not there"),
        (partial(meta, ElementDataFile="LIST"), SEVERAL),
        (partial(meta, ElementDataFile="a%03d.raw 1 4 1"), SEVERAL),
        (partial(meta, ElementType="MET_STRING"), "type 'MET_STRING' are not read"),
        (partial(meta, ElementType="MET_" + "X" * 99), "that its header names are not read"),
        (partial(meta, NDims="2"), "its NDims is not the number of its DimSize"),
        (partial(meta, DimSize="2 -3 4"), "its DimSize is no list of whole numbers"),
        (partial(meta, DimSize="2 0 4"), "2 x 0 x 4 voxels cannot be handled"),
        (partial(meta, TransformMatrix="0 0 0 0 0 0 0 0 0"), "it cannot be read"),
        (partial(meta, ElementSpacing="nan nan nan", TransformMatrix="1 0 0 0 1 0 0 0 1"), ""),
    ],
)  # fmt: skip
def test_hostile_metaimages_are_refused_with_a_reason(tmp_path, write, reason):
    """Before memory is taken or another file is opened; no reason tells a path."""
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.raw").write_bytes(bytes(24))
    (tmp_path / "in/link").symlink_to(tmp_path)
    with pytest.raises(DataError) as caught:
        read_volume(write(tmp_path / "in/a.mhd"))

    assert reason in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("head", "more", "reason"),
    [
        (HEAD.replace("2 3 4", "32767 32767 32767"), "", HUGE),
        (HEAD.replace("2 3 4", "1024 1024 1024").replace("uchar", "double"), "", "8.0 GiB"),
        (HEAD.replace("2 3 4", "2 3 5"), "", "it is cut off, its header promises 30 bytes"),
        (HEAD.replace("raw", "gzip"), "", "its packed voxels are damaged"),
        (HEAD.replace("raw", "secret"), "", "it cannot be read"),
        (HEAD, "data file: /etc/passwd\n", OUTSIDE),
        (HEAD, "datafile: ../secret.raw\n", OUTSIDE),
        (HEAD, "data file: none.raw\n", "that its header names is not there"),
        (HEAD, "data file: LIST\nsecret.raw\n", SEVERAL),
        (HEAD, "data file: s%d.raw 1 4 1\n", SEVERAL),
        (HEAD.replace("uchar", "block"), "block size: 4\n", "type 'block' are not read"),
        (HEAD.replace("NRRD", "NERD"), "", "it does not begin with NRRD"),
        (HEAD.replace("dimension: 3", "dimension: 2"), "", "not the number of its sizes"),
        (HEAD.replace("sizes: 2 3 4", "sizes: 1e9"), "", "no list of whole numbers"),
        ("NRRD0004\n", "", "no list of whole numbers"),
    ],
)  # fmt: skip
def test_hostile_nrrds_are_refused_with_a_reason(tmp_path, head, more, reason):
    """As MetaImages are."""
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.raw").write_bytes(bytes(24))
    with pytest.raises(DataError) as caught:
        read_volume(nrrd(tmp_path / "in/a.nhdr", more, head))

    assert reason in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".nii.gz"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.99])
def test_files_that_are_cut_off_are_refused(tmp_path, capfd, suffix, share):
    """Packed or not, and no library complains on its own."""
    scan = phantom.scan()
    for packed in (False, True):
        path = tmp_path / f"a{suffix}"
        if suffix == ".nii.gz":
            phantom.write_nifti(path, scan.voxels, scan.affine)
        else:
            phantom.write_itk(path, scan.voxels, scan.affine, packed=packed)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

        with pytest.raises(DataError):
            read_volume(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".nii.gz"])
def test_a_flipped_bit_in_packed_voxels_never_gives_other_voxels(tmp_path, suffix):
    """Checksums of the packing are looked at: ITK alone reads such a MetaImage as noise."""
    scan = phantom.scan()
    path = tmp_path / f"a{suffix}"
    if suffix == ".nii.gz":
        phantom.write_nifti(path, scan.voxels, scan.affine)
    else:
        phantom.write_itk(path, scan.voxels, scan.affine)
    content = path.read_bytes()
    rng = np.random.default_rng(5)
    refused = 0
    for place in rng.integers(len(content) // 2, len(content), 40).tolist():
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            assert np.array_equal(read_volume(path).voxels, scan.voxels)
        except DataError:
            refused += 1

    assert refused > 30


def test_a_folder_of_headers_and_raw_files_has_no_drops(tmp_path):
    """The files of voxels are read with their headers; a lone one is told."""
    scan = phantom.scan()
    write(tmp_path / "in", "nrrd, raw", scan, "LPS")
    phantom.write_itk(tmp_path / "in/images/t.mhd", scan.voxels, scan.affine, packed=False)
    phantom.write_itk(tmp_path / "in/masks/t.mhd", scan.labels, scan.affine, packed=True)
    phantom.write_analyze(tmp_path / "in/images/u.hdr", scan.voxels, phantom.SPACING)
    phantom.write_analyze(tmp_path / "in/masks/u.hdr", scan.labels, phantom.SPACING)
    (tmp_path / "in/images/lone.raw").write_bytes(b"0")
    images, _, drops = curated(tmp_path / "in", tmp_path / "out")
    told = {d["source"]: d["reason"] for d in drops.to_dicts() if d["image_id"] is None}

    assert set(images["source"]) == {"images/s.nhdr", "images/t.mhd", "images/u.hdr"}
    assert told == {"images/lone.raw": "files of this type are not read"}


# Analyze


def analyze(tmp_path, edit=lambda content: None, voxels=True):
    """Write the scan as Analyze with an edited header."""
    path = tmp_path / "a.hdr"
    phantom.write_analyze(path, phantom.scan().voxels, phantom.SPACING)
    content = bytearray(path.read_bytes())
    edit(content)
    path.write_bytes(content)
    if not voxels:
        (tmp_path / "a.img").unlink()
    return path


def _sized(content):
    content[42:48] = np.array([32767] * 3, "<i2").tobytes()


def _unknown_type(content):
    content[70:72] = np.array([77], "<i2").tobytes()


def test_damaged_analyze_files_are_refused_with_a_reason(tmp_path):
    """A pair of which one is missing, too large a size, voxels cut off, an unknown type."""
    with pytest.raises(DataError, match=r"^a\.img, the file of its voxels, is not there$"):
        read_volume(analyze(tmp_path, voxels=False))
    with pytest.raises(DataError, match=HUGE):
        read_volume(analyze(tmp_path, _sized))
    with pytest.raises(DataError, match="it cannot be read"):
        read_volume(analyze(tmp_path, _unknown_type))
    path = analyze(tmp_path)
    (tmp_path / "a.img").write_bytes(bytes(100))
    with pytest.raises(DataError, match="it cannot be read"):
        read_volume(path)
    path.write_bytes(b"ENVI\nsamples = 3")
    with pytest.raises(DataError, match="it cannot be read"):
        read_volume(path)


def test_analyze_edges_of_1_without_a_unit_are_unknown(tmp_path):
    """And edges of 0; edges of 1 with a unit are edges of 1."""

    def ones(content, unit=b"", edge=1.0):
        content[80:92] = np.full(3, edge, "<f4").tobytes()
        content[56:60] = unit.ljust(4, b"\0")

    assert not read_volume(analyze(tmp_path, ones)).has_spacing
    assert not read_volume(analyze(tmp_path, partial(ones, edge=0.0))).has_spacing
    assert read_volume(analyze(tmp_path, partial(ones, unit=b"mm"))).spacing_ras == (1, 1, 1)


# Segmentations of 3D Slicer


def test_segments_of_slicer_are_named_objects_and_may_overlap(tmp_path):
    """Names and values stand in the header; layers lie along the first axis."""
    scan = phantom.scan()
    liver, both = (scan.labels == 1).astype(np.uint8), (scan.labels > 0).astype(np.uint8) * 3
    layers = SimpleITK.Compose(*(phantom.itk_image(layer, scan.affine) for layer in (liver, both)))
    fields = {"Name": ("liver", "all"), "LabelValue": ("1", "3"), "Layer": ("0", "1")}
    for field, values in fields.items():
        for number, value in enumerate(values):
            layers.SetMetaData(f"Segment{number}_{field}", value)
    (tmp_path / "in/images").mkdir(parents=True)
    (tmp_path / "in/masks").mkdir()
    phantom.write_itk(tmp_path / "in/images/s.nrrd", scan.voxels, scan.affine)
    SimpleITK.WriteImage(layers, str(tmp_path / "raw.nrrd"))
    content = (tmp_path / "raw.nrrd").read_bytes().replace(b"kinds: vector", b"kinds: list")
    (tmp_path / "in/masks/s.seg.nrrd").write_bytes(content)
    images, targets, _ = curated(tmp_path / "in", tmp_path / "out")
    areas = {(t["image_id"][-4:], t["object"]): t["area_px"] for t in targets.to_dicts()}

    assert len(images) == 8
    for k in range(1, 8):
        assert areas.get((f"{k:04d}", "all"), 0) == np.count_nonzero(both[..., k])
        assert areas.get((f"{k:04d}", "liver"), 0) in (np.count_nonzero(liver[..., k]), 0)
    assert ("0005", "liver") in areas


def test_segments_without_layers_and_values_are_read(tmp_path):
    """A map of two segments; a damaged value is a reason."""
    scan = phantom.scan()
    image = phantom.itk_image(scan.labels, scan.affine)
    for number, name in enumerate(("liver", "kidney")):
        image.SetMetaData(f"Segment{number}_Name", name)
        image.SetMetaData(f"Segment{number}_LabelValue", str(number + 1))
    SimpleITK.WriteImage(image, str(tmp_path / "a.seg.nrrd"))
    (named,) = read_label_volumes(tmp_path / "a.seg.nrrd")
    image.SetMetaData("Segment0_LabelValue", "-1")
    SimpleITK.WriteImage(image, str(tmp_path / "b.seg.nrrd"))

    assert named.table == {"liver": (1,), "kidney": (2,)}
    assert np.array_equal(named.volume.voxels, scan.labels)
    with pytest.raises(DataError, match="no usable value or layer"):
        read_label_volumes(tmp_path / "b.seg.nrrd")
