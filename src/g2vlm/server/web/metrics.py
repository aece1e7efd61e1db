"""Figures for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from g2vlm.server.engine.engine import Engine

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 600)


class Metrics:
    """Counts what happens; each service has its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "g2vlm_requests", "Requests that ended.", ("route", "method", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "g2vlm_request_seconds",
            "Time of a request, its stream included.",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._tokens = Counter(
            "g2vlm_tokens", "Tokens that were read or written.", ("kind",), registry=self._registry
        )
        self._scenes = Counter("g2vlm_scenes", "Scenes that ended.", ("state",), registry=self._registry)
        self._open = 0
        self._gauge("g2vlm_requests_open", "Requests in work.", lambda: self._open)

    def watch(self, engine: Engine) -> None:
        """Show what the engine holds."""
        cache = engine.perceptions
        self._gauge("g2vlm_waiting", "Questions and looks that wait.", lambda: engine.num_waiting)
        self._gauge("g2vlm_answers_running", "Answers being written.", lambda: engine.num_running)
        self._gauge("g2vlm_looks_running", "Looks that have begun.", lambda: engine.num_looks)
        self._gauge("g2vlm_perceptions", "Perceptions kept.", lambda: len(cache))
        self._gauge("g2vlm_perception_bytes", "Bytes of perceptions.", lambda: cache.num_bytes)
        self._gauge("g2vlm_perception_hits", "Perceptions found.", lambda: cache.num_hits)
        self._gauge("g2vlm_perception_misses", "Perceptions not found.", lambda: cache.num_misses)

    def _gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        Gauge(name, text, registry=self._registry).set_function(value)

    @property
    def num_open(self) -> int:
        """Requests in work."""
        return self._open

    def request_begins(self) -> None:
        """Count a request that is in work."""
        self._open += 1

    def request_ends(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request that has ended.

        Args:
            route: its pattern, never its address, which would make a figure of its own for every scene.
            method: GET, POST, ...
            status: of the answer.
            seconds: that it took.
        """
        self._open -= 1
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def tokens(self, num_prompt: int, num_answer: int) -> None:
        """Count the tokens of an answer."""
        self._tokens.labels("prompt").inc(num_prompt)
        self._tokens.labels("answer").inc(num_answer)

    def scene_ends(self, state: str) -> None:
        """Count a scene."""
        self._scenes.labels(state).inc()

    def text(self) -> bytes:
        """All figures, in Prometheus' format."""
        return generate_latest(self._registry)
