"""The page's lists of services and hosts, a short line each, and the search over all names of a pool."""

from collections.abc import Mapping, Sequence
from typing import Any

from lbmux.tools.web.pool_problems import severity_of_backend, worst

MOST_FOUND = 50
Service = Mapping[str, Any]


def service_lines(services: Sequence[Service]) -> list[dict[str, Any]]:
    return [_service_line(service) for service in services]


def _service_line(service: Service) -> dict[str, Any]:
    severities = [severity_of_backend(backend) for backend in service["backends"]]
    return {key: service[key] for key in ("service", "vip", "protocol", "port", "live_flows")} | {
        "up": severities.count("good"), "of": len(severities),
        "packets_per_s": round(sum(backend["packets_per_s"] for backend in service["backends"]), 1),
        "new_flows_per_s": round(sum(backend["new_flows_per_s"] for backend in service["backends"]), 1),
        "severity": "bad" if not service["agree"] else worst(severities),
    }  # fmt: skip


def host_lines(services: Sequence[Service]) -> list[dict[str, Any]]:
    """Return each host once, with the sums over its backends."""
    by_host: dict[str, list[Mapping[str, Any]]] = {}
    for service in services:
        for backend in service["backends"]:
            by_host.setdefault(backend["host"], []).append(backend)
    return [_host_line(host, backends) for host, backends in by_host.items()]


def _host_line(host: str, backends: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    severities = [severity_of_backend(backend) for backend in backends]
    return {
        "host": host, "up": severities.count("good"), "of": len(backends),
        "live_flows": sum(backend["live_flows"] for backend in backends),
        "packets_per_s": round(sum(backend["packets_per_s"] for backend in backends), 1),
        "severity": worst(severities),
    }  # fmt: skip


def backends_of_host(services: Sequence[Service], host: str) -> list[dict[str, Any]]:
    return [
        {"service": service["service"], **backend}
        for service in services
        for backend in service["backends"]
        if backend["host"] == host
    ]


def search(text: str, services: Sequence[Service], muxes: Sequence[str]) -> list[dict[str, Any]]:
    """Return at most MOST_FOUND things whose name or address contains the text: ``kind``, ``at`` and ``where``."""
    text = text.strip().lower()
    matches: dict[tuple[str, ...], dict[str, Any]] = {}

    def add(kind: str, at: tuple[str, ...], where: str, *names: str) -> None:
        if any(text in name.lower() for name in names):
            matches.setdefault((kind, *at), {"kind": kind, "at": at, "where": where})

    for mux in muxes if text else ():
        add("mux", (mux,), "", mux)
    for service in services if text else ():
        where = f"{service['vip']} port {service['port']} {service['protocol']}"
        add("service", (service["service"],), where, service["service"], service["vip"])
        for backend in service["backends"]:
            add("backend", (service["service"], backend["backend"]), backend["dip"], backend["backend"], backend["dip"])
            add("host", (backend["host"],), "", backend["host"])
    order = ("mux", "service", "host", "backend")
    return sorted(matches.values(), key=lambda one: order.index(one["kind"]))[:MOST_FOUND]
