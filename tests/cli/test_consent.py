"""Eighteen gigabytes are fetched only by who wants them; a model that stands in for another is told."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from plane_checkpoint import plane_checkpoint
from stand_in_hub import StandInHub

import g2vlm
from g2vlm.checkpoints import hub, places
from g2vlm.cli import main as cli
from g2vlm.cli.shared.terminal import leave_to_download
from g2vlm.errors import CheckpointError, CheckpointWarning

REPO = places.DEFAULT_REPO


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plane_checkpoint(tmp_path_factory.mktemp("small") / "bundled" / "g2vlm-tiny")


@pytest.fixture
def server(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    """A hub that has the released checkpoint, and an installation with a bundled one and an empty cache."""
    monkeypatch.setattr(places, "BUNDLED_FOLDER", small.parent)
    monkeypatch.setattr(hub, "BUNDLED_FOLDER", small.parent)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    files = {path.name: path.read_bytes() for path in small.iterdir()}
    with StandInHub(REPO, files) as stand_in:
        monkeypatch.setenv("HF_ENDPOINT", stand_in.url)
        yield stand_in


class Terminal(io.StringIO):
    """What a person types, or sees."""

    def isatty(self) -> bool:
        return True


def reconstruct(tmp_path: Path, *words: str) -> int:
    photos = Path(__file__).parents[2] / "src" / "g2vlm" / "examples" / "recon_images"
    save = ["--save_path", str(tmp_path / "scene.npz"), "--max_views", "1"]
    return cli.main(["recon", "--data_path", str(photos), *save, *words])


@pytest.mark.parametrize("offline", [False, True])
def test_the_library_warns_of_the_bundled_model(
    server: StandInHub, small: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    if offline:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.warns(CheckpointWarning, match=rf"g2vlm-tiny .*{REPO} is not in the cache"):
        model = g2vlm.load()
    assert model.folder == small
    assert server.requests == []
    g2vlm.load("g2vlm-tiny")  # who names it knows it: without a warning


def test_the_library_downloads_only_with_leave(server: StandInHub) -> None:
    with pytest.raises(CheckpointError, match="download=True"):
        g2vlm.load(REPO)
    assert server.requests == []
    assert g2vlm.load(REPO, download=True).folder.name
    assert hub.is_cached(REPO)
    assert g2vlm.load().folder == places.cached_folder(REPO)


def test_commands_refuse_without_leave_and_nobody_to_ask(
    server: StandInHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reconstruct(tmp_path, "--ckpt", REPO) == cli.EXIT_MISTAKE
    assert "--download" in capsys.readouterr().err
    assert server.requests == []
    assert reconstruct(tmp_path, "--ckpt", REPO, "--download") == 0
    assert hub.is_cached(REPO)


@pytest.mark.parametrize(("typed", "fetched"), [("y\n", True), ("yes\n", True), ("\n", False), ("", False)])
def test_somebody_at_a_terminal_is_asked(
    server: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, fetched: bool
) -> None:
    seen = Terminal()
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    monkeypatch.setattr("sys.stderr", seen)
    choice = hub.choose_checkpoint(may_download=leave_to_download(False))
    assert f"{REPO} is not on this machine. Download " in seen.getvalue()
    assert str(tmp_path / "cache") in seen.getvalue()
    assert choice.origin is (hub.Origin.DOWNLOADED if fetched else hub.Origin.BUNDLED)
    assert hub.is_cached(REPO) is fetched
