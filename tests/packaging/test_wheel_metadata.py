"""What the project file promises; CI builds the wheel itself and runs `inspect_installed.py` on it."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import g2vlm

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=;~ ]", requirement)[0].lower().replace("_", "-") for requirement in requirements}


def test_version_is_said_once() -> None:
    assert PROJECT["version"] == g2vlm.__version__
    assert f"## {g2vlm.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_torchvision_is_never_required_and_forbidden_on_cpu() -> None:
    every = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    assert all("torchvision" not in names(requirements) for requirements in every)
    assert "torchvision==0+forbidden" in (ROOT / "constraints-cpu.txt").read_text().splitlines()


def test_extra_all_holds_every_extra_for_users() -> None:
    extras = PROJECT["optional-dependencies"]
    (everything,) = extras["all"]
    # Other software to be measured beside ours is nothing that users need, nor is what operators add.
    left_out = {"all", "dev", "bench-baselines", "otel"}
    assert set(everything.removeprefix("g2vlm[").removesuffix("]").split(",")) == set(extras) - left_out


@pytest.mark.parametrize("name", ["LICENSE", "CITATION.cff", "CHANGELOG.md", "CONTRIBUTING.md", "README.md"])
def test_papers_are_there(name: str) -> None:
    assert (ROOT / name).stat().st_size > 200


def test_typed_marker_lies_in_the_package() -> None:
    assert (Path(g2vlm.__file__).parent / "py.typed").is_file()


def test_every_public_name_is_there_without_any_extra() -> None:
    """As in an environment that has the required dependencies alone."""
    script = (
        "import sys\n"
        "for name in ('httpx', 'fastapi', 'viser', 'pyarrow', 'ray', 'matplotlib', 'pycolmap'):\n"
        "    sys.modules[name] = None\n"
        "from g2vlm import *\n"
        "Client\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
