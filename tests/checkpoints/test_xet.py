"""Files that the hub stores in chunks come by its own client, from any byte on, or by plain HTTP."""

import random
from collections.abc import Iterator, Mapping
from pathlib import Path

import hf_xet
import pytest
from stand_in_hub import StandInHub

from g2vlm.checkpoints import hub, xet

REPO = "someone/model"
WEIGHTS = random.Random(0).randbytes(6_000_000)
FILES = {
    "model.safetensors": WEIGHTS,
    "g2vlm.json": b"{}",
    "tokenizer.json": b"{}",
}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    """A hub beside a Xet store in a folder, which the real client reads."""
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_HUB_DISABLE_XET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    store = f"local://{tmp_path / 'store'}"
    commit = hf_xet.XetSession().new_upload_commit(endpoint=store)
    upload = commit.start_upload_bytes(WEIGHTS)
    commit.wait_to_finish()
    place = {"model.safetensors": (upload.result().xet_info.hash, store)}
    with StandInHub(REPO, dict(FILES), xet=place) as stand_in:
        monkeypatch.setenv("HF_ENDPOINT", stand_in.url)
        yield stand_in


@pytest.fixture
def offsets(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where streams from the store began."""
    begun, stream = [], xet.stream

    def spy(place: object, headers: Mapping[str, str], size: int, offset: int) -> Iterator[bytes]:
        begun.append(offset)
        return stream(place, headers, size, offset)  # type: ignore[arg-type]

    monkeypatch.setattr(xet, "stream", spy)
    return begun


def unfinished_in(cache: Path, server: StandInHub) -> Path:
    blobs = cache / "models--someone--model" / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    return blobs / f"{server.etag('model.safetensors')}.incomplete"


def test_weights_come_from_the_store(server: StandInHub, offsets: list[int]) -> None:
    folder = hub.download(REPO)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert offsets == [0]
    assert server.asked("GET", "/storage/") == []


def test_an_unfinished_file_goes_on_where_it_ended(
    server: StandInHub, offsets: list[int], tmp_path: Path
) -> None:
    unfinished = unfinished_in(tmp_path / "cache", server)
    unfinished.write_bytes(WEIGHTS[:2_345_678])
    folder = hub.download(REPO)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert offsets == [2_345_678]
    assert not unfinished.exists()


def test_plain_http_goes_on_where_the_store_fails(server: StandInHub, tmp_path: Path) -> None:
    server.xet["model.safetensors"] = ("0" * 64, f"local://{tmp_path / 'empty'}")
    unfinished_in(tmp_path / "cache", server).write_bytes(WEIGHTS[:1_000_000])
    with pytest.warns(UserWarning, match="Xet transfer of model.safetensors failed.*plain HTTP"):
        folder = hub.download(REPO)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert [headers["range"] for headers in server.asked("GET", "/storage/")] == ["bytes=1000000-"]


def test_the_token_of_the_hub_stays_with_the_hub(server: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    server.token = "secret"
    monkeypatch.setenv("HF_TOKEN", "secret")
    hub.download(REPO)
    assert server.asked("GET", "/xet-token/")[0]["authorization"] == "Bearer secret"


def test_users_may_forbid_it(server: StandInHub, offsets: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    folder = hub.download(REPO)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert offsets == []
    assert len(server.asked("GET", "/storage/")) == 1
