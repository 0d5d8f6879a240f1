"""A mux in the kernel on a veth whose other end has no XDP program, as in a container, loses no frame."""

import os
from collections.abc import Iterator

import pytest

from lbmux.lab.lab import Lab
from tests.api.asking import ask
from tests.daemons.test_two_interfaces import send_and_receive, topology
from tests.labs import built

pytestmark = pytest.mark.root


@pytest.fixture
def lab() -> Iterator[Lab]:
    with built(topology("xdp", mode="auto", takes_xdp=False), f"mode-xdp-{os.getpid()}") as lab:
        yield lab


def test_generic_on_a_veth_by_default(lab: Lab) -> None:
    assert ask(lab.directory / "mux.sock", "runtime")["modes"] == {"xdp": "generic"}
    send_and_receive(lab)
