"""Spans from a request to the operation that it asks a backbone for; off unless asked for.

On with OpenTelemetry's own variables: `OTEL_TRACES_EXPORTER=otlp`, and where to
(`OTEL_EXPORTER_OTLP_ENDPOINT`), for every process of the farm: they need the extra `trace`. A
span's context travels as text (W3C Trace Context): with an accepted edit's record, a trainer's job
and each errand to a backbone, so an edit that waits in a queue, or is started again, is still one
trace. Nothing in a span tells what a picture or a prompt is.
"""

import importlib
import os
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from farm.errors import InvalidRequestError

_VARIABLE = "OTEL_TRACES_EXPORTER"
_EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
_FLUSH_MS = 2000
_FIELD = "traceparent"
_text = TraceContextTextMapPropagator()

Attribute = str | int | float | bool


@cache
def _provider() -> TracerProvider | None:
    """This process's, made when it is first needed; None while tracing is off.

    Raises:
        InvalidRequestError: an exporter is asked for that there is none of.
    """
    asked = os.environ.get(_VARIABLE, "none").strip().lower()
    if asked in ("", "none"):
        return None
    if asked != "otlp":
        raise InvalidRequestError(f"{_VARIABLE} is {asked!r}, expected otlp or none")
    try:
        exporter = importlib.import_module(_EXPORTER).OTLPSpanExporter()
    except ImportError as error:
        raise InvalidRequestError(
            f"{_VARIABLE} is otlp, and its exporter is not installed: pip install 'editfarm[trace]'"
        ) from error
    name = os.environ.get("OTEL_SERVICE_NAME", "editfarm")
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


@contextmanager
def span(
    name: str, parent: str = "", *, server: bool = False, **attributes: Attribute
) -> Generator[str]:
    """A span for the time of a `with`; an exception marks it as failed.

    Args:
        name: of what is done; of few kinds, no ids.
        parent: context of the span that this is part of, as yielded there, maybe elsewhere; empty:
            whatever span is open here, or a trace of its own.
        server: whether it answers somebody else's request.
        attributes: what is known of it.

    Yields:
        Its context, to hand on; empty while tracing is off.
    """
    provider = _provider()
    if provider is None:
        yield ""
        return
    context = _text.extract({_FIELD: parent}) if parent else None
    kind = SpanKind.SERVER if server else SpanKind.INTERNAL
    tracer = provider.get_tracer("editfarm")
    with tracer.start_as_current_span(name, context, kind, attributes=attributes):
        yield here()


def here() -> str:
    """Context of the span that is open here, to hand on; empty where none is."""
    carrier: dict[str, str] = {}
    _text.inject(carrier)
    return carrier.get(_FIELD, "")


def mark(**attributes: Attribute) -> None:
    """Say more of the span that is open here."""
    trace.get_current_span().set_attributes(attributes)


def flush() -> None:
    """Send what is waiting: before a process may end without notice."""
    provider = _provider()
    if provider is not None:
        provider.force_flush(_FLUSH_MS)
