"""The rules by which replies come to an agent in user space, in a namespace's own kernel."""

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any, TypeVar

import pytest
from pyroute2 import IPRoute

from lbmux.lab import namespaces, topology_builder
from lbmux.lab.topology import IPV6_SYSCTLS, Node, Topology
from lbmux.linux.policy_routes import (
    MARK,
    MARK_PRIORITY,
    PROTOCOL,
    REPLY_PRIORITY,
    TABLE,
    PolicyRoutes,
    ReplySource,
    remove_leftovers,
)

pytestmark = pytest.mark.root

DEVICE, DIP, DIP6 = "lbmux0", "10.1.1.2", "2001:db8:1:1::2"
WEB = ReplySource(ip_address(DIP), range(8080, 8081), "tcp")
DNS = ReplySource(ip_address(DIP), range(53, 56), "udp")
WEB6 = ReplySource(ip_address(DIP6), range(8080, 8081), "tcp")
ANY = ReplySource(ip_address(DIP), None, "tcp")
SETS = [{WEB}, {WEB, DNS}, {WEB, WEB6}, {ANY}, {DNS, WEB6}, set[ReplySource]()]
ADVMSS = {4: 1440, 6: 1400}
FAMILIES, TCP, UDP = {4: 2, 6: 10}, "tcp", "udp"
Result = TypeVar("Result")
Inside = Callable[[Callable[[], Result]], Result]


@pytest.fixture(scope="module")
def inside() -> Iterator[Inside[Any]]:
    """Do something in a namespace with a device of the agent's name, another that routes lead to, and two DIPs."""
    name = f"rules{os.getpid()}"
    topology_builder.build(Topology("rules", (Node("host", "host", IPV6_SYSCTLS),), (), {}), lambda node: name)

    def set_up() -> None:
        with IPRoute() as ip:
            ip.link("add", ifname=DEVICE, kind="veth", peer="out")
            for address, length in ((DIP, 24), (DIP6, 64)):
                ip.addr("add", index=ip.link_lookup(ifname="lo")[0], address=address, prefixlen=length)
            device, out = (ip.link_lookup(ifname=one)[0] for one in (DEVICE, "out"))
            for index in (device, out):
                ip.link("set", index=index, state="up")
            for version, destination in ((4, "0.0.0.0/0"), (6, "::/0")):
                ip.route("add", family=FAMILIES[version], dst=destination, oif=out)

    try:
        namespaces.inside(name, set_up)
        yield lambda work: namespaces.inside(name, work)
    finally:
        namespaces.remove(name)


@pytest.fixture(autouse=True)
def _nothing_left(inside: Inside[Any]) -> Iterator[None]:
    yield
    inside(remove_leftovers)


def rules() -> set[tuple[Any, ...]]:
    """Each rule of the agent's, as the kernel has it; a list with one twice would say so."""
    with IPRoute() as ip:
        installed = [
            (
                family,
                message["action"],
                tuple(sorted((n, str(v)) for n, v in message["attrs"] if n != "FRA_SUPPRESS_PREFIXLEN")),
            )
            for family in FAMILIES.values()
            for message in ip.get_rules(family=family)
            if message.get_attr("FRA_PROTOCOL") == PROTOCOL
        ]
    assert len(installed) == len(set(installed))
    return set(installed)


def device_of_reply(source: str, port: int, protocol: str = TCP, mark: int = 0) -> str:
    """Return the device by which the kernel would send such a packet."""
    destination = "2001:db8:100::2" if ":" in source else "198.51.100.2"
    command = ["ip", "-j", "route", "get", destination, "from", source, "ipproto", protocol, "sport", str(port)]
    ran = subprocess.run([*command, "dport", "40000", "mark", str(mark)], capture_output=True, text=True, check=True)
    return str(json.loads(ran.stdout)[0]["dev"])


def test_replies_of_a_backend_and_only_those_go_to_the_device(inside: Inside[Any]) -> None:
    inside(lambda: PolicyRoutes(DEVICE).set({WEB, DNS, WEB6}, ADVMSS))
    for source in (DIP, DIP6):
        assert inside(lambda: device_of_reply(source, 8080)) == DEVICE
        assert inside(lambda: device_of_reply(source, 8081)) == "out"
        assert inside(lambda: device_of_reply(source, 8080, UDP)) == "out"
        assert inside(lambda: device_of_reply(source, 8080, mark=MARK)) == "out", "what the agent sends"
    assert [inside(lambda: device_of_reply(DIP, port, UDP)) for port in (52, 53, 55, 56)] == [
        "out", DEVICE, DEVICE, "out",
    ]  # fmt: skip


def test_any_port_is_every_port(inside: Inside[Any]) -> None:
    inside(lambda: PolicyRoutes(DEVICE).set({ANY}, ADVMSS))
    assert inside(lambda: (device_of_reply(DIP, 1), device_of_reply(DIP, 65535))) == (DEVICE, DEVICE)


def test_another_set_replaces_the_rules_of_the_first(inside: Inside[Any]) -> None:
    """Whatever an earlier process, or an earlier configuration of the same one, left."""

    def set_by(*sets: set[ReplySource]) -> set[tuple[Any, ...]]:
        remove_leftovers()
        for sources in sets:
            PolicyRoutes(DEVICE).set(sources, ADVMSS)
        return rules()

    for after in SETS:
        wanted = inside(lambda: set_by(after))
        for before in SETS:
            assert inside(lambda: set_by(before, after)) == wanted, (before, after)


def test_rules_that_are_wanted_still_are_not_touched(inside: Inside[Any]) -> None:
    """A reply that left in between would have the DIP as its source."""

    def changed() -> list[str]:
        """The kernel's messages about rules while a set is repeated, and one backend goes."""
        PolicyRoutes(DEVICE).set({WEB, DNS}, ADVMSS)
        with IPRoute() as watching:
            watching.bind()
            PolicyRoutes(DEVICE).set({WEB, DNS}, ADVMSS)
            PolicyRoutes(DEVICE).set({WEB}, ADVMSS)
            PolicyRoutes(DEVICE).set({WEB, WEB6}, ADVMSS)
            events = []
            while not any(event.startswith("RTM_NEWRULE 10") and "8080" in event for event in events):
                for message in watching.get():
                    if "RULE" in message["event"]:
                        proto, ports = message.get_attr("FRA_IP_PROTO"), message.get_attr("FRA_SPORT_RANGE")
                        events.append(f"{message['event']} {message['family']} {proto} {ports}")
        return events

    events = inside(changed)
    assert not [event for event in events if event.startswith("RTM_NEWRULE 2 ")], events
    assert {event.split()[2] for event in events if event.startswith("RTM_DELRULE")} == {str(socket.IPPROTO_UDP)}


def test_rules_of_others_stay(inside: Inside[Any]) -> None:
    def others() -> list[Any]:
        with IPRoute() as ip:
            ip.rule("add", family=2, priority=REPLY_PRIORITY, src=DIP, src_len=32, table=254, protocol=4)
            PolicyRoutes(DEVICE).set({WEB}, ADVMSS)
            PolicyRoutes(DEVICE).set((), ADVMSS)
            remove_leftovers()
            return [one for one in ip.get_rules(family=2) if one.get_attr("FRA_PROTOCOL") == 4]

    assert len(inside(others)) == 1


def test_the_end_takes_all_rules_and_the_route_away(inside: Inside[Any]) -> None:
    def left() -> tuple[set[tuple[Any, ...]], int]:
        policy_routes = PolicyRoutes(DEVICE)
        policy_routes.set({WEB, WEB6, DNS}, ADVMSS)
        with IPRoute() as ip:
            assert any(one.get_attr("FRA_PRIORITY") == MARK_PRIORITY for one in ip.get_rules(family=2))
            policy_routes.close()
            return rules(), len(list(ip.get_routes(table=TABLE)))

    assert inside(left) == (set(), 0)
