"""Write tests/golden/litemedsam.npz with the authors' own preprocessing, from their repository.

    python tests/golden_litemedsam.py PATH/TO/CVPR24_LiteMedSAM_infer.py

Only the three functions of preprocessing are taken from the file and run; none is kept here.
"""

import ast
import sys
from pathlib import Path

import cv2
import numpy as np

SHAPES = ((64, 48), (512, 440), (240, 196), (257, 255), (33, 700), (1024, 1024))
WANTED = {"resize_longest_side", "pad_image", "resize_box_to_256"}


def picture(height: int, width: int) -> np.ndarray:
    """Draw a smooth RGB image with edges, without symmetry; the test draws it again."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    red = 90 + 80 * np.sin(9 * x + 4 * y)
    green = 200 * x + 20 * (y > 0.3)
    blue = 60 + 120 * ((x - 0.3) ** 2 + (y - 0.4) ** 2 < 0.04)
    return np.clip(np.stack([red, green, blue], axis=2) + 10, 0, 255).astype(np.uint8)


def boxes_of(height: int, width: int) -> np.ndarray:
    """Give closed boxes of whole pixels, among them the whole image and one pixel."""
    return np.array(
        [
            [0, 0, width - 1, height - 1],
            [width // 3, height // 4, width // 2, height // 2],
            [width - 1, height - 1, width - 1, height - 1],
        ]
    )


def original_functions(path: Path) -> dict[str, object]:
    """Take the functions of preprocessing out of the authors' script."""
    tree = ast.parse(path.read_text())
    tree.body = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in WANTED
    ]
    names: dict[str, object] = {"cv2": cv2, "np": np}
    exec(compile(tree, str(path), "exec"), names)
    return names


def main(path: Path) -> None:
    """Run the authors' preprocessing on every picture and keep a part of each result."""
    original = original_functions(path)
    golden = {}
    for height, width in SHAPES:
        small = original["resize_longest_side"](picture(height, width), 256)
        scaled = (small - small.min()) / np.clip(small.max() - small.min(), 1e-8, None)
        padded = original["pad_image"](scaled, 256).astype(np.float32).transpose(2, 0, 1)
        key = f"{height}x{width}"
        golden[f"{key}/tensor"] = padded[:, ::3, ::5]
        golden[f"{key}/sum"] = padded.astype(np.float64).sum()
        golden[f"{key}/size"] = np.array(small.shape[:2])
        golden[f"{key}/boxes"] = np.stack(
            [original["resize_box_to_256"](b, (height, width)) for b in boxes_of(height, width)]
        )
    target = Path(__file__).parent / "golden" / "litemedsam.npz"
    target.parent.mkdir(exist_ok=True)
    np.savez_compressed(target, **golden)
    print(target, target.stat().st_size)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
