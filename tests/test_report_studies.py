"""What the report says of jitter and of attributes, on runs whose answer is planted."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from test_report import Tags, folder, page, record, text_of

from promptseg.attributes import AttributeRow
from promptseg.record import RunFolder

LEVELS = ((0.0, 10.0), (10.0, 20.0), (20.0, 30.0))


def studied(
    path: Path,
    *,
    effect: float = 0.0,
    slope: float = 0.0,
    subjects: int = 12,
    images: int = 4,
    off_protocol: bool = False,
    described: bool = True,
    strategy: str = "box",
) -> RunFolder:
    """Write a run whose DICE rises with contrast by `effect`, and falls by `slope` a pixel."""
    rng = np.random.default_rng(0)
    records, rows = [], []
    for number in range(subjects * images):
        contrast, subject = rng.uniform(0, 100), f"s{number // images}"
        name = f"i{number}"
        exact = 0.7 + effect * (contrast - 50) / 100 + 0.03 * rng.normal()
        common = {
            "image_id": name, "target_id": f"{name}#liver", "subject": subject,
            "off_protocol": off_protocol, "strategy": strategy,
        }  # fmt: skip
        records.append(record(**common, dice=exact))
        for lo, hi in LEVELS if slope else ():
            jitter = {"jitter_mode": "shift", "jitter_unit": "px", "jitter_lo": lo, "jitter_hi": hi}
            records.append(record(**common, **jitter, dice=exact - slope * (lo + hi) / 2))
        rows.append(
            AttributeRow(
                image_id=name,
                target_id=f"{name}#liver",
                area_px=int(rng.integers(900, 1100)),
                area_share=0.1,
                aspect_ratio=float(rng.uniform(0.3, 1)),
                intensity_difference=contrast,
                contrast_to_noise=contrast / 10,
                fourier_order=float(rng.integers(1, 9)),
                fourier_censored=False,
                fourier_order_paper=float(rng.uniform(1, 60)),
                compactness=float(rng.uniform(0.3, 1)),
                n_components=int(rng.integers(1, 3)),
                n_holes=0,
                border_distance_px=int(rng.integers(0, 40)),
            )
        )
    jitter = [f"shift:px:{lo:g}-{hi:g}" for lo, hi in LEVELS] if slope else []
    made = folder(path, [], jitter=jitter, strategies=[strategy], selections=["single"])
    made.write_part(0, records, [], [], rows if described else [])
    return made


def test_what_dice_depends_on_is_said_with_sign_and_interval(tmp_path):
    """Contrast was planted, and nothing else is named."""
    text = text_of(page(tmp_path, studied(tmp_path / "r", effect=0.4)))
    said = text.split("on 48 targets of 12 subjects, DICE ")[1].split("(partial Spearman")[0]

    assert "What DICE depends on" in text
    assert said.startswith("rises with ")
    assert "intensity difference (+0.9" in said
    assert "contrast to noise" in said
    assert "falls with" not in said
    assert "size" not in said
    assert "Partial effects" in text
    assert re.search(
        r"lowest n 1?\d second n 1?\d middle n 1?\d fourth n 1?\d highest n 1?\d", text
    )


def test_an_attribute_of_one_value_is_not_drawn_and_that_is_said(tmp_path):
    """One target in 48 has a hole."""
    made = studied(tmp_path / "r", effect=0.4)
    path = next((made.path / "attributes").glob("*.parquet"))
    looks = pl.read_parquet(path)
    holes = pl.when(pl.int_range(pl.len()) == 0).then(1).otherwise(0).cast(looks.schema["n_holes"])
    looks.with_columns(n_holes=holes).write_parquet(path)
    html = page(tmp_path, made)

    assert "more than 90 % of the targets have one value: holes." in text_of(html)
    assert "Partial effect of holes" not in html
    assert "Partial effect of intensity difference" in html


def test_no_effect_is_said_to_be_none(tmp_path):
    """DICE that depends on nothing."""
    text = text_of(page(tmp_path, studied(tmp_path / "r")))

    assert "no attribute goes with DICE beyond chance" in text


def test_few_subjects_are_said_to_be_too_few(tmp_path):
    """Four of them."""
    text = text_of(page(tmp_path, studied(tmp_path / "r", effect=0.4, subjects=4)))

    assert "16 targets of 4 subjects are too few to test what DICE depends on. The corr" in text
    assert text.count("The correlations below have no interval.") == 1, "nothing is below a reply"


def test_correlations_that_cannot_be_computed_are_not_said_to_be_none(tmp_path):
    """Six targets of six subjects, and seven attributes: nothing is known, and that is said."""
    text = text_of(page(tmp_path, studied(tmp_path / "r", effect=0.4, subjects=6, images=1)))

    assert "what DICE depends on cannot be tested: the targets are too few for 7 attrib" in text
    assert "beyond chance (partial Spearman" not in text


def test_a_run_without_attributes_has_no_such_section(tmp_path):
    """An older run."""
    html = page(tmp_path, studied(tmp_path / "r", effect=0.4, described=False))

    assert "What DICE depends on" not in html


def test_what_is_tolerated_is_said_and_drawn(tmp_path):
    """0.004 a pixel: 0.05 is lost at 12.5 pixels."""
    html = page(tmp_path, studied(tmp_path / "r", slope=0.004))
    text = text_of(html)

    assert "How sloppy may a prompt be?" in text
    assert "when the box is shifted, DICE has lost 0.05 at 12.5 px" in text
    assert "at 25 px it went from 0.69" in text
    assert '<path class="trace"' in html


def test_a_model_that_does_not_mind_is_said_not_to_within_what_was_tried(tmp_path):
    """Nothing is said beyond the last level."""
    text = text_of(page(tmp_path, studied(tmp_path / "r", slope=0.0001)))

    assert "DICE has not lost 0.05 at 25 px" in text
    assert "beyond 25 px" in text


def test_off_protocol_jitter_is_in_the_table_and_not_in_words(tmp_path):
    """It is marked there."""
    text = text_of(page(tmp_path, studied(tmp_path / "r", slope=0.004, off_protocol=True)))

    assert "DICE has lost" not in text
    assert "box / single †" in text


@pytest.mark.parametrize("slope", [0.0, 0.004])
def test_the_page_stays_whole(tmp_path, slope):
    """Tags are balanced, ids come once."""
    html = page(tmp_path, studied(tmp_path / "r", effect=0.4, slope=slope))
    tags = Tags(html)

    ids = [attributes["id"] for _, attributes in tags.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert not tags.open


def test_every_model_s_jitter_is_told_where_no_task_is_common(tmp_path):
    """One model on one task, another on another: there is a line for each."""
    first = studied(tmp_path / "one", slope=0.004)
    other = folder(
        tmp_path / "two", [], jitter=first.run.jitter, strategies=["box"], models={"n": "b" * 64},
        asked={"n": "n"}, selections=["single"], corpus_fingerprint="e" * 64,
    )  # fmt: skip
    records = [
        record(
            model="n", subject=f"s{i}", image_id=f"j{i}", target_id=f"j{i}#spleen", object="spleen",
            task="spleen (CT)", dice=0.8 - 0.01 * at, jitter_mode="shift" if at else None,
            jitter_unit="px" if at else None, jitter_lo=0.0 if at else None,
            jitter_hi=2.0 * at if at else None,
        )
        for i in range(8)
        for at in (0, 10)
    ]  # fmt: skip
    other.write_part(0, records, [], [])
    text = text_of(page(tmp_path, first, other))

    assert "m with box / single: when the box is shifted, DICE has lost 0.05 at" in text
    assert "n with box / single: when the box is shifted, DICE has lost 0.05 at 5 px" in text
