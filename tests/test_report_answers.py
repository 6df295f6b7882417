"""The first screen, and the figures: what is said for whom, and what is drawn."""

import re
from html import unescape
from pathlib import Path

import numpy as np
from test_report import Tags, folder, page, record, text_of

from promptseg.contrast import Arm, Place
from promptseg.report.frontier import Frontier, frontier


def run_of(path: Path, means: dict[tuple[str, str, str], float], *, subjects: int = 8, **known):
    """Write a run: (model, strategy, task) -> its mean DICE; subjects differ by a little."""
    rng = np.random.default_rng(1)
    records = [
        record(
            model=model, strategy=strategy, task=f"{task} (CT)", object=task, subject=f"s{i}",
            image_id=f"i{i}", target_id=f"i{i}#{task}", dice=dice + 0.01 * rng.normal(),
            embed_ms=100.0 if model == "m" else 400.0, decode_ms=10.0, **known,
        )
        for (model, strategy, task), dice in means.items()
        for i in range(subjects)
    ]  # fmt: skip
    models = dict.fromkeys((model for model, _, _ in means), "a" * 64)
    return folder(
        path, records, models=models, asked={name: name for name in models},
        strategies=list(dict.fromkeys(strategy for _, strategy, _ in means)), selections=["single"],
    )  # fmt: skip


def answers_of(html: str) -> dict[str, str]:
    """Read the first screen back: question -> answer."""
    found = re.findall(r"<div><dt>(.*?)</dt><dd>(.*?)</dd></div>", html, flags=re.DOTALL)
    return {text_of(question): unescape(text_of(answer)) for question, answer in found}


def test_one_model_and_one_prompt_are_said_to_have_no_rival(tmp_path):
    """Nothing is compared, and nothing is claimed of it."""
    means = {("m", "box", "liver"): 0.95, ("m", "box", "vessel"): 0.3}
    said = answers_of(page(tmp_path, run_of(tmp_path / "r", means)))

    assert said["Which model?"].startswith("m is the only model with on-protocol results")
    assert said["Which prompt?"].startswith("Only box / single was run on-protocol with m")
    assert said["How sloppy may the prompt be?"].startswith("Not measured: no prompt was jittered")
    assert "Best on liver (CT) 0.95" in said["On which objects does it work?"]
    assert "worst on vessel (CT) 0.30" in said["On which objects does it work?"]
    assert (
        "In 1 of 2 tasks the mean DICE reaches 0.9, in 1 it stays below 0.5"
        in (said["On which objects does it work?"])
    )
    assert said["Why does it fail where it fails?"] == (
        "Not known: these runs did not describe their targets."
    )
    assert said["How sure is this?"].startswith("8 subjects, 8 images, 16 targets; mean DICE 0.62")
    assert "only 5 to 11 subjects" in said["How sure is this?"]


def test_models_and_prompts_are_ranked_with_their_differences(tmp_path):
    """The planted order and distances, over twelve subjects."""
    means = {
        ("m", "box", "liver"): 0.9, ("m", "point1", "liver"): 0.6, ("n", "box", "liver"): 0.8,
    }  # fmt: skip
    said = answers_of(page(tmp_path, run_of(tmp_path / "r", means, subjects=12)))

    assert said["Which model?"].startswith("m, by box / single (DICE 0.90")
    assert "on common targets); n at its best, by box / single, −0.1" in said["Which model?"]
    # three pairs of 2 ** -11, the smallest p of twelve subjects
    assert "p = 0.0015 after Holm" in said["Which model?"].replace("\u00a0", " ")
    assert re.match(r"For m, box / single \(DICE .*\); then point1 / single −0\.[23]",
                    said["Which prompt?"])  # fmt: skip
    assert "would come first in 100 % of resamples" in said["How sure is this?"]


def test_what_is_not_told_apart_is_no_winner(tmp_path):
    """Two models of one DICE, over twelve subjects: the higher mean is said to be by chance."""
    means = {
        ("m", "box", "liver"): 0.9, ("m", "point1", "liver"): 0.9, ("n", "box", "liver"): 0.9,
    }  # fmt: skip
    said = answers_of(page(tmp_path, run_of(tmp_path / "r", means, subjects=12)))

    assert re.match(r"Not told apart\. Highest: [mn], by ", said["Which model?"])
    assert re.search(r"p = (0\.\d+|1) after Holm, not told apart\)", said["Which model?"])
    assert "not corrected for the number of comparisons" in said["How sure is this?"]


def test_a_winner_among_few_subjects_is_said_to_be_untested(tmp_path):
    """Three subjects, and models 0.1 apart."""
    means = {
        ("m", "box", "liver"): 0.9, ("m", "point1", "liver"): 0.7, ("n", "box", "liver"): 0.8,
    }  # fmt: skip
    said = answers_of(page(tmp_path, run_of(tmp_path / "r", means, subjects=3)))

    assert said["Which model?"].startswith("Too few subjects to test. Highest: m, by box / single")
    assert said["Which prompt?"].startswith("Too few subjects to test. Highest: for m, box / singl")
    assert "not corrected" not in said["How sure is this?"]


def test_masks_of_another_tool_are_ranked_beside_the_prompts(tmp_path):
    """On the targets that both were scored on; what they were made without is said."""
    models = {("m", "box", "liver"): 0.9, ("m", "point1", "liver"): 0.5}
    worse, better = ({("net", "masks", "liver"): dice} for dice in (0.7, 0.95))
    prompted = run_of(tmp_path / "r", models)
    behind = page(tmp_path, prompted, run_of(tmp_path / "q", worse))
    ahead = answers_of(page(tmp_path, prompted, run_of(tmp_path / "p", better)))

    said = answers_of(behind)
    assert said["Which model?"].startswith("m, by box / single (DICE 0.90")
    assert "net at its best, by masks / single, −0.20" in said["Which model?"]
    assert "after Holm" in said["Which model?"]
    assert "The masks of net were made without a prompt." in text_of(behind)
    assert ahead["Which model?"].startswith("net, by masks / single (DICE 0.95")
    assert ahead["Which prompt?"] == (
        "None: net made its masks without one. Of the prompts box / single of m comes first "
        "(DICE 0.902)."
    )
    assert ahead["How sloppy may the prompt be?"] == "Nobody prompts net."
    for wanted in ("m, box / single", "m, point1 / single", "net, masks / single"):
        assert wanted in text_of(behind)


def test_masks_alone_are_compared_without_a_word_of_prompts(tmp_path):
    """Two tools: a table of their own."""
    means = {("one", "masks", "liver"): 0.9, ("two", "masks", "liver"): 0.6}
    html = page(tmp_path, run_of(tmp_path / "r", means))

    assert answers_of(html)["Which model?"].startswith("one, by masks / single (DICE 0.90")
    assert "made without a prompt" not in text_of(html)


def test_everything_is_said_to_have_no_rule_and_not_to_lack_targets(tmp_path):
    """It was run on the same targets."""
    means = {("m", "box", "liver"): 0.9, ("n", "box", "liver"): 0.6}
    grid = {("k", "everything", "liver"): 0.8}
    made = run_of(tmp_path / "r", means), run_of(tmp_path / "q", grid)
    said = answers_of(page(tmp_path, *made))["Which model?"]

    assert "Not ranked, as only everything was run, which has no rule" in said
    assert said.endswith("take a mask: k.")
    assert "few common targets" not in said


def test_the_gap_is_said_with_its_subjects_and_interval(tmp_path):
    """0.1 to the best candidate, of eight subjects; of three without an interval."""

    def made(name: str, subjects: int):
        records = [
            record(selection=selection, subject=f"s{i}", image_id=f"i{i}", target_id=f"i{i}#liver",
                   dice=dice + 0.01 * i * (selection == "oracle"))
            for selection, dice in (("oracle", 0.8), ("predicted", 0.7)) for i in range(subjects)
        ]  # fmt: skip
        return folder(tmp_path / name, records, selections=["oracle", "predicted"])

    many = answers_of(page(tmp_path, made("many", 8)))["Which prompt?"]
    few = answers_of(page(tmp_path, made("few", 3)))["Which prompt?"]

    assert re.search(
        r"loses 0\.135 DICE against the best \(8 subjects, 95 % interval 0\.1\d\d–0\.1\d\d\)", many
    )
    assert few.endswith("loses 0.110 DICE against the best (3 subjects).")


def test_off_protocol_results_have_no_first_screen(tmp_path):
    """There is nothing that may be spoken of."""
    made = run_of(tmp_path / "r", {("m", "box", "liver"): 0.9}, off_protocol=True)
    html = page(tmp_path, made)

    assert answers_of(html) == {}
    assert "No result of m is on-protocol" in text_of(html)


def test_few_subjects_are_said_to_give_no_interval(tmp_path):
    """Three of them."""
    made = run_of(tmp_path / "r", {("m", "box", "liver"): 0.9}, subjects=3)
    said = answers_of(page(tmp_path, made))

    assert said["How sure is this?"].startswith(
        "Not sure: 3 subjects, 3 images, 3 targets, fewer than five subjects in it"
    )
    assert said["On which objects does it work?"].startswith("One task was scored: liver (CT), 0.9")


def test_the_map_has_a_colour_per_tenth_and_hatches_what_is_off_protocol(tmp_path):
    """0.85 is in the ninth step; its text is there for those who see no colour."""
    one = run_of(tmp_path / "r", {("m", "box", "liver"): 0.85})
    other = run_of(tmp_path / "q", {("m", "point1", "liver"): 0.31}, off_protocol=True)
    html = page(tmp_path, one, other)
    tiles = [
        (attributes["class"], attributes["title"])
        for tag, attributes in Tags(html).found
        if tag == "td" and "title" in attributes
    ]

    assert [name for name, _ in tiles] == ["h8", "hatched"]
    assert tiles[0][1].startswith("box / single, liver (CT): DICE 0.8")
    assert "off-protocol" in tiles[1][1]
    assert re.search(r'<td class="h8"[^>]*>0\.8\d</td>', html)


def test_distributions_count_subjects_images_and_targets(tmp_path):
    """Four subjects of five images with two targets each: 4, 20 and 40, at their medians."""
    records = [
        record(
            subject=f"s{s}", image_id=f"i{s}-{i}", target_id=f"i{s}-{i}#{t}",
            dice=0.5 + 0.1 * s + 0.01 * i + 0.001 * t,
        )
        for s in range(4) for i in range(5) for t in range(2)
    ]  # fmt: skip
    html = page(tmp_path, folder(tmp_path / "r", records))
    said = [
        str(attributes["aria-label"])
        for tag, attributes in Tags(html).found
        if tag == "div" and attributes.get("role") == "img"
    ]

    assert [re.sub(".*: median", "median", one)[:11] for one in said] == ["median 0.67"] * 3
    assert [one.rsplit("n ", 1)[1] for one in said] == ["4", "20", "40"]
    assert html.count('class="body"') == 2, "4 subjects are dots"


def placed(*rows: tuple[str, str, float, float]) -> list[Place]:
    """Make places of (model, strategy / selection, DICE, time), the best first."""
    return [
        Place(
            arm=Arm(model, "paper", *how.split("/")), dice=dice, rank=rank, first=None,
            rank_lo=None, rank_hi=None, embed_ms=time, decode_ms=0.0,
            is_frontier=not any(d > dice and t <= time for _, _, d, t in rows),
        )
        for rank, (model, how, dice, time) in enumerate(rows, start=1)
    ]  # fmt: skip


def drawn_of(*rows: tuple[str, str, float, float]) -> Frontier:
    """Draw places."""
    drawn = frontier(placed(*rows), lambda arm: f"{arm.model} {arm.strategy} {arm.selection}")
    assert drawn is not None
    return drawn


def test_the_frontier_is_drawn_through_those_that_nobody_beats():
    """The dear and good, and the cheap and worse; what is dear and worse lies below the steps."""
    box = "box/single"
    drawn = drawn_of(("a", box, 0.9, 400.0), ("b", box, 0.8, 100.0), ("c", box, 0.7, 300.0))
    at = {point.number: point for point in drawn.points}

    assert at[2].x < at[3].x < at[1].x
    assert at[1].y < at[2].y < at[3].y
    assert drawn.path == f"M{at[2].x:.1f} {at[2].y:.1f}H{at[1].x:.1f}V{at[1].y:.1f}"
    assert frontier(placed(("a", box, 0.9, 400.0)), lambda arm: arm.model) is None


def test_a_model_whose_prompts_cost_the_same_is_one_point_and_this_is_said():
    """Its best; of a model whose costs differ every prompt is one, by its best selection."""
    drawn = drawn_of(
        ("n", "box/single", 0.9, 400.0), ("m", "box/single", 0.8, 100.0),
        ("m", "box/predicted", 0.7, 100.0), ("m", "point1/single", 0.6, 101.0),
        ("n", "point1/predicted", 0.5, 300.0), ("n", "point1/single", 0.4, 300.0),
    )  # fmt: skip

    assert {point.number for point in drawn.points} == {1, 2, 5}
    assert drawn.notes == ("All 2 prompts of m cost the same: its best is drawn.",)


def test_where_all_cost_the_same_this_is_said_and_nothing_is_drawn():
    """Two models and two prompts within five percent."""
    drawn = drawn_of(("m", "box/single", 0.9, 102.0), ("n", "point1/single", 0.7, 100.0))

    assert drawn.points == ()
    assert "cost the same, about 102 ms" in drawn.notes[0]


def test_no_label_of_the_frontier_lies_on_another_or_on_a_point():
    """Twenty-four arms, most of them at one place; every label is within the axes."""
    crowd = [(f"m{i}", "box/single", 0.8 - 1e-4 * i, 100.0 + 0.01 * i) for i in range(23)]
    drawn = drawn_of(("best", "box/single", 0.9, 400.0), *crowd)
    labels = [(p.label_x, p.label_y, 7.0 * len(str(p.number))) for p in drawn.points]

    assert len(labels) == 24
    assert not drawn.points[0].is_led
    assert any(point.is_led for point in drawn.points), "a line leads to what lies far away"
    for i, (x, y, width) in enumerate(labels):
        assert drawn.left <= x <= drawn.right
        assert drawn.top <= y <= drawn.bottom
        for other_x, other_y, other_width in labels[:i]:
            assert abs(x - other_x) >= (width + other_width) / 2 or abs(y - other_y) >= 10
        for point in drawn.points:
            assert abs(x - point.x) >= width / 2 + 5 or abs(y - point.y) >= 10


def test_the_costs_name_the_device(tmp_path):
    """Times of a laptop are no times of a server."""
    means = {("m", "box", "liver"): 0.9, ("n", "box", "liver"): 0.8}
    text = text_of(page(tmp_path, run_of(tmp_path / "r", means)))

    assert "Times are of the machine that made the runs (device: cpu), under its load." in text
