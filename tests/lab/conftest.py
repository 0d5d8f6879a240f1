"""What tests of routers share."""

import os
from collections.abc import Iterator

import pytest

from lbmux.lab.lab import Lab
from lbmux.lab.topology import ananta_bgp
from tests.lab.routed import services
from tests.labs import built


@pytest.fixture
def lab() -> Iterator[Lab]:
    """All namespaces, and the router's BIRD; muxes are the test's own."""
    with built(ananta_bgp(), f"b{os.getpid()}", programs=False) as lab:
        lab.write_config(services(1))
        yield lab
