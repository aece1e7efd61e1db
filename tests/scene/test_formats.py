"""What a target's name says about its format."""

import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

import g2vlm.export  # noqa: F401  (registers its formats)
from g2vlm.errors import InputError, MissingExtraError, OutputError
from g2vlm.scene.formats import FORMATS, Format, Target, find_target, no_progress
from g2vlm.scene.save_options import ImageFiles, SaveOptions


@pytest.mark.parametrize(
    ("text", "kind", "path"),
    [
        ("room.ply", "ply", "room.ply"),
        ("a/ROOM.GLB", "glb", "a/ROOM.GLB"),
        ("room.npz", "npz", "room.npz"),
        ("room.obj", "mesh", "room.obj"),
        ("mesh:room.glb", "mesh", "room.glb"),
        ("MESH:room.ply", "mesh", "room.ply"),
        ("gaussians:init.ply", "gaussians", "init.ply"),
        ("out/colmap/", "colmap", "out/colmap"),
        ("depth", "depth", "depth"),
        ("colmap:room", "colmap", "room"),
        ("colmap:room.ply", "colmap", "room.ply"),
        ("tum:poses.txt", "tum", "poses.txt"),
        ("12:30.ply", "ply", "12:30.ply"),
        ("./depth:1.ply", "ply", "depth:1.ply"),
        ("room.usdz", "usd", "room.usdz"),
    ],
)
def test_a_kind_an_ending_or_the_name_of_a_folder_decides(text: str, kind: str, path: str) -> None:
    target = find_target(text)
    assert (target.format.kind, target.path) == (kind, Path(path))
    if not text.startswith("./"):  # which Path would drop
        assert find_target(Path(text)) == target


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("room.stl", r"file ending in \.glb, .*\.ply.*colmap.*KIND:PATH.*got 'room.stl': the ending"),
        ("room", "ending chooses the format"),
        (".ply", "ending chooses the format"),
        ("colamp:room", r"known kind before the colon.*did you mean colmap:room\?"),
        ("colmap:", "write colmap:PATH"),
        ("mesh:room.stl", r"mesh file ending in \.obj, \.ply or \.glb, got 'room.stl'"),
        ("tum:poses", r"\.tum or \.txt"),
    ],
)
def test_what_cannot_be_told_is_refused_with_what_can(text: str, message: str) -> None:
    with pytest.raises(OutputError, match=message):
        find_target(text)


def test_every_ending_chooses_one_format_and_all_have_a_summary() -> None:
    endings = [ending for each in FORMATS.values() for ending in each.by_ending]
    assert len(endings) == len(set(endings))
    for each in FORMATS.values():
        assert set(each.by_ending) <= set(each.endings)
        assert each.summary
        assert (each.module is None) == (not each.extra)


def test_places_are_checked_before_work_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_target(tmp_path / "new" / "a.ply").check()
    assert (tmp_path / "new").is_dir()
    (tmp_path / "folder.ply").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        find_target(tmp_path / "folder.ply").check()
    (tmp_path / "depth").mkdir()
    find_target(tmp_path / "depth").check()
    (tmp_path / "depth" / "mine.txt").touch()
    with pytest.raises(OutputError, match=r"holds mine\.txt: choose another"):
        find_target(tmp_path / "depth").check()
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="create the folder"):
        find_target(tmp_path / "file" / "a.ply").check()
    with pytest.raises(OutputError, match="is a file"):
        find_target(f"colmap:{tmp_path / 'file'}").check()
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(OutputError, match="Expected room on the disk"):
        find_target(tmp_path / "b.ply").check()


def test_a_missing_package_is_told_at_once(tmp_path: Path) -> None:
    needy = Format("needy", "needs much", lambda *_: None, (".x",), module="no_such_module", extra="much")
    with pytest.raises(MissingExtraError, match=r"Writing needy needs .*'g2vlm\[much\]'"):
        Target(needy, tmp_path / "a.x").check()


def test_a_folder_may_be_packed_and_links_become_copies(scene, tmp_path: Path) -> None:
    seen = []

    def write(scene, path, options, on_progress) -> None:
        seen.append(options.images)
        (path / "deep").mkdir(parents=True)
        (path / "deep" / "a.txt").write_text("a" * 1000)
        (path / "b.png").write_bytes(b"b")

    format = Format("two", "two files", write)
    for name in ("one.zip", "two.ZIP"):
        Target(format, tmp_path / name).write(scene, SaveOptions(images=ImageFiles.LINK), no_progress)
    assert seen == [ImageFiles.COPY] * 2
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert archive.namelist() == ["one/b.png", "one/deep/a.txt"]
        assert archive.read("one/deep/a.txt") == b"a" * 1000
    Target(format, tmp_path / "again" / "one.zip").write(scene, SaveOptions(), no_progress)
    assert (tmp_path / "again" / "one.zip").read_bytes() == (tmp_path / "one.zip").read_bytes()


@pytest.mark.parametrize("wrong", [{"max_points": 0}, {"mesh_edge": 0.0}, {"voxel": -1.0}])
def test_options_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(InputError, match="Expected"):
        SaveOptions(**wrong)
