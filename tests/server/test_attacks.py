"""Attacks over HTTP on a service with its real decoding: forbidden addresses, paths, bombs, other tenants."""

import base64
import io
import json
import socket
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from small_service import chat_body, data_url, pictures, png

import g2vlm
from g2vlm.server.app import create_app
from g2vlm.server.guard.decoding import DecodingPool
from g2vlm.server.guard.fetching import Fetcher
from g2vlm.server.guard.keys import create_key
from g2vlm.server.guard.limits import MIB, Limits
from g2vlm.server.service import Service
from g2vlm.server.settings import Settings

LIMITS = Limits(decoding_workers=1, decoding_seconds=10.0, decoding_bytes=1024 * MIB, image_pixels=4_000_000)
INSIDE = {"inside.example": ["10.0.0.1"], "both.example": ["93.184.215.14", "127.0.0.1"]}


def resolve(host: str) -> Sequence[str]:
    if host not in INSIDE:
        raise socket.gaierror
    return INSIDE[host]


def connect(address: str, timeout_s: float) -> socket.socket:
    raise AssertionError(f"connected to {address}")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    return {"path": str(path), **{tenant: create_key(path, tenant) for tenant in ("ada", "bob")}}


@pytest.fixture(scope="module")
def attacked(model: g2vlm.Model, keys: dict[str, str]) -> Iterator[TestClient]:
    settings = Settings("small", fetch_urls=True, limits=LIMITS, keys=Path(keys["path"]), grace_s=2)
    fetcher = Fetcher(LIMITS, resolve=resolve, connect=connect)
    service = Service(model, settings, DecodingPool(LIMITS), fetcher.fetch)
    with TestClient(create_app(service), headers={"Authorization": f"Bearer {keys['ada']}"}) as client:
        yield client


def asked(client: TestClient, url: str) -> tuple[int, str]:
    """Status and message of a question about a photo."""
    body = chat_body()
    body["messages"][0]["content"][0]["image_url"]["url"] = url
    # As bytes: some addresses hold characters that httpx would refuse to send as JSON.
    told = client.post(
        "/v1/chat/completions",
        content=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    return told.status_code, told.text


def test_an_ordinary_photo_is_answered(attacked: TestClient) -> None:
    status, text = asked(attacked, data_url(pictures(1)[0]))
    assert status == 200, text


@pytest.mark.parametrize(
    "url",
    [
        *("file:///etc/passwd", "http://127.0.0.1/", "https://127.0.0.1/", "https://169.254.169.254/latest/"),
        *("https://[::1]/", "https://[::ffff:10.0.0.1]/", "https://2130706433/", "https://0x7f000001/"),
        *("https://0177.0.0.1/", "https://localhost/", "https://inside.example/", "https://both.example/"),
        *("https://user@inside.example/", "https://inside.example:8443/", "https://unknown.example/"),
        *("/etc/passwd", "../../etc/passwd", "upload_0", "gopher://inside.example/", "https://ⓛocalhost/"),
        *("https://inside.example\\@both.example/", "https://both.example/\r\nX: y", "ftp://both.example/"),
    ],
)
def test_forbidden_addresses_and_paths_are_refused(attacked: TestClient, url: str) -> None:
    status, text = asked(attacked, url)
    assert status in (400, 403), text
    assert "root:" not in text
    assert "10.0.0.1" not in text or "10.0.0.1" in url


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is so large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A PNG whose text unpacks to 64 MB."""
    content = b"zTXt" + b"a\0\0" + zlib.compress(bytes(64 * MIB), 9)
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    whole = png(pictures(1)[0])
    return whole[:33] + chunk + whole[33:]


def frames_bomb() -> bytes:
    """A GIF whose second picture is too large for the limit."""
    file = io.BytesIO()
    Image.new("P", (4000, 4000)).save(
        file, "GIF", save_all=True, append_images=[Image.new("P", (4000, 4000), 1)]
    )
    return file.getvalue()


BOMBS: dict[str, Any] = {
    "large": lambda: bomb(50_000, 50_000),
    "huge": lambda: bomb(2**31 - 1, 2**31 - 1),
    "thin": lambda: bomb(2**31 - 1, 1),
    "just too large": lambda: bomb(2001, 2000),
    "frames": frames_bomb,
    "svg": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    "zip": lambda: b"PK\3\4" + bytes(100),
    "playlist": lambda: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    "pickle": lambda: b"\x80\4cposix\nsystem\n.",
    "photo and page": lambda: png(pictures(1)[0]) + b"<html ><script >alert(1)</script>",
    "cut": lambda: png(pictures(1)[0])[:100],
    "nothing": lambda: b"",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_and_other_formats_are_refused(attacked: TestClient, name: str) -> None:
    content = BOMBS[name]()
    status, text = asked(attacked, "data:image/png;base64," + base64.b64encode(content).decode())
    assert status in (400, 413, 415, 422), text
    assert "/tmp" not in text
    sent = attacked.post("/v1/uploads", files={"files": ("a.png", content)})
    assert sent.status_code in (201, 400, 413, 415)


def test_text_that_unpacks_without_end_costs_nothing(attacked: TestClient) -> None:
    status, text = asked(attacked, "data:image/png;base64," + base64.b64encode(text_bomb()).decode())
    assert status in (200, 422), text


@pytest.mark.parametrize(
    "name",
    [
        *("..%2f..%2fstore.sqlite", "%2e%2e%2f", "....//", "scene_" + "0" * 31 + "%00", "scene_" + "z" * 32),
        *("..\\..\\store.sqlite", "scene_%2e%2e", "%252e%252e%252f", "~root", "con", "a" * 5000),
    ],
)
def test_no_name_leads_out_of_the_folder(attacked: TestClient, name: str) -> None:
    for path in (f"/v1/scenes/{name}", f"/v1/scenes/{name}.npz", f"/view/{name}", f"/v1/uploads/{name}"):
        told = attacked.get(path)
        assert told.status_code in (400, 404), (path, told.text)
        assert b"SQLite" not in told.content


def test_one_tenant_finds_nothing_of_another(attacked: TestClient, keys: dict[str, str]) -> None:
    """Neither by id, nor in lists, nor through what was perceived before."""
    content = png(pictures(1, seed=5)[0])
    upload = attacked.post("/v1/uploads", files={"files": content}).json()["data"][0]["id"]
    part = {"type": "file", "file": {"file_id": upload}}
    scene = attacked.post("/v1/scenes", json={"inputs": [part]}).json()["id"]
    bob = {"Authorization": f"Bearer {keys['bob']}"}
    body = chat_body()
    body["messages"][0]["content"][0] = part
    assert attacked.post("/v1/chat/completions", json=body).status_code == 200
    crossings = [
        attacked.get(f"/v1/uploads/{upload}", headers=bob),
        attacked.delete(f"/v1/uploads/{upload}", headers=bob),
        attacked.post("/v1/chat/completions", json=body, headers=bob),
        attacked.post("/v1/scenes", json={"inputs": [part]}, headers=bob),
        attacked.post("/v1/depth", json={"image": part}, headers=bob),
        *(attacked.get(f"/v1/scenes/{scene}{rest}", headers=bob) for rest in ("", ".npz", "/events")),
        attacked.get(f"/view/{scene}", headers=bob),
        attacked.post(f"/v1/scenes/{scene}/ask", json={"question": "Why?"}, headers=bob),
        attacked.delete(f"/v1/scenes/{scene}", headers=bob),
    ]
    assert {told.status_code for told in crossings} <= {400, 404}
    assert sum(told.status_code == 404 for told in crossings) >= len(crossings) - 1
    assert attacked.get("/v1/scenes", headers=bob).json()["data"] == []
    # The same photo sent by the other tenant is looked at anew: time must not tell who knows it.
    cached = attacked.post("/v1/chat/completions", json=_with_photo(content), headers=bob).json()
    assert cached["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert attacked.get(f"/v1/scenes/{scene}").status_code == 200


def _with_photo(content: bytes) -> dict[str, Any]:
    body = chat_body()
    url = "data:image/png;base64," + base64.b64encode(content).decode()
    body["messages"][0]["content"][0] = {"type": "image_url", "image_url": {"url": url}}
    return body
