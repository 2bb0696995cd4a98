"""Alert rules for Prometheus. What each means, and what to do, is in docs/operations.md."""

from dataclasses import dataclass
from typing import Any, Literal

from cluster import metrics as m
from cluster.rendering.text import yaml_text

RUNBOOK = "docs/operations.md"
_FAILING_SHARE = 0.1
_STORE_ERROR_SHARE = 0.01
_STORE_SLOW = 2.5  # seconds, a bucket's bound
_CONFLICT_SHARE = 0.1
_MEMORY_SHARE = 0.9


@dataclass(frozen=True)
class Alert:
    """One rule: when it holds for so long, somebody is told."""

    name: str
    expression: str
    minutes: int
    severity: Literal["page", "ticket"]
    summary: str

    @property
    def rule(self) -> dict[str, Any]:
        return {
            "alert": self.name,
            "expr": self.expression,
            "for": f"{self.minutes}m",
            "labels": {"severity": self.severity},
            "annotations": {
                "summary": self.summary,
                "runbook": f"{RUNBOOK}#{self.name.lower()}",
            },
        }


def _rate(metric: m.Metric, selector: str = "", window: str = "10m") -> str:
    return f"sum(rate({metric.exported}{selector}[{window}]))"


_ALL_EDITS = _rate(m.EDITS)
_STORE_COUNT = f"sum(rate({m.STORE_SECONDS.exported}_count[10m]))"
_STORE_BUCKETS = f"sum by (le) (rate({m.STORE_SECONDS.exported}_bucket[10m]))"
_FAILED = _rate(m.EDITS, '{state="failed"}')
_HUNG = f'sum(increase({m.CALLS.exported}{{outcome="hung"}}[15m]))'

ALERTS: tuple[Alert, ...] = (
    Alert(
        "EditFarmAbsent",
        f"absent({m.UPTIME.exported})",
        30,
        "ticket",
        "No backbone has told of itself for half an hour: right for an idle farm, else look.",
    ),
    Alert(
        "EditsFailing",
        f"{_FAILED} / {_ALL_EDITS} > {_FAILING_SHARE}",
        10,
        "page",
        "More than a tenth of the edits fail.",
    ),
    Alert(
        "CallsRefused",
        _rate(m.CALLS, '{outcome="refused"}', "5m") + " > 0",
        5,
        "page",
        "Backbones refuse calls, as their queues are full.",
    ),
    Alert(
        "BackboneStuck",
        f"sum({m.WAITING.exported}) > 0 unless {_rate(m.ITEMS, window='5m')} > 0",
        5,
        "page",
        "Calls wait, and none is computed.",
    ),
    Alert("StepsHung", f"{_HUNG} > 0", 0, "page", "A backbone gave up a step that took too long."),
    Alert(
        "BackbonesIdle",
        f"{_rate(m.BUSY, window='30m')} / {_rate(m.UPTIME, window='30m')} < 0.2",
        60,
        "ticket",
        "Accelerators are paid for and idle four fifths of the time.",
    ),
    Alert(
        "StoreFailing",
        f"{_rate(m.STORE_ERRORS)} / ({_STORE_COUNT} + {_rate(m.STORE_ERRORS)}) "
        f"> {_STORE_ERROR_SHARE}",
        5,
        "page",
        "More than a hundredth of the requests to the store fail.",
    ),
    Alert(
        "StoreSlow",
        f"histogram_quantile(0.99, {_STORE_BUCKETS}) > {_STORE_SLOW}",
        10,
        "ticket",
        f"One request to the store in a hundred takes longer than {_STORE_SLOW} s.",
    ),
    Alert(
        "CommitConflicts",
        _rate(m.COMMIT_CONFLICTS, '{operation="put_if_absent"}')
        + f" / {_ALL_EDITS} > {_CONFLICT_SHARE}",
        15,
        "ticket",
        "Edits are done twice: two jobs run one manifest, or trainers are lost and come back.",
    ),
    Alert(
        "WaitingForNodes",
        'sum(ray_tasks{State="PENDING_NODE_ASSIGNMENT"}) > 0',
        30,
        "ticket",
        "Work waits for machines for half an hour.",
    ),
    Alert(
        "NodeMemoryHigh",
        f"max(ray_node_mem_used / ray_node_mem_total) > {_MEMORY_SHARE}",
        10,
        "page",
        "A machine is about to run out of memory, and Ray to kill trainers on it.",
    ),
)


def alert_groups() -> list[dict[str, Any]]:
    """Groups of rules."""
    return [{"name": "editfarm", "interval": "30s", "rules": [alert.rule for alert in ALERTS]}]


def alert_file() -> str:
    """The file that a plain Prometheus reads."""
    return yaml_text({"groups": alert_groups()})
