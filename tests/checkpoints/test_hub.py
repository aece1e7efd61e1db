"""The hub client against a stand-in server: whole, broken, damaged, refused and unreachable downloads."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from stand_in_hub import COMMIT, StandInHub

from g2vlm.checkpoints import hub, places
from g2vlm.errors import CheckpointError, DownloadError

REPO = "someone/model"
FILES = {
    "model.safetensors": bytes(range(256)) * 40_000,
    "text_config.json": b'{"hidden_size": 8}',
    "vit_config.json": b"{}",
    "dino_config.json": b"{}",
    "tokenizer.json": b'{"version": "1.0"}',
    "README.md": b"not needed",
    "training/optimizer.bin": b"not needed either",
}
NEEDED = {name for name in FILES if "/" not in name and name != "README.md"}


@pytest.fixture(autouse=True)
def own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN", "HF_ENDPOINT", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    # What a connection brought counts in steps of so many bytes.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 20)
    monkeypatch.setattr(places, "BUNDLED_FOLDER", tmp_path / "bundled")
    monkeypatch.setattr(hub, "BUNDLED_FOLDER", tmp_path / "bundled")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    with StandInHub(REPO, dict(FILES)) as stand_in:
        monkeypatch.setenv("HF_ENDPOINT", stand_in.url)
        yield stand_in


def write_checkpoint(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in NEEDED:
        (folder / name).write_bytes(FILES[name])
    return folder


def test_download_fills_the_cache_in_the_hub_layout(server: StandInHub, tmp_path: Path) -> None:
    folder = hub.download(REPO)
    assert folder == tmp_path / "cache" / "models--someone--model" / "snapshots" / COMMIT
    assert {path.name for path in folder.iterdir()} == NEEDED
    assert all((folder / name).read_bytes() == FILES[name] for name in NEEDED)
    blob = folder.parents[1] / "blobs" / server.etag("model.safetensors")
    assert (folder / "model.safetensors").resolve() == blob
    assert (folder.parents[1] / "refs" / "main").read_text() == COMMIT
    assert hub.is_cached(REPO)
    assert hub.resolve_checkpoint(REPO) == folder


def test_the_hub_library_finds_our_download(server: StandInHub, tmp_path: Path) -> None:
    from huggingface_hub import try_to_load_from_cache

    folder = hub.download(REPO)
    found = try_to_load_from_cache(REPO, "model.safetensors", cache_dir=tmp_path / "cache")
    assert found == str(folder / "model.safetensors")


def test_cached_checkpoint_needs_no_network(server: StandInHub) -> None:
    hub.download(REPO)
    server.requests.clear()
    choice = hub.choose_checkpoint(REPO)
    assert choice.origin is hub.Origin.CACHE
    assert server.requests == []


def test_download_to_a_folder_twice_transfers_once(server: StandInHub, tmp_path: Path) -> None:
    target = tmp_path / "here"
    assert hub.download(REPO, folder=target) == target
    assert {path.name for path in target.iterdir()} == NEEDED
    assert not (tmp_path / "cache" / "models--someone--model").exists()
    server.requests.clear()
    hub.download(REPO, folder=target)
    assert server.asked("GET", "/storage/") == []


def test_broken_connection_continues_within_the_process(server: StandInHub) -> None:
    server.break_after["model.safetensors"] = [3_000_000, 5_000_000]
    folder = hub.download(REPO)
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    starts = [headers.get("range") for headers in server.asked("GET", "/storage/")]
    assert starts[0] is None
    assert len(starts) == 3
    assert all(start is not None and start != "bytes=0-" for start in starts[1:])


def test_interrupted_download_continues_in_a_later_run(
    server: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.break_after["model.safetensors"] = [2_500_000] + [0] * 20
    with pytest.raises(DownloadError, match=r"connection broke .* run the same command again"):
        hub.download(REPO)
    (unfinished,) = (tmp_path / "cache").rglob("*.incomplete")
    held = unfinished.stat().st_size
    assert 0 < held <= 2_500_000
    assert not hub.is_cached(REPO)
    server.break_after.clear()
    server.requests.clear()
    folder = hub.download(REPO)
    (request,) = server.asked("GET", "/storage/")
    assert request["range"] == f"bytes={held}-"
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert not unfinished.exists()


def test_server_without_ranges_starts_over(server: StandInHub) -> None:
    server.ranges = False
    server.break_after["model.safetensors"] = [3_000_000]
    folder = hub.download(REPO)
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_damage_on_the_way_is_detected(server: StandInHub, tmp_path: Path, name: str) -> None:
    server.corrupt.add(name)
    with pytest.raises(DownloadError, match=rf"{name}.*damaged on the way"):
        hub.download(REPO)
    assert not hub.is_cached(REPO)
    assert not list((tmp_path / "cache").rglob("*.incomplete"))
    server.corrupt.clear()
    assert (hub.download(REPO) / name).read_bytes() == FILES[name]


def test_file_damaged_on_disk_is_fetched_again(server: StandInHub) -> None:
    folder = hub.download(REPO)
    blob = (folder / "model.safetensors").resolve()
    blob.write_bytes(FILES["model.safetensors"][:-1] + b"x")
    hub.download(REPO)
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_partial_file_longer_than_the_remote_one_is_dropped(server: StandInHub, tmp_path: Path) -> None:
    etag = server.etag("model.safetensors")
    stale = tmp_path / "cache" / "models--someone--model" / "blobs" / f"{etag}.incomplete"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(FILES["model.safetensors"] + b"too much")
    folder = hub.download(REPO)
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_token_goes_to_the_hub_and_not_to_another_host(
    server: StandInHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.token = "secret"
    with pytest.raises(DownloadError, match=r"HTTP 401.*HF_TOKEN"):
        hub.download(REPO)
    monkeypatch.setenv("HF_TOKEN", "secret")
    hub.download(REPO)
    assert all(headers["authorization"] == "Bearer secret" for headers in server.asked("HEAD", "/resolve/"))


def test_no_token_for_storage_on_another_host(server: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("HF_ENDPOINT", server.url.replace("127.0.0.1", "localhost"))
    hub.download(REPO)
    assert all("authorization" not in headers for headers in server.asked("GET", "/storage/"))
    assert all("authorization" in headers for headers in server.asked("HEAD", "/resolve/"))


def test_unknown_repository_and_revision(server: StandInHub) -> None:
    with pytest.raises(DownloadError, match=r"no such repository|check the name"):
        hub.download("someone/else")
    with pytest.raises(DownloadError, match="revision 'lost'"):
        hub.download(REPO, "lost")


def test_busy_hub_says_so(server: StandInHub) -> None:
    server.status = 503
    with pytest.raises(DownloadError, match=r"HTTP 503"):
        hub.download(REPO)


def test_repository_without_weights(server: StandInHub) -> None:
    del server.files["model.safetensors"]
    with pytest.raises(CheckpointError, match=r"no model\.safetensors"):
        hub.download(REPO)
    assert not hub.is_cached(REPO)


def test_names_that_would_leave_the_folder_are_not_fetched(server: StandInHub, tmp_path: Path) -> None:
    server.files["../evil.json"] = b"{}"
    hub.download(REPO, folder=tmp_path / "a" / "b")
    assert not (tmp_path / "a" / "evil.json").exists()


def test_no_network_is_one_line_with_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    with pytest.raises(DownloadError) as caught:
        hub.download(REPO)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in ("network", "HF_ENDPOINT", "--ckpt", f"127.0.0.1:{port}"))


def test_offline_mode_is_read_at_the_call(server: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE"):
        hub.choose_checkpoint(REPO, may_download=True)
    assert server.requests == []


def test_too_little_space_is_said_before_the_first_byte(
    server: StandInHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1_000_000})()
    monkeypatch.setattr("shutil.disk_usage", lambda place: usage)
    with pytest.raises(DownloadError, match="free space"):
        hub.download(REPO)
    assert server.asked("GET", "/storage/") == []


def test_cache_folder_follows_the_hub_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.delenv("HUGGINGFACE_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", "/somewhere")
    assert places.cache_folder() == Path("/somewhere/hub")
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "/other")
    assert places.cache_folder() == Path("/other/huggingface/hub")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert places.cache_folder() == Path.home() / ".cache/huggingface/hub"


def test_local_folder_and_weights_file(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "mine")
    assert hub.choose_checkpoint(folder).origin is hub.Origin.FOLDER
    assert hub.resolve_checkpoint(str(folder / "model.safetensors")) == folder


def test_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"Expected model\.safetensors"):
        hub.resolve_checkpoint(tmp_path)
    (tmp_path / "some.txt").write_text("x")
    with pytest.raises(CheckpointError, match="got the file"):
        hub.resolve_checkpoint(tmp_path / "some.txt")


@pytest.mark.parametrize("name", ["no such thing", "a/b/c", "http://host/x", "-x/y", "g2vlm-huge"])
def test_names_that_mean_nothing(name: str) -> None:
    with pytest.raises(CheckpointError, match="check the spelling"):
        hub.resolve_checkpoint(name)


def test_own_config_stands_for_the_released_ones(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "mine")
    for name in places.CONFIG_FILES:
        (folder / name).unlink()
    assert places.missing_parts(folder) == places.CONFIG_FILES
    (folder / "g2vlm.json").write_text("{}")
    assert places.missing_parts(folder) == ()


def test_sharded_weights_count_as_complete_only_with_every_shard(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "mine")
    (folder / "model.safetensors").unlink()
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict(zip("ab", shards, strict=True))})
    )
    (folder / shards[0]).write_bytes(b"1")
    assert places.missing_parts(folder) == (shards[1],)
    assert hub.resolve_checkpoint(folder) == folder


def test_without_leave_to_download_the_hub_is_not_asked(server: StandInHub) -> None:
    with pytest.raises(CheckpointError, match=r"g2vlm download someone/model .* --download"):
        hub.choose_checkpoint(REPO)
    with pytest.raises(
        CheckpointError, match="not in the cache: nothing large is fetched without your leave"
    ):
        hub.choose_checkpoint()
    assert server.requests == []


def test_whoever_is_asked_hears_the_size_and_decides(server: StandInHub) -> None:
    asked: list[tuple[str, int]] = []

    def refuse(repo_id: str, num_bytes: int) -> bool:
        asked.append((repo_id, num_bytes))
        return False

    with pytest.raises(CheckpointError, match="without your leave"):
        hub.choose_checkpoint(REPO, may_download=refuse)
    assert asked == [(REPO, sum(len(FILES[name]) for name in NEEDED))]
    assert server.asked("GET", "/storage/") == []
    choice = hub.choose_checkpoint(REPO, may_download=lambda *_: True)
    assert choice.origin is hub.Origin.DOWNLOADED


def test_nobody_is_asked_about_what_is_in_the_cache(server: StandInHub) -> None:
    hub.download(REPO)
    assert hub.choose_checkpoint(REPO, may_download=pytest.fail).origin is hub.Origin.CACHE


class TestDefault:
    """No name given: the cache, then the hub, then the bundled checkpoint."""

    @pytest.fixture(autouse=True)
    def small_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hub, "DEFAULT_REPO", REPO)

    def test_hub_within_reach(self, server: StandInHub) -> None:
        assert hub.choose_checkpoint(may_download=True).origin is hub.Origin.DOWNLOADED
        server.status = 500
        assert hub.choose_checkpoint().origin is hub.Origin.CACHE

    def test_bundled_otherwise_with_its_reason(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        bundled = write_checkpoint(tmp_path / "bundled" / "g2vlm-tiny")
        choice = hub.choose_checkpoint(may_download=True)
        assert choice.folder == bundled
        assert choice.origin is hub.Origin.BUNDLED
        assert "not within reach" in str(choice)
        assert hub.choose_checkpoint("g2vlm-tiny").folder == bundled

    def test_bundled_without_leave(self, server: StandInHub, tmp_path: Path) -> None:
        bundled = write_checkpoint(tmp_path / "bundled" / "g2vlm-tiny")
        for leave in (False, lambda *_: False):
            choice = hub.choose_checkpoint(may_download=leave)
            assert choice.folder == bundled
            assert "was not to be downloaded" in choice.reason

    def test_a_download_that_breaks_is_told_and_nothing_else_taken(
        self, server: StandInHub, tmp_path: Path
    ) -> None:
        write_checkpoint(tmp_path / "bundled" / "g2vlm-tiny")
        server.corrupt.add("model.safetensors")
        with pytest.raises(DownloadError, match="damaged on the way"):
            hub.choose_checkpoint(may_download=True)

    def test_nothing_at_all_is_a_clear_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(CheckpointError, match=r"none was named.*bundles none.*HF_HUB_OFFLINE"):
            hub.choose_checkpoint(may_download=True)
        with pytest.raises(CheckpointError, match="carries none"):
            hub.choose_checkpoint("g2vlm-tiny")


def test_push_folder_uploads_every_file(
    server: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    folder = write_checkpoint(tmp_path / "mine")
    (folder / "model.safetensors").write_bytes(b"small weights")
    address = hub.push_folder(folder, REPO)
    assert address.endswith(COMMIT)
    assert server.uploaded["model.safetensors"] == b"small weights"
    assert set(server.uploaded) == NEEDED


def test_push_folder_refuses_an_incomplete_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="complete checkpoint"):
        hub.push_folder(tmp_path, REPO)


def test_where_links_are_impossible_the_snapshot_holds_the_file(
    server: StandInHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "symlink", refuse)
    folder = hub.download(REPO)
    assert not (folder / "model.safetensors").is_symlink()
    server.requests.clear()
    hub.download(REPO)
    assert server.asked("GET", "/storage/") == []
