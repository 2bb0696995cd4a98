"""The farm's Grafana dashboard."""

from dataclasses import dataclass
from typing import Any, Literal

from cluster import metrics as m

_WIDTH = 8
_HEIGHT = 7
_COLUMNS = 24 // _WIDTH
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}

Unit = Literal["short", "percentunit", "s", "ops", "reqps", "bytes"]


@dataclass(frozen=True)
class Panel:
    """A plot: one or several expressions, each with its legend."""

    title: str
    unit: Unit
    series: tuple[tuple[str, str], ...]
    """Expression and legend."""
    about: str = ""
    stacked: bool = False


def _rate(metric: m.Metric, by: str = "", selector: str = "") -> str:
    group = f" by ({by})" if by else ""
    return f"sum{group} (rate({metric.exported}{selector}[$__rate_interval]))"


def _quantile(share: float, metric: m.Metric, by: str) -> str:
    buckets = f"sum by (le, {by}) (rate({metric.exported}_bucket[$__rate_interval]))"
    return f"histogram_quantile({share}, {buckets})"


_STAGES_FOUND = _rate(m.STAGES, selector='{found="found"}')
_EDITS_DONE = _rate(m.EDITS, "method", '{state="done"}')
_CHARGED = f"{_rate(m.ACCELERATOR_SECONDS, 'method')} / {_EDITS_DONE}"

PANELS: tuple[Panel, ...] = (
    Panel("Edits by state", "ops", ((_rate(m.EDITS, "state"), "{{state}}"),), stacked=True),
    Panel(
        "Failures by reason",
        "ops",
        ((_rate(m.EDITS, "reason", '{state="failed"}'), "{{reason}}"),),
        "Reasons are kinds of errors: farm/errors.py says what to do about each.",
    ),
    Panel(
        "Time of an edit",
        "s",
        (
            (_quantile(0.5, m.EDIT_SECONDS, "method"), "half, {{method}}"),
            (_quantile(0.95, m.EDIT_SECONDS, "method"), "95 %, {{method}}"),
        ),
    ),
    Panel(
        "Time of a stage, 95 %",
        "s",
        ((_quantile(0.95, m.STAGE_SECONDS, "stage"), "{{stage}}"),),
    ),
    Panel(
        "Stages found instead of made",
        "percentunit",
        ((f"{_STAGES_FOUND} / {_rate(m.STAGES)}", "found"),),
        "One inversion serves all targets of an image.",
    ),
    Panel(
        "Accelerator seconds an edit",
        "s",
        ((_CHARGED, "{{method}}"),),
    ),
    Panel(
        "Calls that wait, by priority",
        "short",
        ((f"sum by (priority) ({m.WAITING.exported})", "{{priority}}"),),
        stacked=True,
    ),
    Panel(
        "Accelerators: busy share",
        "percentunit",
        ((f"{_rate(m.BUSY)} / {_rate(m.UPTIME)}", "busy"),),
    ),
    Panel(
        "Calls being computed",
        "short",
        ((f"sum ({m.RUNNING.exported})", "running"),),
    ),
    Panel(
        "Batch size", "short", ((f"{_rate(m.ITEMS, 'op')} / {_rate(m.BATCHES, 'op')}", "{{op}}"),)
    ),
    Panel(
        "Time of a batch",
        "s",
        ((f"{_rate(m.STEP_SECONDS, 'op')} / {_rate(m.BATCHES, 'op')}", "{{op}}"),),
    ),
    Panel(
        "Wait of a call",
        "s",
        ((f"{_rate(m.WAIT_SECONDS, 'op')} / {_rate(m.ITEMS, 'op')}", "{{op}}"),),
    ),
    Panel("Calls by outcome", "ops", ((_rate(m.CALLS, "outcome"), "{{outcome}}"),)),
    Panel(
        "Requests to the store",
        "reqps",
        (
            (
                f"sum by (operation) (rate({m.STORE_SECONDS.exported}_count[$__rate_interval]))",
                "{{operation}}",
            ),
        ),
    ),
    Panel(
        "Store: 99 % are sooner than",
        "s",
        ((_quantile(0.99, m.STORE_SECONDS, "operation"), "{{operation}}"),),
    ),
    Panel(
        "Store errors and lost races",
        "ops",
        (
            (_rate(m.STORE_ERRORS, "error"), "{{error}}"),
            (_rate(m.COMMIT_CONFLICTS, "operation"), "lost race, {{operation}}"),
        ),
    ),
    Panel("Tasks by state", "short", (("sum by (State) (ray_tasks)", "{{State}}"),), stacked=True),
    Panel(
        "Memory of the fullest machine",
        "percentunit",
        (("max (ray_node_mem_used / ray_node_mem_total)", "used"),),
    ),
)


def dashboard() -> dict[str, Any]:
    """The dashboard, as Grafana imports it."""
    return {
        "uid": "editfarm",
        "title": "Edit farm",
        "tags": ["editfarm"],
        "timezone": "browser",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}]
        },
        "panels": [_panel(number, panel) for number, panel in enumerate(PANELS)],
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    column, row = number % _COLUMNS, number // _COLUMNS
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": {"h": _HEIGHT, "w": _WIDTH, "x": column * _WIDTH, "y": row * _HEIGHT},
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "custom": {"stacking": {"mode": "normal" if panel.stacked else "none"}},
            },
            "overrides": [],
        },
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}},
        "targets": [
            {"refId": chr(ord("A") + index), "expr": expression, "legendFormat": legend}
            for index, (expression, legend) in enumerate(panel.series)
        ],
    }
