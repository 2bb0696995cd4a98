"""Alerts and the dashboard against what Ray's exporter really shows."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import yaml
from jsonschema import Draft7Validator
from typer.testing import CliRunner

from actors.metrics import BackboneMeter, count_edit, measured
from actors.scraping import Sample, exporters, scrape
from actors.stats import BatcherStats, KeyStats
from cluster import metrics as m
from cluster.metrics import METRICS
from cluster.rendering.alerts import ALERTS, alert_groups
from cluster.rendering.dashboard import PANELS, dashboard
from farm.errors import EditCancelledError, EditDivergedError
from farm.results import EditResult
from farm.storage.local import LocalStore
from farm.storage.store import MissingKeyError
from jobs.top import app
from tests.cluster.provenance import PROVENANCE
from tests.rays import own_ray

pytestmark = pytest.mark.ray

OPERATIONS_PAGE = Path(__file__).parents[2] / "docs" / "operations.md"

RULES = {
    "type": "object",
    "additionalProperties": False,
    "required": ["alert", "expr", "labels", "annotations"],
    "properties": {
        "alert": {"type": "string", "pattern": "^[A-Z][A-Za-z]+$"},
        "expr": {"type": "string"},
        "for": {"type": "string", "pattern": "^[0-9]+m$"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}

STATS = BatcherStats(
    batches=4,
    items=10,
    answered=12,
    failed=2,
    refused=1,
    dropped=1,
    cancelled=1,
    hung=1,
    running=3,
    busy_seconds=2.0,
    uptime_seconds=8.0,
    waiting_by_priority={"interactive": 2, "batch": 5},
    by_key={
        "toy a": KeyStats("toy", batches=3, items=8, seconds=1.5, wait_seconds=4.0),
        "toy b": KeyStats("toy", batches=1, items=2, seconds=0.5, wait_seconds=1.0),
    },
)


class Teller:
    """Stands for a backbone, which stays and tells again and again: what is not goes."""

    def __init__(self) -> None:
        self.meter = BackboneMeter()
        self.meter.publish(BatcherStats())

    def tell(self) -> None:
        self.meter.publish(STATS)


def happen(folder: Path) -> None:
    """An edit of each kind and requests to a store, in a process that ends at once."""
    done = EditResult(edit_id="e", attempt="a", files={}, provenance=PROVENANCE)
    count_edit("style_diffusion", done)
    count_edit("style_diffusion", done.model_copy(update={"reused": True}))
    count_edit("style_diffusion", EditDivergedError("x"))
    count_edit("style_diffusion", EditCancelledError("x"))
    store = measured(LocalStore(folder))
    version = store.put("a", b"1")
    assert store.put_if_absent("a", b"2") is None
    assert store.put_if_match("a", b"2", version) is not None
    assert list(store.list("")) == ["a"]
    store.delete("a")
    with pytest.raises(MissingKeyError):
        store.get("a")
    with pytest.raises(Exception, match="key"):
        store.get("../a")


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Iterator[Sample]:
    """What the exporter shows after it all happened in two processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_metrics_report_interval_ms", "500")
        patch.setenv("RAY_metric_cardinality_level", "low")
        with own_ray(num_cpus=2):
            task = ray.remote(max_calls=1)(happen)  # the process ends with it: nothing is lost
            ray.get([task.remote(tmp_path_factory.mktemp("store")) for _ in range(2)])
            tellers = [ray.remote(Teller).options(num_cpus=0).remote() for _ in range(2)]
            labels = frozenset(label for metric in METRICS for label in metric.labels)
            for _ in range(60):
                ray.get([teller.tell.remote() for teller in tellers])
                sample = scrape(exporters(), labels | {"le", "State"})
                told = sample.total(m.EDITS) == 8 and sample.total(m.BATCHES) == 8
                told = told and m.WAITING.exported in sample.values
                if told and "ray_node_mem_used" in sample.values:
                    break
                time.sleep(0.5)  # exporters collect now and then
            yield sample


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"\bray_[a-z_]+", expression))


def test_every_metric_of_the_table_is_exported_under_its_name(exported):
    for metric in METRICS:
        name = metric.exported + ("_bucket" if metric.type == "histogram" else "")
        assert name in exported.values, name
        for labels in exported.values[name]:
            assert set(metric.labels) <= {label for label, _ in labels}


def test_figures_are_those_that_were_told(exported):
    assert exported.by(m.EDITS, "state") == {"done": 2, "reused": 2, "failed": 2, "cancelled": 2}
    assert exported.by(m.EDITS, "reason")["EditDivergedError"] == 2
    assert exported.total(m.BATCHES) == 8
    assert exported.by(m.ITEMS, "op") == {"toy": 20}
    assert exported.total(m.BUSY) / exported.total(m.UPTIME) == 0.25
    assert exported.by(m.WAITING, "priority") == {"interactive": 4, "batch": 10}
    calls = exported.by(m.CALLS, "outcome")
    assert calls == {
        "answered": 20,
        "failed": 4,
        "refused": 2,
        "dropped": 2,
        "cancelled": 2,
        "hung": 2,
    }
    assert exported.by(m.STAGES, "found") == {"made": 2, "found": 2}
    assert exported.total(m.ACCELERATOR_SECONDS) == 2 * PROVENANCE.accelerator_seconds
    conflicts = exported.by(m.COMMIT_CONFLICTS, "operation")
    assert conflicts == {"put_if_absent": 2}
    assert exported.total(m.STORE_ERRORS) == 2
    requests = exported.by(m.STORE_SECONDS, "operation", "_count")
    assert requests["get"] == 2  # a missing key is an answer, a wrong one an error


def test_top_shows_them(exported):
    address = ray.get_runtime_context().gcs_address
    shown = CliRunner().invoke(app, ["--address", address, "--once", "--every", "1"])
    assert shown.exit_code == 0, shown.output
    assert "2 failed" in shown.stdout, shown.stdout
    # backbones set their gauges again and again; what is set once goes after a collection
    assert re.search(r"waiting: (0|10 batch, 4 interactive)", shown.stdout)
    told = CliRunner().invoke(app, ["--address", address, "--json", "--every", "1"])
    assert json.loads(told.stdout)["edits"]["by_state"]["done"] == 2


def test_no_panel_and_no_alert_asks_for_what_is_not_there(exported):
    asked = [expression for panel in PANELS for expression, _ in panel.series]
    asked += [alert.expression for alert in ALERTS]
    for expression in asked:
        names = names_in(expression)
        assert names
        assert names <= exported.values.keys(), expression


def test_labels_in_expressions_are_labels_of_their_metrics(exported):
    for panel in PANELS:
        for expression, legend in panel.series:
            known = {
                label
                for name in names_in(expression)
                for series in exported.values[name]
                for label, _ in series
            }
            wanted = set(re.findall(r"by \(([^)]+)\)", expression))
            used = {label.strip() for group in wanted for label in group.split(",")}
            used |= set(re.findall(r"(\w+)=\"", expression))
            assert used <= known, expression
            assert set(re.findall(r"{{(\w+)}}", legend)) <= used


def test_selected_values_are_values_that_occur(exported):
    for expression in [alert.expression for alert in ALERTS]:
        for label, value in re.findall(r"(\w+)=\"([^\"]+)\"", expression):
            if label == "State":
                continue  # Ray's own
            values = {
                dict(series).get(label)
                for name in names_in(expression)
                for series in exported.values[name]
            }
            assert value in values, (label, value)


def test_alerts_are_rules_and_the_runbook_explains_each():
    groups = alert_groups()
    for rule in groups[0]["rules"]:
        assert list(Draft7Validator(RULES).iter_errors(rule)) == []
    page = OPERATIONS_PAGE.read_text(encoding="utf-8")
    for alert in ALERTS:
        assert f"### {alert.name}\n" in page, f"docs/operations.md does not explain {alert.name}"
    assert yaml.safe_load(yaml.safe_dump(groups)) == groups


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_brackets_of_expressions_close(alert):
    stack = []
    pairs = {")": "(", "}": "{", "]": "["}
    for character in re.sub(r'"[^"]*"', "", alert.expression):
        if character in "({[":
            stack.append(character)
        elif character in pairs:
            assert stack.pop() == pairs[character]
    assert not stack


def test_the_dashboard_is_whole():
    made = dashboard()
    assert json.loads(json.dumps(made)) == made
    ids = [panel["id"] for panel in made["panels"]]
    assert len(set(ids)) == len(ids) == len(PANELS)
    places = [tuple(panel["gridPos"].values()) for panel in made["panels"]]
    assert len(set(places)) == len(places)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in made["panels"])
