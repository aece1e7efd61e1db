"""Benchmarks with data on disk: read from files made here in their layouts, and refused with the layout."""

import json
import math
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from g2vlm.cli.main import main
from g2vlm.data.question_export import export_questions
from g2vlm.data.question_file import Turn
from g2vlm.data.samples import SceneSample
from g2vlm.data.synthetic import ViewShape
from g2vlm.data.world.config import full_world
from g2vlm.errors import InputError
from g2vlm.evaluation.benchmarks.question_file import QuestionFileBenchmark, item_of
from g2vlm.evaluation.benchmarks.scene_folder import SceneFolderBenchmark
from g2vlm.evaluation.benchmarks.sintel import SintelBenchmark
from g2vlm.evaluation.geometry import compare
from g2vlm.evaluation.registry import BENCHMARKS, Request, build_benchmark
from g2vlm.evaluation.trials import inline_choices
from g2vlm.scene.scene import Scene


@pytest.mark.parametrize("name", [name for name, entry in BENCHMARKS.items() if entry.layout])
def test_missing_data_is_explained_by_the_layout(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no --data_path"):
        build_benchmark(name, Request(518, 14))
    with pytest.raises(InputError, match="does not exist"):
        build_benchmark(name, Request(518, 14, tmp_path / "nowhere"))
    with pytest.raises(InputError):
        build_benchmark(name, Request(518, 14, tmp_path))


def test_a_folder_of_scenes_is_true_about_itself(
    sample: SceneSample, as_scene: Callable[..., Scene], tmp_path: Path
) -> None:
    truth = as_scene(sample)
    for name in ("room10.npz", "room2.npz"):
        truth.save(tmp_path / name)
    benchmark = SceneFolderBenchmark(tmp_path)
    assert benchmark.scenes() == ["room2.npz", "room10.npz"]
    trial = benchmark.load("room2.npz")
    assert [photo.size for photo in trial.photos] == [(56, 42)] * 3
    scores = compare(as_scene(sample, 3.0), trial.truth)
    assert scores.abs_rel == pytest.approx(0, abs=1e-5)
    assert 0 < scores.diagonal < np.linalg.norm(sample.room.size_m)
    fewer = SceneFolderBenchmark(tmp_path, num_scenes=1, num_views=2)
    np.testing.assert_array_equal(fewer.load("room2.npz").photos[1], trial.photos[2])
    assert list(fewer.settings["files"]) == ["room2.npz"]


def test_questions_of_a_file_are_judged(tmp_path: Path) -> None:
    path = export_questions(tmp_path, full_world(), [500_000], ViewShape(2, 42, 56), per_scene=6)
    benchmark = QuestionFileBenchmark(path)
    assert len(benchmark.scenes()) == 6
    for scene in benchmark.scenes():
        (group,) = benchmark.load(scene).groups
        (item,) = group.items
        assert group.photos[0].size == (56, 42)
        assert item.judge(item.truth, "full").is_right
        assert not item.judge("who knows", "full").is_right
        if item.is_choice:
            text = item.choices["ABCD".index(item.truth)]
            assert item.judge(text, "full").is_right
    assert len(QuestionFileBenchmark(path, num_scenes=2).scenes()) == 2


@pytest.mark.parametrize(
    ("truth", "right", "wrong"),
    [
        ("<Reasoning>I see.</Reasoning><Answer>No</Answer>", "No.", "Yes"),
        ("The grass", "<answer>grass</answer>", "the tree"),
        ("About 161.6 meters", "It is 162 m", "16 m"),
        ("90 degrees", "Answer: 1.5708 rad", "45 degrees"),
        ("(B)", "B. right", "A"),
        ("3", "three", "4"),
    ],
)
def test_every_kind_of_short_answer_is_judged(truth: str, right: str, wrong: str) -> None:
    item = item_of(Turn("What? A. left B. right" if truth == "(B)" else "What?", truth), "7")
    assert item.judge(right, "full").is_right
    assert not item.judge(wrong, "full").is_right
    assert not item.judge("", "full").is_right


def test_answers_that_cannot_be_judged_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    line = {
        "id": "7",
        "image": "a.png",
        "conversations": [
            {"from": "human", "value": "What?"},
            {"from": "gpt", "value": "A red chair that stands beside the old table."},
        ],
    }
    (tmp_path / "q.jsonl").write_text(json.dumps(line))
    with pytest.raises(InputError, match="7: expected an answer that can be judged"):
        QuestionFileBenchmark(tmp_path / "q.jsonl")


@pytest.mark.parametrize(
    ("question", "choices"),
    [
        ("Which way? A. left B. right Answer with the letter.", ("left", "right")),
        ("Which?\nA. 1.5 m\nB. 2.5 m\nC. 3.5 m\nD. 4.5 m", ("1.5 m", "2.5 m", "3.5 m", "4.5 m")),
        ("Which? (A) the red one (B) the blue one", ("the red one", "the blue one")),
        ("How far is point B. from here?", ()),
        ("How far?", ()),
    ],
)
def test_choices_are_found_in_the_question(question: str, choices: tuple[str, ...]) -> None:
    assert inline_choices(question) == choices


def make_sintel(root: Path, depth: np.ndarray) -> None:
    for kind in ("final", "depth", "camdata_left"):
        (root / "training" / kind / "alley_1").mkdir(parents=True)
    height, width = depth.shape
    Image.new("RGB", (width, height), (9, 8, 7)).save(root / "training/final/alley_1/frame_0001.png")
    tag = struct.pack("<f", 202021.25)
    (root / "training/depth/alley_1/frame_0001.dpt").write_bytes(
        tag + struct.pack("<ii", width, height) + depth.astype("<f4").tobytes()
    )
    pose = np.eye(4)[:3]
    pose[:, 3] = [1, 2, 3]
    numbers = [*np.diag([100.0, 100.0, 1.0]).ravel(), *pose.ravel()]
    (root / "training/camdata_left/alley_1/frame_0001.cam").write_bytes(
        tag + np.array(numbers, "<f8").tobytes()
    )


def test_sintel_is_read(tmp_path: Path) -> None:
    depth = np.linspace(1, 100, 48).reshape(6, 8)
    make_sintel(tmp_path, depth)
    benchmark = SintelBenchmark(tmp_path)
    assert benchmark.scenes() == ["alley_1/frame_0001"]
    assert benchmark.geometry_options.max_depth == 70
    trial = benchmark.load("alley_1/frame_0001")
    assert trial.truth is not None
    np.testing.assert_allclose(trial.truth.depth[0], depth, rtol=1e-6)
    assert trial.photos[0].size == (8, 6)
    # The file holds world-to-camera; poses here are camera-to-world.
    assert trial.truth.T_world_camera[0, :3, 3].tolist() == [-1, -2, -3]
    assert float(trial.truth.K[0, 0, 0]) == 100
    (tmp_path / "training/depth/alley_1/frame_0001.dpt").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="Sintel file"):
        benchmark.load("alley_1/frame_0001")


def test_far_depths_neither_count_nor_cost(sample: SceneSample, as_scene: Callable[..., Scene]) -> None:
    from dataclasses import replace

    from g2vlm.evaluation.benchmarks.synthetic import truth_of
    from g2vlm.evaluation.geometry import GeometryOptions

    truth = truth_of(sample)
    limit = float(sample.depth.median())
    far = replace(truth, depth=torch.where(truth.depth < limit, truth.depth, 10 * truth.depth))
    assert compare(as_scene(sample), far).abs_rel > 0.1
    assert compare(as_scene(sample), far, GeometryOptions(max_depth=limit)).abs_rel == pytest.approx(
        0, abs=1e-5
    )


def test_the_command_measures_scenes_and_questions_of_ones_own(
    sample: SceneSample,
    as_scene: Callable[..., Scene],
    random_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    as_scene(sample).save(tmp_path / "scenes" / "room.npz")
    questions = export_questions(tmp_path / "q", full_world(), [500_000], ViewShape(2, 42, 56), per_scene=2)
    common = ["--ckpt", str(random_folder), "--dtype", "float32", "--max_new_tokens", "2", "--json"]
    assert main(["eval", "scene_folder", "--data_path", str(tmp_path / "scenes"), *common]) == 0
    figures = {figure["key"]: figure for figure in json.loads(capsys.readouterr().out)["figures"]}
    assert math.isfinite(figures["points/accuracy"]["value"])
    assert not any(key.startswith("questions") for key in figures)
    words = ["--data_path", str(questions), "--sights", "full"]
    assert main(["eval", "question-file", *words, *common]) == 0
    figures = {figure["key"]: figure for figure in json.loads(capsys.readouterr().out)["figures"]}
    assert figures["questions/all/full"]["num_items"] == 2
    assert not any(key.startswith("depth") for key in figures)
