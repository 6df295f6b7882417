"""Volumes in every orientation, and the slices cut from them."""

import nibabel as nib
import numpy as np
import pytest

from promptseg.errors import DataError
from promptseg.reader.nifti import read_nifti as read_volume
from promptseg.reader.volume import (
    PLANES,
    Volume,
    cut,
    difference_of_grids,
    main_plane,
    spacing_of_slices,
)

rng = np.random.default_rng(1)
VOXELS = rng.integers(0, 1000, (4, 5, 6)).astype(np.int16)
AFFINE = np.array([[2.0, 0, 0, -3], [0, 3, 0, 10], [0, 0, 5, -20], [0, 0, 0, 1]])


def saved(path, voxels=VOXELS, affine=AFFINE, unit="mm"):
    """Write a NIfTI file, and give its path."""
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units(unit)
    nib.save(image, path)
    return path


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "PSR", "IAL", "SRP"])
def test_every_orientation_gives_the_same_volume(tmp_path, codes):
    """Files of one scan stored in different orders are one scan."""
    image = nib.Nifti1Image(VOXELS, AFFINE)
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes)
    )
    nib.save(image.as_reoriented(turn), tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz")

    assert np.array_equal(volume.voxels, VOXELS)
    assert np.array_equal(volume.affine, AFFINE)


@pytest.mark.parametrize("plane", PLANES)
def test_the_voxel_in_front_above_at_the_right_is_the_first_pixel(plane):
    """Radiological view: right on the left side, front or head at the top."""
    voxels = np.zeros((4, 5, 6), dtype=np.int16)
    voxels[3, 4, 5] = 1
    last = {"axial": 5, "coronal": 4, "sagittal": 3}[plane]

    assert np.argwhere(cut(voxels, plane, last)).tolist() == [[0, 0]]


def test_slices_lie_as_the_module_says():
    """The formulas by which a pixel finds its voxel, on a volume without symmetry."""
    n_i, n_j, n_k = (n - 1 for n in VOXELS.shape)

    for y in range(n_j + 1):
        for x in range(n_i + 1):
            assert cut(VOXELS, "axial", 2)[y, x] == VOXELS[n_i - x, n_j - y, 2]
    for y in range(n_k + 1):
        for x in range(n_i + 1):
            assert cut(VOXELS, "coronal", 1)[y, x] == VOXELS[n_i - x, 1, n_k - y]
        for x in range(n_j + 1):
            assert cut(VOXELS, "sagittal", 3)[y, x] == VOXELS[3, n_j - x, n_k - y]


@pytest.mark.parametrize(
    ("spacing_ras", "plane"),
    [
        ((1, 1, 5), "axial"),
        ((1, 5, 1), "coronal"),
        ((5, 1, 1), "sagittal"),
        ((1, 1, 1), "axial"),
        ((5, 5, 1), "axial"),
        ((1, 1.0000001, 1), "axial"),
    ],
)
def test_the_main_plane_lies_across_the_largest_spacing(spacing_ras, plane):
    """Where the slices were thick the pixels were fine; a tie means axial."""
    volume = Volume(VOXELS, np.diag([*map(float, spacing_ras), 1.0]), True)

    assert main_plane(volume) == plane


def test_spacing_is_that_of_the_pixels_shown(tmp_path):
    """Along y and x of a slice, then the distance of slices; 2, 3, 5 mm along R, A, S."""
    volume = read_volume(saved(tmp_path / "a.nii"))

    assert spacing_of_slices(volume, "axial") == (3, 2, 5)
    assert spacing_of_slices(volume, "coronal") == (5, 2, 3)
    assert spacing_of_slices(volume, "sagittal") == (5, 3, 2)


def test_units_are_brought_to_millimetres(tmp_path):
    """Microscopes write micrometres."""
    volume = read_volume(saved(tmp_path / "a.nii", unit="micron"))

    assert spacing_of_slices(volume, "axial") == pytest.approx((0.003, 0.002, 0.005))


def test_a_default_header_knows_no_spacing(tmp_path):
    """An identity affine without units is what software writes when it knows nothing."""
    unknown = read_volume(saved(tmp_path / "a.nii", affine=np.eye(4), unit="unknown"))
    stated = read_volume(saved(tmp_path / "b.nii", affine=np.eye(4), unit="mm"))

    assert spacing_of_slices(unknown, "axial") is None
    assert spacing_of_slices(stated, "axial") == (1, 1, 1)


def test_other_grids_are_told_apart(tmp_path):
    """A shift of half a voxel is another grid, rounding in the header is none."""
    volume = read_volume(saved(tmp_path / "a.nii"))
    shift = np.eye(4)
    shift[0, 3] = 1.0
    shifted = Volume(VOXELS, shift @ AFFINE, True)
    rounded = Volume(VOXELS, AFFINE + 1e-4 * np.eye(4), True)
    shorter = Volume(VOXELS[:3], AFFINE, True)

    assert difference_of_grids(volume, rounded) is None
    assert difference_of_grids(volume, shifted) == "its affine is not its image's"
    assert (
        difference_of_grids(volume, shorter) == "its shape 3 x 5 x 6 is not its image's, 4 x 5 x 6"
    )


def test_files_that_are_no_oriented_volume_are_refused(tmp_path):
    """Time series, lost orientation and complex numbers each have their reason."""
    nib.save(nib.Nifti1Image(VOXELS, None), tmp_path / "lost.nii")
    flat = np.array([[1.0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])

    with pytest.raises(DataError, match="how it lies in the patient"):
        read_volume(tmp_path / "lost.nii")
    with pytest.raises(DataError, match="4 x 5 x 6 x 2; expected are three axes"):
        read_volume(saved(tmp_path / "4d.nii", np.stack([VOXELS, VOXELS], axis=3)))
    with pytest.raises(DataError, match="complex64"):
        read_volume(saved(tmp_path / "c.nii", VOXELS.astype(np.complex64)))
    with pytest.raises(DataError, match="singular"):
        read_volume(saved(tmp_path / "s.nii", affine=flat))


def test_damaged_files_are_refused_with_a_reason_that_tells_no_path(tmp_path):
    """A download that broke off is the usual case."""
    whole = saved(tmp_path / "a.nii.gz").read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "none.nii.gz").write_bytes(b"no volume")
    for name in ("cut.nii.gz", "none.nii.gz"):
        with pytest.raises(DataError, match="cannot be read") as caught:
            read_volume(tmp_path / name)

        assert str(tmp_path) not in str(caught.value)


def test_a_file_that_is_not_there_is_called_that(tmp_path):
    """Without the words of the library."""
    with pytest.raises(DataError, match=r"^there is no such file$"):
        read_volume(tmp_path / "no.nii.gz")


def test_a_header_that_promises_too_much_is_refused_unread(tmp_path):
    """A hostile file of a kilobyte must not ask for terabytes of memory."""
    content = bytearray(saved(tmp_path / "a.nii").read_bytes())
    content[42:48] = np.array([32767, 32767, 32767], dtype="<i2").tobytes()
    (tmp_path / "huge.nii").write_bytes(content)

    with pytest.raises(DataError, match="32767 x 32767 x 32767 voxels cannot be handled"):
        read_volume(tmp_path / "huge.nii")
