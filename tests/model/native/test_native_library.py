"""How the library comes about, and what is said where it cannot."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest
import torch

from g2vlm.model.native import library as native
from g2vlm.model.native.library import FAST_TILES, NativeUnavailableError, load_library

SOURCE = Path(native.__file__).with_name(native.SOURCES[-1])
compile_library = native._compiled
"""As it is before a test replaces it."""
QUICK = tuple("-O0" if flag == "-O3" else flag for flag in native.FLAGS)
"""Twenty times as fast to compile."""


@lru_cache
def library_bytes() -> bytes:
    """A plain library, compiled once for all tests here."""
    (compiler, *_), flags = native._compilers(), (*QUICK, "-DPLAIN")
    with tempfile.TemporaryDirectory() as scratch:
        return compile_library(compiler, flags, SOURCE, Path(scratch))


@pytest.fixture
def _compiled_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "FLAGS", QUICK)


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    native._library.cache_clear()
    yield
    native._library.cache_clear()


@pytest.mark.needs_compiler
@pytest.mark.usefixtures("_compiled_quickly")
def test_it_is_compiled_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("G2VLM_CACHE", str(tmp_path))
    load_library(plain=True)
    (built,) = tmp_path.iterdir()
    assert built.name.startswith("decode-")
    written = built.stat().st_mtime_ns
    native._library.cache_clear()
    load_library(plain=True)
    assert [path.stat().st_mtime_ns for path in tmp_path.iterdir()] == [written]


@pytest.mark.needs_compiler
@pytest.mark.parametrize("size", [0, 100, 20_000])
def test_one_that_was_cut_off_is_compiled_again(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("G2VLM_CACHE", str(tmp_path))
    monkeypatch.setattr(native, "_compiled", lambda *_: library_bytes())
    load_library(plain=True)
    (built,) = tmp_path.iterdir()
    # Not in place, where the process has it mapped.
    whole = built.read_bytes()
    built.unlink()
    built.write_bytes(whole[:size])
    native._library.cache_clear()
    assert load_library(plain=True).g2vlm_features() == 0
    assert built.read_bytes() == whole


@pytest.mark.needs_compiler
def test_one_that_others_may_write_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("G2VLM_CACHE", str(tmp_path))
    compiled = []
    monkeypatch.setattr(native, "_compiled", lambda *_: compiled.append(1) or library_bytes())
    load_library(plain=True)
    (built,) = tmp_path.iterdir()
    built.chmod(0o722)
    native._library.cache_clear()
    load_library(plain=True)
    assert len(compiled) == 2
    assert stat.S_IMODE(built.stat().st_mode) == 0o700


@pytest.mark.needs_compiler
def test_fast_forms_depend_on_the_processor_and_plain_ones_have_none() -> None:
    flags = Path("/proc/cpuinfo").read_text().split()
    narrow, packed = "avx512_bf16" in flags, {"avx512_bf16", "avx512vbmi", "avx512_vbmi2"} <= set(flags)
    expected = narrow | ("avx512_vnni" in flags) << 1 | packed << 2
    found = load_library().g2vlm_features()
    assert found & ~FAST_TILES == expected
    # A system may keep the matrix unit to itself.
    assert not found & FAST_TILES or (packed and "amx_bf16" in flags)
    assert load_library(plain=True).g2vlm_features() == 0


@pytest.mark.needs_compiler
def test_without_a_place_to_keep_it_it_works_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "kept_folder", lambda: None)
    monkeypatch.setattr(native, "_compiled", lambda *_: library_bytes())
    assert load_library(plain=True).g2vlm_features() == 0


@pytest.mark.needs_compiler
def test_another_processor_gets_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("G2VLM_CACHE", str(tmp_path))
    monkeypatch.setattr(native, "_compiled", lambda *_: library_bytes())
    load_library(plain=True)
    native._library.cache_clear()
    monkeypatch.setattr(native, "processor", lambda: b"another")
    load_library(plain=True)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler -O2")
    with pytest.raises(NativeUnavailableError, match="no-such-compiler that CC names was not found"):
        load_library()
    native._library.cache_clear()
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(
        NativeUnavailableError, match=r"C compiler \(gcc, cc or clang\) was not found: install"
    ):
        load_library()


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


BROKEN = 'echo "$@" >> "$0.log"\n[ "$1" = --version ] && exit 0\necho this cannot be >&2\nexit 1'


def test_a_compiler_that_fails_is_quoted_asked_once_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = program(tmp_path / "broken", BROKEN)
    monkeypatch.setenv("CC", str(broken))
    monkeypatch.setenv("G2VLM_CACHE", str(tmp_path / "cache"))
    for _ in range(2):
        with pytest.raises(NativeUnavailableError, match="this cannot be"):
            load_library()
    assert not list((tmp_path / "cache").iterdir())
    assert len((tmp_path / "broken.log").read_text().splitlines()) == 2, "its version and one attempt"


@pytest.mark.needs_compiler
@pytest.mark.usefixtures("_compiled_quickly")
def test_the_next_compiler_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "gcc", BROKEN)
    program(tmp_path / "clang", f'exec {shutil.which("cc")} "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(native, "COMPILERS", ("gcc", "clang"))
    monkeypatch.setenv("G2VLM_CACHE", str(tmp_path / "cache"))
    assert load_library(plain=True).g2vlm_features() == 0
    assert (tmp_path / "gcc.log").exists()


@pytest.mark.needs_compiler
@pytest.mark.usefixtures("_compiled_quickly")
def test_cc_may_be_several_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapper = program(tmp_path / "ccache", 'exec "$@"')
    monkeypatch.setenv("CC", f"'{wrapper}' {shutil.which('cc')} -g0")
    monkeypatch.setenv("G2VLM_CACHE", str(tmp_path / "cache"))
    assert load_library(plain=True).g2vlm_features() == 0
    native._library.cache_clear()
    monkeypatch.setenv("CC", "gcc 'unclosed")
    with pytest.raises(NativeUnavailableError, match="CC cannot be read as a command"):
        load_library()


def test_what_only_looks_like_a_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "empty"
    empty.write_bytes(b"\0")
    empty.chmod(empty.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CC", str(empty))
    with pytest.raises(NativeUnavailableError, match="empty did not run"):
        load_library()


@pytest.mark.needs_compiler
def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("G2VLM_CACHE", str(tmp_path))
    monkeypatch.setattr(native, "_compiled", lambda *_: library_bytes())

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(native, "keep", full)
    with pytest.raises(NativeUnavailableError, match=r"cannot be kept: .*No space left"):
        load_library()


def test_other_systems_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native.platform, "system", lambda: "Darwin")
    with pytest.raises(NativeUnavailableError, match="made for Linux, this is Darwin"):
        load_library()


@pytest.mark.needs_compiler
def test_opening_it_leaves_the_arithmetic_of_the_process_alone() -> None:
    load_library()
    smallest = torch.full((4,), 1e-40)
    # Fast arithmetic, linked in carelessly, makes a whole process flush such numbers to zero.
    assert (smallest + smallest > 0).all()
