"""Routes and rules that bring a host's replies to the agent, for agents that translate in user space.

A rule for every DIP and port sends what leaves from there to a table of its own, whose only route is the agent's
TUN device; packets that the agent sends carry a mark that passes these rules by.  Where IPv4 enters the path MTU that
an ICMP error told, it looks the route up without ports, and would enter it beside the one that the connection uses: so
look-ups without ports, and only those, are brought to that table by the DIP alone.  Everything has the agent's routing
protocol number, so that a later run finds and removes what a killed one left.
"""

import contextlib
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from lbmux.addresses import FAMILIES, Address
from lbmux.datapath.headers import TCP_PROTOCOL, UDP_PROTOCOL

TABLE = 9118
PROTOCOL = 140
MARK = 0x6C62  # "lb"
MARK_PRIORITY, REPLY_PRIORITY = 9118, 9119
SKIP_PRIORITY, PATH_PRIORITY, END_PRIORITY = 9120, 9121, 9122
ANY_SOURCE_PORT = "1:65534"
"""As far as the kernel lets a range of a rule go."""
MAIN_TABLE, SCOPE_LINK = 254, 253
PROTOCOLS = {"tcp": TCP_PROTOCOL, "udp": UDP_PROTOCOL}
EVERYTHING = {4: "0.0.0.0/0", 6: "::/0"}


@dataclass(frozen=True)
class ReplySource:
    """Where replies of one local backend leave from: its address and ports; none stands for any port."""

    dip: Address
    ports: range | None
    protocol: str


class PolicyRoutes:
    """The rules of one agent.  Its methods wait for the kernel: call them from a thread beside the event loop."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._sources: frozenset[ReplySource] = frozenset()
        self._advmss: dict[int, int] = {}

    def open(self) -> None:
        """What an earlier run left is removed."""
        remove_leftovers()

    def close(self) -> None:
        remove_leftovers()

    def set(self, sources: Iterable[ReplySource], advmss: Mapping[int, int]) -> None:
        """Bring the replies of exactly these backends.

        ``advmss``: by IP version, what hosts tell clients that they may send at most, in bytes of TCP payload.
        """
        wanted = frozenset(sources)
        with IPRoute() as ip:
            for version in {source.dip.version for source in wanted}:
                self._share(ip, version, advmss[version])
            for source in wanted - self._sources:
                ip.rule("add", **_rule(source))
            for source in self._sources - wanted:
                ip.rule("del", **_rule(source))
            before, after = _without_ports(self._sources), _without_ports(wanted)
            for place in after - before:
                for rule in _path_rules(*place):
                    ip.rule("add", **rule)
            for place in before - after:
                for rule in _path_rules(*place):
                    ip.rule("del", **rule)
        self._sources = wanted

    def _share(self, ip: Any, version: int, advmss: int) -> None:
        """Set up what all replies of a family share."""
        family, known = FAMILIES[version], version in self._advmss
        if self._advmss.get(version) == advmss:
            return
        index = ip.link_lookup(ifname=self._device)[0]
        ip.route(
            "replace", family=family, dst=EVERYTHING[version], oif=index, table=TABLE, proto=PROTOCOL,
            metrics={"advmss": advmss}, **({"scope": SCOPE_LINK} if version == 4 else {}),
        )  # fmt: skip
        if not known:
            ip.rule(
                "add", family=family, priority=MARK_PRIORITY, fwmark=MARK, table=MAIN_TABLE, protocol=PROTOCOL
            )
            ip.rule("add", family=family, priority=END_PRIORITY, action="nop", protocol=PROTOCOL)
            # Without a route there, past the agent's other rules: else what it sends would come back to it for ever.
            skip = {"action": "goto", "goto": END_PRIORITY}
            ip.rule("add", family=family, priority=MARK_PRIORITY, fwmark=MARK, protocol=PROTOCOL, **skip)
        self._advmss[version] = advmss


def _rule(source: ReplySource) -> dict[str, Any]:
    ports = {"sport_range": f"{source.ports[0]}:{source.ports[-1]}"} if source.ports else {}
    return {
        "family": FAMILIES[source.dip.version], "priority": REPLY_PRIORITY, "src": str(source.dip),
        "src_len": source.dip.max_prefixlen, "table": TABLE, "protocol": PROTOCOL,
        "ip_proto": PROTOCOLS[source.protocol], **ports,
    }  # fmt: skip


def _without_ports(sources: Iterable[ReplySource]) -> set[tuple[Address, str]]:
    """DIPs and protocols whose rules name ports; IPv6 enters path MTUs at the connection's own route."""
    return {(source.dip, source.protocol) for source in sources if source.ports and source.dip.version == 4}


def _path_rules(dip: Address, protocol: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Past the second rule with any port; without one, to the agent's table."""
    common = {
        "family": socket.AF_INET, "src": str(dip), "src_len": dip.max_prefixlen, "protocol": PROTOCOL,
        "ip_proto": PROTOCOLS[protocol],
    }  # fmt: skip
    skip = {"priority": SKIP_PRIORITY, "sport_range": ANY_SOURCE_PORT, "action": "goto", "goto": END_PRIORITY}
    return common | skip, common | {"priority": PATH_PRIORITY, "table": TABLE}


def remove_leftovers(protocol: int = PROTOCOL, table: int = TABLE) -> None:
    """Delete every rule with a routing protocol's number, and its routes in a table."""
    with IPRoute() as ip:
        for family in FAMILIES.values():
            for rule in ip.get_rules(family=family):
                if rule.get_attr("FRA_PROTOCOL") == protocol:
                    number, target = rule.get_attr("FRA_PRIORITY"), rule.get_attr("FRA_GOTO")
                    action = {"action": rule["action"], **({"goto": target} if target else {})}
                    ip.rule("del", family=family, priority=number, table=rule.get_attr("FRA_TABLE"), **action)
            with contextlib.suppress(NetlinkError):  # the table went with its device
                ip.flush_routes(family=family, table=table, proto=protocol)
