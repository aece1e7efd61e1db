"""The library behind native passes: translated by this machine's own C compiler, once, and kept."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

import torch  # noqa: F401  (its OpenMP runtime must be in the process before the library asks for it)

SOURCES = ("formats.h", "packed.h", "tiles.h", "products.h", "attention.h", "decode.c")
COMPILERS = ("gcc", "cc", "clang")
"""Tried in turn where CC names none."""
FLAGS = ("-std=c11", "-O3", "-march=native", "-ffast-math", "-fopenmp", "-fPIC")
WIDE_VECTORS = "-mprefer-vector-width=512"
"""Flag of compilers for x86."""
FAST_BFLOAT16, FAST_INTEGER, FAST_PACKED, FAST_TILES = 1, 2, 4, 8
"""Bits of the features that a library was translated with."""
PATIENCE_S = 120
"""Seconds that a compiler may take."""


class NativeUnavailableError(Exception):
    """Native passes cannot run here; the message says what is missing."""


def load_library(*, plain: bool = False) -> ctypes.CDLL:
    """The library, translated now if this machine never did.

    It lies in `$XDG_CACHE_HOME/g2vlm` (`~/.cache/g2vlm`), under a name that depends on the sources, the
    compiler and the processor; in a temporary folder where that cannot be written.

    Args:
        plain: without the instructions for bfloat16 and int8, to test what other processors run.

    Raises:
        NativeUnavailableError: no compiler that can do it, with what it said.
    """
    return _library(plain)


def has_fast_integers() -> bool:
    """Whether the library multiplies int8 and int4 by this processor's own instructions, rather than plainly.

    Raises:
        NativeUnavailableError: there is no library.
    """
    return bool(load_library().g2vlm_features() & FAST_INTEGER)


def has_fast_unpacking() -> bool:
    """Whether the library unpacks weights by this processor's own instructions, rather than plainly.

    Raises:
        NativeUnavailableError: there is no library.
    """
    return bool(load_library().g2vlm_features() & FAST_PACKED)


@lru_cache(maxsize=4)
def load_translated(source: Path) -> ctypes.CDLL:
    """The library of another C file that stands alone, translated and kept like the one of native passes.

    Args:
        source: the file; the name of the library depends on its text.

    Raises:
        NativeUnavailableError: no compiler that can do it, with what it said.
    """
    compiler = _compiler()
    flags = (*FLAGS, *([WIDE_VECTORS] if _is_x86() else []))
    name = f"{source.stem}-{_fingerprint(compiler, flags, (source,))}.so"
    folder = _cache_folder()
    try:
        if folder is None:
            with tempfile.TemporaryDirectory(prefix="g2vlm-native-") as scratch:
                return ctypes.CDLL(str(_translate(compiler, flags, source, Path(scratch) / name)))
        path = folder / name
        return ctypes.CDLL(str(path if path.is_file() else _translate(compiler, flags, source, path)))
    except OSError as error:
        raise NativeUnavailableError(f"the library cannot be kept: {error}") from error


@lru_cache(maxsize=2)
def _library(plain: bool) -> ctypes.CDLL:
    compiler = _compiler()
    flags = (*FLAGS, *([WIDE_VECTORS] if _is_x86() else []), *(["-DPLAIN"] if plain else []))
    folder_of_sources = Path(__file__).parent
    sources = tuple(folder_of_sources / name for name in SOURCES)
    name = f"write-{_fingerprint(compiler, flags, sources)}.so"
    folder = _cache_folder()
    try:
        if folder is None:
            with tempfile.TemporaryDirectory(prefix="g2vlm-native-") as scratch:
                return _opened(_translate(compiler, flags, sources[-1], Path(scratch) / name))
        path = folder / name
        return _opened(path if path.is_file() else _translate(compiler, flags, sources[-1], path))
    except OSError as error:
        raise NativeUnavailableError(f"the library cannot be kept: {error}") from error


def _is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64")


def _compiler() -> str:
    if platform.system() != "Linux":
        raise NativeUnavailableError(f"native passes are made for Linux, this is {platform.system()}")
    named = os.environ.get("CC", "").split()
    for name in named[:1] or COMPILERS:
        if found := shutil.which(name):
            return found
    wanted = f"the compiler {named[0]} that CC names" if named else "a C compiler (gcc, cc or clang)"
    raise NativeUnavailableError(f"{wanted} was not found: install one, for example  apt install gcc")


def _fingerprint(compiler: str, flags: tuple[str, ...], sources: tuple[Path, ...]) -> str:
    """What a translation depends on; processors that share a home folder keep one each."""
    version = _run([compiler, "--version"])
    parts = [version.encode(), " ".join(flags).encode(), _processor()]
    parts += [source.read_bytes() for source in sources]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _processor() -> bytes:
    """The instructions that this processor has, as Linux lists them."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:
        return platform.machine().encode()
    return b"".join(sorted({line for line in lines if line.startswith((b"flags", b"Features", b"model"))}))


def _cache_folder() -> Path | None:
    """Where translations are kept; None where nothing can be written."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(home).expanduser() / "g2vlm"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def _translate(compiler: str, flags: tuple[str, ...], source: Path, target: Path) -> Path:
    """Translate into a temporary folder beside `target`, then rename: others may be doing the same."""
    with tempfile.TemporaryDirectory(prefix=".native-", dir=target.parent) as scratch:
        whole, library = Path(scratch) / "write.o", Path(scratch) / target.name
        _run([compiler, *flags, "-c", str(source), "-o", str(whole)])
        # Not linked to an OpenMP runtime: torch's own, already in the process, shares its threads with ours.
        # Nor with fast arithmetic, which would make the whole process flush small numbers to zero.
        _run([compiler, "-shared", str(whole), "-o", str(library), "-lm"])
        os.replace(library, target)
    return target


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
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise NativeUnavailableError(
            f"the translated library does not open ({error}); this build of torch may lack GNU OpenMP"
        ) from error
    place, count, threads = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
    library.g2vlm_write.argtypes = [place, count, place, place, count, *[place] * 5, threads]
    library.g2vlm_multiply.argtypes = [place, place, count, place, threads]
    library.g2vlm_widen.argtypes = [place, count, count, threads, place, threads]
    library.g2vlm_measure.argtypes = [place, count, count, place, place, threads]
    library.g2vlm_pack.argtypes = [place, count, count, *[place] * 4, threads]
    for name in ("g2vlm_widen", "g2vlm_measure", "g2vlm_pack"):
        getattr(library, name).restype = None
    for name in ("g2vlm_size_of_network", "g2vlm_size_of_memory", "g2vlm_size_of_header"):
        getattr(library, name).restype = count
    return library
