import json
from pathlib import Path

import pytest

from g2vlm.checkpoints.random import random_checkpoint
from g2vlm.cli.main import main
from g2vlm.cli.train import NAMES
from g2vlm.model.config import g2vlm_test
from g2vlm.training.recipes.catalogue import RECIPES


def test_names_in_the_help_are_the_recipes():
    assert NAMES.split(", ") == list(RECIPES)


def test_plan_prints_memory_and_starts_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "tiny-geometry", "--plan", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["num_parameters"] < 12e6
    assert plan["total"] > plan["weights"] > 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "huge"], "Expected a recipe"),
        (["train", "tiny-joint", "--images", "x"], "--questions FILE"),
        (["train", "tiny-joint", "--steps", "0"], "Expected --steps of 1 or more"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, message):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_questions_are_learned_and_the_run_continues(capsys, tmp_path):
    from PIL import Image

    checkpoint = random_checkpoint(tmp_path / "start", g2vlm_test())
    Image.new("RGB", (112, 84), "red").save(tmp_path / "a.png")
    turns = [{"from": "human", "value": "Colour?"}, {"from": "gpt", "value": "red"}]
    line = {"id": "1", "image": "a.png", "conversations": turns}
    (tmp_path / "questions.jsonl").write_text(json.dumps(line))
    words = ["train", "tiny-sr", "--init-from", str(checkpoint), "--folder", str(tmp_path / "run")]
    words += ["--questions", str(tmp_path / "questions.jsonl"), "--workers", "0", "--device", "cpu"]
    assert main([*words, "--steps", "2", "--max-minutes", "0"]) == 0
    assert "out of time" in capsys.readouterr().err
    assert main([*words, "--steps", "2"]) == 0
    assert "complete" in capsys.readouterr().err
    kinds = [json.loads(text)["kind"] for text in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert kinds.count("start") == 2
    assert (Path(tmp_path) / "run" / "model" / "g2vlm.json").is_file()
