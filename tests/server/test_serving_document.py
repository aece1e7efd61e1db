"""docs/serving.md, typed: its shell and Python blocks run against a real service."""

import importlib.util
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from PIL import Image
from small_service import pictures

import g2vlm
from g2vlm.server.guard.limits import Limits
from g2vlm.server.running import make_service, serving_in_thread
from g2vlm.server.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore::g2vlm.export.originals.MissingOriginalWarning")

DOCUMENT = Path(__file__).parents[2] / "docs" / "serving.md"
ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture
def address(model: g2vlm.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A service under the name of the document, and photos where it has them."""
    room = tmp_path / "photos" / "room"
    room.mkdir(parents=True)
    for number, picture in enumerate(pictures(2, size=(96, 128))):
        Image.fromarray(picture).save(room / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    with serving_in_thread(make_service(model, Settings("g2vlm-tiny", grace_s=2))) as address:
        yield address


def test_everything_the_document_says_works(address: str, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    blocks = re.findall(r"^```(sh|py)\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    assert [kind for kind, _ in blocks].count("sh") >= 3
    session = "set -e\n"
    for kind, text in blocks:
        typed = text.replace(ADDRESS, address)
        if kind == "py":
            if "import base64, openai" in typed and importlib.util.find_spec("openai") is None:
                continue
            script = tmp_path / "typed.py"
            script.write_text(typed)
            runpy.run_path(str(script))
            continue
        session += typed
    shown = session.replace("g2vlm recon", f"{sys.executable} -m g2vlm recon")
    shown = shown.replace("g2vlm chat", f"{sys.executable} -m g2vlm chat").replace(
        "$(python ", f"$({sys.executable} "
    )
    done = subprocess.run(["bash", "-c", shown], capture_output=True, text=True, timeout=120, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert '"object":"chat.completion"' in done.stdout
    assert "event: done" in done.stdout
    assert (tmp_path / "room.glb").read_bytes().startswith(b"glTF")
    assert (tmp_path / "colmap.zip").read_bytes().startswith(b"PK")
    assert (tmp_path / "room.npz").exists()
    assert (tmp_path / "room.ply").exists()


def test_every_limit_stands_in_the_table() -> None:
    text = DOCUMENT.read_text()
    for field in fields(Limits):
        assert f"| `--{field.name}` |" in text, field.name
