"""`g2vlm export`: several targets at a time, and mistakes told."""

import json
from pathlib import Path

import pytest
from rendered_room import rendered_room

from g2vlm.cli.export import Options
from g2vlm.cli.main import main
from g2vlm.scene.formats import FORMATS
from g2vlm.scene.storage import read_npz


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("scene")
    return str(rendered_room(folder / "photos", views=2).save(folder / "room.npz"))


def test_several_targets_are_written_and_told(stored, tmp_path, capsys):
    targets = [str(tmp_path / "room.glb"), str(tmp_path / "depth"), f"colmap:{tmp_path / 'c.zip'}"]
    assert main(["export", stored, *targets, "--max_points", "500", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [file["kind"] for file in told["files"]] == ["glb", "depth", "colmap"]
    assert told["views"] == 2
    for file in told["files"]:
        path = Path(file["path"])
        assert file["bytes"] == sum(
            p.stat().st_size for p in ([path] if path.is_file() else path.rglob("*.*"))
        )


def test_points_are_filtered_and_the_world_moved_as_asked(stored, tmp_path, capsys):
    flags = ["--min_confidence", "0.5", "--anchor_first"]
    assert main(["export", stored, str(tmp_path / "b.npz"), *flags]) == 0
    assert "all of a scene" in capsys.readouterr().out
    before, after = read_npz(stored), read_npz(tmp_path / "b.npz")
    assert 0 < after.num_points < before.num_points
    assert (after.views[0].T_world_camera == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]).all()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "something to write"),
        (["a.stl"], "ending chooses the format"),
        (["a.glb", "./a.glb"], "twice"),
        (["a.glb", "--max_points", "0"], "max_points"),
    ],
)
def test_mistakes_end_with_two(words, expected, stored, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["export", stored, *words]) == 2
    assert expected in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_scene_is_refused(tmp_path, capsys):
    assert main(["export", str(tmp_path / "no.npz"), str(tmp_path / "a.glb")]) == 2
    assert "readable scene file" in capsys.readouterr().err


def test_help_names_every_kind():
    text = " ".join((Options.__doc__ or "").split())
    missing = [kind for kind in FORMATS if f" {kind}," not in text and f" {kind})" not in text]
    assert [kind for kind in missing if f" {kind}." not in text] == []
