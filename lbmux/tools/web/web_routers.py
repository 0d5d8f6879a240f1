"""The routers that send to a pool: the muxes' BGP neighbours, and the VIPs announced to them."""

from collections.abc import Sequence
from typing import Any

from lbmux.bgp.bgp_settings import ESTABLISHED
from lbmux.tools.web.mux_status import MuxStatus, MuxSummary

ROUTER = "router"
"""The name of the unknown router of a mux without BGP."""


def sessions_of(statuses: Sequence[MuxStatus | MuxSummary]) -> list[dict[str, Any]]:
    """Return the sessions between routers and muxes.  A mux that does not answer may have a session with any router."""
    sessions = [
        {
            "router": peer.address,
            "mux": one.name,
            "up": peer.state == ESTABLISHED,
            "state": peer.state,
            "reason": peer.reason,
        }
        for one in statuses
        for peer in one.neighbours
    ]
    known = list(dict.fromkeys(session["router"] for session in sessions))
    for one in statuses:
        if not one.neighbours:
            routers = known if one.error and known else [ROUTER]
            sessions += [
                {"router": router, "mux": one.name, "up": not one.error, "state": "", "reason": one.error}
                for router in routers
            ]
    return sessions


def vips_of(services: Sequence[dict[str, Any]], statuses: Sequence[MuxStatus]) -> list[dict[str, Any]]:
    """Each VIP once.  ``routers``: those that a mux announces it to, and ROUTER for muxes without BGP."""
    announced: dict[str, list[str]] = {}
    for one in statuses:
        peers = [peer.address for peer in one.neighbours if peer.state == ESTABLISHED]
        for prefix in one.bgp.prefixes if one.bgp else ():
            announced.setdefault(prefix.partition("/")[0], []).extend(peers)
    unknown = [ROUTER] if any(not one.error and not one.neighbours for one in statuses) else []
    vips: dict[str, dict[str, Any]] = {}
    for service in services:
        vip = service["vip"]
        routers = list(dict.fromkeys(announced.get(vip, []))) + unknown
        line = vips.setdefault(vip, {"vip": vip, "services": [], "routers": routers, "packets_per_s": 0.0})
        line["services"].append(service["service"])
        own = sum(backend["packets_per_s"] for backend in service["backends"])
        line["packets_per_s"] = round(line["packets_per_s"] + own, 1)
    return list(vips.values())
