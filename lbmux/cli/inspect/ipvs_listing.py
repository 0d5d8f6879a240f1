"""Formats a mux's services exactly as `ipvsadm -L -n` does, for people and scripts that read its output."""

from collections.abc import Iterator, Sequence

from lbmux.api.answers import BackendHealth, BackendLine, ServiceLine

VERSION = "1.2.1"
"""The IPVS version that ipvsadm prints, for scripts that check it; the kernel's has not changed for years."""
FORWARD = {"direct": "Route"}
"""Maps our tunnel kinds to the forwarding methods of IPVS; all others map to Tunnel."""


def listing(
    services: Sequence[ServiceLine], backends: Sequence[BackendLine], health: Sequence[BackendHealth], places: int
) -> Iterator[str]:
    """Yield the lines of the listing.

    ``health`` has all backends.  A backend that is down or disabled is missing in ``backends``, and shown with weight 0
    and no connections.  `mh` is the scheduler for Maglev hashing in IPVS; connections are flows, and active connections
    are trusted flows.
    """
    live = {line.key: line for line in backends}
    yield f"IP Virtual Server version {VERSION} (size={places})"
    yield "Prot LocalAddress:Port Scheduler Flags"
    yield "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn"
    for service in services:
        yield f"{service.protocol.upper()}  {_end(service.vip, service.port)} mh"
        for line in health:
            if line.service == service.service:
                yield _server(line, live.get(line.key))


def _server(line: BackendHealth, live: BackendLine | None) -> str:
    weight, active, inactive = 0, 0, 0
    if live is not None:
        active = live.trusted_flows
        weight, inactive = live.weight, live.live_flows - active
    where, way = _end(line.dip, line.port), FORWARD.get(line.tunnel, "Tunnel")
    return f"  -> {where:28} {way:7} {weight:<6} {active:<10} {inactive:<10}"


def _end(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
