"""Files appear completely or not at all."""

import json
import os
import stat
import types
from pathlib import Path

import pytest

from g2vlm.errors import OutputError
from g2vlm.scene.writing import MANIFEST, atomic_folder, atomic_path, check_file, check_folder


def test_a_file_appears_with_its_folders_and_usual_permissions(tmp_path):
    target = tmp_path / "a" / "b" / "file.bin"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == ".bin"
        temporary.write_bytes(b"done")
        assert not target.exists()
    assert target.read_bytes() == b"done"
    assert os.listdir(target.parent) == ["file.bin"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~umask


def write_half_and_stop(target: Path, error: type[BaseException]) -> None:
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        raise error("stop")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OutputError])
def test_failure_in_the_middle_leaves_nothing_behind(tmp_path, error):
    with pytest.raises(error):
        write_half_and_stop(tmp_path / "file.bin", error)
    assert os.listdir(tmp_path) == []


def test_failure_keeps_the_previous_file(tmp_path):
    target = tmp_path / "file.bin"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError):
        write_half_and_stop(target, RuntimeError)
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.bin"]
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"new")
    assert target.read_bytes() == b"new"


def test_a_full_disk_is_reported_as_such(tmp_path):
    with (
        pytest.raises(OutputError, match=r"write .*file\.bin, got No space left"),
        atomic_path(tmp_path / "file.bin"),
    ):
        raise OSError(28, "No space left on device")
    assert os.listdir(tmp_path) == []


def test_a_folder_in_place_of_a_file_is_refused(tmp_path):
    with pytest.raises(OutputError, match="is a folder"), atomic_path(tmp_path):
        pytest.fail("the block must not run")


def test_a_file_in_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="choose another place"), atomic_path(tmp_path / "file" / "a.npz"):
        pytest.fail("the block must not run")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    # Tests may run as root, whom permissions do not stop: the refusal is staged.
    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("g2vlm.scene.writing.os.open", refuse)
    with pytest.raises(OutputError, match="got Permission denied"), atomic_path(tmp_path / "a.npz"):
        pytest.fail("the block must not run")


def test_a_symbolic_link_is_written_through(tmp_path):
    real = tmp_path / "real.bin"
    real.write_bytes(b"old")
    link = tmp_path / "link.bin"
    link.symlink_to(real)
    with atomic_path(link) as temporary:
        temporary.write_bytes(b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"


def fill(folder: Path, text: str = "x") -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "a.txt").write_text(text)
    (folder / "b.txt").write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_folder_appears_as_a_whole_with_a_list_of_its_files(tmp_path):
    target = tmp_path / "new" / "out"
    with atomic_folder(target, {"kind": "test"}) as temporary:
        assert temporary.parent == target.parent
        fill(temporary)
        assert not target.exists()
    assert names(target) == ["b.txt", "deep/a.txt", MANIFEST]
    assert json.loads((target / MANIFEST).read_text()) == {"kind": "test", "files": ["b.txt", "deep/a.txt"]}
    assert os.listdir(target.parent) == ["out"]


def test_a_folder_written_before_is_replaced_as_a_whole(tmp_path):
    for text in ("first", "second"):
        with atomic_folder(tmp_path / "out", {}) as temporary:
            fill(temporary, text)
            if text == "first":
                (temporary / "only-first.txt").touch()
    assert names(tmp_path / "out") == ["b.txt", "deep/a.txt", MANIFEST]
    assert (tmp_path / "out" / "b.txt").read_text() == "second"
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("made_by_us", [True, False])
def test_a_folder_with_foreign_files_is_kept(tmp_path, made_by_us):
    target = tmp_path / "out"
    if made_by_us:
        with atomic_folder(target, {}) as temporary:
            fill(temporary)
    else:
        target.mkdir()
        (target / MANIFEST).write_text("[1]")
    (target / "trained.ckpt").write_text("precious")
    with pytest.raises(OutputError, match=r"holds (trained\.ckpt|g2vlm\.json)"), atomic_folder(target, {}):
        pytest.fail("the block must not run")
    assert (target / "trained.ckpt").read_text() == "precious"


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "out").mkdir()
    with atomic_folder(tmp_path / "out", {}) as temporary:
        fill(temporary)
    assert "b.txt" in names(tmp_path / "out")


def test_failure_in_the_middle_leaves_the_folder_as_it_was(tmp_path, monkeypatch):
    def stop(target):
        with atomic_folder(target, {}) as temporary:
            fill(temporary)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        stop(tmp_path / "out")
    assert os.listdir(tmp_path) == []
    with atomic_folder(tmp_path / "out", {}) as temporary:
        fill(temporary, "old")
    with pytest.raises(RuntimeError):
        stop(tmp_path / "out")
    # The last step may fail as well: what was there before comes back.
    plain = os.rename

    def refuse(source, target):
        if Path(target).name == "out" and not str(source).endswith(".old"):
            raise OSError(28, "No space left on device")
        plain(source, target)

    monkeypatch.setattr("g2vlm.scene.writing.os.rename", refuse)
    with pytest.raises(OutputError, match="No space left"), atomic_folder(tmp_path / "out", {}) as temporary:
        fill(temporary)
    assert (tmp_path / "out" / "b.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(OutputError, match="is a file"), atomic_folder(tmp_path / "out", {}):
        pytest.fail("the block must not run")
    with pytest.raises(OutputError, match="choose another place"), atomic_folder(tmp_path / "out" / "a", {}):
        pytest.fail("the block must not run")


LONGEST = 255


def test_checking_creates_folders_and_no_file(tmp_path):
    target = tmp_path / "a" / "b" / "file.ply"
    assert check_file(target) == target
    assert os.listdir(target.parent) == []
    assert check_folder(tmp_path / "c" / "d") == tmp_path / "c" / "d"
    assert os.listdir(tmp_path / "c" / "d") == []
    target.write_bytes(b"kept")
    check_file(target)
    assert target.read_bytes() == b"kept"


def test_a_name_may_be_as_long_as_the_system_allows(tmp_path):
    for name in ("x" * (LONGEST - 4) + ".ply", "é" * ((LONGEST - 4) // 2) + ".ply"):
        target = tmp_path / name
        check_file(target)
        with atomic_path(target) as temporary:
            temporary.write_bytes(b"done")
        assert target.read_bytes() == b"done"


def a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.ply")
    return folder / "pipe.ply"


def below_a_file(folder: Path) -> Path:
    (folder / "file").write_bytes(b"")
    return folder / "file" / "x.ply"


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (lambda folder: folder, "is a folder"),
        (lambda folder: folder / ("x" * LONGEST + ".ply"), "name too long"),
        (lambda folder: folder / ("x" * (LONGEST + 1)) / "x.ply", "name too long"),
        (lambda folder: folder / "x\0.ply", "null"),
        (a_pipe, "a device or a pipe"),
        (below_a_file, "a file where a folder should be"),
        (lambda _: Path("/proc/x.ply"), "Expected to write into /proc"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="names and devices of POSIX systems")
def test_places_that_cannot_be_written_are_told_before_the_work(place, expected, tmp_path):
    target = place(tmp_path)
    with pytest.raises(OutputError, match=expected):
        check_file(target)
    with pytest.raises(OutputError, match=expected), atomic_path(target):
        pass


def test_folders_that_cannot_be_written_are_told_before_the_work(tmp_path, monkeypatch):
    with pytest.raises(OutputError, match="a file where a folder should be"):
        check_folder(below_a_file(tmp_path))
    with pytest.raises(OutputError, match="a file where a folder should be"):
        check_folder(tmp_path / "file")
    monkeypatch.setattr("shutil.disk_usage", lambda path: types.SimpleNamespace(free=0))
    for check in (check_file, check_folder):
        with pytest.raises(OutputError, match="Expected room on the disk"):
            check(tmp_path / "new")
