"""Pairing of masks with images by their names."""

import pytest

from promptseg.errors import DataError
from promptseg.reader.folder import MaskFile, frame_file, scan
from promptseg.reader.mask_name import parse_name


def a_folder(tmp_path, *files):
    """Make empty files; pairing looks at names alone."""
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    return tmp_path


def masks_by_image(listing):
    """Give the mask files of every image."""
    return {image.source: [mask.source for mask in image.masks] for image in listing.images}


def test_a_mask_belongs_to_the_image_of_its_stem_whatever_the_suffix(tmp_path):
    """Data sets keep images as JPEG and masks as PNG, in the same subfolders."""
    folder = a_folder(
        tmp_path, "images/a/1.jpg", "images/b/1.TIF", "masks/a/1.png", "masks/b/1.bmp"
    )

    assert masks_by_image(scan(folder)) == {
        "images/a/1.jpg": ["masks/a/1.png"],
        "images/b/1.TIF": ["masks/b/1.bmp"],
    }


def test_a_mask_goes_to_the_longest_image_name_that_begins_its_own(tmp_path):
    """Image 1 must not take the masks of images 10 and 1_2."""
    folder = a_folder(
        tmp_path,
        *("images/1.png", "images/1_2.png", "images/10.png"),
        *("masks/1_2_liver.png", "masks/10_liver.png", "masks/1_liver.png"),
    )

    assert masks_by_image(scan(folder)) == {
        "images/1.png": ["masks/1_liver.png"],
        "images/10.png": ["masks/10_liver.png"],
        "images/1_2.png": ["masks/1_2_liver.png"],
    }


def test_a_folder_called_like_an_image_holds_its_masks(tmp_path):
    """The nuclei of DSB 2018 come as one file each, with names that machines made."""
    files = [f"masks/x/{digit * 32}.png" for digit in ("3a", "1b", "2c")]
    (image,) = scan(a_folder(tmp_path, "images/x.png", *files)).images

    assert [(mask.object, mask.instance) for mask in image.masks] == [
        (None, 1),
        (None, 2),
        (None, 3),
    ]


def test_names_in_a_folder_of_masks_may_tell_objects(tmp_path):
    """TotalSegmentator writes `liver.nii.gz` into a folder per patient."""
    folder = a_folder(
        tmp_path,
        *("images/s1.nii.gz", "labels/s1/liver.nii.gz", "labels/s1/s1_kidney_2.nii.gz"),
    )
    (image,) = scan(folder).images

    assert image.masks == (
        MaskFile("labels/s1/liver.nii.gz", "liver", None),
        MaskFile("labels/s1/s1_kidney_2.nii.gz", "kidney", 2),
    )


@pytest.mark.parametrize(
    ("rest", "object_name", "instance"),
    [
        ("", None, None),
        ("_mask", None, None),
        ("_mask_1", None, 1),
        ("_Segmentation", None, None),
        ("-liver", "liver", None),
        ("_liver_mask", "liver", None),
        ("_seg-axon-manual", "axon", None),
        ("_rib_left_9_000", "rib_left_9", 0),
        ("_lung_12_gt", "lung", 12),
        ("_segment", "segment", None),
        ("_vertebrae_T9", "vertebrae_T9", None),
        ("_34e5959f808f791479ef70dc", None, None),
    ],
)
def test_a_mask_name_tells_object_and_instance(rest, object_name, instance):
    """What a name says beyond its image's, without words that only say that it is a mask."""
    assert parse_name(rest) == (object_name, instance)


def test_mask_beside_mask_1_are_two_instances(tmp_path):
    """BUSI numbers the further masks of an image only; neither may hide the other."""
    folder = a_folder(tmp_path, "images/b.png", "masks/b_mask.png", "masks/b_mask_1.png")
    (image,) = scan(folder).images

    assert [mask.instance for mask in image.masks] == [0, 1]


def test_a_number_beside_the_exact_mask_is_ambiguous_and_left_out(tmp_path):
    """`c_2.png` may be the mask of a missing image c_2: of the same size, it would pass as c's."""
    folder = a_folder(tmp_path, "images/c.png", "masks/c.png", "masks/c_2.png")
    listing = scan(folder)

    assert masks_by_image(listing) == {"images/c.png": ["masks/c.png"]}
    assert [source for source, _ in listing.left_out] == ["masks/c_2.png"]


def test_one_object_makes_names_mute(tmp_path):
    """When all masks show one object, a folder of oddly named masks is a list of instances."""
    folder = a_folder(tmp_path, "images/x.png", "masks/x/cellA.png", "masks/x/cellB.png")
    (image,) = scan(folder, one_object=True).images

    assert [(mask.object, mask.instance) for mask in image.masks] == [(None, 1), (None, 2)]


def test_what_cannot_be_paired_is_listed_with_its_reason(tmp_path):
    """Nothing is left out silently, but for hidden files."""
    folder = a_folder(
        tmp_path,
        *("images/1.png", "images/1.jpg", "images/notes.txt", "images/.DS_Store"),
        *("masks/1.png", "masks/9.png", "masks/1.webp"),
    )
    listing = scan(folder)

    assert masks_by_image(listing) == {"images/1.jpg": ["masks/1.png"]}
    assert dict(listing.left_out) == {
        "images/1.png": "another image has the same name but for its suffix (or # for _)",
        "images/notes.txt": "files of this type are not read",
        "masks/1.webp": "files of this type are not read",
        "masks/9.png": "no image belongs to this mask by its name",
    }


@pytest.mark.parametrize("files", [["masks/1.png"], ["images/readme.txt", "masks/1.png"]])
def test_a_folder_without_images_is_an_error_that_says_what_is_expected(tmp_path, files):
    """The first mistake of a new user is another layout."""
    folder = a_folder(tmp_path, *files)

    with pytest.raises(DataError, match="Expected are"):
        scan(folder)


def test_a_folder_that_is_not_there_is_called_that(tmp_path):
    """A typing error in a path is no wrong layout."""
    with pytest.raises(DataError, match=f"^There is no folder {tmp_path / 'none'}.$"):
        scan(tmp_path / "none")


def test_links_that_lead_nowhere_or_to_folders_are_listed(tmp_path):
    """Data sets are often linked together; images/ as a whole may be a link."""
    folder = a_folder(tmp_path, "real/1.png", "masks/1.png", "more/7.png")
    (folder / "images").symlink_to(folder / "real")
    (folder / "images/2.png").symlink_to(folder / "gone.png")
    (folder / "images/more").symlink_to(folder / "more")
    (folder / "masks/1_liver.png").symlink_to(folder / "gone.png")
    listing = scan(folder)

    assert masks_by_image(listing) == {"images/1.png": ["masks/1.png"]}
    assert listing.images[0].lost_mask
    assert dict(listing.left_out) == {
        "images/2.png": "a broken link",
        "images/more": "links to folders are not followed",
        "masks/1_liver.png": "a broken link",
    }


def test_of_masks_and_labels_the_first_is_read_and_the_other_listed(tmp_path):
    """As one drop, whatever it holds."""
    folder = a_folder(tmp_path, "images/1.png", "masks/1.png", "labels/1.png", "labels/2.png")

    assert scan(folder).left_out == (("labels", "masks/ is read instead"),)


def test_a_folder_of_masks_that_is_a_broken_link_is_an_error_or_listed(tmp_path):
    """Without masks all images would pass for empty; with labels/ there are some."""
    folder = a_folder(tmp_path, "images/1.png")
    (folder / "masks").symlink_to(folder / "gone")
    with pytest.raises(DataError, match="masks is a broken link"):
        scan(folder)
    listing = scan(a_folder(tmp_path, "labels/1.png"))

    assert masks_by_image(listing) == {"images/1.png": ["labels/1.png"]}
    assert listing.left_out == (("masks", "a broken link"),)


@pytest.mark.parametrize(
    ("files", "lost"),
    [
        (["masks/1.webp"], True),
        (["masks/1.txt", "masks/1.png"], False),
        (["masks/2.webp"], False),
        ([], False),
    ],
)
def test_an_image_whose_only_mask_has_another_type_has_lost_it(tmp_path, files, lost):
    """It must not pass for an image without objects; a note beside a mask does no harm."""
    (image,) = scan(a_folder(tmp_path, "images/1.png", *files)).images

    assert image.lost_mask is lost


@pytest.mark.parametrize(
    ("source", "number", "object_name", "instance"),
    [
        ("masks/v_0007.png", 7, None, None),
        ("masks/v_mask_7.png", 7, None, None),
        ("masks/v-frame-007.png", 7, None, None),
        ("masks/v_frame0007.png", 7, None, None),
        ("masks/v/0007.png", 7, None, None),
        ("masks/v/frame_0007.png", 7, None, None),
        ("masks/v/v_0007.png", 7, None, None),
        ("masks/v_liver_0007.png", 7, "liver", None),
        ("masks/v/0007_liver.png", 7, "liver", None),
        ("masks/v/0007_liver_2.png", 7, "liver", 2),
        ("masks/v_0007_2.png", 7, None, 2),
    ],
)
def test_the_name_of_a_frames_mask_tells_its_number(source, number, object_name, instance):
    """The number first or last is the frame's; what is beside it is read as in other names."""
    file = MaskFile(source, object_name, instance)

    assert frame_file("v", file) == (file, number)


def test_a_name_without_number_is_no_frames_mask():
    """It is then that of the whole stack; a file that a mapping gave has its instance."""
    assert frame_file("v", MaskFile("masks/v_liver.png", "liver")) is None
    assert frame_file("v", MaskFile("masks/v.png")) is None
    assert frame_file("v", MaskFile("masks/x.png", None, 3)) == (MaskFile("masks/x.png"), 3)
