"""The library behind native passes: compiled by this machine's own C compiler, once, and kept."""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import torch  # noqa: F401  (its OpenMP runtime must be in the process before the library asks for it)

from g2vlm.model.kept import keep, kept, kept_folder, processor

T = TypeVar("T")

SOURCES = ("formats.h", "packed.h", "tiles.h", "products.h", "attention.h", "decode.c")
COMPILERS = ("gcc", "cc", "clang")
"""Tried in turn where CC names none."""
FLAGS = ("-std=c11", "-O3", "-march=native", "-ffast-math", "-fopenmp", "-fPIC")
WIDE_VECTORS = "-mprefer-vector-width=512"
"""Flag of compilers for x86."""
FAST_BFLOAT16, FAST_INTEGER, FAST_PACKED, FAST_TILES = 1, 2, 4, 8
"""Bits of the features that a library was compiled with."""
PATIENCE_S = 120
"""Seconds that a compiler may take."""


class NativeUnavailableError(Exception):
    """Native passes cannot run here; the message says what is missing."""


def load_library(*, plain: bool = False) -> ctypes.CDLL:
    """The library, compiled now if it never was for this processor.

    It lies in `kept_folder()`, under a name that depends on the sources, the compiler and the processor; for
    this process alone where there is no such folder. A failure is found out once a process.

    Args:
        plain: without the instructions for bfloat16 and int8, to test what other processors run.

    Raises:
        NativeUnavailableError: no compiler that can do it, with what each said.
    """
    return _or_error(_library, plain)


def load_translated(source: Path) -> ctypes.CDLL:
    """The library of another C file that stands alone, compiled and kept like the one of native passes.

    Args:
        source: the file; the name of the library depends on its text.

    Raises:
        NativeUnavailableError: no compiler that can do it, with what each said.
    """
    return _or_error(_standing_alone, source)


_lock = threading.Lock()
"""Two threads must not compile the same."""


def _or_error(find: Callable[[T], ctypes.CDLL | str], which: T) -> ctypes.CDLL:
    with _lock:
        found = find(which)
    if isinstance(found, str):
        raise NativeUnavailableError(found)
    return found


@lru_cache(maxsize=2)
def _library(plain: bool) -> ctypes.CDLL | str:
    sources = tuple(Path(__file__).parent / name for name in SOURCES)
    return _by_some_compiler(sources, ("-DPLAIN",) if plain else (), _declared)


@lru_cache(maxsize=4)
def _standing_alone(source: Path) -> ctypes.CDLL | str:
    return _by_some_compiler((source,), (), lambda library: library)


def _by_some_compiler(
    sources: tuple[Path, ...], more: tuple[str, ...], declare: Callable[[ctypes.CDLL], ctypes.CDLL]
) -> ctypes.CDLL | str:
    """The library of a file, the last of its sources, or why there is none."""
    flags = (*FLAGS, *([WIDE_VECTORS] if _is_x86() else []), *more)
    try:
        compilers = _compilers()
    except NativeUnavailableError as error:
        return str(error)
    failures = []
    for compiler in compilers:
        try:
            return declare(_built(compiler, flags, sources))
        except NativeUnavailableError as error:
            failures.append(str(error))
    return "; ".join(failures)


def _is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64")


def _compilers() -> list[list[str]]:
    """Commands that may compile, the one that CC names alone or the usual ones that are here."""
    if platform.system() != "Linux":
        raise NativeUnavailableError(f"native passes are made for Linux, this is {platform.system()}")
    named = _words(os.environ.get("CC", ""))
    if named:
        if not shutil.which(named[0]):
            raise NativeUnavailableError(
                f"the compiler {named[0]} that CC names was not found: install it, or unset CC"
            )
        return [named]
    found = {os.path.realpath(path): [path] for name in reversed(COMPILERS) if (path := shutil.which(name))}
    if not found:
        wanted = "a C compiler (gcc, cc or clang)"
        raise NativeUnavailableError(f"{wanted} was not found: install one, for example  apt install gcc")
    return list(reversed(found.values()))


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise NativeUnavailableError(f"CC cannot be read as a command ({error}): {command!r}") from error


def _built(compiler: list[str], flags: tuple[str, ...], sources: tuple[Path, ...]) -> ctypes.CDLL:
    """Open what this compiler made before, or let it."""
    name = f"{sources[-1].stem}-{_fingerprint(compiler, flags, sources)}.so"
    try:
        with tempfile.TemporaryDirectory(prefix="g2vlm-native-") as scratch:
            path = (kept_folder() or Path(scratch)) / name
            if kept(path) is None:
                keep(path, _compiled(compiler, flags, sources[-1], Path(scratch)))
            # Opened while a temporary folder is still there; the mapping outlives it.
            return _opened(path)
    except OSError as error:
        raise NativeUnavailableError(f"the library cannot be kept: {error}") from error


def _fingerprint(compiler: list[str], flags: tuple[str, ...], sources: tuple[Path, ...]) -> str:
    """What a library depends on; processors that share a home folder keep one each."""
    version = _run([*compiler, "--version"])
    parts = [version.encode(), " ".join([*compiler, *flags]).encode(), processor()]
    parts += [source.read_bytes() for source in sources]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _compiled(compiler: list[str], flags: tuple[str, ...], source: Path, scratch: Path) -> bytes:
    """The library that a compiler makes of a file."""
    whole, library = scratch / f"{source.stem}.o", scratch / "compiled.so"
    _run([*compiler, *flags, "-c", str(source), "-o", str(whole)])
    # Not linked to an OpenMP runtime: torch's own, already in the process, shares its threads with ours.
    # Nor with fast arithmetic, which would make the whole process flush small numbers to zero.
    _run([*compiler, "-shared", str(whole), "-o", str(library), "-lm"])
    return library.read_bytes()


def _run(command: list[str]) -> str:
    """What a command prints."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NativeUnavailableError(f"{command[0]} did not run: {error}") from error
    if done.returncode:
        raise NativeUnavailableError(f"{command[0]} failed: {done.stderr.strip()[-500:]}")
    return done.stdout


def _opened(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise NativeUnavailableError(
            f"the compiled library does not open ({error}); this build of torch may lack GNU OpenMP"
        ) from error


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    """The library of native passes with the types of its functions."""
    place, count, threads = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
    library.g2vlm_decode.argtypes = [place, count, place, place, count, *[place] * 5, threads]
    library.g2vlm_multiply.argtypes = [place, place, count, place, threads]
    library.g2vlm_widen.argtypes = [place, count, count, threads, place, threads]
    library.g2vlm_measure.argtypes = [place, count, count, place, place, threads]
    library.g2vlm_pack.argtypes = [place, count, count, *[place] * 4, threads]
    for name in ("g2vlm_widen", "g2vlm_measure", "g2vlm_pack"):
        getattr(library, name).restype = None
    for name in ("g2vlm_size_of_network", "g2vlm_size_of_memory", "g2vlm_size_of_header"):
        getattr(library, name).restype = count
    return library
