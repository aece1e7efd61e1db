"""Figures: counted by hand on small records, stored and read back, and shown as tables."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from g2vlm.data.samples import SceneSample
from g2vlm.errors import CheckpointError, InputError
from g2vlm.evaluation.benchmarks.synthetic import truth_of
from g2vlm.evaluation.geometry import compare
from g2vlm.evaluation.guessing import guesses
from g2vlm.evaluation.records import AnswerRecord, SceneRecord
from g2vlm.evaluation.report import format_report
from g2vlm.evaluation.results import (
    CheckpointIdentity,
    EvaluationResult,
    fingerprint,
    read_result,
    write_result,
)
from g2vlm.evaluation.summary import (
    differences,
    geometry_figures,
    question_figures,
    strongest_blind,
)
from g2vlm.evaluation.trials import Item
from g2vlm.scene.scene import Scene

LEFT_RIGHT = Item("camera_rotation", "Left or right? A. left B. right", "A", True, ("left", "right"), True)
DEPTH = Item("point_depth", "How deep? Answer with a number in metres.", "2.0", False)


def scene(name: str, answers: dict[str, tuple[str, str]]) -> SceneRecord:
    """A scene whose two questions got two answers with each sight."""
    judged = [
        record
        for sight, (choice, number) in answers.items()
        for record in (LEFT_RIGHT.judge(choice, sight), DEPTH.judge(number, sight))
    ]
    return SceneRecord(name, answers=tuple(judged))


RECORDS = (
    scene(
        "1", {"full": ("A", "2.1"), "no_geometry": ("B", "2.4"), "grey": ("B", "9"), "text_only": ("", "")}
    ),
    scene(
        "2", {"full": ("A", "4.0"), "no_geometry": ("A", "2.4"), "grey": ("A", "9"), "text_only": ("", "")}
    ),
)


def values(records: tuple[SceneRecord, ...]) -> dict[str, float]:
    return {figure.key: figure.value for figure in question_figures(records)}


def test_questions_are_counted_by_hand() -> None:
    found = values(RECORDS)
    assert found["questions/choices/full"] == 1
    assert found["questions/choices/no_geometry"] == 0.5
    assert found["questions/numbers/full"] == 0.5
    assert found["questions/numbers_mra/full"] == pytest.approx((0.9 + 0) / 2)
    assert found["questions/all/full"] == 0.75
    assert found["questions/multi_view/no_geometry"] == 0.5
    assert found["questions/unread/text_only"] == 1
    assert found["families/point_depth/numbers/no_geometry"] == 1
    assert found["gain/choices/no_geometry"] == 0.5
    assert found["gain/numbers/no_geometry"] == -0.5


def test_the_strongest_blind_answer_is_the_one_to_beat() -> None:
    figures = question_figures(RECORDS)
    # Guessing knows from the other scene that "left" and 2.0 are right.
    assert strongest_blind(figures, "numbers") == "guess"
    without = [figure for figure in figures if "guess" not in figure.key]
    assert strongest_blind(without, "choices") == "grey"
    assert strongest_blind([], "choices") is None


def test_guesses_learn_from_other_scenes_only() -> None:
    def record(truth: str, number: str) -> tuple[AnswerRecord, ...]:
        choice = replace(LEFT_RIGHT, truth=truth).judge("", "full")
        return choice, replace(DEPTH, truth=number).judge("", "full")

    answers = [record("A", "2.0"), record("A", "2.2"), record("B", "9.0"), record("A", "2.4")]
    guessed = guesses(answers)
    assert [scene[0].read for scene in guessed] == ["A", "A", "A", "A"]
    assert [scene[0].is_right for scene in guessed] == [True, True, False, True]
    # Even scenes learn from 2.2 and 2.4, odd ones from 2.0 and 9.0.
    assert [scene[1].read for scene in guessed] == ["2.2", "2", "2.2", "2"]
    assert [scene[1].is_right for scene in guessed] == [True, True, False, True]
    assert all(record.sight == "guess" for scene in guessed for record in scene)
    # A single scene has nothing to learn from.
    assert guesses(answers[:1])[0][1].read is None


def test_guessing_coin_tosses_is_right_half_of_the_time() -> None:
    draw = np.random.default_rng(0)
    answers = [(replace(LEFT_RIGHT, truth="AB"[draw.integers(2)]).judge("", "full"),) for _ in range(1000)]
    right = np.mean([scene[0].is_right for scene in guesses(answers)])
    assert right == pytest.approx(0.5, abs=0.05)


def test_geometry_is_averaged_over_scenes_and_pairs(
    sample: SceneSample, as_scene: Callable[..., Scene]
) -> None:
    scores = compare(as_scene(sample), truth_of(sample))
    bad = replace(
        scores, abs_rel=0.5, rotation_deg=(20.5, 40.0, 0.0), translation_deg=(179.5, 0.0, 0.0), accuracy=1.0
    )
    records = (SceneRecord("1", scores), SceneRecord("2", bad), SceneRecord("3", failure="collapsed"))
    found = {figure.key: figure for figure in geometry_figures(records)}
    assert found["depth/abs_rel"].value == pytest.approx(0.25, abs=1e-4)
    assert found["depth/abs_rel"].num_scenes == 2
    assert found["pose/auc30"].num_items == 6
    # Three perfect pairs, one found from 21 degrees on, one never, one perfect.
    assert found["pose/auc30"].value == pytest.approx((3 + 10 / 30 + 0 + 1) / 6)
    assert found["pose/auc30_signed"].value == pytest.approx((3 + 0 + 0 + 1) / 6)
    assert found["points/accuracy"].value == pytest.approx(0.5 / scores.diagonal, rel=1e-3)
    assert found["pose/ate"].low <= found["pose/ate"].value <= found["pose/ate"].high
    assert geometry_figures([SceneRecord("3", failure="collapsed")]) == []


def test_a_measure_that_no_scene_offers_is_left_out(
    sample: SceneSample, as_scene: Callable[..., Scene]
) -> None:
    scores = replace(
        compare(as_scene(sample), truth_of(sample)), ate=None, rotation_deg=(), translation_deg=()
    )
    keys = {figure.key for figure in geometry_figures([SceneRecord("1", scores)])}
    assert "depth/abs_rel" in keys
    assert not keys & {"pose/ate", "pose/auc30", "pose/rra15"}


def test_differences_pair_the_scenes_of_two_runs(sample: SceneSample, as_scene: Callable[..., Scene]) -> None:
    scores = compare(as_scene(sample), truth_of(sample))
    first = [
        replace(record, geometry=replace(scores, abs_rel=0.1 * k, ate=None))
        for k, record in enumerate(RECORDS, start=1)
    ]
    # The other model was asked without geometric tokens, one scene is missing and one more is there.
    own = [
        tuple(
            replace(answer, sight="no_geometry", is_right=True)
            for answer in record.answers
            if answer.sight == "full"
        )
        for record in first
    ]
    second = [
        replace(first[1], answers=own[1], geometry=replace(scores, abs_rel=0.05, ate=None)),
        replace(first[0], scene="3", answers=own[0]),
    ]
    found = {figure.key: figure for figure in differences(first, second)}
    assert found["depth/abs_rel"].value == pytest.approx(0.05 - 0.2)
    assert found["depth/abs_rel"].num_scenes == 1
    assert "pose/ate" not in found
    assert found["questions/numbers"].value == 1
    assert found["questions/choices"].value == 0
    assert differences(first, []) == []


@pytest.fixture
def result() -> EvaluationResult:
    return EvaluationResult(
        task="synthetic-1",
        checkpoint=CheckpointIdentity("mine", "0123456789abcdef"),
        package_version="0.1.0",
        date="2026-01-02T03:04:05+00:00",
        settings={"num_views": 4, "first_seed": 500000, "width": 112, "height": 84, "dtype": "float32"},
        num_scenes=2,
        failures=(("2", "collapsed"),),
        figures=tuple(question_figures(RECORDS)),
        seconds=12.0,
    )


def test_results_come_back_as_they_were(result: EvaluationResult, tmp_path: Path) -> None:
    write_result(result, tmp_path / "new" / "result.json")
    assert read_result(tmp_path / "new" / "result.json") == result


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"schema_version": 99}',
        '{"schema_version": 1}',
        json.dumps({"schema_version": 1, "figures": 3}),
    ],
)
def test_what_is_no_result_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(InputError):
        read_result(tmp_path / "r.json")
    with pytest.raises(InputError, match=r"missing\.json"):
        read_result(tmp_path / "missing.json")


def test_a_report_holds_figures_conditions_and_failures(result: EvaluationResult) -> None:
    text = format_report([result])
    assert "synthetic-1: mine (0123456789abcdef)" in text
    assert "2 scenes of 4 views at 112x84, seeds from 500000; float32; geometry failed on 1" in text
    row = next(line for line in text.splitlines() if line.startswith("| choices "))
    assert [cell.strip().split(" ")[0] for cell in row.split("|")[2:-2]] == [
        "100.0",
        "50.0",
        "50.0",
        "0.0",
        "100.0",
    ]
    assert "| choices: full over no geometric tokens" in text
    assert "50.0 (0.0 to 100.0) points" in text
    widths = {len(line) for line in text.splitlines() if line.startswith("| choices: ") or "gain" in line}
    assert len(widths) == 1


def test_results_stand_side_by_side(result: EvaluationResult) -> None:
    other = replace(
        result, checkpoint=CheckpointIdentity("other", "fedcba9876543210"), figures=result.figures[:1]
    )
    text = format_report([result, other])
    first, second = (
        next(line for line in text.splitlines() if line.startswith(f"| {label}"))
        for label in ("choices (full)", "choices (grey)")
    )
    assert first.count("100.0 (100.0 to 100.0) %") == 2
    assert second.split("|")[2].strip()
    assert not second.split("|")[3].strip()
    assert "mine (01234567)" in text
    assert "other (fedcba98)" in text
    with pytest.raises(InputError, match="at least one result"):
        format_report([])


def test_fingerprints_tell_weights_apart(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    with pytest.raises(CheckpointError, match="no weights"):
        fingerprint(tmp_path)
    content = np.random.default_rng(0).integers(0, 255, 3_000_000, dtype=np.uint8)
    weights.write_bytes(content.tobytes())
    first = fingerprint(tmp_path)
    assert first == fingerprint(tmp_path)
    assert len(first) == 16
    for place in (0, 1_500_000, 2_999_999):
        changed = content.copy()
        changed[place] ^= 1
        weights.write_bytes(changed.tobytes())
        assert fingerprint(tmp_path) != first
    weights.write_bytes(content.tobytes())
    (tmp_path / "text_config.json").write_text("{}")
    assert fingerprint(tmp_path) != first
