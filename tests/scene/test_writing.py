"""Files appear completely or not at all."""

import os
import stat
from pathlib import Path

import pytest

from g2vlm.errors import OutputError
from g2vlm.scene.writing import atomic_path


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
