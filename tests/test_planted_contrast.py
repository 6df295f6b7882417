"""From images to findings: a model that fails at low contrast is found out."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import fakes
import numpy as np
import pytest
from phantom import disc
from test_report import text_of
from test_run import _run

from promptseg.corpus import Corpus, open_corpus
from promptseg.corpus_writer import CorpusWriter
from promptseg.factors import Factor, effect, factors, scored_targets
from promptseg.pixels import encode_image
from promptseg.plan import Plan
from promptseg.prompt import Prompt
from promptseg.report import write_report
from promptseg.rows import ImageRow, target_row
from promptseg.sample import Target
from promptseg.strategy import STRATEGIES

BACKGROUND = 100
PLAN = Plan((STRATEGIES["box"],), selections=("single",))
MOST = 60  # grey levels of contrast: DICE is .4 without any, .95 there


def write_contrasts(path: Path, contrasts: tuple[tuple[str, int, int], ...]) -> Corpus:
    """Write noisy discs of 16 subjects a data set, whose contrast is drawn from a range."""
    writer = CorpusWriter(path)
    for dataset, low, high in contrasts:
        for index in range(16 * 5):
            rng = np.random.default_rng([low, index])
            height, width = 64 + index % 5, 72 - index % 4
            mask = disc(height, width, (32, 30 + index % 9), rng.uniform(9, 16))
            grey = BACKGROUND + rng.uniform(low, high) * mask + rng.normal(0, 3, mask.shape)
            image = np.clip(grey, 0, 255).astype(np.uint8)
            image_id, content = f"{dataset}/{index:03d}", encode_image(image)
            row = ImageRow(
                image_id=image_id,
                dataset=dataset,
                subject=f"s{index // 5}",
                modality="CT",
                width=width,
                height=height,
                intensity_rule="none",
                intensity_lo=0,
                intensity_hi=255,
                source=f"{index:03d}.png",
                sha256=hashlib.sha256(content).hexdigest(),
            )
            writer.add(row, content, [target_row(image_id, Target(f"{image_id}#d", "disc", mask))])
    writer.finish(name=path.stem, datasets=[], rules={})
    return open_corpus(path)


def answering(quality: Callable[[float], float]) -> fakes.Answer:
    """Answer with the core of the object, of a DICE that depends on the contrast in the box."""

    def answer(image: np.ndarray, prompt: Prompt) -> np.ndarray:
        inside = fakes.filled_box(image, prompt)
        y, x = np.nonzero(inside)
        radius = (x.max() - x.min() + 1) / 2
        far = np.hypot(y - y.mean(), x - x.mean())
        contrast = float(image[y[far < 5], x[far < 5], 0].mean()) - BACKGROUND
        wobble = np.random.default_rng(int(image.sum())).normal(0, 0.03)
        dice = float(np.clip(quality(contrast) + wobble, 0.05, 0.99))
        count = round(np.pi * radius**2 * dice / (2 - dice))  # a part of the object has this DICE
        mask = np.zeros_like(inside)
        nearest = np.argsort(far, kind="stable")[:count]
        mask[y[nearest], x[nearest]] = True
        return mask

    return answer


def falls(contrast: float) -> float:
    """Fail where the contrast is low."""
    return 0.4 + 0.55 * min(contrast, MOST) / MOST


def found(corpus: Corpus, out: Path, quality: Callable[[float], float]) -> tuple[Factor, object]:
    """Evaluate a model, and give the factor of contrast and the frame behind it."""
    folder = _run(corpus, out, fakes.Fake("planted", answering(quality)), plan=PLAN)
    records, attributes = folder.records(), folder.attributes()
    (one,) = factors(records, attributes)
    rows = {row.attribute: row for row in one.rows}
    return rows["intensity_difference"], scored_targets(records, attributes)


def test_a_model_that_fails_at_low_contrast_is_found_with_sign_and_size(tmp_path):
    """DICE rises from .4 to .95: so does the effect that is drawn, and the report says it."""
    corpus = write_contrasts(tmp_path / "c", (("d", 5, MOST),))
    factor, scored = found(corpus, tmp_path / "r", falls)

    assert factor.rho is not None
    assert factor.rho > 0.9
    assert factor.p_holm is not None
    assert factor.p_holm < 0.001
    steps = effect(scored, "intensity_difference")
    rise = (steps[-1].dice - steps[0].dice) / (steps[-1].middle - steps[0].middle)
    assert rise == pytest.approx(0.55 / MOST, rel=0.15)
    folder = _run(corpus, tmp_path / "r", fakes.Fake("planted", answering(falls)), plan=PLAN)
    told = text_of(write_report([folder], tmp_path / "r.html", most_cases=0).read_text())
    assert re.search(r"DICE rises with [^:]*intensity difference \(\+0\.9", told)


def test_a_model_that_minds_no_contrast_is_not_blamed(tmp_path):
    """The same images, the same wobble, no dependence."""
    corpus = write_contrasts(tmp_path / "c", (("d", 5, MOST),))
    factor, _ = found(corpus, tmp_path / "r", lambda contrast: 0.7)

    assert factor.rho is not None
    assert abs(factor.rho) < 0.3
    assert factor.p_holm is not None
    assert factor.p_holm > 0.05


def test_a_difference_between_data_sets_is_no_effect_of_contrast(tmp_path):
    """Simpson: DICE rises with contrast in both, and where contrast is higher it is lower."""
    corpus = write_contrasts(tmp_path / "c", (("easy", 5, 30), ("hard", 70, 95)))

    def quality(contrast: float) -> float:
        start, base = (5, 0.7) if contrast < 50 else (70, 0.2)
        return base + 0.2 * (contrast - start) / 25

    factor, scored = found(corpus, tmp_path / "r", quality)
    contrast, dice = scored["intensity_difference"].to_numpy(), scored["dice"].to_numpy()

    assert np.corrcoef(contrast, dice)[0, 1] < -0.7  # over all, the wrong way round
    assert factor.rho is not None
    assert factor.rho > 0.6
    assert factor.p_holm is not None
    assert factor.p_holm < 0.01
