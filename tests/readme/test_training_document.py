"""What docs/training.md tells a reader to type, typed: small recipes for a step, large ones as a plan."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from g2vlm.cli.main import main
from g2vlm.training.run.trainer import Trainer

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "training.md").read_text()
FENCES = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
SHELL = [text for kind, text in FENCES if not kind and "g2vlm " in text]
EXAMPLE = next(text for text in SHELL if "<<'PY'" in text)
COMMANDS = [line.partition("#")[0].strip() for text in SHELL if text != EXAMPLE for line in text.splitlines()]
INDENTED = re.findall(r"^    ((?:g2vlm|torchrun) .*)$", TEXT, re.MULTILINE)
LARGE = [line for line in COMMANDS + INDENTED if "-2b" in line or "torchrun" in line]
ONE_STEP = ["--steps", "1", "--tokens", "240", "--threads", "1"]


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (112, 84), (90, 60, 30)).save(tmp_path / "photos" / "a.png")
    return tmp_path


def test_there_is_something_to_type():
    assert any("train tiny-geometry" in line for line in COMMANDS)
    assert any("torchrun" in line for line in COMMANDS)


@pytest.mark.parametrize(
    "line", [line for line in COMMANDS + INDENTED if "-2b" in line or "torchrun" in line]
)
def test_large_recipes_can_be_planned(line, capsys):
    words = shlex.split(line.partition("g2vlm train")[2])
    # Files of a reader's own are not here, and the plan needs none.
    kept = [words[0]]
    for option, value in zip(words[1::2], words[2::2], strict=True):
        kept += [] if option in ("--questions", "--images", "--init_from") else [option, value]
    assert main(["train", *kept, "--plan"]) == 0
    assert capsys.readouterr().out


@pytest.mark.slow
def test_a_run_a_slice_and_its_model(workspace):
    small = [line for line in COMMANDS if line not in LARGE]
    assert len(small) >= 4
    for line in small:
        words = shlex.split(line)
        assert words[0] == "g2vlm"
        more = ONE_STEP if words[1] == "train" and "--plan" not in words else []
        assert main([*words[1:], *more]) == 0, line


@pytest.mark.slow
def test_the_complete_example_learns_from_a_file(workspace):
    script = EXAMPLE.replace("/tmp/questions", str(workspace / "questions"))
    script = re.sub(r"--steps \d+", "--steps 1", script)
    own = f'g2vlm() {{ "{sys.executable}" -m g2vlm "$@"; }}\npython() {{ "{sys.executable}" "$@"; }}\n'
    done = subprocess.run(["bash", "-e", "-c", own + script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("text", [text for kind, text in FENCES if kind == "py"])
def test_recipes_in_python_can_be_set_up(text, monkeypatch):
    ran = []
    monkeypatch.setattr(Trainer, "run", lambda trainer: ran.append(trainer))
    exec(compile(text.replace('"cuda"', '"cpu"').replace("workers=8, ", ""), "docs/training.md", "exec"), {})
    assert len(ran) == 1
