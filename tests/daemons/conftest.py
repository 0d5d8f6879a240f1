"""One network of namespaces for all daemons; the router sends VIPs to mux1 only."""

import os
from collections.abc import Iterator

import pytest

from lbmux.lab.lab import Lab
from lbmux.lab.namespaces import set_route
from lbmux.lab.topology import VIP, VIP6, Route, ananta
from tests.labs import built


@pytest.fixture(autouse=True)
def no_order_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Remove stored overrides and health states, so that the next test's daemons start without them."""
    lab = request.getfixturevalue("lab") if "lab" in request.fixturenames else None
    yield
    if lab is not None:
        for kept in (*lab.directory.glob("*.overrides"), *lab.directory.glob("*.found")):
            kept.unlink()


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    with built(ananta(), f"p{os.getpid()}", programs=False) as lab:
        lab.inside("router", lambda: set_route(Route(f"{VIP}/32", ("10.0.1.2",))))
        lab.inside("router", lambda: set_route(Route(f"{VIP6}/128", ("2001:db8:0:1::2",))))
        yield lab
