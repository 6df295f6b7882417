"""Near duplicates are found, and different images are not taken for them."""

from collections import Counter

import cv2
import numpy as np
import pytest

from promptseg.duplicates import pairs, seen_in, together
from promptseg.likeness import are_alike, candidates, fine_of, look_of

rng = np.random.default_rng(7)


def scene(seed):
    """Draw some blobs."""
    own = np.random.default_rng(seed)
    image = np.zeros((180, 220), np.float32)
    for _ in range(12):
        y, x, r = own.uniform(0, 180), own.uniform(0, 220), own.uniform(8, 50)
        yy, xx = np.ogrid[:180, :220]
        image += own.uniform(20, 120) * np.exp(-((yy - y) ** 2 + (xx - x) ** 2) / (2 * r * r))
    return np.clip(image, 0, 255).astype(np.uint8)


def jpeg(image, quality):
    """Compress with losses."""
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 0)


CHANGES = {
    "same": lambda image: image,
    "half": lambda image: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "squeezed": lambda image: cv2.resize(image, (256, 256)),
    "compressed": lambda image: jpeg(image, 50),
    "brighter": lambda image: (255 * (image / 255) ** 0.7).astype(np.uint8),
    "noisy": lambda image: np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8),
    "coloured": lambda image: np.repeat(image[:, :, None], 3, axis=2),
    "deep": lambda image: image.astype(np.uint16) * 200 + 1000,
    "written on": lambda image: cv2.putText(image.copy(), "L", (5, 20), 0, 0.6, 255, 2),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("seed", range(5))
def test_a_changed_copy_is_found(change, seed):
    """By its look, and by its pixels."""
    image = scene(seed)
    copy = CHANGES[change](image)
    looks = [look_of("a", image), look_of("b", copy)]

    assert list(candidates(looks)) == [(0, 1)]
    assert are_alike(fine_of(image), fine_of(copy))
    assert (looks[0].content == looks[1].content) == (change == "same")


def test_other_images_are_not_taken_for_copies():
    """Of 200 images, 19,900 pairs."""
    looks = [look_of(str(seed), scene(seed)) for seed in range(200)]

    assert list(candidates(looks)) == []


def test_images_of_one_grey_are_like_nothing():
    """Black slices are no duplicates of each other."""
    looks = [look_of(str(grey), np.full((40, 40), grey, np.uint8)) for grey in (0, 0, 9)]

    assert list(candidates(looks)) == []


def test_pairs_of_many_are_found_across_blocks():
    """The same as by comparing all with all."""
    looks = [look_of(str(seed), scene(seed % 1500)) for seed in range(2100)]
    found = set(candidates(looks))

    assert found == {(n, n + 1500) for n in range(600)}


def seen_of(images, subject_of):
    """Make what is known of images, and a function that gives their pixels and counts."""
    asked = Counter()
    seen = [
        seen_in(
            "",
            {"dataset": "d", "subject": subject_of(n), "volume_id": None, "split": None},
            look_of(f"d/{n:02d}", image),
        )
        for n, image in enumerate(images)
    ]

    def pixels(of):
        asked[of.look.image_id] += 1
        return images[int(of.look.image_id[2:])]

    return seen, pixels, asked


@pytest.mark.parametrize("step", [0, 1], ids=["the same", "nearly the same"])
def test_groups_that_are_joined_are_not_compared_again(step):
    """Where the groups alone count: three subjects take two pairs, not 192; the others go on."""
    images = [np.clip(scene(1) // 2 + n * step, 0, 255).astype(np.uint8) for n in range(24)]
    images += [scene(2), scene(3)]
    subjects = [f"s{n % 3}" for n in range(24)] + ["a", "b"]
    seen, pixels, asked = seen_of(images, subjects.__getitem__)
    every = list(pairs(seen, pixels))
    told = max(asked.values(), default=0)
    few = list(pairs(seen, pixels, lambda of: of.subject))
    groups = [
        together(subjects, [(pair.one.subject, pair.other.subject) for pair in found])
        for found in (every, few)
    ]

    assert (len(every), len(few)) == (192, 2)
    assert groups[0] == groups[1] == {"s0": "s0", "s1": "s0", "s2": "s0", "a": "a", "b": "b"}
    assert told == step  # each image is asked for once
