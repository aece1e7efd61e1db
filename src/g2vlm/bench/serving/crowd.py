"""Many clients at once, some of which send nonsense or leave."""

import asyncio
import json
import random
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]

from g2vlm.bench.serving.process import ServiceProcess
from g2vlm.client.service import Client
from g2vlm.pipeline import Model

CHAT = "/v1/chat/completions"
MALFORMED, LEAVING = 0.1, 0.1
"""Shares of requests that are nonsense, and whose client leaves."""
_TURN_S = 0.5
"""Between two looks at memory."""
_WARM_UP = 1 / 3
"""Share of the time before memory counts."""


@dataclass
class CrowdResult:
    """What a crowd saw."""

    seconds: list[float] = field(default_factory=list)
    """Of answers that came."""
    statuses: Counter[int] = field(default_factory=Counter)
    num_wrong: int = 0
    """Answers that differ from the offline ones."""
    num_accepted_nonsense: int = 0
    """Malformed requests that were not refused."""
    num_left: int = 0
    memory: list[tuple[float, float]] = field(default_factory=list)
    """Seconds since the start, and megabytes of the service."""

    def percentile(self, percent: int) -> float:
        """Of the times of answers, in seconds."""
        return (
            statistics.quantiles(self.seconds, n=100)[percent - 1] if len(self.seconds) > 1 else float("nan")
        )

    def memory_slope(self) -> float:
        """Megabytes a minute after warming up, by least squares."""
        end = self.memory[-1][0] if self.memory else 0.0
        late = [(when, size) for when, size in self.memory if when > end * _WARM_UP]
        if len(late) < 2:
            return float("nan")
        slope, _ = statistics.linear_regression(*zip(*late, strict=True))
        return slope * 60


def measure_crowd(
    service: ServiceProcess,
    model: Model,
    photos: Sequence[Path],
    asked: Sequence[str],
    crowd: tuple[int, float],
) -> CrowdResult:
    """Let a crowd ask.

    Args:
        service: of the same checkpoint.
        model: in this process, whose answers are the right ones.
        photos: each of which is asked about alone.
        asked: questions.
        crowd: clients at the same time, and seconds.
    """
    expected: dict[tuple[int, str], str] = {}
    for number, path in enumerate(photos):
        perception = model.perceive(str(path))
        expected |= {(number, question): perception.ask(question).text for question in asked}
    with Client(service.address) as client:
        uploads = [client.upload([path])[0] for path in photos]
        name = client.model
    return asyncio.run(_crowd(service, (name, uploads), expected, crowd))


async def _crowd(
    service: ServiceProcess,
    served: tuple[str, list[str]],
    expected: Mapping[tuple[int, str], str],
    crowd: tuple[int, float],
) -> CrowdResult:
    result, (num_clients, seconds) = CrowdResult(), crowd
    end = time.monotonic() + seconds
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=service.address, timeout=300, limits=limits) as http:
        watching = asyncio.create_task(_watch(service, result))
        visitors = [
            _visit(http, served, expected, (random.Random(number), end), result)
            for number in range(num_clients)
        ]
        await asyncio.gather(*visitors)
        watching.cancel()
    return result


async def _watch(service: ServiceProcess, result: CrowdResult) -> None:
    process, start = psutil.Process(service.pid), time.monotonic()
    while True:
        result.memory.append((time.monotonic() - start, process.memory_info().rss / 1e6))
        await asyncio.sleep(_TURN_S)


async def _visit(
    http: httpx.AsyncClient,
    served: tuple[str, list[str]],
    expected: Mapping[tuple[int, str], str],
    until: tuple[random.Random, float],
    result: CrowdResult,
) -> None:
    """One client, request after request."""
    (model, uploads), (draw, end) = served, until
    cases = sorted(expected)
    while time.monotonic() < end:
        number, question = draw.choice(cases)
        part = {"type": "file", "file": {"file_id": uploads[number]}}
        content = [part, {"type": "text", "text": question}]
        body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": content}]}
        kind = draw.random()
        if kind < MALFORMED:
            response = await http.post(CHAT, content=_spoiled(body, draw), headers=_JSON)
            result.statuses[response.status_code] += 1
            result.num_accepted_nonsense += response.is_success
        elif kind < MALFORMED + LEAVING:
            await _leave(http, {**body, "stream": draw.random() < 0.5}, draw.uniform(0, 0.3))
            result.num_left += 1
        else:
            start = time.monotonic()
            response = await http.post(CHAT, json=body)
            result.statuses[response.status_code] += 1
            if response.status_code == 429:
                await asyncio.sleep(float(response.headers["retry-after"]))
            elif response.is_success:
                result.seconds.append(time.monotonic() - start)
                told = response.json()["choices"][0]["message"]["content"]
                result.num_wrong += told != expected[number, question]


_JSON = {"Content-Type": "application/json"}


def _spoiled(body: dict[str, Any], draw: random.Random) -> bytes:
    """A request that must be refused."""
    text = json.dumps(body)
    return draw.choice(
        [
            text[: draw.randrange(len(text) - 1)].encode(),
            json.dumps({**body, "temperature": "hot"}).encode(),
            json.dumps({**body, "messages": []}).encode(),
            json.dumps({**body, "nonsense": 1}).encode(),
            text.replace("upload_", "upload-").encode(),
            text.encode().replace(b"u", b"\xff"),
            b"[" * 10_000,
        ]
    )


async def _leave(http: httpx.AsyncClient, body: dict[str, Any], after_s: float) -> None:
    """Ask, and leave before or while the answer comes."""
    try:
        async with asyncio.timeout(after_s):
            async with http.stream("POST", CHAT, json=body) as response:
                async for _ in response.aiter_bytes():
                    pass
    except TimeoutError:
        pass
