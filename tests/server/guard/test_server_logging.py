"""Logs are JSON, carry the request's id, and hold no secrets."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator

import pytest

from g2vlm.server.guard.logging import JsonFormatter, redacted, request_context, request_id, set_up_logging

KEY = "g2vlm-0123abcd-" + "Zz9_-" * 8


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    set_up_logging("info", stream)
    yield stream
    root.handlers[:] = before
    root.setLevel(level)


def last(lines: io.StringIO) -> dict[str, object]:
    return json.loads(lines.getvalue().splitlines()[-1])


def test_a_line_says_when_what_and_for_whom(lines: io.StringIO) -> None:
    with request_context("client-1", tenant="ada"):
        logging.getLogger("g2vlm.server").info(
            "answered %d", 3, extra={"status": 200, "seconds": float("nan")}
        )
    line = last(lines)
    assert line["message"] == "answered 3"
    assert (line["level"], line["logger"]) == ("info", "g2vlm.server")
    assert (line["request_id"], line["tenant"], line["status"]) == ("client-1", "ada", 200)
    assert line["seconds"] == "nan"
    assert str(line["time"]).endswith("Z")


@pytest.mark.parametrize(
    "text",
    [
        *(f"Authorization: Bearer {KEY}", f"bearer {KEY}", f"got {KEY}", f'{{"api_key": "{KEY}"}}'),
        *(f"https://ada:{KEY}@example.org/", f"https://example.org/a?signature={KEY}", f"token={KEY}"),
        f"data:image/png;base64,{KEY.replace('-', 'A').replace('_', 'B')}",
    ],
)
def test_secrets_are_left_out(lines: io.StringIO, text: str) -> None:
    logging.getLogger("g2vlm.server").warning(text)
    logging.getLogger("g2vlm.server").warning("request", extra={"detail": {"list": [text]}})
    assert KEY[-12:] not in lines.getvalue()
    assert KEY.replace("-", "A").replace("_", "B")[-12:] not in lines.getvalue()


@pytest.mark.parametrize("name", ["Authorization", "x-api-key", "Cookie", "password", "hf_token"])
def test_fields_with_secret_names_are_left_out(lines: io.StringIO, name: str) -> None:
    logging.getLogger("g2vlm.server").info("request", extra={"headers": {name: "hunter2"}, name: "hunter2"})
    assert "hunter2" not in lines.getvalue()


def test_secrets_in_tracebacks_are_left_out(lines: io.StringIO) -> None:
    try:
        raise RuntimeError(f"no such key {KEY}")
    except RuntimeError:
        logging.getLogger("g2vlm.server").exception("failed")
    assert "RuntimeError" in str(last(lines)["error"])
    assert KEY[-12:] not in lines.getvalue()


def test_no_content_makes_a_second_line(lines: io.StringIO) -> None:
    logging.getLogger("g2vlm.server").info('a\n{"level": "error"}\r\u2028\x00', extra={"name_": "x\ny"})
    assert len(lines.getvalue().splitlines()) == 1
    last(lines)


def test_text_that_is_no_text_is_written_all_the_same() -> None:
    record = logging.makeLogRecord({"msg": "file \udcff", "name": "g2vlm"})
    assert JsonFormatter().format(record).isascii()


def test_uvicorn_speaks_the_same_language(lines: io.StringIO) -> None:
    logging.getLogger("uvicorn.error").info("Started")
    assert last(lines)["logger"] == "uvicorn.error"


@pytest.mark.parametrize("wanted", [None, "", "a b", "x" * 65, "a\r\nSet-Cookie: b", "é", "-a"])
def test_ids_of_clients_that_are_not_plain_are_replaced(wanted: str | None) -> None:
    with request_context(wanted) as chosen:
        assert chosen.startswith("req_")
        assert request_id() == chosen
    assert request_id() == ""


def test_requests_side_by_side_keep_their_ids() -> None:
    async def work(name: str) -> str:
        with request_context(name):
            await asyncio.sleep(0)
            return request_id()

    async def both() -> list[str]:
        return await asyncio.gather(*(work(f"r{number}") for number in range(20)))

    assert asyncio.run(both()) == [f"r{number}" for number in range(20)]


def test_ordinary_words_stay() -> None:
    text = "Expected 3 photos of 518 pixels, got 2: tokens 17, https://example.org/a/b.png"
    assert redacted(text) == text
    assert len(redacted("x" * 100_000)) < 9000
