"""Answers let go of what they hold, also when the client leaves before the first part."""

import asyncio
import contextlib
import json
from typing import Any

import pytest
from small_service import chat_body, wait_until

from g2vlm.server.app import create_app
from g2vlm.server.service import Service


async def send_and_leave(service: Service, body: dict[str, Any], fails: bool) -> list[str]:
    """Ask, and be gone when the answer begins; what was sent."""
    content, sent = json.dumps(body).encode(), []
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "raw_path": b"",
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "headers": [(b"content-type", b"application/json"), (b"host", b"127.0.0.1")],
    }
    left, messages = asyncio.Event(), [{"type": "http.request", "body": content, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        left.set()
        sent.append(message["type"])
        if fails:
            raise OSError("the client has left")

    async with service.running():
        # What a server makes of the error is not the question.
        with contextlib.suppress(Exception):
            await create_app(service)(scope, receive, send)
        wait_until(lambda: service.engine.num_running == 0)
        leases = [entry.num_leases for entry in service.engine.perceptions._entries.values()]
        assert leases == [0], "what was perceived is still held"
    return sent


@pytest.mark.parametrize("fails", [True, False])
def test_a_client_that_leaves_before_the_first_part_holds_nothing(service: Service, fails: bool) -> None:
    sent = asyncio.run(send_and_leave(service, chat_body(stream=True, max_tokens=50), fails))
    assert sent[0] == "http.response.start"
