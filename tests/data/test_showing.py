"""What `g2vlm data show` draws is the truth about a scene."""

import json
from pathlib import Path

import numpy as np
import pytest
from exact_room import exact_views
from PIL import Image

pytest.importorskip("pyarrow", reason="prepared data need the extra data")

from g2vlm.cli.main import main


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("shown") / "hall"
    source.mkdir()
    frames = {}
    for k, view in enumerate(exact_views(3)):
        view.image.save(source / f"{k}.png")
        np.save(source / f"{k}.npy", view.depth.astype(np.float32))
        camera = {"K": view.K.tolist(), "T_world_camera": view.T_world_camera.tolist()}
        frames[str(k)] = {"image": f"{k}.png", "depth": f"{k}.npy", **camera}
    (source / "frames.json").write_text(json.dumps({"frames": frames}))
    assert main(["data", "prepare", str(source), str(source.parent / "out")]) == 0
    return source.parent / "out"


def test_points_lie_on_the_walls_and_the_ball(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trimesh = pytest.importorskip("trimesh")
    files = [str(tmp_path / "hall.png"), str(tmp_path / "hall.ply")]
    assert main(["data", "show", str(prepared), *files, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["scene"], told["frames"], told["files"]) == ("hall", 3, files)
    points = np.asarray(trimesh.load(files[1]).vertices)
    walls = np.abs(np.abs(points) - [2.5, 1.5, 2.0]).min(axis=1)
    ball = np.abs(np.linalg.norm(points - [0.4, 0.9, 0.6], axis=1) - 0.6)
    assert len(points) == 3 * 160 * 120
    assert np.minimum(walls, ball).max() < 0.002
    with Image.open(files[0]) as sheet:
        assert sheet.width >= 3 * 200
        # The first picture stands in its corner.
        shown = np.asarray(sheet.crop((0, 0, 200, 150)).resize((160, 120)), dtype=float)
    assert np.abs(shown - exact_views(3)[0].rgb).mean() < 20


@pytest.mark.parametrize(
    ("words", "message"),
    [([], "Expected a folder"), (["x.jpg"], "Expected a folder"), (["a.png", "--scene", "attic"], "attic")],
)
def test_mistakes_are_told(
    words: list[str], message: str, prepared: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "show", str(prepared), *words]) == 2
    assert message in capsys.readouterr().err
