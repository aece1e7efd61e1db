import json
from pathlib import Path

import pytest
from small_towers import save_small_towers

from g2vlm.checkpoints.random import random_checkpoint
from g2vlm.cli.main import main
from g2vlm.cli.train import NAMES
from g2vlm.model.config import g2vlm_test
from g2vlm.training.recipes.catalogue import RECIPES
from g2vlm.training.recipes.recipe import QuestionFileData, SyntheticData
from g2vlm.training.run import trainer
from g2vlm.training.run.assembling import Towers
from g2vlm.training.run.setup import prepare_start


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


@pytest.fixture
def started(monkeypatch):
    """Recipes that the command would train by, made ready but not trained."""
    recipes = []

    class Ready:
        def __init__(self, recipe, runtime):
            recipes.append((recipe, prepare_start(recipe, runtime.folder)))

        def run(self):
            return trainer.Ending.COMPLETE

    monkeypatch.setattr(trainer, "Trainer", Ready)
    return recipes


def test_towers_are_put_together_in_the_run_and_once(capsys, tmp_path, started):
    dino, qwen = save_small_towers(tmp_path / "public")
    start = f"qwen2vl={qwen},dinov2={dino}"
    words = ["train", "released-stage1", "--folder", str(tmp_path / "run"), "--device", "cpu"]
    assert main([*words, "--init_from", start]) == 0
    ((recipe, found),) = started
    assert recipe.start.name == str(tmp_path / "run" / "start")
    assert found.config.mixture.num_layers == 2
    weights = tmp_path / "run" / "start" / "model.safetensors"
    written = weights.stat().st_mtime_ns
    # The same numbers as of the command that only puts them together.
    same = tmp_path / "same"
    assert main(["assemble", "--dino", str(dino), "--qwen", str(qwen), "--folder", str(same)]) == 0
    assert weights.read_bytes() == (same / "model.safetensors").read_bytes()
    assert main([*words, "--init_from", start]) == 0
    assert weights.stat().st_mtime_ns == written
    capsys.readouterr()
    assert main([*words, "--init_from", f"dinov2={dino},qwen2vl={tmp_path / 'other'}"]) == 2
    assert "name another --folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["dinov2=a", "qwen2vl=a,qwen2vl=b", "dinov2=,qwen2vl=b", "dinov2=a,qwen2vl=b,dinov2=c"]
)
def test_both_towers_are_named_once(text, capsys):
    assert main(["train", "released-stage1", "--init_from", text]) == 2
    assert "dinov2=FOLDER,qwen2vl=FOLDER" in capsys.readouterr().err


def test_folders_of_towers_may_hold_commas(tmp_path):
    towers = Towers.parse(f"dinov2={tmp_path}/a,b,qwen2vl={tmp_path}/c=d")
    assert (towers.dinov2, towers.qwen2vl) == (f"{tmp_path}/a,b", f"{tmp_path}/c=d")
    assert Towers.parse("runs/dinov2=x/model") is None


def test_stage_one_refuses_drawn_towers(capsys, tmp_path):
    assert main(["train", "released-stage1", "--folder", str(tmp_path / "run"), "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert "g2vlm assemble" in said
    assert "--init_from" in said


def test_a_share_of_the_steps_goes_on_learning_from_rooms(capsys, tmp_path, started):
    words = ["train", "sr-2b", "--folder", str(tmp_path / "run"), "--device", "cpu"]
    words += ["--init_from", "g2vlm-tiny", "--questions", str(tmp_path / "questions.jsonl")]
    assert main([*words, "--rooms_share", "0.25"]) == 0
    assert "75% of the steps learn answers from" in capsys.readouterr().err
    assert main(words) == 0
    (mixed, _), (plain, _) = started
    questions, rooms = mixed.data.parts
    assert (questions.share, rooms.share) == (0.75, 0.25)
    assert isinstance(questions.data, QuestionFileData)
    assert isinstance(rooms.data, SyntheticData)
    assert isinstance(plain.data, QuestionFileData)
    assert main(["train", "sr-2b", "--rooms_share", "0.25"]) == 2
    assert "--questions FILE" in capsys.readouterr().err
