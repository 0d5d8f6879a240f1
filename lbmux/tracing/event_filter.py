"""Filter of trace events: the expressions of `lbmux trace` and `lbmux capture`.

The grammar is that of flows (lbmux.tables.flow_filter) without state, idle and worker, and with three more words:

================  ==============================================================
icmp              ICMP and ICMPv6
verdict NAME      the frame's verdict, by its name in `lbmux show counters`
drop              dropped by its verdict, or by the slow path, which neither sent nor kept it
================  ==============================================================
"""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import numpy as np

from lbmux.addresses import Address
from lbmux.datapath.verdicts import Verdict
from lbmux.tables.flow_filter import DIRECTIONS, END, TYPES, Network, Parser, is_address
from lbmux.tables.snapshot import Snapshot
from lbmux.tracing.trace_event import TraceEvent
from lbmux.wire.numbers import ICMP_PROTOCOL, ICMPV6_PROTOCOL

Test = Callable[[TraceEvent], np.bool_]


def parse(text: str, snapshot: Snapshot) -> Test:
    """Compile a filter; an empty one matches every frame.  Raises FilterError if it is invalid."""
    if not text.strip():
        return lambda event: np.True_
    test: Any = _FrameParser(text, snapshot).whole()
    return lambda event: np.bool_(test(event))


class _FrameParser(Parser):
    """The grammar of flows with tests of events.  They return np.bool_, on which its and, or and not work."""

    WORDS = (*DIRECTIONS, *TYPES, "tcp", "udp", "icmp", "ip", "ip6", "service", "backend", "verdict", "drop", "and",
             "or", "not")  # fmt: skip
    ALONE = ("icmp", "drop", "verdict")

    def _primitive(self) -> Any:
        if word := self._take(*self.ALONE):
            self._kind = None
            return getattr(self, f"_{word}")()
        word = self._peek()
        if word not in (*self.WORDS, END) and not (self._kind or is_address(word)):
            raise self._error(f"{word!r} does not apply to frames: use one of {', '.join(self.WORDS)}")
        return super()._primitive()

    def _icmp(self) -> Any:
        return lambda event: np.bool_(event.header_summary.protocol in (ICMP_PROTOCOL, ICMPV6_PROTOCOL))

    def _drop(self) -> Any:
        return lambda event: np.bool_(event.is_drop)

    def _verdict(self) -> Any:
        name = self._known("verdict", [verdict.label for verdict in Verdict])
        return lambda event: np.bool_(event.verdict.label == name)

    def _protocol(self, name: str) -> Any:
        if name in ("ip", "ip6"):
            wanted = IPv4Address if name == "ip" else IPv6Address
            return lambda event: np.bool_(isinstance(event.header_summary.source, wanted))
        return lambda event: np.bool_(event.header_summary.name == name)

    def _network(self, slash: bool) -> Any:
        text = self._value("an address or a network" if slash else "an address")
        try:
            network = ip_network(text) if slash else ip_network(ip_address(text))
        except ValueError as error:
            raise self._error(str(error), back=1) from error
        return (
            lambda event: _inside(network, event.header_summary.source),
            lambda event: _inside(network, event.header_summary.destination),
        )

    def _ports(self, first: int, last: int) -> Any:
        def within(port: int | None) -> np.bool_:
            return np.bool_(port is not None and first <= port <= last)

        return lambda event: within(event.header_summary.source_port), lambda event: within(event.header_summary.port)

    def _service(self) -> Any:
        name = self._known("service", [service.name for service in self._snapshot.services])
        return lambda event: np.bool_(event.service == name)

    def _backend(self) -> Any:
        pairs = [(s.name, b.name) for s, b in self._snapshot.owners.values()]
        name = self._known("backend", [b for _, b in pairs] + [f"{s}/{b}" for s, b in pairs])
        return lambda event: np.bool_(name in (event.backend, f"{event.service}/{event.backend}"))


def _inside(network: Network, address: Address | None) -> np.bool_:
    return np.bool_(address is not None and address.version == network.version and address in network)
