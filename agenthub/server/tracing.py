"""OpenTelemetry spans, where the operator has said where to send them and its SDK is there (`agenthub[otel]`).

The SDK reads its own environment: OTEL_EXPORTER_OTLP_ENDPOINT and its kin, OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

__all__ = ["Tracing", "tracing_from_environment"]

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_FLUSH_MS = 2000
_logger = logging.getLogger("agenthub.server")


def tracing_from_environment() -> Tracing | None:
    """Spans over OTLP (HTTP) where the environment names an endpoint; None where not, or without the SDK."""
    if not any(os.environ.get(name) for name in _ENDPOINTS) or os.environ.get("OTEL_SDK_DISABLED", "") == "true":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        _logger.warning("no spans are sent: pip install 'agenthub[otel]'")
        return None
    name = os.environ.get("OTEL_SERVICE_NAME", "agenthub")
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)


class Tracing:
    """A span for each operation, under the caller's where its request names one (W3C `traceparent`)."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("agenthub")
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def under(self, headers: Mapping[str, str]) -> Iterator[None]:
        """Spans inside belong to the trace that a request's headers name."""
        from opentelemetry import context

        token = context.attach(self._propagator.extract({key.lower(): value for key, value in headers.items()}))
        try:
            yield
        finally:
            context.detach(token)

    @contextmanager
    def span(self, op: str, facts: Mapping[str, Any]) -> Iterator[None]:
        """One operation's span; an exception inside marks it as failed."""
        shown = {f"agenthub.{name}": value for name, value in facts.items() if isinstance(value, str | int | float)}
        with self._tracer.start_as_current_span(f"agenthub.{op}", attributes=shown):
            yield

    async def close(self) -> None:
        """Send what is left, for two seconds at most."""
        await asyncio.to_thread(self._provider.force_flush, _FLUSH_MS)
        await asyncio.to_thread(self._provider.shutdown)
