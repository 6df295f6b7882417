"""Do intervals cover as often as they say, and do tests reject as rarely? On simulated patients.

python benchmarks/intervals.py

Every repetition draws subjects, whose images are alike. Symmetric: subjects' means are normal.
Skewed: most subjects are good and few are bad, as DICE is (1 minus a gamma variable of shape 2).
"""

import argparse

import numpy as np
from jaxtyping import Float

from promptseg.interval import bootstrap_interval, t_interval
from promptseg.significance import can_pass, holm, sign_flip_p
from promptseg.stats import DRAWS, FEWEST, MANY
from promptseg.tolerance import LOST, radius_interval

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


def best_of(n: int, n_arms: int, repetitions: int) -> tuple[float, float, float]:
    """Count tables of equal arms in which the best seems better than any other.

    By Holm over the contrasts shown, where the best is named beforehand, and where the same scores
    choose it; and by Holm over all pairs, which is the report's.
    """
    rng = np.random.default_rng([11, n, n_arms])
    pairs = [(i, j) for i in range(n_arms) for j in range(i + 1, n_arms)]
    counts = np.zeros(3)
    for _ in range(repetitions):
        own = BETWEEN * rng.normal(size=n) + WITHIN * rng.normal(size=(n_arms, n))
        p = {pair: sign_flip_p(own[pair[0]] - own[pair[1]]) for pair in pairs}
        best = int(own.mean(axis=1).argmax())
        able = can_pass([n] * len(pairs))[0]
        every = dict(zip(pairs, holm(list(p.values())), strict=True))
        for place, (arm, found) in enumerate(((0, None), (best, None), (best, every))):
            shown = [pair for pair in pairs if arm in pair]
            values = holm([p[pair] for pair in shown]) if found is None else []
            if found is not None and able:
                values = [found[pair] for pair in shown]
            counts[place] += min(values, default=1.0) <= 0.05
    fixed, chosen, ours = counts / repetitions
    return float(fixed), float(chosen), float(ours)


def radius_coverage(n: int, repetitions: int) -> float:
    """Count how often the interval of a tolerance radius holds the truth.

    Subjects lose 0.003 DICE a pixel, by a standard deviation of 0.001, with noise at every level.
    """
    rng = np.random.default_rng([13, n])
    at = np.array([5.0, 15.0, 25.0, 35.0])
    hits = 0
    for _ in range(repetitions):
        slopes = 0.003 + 0.001 * rng.normal(size=n)
        losses = np.outer(at, slopes) + 0.01 * rng.normal(size=(len(at), n))
        drawn = rng.multinomial(n, [1 / n] * n, size=DRAWS).astype(np.float64)
        lo, hi = radius_interval(at.tolist(), losses[:, None], drawn if n >= MANY else None)
        hits += (np.inf if lo is None else lo) <= LOST / 0.003 <= (np.inf if hi is None else hi)
    return hits / repetitions


def show_radius(repetitions: int) -> None:
    """Print the coverage of the tolerance radius."""
    print("\n| subjects | the radius lies in its interval |\n|---|---|")
    for n in (5, 8, 12, 20, 29, 30, 60):
        print(f"| {n} | {100 * radius_coverage(n, repetitions):.1f} % |", flush=True)


def show_best(repetitions: int) -> None:
    """Print how often the best of equal arms seems better."""
    print("\n| subjects | arms | named beforehand | chosen by the scores | Holm over all pairs |")
    print("|---|---|---|---|---|")
    for n in (12, 16):
        for n_arms in (4, 11):
            shares = best_of(n, n_arms, repetitions)
            told = " | ".join(f"{100 * share:.1f} %" for share in shares)
            print(f"| {n} | {n_arms} | {told} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--best", action="store_true", help="only the best of equal arms")
    parser.add_argument("--radius", action="store_true", help="only the tolerance radius")
    told = parser.parse_args()
    if told.best or told.radius:
        if told.best:
            show_best(min(told.repetitions, 1000))
        if told.radius:
            show_radius(told.repetitions)
        return
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
    show_best(min(told.repetitions, 1000))
    show_radius(told.repetitions)


if __name__ == "__main__":
    main()
