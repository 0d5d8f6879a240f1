"""Routes with an operator's changes to all of them or to those of one VIP."""

from ipaddress import IPv4Address, IPv4Network, IPv6Network

import pytest

from lbmux.bgp.announced import Announced, BgpState, Commands, after_command, announced_routes, described
from lbmux.bgp.bgp_settings import Route

ONE, TWO = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
WANTED = [Route(IPv4Network(ONE)), Route(IPv4Network(TWO), True), Route(IPv6Network("2001:db8::1"))]
HELD = Announced(is_held=True)


@pytest.mark.parametrize(("commands", "announced"), [
    ({}, {("192.0.2.1/32", False, 0), ("192.0.2.2/32", True, 0), ("2001:db8::1/128", False, 0)}),
    (
        {None: Announced(prepended=2)},
        {("192.0.2.1/32", False, 2), ("192.0.2.2/32", True, 2), ("2001:db8::1/128", False, 2)},
    ),
    ({None: Announced(length=24, length6=48)}, {("192.0.2.0/24", False, 0), ("2001:db8::/48", False, 0)}),
    ({None: Announced(is_held=True, prepended=2)}, set()),
    ({ONE: HELD}, {("192.0.2.2/32", True, 0), ("2001:db8::1/128", False, 0)}),
    (
        {None: Announced(prepended=1), TWO: Announced(prepended=3)},
        {("192.0.2.1/32", False, 1), ("192.0.2.2/32", True, 3), ("2001:db8::1/128", False, 1)},
    ),
    ({None: Announced(length=24), ONE: HELD}, {("192.0.2.0/24", True, 0), ("2001:db8::1/128", False, 0)}),
    (
        {None: Announced(length=24), TWO: Announced(prepended=3)},
        {("192.0.2.0/24", False, 0), ("2001:db8::1/128", False, 0)},
    ),
    ({None: HELD, ONE: Announced(prepended=1)}, set()),
])  # fmt: skip
def test_a_command_changes_paths_and_lengths_of_prefixes(commands: Commands, announced: set[object]) -> None:
    assert {tuple([str(one.prefix), *one[1:3]]) for one in announced_routes(commands, WANTED)} == announced


def test_a_command_replaces_earlier_ones_about_the_same_vip_and_one_about_all_replaces_them_all() -> None:
    commands = after_command({}, ONE, HELD)
    assert commands == {ONE: HELD} and after_command(commands, ONE, Announced(prepended=1)) == {
        ONE: Announced(prepended=1)
    }
    assert after_command(commands, None, HELD) == {None: HELD}
    assert after_command(commands, ONE, Announced()) == after_command(commands, None, Announced()) == {}
    assert after_command(commands, TWO, HELD) == {ONE: HELD, TWO: HELD}


def test_words_for_people() -> None:
    assert described(HELD) == "withdrawn" and described(Announced()) == "announced as /32 and /128"
    assert described(Announced(False, 1, 24)) == "announced as /24 and /128, with the own AS prepended 1 time"
    assert BgpState("bird", [], [], {None: HELD, ONE: HELD, TWO: Announced(prepended=1)}).withdrawn == [ONE]


@pytest.mark.parametrize("by", ["a command", "the mux"])
def test_a_black_hole_is_announced_as_the_whole_address(by: str) -> None:
    one, wide = IPv4Network(ONE), {None: Announced(length=24)}
    if by == "a command":
        announced = announced_routes({**wide, ONE: Announced(is_black_hole=True)}, WANTED)
    else:
        announced = announced_routes(wide, [route._replace(is_black_hole=route.prefix == one) for route in WANTED])
    assert {str(route.prefix): route.is_black_hole for route in announced} == {
        "192.0.2.1/32": True, "192.0.2.0/24": False, "2001:db8::1/128": False,
    }  # fmt: skip
