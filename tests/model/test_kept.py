"""Files that are kept between runs: private, whole, or not there."""

import os
import stat
from pathlib import Path

import pytest

from g2vlm.model import kept as files
from g2vlm.model.kept import keep, kept, kept_folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("G2VLM_CACHE", str(tmp_path / "own"))
    found = kept_folder()
    assert found == tmp_path / "own"
    return found


@pytest.mark.parametrize("content", [b"", b"some", bytes(range(256)) * 100])
def test_what_is_kept_is_read_back(folder: Path, content: bytes) -> None:
    keep(folder / "below" / "name", content)
    assert kept(folder / "below" / "name") == content
    assert [path.name for path in (folder / "below").iterdir()] == ["name"]
    assert stat.S_IMODE((folder / "below" / "name").stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_what_was_never_kept_is_none(folder: Path) -> None:
    assert kept(folder / "name") is None
    assert kept(folder) is None


@pytest.mark.parametrize("end", [0, 1, 70, -1])
def test_what_was_cut_off_is_none(folder: Path, end: int) -> None:
    keep(folder / "name", b"whole content")
    whole = (folder / "name").read_bytes()
    (folder / "name").write_bytes(whole[:end])
    assert kept(folder / "name") is None


def test_what_was_changed_is_none(folder: Path) -> None:
    keep(folder / "name", b"whole content")
    whole = bytearray((folder / "name").read_bytes())
    whole[3] ^= 1
    (folder / "name").write_bytes(whole)
    assert kept(folder / "name") is None


@pytest.mark.parametrize("mode", [0o720, 0o702])
def test_what_others_may_write_is_none(folder: Path, mode: int) -> None:
    keep(folder / "name", b"content")
    (folder / "name").chmod(mode)
    assert kept(folder / "name") is None


def test_what_belongs_to_somebody_else_is_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(folder / "name", b"content")
    monkeypatch.setattr(os, "getuid", lambda: (folder / "name").stat().st_uid + 1)
    assert kept(folder / "name") is None
    assert kept_folder() != folder


def test_a_folder_that_others_may_write_becomes_private(folder: Path) -> None:
    folder.chmod(0o777)
    assert kept_folder() == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_an_unwritable_place_is_left_for_one_of_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(files.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv("G2VLM_CACHE", str(tmp_path / "file"))
    found = kept_folder()
    assert found == tmp_path / f"g2vlm-{os.getuid()}"
    found.rmdir()
    found.touch()
    assert kept_folder() is None


def test_users_without_a_home_have_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(self: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("G2VLM_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", homeless)
    monkeypatch.setattr(files.tempfile, "gettempdir", lambda: str(tmp_path))
    assert kept_folder() == tmp_path / f"g2vlm-{os.getuid()}"


def test_the_usual_place_is_the_cache_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("G2VLM_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kept_folder() == tmp_path / "g2vlm"


def test_a_failure_while_writing_leaves_what_was_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(folder / "name", b"first")

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        keep(folder / "name", b"second")
    assert kept(folder / "name") == b"first"
    assert [path.name for path in folder.iterdir()] == ["name"]
