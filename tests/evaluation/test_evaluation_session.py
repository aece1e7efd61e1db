"""Whole evaluations: shared among processes, judged again, refused where a model was trained."""

import json
from pathlib import Path

import pytest
from textured_room import film, write_frames

from g2vlm.cli.main import main
from g2vlm.data.question_export import export_questions
from g2vlm.data.synthetic import ViewShape
from g2vlm.data.world.config import full_world
from g2vlm.errors import InputError
from g2vlm.evaluation.results import read_result
from g2vlm.evaluation.seen import TrainingRecord, file_digest, read_training_record, refuse_seen, seen_scenes
from g2vlm.evaluation.shares import Share

NOTHING = ["--predictor", "nothing", "--baselines", "none"]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    groups = [[0, 1], [1, 2], [2, 3]]
    return write_frames(tmp_path_factory.mktemp("shared") / "room", film(4, 120, 90), groups)


def frames(room: Path, target: Path, *words: str) -> int:
    return main(["eval", "frames", "--data_path", str(room), "--save_path", str(target), *words])


def test_shares_join_to_what_one_process_finds(
    room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, shared = tmp_path / "whole.json", tmp_path / "shared.json"
    assert frames(room, whole, *NOTHING) == 0
    assert frames(room, shared, *NOTHING, "--shard", "1/2") == 0
    assert "2 scenes are left" in capsys.readouterr().err
    assert not shared.exists()
    assert frames(room, shared, *NOTHING, "--shard", "0/2") == 0
    assert read_result(shared).figures == read_result(whole).figures
    assert frames(room, shared, *NOTHING) == 0
    assert "3 scenes are done already" in capsys.readouterr().err
    assert frames(room, shared, *NOTHING, "--shard", "2/2") == 2
    assert "3/4" in capsys.readouterr().err


def test_torchruns_variables_are_a_share() -> None:
    assert Share.of_launcher({"RANK": "1", "WORLD_SIZE": "3"}) == Share(1, 3)
    assert Share.of_launcher({}).is_all
    assert Share(1, 3).of(["a", "b", "c", "d", "e"]) == ["b", "e"]


def test_what_was_kept_is_measured_again_without_asking(
    room: Path, random_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "r.json"
    words = ["--ckpt", str(random_folder), "--dtype", "float32", "--what", "geometry", "--baselines", "none"]
    assert frames(room, target, *words, "--rescore") == 2
    assert "run it without --rescore first" in capsys.readouterr().err
    assert frames(room, target, *words, "--keep_predictions") == 0
    first = read_result(target)
    assert len(list((tmp_path / "r.predictions").rglob("*.npz"))) == 3
    journal = target.with_suffix(".jsonl")
    spoilt = [json.loads(line) for line in journal.read_text().splitlines()]
    spoilt[1]["geometry"]["abs_rel"] = 99.0
    journal.write_text("".join(json.dumps(line) + "\n" for line in spoilt))
    assert frames(room, target, *words, "--rescore") == 0
    assert read_result(target).figures == first.figures
    kept = ["--predictor", f"saved:{tmp_path / 'r.predictions'}", "--baselines", "none"]
    assert frames(room, tmp_path / "saved.json", *kept) == 0
    assert read_result(tmp_path / "saved.json").figures == first.figures


def test_answers_are_judged_again_from_the_journal(random_folder: Path, tmp_path: Path) -> None:
    path = export_questions(tmp_path, full_world(), [500_000], ViewShape(1, 42, 56), per_scene=2)
    target = tmp_path / "q.json"
    call = [
        "eval",
        "question_file",
        "--data_path",
        str(path),
        "--ckpt",
        str(random_folder),
        "--dtype",
        "float32",
    ]
    call += ["--sights", "full", "--max_new_tokens", "2", "--save_path", str(target)]
    assert main(call) == 0
    journal = target.with_suffix(".jsonl")
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in lines[1:]:
        for answer in line["answers"]:
            answer["answer"], answer["is_right"] = f"Answer: {answer['truth']}", False
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main([*call, "--rescore"]) == 0
    figure = read_result(target).figure("questions/all/full")
    assert figure is not None
    assert figure.value == 1
    assert figure.standard_error == 0


def test_scenes_that_a_checkpoint_has_seen_are_refused_or_marked(
    room: Path, random_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    for file in random_folder.iterdir():
        (weights / file.name).symlink_to(file)
    (weights / "TRAINING.json").write_text(
        json.dumps({"data": {"mine": {"scenes": ["mine/room", "mine/hall"]}}})
    )
    words = ["--ckpt", str(weights), "--dtype", "float32", "--what", "geometry", "--baselines", "none"]
    target = tmp_path / "r.json"
    assert frames(room, target, *words) == 2
    assert "3 of 3" in capsys.readouterr().err
    assert frames(room, target, *words, "--allow_seen") == 0
    told = capsys.readouterr()
    assert "ATTENTION" in told.err
    assert "ATTENTION: trained on 3 of these scenes" in told.out
    assert len(read_result(target).settings["seen_in_training"]) == 3


def test_records_name_scenes_and_files(tmp_path: Path) -> None:
    questions = tmp_path / "q.jsonl"
    questions.write_text("{}\n")
    (tmp_path / "run.json").write_text(json.dumps({"data": {"questions 0": file_digest(questions)}}))
    model = tmp_path / "model"
    model.mkdir()
    record = read_training_record(model)
    assert seen_scenes(record, ["1:a", "2:b"], questions) == ["1:a", "2:b"]
    questions.write_text("{}\n{}\n")
    assert seen_scenes(record, ["1:a"], questions) == []
    assert read_training_record(tmp_path / "elsewhere" / "deep") == TrainingRecord()
    (model / "TRAINING.json").write_text("{")
    with pytest.raises(InputError, match="allow_seen"):
        read_training_record(model)
    known = TrainingRecord(frozenset({"scannet/scene0707_00", "chess/seq-01"}))
    asked = ["scene0707_00/0003", "scene0708_00/0001", "chess/seq-01", "chess/seq-02"]
    assert seen_scenes(known, asked) == ["scene0707_00/0003", "chess/seq-01"]
    refuse_seen([], 4)


def test_plots_show_ours_and_others(room: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need the extra bench")
    words = ["--predictor", "sift", "--baselines", "nothing", "--plots", str(tmp_path / "plots")]
    assert frames(room, tmp_path / "r.json", *words) == 0
    from PIL import Image

    with Image.open(tmp_path / "plots" / "poses.png") as plot:
        assert plot.width > 400
    assert not (tmp_path / "plots" / "depth.png").exists(), "pairs of SIFT have no depth"
