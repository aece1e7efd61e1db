"""Traces of requests for OpenTelemetry, where an operator names a collector; nothing otherwise."""

import os
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI

from g2vlm.errors import MissingExtraError

_COLLECTOR = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_NOT_TRACED = "/health,/metrics"


def trace_requests(app: FastAPI, environment: Mapping[str, str] = os.environ) -> bool:
    """Send a span of every request to the collector that the environment names, in OpenTelemetry's own words.

    Spans hold method, route, status and times; no bodies and no headers.

    Args:
        app: The application.
        environment: Of the process: `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_SERVICE_NAME`, ...

    Returns:
        Whether requests are traced.

    Raises:
        MissingExtraError: A collector is named, but the extra is not installed.
    """
    is_off = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if is_off or not any(environment.get(name) for name in _COLLECTOR):
        return False
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise MissingExtraError("Tracing requests", "otel") from error
    instrument(app, BatchSpanProcessor(OTLPSpanExporter()))
    return True


def instrument(app: FastAPI, processor: Any) -> None:
    """Trace the requests of an application.

    Args:
        app: The application, before its first request.
        processor: Takes the spans, an OpenTelemetry `SpanProcessor`.
    """
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider

    # The operator's own name, from the environment, comes last and wins.
    resource = Resource({SERVICE_NAME: "g2vlm"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(processor)
    FastAPIInstrumentor.instrument_app(
        app, tracer_provider=provider, excluded_urls=_NOT_TRACED, exclude_spans=["receive", "send"]
    )
