"""How long LiteMedSAM's encoder takes: by our commands, as plain eager PyTorch, and exported.

Plain is a script as one writes it: the network's own modules under `torch.inference_mode`, in a
process that is set up in no way. Ours starts as `promptseg` does, which keeps freed memory, and
runs the stages in strips; together are the images that an evaluation embeds at once, each on a core
of its own. Onnx is `--backend onnx`. Every side runs in processes of its own, in
turn, and measures in the same process what the machine makes of a product of large matrices.

python benchmarks/encoder.py
python benchmarks/encoder.py --repeats 5 --images 5
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from promptseg.memory import keep_freed_memory
from promptseg.models import tinyvit_strips
from promptseg.models.cores import each_on_one_core
from promptseg.models.exported import exported
from promptseg.models.litemedsam import SIDE, load

SIDES = ("plain", "ours", "together", "onnx")
MATRIX, PRODUCTS = 4096, 5
FASTER, SHARE = 2.3, 0.6  # the goals: times as fast as plain; of the rate of a matrix product


def median_s(work: Callable[[], object], repeats: int) -> float:
    """Time a piece of work, once unmeasured; seconds."""
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def matrix_rate() -> float:
    """Measure products of two square matrices in float32; FLOP/s."""
    left, right = torch.rand(2, MATRIX, MATRIX)
    return 2 * MATRIX**3 / median_s(lambda: left @ right, PRODUCTS)


def as_modules() -> None:
    """Let the encoder run as its modules."""
    tinyvit_strips.in_strips = lambda module, x: False


def count_flop() -> int:
    """Count the FLOP of one image, as the modules compute it."""
    as_modules()
    model = load()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.encoder(torch.rand(1, 3, SIDE, SIDE))
    return counter.get_total_flops()


def measure(side: str, images: int) -> dict[str, float]:
    """Time one side in this process: seconds an image, and the machine's FLOP/s."""
    if side == "plain":
        as_modules()
    else:
        keep_freed_memory()
    image = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
    model = load()
    pixels = model.pixels(image)
    encode = exported(model).encode if side == "onnx" else model.encoder
    count = model.images_at_once if side == "together" else 1

    def work() -> None:
        if count > 1:
            each_on_one_core(encode, [pixels] * count)
        else:
            encode(pixels)

    with torch.inference_mode():
        return {"seconds": median_s(work, images) / count, "rate": matrix_rate()}


def main() -> None:
    """Run the sides in turn, and print a table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--side", choices=SIDES)
    options.add_argument("--repeats", type=int, default=3, help="Processes of every side.")
    options.add_argument("--images", type=int, default=5, help="Timed images of a process.")
    options.add_argument("--without", choices=SIDES, action="append", default=[])
    given = options.parse_args()
    if given.side:
        print(json.dumps(measure(given.side, given.images)))
        return
    sides = [side for side in SIDES if side not in given.without]
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(given.repeats):
        for side in sides:
            command = [sys.executable, __file__, "--side", side, "--images", str(given.images)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found[side].append(json.loads(done.stdout.splitlines()[-1]))
            print(side, found[side][-1], file=sys.stderr, flush=True)
    flop = count_flop()
    seconds = {
        side: float(np.median([one["seconds"] for one in rows])) for side, rows in found.items()
    }
    rate = np.median([one["rate"] for rows in found.values() for one in rows])
    print(
        f"{flop / 1e9:.1f} GFLOP an image; matrix product {rate / 1e9:.0f} GFLOP/s; "
        f"{torch.get_num_threads()} threads\n"
    )
    print("| side | s an image | times plain | GFLOP/s | share of the matrix product |")
    print("|---|---|---|---|---|")
    for side in sides:
        own = flop / seconds[side]
        # each process against its own rate: what else ran then slowed both
        share = np.median([flop / one["seconds"] / one["rate"] for one in found[side]])
        times = f"{seconds['plain'] / seconds[side]:.2f}" if "plain" in seconds else ""
        print(f"| {side} | {seconds[side]:.3f} | {times} | {own / 1e9:.0f} | {share:.2f} |")
    print(f"\nGoals: at least {FASTER} times plain, and {SHARE} of the matrix product.")


if __name__ == "__main__":
    main()
