"""A lab whose router runs FRR, and a look into its kernel."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbmux.lab import frr_router
from lbmux.lab.lab import Lab
from lbmux.lab.topology import ananta_frr
from tests.lab.routed import services
from tests.labs import built

FRR_PROTOCOL = "186"  # RTPROT_BGP
installed = pytest.mark.skipif(
    not all(Path(frr_router.SEARCH, daemon).exists() for daemon in frr_router.DAEMONS), reason="frr is not installed"
)


@contextlib.contextmanager
def frr_lab() -> Iterator[Lab]:
    """All namespaces, and the router's FRR; muxes are the test's own."""
    with built(ananta_frr(), f"f{os.getpid()}", programs=False) as lab:
        lab.write_config(services(1))
        node = lab.topology.node("router")
        lab.start(node, node.programs[0], forked=True)
        yield lab


def ways(lab: Lab, family: str = "-4") -> dict[str, set[str]]:
    """The gateways of each route that FRR put into the kernel."""
    command = ["ip", family, "-N", "-j", "route", "show", "proto", FRR_PROTOCOL]
    routes = json.loads(lab.run("router", command, capture_output=True, text=True).stdout)
    return {route["dst"]: {hop["gateway"] for hop in route.get("nexthops", [route])} for route in routes}
