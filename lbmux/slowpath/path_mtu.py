"""Path MTU discovery from the mux to each host (RFC 1191, RFC 8201).

The ICMP errors are about outer packets, which the mux sent. They quote the outer header, and perhaps enough of the
client's packet to send the client an error (RFC 2003, section 4).
"""

from collections.abc import Container
from dataclasses import dataclass

from lbmux.addresses import Address
from lbmux.slowpath.icmp_quotes import quote_in
from lbmux.wire.header_layouts import ICMP_BYTES, ICMP_ERROR
from lbmux.wire.icmp_types import (
    NEEDS_FRAGMENTATION,
    TIME_EXCEEDED,
    UNREACHABLE,
    V6_TIME_EXCEEDED,
    V6_TOO_BIG,
    V6_UNREACHABLE,
)
from lbmux.wire.packet import Packet, read_ip

LIFETIME_S = 600.0
"""RFC 1191, section 6.3: after about ten minutes a larger MTU is tried again."""
LEAST_BYTES = {4: 552, 6: 1280}
"""The smallest credible MTU: a smaller one is probably forged (Linux has the same bound for IPv4)."""
PLATEAUS = (32000, 17914, 8166, 4352, 2002, 1492, 1006, 552)
"""RFC 1191, section 7.1: the MTUs to try if the router does not state one."""


@dataclass(frozen=True)
class OuterError:
    """An ICMP error. ``mtu_bytes``: the path MTU, if the packet was too big; ``quote``: the quoted outer packet."""

    mtu_bytes: int | None
    quote: Packet

    @property
    def host(self) -> Address:
        return self.quote.destination

    def least(self, floor_bytes: int) -> int | None:
        """Return the path MTU, at least ``floor_bytes``, or None if the packet would have fitted."""
        mtu_bytes = max(self.mtu_bytes or 0, floor_bytes, LEAST_BYTES[self.quote.version])
        return mtu_bytes if mtu_bytes < self.quote.length_bytes else None


def read_outer_error(error: Packet, hosts: Container[Address]) -> OuterError | None:
    """Read an ICMP error to the mux about its outer packet to one of the hosts. Return None for any other."""
    quote = read_ip(error.payload[ICMP_BYTES:], truncated=True)
    if quote is None or quote.destination not in hosts:  # before the checksum, which takes longer
        return None
    quote = quote_in(error)
    if quote is None or quote.source != error.destination or quote.offset_bytes:
        return None
    message = ICMP_ERROR.unpack(error.payload)
    kind, code = message.type, message.code
    if error.version == 4:
        if kind not in (UNREACHABLE, TIME_EXCEEDED):
            return None
        if kind != UNREACHABLE or code != NEEDS_FRAGMENTATION:
            return OuterError(None, quote)
        mtu = message.value & 0xFFFF  # the upper half is unused (RFC 1191, section 4)
        return OuterError(mtu or next((one for one in PLATEAUS if one < quote.length_bytes), LEAST_BYTES[4]), quote)
    if kind == V6_TOO_BIG:
        return OuterError(message.value, quote)
    return OuterError(None, quote) if kind in (V6_UNREACHABLE, V6_TIME_EXCEEDED) else None


class PathMtus:
    """The learned path MTUs in bytes, each kept for LIFETIME_S. ``of`` never returns more than the link's MTU."""

    def __init__(self) -> None:
        self._learned: dict[Address, tuple[float, int]] = {}
        self.changed: set[Address] = set()
        """Hosts whose path MTU has shrunk since this set was last cleared."""

    def learn(self, host: Address, mtu_bytes: int, now: float) -> None:
        """Learn a path MTU. A smaller one applies at once; a larger one is ignored until the known one expires."""
        until, known = self._learned.get(host, (0.0, 0))
        if until > now and mtu_bytes > known:
            return
        if until <= now or mtu_bytes < known:
            self.changed.add(host)
        self._learned[host] = (now + LIFETIME_S, mtu_bytes)

    def keep(self, hosts: Container[Address]) -> None:
        """Forget all other hosts."""
        self._learned = {host: one for host, one in self._learned.items() if host in hosts}

    def of(self, host: Address, link_bytes: int, now: float) -> int:
        until, mtu_bytes = self._learned.get(host, (0.0, 0))
        return min(link_bytes, mtu_bytes) if until > now else link_bytes

    def known(self, now: float) -> dict[Address, int]:
        """Return hosts and their path MTUs, and drop expired ones."""
        self._learned = {host: one for host, one in self._learned.items() if one[0] > now}
        return {host: mtu_bytes for host, (_, mtu_bytes) in self._learned.items()}
