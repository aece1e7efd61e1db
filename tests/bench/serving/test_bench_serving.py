"""`g2vlm bench serve`: figures from stand-ins, and refusals."""

import asyncio
import json
import random
from typing import Any

import pytest

pytest.importorskip("httpx", reason="needs the extra server")
pytest.importorskip("psutil", reason="needs the extra bench")

import httpx

from g2vlm.bench.serving import crowd
from g2vlm.bench.serving.crowd import CrowdResult
from g2vlm.bench.serving.questions import questions
from g2vlm.bench.serving.session import table
from g2vlm.cli.main import main

MACHINE = {"processor": "one", "cores": 2, "load_per_core": 0.1}


def test_there_are_sixteen_different_questions() -> None:
    assert len(set(questions())) == 16


def test_memory_slope_leaves_warming_up_out() -> None:
    result = CrowdResult(memory=[(0.0, 0.0), *((float(s), 100.0 + s / 30) for s in range(20, 61))])
    assert result.memory_slope() == pytest.approx(2.0)
    result.seconds = [float(n) for n in range(1, 101)]
    assert result.percentile(50) == pytest.approx(50.5)


def test_spoiled_requests_are_no_valid_ones() -> None:
    body = {"model": "m", "messages": [{"content": [{"file": {"file_id": "upload_" + "0" * 32}}]}]}
    draw = random.Random(0)
    assert all(crowd._spoiled(body, draw) != json.dumps(body).encode() for _ in range(50))


def test_a_wrong_answer_and_accepted_nonsense_are_counted() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"choices": [{"message": {"content": "right"}}]})

    async def visit(expected: str) -> CrowdResult:
        import time

        result = CrowdResult()
        http = httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://a")
        until = (random.Random(1), time.monotonic() + 0.3)
        async with http:
            await crowd._visit(http, ("m", ["upload_" + "0" * 32]), {(0, "Why?"): expected}, until, result)
        return result

    right, wrong = asyncio.run(visit("right")), asyncio.run(visit("wrong"))
    assert right.num_wrong == 0
    assert wrong.num_wrong == len(wrong.seconds) > 0
    assert right.num_accepted_nonsense + wrong.num_accepted_nonsense > 0


def test_the_table_says_everything() -> None:
    report: dict[str, Any] = {
        "machine": MACHINE,
        "dtype": "float32",
        "questions": {
            "concurrent": 50.0, "sequential": 10.0, "offline": 60.0, "recomputed": 1.0, "num_different": 0
        },
        "crowd": {
            "answers": 9, "statuses": {"200": 9, "503": 2}, "wrong": 1, "accepted_nonsense": 0,
            "p50_s": 0.1, "p95_s": 0.2, "p99_s": 0.3, "memory_mb": 400.0, "memory_mb_per_minute": 0.5,
        },
        "kills": {
            "num_kills": 3, "num_scenes": 5, "num_lost": 0, "num_damaged": 0,
            "starting_s": 2.0, "empty_start_s": 1.9,
        },
    }  # fmt: skip
    text = table(report)
    for said in ("5.00 x", "0.83 x", "50.00 x", "1; 2; 0", "0.10, 0.20, 0.30", "+0.50 MB", "3, 5", "0; 0"):
        assert said in text


@pytest.mark.parametrize(
    "words", [["surf"], ["serve", "--only", "load"], ["serve", "--kills", "0"], ["serve", "--seconds", "0"]]
)
def test_senseless_wishes_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *words]) == 2
    assert "Expected" in capsys.readouterr().err
