"""The farm's metrics of this moment, read from the exporter of every node: what `top` shows."""

import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeAlias

import ray
from prometheus_client.parser import text_string_to_metric_families

from cluster.metrics import EXPORTED, Metric

_SECONDS = 5.0
_READERS = 16

Labels: TypeAlias = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Sample:
    """All series of the cluster, equal ones of several nodes added up."""

    values: Mapping[str, Mapping[Labels, float]] = field(
        default_factory=dict[str, Mapping[Labels, float]]
    )
    silent: int = 0
    """Nodes whose exporter did not answer."""

    def by(self, metric: Metric, label: str, suffix: str = "") -> dict[str, float]:
        """A metric's values by one of its labels."""
        sums: dict[str, float] = {}
        for labels, value in self.values.get(metric.exported + suffix, {}).items():
            name = dict(labels).get(label, "")
            sums[name] = sums.get(name, 0.0) + value
        return sums

    def total(self, metric: Metric, suffix: str = "") -> float:
        """A metric's values, all together."""
        return sum(self.values.get(metric.exported + suffix, {}).values())


def exporters() -> list[str]:
    """Addresses of the exporters of the cluster that this process is connected to."""
    return [
        f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        for node in ray.nodes()
        if node["Alive"] and node["MetricsExportPort"] > 0
    ]


def scrape(addresses: Iterable[str], kept: frozenset[str]) -> Sample:
    """Read exporters.

    Args:
        addresses: of them.
        kept: labels that stay apart; series that differ in others alone are added up.
    """
    sums: dict[str, dict[Labels, float]] = {}
    silent = 0
    with ThreadPoolExecutor(_READERS) as pool:
        for text in pool.map(_read, addresses):
            if text is None:
                silent += 1
            else:
                _add(text, kept, sums)
    return Sample(sums, silent)


def _read(address: str) -> str | None:
    try:
        with urllib.request.urlopen(address, timeout=_SECONDS) as reply:  # noqa: S310 - our nodes
            return reply.read().decode()
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return None


def _add(text: str, kept: frozenset[str], sums: dict[str, dict[Labels, float]]) -> None:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith(EXPORTED):
                labels = frozenset((n, v) for n, v in sample.labels.items() if n in kept)
                series = sums.setdefault(sample.name, {})
                series[labels] = series.get(labels, 0.0) + sample.value
