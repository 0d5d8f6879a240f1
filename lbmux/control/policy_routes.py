"""Routes and rules that bring a host's replies to the agent, for agents that translate in user space.

A rule for every DIP and port sends what leaves from there to a table of its own, whose only route is the agent's
TUN device; packets that the agent sends carry a mark that passes these rules by.  Everything has the
agent's routing protocol number, so that a later run finds and removes what a killed one left.
"""

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from lbmux.addresses import Address
from lbmux.datapath.headers import TCP_PROTOCOL, UDP_PROTOCOL

TABLE = 9118
PROTOCOL = 191
MARK = 0x6C62  # "lb"
MARK_PRIORITY, REPLY_PRIORITY = 9118, 9119
MAIN_TABLE = 254
PROTOCOLS = {"tcp": TCP_PROTOCOL, "udp": UDP_PROTOCOL}


@dataclass(frozen=True)
class ReplySource:
    """Where replies of one local backend leave from."""

    dip: Address
    port: int
    protocol: str


class PolicyRoutes:
    """The rules of one agent.  Its methods wait for the kernel: call them from a thread beside the event loop."""

    def __init__(self, device: str, advmss: int | None) -> None:
        """``advmss``: what hosts tell clients that they may send at most, in bytes of TCP payload; None: nothing."""
        self._device = device
        self._advmss = advmss
        self._sources: frozenset[ReplySource] = frozenset()

    def open(self) -> None:
        """Set up what all replies share; what an earlier run left is removed first."""
        remove_leftovers()
        with IPRoute() as ip:
            index = ip.link_lookup(ifname=self._device)[0]
            metrics: dict[str, Any] = {"metrics": {"advmss": self._advmss}} if self._advmss else {}
            ip.route("add", dst="0.0.0.0/0", oif=index, table=TABLE, proto=PROTOCOL, scope=253, **metrics)
            ip.rule("add", priority=MARK_PRIORITY, fwmark=MARK, table=MAIN_TABLE, protocol=PROTOCOL)

    def close(self) -> None:
        remove_leftovers()

    def set(self, sources: Iterable[ReplySource]) -> None:
        """Bring the replies of exactly these backends."""
        wanted = frozenset(sources)
        with IPRoute() as ip:
            for source in wanted - self._sources:
                ip.rule("add", **_rule(source))
            for source in self._sources - wanted:
                ip.rule("del", **_rule(source))
        self._sources = wanted


def _rule(source: ReplySource) -> dict[str, Any]:
    return {
        "priority": REPLY_PRIORITY, "src": str(source.dip), "src_len": 32, "table": TABLE, "protocol": PROTOCOL,
        "ip_proto": PROTOCOLS[source.protocol], "sport_range": f"{source.port}:{source.port}",
    }  # fmt: skip


def remove_leftovers() -> None:
    """Delete every rule and route with the agent's protocol number."""
    with IPRoute() as ip:
        for rule in ip.get_rules(family=socket.AF_INET):
            if rule.get_attr("FRA_PROTOCOL") == PROTOCOL:
                ip.rule("del", priority=rule.get_attr("FRA_PRIORITY"), table=rule.get_attr("FRA_TABLE"))
        try:
            ip.flush_routes(table=TABLE, proto=PROTOCOL)
        except NetlinkError:
            return  # the table went with its device
