"""On an interface with another XDP program, ``auto`` falls back to user space, and ``xdp`` fails with the reason."""

import dataclasses
from collections.abc import Iterator

import pytest

from lbmux.errors import LabError
from lbmux.lab.lab import Lab
from lbmux.lab.topology import Link, Topology
from tests.api.asking import ask
from tests.daemons.test_two_interfaces import send_and_receive, topology

pytestmark = pytest.mark.root


def occupied(driver: str) -> Topology:
    """The mux's interface has a program, as if of another tool."""
    made = topology(driver)
    first = made.links[0]
    busy = Link(first.a, dataclasses.replace(first.b, takes_xdp=True))
    return dataclasses.replace(made, links=(busy, *made.links[1:]))


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    made = Lab(occupied(request.param), "fallback")
    made.down()
    try:
        yield made
    finally:
        made.down()


@pytest.mark.parametrize("lab", ["auto"], indirect=True)
def test_auto_forwards_in_user_space(lab: Lab) -> None:
    lab.up()
    assert ask(lab.directory / "mux.sock", "runtime")["driver"] == "packet"
    assert "another XDP program is attached" in (lab.directory / "mux-mux.log").read_text()
    send_and_receive(lab)


@pytest.mark.parametrize("lab", ["xdp"], indirect=True)
def test_xdp_by_name_ends_with_the_reason(lab: Lab) -> None:
    with pytest.raises(LabError, match="ended with 1") as raised:
        lab.up()
    assert "another XDP program is attached" in str(raised.value)
    assert "Traceback" not in str(raised.value)
