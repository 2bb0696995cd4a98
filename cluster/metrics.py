"""The one table of what the farm counts: from it come exporters, alerts and the dashboard.

Labels have few values each: operations, stages, methods, kinds of errors. An edit's id, a tenant
or a file's name is never a label; they are in the logs.
"""

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

MetricType: TypeAlias = Literal["counter", "gauge", "histogram"]

EXPORTED = "ray_"
"""What Ray's exporter puts before the names of its applications' metrics."""

Seconds = Annotated[float, Field(gt=0)]
_STORE_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_EDIT_SECONDS = (1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1280.0, 3600.0)


class Metric(BaseModel):
    """One metric."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^farm_[a-z_]+$")]
    type: MetricType
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[Seconds, ...] = ()
    """Upper bounds of a histogram's buckets."""

    @property
    def exported(self) -> str:
        """Its name in Prometheus; a histogram's series add `_bucket`, `_sum` and `_count`."""
        return EXPORTED + self.name


def _counter(name: str, text: str, *labels: str) -> Metric:
    return Metric(name=name, type="counter", help=text, labels=labels)


def _gauge(name: str, text: str, *labels: str) -> Metric:
    return Metric(name=name, type="gauge", help=text, labels=labels)


def _histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Metric:
    return Metric(name=name, type="histogram", help=text, labels=labels, buckets=buckets)


# what a backbone does; gauges name the process, since Ray's exporter keeps one value of a node's
WAITING = _gauge("farm_calls_waiting", "Calls that wait for a backbone.", "priority", "pid")
RUNNING = _gauge("farm_calls_running", "Calls that are being computed.", "pid")
BUSY = _counter("farm_backbone_busy_seconds_total", "Time that compute threads were busy.")
UPTIME = _counter("farm_backbone_up_seconds_total", "Time that backbones were there.")
BATCHES = _counter("farm_batches_total", "Batches computed.", "op")
ITEMS = _counter("farm_batch_items_total", "Calls computed in these batches.", "op")
STEP_SECONDS = _counter("farm_batch_seconds_total", "Time of these batches.", "op")
WAIT_SECONDS = _counter("farm_wait_seconds_total", "Time that calls waited before.", "op")
CALLS = _counter("farm_calls_total", "Calls by what became of them.", "outcome")

# what an edit does
EDITS = _counter("farm_edits_total", "Edits that ended.", "method", "state", "reason")
EDIT_SECONDS = _histogram("farm_edit_seconds", "Time of an edit.", _EDIT_SECONDS, "method")
STAGE_SECONDS = _histogram("farm_stage_seconds", "Time of a stage.", _EDIT_SECONDS, "stage")
STAGES = _counter("farm_stages_total", "Stages needed, made or found.", "stage", "found")
ACCELERATOR_SECONDS = _counter(
    "farm_accelerator_seconds_total", "Accelerator time that edits were charged.", "method"
)

# what the store does
STORE_SECONDS = _histogram(
    "farm_store_seconds", "Time of a request to the store.", _STORE_SECONDS, "operation"
)
STORE_ERRORS = _counter(
    "farm_store_errors_total", "Requests to the store that failed.", "operation", "error"
)
COMMIT_CONFLICTS = _counter(
    "farm_commit_conflicts_total", "Conditional writes that somebody else had won.", "operation"
)

METRICS: tuple[Metric, ...] = (
    WAITING,
    RUNNING,
    BUSY,
    UPTIME,
    BATCHES,
    ITEMS,
    STEP_SECONDS,
    WAIT_SECONDS,
    CALLS,
    EDITS,
    EDIT_SECONDS,
    STAGE_SECONDS,
    STAGES,
    ACCELERATOR_SECONDS,
    STORE_SECONDS,
    STORE_ERRORS,
    COMMIT_CONFLICTS,
)
