"""Write tests/golden/released.npz with the study's own code, from its repository.

    python tests/golden_released.py PATH/TO/utils/get_prompts.py

The file is imported and its `find_all_info(point_num=10)` run on 1,000 random masks; none of it is
kept here. Where it stops, the length of its answer is 0.
"""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

COUNT = 1000
SIDE = 48


def random_masks(seed: int) -> Iterator[np.ndarray]:
    """Draw masks: ellipses, rings, bars, noise of every density, many of them at the edge."""
    rng = np.random.default_rng(seed)
    while True:
        height, width = rng.integers(3, SIDE + 1, 2)
        y, x = np.mgrid[:height, :width]
        mask = np.zeros((height, width), dtype=bool)
        for _ in range(rng.integers(1, 4)):
            cy, cx = rng.uniform(0, height), rng.uniform(0, width)
            ry, rx = rng.uniform(0.5, height / 2 + 1), rng.uniform(0.5, width / 2 + 1)
            away = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2
            match rng.integers(4):
                case 0:
                    mask |= away <= 1
                case 1:
                    mask |= (away <= 1) & (away > 0.6)
                case 2:
                    mask |= (abs(y - cy) < ry / 3) & (abs(x - cx) < rx)
                case _:
                    mask |= rng.random((height, width)) < rng.random() ** 4
        if mask.any():
            yield mask


def main(path: Path) -> None:
    """Run the published function on every mask and keep masks, points, labels and boxes."""
    spec = importlib.util.spec_from_file_location("get_prompts", path)
    assert spec is not None
    assert spec.loader is not None
    published = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(published)
    shapes, bits, points, labels, boxes = [], [], [], [], []
    for mask, _ in zip(random_masks(2024), range(COUNT), strict=False):
        shapes.append(mask.shape)
        bits.append(np.packbits(mask))
        try:
            xy, label, box = published.find_all_info(mask[None].astype(np.uint8), ["object"], 10)
        except ValueError as error:
            if "slice step" not in str(error):
                raise
            xy, label, box = np.full((1, 10, 2), -1), np.full((1, 10), -1), np.full((1, 4), -1)
        points.append(xy[0])
        labels.append(label[0])
        boxes.append(box[0])
    target = Path(__file__).parent / "golden" / "released.npz"
    np.savez_compressed(
        target,
        shapes=np.array(shapes, dtype=np.uint8),
        bits=np.concatenate(bits),
        points=np.array(points, dtype=np.int16),
        labels=np.array(labels, dtype=np.int8),
        boxes=np.array(boxes, dtype=np.int16),
    )
    print(target, target.stat().st_size, "stops:", sum(box[0] < 0 for box in boxes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
