"""`g2vlm eval`: from a checkpoint to tables, resumed, reported, and refused where it should be."""

import json
from pathlib import Path

import pytest

from g2vlm.cli.main import main

SMALL = ["--num_scenes", "2", "--num_views", "2", "--num_questions", "2", "--max_new_tokens", "2"]


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def evaluate(folder: Path, *words: str) -> int:
    return main(["eval", "synthetic", "--ckpt", str(folder), "--dtype", "float32", *SMALL, *words])


def test_one_command_measures_writes_and_resumes(
    random_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(random_folder, "--sights", "full,text_only") == 0
    told = capsys.readouterr()
    assert "depth AbsRel, one scale per scene" in told.out
    assert "pose AUC@30" in told.out
    assert "choices" in told.out
    (result,) = (tmp_path / "outputs" / "eval").glob("synthetic-2-*.json")
    assert f"result: {result.relative_to(tmp_path)}" in told.err
    assert len(result.with_suffix(".jsonl").read_text().splitlines()) == 3

    assert evaluate(random_folder, "--sights", "full,text_only", "--json") == 0
    again = capsys.readouterr()
    assert "2 scenes are done already" in again.err
    stored = json.loads(again.out)
    assert stored["settings"]["sights"] == ["full", "text_only"]
    assert stored["settings"]["view_attention"] == "global"
    assert stored["checkpoint"]["name"] == random_folder.name
    assert stored == json.loads(result.read_text())

    assert main(["eval", "--report", str(result), str(result)]) == 0
    text = capsys.readouterr().out
    assert text.count("weights (") == 4
    assert "second over first" in text
    result.with_suffix(".jsonl").unlink()
    assert main(["eval", "--report", str(result), str(result)]) == 0
    assert "second over first" not in capsys.readouterr().out


def test_another_width_and_attention_are_other_runs(
    random_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = str(tmp_path / "here.json")
    words = ["--what", "geometry", "--save_path", target]
    assert evaluate(random_folder, *words, "--width", "56", "--view_attention", "causal", "--json") == 0
    settings = json.loads(capsys.readouterr().out)["settings"]
    assert (settings["width"], settings["height"], settings["image_width"]) == (56, 42, 56)
    assert settings["view_attention"] == "causal"
    assert settings["sights"] == []
    assert evaluate(random_folder, *words) == 2
    assert "view_attention" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "Expected a benchmark"),
        (["synthetik"], "did you mean synthetic?"),
        (["synthetic", "--first_seed", "1000000"], "trained on"),
        (["synthetic", "--num_scenes", "0"], "num_scenes of 1 or more"),
        (["synthetic", "--what", "depth"], "geometry, questions"),
        (["synthetic", "--sights", ""], "full, no_geometry"),
        (["synthetic", "--max_new_tokens", "0"], "max_new_tokens"),
        (["--report", "missing.json"], "missing.json"),
    ],
)
def test_mistakes_are_found_before_the_checkpoint(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", *words, "--ckpt", "no such checkpoint"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert expected in captured.err


def test_the_result_must_be_a_json_file(random_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(random_folder, "--save_path", "result.txt") == 2
    assert ".json" in capsys.readouterr().err


def test_benchmarks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "list"]) == 0
    assert "synthetic: " in capsys.readouterr().out
