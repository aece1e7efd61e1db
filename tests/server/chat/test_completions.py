"""Chat completions over HTTP: equal to offline answers, whole and in pieces; refusals; leaving."""

import asyncio
import json
import math
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from small_service import chat_body, data_url, image_part, pictures, small_service, wait_until

import g2vlm
from g2vlm.inference.sampling import Sampling
from g2vlm.server.app import create_app
from g2vlm.server.guard.limits import Limits
from g2vlm.server.service import Service

CHAT = "/v1/chat/completions"
QUESTIONS = ("How far is the chair?", "What is left of the table?", "Why?", "Wie weit ist es?")


def chunks_of(client: TestClient, body: dict[str, Any]) -> list[Any]:
    with client.stream("POST", CHAT, json={**body, "stream": True}) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_an_answer_is_the_offline_one(model: g2vlm.Model, client: TestClient) -> None:
    perception = model.perceive(pictures(2))
    for question in QUESTIONS:
        offline = perception.ask(question, max_new_tokens=7)
        found = client.post(CHAT, json=chat_body(question, 2)).json()
        (choice,) = found["choices"]
        assert choice["message"] == {"role": "assistant", "content": offline.text, "refusal": None}
        assert choice["finish_reason"] == "length"
        assert found["usage"]["completion_tokens"] == len(offline.token_ids) - 1
        assert found["usage"]["prompt_tokens"] > perception.num_tokens


def test_without_a_limit_the_released_one_counts(model: g2vlm.Model, client: TestClient) -> None:
    body = chat_body()
    del body["max_tokens"]
    found = client.post(CHAT, json=body).json()["choices"][0]["message"]["content"]
    assert found == model.perceive(pictures(1)).ask("Why?").text


def test_a_stream_joined_is_the_whole_answer(client: TestClient) -> None:
    body = chat_body(logprobs=True)
    whole = client.post(CHAT, json=body).json()
    chunks = chunks_of(client, {**body, "stream_options": {"include_usage": True}})
    deltas = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    assert deltas[0]["delta"]["role"] == "assistant"
    assert (
        "".join(one["delta"].get("content", "") for one in deltas)
        == whole["choices"][0]["message"]["content"]
    )
    assert deltas[-1]["finish_reason"] == "length"
    tokens = [token for one in deltas if one["logprobs"] for token in one["logprobs"]["content"]]
    assert tokens == whole["choices"][0]["logprobs"]["content"]
    assert chunks[-1]["usage"] == {
        **whole["usage"],
        "prompt_tokens_details": {"cached_tokens": _num_cached(chunks)},
    }
    assert len({chunk["id"] for chunk in chunks}) == 1


def _num_cached(chunks: list[Any]) -> int:
    cached = chunks[-1]["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert cached > 0
    return int(cached)


def test_log_probabilities_are_those_of_the_answer(model: g2vlm.Model, client: TestClient) -> None:
    offline = model.perceive(pictures(1)).ask("Why?", max_new_tokens=7)
    content = client.post(CHAT, json=chat_body(logprobs=True)).json()["choices"][0]["logprobs"]["content"]
    told = [token["logprob"] for token in content]
    assert told == pytest.approx(offline.log_probabilities[:-1], abs=1e-4)
    text = b"".join(bytes(token["bytes"]) for token in content)
    assert text.decode("utf-8", "replace") == offline.text
    assert all(math.isfinite(number) for number in told)


def test_several_answers_are_drawn_with_seeds_of_their_own(model: g2vlm.Model, client: TestClient) -> None:
    perception = model.perceive(pictures(1))
    body = chat_body(n=3, temperature=1.5, top_p=0.9, seed=5)
    choices = client.post(CHAT, json=body).json()["choices"]
    for number, choice in enumerate(choices):
        sampling = Sampling(temperature=1.5, top_p=0.9, seed=5 + number)
        offline = perception.ask("Why?", max_new_tokens=7, sampling=sampling)
        assert choice["message"]["content"] == offline.text
    assert len({choice["message"]["content"] for choice in choices}) > 1
    streamed = ["", "", ""]
    for chunk in chunks_of(client, body):
        choice = chunk["choices"][0]
        streamed[choice["index"]] += choice["delta"].get("content", "")
    assert streamed == [choice["message"]["content"] for choice in choices]


def test_a_stop_text_ends_an_answer(client: TestClient) -> None:
    whole = client.post(CHAT, json=chat_body(max_tokens=20)).json()["choices"][0]["message"]["content"]
    stop = whole[5:8]
    for given in (stop, [stop, "never"]):
        choice = client.post(CHAT, json=chat_body(max_tokens=20, stop=given)).json()["choices"][0]
        assert choice["message"]["content"] == whole[: whole.index(stop)]
        assert choice["finish_reason"] == "stop"


def test_photos_that_were_seen_before_are_not_decoded_again(client: TestClient, service: Service) -> None:
    first, second = (client.post(CHAT, json=chat_body(one)).json() for one in QUESTIONS[:2])
    assert first["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    assert service._decoder.num_calls == 1  # type: ignore[attr-defined]


def test_turns_of_a_conversation(client: TestClient) -> None:
    picture = image_part(pictures(1)[0])
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [picture, {"type": "text", "text": "Where?"}]},
        {"role": "assistant", "content": "Here."},
        {"role": "user", "content": "Why?"},
    ]
    body = {"model": "small", "messages": messages, "max_tokens": 6}
    answer = client.post(CHAT, json=body).json()
    alone = client.post(CHAT, json=chat_body("Why?")).json()
    assert answer["usage"]["prompt_tokens"] > alone["usage"]["prompt_tokens"]
    said = client.post(CHAT, json={**body, "messages": messages[1:]}).json()
    assert said["usage"]["prompt_tokens"] < answer["usage"]["prompt_tokens"]


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"model": "gpt-4o"}, 404, None),
        ({"n": 1000}, 400, "n"),
        ({"n": 100}, 400, "n"),
        ({"max_tokens": 10**9}, 400, "max_tokens"),
        ({"max_tokens": "6"}, 400, "max_tokens"),
        ({"temperature": -1}, 400, "temperature"),
        ({"response_format": {"type": "json_object"}}, 400, "response_format.type"),
        ({"tools": [{"type": "function"}]}, 400, "tools"),
        ({"top_logprobs": 3, "logprobs": True}, 400, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, 400, "stream_options"),
        ({"no_such_thing": 1}, 400, "no_such_thing"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "user", "content": "Why?"}]}, 400, "messages"),
        ({"messages": [{"role": "tool", "content": "Why?"}]}, 400, "messages.0"),
        ({"stop": ""}, 400, None),
    ],
)
def test_what_cannot_be_honoured_is_refused(
    client: TestClient, change: dict[str, Any], status: int, param: str | None
) -> None:
    response = client.post(CHAT, json=chat_body(**change))
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["message"]
    assert error["type"] in ("invalid_request_error", "not_found_error")
    if param is not None:
        assert error["param"] == param


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("https://example.org/a.png", 403),
        ("http://example.org/a.png", 400),
        ("file:///etc/passwd", 400),
        ("/etc/passwd", 400),
        ("data:image/png;base64,####", 400),
        ("data:image/png,abc", 400),
        ("data:image/png;base64,aGVsbG8gd29ybGQ=", 415),
    ],
)
def test_addresses_that_are_no_photos_are_refused(client: TestClient, url: str, status: int) -> None:
    body = chat_body()
    body["messages"][0]["content"][0]["image_url"]["url"] = url
    response = client.post(CHAT, json=body)
    assert response.status_code == status, response.text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b'{"model": NaN}',
        b'{"model": "\xff"}',
        json.dumps(chat_body(user="x")).replace('"x"', '"\\ud800"').encode(),
        json.dumps(chat_body(tools=[[[[]]]])).replace("[]", "[" * 40 + "]" * 40).encode(),
    ],
)
def test_broken_json_is_refused(client: TestClient, content: bytes) -> None:
    response = client.post(CHAT, content=content, headers={"content-type": "application/json"})
    assert response.status_code == 400, response.text
    assert response.json()["error"]["message"]


def test_too_many_photos_are_refused_before_they_are_looked_at(model: g2vlm.Model) -> None:
    limits = Limits(images_per_request=2, prompt_tokens=2000)
    with TestClient(create_app(small_service(model, limits=limits))) as client:
        assert client.post(CHAT, json=chat_body(count=3)).status_code == 413
        text = client.post(CHAT, json=chat_body("word " * 3000)).json()
        assert text["error"]["code"] == "context_length_exceeded"
    limits = Limits(prompt_tokens=100)
    with TestClient(create_app(small_service(model, limits=limits))) as client:
        assert "tokens" in client.post(CHAT, json=chat_body()).json()["error"]["message"]


async def _leave(service: Service, *, stream: bool) -> None:
    """Ask for a very long answer, and leave while it is written."""
    left = asyncio.Event()
    body = json.dumps(chat_body(max_tokens=2048, stream=stream)).encode()
    messages = iter([{"type": "http.request", "body": body}])

    async def receive() -> dict[str, Any]:
        for message in messages:
            return message
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(_message: Any) -> None:
        pass

    app = create_app(service)
    scope = httpx_scope(len(body))
    async with service.running():
        asking = asyncio.create_task(app(scope, receive, send))  # type: ignore[arg-type]
        while service.engine.num_running == 0:
            await asyncio.sleep(0.002)
        left.set()
        await asyncio.wait_for(asking, 10)
        await asyncio.to_thread(wait_until, lambda: service.engine.num_running == 0)
        await asyncio.to_thread(
            wait_until,
            lambda: all(entry.num_leases == 0 for entry in service.engine.perceptions._entries.values()),
        )


def httpx_scope(length: int) -> dict[str, Any]:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(length).encode())]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "path": CHAT,
        "raw_path": CHAT.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }


@pytest.mark.parametrize("stream", [False, True])
def test_work_ends_when_the_client_leaves(service: Service, stream: bool) -> None:
    asyncio.run(_leave(service, stream=stream))


def test_a_full_service_says_when_to_come_back(model: g2vlm.Model) -> None:
    service = small_service(model, limits=Limits(concurrent_per_tenant=1))

    async def ask_twice() -> list[httpx.Response]:
        transport = httpx.ASGITransport(create_app(service))
        async with service.running(), httpx.AsyncClient(transport=transport, base_url="http://a") as client:
            wanted = [client.post(CHAT, json=chat_body(max_tokens=200)) for _ in range(2)]
            return list(await asyncio.gather(*wanted))

    statuses = {response.status_code: response for response in asyncio.run(ask_twice())}
    assert set(statuses) == {200, 429}
    assert int(statuses[429].headers["retry-after"]) >= 1
    assert statuses[429].json()["error"]["type"] == "rate_limit_error"


def test_what_takes_too_long_ends_with_408(model: g2vlm.Model) -> None:
    service = small_service(model, limits=Limits(request_seconds=0.3))
    with TestClient(create_app(service)) as client:
        client.post(CHAT, json=chat_body(max_tokens=1))
        assert client.post(CHAT, json=chat_body(max_tokens=2048)).status_code == 408


def test_data_urls_are_pictures() -> None:
    assert data_url(pictures(1)[0]).startswith("data:image/png;base64,iVBOR")
