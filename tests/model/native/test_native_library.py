"""How the library comes about, and what is said where it cannot."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from g2vlm.model.native import library as native
from g2vlm.model.native.library import FAST_TILES, NativeUnavailableError, load_library


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    native._library.cache_clear()
    yield
    native._library.cache_clear()


def test_it_is_translated_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    load_library()
    (kept,) = (tmp_path / "g2vlm").iterdir()
    written = kept.stat().st_mtime_ns
    native._library.cache_clear()
    load_library()
    assert [path.stat().st_mtime_ns for path in (tmp_path / "g2vlm").iterdir()] == [written]
    load_library(plain=True)
    assert len(list((tmp_path / "g2vlm").iterdir())) == 2


def test_fast_forms_depend_on_the_processor_and_plain_ones_have_none() -> None:
    flags = Path("/proc/cpuinfo").read_text().split()
    narrow, packed = "avx512_bf16" in flags, {"avx512_bf16", "avx512vbmi", "avx512_vbmi2"} <= set(flags)
    expected = narrow | ("avx512_vnni" in flags) << 1 | packed << 2
    found = load_library().g2vlm_features()
    assert found & ~FAST_TILES == expected
    # A system may keep the matrix unit to itself.
    assert not found & FAST_TILES or (packed and "amx_bf16" in flags)
    assert load_library(plain=True).g2vlm_features() == 0


def test_without_a_place_to_keep_it_it_works_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert load_library(plain=True).g2vlm_features() == 0


def test_another_processor_gets_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    load_library(plain=True)
    native._library.cache_clear()
    monkeypatch.setattr(native, "_processor", lambda: b"another")
    load_library(plain=True)
    assert len(list((tmp_path / "g2vlm").iterdir())) == 2


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler -O2")
    with pytest.raises(NativeUnavailableError, match="no-such-compiler that CC names was not found"):
        load_library()
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(
        NativeUnavailableError, match=r"C compiler \(gcc, cc or clang\) was not found: install"
    ):
        load_library()


def test_a_compiler_that_fails_is_quoted_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    broken.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho this cannot be >&2\nexit 1\n')
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CC", str(broken))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(NativeUnavailableError, match="this cannot be"):
        load_library()
    assert not list((tmp_path / "cache" / "g2vlm").iterdir())


def test_what_only_looks_like_a_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "empty"
    empty.write_bytes(b"\0")
    empty.chmod(empty.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CC", str(empty))
    with pytest.raises(NativeUnavailableError, match="empty did not run"):
        load_library()


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(native.os, "replace", full)
    with pytest.raises(NativeUnavailableError, match=r"cannot be kept: .*No space left"):
        load_library()


def test_other_systems_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native.platform, "system", lambda: "Darwin")
    with pytest.raises(NativeUnavailableError, match="made for Linux, this is Darwin"):
        load_library()


def test_opening_it_leaves_the_arithmetic_of_the_process_alone() -> None:
    load_library()
    smallest = torch.full((4,), 1e-40)
    # Fast arithmetic, linked in carelessly, makes a whole process flush such numbers to zero.
    assert (smallest + smallest > 0).all()
