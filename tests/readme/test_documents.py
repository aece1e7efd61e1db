"""Everything that README and docs/ tell a reader to type, typed."""

import dataclasses
import importlib
import io
import json
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from plane_checkpoint import plane_checkpoint
from stand_in_hub import StandInHub
from textured_room import film, write_frames

from g2vlm.checkpoints.places import DEFAULT_REPO
from g2vlm.cli import main as cli

ROOT = Path(__file__).parents[2]
DOCUMENTS = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
ELSEWHERE = {"make demo", "make test", "make install", "source .venv/bin/activate"}
"""Commands that CI runs on a clean checkout."""
BEFORE = {"docs/outputs.md": ["g2vlm recon --data_path photos/room --save_path room.npz"]}
"""What a reader has done before opening a document."""

_BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(document: str) -> list[tuple[str, str]]:
    return [(match[1], match[2]) for match in _BLOCK.finditer((ROOT / document).read_text())]


def commands(document: str) -> list[str]:
    return [line for kind, text in blocks(document) if kind == "bash" for line in text.splitlines() if line]


@pytest.fixture(scope="module")
def served_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = plane_checkpoint(tmp_path_factory.mktemp("served") / "tiny")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def workspace(
    served_files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A folder with photos, a video and a hub at hand, as the documents assume them."""
    import cv2

    room = tmp_path / "photos" / "room"
    room.mkdir(parents=True)
    draw = np.random.default_rng(0)
    pictures = [draw.integers(0, 255, (300, 400, 3), dtype=np.uint8) for _ in range(4)]
    for index, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(room / f"{index}.png")
    video = cv2.VideoWriter(str(tmp_path / "walk.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 4, (400, 300))
    for pixels in pictures * 2:
        video.write(pixels)
    video.release()
    # A page would be served until somebody ends it.
    monkeypatch.setattr("g2vlm.viewer.serving.Viewer.wait", lambda viewer: None)
    monkeypatch.setattr("webbrowser.open", lambda address: True)
    evaluated_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with StandInHub(DEFAULT_REPO, served_files) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield tmp_path


def evaluated_data(folder: Path) -> None:
    """Miniatures of data that docs/evaluation.md measures on."""
    write_frames(folder / "frames" / "room", film(3, 112, 84), groups=[[0, 1], [1, 2]])
    questions = folder / "MindCube" / "raw" / "MindCube_tinybench.jsonl"
    questions.parent.mkdir(parents=True)
    (folder / "MindCube" / "other_all_image").mkdir()
    Image.new("RGB", (64, 48), (90, 60, 30)).save(folder / "MindCube" / "other_all_image" / "a.png")
    line = {
        "id": "among_1",
        "images": ["other_all_image/a.png"],
        "question": "What is behind me? A. Door B. Wall",
        "gt_answer": "B",
    }
    questions.write_text(json.dumps(line) + "\n")
    pictures, depths = folder / "nyu-v2" / "nyu_images", folder / "nyu-v2" / "nyu_depths"
    for made in (pictures, depths):
        made.mkdir(parents=True)
    shot = film(1, 112, 84)[0]
    Image.fromarray(shot.rgb).save(pictures / "00000.png")
    np.save(depths / "00000.npy", shot.depth.astype(np.float32))


def type_in(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run one line of a shell block in this process; all lines have one of the forms below."""
    spoken, _, rest = line.rpartition(" | ")
    words = shlex.split(rest)
    if spoken:
        said = shlex.split(spoken)
        assert said[0] == "printf"
        monkeypatch.setattr("sys.stdin", io.StringIO(said[1].replace("\\n", "\n")))
    if words[0] == "g2vlm":
        assert cli.main(words[1:]) == 0, line
    else:
        assert words[0] == "python", f"no way to run {line!r}"
        monkeypatch.setattr("sys.argv", words[1:])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(ROOT / words[1]), run_name="__main__")
        assert stop.value.code == 0, line


def published_data(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan of ScanNet, posed photos of one's own, and a mixture of them."""
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "data" / "prepare"))
    from miniatures import frames_json, scannet

    scannet(workspace)
    (workspace / "photos" / "posed").mkdir()
    frames_json(workspace / "photos" / "posed")
    text = (ROOT / "docs" / "data.md").read_text()
    mixture = re.search(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert mixture is not None
    (workspace / "mixture.yaml").write_text(mixture[1])


@pytest.mark.parametrize("document", DOCUMENTS)
def test_everything_a_document_says_works(
    document: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if document == "docs/data.md":
        published_data(workspace, monkeypatch)
    for line in BEFORE.get(document, ()):
        type_in(line, monkeypatch)
    names: dict[str, object] = {}
    for kind, text in blocks(document):
        if kind == "python":
            exec(compile(text, document, "exec"), names)
            continue
        for line in text.splitlines():
            if line and line not in ELSEWHERE:
                type_in(line, monkeypatch)


def test_documents_show_enough_to_be_worth_testing() -> None:
    typed = [line for document in DOCUMENTS for line in commands(document)]
    shown = {shlex.split(line.rpartition(" | ")[2])[1] for line in typed if "g2vlm " in line}
    assert shown >= {"recon", "chat", "download", "info", "doctor", "--help"}


def test_what_is_left_to_ci_is_in_its_script() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for line in ELSEWHERE - {"source .venv/bin/activate"}:
        target = line.removeprefix("make ")
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
        assert re.search(rf"\bmake( \w+)* {target}\b", script), f"CI does not run {line}"


@pytest.mark.parametrize("document", [*DOCUMENTS, "CONTRIBUTING.md"])
def test_links_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target:
            assert ((ROOT / document).parent / target).exists(), f"{document}: {target}"


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_reference_lists_every_command_and_option(name: str) -> None:
    assert f"## `g2vlm {name}`" in (ROOT / "docs" / "cli.md").read_text()
    text = "".join((ROOT / document).read_text() for document in DOCUMENTS)
    assert f"| `g2vlm {name}` |" in (ROOT / "README.md").read_text()
    options = importlib.import_module(cli.COMMANDS[name].module).Options
    for option in dataclasses.fields(options):
        if "Positional" not in repr(option.type):
            mentioned = re.search(rf"--(no[-_])?{option.name}\b", text)
            assert mentioned, f"README and docs/ do not mention --{option.name}"


def test_readme_holds_the_two_commands_of_a_newcomer() -> None:
    assert commands("README.md")[:2] == ["make demo", "make test"]
