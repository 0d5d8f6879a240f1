"""Routes and rules that direct a host's replies to the agent, for agents that translate in user space.

A rule for every DIP and port directs replies to a separate table, whose only route is the agent's TUN device. Packets
that the agent sends carry a mark that bypasses these rules. When IPv4 records the path MTU from an ICMP error, it looks
up the route without ports and would record it for another route than the connection's. Look-ups without ports, and only
those, are therefore directed to that table by the DIP alone. All rules and routes have the agent's routing protocol
number.

When an agent ends, killed or not, rules and device stay until the next one takes over: the device drops the replies,
because no process reads them. A reply that left with the DIP as its source would end its connection. ``set`` therefore
compares the installed rules with the wanted ones, and only ``remove_leftovers`` removes them all.

ICMP errors about a VIP's packets also come from a DIP. In a route look-up the ICMP type and code take the place of the
destination port, so a port range selects the errors.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from lbmux.addresses import FAMILIES, Address
from lbmux.datapath.tables import AGENT_MARK
from lbmux.wire.numbers import ICMP_PROTOCOL, ICMPV6_PROTOCOL, TCP_PROTOCOL, UDP_PROTOCOL

TABLE = 9118
PROTOCOL = 140
MARK = AGENT_MARK
MARK_PRIORITY, REPLY_PRIORITY = 9118, 9119
SKIP_PRIORITY, PATH_PRIORITY, END_PRIORITY = 9120, 9121, 9122
ANY_SOURCE_PORT = "1:65534"
"""The widest port range that the kernel accepts in a rule."""
MAIN_TABLE, SCOPE_LINK = 254, 253
PROTOCOLS = {"tcp": TCP_PROTOCOL, "udp": UDP_PROTOCOL}
ICMP_ERRORS = {4: (ICMP_PROTOCOL, "768:3327"), 6: (ICMPV6_PROTOCOL, "256:1279")}
"""ICMP errors by IP version: types 3 to 12 of ICMP, 1 to 4 of ICMPv6, each with any code."""
TO_TABLE = 1
"""The rule action FR_ACT_TO_TBL (linux/fib_rules.h)."""
Rule = dict[str, Any]
EVERYTHING = {4: "0.0.0.0/0", 6: "::/0"}


@dataclass(frozen=True)
class ReplySource:
    """The source of one local backend's replies: its address and its ports (None: any port)."""

    dip: Address
    ports: range | None
    protocol: str


class PolicyRoutes:
    """The rules of one agent. Its methods block on the kernel: call them from a thread, not from the event loop."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._advmss: dict[int, int] = {}

    def close(self) -> None:
        remove_leftovers()

    def set(self, sources: Iterable[ReplySource], advmss: Mapping[int, int]) -> None:
        """Direct the replies of exactly these backends to the agent, whatever rules an earlier run left.

        ``advmss`` is the MSS that hosts advertise to clients, in bytes, by IP version.
        """
        sources = frozenset(sources)
        wanted = {_key(rule): rule for rule in _rules(sources)}
        with IPRoute() as ip:
            for version in {source.dip.version for source in sources}:
                self._route(ip, version, advmss[version])
            installed = {_key(rule): rule for rule in _installed_rules(ip, PROTOCOL)}
            # Rules that others jump to are added first and deleted last.
            for key in sorted((key for key in wanted if key not in installed), key=lambda key: -key[1]):
                ip.rule("add", **wanted[key])
            for key in sorted((key for key in installed if key not in wanted), key=lambda key: key[1]):
                ip.rule("del", **installed[key])

    def _route(self, ip: Any, version: int, advmss: int) -> None:
        """Set the route that all replies of a family share."""
        if self._advmss.get(version) == advmss:
            return
        index = ip.link_lookup(ifname=self._device)[0]
        ip.route(
            "replace", family=FAMILIES[version], dst=EVERYTHING[version], oif=index, table=TABLE, proto=PROTOCOL,
            metrics={"advmss": advmss}, **({"scope": SCOPE_LINK} if version == 4 else {}),
        )  # fmt: skip
        self._advmss[version] = advmss


def _rules(sources: Iterable[ReplySource]) -> Iterator[Rule]:
    """Yield all wanted rules, some more than once."""
    for source in sources:
        family = FAMILIES[source.dip.version]
        yield {"family": family, "priority": MARK_PRIORITY, "fwmark": MARK, "table": MAIN_TABLE, "protocol": PROTOCOL}
        # If the main table has no route, skip the agent's other rules, or its own packets would loop back to it.
        skip = {"action": "goto", "goto": END_PRIORITY}
        yield {"family": family, "priority": MARK_PRIORITY, "fwmark": MARK, "protocol": PROTOCOL} | skip
        yield {"family": family, "priority": END_PRIORITY, "action": "nop", "protocol": PROTOCOL}
        yield _rule(source)
        yield _icmp_rule(source.dip)
        if source.ports and source.dip.version == 4:  # IPv6 records path MTUs at the connection's own route
            yield from _path_rules(source.dip, source.protocol)


def _of(dip: Address) -> Rule:
    return {
        "family": FAMILIES[dip.version], "src": str(dip), "src_len": dip.max_prefixlen, "protocol": PROTOCOL,
    }  # fmt: skip


def _rule(source: ReplySource) -> Rule:
    ports = {"sport_range": f"{source.ports[0]}:{source.ports[-1]}"} if source.ports else {}
    protocol = PROTOCOLS[source.protocol]
    return _of(source.dip) | {"priority": REPLY_PRIORITY, "table": TABLE, "ip_proto": protocol, **ports}


def _icmp_rule(dip: Address) -> Rule:
    protocol, types = ICMP_ERRORS[dip.version]
    return _of(dip) | {"priority": REPLY_PRIORITY, "table": TABLE, "ip_proto": protocol, "dport_range": types}


def _path_rules(dip: Address, protocol: str) -> tuple[Rule, Rule]:
    """Return two rules: look-ups with any port skip the second one, look-ups without go to the agent's table."""
    common = _of(dip) | {"ip_proto": PROTOCOLS[protocol]}
    skip = {"priority": SKIP_PRIORITY, "sport_range": ANY_SOURCE_PORT, "action": "goto", "goto": END_PRIORITY}
    return common | skip, common | {"priority": PATH_PRIORITY, "table": TABLE}


def _key(rule: Rule) -> tuple[Any, ...]:
    """Return a key that identifies a rule. Family and priority come first."""
    names = ("src", "ip_proto", "sport_range", "dport_range", "fwmark", "table", "goto")
    return (rule["family"], rule["priority"], *(str(rule.get(name) or "") for name in names))


def _installed_rules(ip: Any, protocol: int) -> Iterator[Rule]:
    """Yield the installed rules with a routing protocol number, in the form in which they are added."""
    names = {
        "priority": "FRA_PRIORITY", "src": "FRA_SRC", "ip_proto": "FRA_IP_PROTO", "sport_range": "FRA_SPORT_RANGE",
        "dport_range": "FRA_DPORT_RANGE", "fwmark": "FRA_FWMARK", "goto": "FRA_GOTO",
    }  # fmt: skip
    for family in FAMILIES.values():
        for message in ip.get_rules(family=family):
            if message.get_attr("FRA_PROTOCOL") == protocol:
                attributes = {name: message.get_attr(attribute) for name, attribute in names.items()}
                rule = {name: value for name, value in attributes.items() if value is not None}
                rule |= {"family": family, "protocol": protocol, "action": message["action"]}
                rule |= {"src_len": message["src_len"]} if "src" in rule else {}
                yield rule | ({"table": message.get_attr("FRA_TABLE")} if message["action"] == TO_TABLE else {})


def earlier_rules(dip: Address) -> list[str]:
    """Return the rules by source that take a DIP's replies before the agent's rules do.

    `ip rule add` without a priority puts a rule before all others but the first.
    """
    with IPRoute() as ip:
        rules = [
            (message.get_attr("FRA_PRIORITY") or 0, f"{message.get_attr('FRA_SRC')}/{message['src_len']}", message)
            for message in ip.get_rules(family=FAMILIES[dip.version])
            if message.get_attr("FRA_SRC") and message["action"] == TO_TABLE
        ]
    return [
        f"`{priority}: from {source} lookup {message.get_attr('FRA_TABLE')}`"
        for priority, source, message in rules
        if priority < MARK_PRIORITY and dip in ip_network(source)
    ]


def remove_leftovers(protocol: int = PROTOCOL, table: int = TABLE) -> None:
    """Delete every rule with a routing protocol number, and its routes in a table."""
    with IPRoute() as ip:
        for rule in list(_installed_rules(ip, protocol)):
            ip.rule("del", **rule)
        for family in FAMILIES.values():
            with contextlib.suppress(NetlinkError):  # the table was removed with its device
                ip.flush_routes(family=family, table=table, proto=protocol)
