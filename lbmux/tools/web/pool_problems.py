"""What needs an operator's attention in a pool, and what an operator has planned.

``severity``: bad, unknown or planned.  ``at``: the page's view that shows more.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

PLANNED = frozenset(("draining", "disabled", "removed", "removing"))
ORDER = ("bad", "unknown", "planned")
Problem = dict[str, str]


def severity_of(state: str) -> str:
    """Return what a backend's state means: good, bad, planned or unknown."""
    if state == "up":
        return "good"
    if state in PLANNED:
        return "planned"
    return "bad" if state == "down" else "unknown"


def worst(severities: Sequence[str]) -> str:
    return next((one for one in ORDER if one in severities), "good")


def severity_of_backend(backend: Mapping[str, Any]) -> str:
    """Return the worst of what the muxes say of a backend."""
    if not backend["reachable"]:
        return "bad"
    return worst([severity_of(line["state"]) for line in backend["health"]])


def mux_problems(muxes: Sequence[Mapping[str, Any]], sessions: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    """Yield muxes that do not answer, and BGP sessions that are down."""
    for mux in muxes:
        if mux["error"]:
            yield _problem("bad", mux["name"], f"{mux['error']}; its rates are unknown", "mux", mux["name"])
    for one in sessions:
        if not one["up"] and one["state"]:
            text = f"BGP session with {one['router']} is {one['state']}: {one['reason'] or 'no reason given'}"
            yield _problem("bad", one["mux"], text, "mux", one["mux"])


def service_problems(services: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    """Yield services whose tables differ, and backends that are not simply up."""
    for service in services:
        name = service["service"]
        if not service["agree"]:
            yield _problem("bad", name, "muxes have different tables", "service", name)
        for backend in service["backends"]:
            yield from _backend_problems(name, backend)


def _backend_problems(service: str, backend: Mapping[str, Any]) -> Iterator[Problem]:
    name, at = f"{service}/{backend['backend']}", ("backend", service, backend["backend"])
    if not backend["reachable"]:
        yield _problem("bad", name, "no next hop", *at)
    for line in backend["health"]:
        severity = severity_of(line["state"])
        if severity != "good":
            muxes = f" ({', '.join(line['muxes'])})" if len(backend["health"]) > 1 else ""
            yield _problem(severity, name, f"{line['state']}: {line['reason']}{muxes}", *at)


def _problem(severity: str, what: str, text: str, *at: str) -> Problem:
    return {"severity": severity, "what": what, "text": text, "at": "#/" + "/".join(quote(one, safe="") for one in at)}


def by_severity(problems: Sequence[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda one: ORDER.index(one["severity"]))
