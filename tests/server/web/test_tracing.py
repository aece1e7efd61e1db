"""Traces of requests: sent only where a collector is named, and without bodies or keys."""

import sys

import pytest
from fastapi.testclient import TestClient
from small_service import chat_body

from g2vlm.errors import MissingExtraError
from g2vlm.server.app import create_app
from g2vlm.server.service import Service
from g2vlm.server.web import tracing

COLLECTOR = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}


@pytest.mark.parametrize("environment", [{}, {**COLLECTOR, "OTEL_SDK_DISABLED": "true"}])
def test_nothing_is_traced_unless_a_collector_is_named(service: Service, environment: dict[str, str]) -> None:
    assert not tracing.trace_requests(create_app(service), environment)


def test_a_missing_extra_is_told(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(MissingExtraError, match="otel"):
        tracing.trace_requests(create_app(service), COLLECTOR)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:opentelemetry")
def test_a_span_says_route_status_and_no_more(service: Service) -> None:
    pytest.importorskip("opentelemetry.instrumentation.fastapi", reason="needs the extra otel")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, app = InMemorySpanExporter(), create_app(service)
    tracing.instrument(app, SimpleSpanProcessor(exporter))
    with TestClient(app) as client:
        headers = {"Authorization": "Bearer hidden-key"}
        told = client.post("/v1/chat/completions", json=chat_body("hidden question"), headers=headers)
        assert told.status_code == 200
        client.get("/health")
    (span,) = exporter.get_finished_spans()
    text = span.to_json()
    assert "/v1/chat/completions" in span.name
    assert "200" in text
    assert '"service.name": "g2vlm"' in text
    assert "hidden" not in text
