"""A mux cannot forward without its interface, or without the program that it insists on."""

import logging
from typing import Any

import pytest

from lbmux.daemons.announcement import is_up
from lbmux.daemons.forwarding_check import ForwardingCheck
from lbmux.frames.packet_ring import PacketRing
from tests.frames.pair import Pair
from tests.lab.routed import until

pytestmark = pytest.mark.root


class FakeKernel:
    attached = True

    def is_attached(self) -> bool:
        return self.attached


class FakeDriver:
    def __init__(self) -> None:
        self.kernel = FakeKernel()


def can_forward(pair: Pair, driver: Any, insists: bool = False) -> ForwardingCheck:
    with pair.inside("a", lambda: PacketRing("a0")) as ring:
        return ForwardingCheck(ring, driver, insists)


def recreate(pair: Pair) -> None:
    def again(ip: Any, index: int) -> None:
        ip.link("del", index=index)
        ip.link("add", ifname="a0", kind="veth", peer={"ifname": "a1"})
        for name in ("a0", "a1"):
            ip.link("set", index=ip.link_lookup(ifname=name)[0], state="up")

    pair.netlink("a", again)


def test_an_interface_that_is_down_or_of_another_making_is_not_able(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    able_to_forward = can_forward(pair, FakeDriver())
    assert pair.inside("a", able_to_forward)
    pair.set_link("a", state="down")
    assert not pair.inside("a", able_to_forward)
    pair.set_link("a", state="up")
    until(lambda: pair.inside("a", able_to_forward))
    recreate(pair)
    until(lambda: pair.inside("a", lambda: is_up("a0")))
    with caplog.at_level(logging.ERROR):
        assert [pair.inside("a", able_to_forward) for _ in range(3)] == [False] * 3
    assert caplog.messages.count("cannot forward: interface a0 was recreated, and is not open yet") == 1


@pytest.mark.parametrize(("insists", "wanted"), [(True, False), (False, True)])
def test_a_mux_without_its_program_continues_in_user_space_unless_it_insists(
    pair: Pair, insists: bool, wanted: bool
) -> None:
    driver = FakeDriver()
    able_to_forward = can_forward(pair, driver, insists)
    assert pair.inside("a", able_to_forward)
    driver.kernel.attached = False
    assert pair.inside("a", able_to_forward) is wanted
