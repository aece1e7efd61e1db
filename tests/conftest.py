"""Shared set-up: shapes checked at run time, one thread each, the checkpoint of the parity files."""

import os
import shutil
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

from jaxtyping import install_import_hook

# Checked code is slower: what is measured here must not be kept for the user. Workers inherit the folder.
OWN_CACHE = None if "G2VLM_CACHE" in os.environ else tempfile.mkdtemp(prefix="g2vlm-tests-")
if OWN_CACHE is not None:
    os.environ["G2VLM_CACHE"] = OWN_CACHE

# Annotated shapes are promises; the hook makes every call in every test check them.
install_import_hook("g2vlm", "beartype.beartype")

import pytest  # noqa: E402
import torch  # noqa: E402

PARITY_DATA = Path(__file__).parent / "parity" / "data"

# Small tensors gain nothing from more threads, and workers side by side would fight for the cores.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def parity_data() -> Path:
    return PARITY_DATA


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small pseudo-random checkpoint behind the parity files, in the released layout."""
    folder = tmp_path_factory.mktemp("checkpoint")
    subprocess.run([sys.executable, PARITY_DATA / "make_checkpoint.py", folder], check=True)
    return folder


@pytest.fixture(scope="session")
def computed_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The computed pictures behind the parity files."""
    folder = tmp_path_factory.mktemp("images")
    subprocess.run([sys.executable, PARITY_DATA / "make_images.py", folder], check=True)
    return folder


@lru_cache
def _missing_compiler() -> str:
    """Why there are no compiled passes here; empty where there are."""
    from g2vlm.model.native.library import NativeUnavailableError, load_library

    try:
        load_library()
    except NativeUnavailableError as error:
        return str(error)
    return ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what cannot run on this machine, with the reason."""
    if item.get_closest_marker("needs_compiler") and (reason := _missing_compiler()):
        pytest.skip(reason)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remove the folder: the process that made it ends last."""
    if OWN_CACHE is not None:
        shutil.rmtree(OWN_CACHE, ignore_errors=True)
