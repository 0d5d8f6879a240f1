"""A small pool of PoPs and client groups for the tests of steering."""

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any

import numpy as np

from lbmux.config.steering_models import Steering
from lbmux.steering.measurements import Groups, Latency

NOW = 1_000_000.0
POPS = ("fra", "ams", "lon")


def steering(**more: Any) -> Steering:
    """Three PoPs for 1000 users each."""
    changed = more.pop("pops", {})
    pops = [
        {"name": name, "addresses": [f"192.0.2.{at}", f"2001:db8::{at}"], "capacity": 1000} | changed.get(name, {})
        for at, name in enumerate(POPS, 1)
    ]
    document = {"name": "www.example.net", "groups": "g.csv", "latency": "l.csv", "pops": pops, "default": "lon"}
    return Steering.model_validate(document | more)


def groups(**users: float | tuple[float, str]) -> Groups:
    """Groups `g1` and so on: 198.51.N.0/24, with users and perhaps a resolver."""
    both = [one if isinstance(one, tuple) else (one, "") for one in users.values()]
    prefixes = tuple(ip_network(f"198.51.{name[1:]}.0/24") for name in users)
    return Groups(prefixes, np.array([float(one) for one, _ in both]), tuple(resolver for _, resolver in both))


def latency(rtt_ms: Mapping[str, Mapping[str, float]], age_s: float = 60.0) -> Latency:
    """Latencies by prefix and PoP."""
    rows = {ip_network(prefix): at for at, prefix in enumerate(rtt_ms)}
    rtt = np.full((len(POPS), len(rows)), np.nan)
    for at, by_pop in enumerate(rtt_ms.values()):
        for pop, one in by_pop.items():
            rtt[POPS.index(pop), at] = one
    known = np.where(np.isnan(rtt), np.nan, 1.0)
    return Latency(rows, rtt, rtt - 2 * known, rtt + 3 * known, 80 * known, (NOW - age_s) * known)
