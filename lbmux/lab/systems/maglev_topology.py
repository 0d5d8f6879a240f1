"""Maglev's design: Ananta's nodes with GRE tunnels and a Maglev table with weights."""

from collections.abc import Mapping
from dataclasses import replace

from lbmux.lab.systems import common_nodes
from lbmux.lab.topology import ECHO_PORT, SERVER_ECHO_PORT, VIP, Topology, ananta_bgp

WEIGHTS = {"h1": 1, "h2": 2}
TABLE_SIZE = 65537
"""The paper's smaller table size (NSDI 2016, section 5.3)."""


def maglev(*options: str, weights: Mapping[str, int] = WEIGHTS, mux_count: int = 2) -> Topology:
    """``options``: the muxes' command-line options instead of the defaults.  ``weights``: those of h1 and h2."""
    plain = ananta_bgp(*(options or common_nodes.SPEAKER), mux_count=mux_count)
    backends = [
        {"name": name, "dip": f"10.1.{name[1]}.2", "port": SERVER_ECHO_PORT, "weight": weight}
        for name, weight in weights.items()
    ]
    service = {"name": "echo", "vip": VIP, "protocol": "tcp", "port": ECHO_PORT, "health": common_nodes.HEALTH}
    config = {
        "muxes": plain.config["muxes"],
        "maglev": {"size": TABLE_SIZE},
        "tunnel": {"kind": "gre"},
        "services": [service | {"backends": backends}],
    }
    return replace(plain, name="maglev", config=config)
