"""Labs that tests build and take down."""

import contextlib
from collections.abc import Iterator

from lbmux.lab.lab import Lab
from lbmux.lab.topology import Topology


@contextlib.contextmanager
def built(topology: Topology, name: str, driver: str = "auto", programs: bool = True) -> Iterator[Lab]:
    """Yield a lab, and take it down afterwards. A lab of that name that a killed run left is removed first."""
    lab = Lab(topology, name, driver)
    lab.down()
    try:
        lab.up(programs)
        yield lab
    finally:
        lab.down()
