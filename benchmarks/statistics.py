"""Do intervals cover as often as they say, and do tests reject as rarely? On simulated patients.

python benchmarks/statistics.py

Every repetition draws subjects, whose images are alike. Symmetric: subjects' means are normal.
Skewed: most subjects are good and few are bad, as DICE is (1 minus a gamma variable of shape 2).
"""

import argparse

import numpy as np
from jaxtyping import Float

from promptseg.significance import can_pass, holm, sign_flip_p
from promptseg.stats import DRAWS, FEWEST, MANY, bootstrap_interval, t_interval

REPETITIONS = 2000
SIZES = (5, 6, 7, 8, 9, 10, 11, 12, 15, 20, 29, 30, 60)
BETWEEN, WITHIN = 0.1, 0.05  # standard deviations of subjects, and of images in a subject
MEAN = 0.8


def subjects(rng: np.random.Generator, n: int, shape: str) -> Float[np.ndarray, "n"]:
    """Draw the true means of subjects, whose expectation is MEAN."""
    if shape == "symmetric":
        drawn = MEAN + BETWEEN * rng.normal(size=n)
    else:
        scale = BETWEEN / np.sqrt(2)
        drawn = MEAN + 2 * scale - rng.gamma(2.0, scale, size=n)
    values: Float[np.ndarray, " n"] = drawn
    return values


def images(rng: np.random.Generator, means: Float[np.ndarray, "n"]) -> list[Float[np.ndarray, "k"]]:
    """Draw 1 to 20 images of every subject."""
    counts = rng.integers(1, 21, size=len(means))
    return [
        mean + WITHIN * rng.normal(size=count) for mean, count in zip(means, counts, strict=True)
    ]


def interval(rng: np.random.Generator, means: Float[np.ndarray, "n"]) -> tuple[float, float]:
    """Give the interval that the report gives for so many subjects."""
    n = len(means)
    if n < MANY:
        return t_interval(means[None])
    drawn = rng.multinomial(n, [1 / n] * n, size=DRAWS).astype(np.float64)
    return bootstrap_interval(means[None], drawn)


def by_image(rng: np.random.Generator, own: list[Float[np.ndarray, "k"]]) -> tuple[float, float]:
    """Give what the percentile bootstrap over images gives: the field's habit."""
    whole = np.concatenate(own)
    means = rng.choice(whole, size=(500, len(whole))).mean(axis=1)
    lo, hi = np.quantile(means, [0.025, 0.975])
    return float(lo), float(hi)


def coverage(shape: str, n: int, repetitions: int) -> tuple[float, float, float]:
    """Count how often both intervals hold the truth, and how wide ours is."""
    rng = np.random.default_rng([n, len(shape)])
    hits, naive, width = 0, 0, 0.0
    for _ in range(repetitions):
        own = images(rng, subjects(rng, n, shape))
        lo, hi = interval(rng, np.array([values.mean() for values in own]))
        hits += lo <= MEAN <= hi
        width += hi - lo
        low, high = by_image(rng, own)
        naive += low <= MEAN <= high
    return hits / repetitions, naive / repetitions, width / repetitions


def levels(shape: str, n: int, n_tests: int, repetitions: int) -> tuple[float, float]:
    """Count rejections at 5 % of one test, and of any of several after Holm, where all are null.

    A difference of two alike models is symmetric even where each is skewed: it is that of two
    draws. The tests of a family share their subjects, as the rows of a table do.
    """
    rng = np.random.default_rng([7, n, len(shape)])
    alone, family = 0, 0
    for _ in range(repetitions):
        shared = subjects(rng, n, shape) - subjects(rng, n, shape)
        p = []
        for _ in range(n_tests):
            own = 0.7 * shared + 0.7 * (subjects(rng, n, shape) - subjects(rng, n, shape))
            p.append(sign_flip_p(own, seed=int(rng.integers(2**31))))
        alone += p[0] <= 0.05
        able = can_pass([n] * n_tests)
        family += (
            min(holm([value for value, is_able in zip(p, able, strict=True) if is_able])) <= 0.05
        )
    return alone / repetitions, family / repetitions


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    told = parser.parse_args()
    error = 1.96 * np.sqrt(0.95 * 0.05 / told.repetitions)
    print(f"{told.repetitions} repetitions; Monte-Carlo error of 95 %: {100 * error:.1f} points\n")
    print(
        "| subjects | symmetric | skewed | mean width | bootstrap over images, symmetric | skewed |"
    )
    print("|---|---|---|---|---|---|")
    for n in SIZES:
        if n < FEWEST:
            continue
        even, naive_even, width = coverage("symmetric", n, told.repetitions)
        odd, naive_odd, _ = coverage("skewed", n, told.repetitions)
        print(
            f"| {n} | {100 * even:.1f} % | {100 * odd:.1f} % | {width:.3f} | "
            f"{100 * naive_even:.1f} % | {100 * naive_odd:.1f} % |",
            flush=True,
        )
    print("\n| subjects | differences of | one test rejects | any of 10 after Holm |")
    print("|---|---|---|---|")
    for n in (12, 20):
        for shape in ("symmetric", "skewed"):
            alone, family = levels(shape, n, 10, told.repetitions if n < 16 else 1000)
            print(
                f"| {n} | {shape} models | {100 * alone:.1f} % | {100 * family:.1f} % |", flush=True
            )


if __name__ == "__main__":
    main()
