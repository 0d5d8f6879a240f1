"""Owner of a traced frame: its service, and its backend if the data path chose one."""

from bisect import bisect_right
from collections import defaultdict

from lbmux.addresses import Address
from lbmux.config.models import Backend, Service
from lbmux.tables.snapshot import Snapshot
from lbmux.tracing.header_summary import HeaderSummary


class EventOwner:
    """Finds a frame's service by its destination, and its backend by the row that the data path chose."""

    def __init__(self) -> None:
        self._services: tuple[Service, ...] = ()
        self._by_vip: dict[tuple[Address | None, str], list[Service]] = {}
        self._owners: dict[int, tuple[Service, Backend]] = {}

    def find(self, snapshot: Snapshot, summary: HeaderSummary, target: int) -> tuple[str | None, str | None]:
        """Return service and backend by name; ``target`` is the row that the data path chose, or -1."""
        if snapshot.services is not self._services:  # once per reload, not per frame
            self._services, self._owners = snapshot.services, snapshot.owners
            self._by_vip = defaultdict(list)
            for service in sorted(snapshot.services, key=lambda service: service.port):
                self._by_vip[service.vip, service.protocol].append(service)
        owner = self._owners.get(target)
        if owner is not None:
            return owner[0].name, owner[1].name
        services = self._by_vip.get((summary.destination, summary.name), [])
        if not services or summary.port is None:
            return None, None
        nearest = services[bisect_right(services, summary.port, key=lambda service: service.port) - 1]
        if summary.port not in nearest.ports:
            nearest = services[0]  # the endpoint for any port, if there is one
        return nearest.name if summary.port in nearest.ports or nearest.port == 0 else None, None
