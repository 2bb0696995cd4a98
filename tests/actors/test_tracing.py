import pytest

from actors import tracing
from actors.tracing import flush, here, mark, span
from farm.errors import InvalidRequestError
from tests.collector import collecting


@pytest.fixture
def provider(monkeypatch):
    """This process's provider made anew, and forgotten afterwards."""
    tracing._provider.cache_clear()
    yield monkeypatch
    tracing._provider.cache_clear()


def test_nothing_is_traced_unless_asked(provider):
    provider.delenv("OTEL_TRACES_EXPORTER", raising=False)
    with span("edit") as trace:
        mark(state="done")
        assert trace == here() == ""


@pytest.mark.parametrize("asked", ["zipkin", "console"])
def test_an_unknown_exporter_is_refused(provider, asked):
    provider.setenv("OTEL_TRACES_EXPORTER", asked)
    with pytest.raises(InvalidRequestError, match=f"is '{asked}', expected otlp or none"), span(""):
        pass


def test_a_missing_exporter_names_the_extra(provider):
    provider.setenv("OTEL_TRACES_EXPORTER", "otlp")
    provider.setattr(tracing, "_EXPORTER", "opentelemetry.exporter.nowhere")
    with pytest.raises(InvalidRequestError, match=r"pip install 'editfarm\[trace\]'"), span("edit"):
        pass


def test_a_context_as_text_makes_one_trace(provider):
    """As it goes through a record in a store to another process."""
    with collecting() as collector:
        provider.setenv("OTEL_TRACES_EXPORTER", "otlp")
        provider.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        with span("POST", server=True) as asked:
            assert here() == asked
        with span("edit", asked, edit="1"), span("stage"):
            mark(state="done")
        with pytest.raises(ValueError, match="broken"), span("other"):
            raise ValueError("broken")
        flush()
        found = {found.name: found for found in collector.spans}
    assert collector.line_above(found["stage"]) == ["stage", "edit", "POST"]
    assert collector.line_above(found["other"]) == ["other"]
    assert found["other"].trace_id != found["edit"].trace_id
    assert found["stage"].attributes[0].value.string_value == "done"
    assert found["other"].status.code == found["other"].status.STATUS_CODE_ERROR
