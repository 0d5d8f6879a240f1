"""A mux's services as `ipvsadm -L -n` prints them, byte by byte, for people and scripts that read that."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

VERSION = "1.2.1"
"""Of IPVS, as ipvsadm says it: what reads its output may look for it.  In the kernel it has long been this one."""
FORWARD = {"direct": "Route"}
"""Its names of ways to a server, by ours; every other of ours is a tunnel."""

Line = Mapping[str, Any]


def listing(services: Sequence[Line], backends: Sequence[Line], health: Sequence[Line], places: int) -> Iterator[str]:
    """``health`` has every backend; one that is down or disabled is not among ``backends``: no flows, weight 0.

    `mh` is its name for Maglev hashing, its connections are flows, the active ones those that are trusted.
    """
    live = {(line["service"], line["backend"]): line for line in backends}
    yield f"IP Virtual Server version {VERSION} (size={places})"
    yield "Prot LocalAddress:Port Scheduler Flags"
    yield "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn"
    for service in services:
        yield f"{service['protocol'].upper()}  {_end(service['vip'], service['port'])} mh"
        for line in health:
            if line["service"] == service["service"]:
                yield _server(line, live.get((line["service"], line["backend"])))


def _server(line: Line, live: Line | None) -> str:
    weight, active, inactive = 0, 0, 0
    if live is not None:
        active = live["trusted_flows"]
        weight, inactive = live["weight"], live["live_flows"] - active
    where, way = _end(line["dip"], line["port"]), FORWARD.get(line["tunnel"], "Tunnel")
    return f"  -> {where:28} {way:7} {weight:<6} {active:<10} {inactive:<10}"


def _end(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
