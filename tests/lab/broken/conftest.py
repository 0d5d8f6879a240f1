"""The labs of broken set-ups, one for each driver: all files break and mend the same two."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from lbmux.lab.lab import Lab
from lbmux.lab.topology import ananta
from tests.lab.broken.broken import Broken

Pools = Callable[[str], Broken]


@pytest.fixture(scope="package")
def pools() -> Iterator[Pools]:
    """A lab by its driver; none before it is asked for."""
    plain, made = ananta(), dict[str, Broken]()
    with contextlib.ExitStack() as stack:

        def pool(driver: str) -> Broken:
            if driver not in made:
                # Use a flow table that a test can fill, and no host probes: they would remove a host that
                # one test has cut off for the first seconds of the next test.
                config = plain.config | {"flows": {"limit": 1024}, "tunnel": {"probes": False}}
                topology = replace(plain, config=config)
                lab = Lab(topology, f"{driver[0]}broken{os.getpid()}", driver)
                stack.callback(lab.down)
                lab.up()
                made[driver] = Broken(lab, lab.config_in_force)
            return made[driver]

        yield pool


@pytest.fixture(scope="module")
def pool(pools: Pools) -> Broken:
    """Muxes and agents in user space."""
    return pools("packet")


@pytest.fixture(scope="module")
def kernel(pools: Pools) -> Broken:
    return pools("xdp")


@pytest.fixture(scope="module", params=["packet", "xdp"])
def either(pools: Pools, request: pytest.FixtureRequest) -> Broken:
    return pools(request.param)
