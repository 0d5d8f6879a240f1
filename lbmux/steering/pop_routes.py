"""How each PoP announces its VIPs by BGP, so that routers follow the map too. Pure.

BGP knows no client groups. A PoP without users withdraws; one that is nearly full announces itself less attractively,
until it has clearly fewer users, so that it does not change back and forth.
"""

from collections.abc import Mapping

from lbmux.config.steering_models import Announcement, Steering
from lbmux.steering.exploration import FULL
from lbmux.steering.steering_map import Routes, SteeringMap

NO_LONGER_FULL = 0.7
"""The share of its capacity below which a full PoP is normal again."""


def pop_routes(
    steering: Steering, users: Mapping[str, float], loads: Mapping[str, float], present: SteeringMap | None
) -> dict[str, Routes]:
    """Return the routes of each PoP. ``users``: by the new map; ``loads``: the load that they are."""
    full, routes = _routes(steering.bgp.full), dict[str, Routes]()
    for pop in steering.pops:
        load = max(loads.get(pop.name, 0.0), pop.load or 0.0)
        was_full = present is not None and present.routes.get(pop.name) == full
        is_full = load >= (NO_LONGER_FULL if was_full else FULL) * pop.capacity
        routes[pop.name] = full if is_full else _routes(steering.bgp.normal)
        if not users.get(pop.name):
            routes[pop.name] = Routes(withdrawn=True)
    return routes


def _routes(announcement: Announcement) -> Routes:
    return Routes(False, announcement.prepend, announcement.length, announcement.length6)
