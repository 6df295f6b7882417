"""The protocol `released` is the study's published code, bug for bug."""

from pathlib import Path

import fakes
import numpy as np
import pytest

from promptseg.evaluation import evaluate
from promptseg.plan import Plan
from promptseg.prompt import BoxPoints, Points, box_of, points_of
from promptseg.released import PROTOCOLS, RELEASED, released_points_xy
from promptseg.sample import Sample, Target
from promptseg.strategy import STRATEGIES, positive_points_xy

GOLDEN = np.load(Path(__file__).with_name("golden") / "released.npz")


def _masks() -> list[np.ndarray]:
    """Unpack the 1,000 random masks on which the published code was run."""
    masks, start = [], 0
    for height, width in GOLDEN["shapes"].astype(int):
        size = -(-height * width // 8)
        bits = np.unpackbits(GOLDEN["bits"][start : start + size], count=height * width)
        masks.append(bits.reshape(height, width).astype(bool))
        start += size
    return masks


def test_it_equals_the_published_function_on_a_thousand_masks():
    """Points, labels and boxes of `find_all_info(point_num=10)`; where that stops, so do we."""
    stops = 0
    masks = _masks()
    for mask, xy, labels, box in zip(
        masks, GOLDEN["points"], GOLDEN["labels"], GOLDEN["boxes"], strict=True
    ):
        if labels[0] < 0:
            stops += 1
            for strategy in RELEASED.values():
                if strategy.make is not None:
                    with pytest.raises(ValueError, match="the released code stops here"):
                        strategy.make(mask)
            continue
        make = RELEASED["points5+5"].make
        assert make is not None
        points = make(mask)
        assert isinstance(points, Points)
        np.testing.assert_array_equal(points.xy, xy)
        np.testing.assert_array_equal(points.positive, labels == 1)
        tight = box_of(_made("box", mask))
        assert tight is not None
        # the published box is closed: its last pixel belongs to it
        assert [tight.x0, tight.y0, tight.x1 - 1, tight.y1 - 1] == box.tolist()

    assert len(masks) == 1000
    assert stops == 68


def _made(name: str, mask: np.ndarray) -> object:
    make = RELEASED[name].make
    assert make is not None
    return make(mask)


def test_the_golden_masks_show_every_bug():
    """Six points on the object, one labelled as background; a centre that lies off its object."""
    mislabelled = off_centre = 0
    for mask, xy, labels in zip(_masks(), GOLDEN["points"], GOLDEN["labels"], strict=True):
        if labels[0] == 1:
            mislabelled += bool(mask[xy[5, 1], xy[5, 0]])
            off_centre += not mask[xy[0, 1], xy[0, 0]]

    assert mislabelled > 500
    assert off_centre > 50


def test_fewer_points_are_the_first_of_the_ten():
    """`point_num` cuts the list: one point and five are labelled as being on the object."""
    mask = np.zeros((40, 40), dtype=bool)
    mask[10:20, 12:31] = True
    whole = released_points_xy(mask)
    for name, count in (("point1", 1), ("points5", 5)):
        points = points_of(_made(name, mask))
        assert points is not None
        np.testing.assert_array_equal(points.xy, whole[:count])
        assert points.positive.all()
    both = _made("box+point", mask)
    assert isinstance(both, BoxPoints)
    np.testing.assert_array_equal(both.points.xy, whole[:1])


def test_it_differs_from_the_rule_of_the_paper():
    """The point of having both: an object of 34 pixels has six points there, and one is wrong."""
    mask = np.zeros((20, 20), dtype=bool)
    mask[3:5, 2:19] = True
    points = points_of(_made("points5+5", mask))
    assert points is not None
    x, y = points.xy.astype(int).T

    assert (mask[y, x] & ~points.positive).sum() == 1
    assert mask[tuple(positive_points_xy(mask, 5).astype(int).T[::-1])].all()


def test_both_protocols_know_the_same_strategies():
    """A strategy's name means one thing; its protocol says by which rule."""
    assert list(PROTOCOLS["paper"]) == list(PROTOCOLS["released"]) == list(STRATEGIES)
    assert {strategy.protocol for strategy in RELEASED.values()} == {"released"}
    assert {strategy.protocol for strategy in STRATEGIES.values()} == {"paper"}
    assert len(STRATEGIES) == 6


def test_where_the_released_code_stops_the_records_are_failed():
    """A one-pixel object has a prompt by the paper's rule, and by the released code none."""
    mask = np.zeros((20, 20), dtype=bool)
    mask[9, 9] = True
    image = np.full((20, 20, 3), 40, dtype=np.uint8)
    image[mask] = 150
    sample = Sample("i", image, "d", "CT", (Target("i#dot", "dot", mask),))
    outcomes = {}
    for protocol, table in PROTOCOLS.items():
        plan = Plan(tuple(s for s in table.values() if s.make is not None))
        (one,) = evaluate([sample], fakes.planted(), plan)
        outcomes[protocol] = {(r.outcome, r.protocol, r.prompt_id is None) for r in one.records}
        reasons = {r.reason for r in one.records if r.outcome == "failed"}

    assert outcomes["released"] == {("failed", "released", True)}
    assert {outcome for outcome, _, _ in outcomes["paper"]} <= {"ok", "miss"}
    assert reasons == {"the released code stops here: 1 pixels on the object, fewer than 5"}
