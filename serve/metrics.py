"""What `/metrics` tells: of this replica, and of the dispatcher as seen from it."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Metrics:
    """Figures of one replica."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "editfarm_http_requests",
            "Responses by method, route and status.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "editfarm_http_request_seconds",
            "Time until a response's end.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.accepted = Counter(
            "editfarm_edits_accepted", "Edits made durable.", registry=self.registry
        )
        self.refused = Counter(
            "editfarm_edits_refused", "Submissions refused.", ("code",), registry=self.registry
        )
        self.queued = Gauge(
            "editfarm_edits_queued", "Edits that wait in the dispatcher.", registry=self.registry
        )
        self.running = Gauge("editfarm_edits_running", "Edits that run.", registry=self.registry)
        self.listeners = Gauge(
            "editfarm_event_listeners", "Open event streams.", registry=self.registry
        )

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self.registry)
