"""The Prometheus metrics of a manager."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from lbmux.manager.manager_state import Manager

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class ManagerMetrics:
    """Counters of requests, and gauges that are set at a scrape."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter("lbmux_manager_requests", "Requests of the API.", ("path", "status"), registry=registry)
        self.seconds = Histogram(
            "lbmux_manager_request_seconds", "Time from a request's body to its answer.", ("path",),
            buckets=BUCKETS, registry=registry,
        )  # fmt: skip
        self.closed = Counter(
            "lbmux_manager_closed_connections", "Connections that were closed before their first request.", ("reason",),
            registry=registry,
        )  # fmt: skip
        self._primary = Gauge("lbmux_manager_primary", "1 on the primary, else 0.", registry=registry)
        self._epoch = Gauge("lbmux_manager_epoch", "Epoch of the current primary; 0: none.", registry=registry)
        self._revision = Gauge("lbmux_manager_revision", "The current revision.", registry=registry)
        self._overrides = Gauge("lbmux_manager_overrides", "Overrides in force.", registry=registry)
        self._stale = Gauge(
            "lbmux_manager_stale_refusals", "Messages that nodes refused because of their epoch.", registry=registry
        )
        self._nodes = Gauge("lbmux_manager_nodes", "Nodes that are connected here, by state.", ("state",),
                            registry=registry)  # fmt: skip

    def text(self, manager: Manager) -> bytes:
        """Return the exposition of this moment."""
        state, reports = manager.state, manager.reports.values()
        self._primary.set(manager.is_primary)
        self._epoch.set(manager.primary.epoch or 0)
        self._revision.set(state.revision)
        self._overrides.set(len(state.overrides))
        self._stale.set(manager.stale_refusals)
        current = [one for one in reports if one.revision == state.revision]
        refused = sum(bool(one.refused) for one in current)
        self._nodes.labels("in_force").set(len(current) - refused)
        self._nodes.labels("refused").set(refused)
        self._nodes.labels("behind").set(len(reports) - len(current))
        return generate_latest(self._registry)
