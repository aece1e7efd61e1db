"""Uploads over HTTP."""

import pytest
from fastapi.testclient import TestClient
from small_service import pictures, png, small_service

import g2vlm
from g2vlm.server.app import create_app
from g2vlm.server.guard.limits import Limits


def send(client: TestClient, *contents: bytes, name: str = "a.png") -> tuple[int, dict]:  # type: ignore[type-arg]
    files = [("files", (name, content, "application/octet-stream")) for content in contents]
    response = client.post("/v1/uploads", files=files)
    return response.status_code, response.json()


def test_an_upload_is_told_by_its_content_and_can_be_removed(client: TestClient) -> None:
    content = png(pictures(1)[0])
    status, body = send(client, content, content, name="../../etc/passwd")
    assert status == 201
    first, second = body["data"]
    assert first["media_type"] == "image/png"
    assert first["bytes"] == len(content)
    assert first["sha256"] == second["sha256"]
    assert first["id"] != second["id"]
    place = f"/v1/uploads/{first['id']}"
    assert client.get(place).json() == first
    assert client.delete(place).json()["deleted"]
    assert client.get(place).status_code == client.delete(place).status_code == 404


@pytest.mark.parametrize("content", [b"", b"hello", b"<svg></svg>", b"PK\3\4", b"\x80\4pickle"])
def test_what_is_no_photo_leaves_no_trace(client: TestClient, content: bytes) -> None:
    status, body = send(client, content)
    assert status == 415
    assert body["error"]["code"] == "unsupported_format"


def test_uploads_are_bounded(model: g2vlm.Model) -> None:
    content = png(pictures(1)[0])
    limits = Limits(image_bytes=len(content) - 1, video_bytes=len(content) + 9, images_per_request=1)
    with TestClient(create_app(small_service(model, limits=limits))) as client:
        assert send(client, content)[0] == 413
        assert send(client, content, content)[0] == 400
        assert send(client, content + bytes(2_000_000))[0] == 413
        many = [("files", ("a", b"x", "image/png"))] * 1500
        assert client.post("/v1/uploads", files=many).status_code == 400


def test_a_form_without_files_is_refused(client: TestClient) -> None:
    assert client.post("/v1/uploads").status_code == 400
    assert client.post("/v1/uploads", data={"files": "text"}).status_code == 400
    assert (
        client.post(
            "/v1/uploads", content=b"--x", headers={"content-type": "multipart/form-data"}
        ).status_code
        == 400
    )
