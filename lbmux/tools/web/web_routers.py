"""Where a pool's packets come from: the routers that its muxes know by BGP, and the VIPs that they were told of."""

from collections.abc import Sequence
from typing import Any

from lbmux.tools.web.mux_status import MuxStatus

ROUTER = "router"
"""What a mux without BGP gets its packets from: some router, of which nothing is known."""


def sessions_of(statuses: Sequence[MuxStatus]) -> list[dict[str, Any]]:
    """Which router sends to which mux.  One that does not answer may have had any of them."""
    found = [
        {
            "router": peer["address"],
            "mux": one.name,
            "up": peer["state"] == "established",
            "state": peer["state"],
            "reason": peer["reason"],
        }
        for one in statuses
        for peer in one.bgp.get("neighbours", ())
    ]
    known = list(dict.fromkeys(session["router"] for session in found))
    for one in statuses:
        if not one.bgp.get("neighbours"):
            routers = known if one.error and known else [ROUTER]
            found += [
                {"router": router, "mux": one.name, "up": not one.error, "state": "", "reason": one.error}
                for router in routers
            ]
    return found


def vips_of(services: Sequence[dict[str, Any]], statuses: Sequence[MuxStatus]) -> list[dict[str, Any]]:
    """Each VIP once; ``routers``: those that a mux has told of it; of a mux without BGP the one that is not known."""
    told: dict[str, list[str]] = {}
    for one in statuses:
        peers = [peer["address"] for peer in one.bgp.get("neighbours", ()) if peer["state"] == "established"]
        for prefix in one.bgp.get("prefixes", ()):
            told.setdefault(prefix.partition("/")[0], []).extend(peers)
    unknown = [ROUTER] if any(not one.error and not one.bgp.get("neighbours") for one in statuses) else []
    found: dict[str, dict[str, Any]] = {}
    for service in services:
        vip = service["vip"]
        routers = list(dict.fromkeys(told.get(vip, []))) + unknown
        line = found.setdefault(vip, {"vip": vip, "services": [], "routers": routers, "packets_per_s": 0.0})
        line["services"].append(service["service"])
        own = sum(backend["packets_per_s"] for backend in service["backends"])
        line["packets_per_s"] = round(line["packets_per_s"] + own, 1)
    return list(found.values())
