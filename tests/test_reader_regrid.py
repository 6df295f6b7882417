"""Labels on another grid are brought over by geometry, and what is lost of them is told."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import volume_phantom as phantom

from promptseg.curation import Curation, curate
from promptseg.errors import DataError
from promptseg.reader.regrid import other_grid, regrid
from promptseg.reader.volume import Volume

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SCAN = phantom.scan(4.0)
IMAGE = Volume(SCAN.voxels, SCAN.affine, True)


def shifted(voxels):
    """Give the move by whole or part voxels as a matrix."""
    matrix = np.eye(4)
    matrix[:3, 3] = voxels
    return matrix


def test_a_cropped_grid_gives_an_exact_copy():
    """The box that a tool kept of the labels, anywhere in the image; outside is background."""
    part = SCAN.labels[5:30, 3:28, 2:8]
    own = Volume(part, SCAN.affine @ shifted((5, 3, 2)), True)
    found = regrid(part, own, IMAGE)
    expected = np.zeros_like(SCAN.labels)
    expected[5:30, 3:28, 2:8] = part

    assert other_grid(IMAGE, own)
    assert np.array_equal(found.values, expected)
    assert found.loss((1,)) is None


def test_a_larger_grid_gives_an_exact_copy_and_tells_what_lies_outside():
    """Of 3 voxels beside the image and 1 in it, three quarters are lost."""
    wide = np.pad(SCAN.labels, 4)
    wide[0, 0, 0:3] = 7
    wide[20, 20, 8] = 7
    own = Volume(wide, SCAN.affine @ shifted((-4, -4, -4)), True)
    found = regrid(wide, own, IMAGE)

    assert np.array_equal(found.values, wide[4:-4, 4:-4, 4:-4])
    assert found.loss((1,)) is None
    assert found.loss((7,)) == (3, "75 % of its volume lie outside its image")
    assert found.loss((1, 7))[0] == 3


@pytest.mark.parametrize("degrees", [0.0, 4.0, 30.0])
def test_every_voxel_takes_the_label_whose_centre_is_nearest(degrees):
    """Against a search over all centres, on a coarser grid that is turned."""
    scan = phantom.scan(degrees)
    coarse = np.random.default_rng(2).integers(0, 9, (9, 8, 6)).astype(np.uint8)
    affine = phantom.scan(0.0).affine @ shifted((-0.5, 0.7, 0.3)) @ np.diag([4.3, 3.9, 1.7, 1.0])
    image = Volume(scan.voxels[::5, ::5, ::3], scan.affine @ np.diag([5.0, 5, 3, 1]), True)
    found = regrid(coarse, Volume(coarse, affine, True), image)
    at = np.stack(np.meshgrid(*map(np.arange, coarse.shape), indexing="ij")).reshape(3, -1)
    to_own = np.linalg.inv(affine) @ image.affine
    for voxel in np.ndindex(image.voxels.shape):
        own = (to_own @ [*voxel, 1.0])[:3]
        nearest = np.abs(at - own[:, None]).max(axis=0).argmin()
        is_inside = np.abs(at[:, nearest] - own).max() <= 0.5

        assert found.values[voxel] == (coarse.reshape(-1)[nearest] if is_inside else 0)


def test_an_object_between_the_voxels_is_told():
    """A single small voxel that no voxel of the image is nearest to."""
    fine = np.zeros((80, 64, 18), np.uint8)
    fine[21, 21, 5] = 1
    own = Volume(fine, SCAN.affine @ shifted((0.0, 0.0, 0.0)) @ np.diag([0.5, 0.5, 0.5, 1]), True)
    loss = regrid(fine, own, IMAGE).loss((1,))

    assert loss == (0, "it lies between the voxels of its image, which are larger than its own")


def test_grids_without_a_common_voxel_are_refused():
    """The mask of another scan."""
    own = Volume(SCAN.labels, shifted((500, 0, 0)) @ SCAN.affine, True)

    with pytest.raises(DataError, match=r"^it lies wholly beside its image$"):
        regrid(SCAN.labels, own, IMAGE)


@pytest.mark.parametrize("field", ["has_spacing", "has_place"])
@pytest.mark.parametrize("whose", ["image", "labels"])
def test_grids_of_unknown_place_are_not_guessed(field, whose):
    """Another shape, and one header does not say where: index alone decides nothing."""
    labels = Volume(SCAN.labels[1:], SCAN.affine, True)
    image = IMAGE
    if whose == "image":
        image = replace(image, **{field: False})
    else:
        labels = replace(labels, **{field: False})
    with pytest.raises(DataError, match="does not say how it lies in the patient"):
        other_grid(image, labels)


def test_files_that_both_say_no_place_are_on_one_grid_if_shape_and_spacing_are_the_same():
    """Analyze with Analyze."""
    image = Volume(SCAN.voxels, np.diag([1.0, 1, 2, 1]), True, has_place=False)
    moved = Volume(SCAN.labels, np.diag([1.0, 1, 2, 1]) @ shifted((9, 9, 9)), True, has_place=False)
    stretched = Volume(SCAN.labels, np.diag([1.0, 1, 3, 1]), True, has_place=False)

    assert not other_grid(image, moved)
    with pytest.raises(DataError, match="its spacing is not its image's"):
        other_grid(image, stretched)


def test_a_corpus_tells_which_masks_came_from_another_grid_and_what_was_lost(tmp_path):
    """In the rules by name; the object that reaches out of the image is a drop with its share."""
    folder = tmp_path / "in"
    for name in ("s", "t"):
        phantom.write_itk(folder / f"images/{name}.nrrd", SCAN.voxels, SCAN.affine)
    wide = np.pad(np.where(SCAN.labels == 1, 1, 0).astype(np.uint8), 4)
    wide[:6, :, :] = 2
    phantom.write_nifti(folder / "masks/s.nii.gz", wide, SCAN.affine @ shifted((-4, -4, -4)), "PSR")
    phantom.write_nifti(folder / "masks/t.nii.gz", SCAN.labels, SCAN.affine, "PSR")
    (folder / "labels.json").write_text('{"liver": 1, "plate": 2}')
    run = curate(folder, tmp_path / "out", Curation(modality="MR", dataset="d"))
    while True:
        try:
            next(run)
        except StopIteration as stop:
            info = stop.value
            break
    targets = pl.read_parquet(tmp_path / "out/targets/*.parquet")
    drops = pl.read_parquet(tmp_path / "out/drops/*.parquet")
    told = drops.filter(pl.col("reason").str.contains("outside")).to_dicts()
    plate = int(np.count_nonzero(wide == 2))
    lost = plate - int(np.count_nonzero(wide[4:-4, 4:-4, 4:-4] == 2))
    liver = targets.filter(pl.col("object") == "liver")
    both = [liver.filter(pl.col("image_id").str.starts_with(f"d/{n}/"))["box"] for n in "st"]

    assert (
        info.rules["regridded"] == "1 mask file from another grid, by nearest voxel: masks/s.nii.gz"
    )
    assert [(row["source"], row["object"], row["area_px"]) for row in told] == [
        ("masks/s.nii.gz", "plate", lost)
    ]
    assert told[0]["reason"] == f"{100 * lost / plate:.3g} % of its volume lie outside its image"
    assert both[0].to_list() == both[1].to_list() != []
