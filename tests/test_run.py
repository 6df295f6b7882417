"""A run on disk: resumed, refused, killed, and the same whatever happened to it."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fakes
import numpy as np
import polars as pl
import pytest
from phantom import write_phantoms
from polars.testing import assert_frame_equal

from promptseg.attributes import attributes_of
from promptseg.corpus import Corpus, RowGroup, open_corpus
from promptseg.errors import DataError
from promptseg.frame import load_run
from promptseg.jitter import Jitter
from promptseg.plan import Plan
from promptseg.prompt import Everything
from promptseg.record import TIMES, RunFolder, open_run, settings_that_differ, start_run
from promptseg.released import RELEASED
from promptseg.run import (
    MOST_PARTS,
    describe_run,
    evaluate_corpus,
    failures,
    keep_profile,
    parts_of,
)
from promptseg.sample import Sample, Unreadable, regroup
from promptseg.stages import STAGES, Stopwatch
from promptseg.strategy import STRATEGIES
from promptseg.subset import Choice, choose_subset

BOTH = Plan((STRATEGIES["box"], STRATEGIES["box+point"]))


def _run(
    corpus: Corpus,
    out: Path,
    *models: fakes.Fake,
    plan: Plan = BOTH,
    retry_failed: bool = False,
) -> RunFolder:
    asked = {f"fakes:{model.name}": model for model in models}
    folder = start_run(out, describe_run(corpus, asked, plan))
    for _ in evaluate_corpus(corpus, folder, asked, plan, retry_failed=retry_failed):
        pass
    return folder


def _same(left: RunFolder, right: RunFolder) -> None:
    assert_frame_equal(left.records().drop(TIMES), right.records().drop(TIMES))
    for ours, theirs in ((left.prompts(), right.prompts()), (left.masks(), right.masks())):
        by = [name for name in ("prompt_id", "mask_index") if name in ours.columns]
        assert_frame_equal(ours.sort(by), theirs.sort(by))
    assert_frame_equal(left.attributes().sort("target_id"), right.attributes().sort("target_id"))


def test_all_records_of_a_corpus_are_kept_and_read_back(tmp_path: Path):
    """Images, targets, strategies and selections multiply; each record stands for itself."""
    corpus = write_phantoms(tmp_path / "c", range(20))
    records = _run(corpus, tmp_path / "r", fakes.reference(), fakes.box()).records()

    assert records.height == 20 * 2 * 2 * 3 * 2
    assert (
        records.select("model", "image_id", "target_id", "strategy", "selection").is_unique().all()
    )
    assert records.filter(pl.col("model") == "reference", selection="single")["dice"].min() == 1


def test_every_target_is_described_once_whatever_the_number_of_models(tmp_path: Path):
    """What a run keeps is what the image and the mask say."""
    corpus = write_phantoms(tmp_path / "c", range(6))
    folder = _run(corpus, tmp_path / "r", fakes.reference(), fakes.box())
    kept = {row["target_id"]: row for row in folder.attributes().to_dicts()}

    assert set(kept) == set(folder.records()["target_id"])
    assert folder.attributes().height == len(kept)
    for group in corpus.row_groups():
        for sample in corpus.read(group):
            for target in regroup(sample.targets, "class"):
                found = dataclasses.asdict(attributes_of(sample.image, target.mask))
                assert kept[target.target_id] == {
                    **found, "image_id": sample.image_id, "target_id": target.target_id,
                }  # fmt: skip


def test_a_finished_run_is_not_evaluated_again(tmp_path: Path):
    """The same command once more embeds nothing."""
    corpus = write_phantoms(tmp_path / "c", range(20))
    _run(corpus, tmp_path / "r", fakes.reference())
    again = fakes.reference()
    _run(corpus, tmp_path / "r", again)

    assert again.embedded == 0


def test_a_missing_part_alone_is_made_again(tmp_path: Path):
    """What a killed run lost is one part; the result is that of an undisturbed run."""
    corpus = write_phantoms(tmp_path / "c", range(40))
    whole = _run(corpus, tmp_path / "whole", fakes.reference())
    broken = _run(corpus, tmp_path / "broken", fakes.reference())
    (tmp_path / "broken/records/part-00001.parquet").unlink()
    assert broken.parts_done() == 9
    model = fakes.reference()
    _same(whole, _run(corpus, tmp_path / "broken", model))

    assert model.embedded == 4


def test_a_shuffled_corpus_gives_the_same_records(tmp_path: Path):
    """Records depend on what they are of, never on the order."""
    order = np.random.default_rng(0).permutation(40).tolist()
    straight = write_phantoms(tmp_path / "a", range(40))
    shuffled = write_phantoms(tmp_path / "b", order)

    assert straight.info.fingerprint == shuffled.info.fingerprint
    left = _run(straight, tmp_path / "ra", fakes.box())
    right = _run(shuffled, tmp_path / "rb", fakes.box())
    assert order != sorted(order)
    _same(left, right)


def test_twenty_kills_at_random_moments_leave_the_same_records(tmp_path: Path):
    """Kill -9, start again, twenty times; then compare with a run that nobody disturbed."""
    corpus = write_phantoms(tmp_path / "c", range(200))
    script = Path(__file__).with_name("kill_nine.py")
    command = [sys.executable, str(script), str(corpus.path), str(tmp_path / "killed")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    killed = open_run(tmp_path / "killed")
    parts_after_each_kill = [int(word) for word in done.stdout.split()]

    assert len(parts_after_each_kill) == 20
    assert 10 < parts_after_each_kill[-1] < 50, "the kills have to fall into the work"
    assert not list((tmp_path / "killed").rglob(".*.tmp")), "what kills left is swept away"
    _same(_run(corpus, tmp_path / "whole", fakes.slow()), killed)


class _BrokenLater(Corpus):
    """A corpus of which the second row group cannot be read at all."""

    __slots__ = ()

    def read(self, group: RowGroup, targets: object = None) -> Iterator[Sample | Unreadable]:
        if group.index == 1:
            raise DataError("damaged in part 0")
        yield from Corpus.read(self, group)


def test_what_was_asked_before_the_corpus_fails_is_kept(tmp_path: Path):
    """Reading is ahead of the model: an error comes after the parts before it are written."""
    whole = write_phantoms(tmp_path / "c", range(12))
    with pytest.raises(DataError, match="damaged in part 0"):
        _run(_BrokenLater(whole.path, whole.info), tmp_path / "r", fakes.reference())

    assert open_run(tmp_path / "r").parts_done() == 1


def test_what_was_asked_before_an_interruption_is_kept(tmp_path: Path):
    """The first image of the next part is interrupted: the part before it was done."""
    corpus = write_phantoms(tmp_path / "c", range(1, 21))  # fakes.interrupted: at the ninth
    with pytest.raises(KeyboardInterrupt):
        _run(corpus, tmp_path / "r", fakes.interrupted())

    assert open_run(tmp_path / "r").parts_done() == 2


def test_a_watched_run_has_the_same_records_and_all_stages(tmp_path: Path):
    """A profile looks on: of every stage that there is, and of all images and prompts."""
    corpus = write_phantoms(tmp_path / "c", range(9))
    models = {"fakes:all_of_it": fakes.all_of_it()}
    plan = Plan((STRATEGIES["everything"], STRATEGIES["box"]))
    plan = dataclasses.replace(plan, everything={"all_of_it": Everything(points_per_side=2)})
    stopwatch = Stopwatch()
    folder = start_run(tmp_path / "watched", describe_run(corpus, models, plan))
    for _ in evaluate_corpus(corpus, folder, models, plan, stopwatch=stopwatch):
        pass
    profile = stopwatch.profile()
    keep_profile(folder, profile)
    calls = {line.stage: line.calls for line in profile.stages}

    _same(folder, _run(corpus, tmp_path / "r", fakes.all_of_it(), plan=plan))
    assert set(calls) == set(STAGES) - {"loading"}
    assert (profile.images, profile.prompts) == (9, 9 * 3)
    assert (calls["embedding"], calls["everything"], calls["attributes"]) == (9, 9, 9)
    assert (calls["scoring"], calls["writing"], calls["reading"]) == (18, 3, 10)
    assert json.loads((folder.path / "profile.json").read_bytes())["images"] == 9
    assert open_run(folder.path).parts_done() == 3, "a profile in its folder disturbs no run"


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        (dataclasses.replace(BOTH, seeds=(7,)), r"seeds was \[0\] and is \[7\]"),
        (dataclasses.replace(BOTH, unit="instance"), "unit was 'class' and is 'instance'"),
        (Plan((STRATEGIES["box"],)), "strategies was"),
        (dataclasses.replace(BOTH, jitter=(Jitter("shift", "px", 1, 2),)), r"jitter was \[\]"),
        (dataclasses.replace(BOTH, max_targets=1), "max_targets was None and is 1"),
        (Plan(tuple(RELEASED[s.name] for s in BOTH.strategies)), "protocol was 'paper'"),
    ],
)
def test_another_run_s_folder_is_refused(tmp_path: Path, plan: Plan, told: str):
    """Records of two settings never mix; the line says which setting it is."""
    corpus = write_phantoms(tmp_path / "c", range(3))
    _run(corpus, tmp_path / "r", fakes.reference())
    with pytest.raises(DataError, match=told):
        _run(corpus, tmp_path / "r", fakes.reference(), plan=plan)


def test_another_batch_size_goes_on_with_a_run_on_a_cpu_alone(tmp_path: Path):
    """There no record depends on it; on a GPU last digits may."""
    corpus = write_phantoms(tmp_path / "c", range(3))
    models = {"fakes:reference": fakes.reference()}
    other = dataclasses.replace(BOTH, batch_size=7, workers=2)
    for device in ("cpu", "cuda"):
        first, second = (describe_run(corpus, models, p, device=device) for p in (BOTH, other))
        told = settings_that_differ(first, second)
        assert told == ([] if device == "cpu" else ["batch_size was 64 and is 7"])


def test_other_thresholds_of_everything_and_another_subset_are_refused(tmp_path: Path):
    """What was chosen, and by which rule masks survived, are settings as others are."""
    corpus = write_phantoms(tmp_path / "c", range(3))
    models = {"fakes:planted": fakes.planted()}
    plan = Plan((STRATEGIES["everything"],), everything={"planted": Everything(4, 0.2)})
    chosen = choose_subset(corpus, Choice(limit=2), unit="class")
    start_run(tmp_path / "r", describe_run(corpus, models, plan, subset=chosen))
    other = dataclasses.replace(plan, everything={"planted": Everything(4, 0.3)})
    with pytest.raises(DataError, match="everything was"):
        start_run(tmp_path / "r", describe_run(corpus, models, other, subset=chosen))
    with pytest.raises(DataError, match="subset was"):
        start_run(tmp_path / "r", describe_run(corpus, models, plan))
    part = dict(list(chosen.targets.items())[:1])
    fewer = dataclasses.replace(chosen, targets=part)
    with pytest.raises(DataError, match="layout was"):
        start_run(tmp_path / "r", describe_run(corpus, models, plan, subset=fewer))


def test_a_subset_is_evaluated_alone_and_gone_on_with(tmp_path: Path):
    """Only its images are read, only its targets scored, as in the whole corpus."""
    corpus = write_phantoms(tmp_path / "c", range(20))
    choice = Choice(where="object = 'disc'", limit=7)
    subset = choose_subset(corpus, choice, unit="class")
    model = fakes.reference()
    asked = {"fakes:reference": model}
    folder = start_run(tmp_path / "r", describe_run(corpus, asked, BOTH, subset=subset))
    images = sum(p.images for p in evaluate_corpus(corpus, folder, asked, BOTH, subset=subset))
    records = folder.records()
    whole = _run(corpus, tmp_path / "whole", fakes.reference()).records()
    ids = records["image_id"].unique().to_list()
    same = whole.filter(pl.col("image_id").is_in(ids), object="disc")

    assert images == model.embedded == len(ids) == 7
    assert (folder.run.n_images, folder.run.of_images, folder.run.n_targets) == (7, 20, 7)
    assert_frame_equal(records.drop(TIMES), same.drop(TIMES))
    for _ in evaluate_corpus(corpus, folder, asked, BOTH, subset=subset):
        pass
    assert model.embedded == 7


def test_another_corpus_and_other_weights_are_refused(tmp_path: Path):
    """The fingerprint holds the data and the weights, not their names."""
    corpus = write_phantoms(tmp_path / "c", range(3))
    other = write_phantoms(tmp_path / "d", range(4))
    _run(corpus, tmp_path / "r", fakes.reference())
    with pytest.raises(DataError, match="corpus_fingerprint was"):
        _run(other, tmp_path / "r", fakes.reference())
    with pytest.raises(DataError, match="models was"):
        _run(corpus, tmp_path / "r", dataclasses.replace(fakes.reference(), weights_hash="1" * 64))


def test_another_backend_is_recorded_and_refused(tmp_path: Path):
    """It changes the last digits; a run of before there were backends is one of PyTorch."""
    corpus = write_phantoms(tmp_path / "c", range(2))
    exported = fakes.reference()
    exported.backend = "onnx, export 1, openvino 1.0"  # type: ignore[attr-defined]
    folder = _run(corpus, tmp_path / "r", exported)

    assert folder.run.backends == {exported.name: "onnx, export 1, openvino 1.0"}
    with pytest.raises(DataError, match="backends was"):
        _run(corpus, tmp_path / "r", fakes.reference())

    _run(corpus, tmp_path / "old", fakes.reference())
    file = tmp_path / "old/run.json"
    content = json.loads(file.read_text())
    assert content.pop("backends") == {}
    file.write_text(json.dumps(content))
    assert _run(corpus, tmp_path / "old", fakes.reference()).run.backends == {}
    with pytest.raises(DataError, match="backends was"):
        _run(corpus, tmp_path / "old", exported)


def test_a_folder_with_other_files_is_refused(tmp_path: Path):
    """Nothing of the user's is written over."""
    corpus = write_phantoms(tmp_path / "c", range(1))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").touch()
    with pytest.raises(DataError, match="is not a run"):
        _run(corpus, tmp_path / "mine", fakes.reference())


def test_a_damaged_image_fails_its_records_and_no_others(tmp_path: Path):
    """One byte flipped in the corpus: found by its hash, recorded, and the run goes on."""
    corpus = write_phantoms(tmp_path / "c", range(20))
    part = tmp_path / "c/images/part-00000.parquet"
    frame = pl.read_parquet(part).to_arrow().to_pylist()
    content = bytearray(frame[3]["image"]["bytes"])
    content[-20] ^= 1
    frame[3]["image"]["bytes"] = bytes(content)
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(frame, pq.read_schema(part)), part, row_group_size=4)
    folder = _run(corpus, tmp_path / "r", fakes.reference())
    failed = folder.records().filter(outcome="failed")

    assert failed["image_id"].unique().to_list() == ["phantom/0003"]
    assert failed.height == 2 * 2 * 3
    assert list(failures(folder).items()) == [(failed["reason"][0], 1)]
    assert "does not match its sha256" in failed["reason"][0]


def test_the_number_of_files_is_bounded_whatever_the_corpus():
    """A million images in row groups of 4 make no more than MOST_PARTS parts per model."""
    groups = [RowGroup(index // 64, index % 64, 4) for index in range(1_000_000 // 4)]
    parts = parts_of(groups, 2)

    assert len(parts) <= MOST_PARTS + 2
    assert [g for part in parts if part.model == 1 for g in part.groups] == groups


@pytest.mark.parametrize("content", ["", "[1]", '{"schema_version": 1}', "{"])
def test_a_damaged_run_file_is_said_to_be_damaged(tmp_path: Path, content: str):
    """Whatever stands in run.json, there is no traceback."""
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(DataError, match="damaged"):
        open_run(tmp_path)


def test_models_in_another_order_are_refused(tmp_path: Path):
    """Parts are numbered by the order of the models: swapping them would lose one."""
    corpus = write_phantoms(tmp_path / "c", range(3))
    _run(corpus, tmp_path / "r", fakes.reference(), fakes.box())
    with pytest.raises(DataError, match="models was"):
        _run(corpus, tmp_path / "r", fakes.box(), fakes.reference())


def test_a_corpus_in_another_order_is_refused(tmp_path: Path):
    """The images are the same, but parts are numbered by their place: some would be lost."""
    straight = write_phantoms(tmp_path / "a", range(8))
    turned = write_phantoms(tmp_path / "b", reversed(range(8)))
    _run(straight, tmp_path / "r", fakes.reference())
    with pytest.raises(DataError, match="layout was"):
        _run(turned, tmp_path / "r", fakes.reference())


def test_failures_are_kept_until_they_are_tried_again(tmp_path: Path):
    """Out of memory once: with --retry-failed the run ends as an undisturbed one."""
    corpus = write_phantoms(tmp_path / "c", range(6))
    broken = dataclasses.replace(fakes.raises(), name="reference")
    assert failures(_run(corpus, tmp_path / "r", broken))
    assert failures(_run(corpus, tmp_path / "r", fakes.reference()))
    mended = _run(corpus, tmp_path / "r", fakes.reference(), retry_failed=True)

    assert not failures(mended)
    _same(_run(corpus, tmp_path / "whole", fakes.reference()), mended)


def test_a_moved_corpus_is_found_again_when_the_run_goes_on(tmp_path: Path):
    """The run's file tells where the corpus is now, so that a report finds its pictures."""
    corpus = write_phantoms(tmp_path / "c", range(3))
    _run(corpus, tmp_path / "r", fakes.reference())
    (tmp_path / "c").rename(tmp_path / "d")
    _run(open_corpus(tmp_path / "d"), tmp_path / "r", fakes.reference())

    assert open_run(tmp_path / "r").run.corpus_path == str(tmp_path / "d")


def test_a_changed_mask_is_not_scored_as_if_it_were_the_old_one(tmp_path: Path):
    """An edited part of the corpus: its images fail, with the reason."""
    corpus = write_phantoms(tmp_path / "c", range(3))
    part = tmp_path / "c/targets/part-00000.parquet"
    pl.read_parquet(part).with_columns(object=pl.lit("liver")).write_parquet(part)
    folder = _run(open_corpus(corpus.path), tmp_path / "r", fakes.reference())

    assert set(failures(folder)) == {"its facts or masks were changed after it was curated"}


@pytest.mark.parametrize("kind", ["images", "targets"])
def test_a_lost_part_of_a_corpus_is_noticed(tmp_path: Path, kind: str):
    """Nothing is paired with the wrong part, and no image vanishes."""
    write_phantoms(tmp_path / "c", range(3))
    (tmp_path / "c" / kind / "part-00000.parquet").unlink()
    with pytest.raises(DataError, match=f"its {kind}/ holds 0 rows"):
        open_corpus(tmp_path / "c")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_parts", "3"),
        ("models", []),
        ("strategies", None),
        ("corpus_path", None),
        ("seeds", 7),
        ("max_targets", True),
        ("max_targets", "3"),
    ],
)
def test_a_run_file_with_a_wrong_value_is_damaged(tmp_path: Path, name: str, value: object):
    """Edited by hand: one line, no traceback later."""
    _run(write_phantoms(tmp_path / "c", range(1)), tmp_path / "r", fakes.reference())
    file = tmp_path / "r/run.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), name: value}))
    with pytest.raises(DataError, match=f"{name} is"):
        open_run(tmp_path / "r")


def test_a_part_with_other_columns_is_named(tmp_path: Path):
    """A Parquet file that is none of ours in the place of a part."""
    folder = _run(write_phantoms(tmp_path / "c", range(1)), tmp_path / "r", fakes.reference())
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "r/records/part-00000.parquet")
    with pytest.raises(DataError, match=r"part-00000\.parquet cannot be read"):
        folder.records()


def test_runs_load_as_one_frame_with_what_their_targets_look_like(tmp_path: Path):
    """Every record once, with its run and the attributes of its target."""
    corpus = write_phantoms(tmp_path / "c", range(6))
    first = _run(corpus, tmp_path / "one.run", fakes.reference())
    _run(corpus, tmp_path / "two.run", fakes.box())

    frame = load_run(tmp_path / "one.run", str(tmp_path / "two.run"))

    assert frame["run"].unique().sort().to_list() == ["one.run", "two.run"]
    assert frame.height == 2 * first.records().height
    assert frame["area_px"].null_count() == 0
    assert frame.to_pandas()["dice"].max() == 1
    with pytest.raises(ValueError, match="needs the folder"):
        load_run()
