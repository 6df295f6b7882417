"""Volumes: DICE of pooled voxels, by hand, with slices that were missed or failed."""

import numpy as np
import polars as pl
import pytest
from test_report import record

from promptseg.metric import dice
from promptseg.record import Record
from promptseg.stats import estimate
from promptseg.volume import volume_records


def frame(records: list[Record]) -> pl.DataFrame:
    """Bring records into one frame."""
    rows = [{name: getattr(one, name) for name in Record.__dataclass_fields__} for one in records]
    return pl.DataFrame(rows, infer_schema_length=None)


def of_slice(number: int, shared: int, predicted: int, reference: int, **known) -> Record:
    """Make the record of one slice from its areas."""
    scored = {"dice": 2 * shared / (predicted + reference), "predicted_px": predicted,
              "reference_px": reference, "outcome": "ok" if predicted else "miss"}  # fmt: skip
    place = {"image_id": f"v/axial/{number}", "target_id": f"v/axial/{number}#liver",
             "volume": "v/axial"}  # fmt: skip
    return record(**(place | scored | known))


def test_a_volume_by_hand():
    """2 (10 + 30) / (20 + 20 + 40 + 60) = 80 / 140, where the mean over slices is 0.55."""
    slices = frame([of_slice(0, 10, 20, 20), of_slice(1, 30, 40, 60)])
    (row,) = volume_records(slices).iter_rows(named=True)

    assert row["dice"] == pytest.approx(80 / 140, abs=1e-12)
    assert (row["outcome"], row["n_slices"], row["n_missed"]) == ("ok", 2, 0)
    assert slices["dice"].mean() == pytest.approx(0.55)


def test_a_missed_slice_counts_with_its_whole_target():
    """2 * 10 / (20 + 20 + 0 + 60): a miss has no voxel, and does not leave the volume."""
    slices = frame([of_slice(0, 10, 20, 20), of_slice(1, 0, 0, 60)])
    (row,) = volume_records(slices).iter_rows(named=True)

    assert row["dice"] == pytest.approx(20 / 100)
    assert (row["outcome"], row["n_missed"]) == ("ok", 1)


def test_a_volume_of_misses_is_a_miss():
    """It has DICE 0, and counts as empty."""
    (row,) = volume_records(frame([of_slice(0, 0, 0, 60), of_slice(1, 0, 0, 50)])).iter_rows(
        named=True
    )

    assert (row["outcome"], row["dice"]) == ("miss", 0.0)


def test_a_volume_with_a_failed_slice_is_incomplete():
    """It is counted as failed, with the reason, and is in no mean."""
    failed = {"dice": None, "predicted_px": None, "reference_px": None, "outcome": "failed"}
    slices = [of_slice(0, 10, 20, 20), of_slice(1, 30, 40, 60, **failed)]
    others = [
        of_slice(n, 10, 20, 20, volume="w/axial", image_id=f"w/axial/{n}", subject="s1",
                 target_id=f"w/axial/{n}#liver")
        for n in range(2)
    ]  # fmt: skip
    found = volume_records(frame([*slices, *others])).sort("volume")
    (item,) = estimate(found, "dice").values()

    assert found["outcome"].to_list() == ["failed", "ok"]
    assert found["dice"].to_list() == [None, 0.5]
    assert found["reason"].to_list() == ["1 of 2 slices failed", None]
    assert (item.value, item.n_failed, item.n_images, item.n_subjects) == (0.5, 1, 1, 1)


def test_masks_and_areas_give_the_same():
    """The DICE of a volume of random masks, taken as one array, and from its slices' records."""
    rng = np.random.default_rng(3)
    pred, reference = rng.random((5, 9, 11)) < 0.4, rng.random((5, 9, 11)) < 0.5
    slices = [
        of_slice(n, int((a & b).sum()), int(a.sum()), int(b.sum()))
        for n, (a, b) in enumerate(zip(pred, reference, strict=True))
    ]
    (row,) = volume_records(frame(slices)).iter_rows(named=True)

    assert row["dice"] == pytest.approx(
        dice(pred.reshape(1, -1), reference.reshape(1, -1)), abs=1e-12
    )


def test_what_is_no_volume_is_left_out():
    """A picture, a single slice, runs by instance, jittered prompts, and runs that kept no area."""
    alone = of_slice(0, 10, 20, 20, volume="one/axial")
    pictures = [of_slice(n, 10, 20, 20, volume=None) for n in range(2)]
    instances = [of_slice(n, 10, 20, 20, unit="instance") for n in range(2)]
    jittered = [of_slice(n, 10, 20, 20, jitter_mode="shift") for n in range(2)]
    old = [of_slice(n, 10, 20, 20, predicted_px=None, strategy="point1") for n in range(2)]

    assert not volume_records(frame([alone, *pictures, *instances, *jittered, *old])).height


def test_planes_objects_annotators_and_seeds_are_volumes_of_their_own():
    """Voxels of one volume cut twice are not counted twice."""
    records = []
    for plane in ("axial", "coronal"):
        for name in ("liver", "liver@b", "spleen"):
            for n in range(2):
                image = f"v/{plane}/{n}"
                records.append(
                    of_slice(n, 10, 20, 20, volume=f"v/{plane}", image_id=image,
                             target_id=f"{image}#{name}", object=name.partition("@")[0])
                )  # fmt: skip
    found = volume_records(frame(records))

    assert found.height == 6
    assert found["n_slices"].to_list() == [2] * 6
