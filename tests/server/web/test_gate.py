"""What every request passes: health, metrics, request ids, limits, errors in one shape, the description."""

import json
import logging
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from small_service import chat_body, small_service

import g2vlm
from g2vlm.server.app import create_app
from g2vlm.server.guard.keys import create_key
from g2vlm.server.guard.limits import Limits
from g2vlm.server.guard.logging import JsonFormatter
from g2vlm.server.service import Service


def test_health_and_models(client: TestClient, service: Service) -> None:
    for path in ("/health", "/health/live", "/health/ready"):
        assert client.get(path).json() == {"status": "ok"}
    listed = client.get("/v1/models").json()["data"]
    assert [one["id"] for one in listed] == ["small"]
    assert client.get("/v1/models/small").json() == listed[0]
    assert client.get("/v1/models/other").status_code == 404
    service.is_ready = False
    assert client.get("/health/live").status_code == 200
    assert client.get("/health/ready").status_code == 503


def test_metrics_count_requests_tokens_and_the_cache(client: TestClient) -> None:
    client.post("/v1/chat/completions", json=chat_body())
    client.get("/nowhere/at/all")
    text = client.get("/metrics").text
    assert 'g2vlm_requests_total{method="POST",route="/v1/chat/completions",status="200"} 1.0' in text
    assert 'g2vlm_requests_total{method="GET",route="none",status="404"} 1.0' in text
    assert 'g2vlm_tokens_total{kind="answer"} 6.0' in text
    assert "g2vlm_perceptions 1.0" in text
    assert "g2vlm_requests_open 1.0" in text


def test_every_answer_has_a_name_that_the_log_knows(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "g2vlm.server.requests")
    response = client.get("/v1/models?key=secret", headers={"Authorization": "Bearer secret"})
    record = next(one for one in caplog.records if one.name == "g2vlm.server.requests")
    assert (record.status, record.route, record.tenant) == (200, "/v1/models", "local")  # type: ignore[attr-defined]
    assert response.headers["x-request-id"].startswith("req_")
    assert "secret" not in JsonFormatter().format(record)
    own = client.get("/health", headers={"X-Request-Id": "mine-1"})
    assert own.headers["x-request-id"] == "mine-1"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("PATCH", "/v1/scenes", 405),
        ("GET", "/v1/scenes/../../etc/passwd", 404),
        ("GET", "/v1/scenes/%2e%2e%2fetc%2fpasswd", 404),
        ("GET", "/v1/scenes/scene_1", 400),
        ("GET", "/v1/scenes?limit=0", 400),
        ("GET", "/v1/scenes?limit=x", 400),
    ],
)
def test_errors_have_one_shape(client: TestClient, method: str, path: str, status: int) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    error = response.json()["error"]
    assert error["message"]
    assert set(error) == {"message", "type", "param", "code"}


def test_sizes_are_bounded(model: g2vlm.Model) -> None:
    limits = Limits(request_bytes=1000, image_bytes=1000, header_bytes=500)
    with TestClient(create_app(small_service(model, limits=limits))) as client:
        assert client.post("/v1/chat/completions", content=b" " * 1001).status_code == 413

        def blocks():  # type: ignore[no-untyped-def]
            yield b"{" + b" " * 600
            yield b" " * 600

        told = client.post("/v1/chat/completions", content=blocks())
        assert told.status_code == 413
        assert client.get("/health", headers={"X-Much": "x" * 600}).status_code == 431
        assert client.get("/health", headers={"Content-Length": "-1"}).status_code == 400


def test_a_crowd_is_told_to_come_back_but_health_is_answered(model: g2vlm.Model) -> None:
    service = small_service(model, limits=Limits(concurrent_requests=1))
    with TestClient(create_app(service)) as client:
        service.metrics.request_begins()
        refused = client.get("/v1/models")
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert client.get("/health").status_code == 200


def test_a_defect_is_told_without_its_insides(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("inside")

    monkeypatch.setattr(service.store.scenes, "list", broken)
    with TestClient(create_app(service), raise_server_exceptions=False) as client:
        response = client.get("/v1/scenes")
    assert response.status_code == 500
    assert "inside" not in response.text


def test_other_pages_may_not_call_unless_they_are_named(model: g2vlm.Model, client: TestClient) -> None:
    headers = {"Origin": "https://page.example"}
    assert "access-control-allow-origin" not in client.get("/v1/models", headers=headers).headers
    named = small_service(model, origins=("https://page.example",))
    with TestClient(create_app(named)) as other:
        told = other.get("/v1/models", headers=headers).headers
    assert told["access-control-allow-origin"] == "https://page.example"


def test_the_description_is_complete(client: TestClient) -> None:
    description = client.get("/openapi.json").json()
    operations = [
        (path, method, operation)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]
    assert len(operations) >= 18
    for path, method, operation in operations:
        assert operation["summary"] or operation["description"], (method, path)
        assert {"400", "404", "405", "429"} <= set(operation["responses"]), (method, path)
        assert "HTTPValidationError" not in json.dumps(operation)
    assert "security" not in description


def test_strangers_are_refused_before_their_body_is_read(model: g2vlm.Model, tmp_path: Path) -> None:
    token = create_key(tmp_path / "keys.json", "ada")

    def blocks():  # type: ignore[no-untyped-def]
        for _ in range(50):
            yield bytes(1000)

    form = {"Content-Type": "multipart/form-data; boundary=x"}
    read: list[int] = []

    async def app(scope, receive, send):  # type: ignore[no-untyped-def]
        async def counted():  # type: ignore[no-untyped-def]
            message = await receive()
            read.append(len(message.get("body", b"")))
            return message

        await create_app_once(scope, counted, send)

    create_app_once = create_app(small_service(model, keys=tmp_path / "keys.json"))
    client = TestClient(app)
    for headers in ({}, {"Authorization": "Bearer g2vlm-0-0"}, {"Authorization": "Basic eDp5"}):
        refused = client.post("/v1/uploads", content=blocks(), headers={**form, **headers})
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Bearer")
    assert read == []
    headers = {**form, "Authorization": f"Bearer {token}"}
    assert client.post("/v1/uploads", content=blocks(), headers=headers).status_code == 400
    assert sum(read) > 0
    for path in ("/health/live", "/openapi.json", "/metrics"):
        assert client.get(path).status_code == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://testserver.evil.example", "file://", ""]
)
def test_foreign_pages_change_nothing(client: TestClient, origin: str) -> None:
    for send in (
        lambda headers: client.post("/v1/chat/completions", json=chat_body(), headers=headers),
        lambda headers: client.post("/v1/uploads", files={"files": b"a"}, headers=headers),
        lambda headers: client.delete("/v1/scenes/scene_" + "0" * 32, headers=headers),
    ):
        refused = send({"Origin": origin})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")


def test_own_pages_and_named_ones_may(model: g2vlm.Model) -> None:
    named = small_service(model, origins=("https://page.example",))
    with TestClient(create_app(named)) as client:
        for origin in ("http://testserver", "https://page.example"):
            told = client.post("/v1/chat/completions", json=chat_body(), headers={"Origin": origin})
            assert told.status_code == 200
        asked = client.options(
            "/v1/scenes",
            headers={"Origin": "https://page.example", "Access-Control-Request-Method": "POST"},
        )
        assert asked.status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "", "[::1", "127.1x"]
)
def test_a_name_that_was_led_here_is_refused(model: g2vlm.Model, host: str) -> None:
    with TestClient(create_app(small_service(model, local_only=True))) as client:
        assert client.get("/v1/models", headers={"Host": host}).status_code == 403
        for own in ("127.0.0.1:8000", "localhost", "[::1]:8000", "LOCALHOST:1", "192.168.1.2"):
            assert client.get("/v1/models", headers={"Host": own}).status_code == 200


def test_json_is_read_with_care_by_every_endpoint(client: TestClient) -> None:
    deep = b'{"a":' + b"[" * 40 + b"]" * 40 + b"}"
    for path in ("/v1/chat/completions", "/v1/scenes", "/v1/depth"):
        for body, word in ((deep, "levels"), (b'{"a": NaN}', "NaN"), (b'{"a": "\\ud83d"}', "UTF-8")):
            told = client.post(path, content=body, headers={"Content-Type": "application/json"})
            assert told.status_code == 400
            assert word in told.json()["error"]["message"]


def test_a_wrong_method_is_told_all_right_ones(client: TestClient) -> None:
    response = client.put("/v1/scenes")
    assert response.status_code == 405
    assert response.headers["allow"] == "GET, POST"
    scene = "/v1/scenes/scene_" + "0" * 32
    assert client.patch(scene).headers["allow"] == "DELETE, GET"
    told = client.delete(f"{scene}.glb")
    assert (told.status_code, told.headers["allow"]) == (405, "GET")
