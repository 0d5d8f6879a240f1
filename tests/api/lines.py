"""Answers of which a test names only the fields that it is about."""

from typing import Any

from lbmux.api.answers import (
    BackendHealth,
    BackendLine,
    FlowLine,
    HealthLine,
    NeighbourLine,
    Runtime,
    ServiceLine,
    TableSize,
)


def service_line(**given: Any) -> ServiceLine:
    known: dict[str, Any] = {
        "service": "web", "vip": "192.0.2.1", "protocol": "tcp", "port": 80, "ports": "80", "slots": 251,
        "digest": "0f", "flows": "all", "marked_slots": 0, "idle": {}, "backends": 1, "backends_up": 1,
        "live_flows": 0, "packets": 0, "bytes": 0, "new_flows": 0,
    }  # fmt: skip
    return ServiceLine(**known | given)


def backend_line(**given: Any) -> BackendLine:
    known: dict[str, Any] = {
        "service": "web", "backend": "h1", "dip": "10.1.1.2", "port": 80, "host": "10.1.1.2", "weight": 1,
        "state": "up", "reachable": True, "packets": 0, "bytes": 0, "new_flows": 0, "live_flows": 0,
        "trusted_flows": 0, "untrusted_flows": 0, "closing_flows": 0,
    }  # fmt: skip
    return BackendLine(**known | given)


def backend_health(**given: Any) -> BackendHealth:
    known: dict[str, Any] = {
        "service": "web", "backend": "h1", "state": "up", "reason": "fine", "since": None, "dip": "10.1.1.2",
        "port": 80, "host": "10.1.1.2", "weight": 1, "tunnel": "ipip",
    }  # fmt: skip
    return BackendHealth(**known | given)


def health_line(*, drained: bool = False, **given: Any) -> HealthLine:
    return HealthLine(**vars(backend_health(**given)), drained=drained)


def flow_line(**given: Any) -> FlowLine:
    known: dict[str, Any] = {
        "version": 1, "protocol": "tcp", "source": "198.51.100.2", "source_port": 4000, "destination": "192.0.2.1",
        "destination_port": 80, "service": "web", "backend": "h1", "state": "trusted", "idle_s": 0.0,
    }  # fmt: skip
    return FlowLine(**known | given)


def neighbour_line(**given: Any) -> NeighbourLine:
    known: dict[str, Any] = {
        "host": "10.1.1.2", "mac": None, "source_mac": None, "interface": None, "mtu": None, "backends": [],
    }  # fmt: skip
    return NeighbourLine(**known | given)


def runtime(**given: Any) -> Runtime:
    known: dict[str, Any] = {
        "version": 1, "program": "mux", "driver": "packet", "modes": {}, "adopted": False, "pins_end_with": "",
        "native_refused": "", "instructions": {}, "interface": "eth0", "addresses": [], "pid": 1, "uptime_s": 0.0,
        "cpus": 2, "workers": 1, "config": "lbmux.yaml", "config_loaded": "2026-01-01T00:00:00Z", "versions": {},
        "tables": {}, "memory_bytes": 0,
    }  # fmt: skip
    return Runtime(**known | given)


def flow_table(used: int, rows: int) -> dict[str, TableSize]:
    return {"flows": TableSize(used, rows, 0)}
